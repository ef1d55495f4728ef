//! One life of the node: from its start to the kill, and never longer than the harness.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{sync::oneshot, time::Instant};

use crate::{living::Token, weather::Weather};

/// A start takes a hundredth of this, also after a kill.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Of a node that was asked to end: what runs may finish in this time, then it is killed.
const DRAIN_S: &str = "0.3";
/// A clean end takes the drain and little more.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How often a node that ends is asked whether it has.
const END_POLL: Duration = Duration::from_millis(5);
/// A parent that waits for its child holds an instance meanwhile; all may be held so, and then the
/// children are refused after this time.
const QUEUE_TIMEOUT_S: &str = "2";

/// What every life of a run has in common.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The built `quell`.
    pub program: PathBuf,
    /// Its data folder, kept over all lives.
    pub data: PathBuf,
    /// Where what it says goes.
    pub log: PathBuf,
    /// What its processes are known by.
    pub token: Token,
    /// What it lives in.
    pub weather: Arc<Weather>,
    /// The database that it shares with others, and for how long it may be silent there; none: it has its own.
    pub shared: Option<Sharing>,
}

/// How a node shares its store.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// Where the database is.
    pub url: String,
    /// Its lease.
    pub lease: Duration,
}

/// A started node. Dropped it is killed, so that no panic and no Ctrl-C leaves one behind.
#[derive(Debug)]
pub struct Life {
    /// The how manieth.
    pub number: u32,
    child: Child,
    listening: Option<oneshot::Receiver<String>>,
}

impl Setting {
    /// Starts a life.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(&self, number: u32) -> anyhow::Result<Life> {
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--drain", DRAIN_S])
            // Its functions write into the ledger, which is the harness' own.
            .args(["--queue-timeout", QUEUE_TIMEOUT_S, "--runtime-user", "node", "--data"])
            .arg(&self.data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if let Some(Sharing { url, lease }) = &self.shared {
            command.args(["--store", url, "--lease", &lease.as_secs().to_string()]);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("QUELL_") {
                command.env_remove(name);
            }
        }
        command.env("PATH", self.token.path(number));
        self.weather.clear()?;
        self.weather.rule(&mut command);
        let mut child = command.spawn().with_context(|| self.program.display().to_string())?;
        let stderr = child.stderr.take();
        let (tell, listening) = oneshot::channel();
        // From here on it is killed when this fails.
        let life = Life { number, child, listening: Some(listening) };
        let mut log = File::options().create(true).append(true).open(&self.log)?;
        writeln!(log, "== life {number}")?;
        let stderr = stderr.context("its stderr was asked for")?;
        std::thread::spawn(move || keep_log(stderr, log, tell));
        Ok(life)
    }
}

/// Ends when the node has: nobody else holds the other end.
fn keep_log(stderr: ChildStderr, mut log: File, tell: oneshot::Sender<String>) {
    let mut tell = Some(tell);
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        // A full disk costs the log, not the run.
        drop(writeln!(log, "{line}"));
        if let Some((_, endpoint)) = line.split_once("listening on ")
            && let Some(tell) = tell.take()
        {
            drop(tell.send(endpoint.to_owned())); // a life that is killed at its start is not awaited
        }
    }
}

impl Life {
    /// Waits until it listens; where.
    ///
    /// # Errors
    /// When it ends before, or takes too long.
    pub async fn ready(&mut self) -> anyhow::Result<String> {
        let listening = self.listening.take().context("it was awaited before")?;
        match tokio::time::timeout(START_LIMIT, listening).await {
            Ok(Ok(endpoint)) => Ok(endpoint),
            Ok(Err(_)) => bail!("life {} ended while it started: {:?}", self.number, self.child.wait()),
            Err(_) => bail!("life {} did not listen after {START_LIMIT:?}", self.number),
        }
    }

    /// Sends it a signal that does not end it.
    ///
    /// # Errors
    /// When the system refuses, or it has ended.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.still_there()?;
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        Ok(pidfd_send_signal(&pidfd, signal)?)
    }

    /// A node ends when it is told to, and never else.
    ///
    /// # Errors
    /// When it has.
    pub fn still_there(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("life {} had ended by itself: {status}", self.number),
            None => Ok(()),
        }
    }

    /// SIGKILL, and the exit collected.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.still_there()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and the orderly end that follows it.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        pidfd_send_signal(&pidfd, Signal::TERM)?;
        let status = self.ended().await?;
        ensure!(status.success(), "life {} was asked to end and did so with {status}", self.number);
        Ok(())
    }

    async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < deadline, "life {} did not end in {END_LIMIT:?}", self.number);
            tokio::time::sleep(END_POLL).await;
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Ended already, mostly.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The last lines of the log, for a failure.
#[must_use]
pub fn last_words(log: &Path, lines: usize) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut last: Vec<String> = text.lines().rev().take(lines).map(str::to_owned).collect();
    last.reverse();
    last
}
