//! A PostgreSQL server for what nodes share: made in a folder that goes with it, ended with the harness however that
//! ends, durable as it is in earnest.

use std::{
    future::poll_fn,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::sys::{
    signal::Signal,
    statfs::{TMPFS_MAGIC, statfs},
};
use tempfile::TempDir;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket, tls::NoTlsStream};

use crate::node::LIMIT;

/// Where Debian puts the server's programs, which are on nobody's PATH.
const DEBIAN: &str = "/usr/lib/postgresql";
/// A row that is updated and told of: the least that one node can do for another through the database.
const TABLE: &str = "CREATE TABLE bare (id int PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 50); INSERT INTO bare VALUES (1, 0)";
const COMMIT: &str = "BEGIN; UPDATE bare SET n = n + 1 WHERE id = 1; SELECT pg_notify('bare', ''); COMMIT";

/// A server that runs.
pub(crate) struct Postgres {
    _folder: TempDir,
    port: u16,
    running: Child,
    pub(crate) version: String,
}

impl Postgres {
    /// Makes one on a disk, and starts it with its own defaults, `fsync` among them. The error is why this machine cannot.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let programs = programs()?;
        let folder = on_a_disk()?;
        let version = Command::new(programs.join("postgres")).arg("--version").output()?;
        let data = folder.path().join("data");
        let mut initdb = program(&programs, "initdb", folder.path())?;
        let made = initdb
            .arg("-D")
            .arg(&data)
            .args(["-A", "trust", "-U", "quell", "-E", "UTF8", "--locale=C"])
            .stdin(Stdio::null())
            .output()
            .context("setpriv, which starts initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr).trim());
        let free = std::net::TcpListener::bind("127.0.0.1:0")?;
        let port = free.local_addr()?.port();
        drop(free);
        let mut server = program(&programs, "postgres", folder.path())?;
        let mut running = server
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=127.0.0.1",
                "-c",
                &format!("port={port}"),
                "-c",
                "max_connections=300",
            ])
            .args(["-c", &format!("unix_socket_directories={}", folder.path().display())])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = BufReader::new(running.stderr.take().context("no stderr")?);
        let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        let started = Self { _folder: folder, port, running, version };
        let (ready, told) = mpsc::channel();
        std::thread::spawn(move || {
            // To its end: it must never wait for its log to be read.
            for line in stderr.lines().map_while(Result::ok) {
                if line.contains("ready to accept connections") {
                    ready.send(()).ok(); // nobody waits any more
                }
            }
        });
        told.recv_timeout(LIMIT).context("PostgreSQL did not start")?;
        Ok(started)
    }

    /// How a database of it is reached.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://quell@127.0.0.1:{}/{database}", self.port)
    }

    /// A connection of the bench's own.
    pub(crate) async fn client(&self, database: &str) -> anyhow::Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await?;
        tokio::spawn(connection); // it ends with the client
        Ok(client)
    }

    /// A database more.
    pub(crate) async fn create(&self, database: &str) -> anyhow::Result<()> {
        self.client("postgres").await?.batch_execute(&format!("CREATE DATABASE {database}")).await?;
        Ok(())
    }

    /// The floor of what one node says to another.
    pub(crate) async fn bare(&self) -> anyhow::Result<Bare> {
        self.create("bare").await?;
        let writer = self.client("bare").await?;
        writer.batch_execute(TABLE).await?;
        let (listener, mut hears) = tokio_postgres::connect(&self.url("bare"), NoTls).await?;
        {
            let mut listen = std::pin::pin!(listener.batch_execute("LISTEN bare"));
            loop {
                tokio::select! {
                    done = &mut listen => break done?,
                    message = poll_fn(|cx| hears.poll_message(cx)) => drop(message.context("it hung up")??),
                }
            }
        }
        Ok(Bare { writer, hears, _listener: listener })
    }
}

impl Drop for Postgres {
    #[expect(clippy::disallowed_methods, reason = "our own child, not reaped yet")]
    fn drop(&mut self) {
        let server = nix::unistd::Pid::from_raw(self.running.id().cast_signed());
        // At once, without a last checkpoint: its data go with its folder.
        nix::sys::signal::kill(server, Signal::SIGQUIT).ok(); // it has ended by itself
        drop(self.running.wait());
    }
}

/// One connection that commits and one that hears of it.
pub(crate) struct Bare {
    writer: Client,
    hears: Connection<Socket, NoTlsStream>,
    _listener: Client,
}

impl Bare {
    /// From the ask for a transaction that updates a row and notifies, in one message, to both: it is committed, and the other
    /// connection has heard.
    pub(crate) async fn told(&mut self) -> anyhow::Result<Duration> {
        let hears = &mut self.hears;
        let heard = async {
            loop {
                let message = poll_fn(|cx| hears.poll_message(cx)).await.context("it hung up")??;
                if matches!(message, AsyncMessage::Notification(_)) {
                    return anyhow::Ok(());
                }
            }
        };
        let committed = async { anyhow::Ok(self.writer.batch_execute(COMMIT).await?) };
        let start = Instant::now();
        tokio::try_join!(committed, heard)?;
        Ok(start.elapsed())
    }
}

/// A folder that is not in memory: there a sync would cost nothing.
fn on_a_disk() -> anyhow::Result<TempDir> {
    let beside = std::env::current_exe()?;
    let candidates =
        [std::env::temp_dir(), "/var/tmp".into(), beside.parent().context("no folder")?.to_owned()];
    for folder in candidates {
        if statfs(&folder).is_ok_and(|found| found.filesystem_type() != TMPFS_MAGIC) {
            let passable = std::fs::Permissions::from_mode(0o755);
            let made = tempfile::Builder::new()
                .prefix("quell-bench-pg-")
                .permissions(passable)
                .tempdir_in(folder)?;
            if let Some(user) = other_user()? {
                nix::unistd::chown(made.path(), Some(user.uid), Some(user.gid))?;
            }
            return Ok(made);
        }
    }
    bail!("there is no folder on a disk for PostgreSQL's data")
}

/// The user that the server runs as, where this program is root: the server refuses to be.
fn other_user() -> anyhow::Result<Option<nix::unistd::User>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user = nix::unistd::User::from_name("postgres")?;
    Ok(Some(user.context("PostgreSQL does not run as root, and there is no user postgres")?))
}

/// One of its programs. It dies with the thread that starts it at the latest: the harness's first.
fn program(programs: &Path, name: &str, folder: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = other_user()? {
        let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
        command.args(["--reuid", &uid, "--regid", &gid, "--init-groups"]);
    }
    command.arg(programs.join(name)).current_dir(folder).env("LC_ALL", "C");
    Ok(command)
}

fn programs() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().map_while(Result::ok);
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    found.sort();
    found.extend(std::env::split_paths(&path));
    let all = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    found
        .into_iter()
        .rfind(all)
        .with_context(|| format!("no PostgreSQL server on the PATH or below {DEBIAN}"))
}
