//! A PostgreSQL server of the run's own: made in a folder that goes with it, killed and started again as a run wants
//! it, and ended with the harness however that ends.

use std::{
    fs::{File, Permissions},
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Where Debian puts the server's programs, which are on nobody's PATH; a folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// It refuses to be root; this is the user of Debian's package.
const USER: &str = "postgres";
/// Recovery after a kill takes a hundredth of this.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The server listens here and nowhere else.
const ADDRESS: &str = "127.0.0.1";

/// The server. Dropped it is killed; it dies with the thread that started it at the latest.
#[derive(Debug)]
pub struct Database {
    folder: TempDir,
    programs: PathBuf,
    log: PathBuf,
    port: u16,
    running: Option<Child>,
}

impl Database {
    /// A new server that takes connections; what it says goes to `log`.
    ///
    /// # Errors
    /// When there is no PostgreSQL on this machine (the message says what to install), or it cannot be set up.
    pub async fn create(log: PathBuf) -> anyhow::Result<Self> {
        // In a folder that another user may pass through, which that of the run need not be.
        let passable = Permissions::from_mode(0o755);
        let folder =
            tempfile::Builder::new().prefix("quell-chaos-database-").permissions(passable).tempdir()?;
        let port = TcpListener::bind((ADDRESS, 0))?.local_addr()?.port();
        let mut server = Self { folder, programs: programs()?, log, port, running: None };
        if geteuid().is_root() {
            let (user, group) = ids()?;
            chown(server.folder.path(), Some(user), Some(group))?;
        }
        let data = server.data();
        let mut make = server.program("initdb");
        make.arg("-D").arg(&data).args(["-A", "trust", "-U", "quell", "-N", "-E", "UTF8", "--locale=C"]);
        let made = make.stdin(Stdio::null()).output().context("setpriv cannot be run")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.begin().await?;
        Ok(server)
    }

    /// How nodes reach it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://quell@{ADDRESS}:{}/postgres", self.port)
    }

    /// Starts it (again) on the same data and port; returns when it takes connections.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn begin(&mut self) -> anyhow::Result<()> {
        ensure!(self.running.is_none(), "the database server runs already");
        let mut start = self.program("postgres");
        start.arg("-D").arg(self.data());
        start.args(["-c", &format!("listen_addresses={ADDRESS}"), "-c", &format!("port={}", self.port)]);
        // After a kill all its files are synced before anything else: as one file system, not one by one.
        start.args(["-c", "max_connections=200", "-c", "recovery_init_sync_method=syncfs"]);
        start.arg("-c").arg(format!("unix_socket_directories={}", self.folder.path().display()));
        let mut child = start
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("setpriv")?;
        let stderr = child.stderr.take();
        self.running = Some(child); // from here on it is killed when this fails
        let mut log = File::options().create(true).append(true).open(&self.log)?;
        writeln!(log, "== started")?;
        let stderr = stderr.context("its stderr was asked for")?;
        let (tell, ready) = oneshot::channel();
        std::thread::spawn(move || keep_log(stderr, log, tell));
        match tokio::time::timeout(START_LIMIT, ready).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => bail!("the database server ended while it started; see {}", self.log.display()),
            Err(_) => {
                bail!("the database server did not start in {START_LIMIT:?}; see {}", self.log.display())
            }
        }
    }

    /// Kills it as a loss of power would: what is not on the disk is lost, and no one is told goodbye.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn crash(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.running.take() else { return Ok(()) };
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        pidfd_send_signal(&pidfd, Signal::QUIT)?;
        child.wait()?;
        Ok(())
    }

    /// Leaves the data where they are, for whoever wants to know what is in them.
    pub fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if geteuid().is_root() {
            command.args(["--reuid", USER, "--regid", USER, "--init-groups"]);
        }
        command.arg(self.programs.join(name)).current_dir(self.folder.path()).env("LC_ALL", "C");
        command
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Whatever is in the way, it dies with this thread.
        drop(self.crash());
    }
}

/// Ends when the server has.
fn keep_log(stderr: ChildStderr, mut log: File, tell: oneshot::Sender<()>) {
    let mut tell = Some(tell);
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        // A full disk costs the log, not the run.
        drop(writeln!(log, "{line}"));
        if line.contains("ready to accept connections")
            && let Some(tell) = tell.take()
        {
            tell.send(()).ok(); // whoever waited has given up
        }
    }
}

/// The newest that is there.
fn programs() -> anyhow::Result<PathBuf> {
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    let what = format!(
        "there is no PostgreSQL below {DEBIAN}: install its server, package postgresql (see .ci/run)"
    );
    found.max().context(what)
}

/// Number and group of the server's user.
fn ids() -> anyhow::Result<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line =
        lines.find(|fields| fields.first() == Some(&USER)).with_context(|| format!("no user {USER}"))?;
    match line[..] {
        [_, _, user, group, ..] => Ok((user.parse()?, group.parse()?)),
        _ => bail!("the line of {USER} in /etc/passwd is none"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_killed_server_takes_no_connections_and_started_again_it_does() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Database::create(folder.path().join("log")).await.unwrap();
        let connects = |server: &Database| TcpStream::connect((ADDRESS, server.port)).is_ok();
        assert!(connects(&server));
        server.crash().unwrap();
        assert!(!connects(&server));
        server.begin().await.unwrap();
        assert!(connects(&server) && server.begin().await.is_err());
        let data = server.data();
        drop(server);
        assert!(!data.exists());
    }
}
