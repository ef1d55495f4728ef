//! A PostgreSQL server of a test's own: made in a folder that goes with it, ended with the test however that ends.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use super::LIMIT;

/// Where Debian puts the server's programs, which are on nobody's PATH.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The port of one that is alone on its machine.
const ALONE: u16 = 5432;
/// What a server says when it takes connections, and what a standby says.
const READY: [&str; 2] = ["ready to accept connections", "ready to accept read-only connections"];

pub struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    address: String,
    port: u16,
    /// The network namespace it runs in, if it has one of its own.
    space: Option<String>,
    running: Option<Child>,
}

impl Postgres {
    /// A new server that listens on this address and a free port.
    pub fn start(address: &str) -> Self {
        Self::made(Self::prepared(address, free_port(address)))
    }

    /// The same on a machine of its own, of this address.
    pub fn start_in(space: &str, address: &str) -> Self {
        let mut server = Self::prepared(address, ALONE);
        server.space = Some(space.to_owned());
        Self::made(server)
    }

    fn made(mut server: Self) -> Self {
        let made = server
            .program("initdb")
            .arg("-D")
            .arg(server.data())
            .args(["-A", "trust", "-U", "quell", "-N", "-E", "UTF8", "--locale=C"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let rules = server.data().join("pg_hba.conf");
        let mut rules = std::fs::OpenOptions::new().append(true).open(rules).unwrap();
        writeln!(rules, "host all all 0.0.0.0/0 trust").unwrap();
        writeln!(rules, "host replication all 0.0.0.0/0 trust").unwrap();
        server.begin();
        server
    }

    /// A standby of this server, at this address: what this one acknowledges from now on the standby has.
    pub fn standby(&self, address: &str) -> Self {
        self.standby_at(address, free_port(address))
    }

    /// The same on the port of a server that is down.
    pub fn standby_in_place_of(&self, down: &Self) -> Self {
        assert!(down.running.is_none());
        self.standby_at(&down.address, down.port)
    }

    fn standby_at(&self, address: &str, port: u16) -> Self {
        let mut standby = Self::prepared(address, port);
        let from = format!("host={} port={} user=quell", self.address, self.port);
        let copied = standby
            .program("pg_basebackup")
            .args(["--checkpoint=fast", "--no-sync", "--wal-method=stream", "--write-recovery-conf"])
            .args(["-d", &from, "-D"])
            .arg(standby.data())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(copied.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&copied.stderr));
        standby.begin();
        // After the copy, which has the settings too: once promoted it must not wait for a standby that it has not.
        self.ask("ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.ask("SELECT pg_reload_conf()");
        standby
    }

    /// Makes a standby the server that takes writes; returns when it does.
    pub fn promote(&self) {
        let done = self
            .program("pg_ctl")
            .args(["promote", "-w", "-t", "60", "-D"])
            .arg(self.data())
            .output()
            .unwrap();
        assert!(done.status.success(), "pg_ctl promote: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A folder and a port for it, and nothing in it.
    fn prepared(address: &str, port: u16) -> Self {
        let passable = std::fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().prefix("quell-pg-").permissions(passable).tempdir().unwrap();
        if nix::unistd::geteuid().is_root() {
            let user = nix::unistd::User::from_name("postgres")
                .unwrap()
                .expect("user postgres of the Debian package");
            nix::unistd::chown(folder.path(), Some(user.uid), Some(user.gid)).unwrap();
        }
        Self { folder, programs: programs(), address: address.to_owned(), port, space: None, running: None }
    }

    /// How nodes reach it.
    pub fn url(&self) -> String {
        format!("postgres://quell@{}/postgres", self.host())
    }

    /// The same by either of two servers, whichever takes writes; this one is looked at first.
    pub fn url_with(&self, other: &Self) -> String {
        format!("postgres://quell@{},{}/postgres", self.host(), other.host())
    }

    fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// Starts it (again) on the same data and port; returns when it takes connections.
    pub fn begin(&mut self) {
        assert!(self.running.is_none());
        let mut child = self
            .program("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-c", &format!("listen_addresses={}", self.address), "-c", &format!("port={}", self.port)])
            .args([
                "-c",
                "max_connections=200",
                "-c",
                "tcp_keepalives_idle=5",
                "-c",
                "tcp_user_timeout=10000",
            ])
            .arg("-c")
            .arg(format!("unix_socket_directories={}", self.folder.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (ready, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if std::env::var_os("QUELL_TEST_LOG").is_some() {
                    eprintln!("postgres: {line}");
                }
                if READY.iter().any(|words| line.contains(words)) {
                    ready.send(()).ok();
                }
            }
        });
        told.recv_timeout(LIMIT).expect("the database server did not start");
        self.running = Some(child);
    }

    /// Ends it in order, connections and all.
    pub fn end(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGINT);
    }

    /// Kills it, as a power loss would.
    pub fn crash(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGQUIT);
    }

    fn signal(&mut self, signal: nix::sys::signal::Signal) {
        let Some(mut child) = self.running.take() else { return };
        // Not reaped yet, so its number is its own.
        #[expect(clippy::disallowed_methods, reason = "our own child, not reaped yet: the pid is its own")]
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), signal).unwrap();
        child.wait().unwrap();
    }

    /// One value of a query, as text.
    pub fn ask(&self, query: &str) -> String {
        let asked = Command::new(self.programs.join("psql"))
            .args(["-h", &self.address, "-p", &self.port.to_string(), "-U", "quell", "-d", "postgres"])
            .args(["-qAtX", "-c", query])
            .output()
            .unwrap();
        assert!(asked.status.success(), "{query}: {}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8_lossy(&asked.stdout).trim().to_owned()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// One of its programs; the server refuses to be root. It dies with the thread that starts it at the latest.
    fn program(&self, name: &str) -> Command {
        let mut command = match &self.space {
            Some(space) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{space}")).arg("setpriv");
                command
            }
            None => Command::new("setpriv"),
        };
        command.args(["--pdeathsig", "KILL"]);
        if nix::unistd::geteuid().is_root() {
            command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]);
        }
        command.arg(self.programs.join(name)).current_dir(self.folder.path()).env("LC_ALL", "C");
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}

fn free_port(address: &str) -> u16 {
    std::net::TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

fn programs() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("no PostgreSQL below {DEBIAN}: install postgresql (see .ci/run)"))
}
