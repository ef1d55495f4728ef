//! The least that anything could take: a bare request, a bare commit, a bare kill, a bare wake.
//! Where a promise needs the disk as well, both are under way at once and the slower counts.

use std::{
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use reqwest::Client;
use serde_json::json;
use store::{Embedded, Store as _};
use tempfile::TempDir;

use crate::accept::{self, Floor};

/// A server that does nothing, or commits one row, in a process of its own as the node is.
pub(crate) struct BareServer {
    floor: Floor,
    http: Client,
}

impl BareServer {
    pub(crate) fn start() -> anyhow::Result<Self> {
        // The client wants one, TLS or not; Err: there is one.
        drop(rustls::crypto::ring::default_provider().install_default());
        // As the node's own client: kept connections.
        let http = Client::builder().no_proxy().build()?;
        Ok(Self { floor: Floor::start()?, http })
    }

    /// A request with the body of a cancel, answered with what a cancel is answered with.
    pub(crate) async fn round_trip(&self) -> anyhow::Result<Duration> {
        self.post("/empty").await
    }

    /// The same, and one row committed by a group commit before the answer.
    pub(crate) async fn commit(&self) -> anyhow::Result<Duration> {
        self.post("/accept").await
    }

    async fn post(&self, path: &str) -> anyhow::Result<Duration> {
        let body = json!({ "request_id": uuid::Uuid::new_v4().to_string(), "type": "force" });
        let start = Instant::now();
        let request = self.http.post(format!("{}{path}", self.floor.base())).header("X-Auth-Token", "none");
        let reply = request.json(&body).send().await?;
        ensure!(reply.status().is_success(), "{}", reply.status());
        drop(reply.bytes().await?);
        Ok(start.elapsed())
    }
}

/// A process, and whatever it starts: killed with its group if nobody has until then.
pub(crate) struct Standing {
    child: Child,
    /// All of the group are collected: its number may be somebody else's.
    collected: bool,
}

impl Standing {
    pub(crate) fn group(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(crate) fn collected(&mut self) {
        self.collected = true;
    }

    /// Waits for its ".": it stands, and then does what the runtime under test does when it is killed: nothing.
    pub(crate) fn stands(&mut self) -> anyhow::Result<()> {
        self.child.stdout.as_mut().context("no stdout")?.read_exact(&mut [0]).context("it does not stand")
    }

    /// SIGKILL to the exit collected, of one that has started nothing.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        kill(&mut self.child)?;
        self.collected = true;
        Ok(())
    }
}

impl Drop for Standing {
    #[expect(clippy::disallowed_methods, reason = "its leader is not reaped: the number is still its own")]
    fn drop(&mut self) {
        if !self.collected {
            // Gone already: then there is nothing to do.
            killpg(self.group(), Signal::SIGKILL).ok();
            drop(self.child.wait());
        }
    }
}

/// Starts one, in a group of its own.
pub(crate) fn started(command: &mut Command) -> anyhow::Result<Standing> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    Ok(Standing { child: command.spawn().context("its program")?, collected: false })
}

pub(crate) fn standing(command: &mut Command) -> anyhow::Result<Standing> {
    let mut standing = started(command)?;
    standing.stands()?;
    Ok(standing)
}

/// SIGKILL to the exit collected.
pub(crate) fn kill(child: &mut Child) -> anyhow::Result<()> {
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// The store of the node on the same disk, in this process.
pub(crate) struct Disk {
    store: Embedded,
    _dir: TempDir,
}

impl Disk {
    pub(crate) fn open() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?; // where the nodes have their data
        Ok(Self { store: Embedded::open(dir.path())?, _dir: dir })
    }

    /// One row's group commit and something else, started together; to the end of the slower. This thread
    /// blocks: handing either to another would be charged to the floor.
    pub(crate) fn beside(&self, act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Duration> {
        tokio::task::block_in_place(|| {
            let (tell, told) = std::sync::mpsc::sync_channel(1);
            let row = accept::row(Bytes::from_static(b"{}"));
            let start = Instant::now();
            // Err: nobody waits any more, since the act has failed.
            self.store.accept_then(row, Box::new(move |outcome| drop(tell.send(outcome))));
            act()?;
            told.recv().context("the store is gone")??;
            Ok(start.elapsed())
        })
    }
}

/// A process that waits for a byte and says one: what waking a runtime takes.
pub(crate) struct Sleeper {
    to: ChildStdin,
    from: ChildStdout,
    _standing: Standing,
}

impl Sleeper {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut standing = standing(command)?;
        let to = standing.child.stdin.take().context("no stdin")?;
        let from = standing.child.stdout.take().context("no stdout")?;
        Ok(Self { to, from, _standing: standing })
    }

    pub(crate) fn wake(&mut self) -> anyhow::Result<Duration> {
        let mut byte = [b'.'];
        let start = Instant::now();
        self.to.write_all(&byte)?;
        self.from.read_exact(&mut byte)?;
        Ok(start.elapsed())
    }
}

/// Wakes all of them, side by side; to the answer of the slowest.
pub(crate) fn wake_all(sleepers: &mut [Sleeper]) -> anyhow::Result<Duration> {
    let mut byte = [b'.'];
    let start = Instant::now();
    for sleeper in &mut *sleepers {
        sleeper.to.write_all(&byte)?;
    }
    for sleeper in sleepers {
        sleeper.from.read_exact(&mut byte)?;
    }
    Ok(start.elapsed())
}

/// SIGKILL to all of them, to the last exit collected.
pub(crate) fn kill_all<'a>(children: impl Iterator<Item = &'a mut Child>) -> anyhow::Result<Duration> {
    let mut children: Vec<&mut Child> = children.collect();
    let start = Instant::now();
    children.iter_mut().try_for_each(|child| child.kill())?;
    for child in children {
        child.wait()?;
    }
    Ok(start.elapsed())
}

/// Says "." and answers each byte with one, until its input ends.
pub(crate) const ECHO_PYTHON: &str = "import os, sys
os.write(1, b'.')
while os.read(0, 1): os.write(1, b'.')
";

/// The same in JavaScript.
pub(crate) const ECHO_NODE: &str =
    "process.stdout.write('.'); process.stdin.on('data', () => process.stdout.write('.'))";
