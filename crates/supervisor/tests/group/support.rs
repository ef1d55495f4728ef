//! A node of its own for a test, processes that report through a FIFO, and pidfds that tell who died.

use std::{
    ffi::OsString,
    future::Future,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use cancel::InstanceId;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use supervisor::group::{
    Containment, Group, HelperProgram, Isolation, LeaseClock, Limits, SpawnOrder, Spawner,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    net::unix::pipe,
};

/// No test takes longer, whatever goes wrong.
pub(crate) const HARD_LIMIT: Duration = Duration::from_secs(30);
/// An end that must succeed.
pub(crate) const END: Duration = Duration::from_secs(10);

static NODES: AtomicU64 = AtomicU64::new(0);

/// Fails a test that takes too long.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HARD_LIMIT, work).await.expect("the hard limit of the test")
}

/// Runs a test with cgroup leaves where they work, and with process groups alone: there the main process
/// is the runtime itself.
pub(crate) async fn in_each_isolation(test: impl AsyncFn(Node)) {
    let leaves = Containment::probe(&fresh_name(), Isolation::Cgroup, &helper());
    match &leaves {
        Ok(probed) => probed.close().unwrap(),
        Err(error) => println!("no leaves here: {error}"),
    }
    for isolation in [Isolation::Cgroup, Isolation::ProcessGroup] {
        if isolation == Isolation::Cgroup && leaves.is_err() {
            continue;
        }
        println!("isolation: {isolation:?}");
        within(test(Node::new(isolation))).await;
    }
}

pub(crate) fn helper() -> HelperProgram {
    // Elsewhere for a user who cannot read this tree.
    let program = std::env::var_os("QUELL_TEST_HELPER").map(PathBuf::from);
    let program = program.unwrap_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_quell-instance-init")));
    HelperProgram { program, args: Vec::new(), user: None }
}

/// A name that no other node has, in this process or another.
pub(crate) fn fresh_name() -> String {
    format!("test-{}-{}", std::process::id(), NODES.fetch_add(1, Ordering::Relaxed))
}

pub(crate) struct Node {
    pub(crate) containment: Arc<Containment>,
    pub(crate) spawner: Spawner,
    instances: AtomicU64,
    pub(crate) dir: tempfile::TempDir,
}

impl Node {
    pub(crate) fn new(isolation: Isolation) -> Self {
        Self::named(&fresh_name(), isolation, helper())
    }

    pub(crate) fn named(name: &str, isolation: Isolation, helper: HelperProgram) -> Self {
        let containment = Arc::new(Containment::probe(name, isolation, &helper).unwrap());
        Self::of(containment, helper, None)
    }

    /// One that shares its database: what it runs may run as long as the clock says.
    pub(crate) fn leased(isolation: Isolation, clock: &LeaseClock) -> Self {
        let containment = Containment::probe(&fresh_name(), isolation, &helper()).unwrap();
        Self::of(Arc::new(containment), helper(), Some(clock.clone()))
    }

    fn of(containment: Arc<Containment>, helper: HelperProgram, lease: Option<LeaseClock>) -> Self {
        let spawner = Spawner::start(helper, Arc::clone(&containment), lease).unwrap();
        Self { containment, spawner, instances: AtomicU64::new(1), dir: tempfile::tempdir().unwrap() }
    }

    /// Whether there are leaves; says so if not, since half of a test is then not made.
    pub(crate) fn has_leaves(&self) -> bool {
        let leaves = self.containment.base().is_some();
        if !leaves {
            let leaf = self.containment.layers().iter().find(|layer| layer.id == "L2").unwrap();
            println!("no leaves here: {leaf}");
        }
        leaves
    }

    pub(crate) fn order(&self, program: &str, args: &[&str]) -> SpawnOrder {
        SpawnOrder {
            instance: InstanceId(self.instances.fetch_add(1, Ordering::Relaxed)),
            program: program.into(),
            args: args.iter().map(OsString::from).collect(),
            env: vec![("PATH".into(), std::env::var_os("PATH").unwrap())],
            cwd: self.dir.path().to_owned(),
            keep: Vec::new(),
            limits: Limits::default(),
            listen: Vec::new(),
        }
    }

