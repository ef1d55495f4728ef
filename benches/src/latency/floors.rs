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

/// A process that says "." once it stands, and then does what the runtime under test does when it is
/// killed: nothing.
pub(crate) fn standing(command: &mut Command) -> anyhow::Result<Child> {
    let mut child = started(command)?;
    stands(&mut child)?;
    Ok(child)
}

pub(crate) fn started(command: &mut Command) -> anyhow::Result<Child> {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    command.spawn().context("its program")
}

pub(crate) fn stands(child: &mut Child) -> anyhow::Result<()> {
    child.stdout.as_mut().context("no stdout")?.read_exact(&mut [0]).context("it does not stand")
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
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Sleeper {
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = standing(command)?;
        let to = child.stdin.take().context("no stdin")?;
        let from = child.stdout.take().context("no stdout")?;
        Ok(Self { child, to, from })
    }

    pub(crate) fn wake(&mut self) -> anyhow::Result<Duration> {
        let mut byte = [b'.'];
        let start = Instant::now();
        self.to.write_all(&byte)?;
        self.from.read_exact(&mut byte)?;
        Ok(start.elapsed())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // It has nothing to save.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Says "." and answers each byte with one, until its input ends.
pub(crate) const ECHO_PYTHON: &str = "import os, sys
os.write(1, b'.')
while os.read(0, 1): os.write(1, b'.')
";

/// The same in JavaScript.
pub(crate) const ECHO_NODE: &str =
    "process.stdout.write('.'); process.stdin.on('data', () => process.stdout.write('.'))";