    /// Spawned, and not let go.
    pub(crate) async fn held(&self, program: &str, args: &[&str]) -> Group {
        self.spawner.spawn(self.order(program, args)).await.unwrap()
    }

    /// Spawned and let go. The script finds the FIFO of `reports` as its last argument.
    pub(crate) async fn run(&self, program: &str, args: &[&str]) -> Group {
        let group = self.held(program, args).await;
        group.go().unwrap();
        group
    }

    /// A shell script whose `$1` is the FIFO.
    pub(crate) async fn sh(&self, script: &str, reports: &Reports) -> Group {
        self.run("sh", &["-c", script, "sh", reports.path()]).await
    }

    /// A Python program whose `sys.argv[1]` is the FIFO; `report(text)` writes a line to it.
    pub(crate) async fn python(&self, program: &str, reports: &Reports) -> Group {
        let whole = format!(
            "import os, sys, time, signal, ctypes, threading\n\
             def report(text):\n    \
                 with open(sys.argv[1], 'w') as fifo: fifo.write(str(text) + '\\n')\n\
             {program}"
        );
        self.run("python3", &["-c", &whole, reports.path()]).await
    }

    pub(crate) fn reports(&self) -> Reports {
        Reports::at(self.dir.path().join(format!("fifo-{}", NODES.fetch_add(1, Ordering::Relaxed))))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.containment.close() {
            println!("what the node had of its own stays: {error}");
        }
    }
}

/// Asks for a spawn and goes away: before the thread can have answered, or after it has and nobody took
/// what it made.
pub(crate) async fn abandon_a_spawn(node: &Node, answered: bool) {
    let spawn = loop {
        let mut spawn = Box::pin(node.spawner.spawn(node.order("sleep", &["1000"])));
        match futures_util::poll!(spawn.as_mut()) {
            Poll::Pending => break spawn,
            // The thread was as fast as the poll: nothing to abandon, once more.
            Poll::Ready(group) => drop(group.unwrap().end(END).await.unwrap()),
        }
    };
    let mut abandoned = Some(spawn).filter(|_| answered);
    // The thread takes one order after the other: this one is made when that one is over.
    let next = node.held("true", &[]).await;
    drop(abandoned.take());
    next.end(END).await.unwrap();
}

/// Lines that processes of a test report.
pub(crate) struct Reports {
    path: String,
    lines: Lines<BufReader<pipe::Receiver>>,
}

impl Reports {
    pub(crate) fn at(path: PathBuf) -> Self {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Read and write: it has no end while the test holds it.
        let pipe = pipe::OpenOptions::new().read_write(true).open_receiver(&path).unwrap();
        Self { path: path.to_str().unwrap().to_owned(), lines: BufReader::new(pipe).lines() }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) async fn line(&mut self) -> String {
        self.lines.next_line().await.unwrap().unwrap()
    }

    /// A process that reported its number, while it lives.
    pub(crate) async fn process(&mut self) -> Watched {
        Watched::of(self.line().await.trim().parse().unwrap())
    }
}

/// A process, pinned.
pub(crate) struct Watched(OwnedFd);

impl Watched {
    pub(crate) fn of(pid: i32) -> Self {
        Self(pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap())
    }

    /// Whether it, with all its threads, has ended: now, without waiting.
    pub(crate) fn is_dead(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    /// Waits for its end.
    pub(crate) fn wait(&self) {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let limit = Timespec { tv_sec: HARD_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
        assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "still alive");
    }

    pub(crate) fn kill(&self) {
        pidfd_send_signal(&self.0, Signal::KILL).unwrap();
        self.wait();
    }
}

/// Leaves present in a node's folder.
pub(crate) fn leaves(base: &Path) -> Vec<String> {
    let dirs = std::fs::read_dir(base).unwrap().map(|entry| entry.unwrap());
    let dirs = dirs.filter(|entry| entry.file_type().unwrap().is_dir());
    dirs.map(|entry| entry.file_name().into_string().unwrap()).collect()
}
