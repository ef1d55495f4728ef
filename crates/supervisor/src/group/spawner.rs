//! Spawning: one dedicated thread that lives as long as the spawner, because PDEATHSIG is tied to the
//! thread that made the child, and because a spawn may block on a slow disk.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cancel::InstanceId;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, oneshot},
};

use super::{
    containment::{Containment, GroupError, Mechanism},
    ending::Proof,
    exit::Exit,
    init::{GO, NO_LEAF},
    leaf::Leaf,
    output::Output,
    pgid::Pgid,
    process::{self, Member},
    watch::watch,
};

/// Orders that may wait for the thread; each is a fraction of a millisecond of work.
const ORDERS: usize = 1_024;
/// A spawn that has not returned after this (a program on a dead network disk) is given up; if it
/// returns after all, what it made is ended.
const SPAWN_LIMIT: Duration = Duration::from_secs(10);
/// Processes shown of one instance.
const MAX_MEMBERS: usize = 256;

/// The program that becomes a runtime: this binary under a hidden argument.
#[derive(Clone, Debug)]
pub struct HelperProgram {
    /// The program.
    pub program: PathBuf,
    /// Arguments before the helper's own.
    pub args: Vec<OsString>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct SpawnOrder {
    /// For which instance; names its leaf.
    pub instance: InstanceId,
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub cwd: PathBuf,
}

/// Why nothing was spawned. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The leaf could not be made.
    #[error("cannot make the cgroup leaf {path}: {error}")]
    Leaf {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The process could not be made.
    #[error("cannot spawn: {0}")]
    Spawn(#[from] io::Error),
    /// It took too long.
    #[error("spawning took longer than {} s", SPAWN_LIMIT.as_secs())]
    TimedOut,
    /// The spawner has ended.
    #[error("the spawner has ended")]
    Ended,
}

/// The spawner thread's front.
pub struct Spawner {
    orders: mpsc::Sender<(SpawnOrder, oneshot::Sender<Result<Raw, SpawnError>>)>,
}

/// A child as the thread made it.
struct Raw {
    child: Child,
    pidfd: OwnedFd,
    leaf: Option<Leaf>,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(helper: HelperProgram, containment: Arc<Containment>) -> Result<Self, GroupError> {
        let (orders, mut inbox) = mpsc::channel::<(SpawnOrder, oneshot::Sender<_>)>(ORDERS);
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                while let Some((order, answer)) = inbox.blocking_recv() {
                    let made = make(&helper, &containment, order);
                    if let Err(Ok(unwanted)) = answer.send(made) {
                        end_unwanted(unwanted);
                    }
                }
            })
            .map_err(GroupError::Thread)?;
        Ok(Self { orders })
    }

    /// Makes a process that waits for [`Group::go`] inside its leaf. Dropping the future ends what it
    /// may have made.
    ///
    /// # Errors
    /// See [`SpawnError`]; nothing is left of a failed spawn.
    pub async fn spawn(&self, order: SpawnOrder) -> Result<Group, SpawnError> {
        let instance = order.instance;
        let (answer, made) = oneshot::channel();
        self.orders.send((order, answer)).await.map_err(|_| SpawnError::Ended)?;
        let made = tokio::time::timeout(SPAWN_LIMIT, made).await.map_err(|_| SpawnError::TimedOut)?;
        Group::of(instance, made.map_err(|_| SpawnError::Ended)??)
    }
}

fn make(helper: &HelperProgram, containment: &Containment, order: SpawnOrder) -> Result<Raw, SpawnError> {
    let leaf = match containment.leaf_path(order.instance) {
        None => None,
        Some(path) => Some(Leaf::make(path.clone()).map_err(|error| {
            let path = path.display().to_string();
            SpawnError::Leaf { path, error }
        })?),
    };
    let spawned = spawn_child(helper, leaf.as_ref().map(Leaf::path), order);
    match spawned {
        Ok((child, pidfd)) => Ok(Raw { child, pidfd, leaf }),
        Err(error) => {
            if let Some(Err(error)) = leaf.map(|leaf| leaf.remove()) {
                tracing::warn!(%error, "a leaf that was never used is left behind");
            }
            Err(error.into())
        }
    }
}

pub(super) fn spawn_child(
    helper: &HelperProgram,
    leaf: Option<&Path>,
    order: SpawnOrder,
) -> io::Result<(Child, OwnedFd)> {
    let leaf = leaf.map_or(OsString::from(NO_LEAF), |leaf| leaf.as_os_str().to_owned());
    let mut child = Command::new(&helper.program)
        .args(&helper.args)
        .arg(std::process::id().to_string())
        .arg(leaf)
        .arg(order.program)
        .args(order.args)
        .env_clear()
        .envs(order.env)
        .current_dir(order.cwd)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    // The child is ours and unreaped: its number is its own.
    match pidfd_open(pid_of(&child), PidfdFlags::empty()) {
        Ok(pidfd) => Ok((child, pidfd)),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error.into())
        }
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Ends what nobody waits for any more. It was never let go, so nothing of a runtime was executed.
fn end_unwanted(raw: Raw) {
    let Raw { mut child, leaf, .. } = raw;
    drop(child.stdin.take());
    let ended = child.kill().and_then(|()| child.wait());
    let removed = leaf.map_or(Ok(()), |leaf| leaf.remove());
    if let (Err(error), _) | (_, Err(error)) = (ended, removed) {
        tracing::error!(%error, "a late spawn could not be ended cleanly");
    }
}

/// The main process: signalled only while its number is its own.
#[derive(Debug)]
pub(super) enum Leader {
    /// Running, or a zombie: its pid and group number are pinned.
    Unreaped(Pgid),
    /// Collected.
    Reaped(Exit),
}

/// One instance's processes. Dropping it before [`Group::end`] has proven them gone kills them as well
/// as it can: a net for bugs, not a way to end an instance.
pub struct Group {
    pub(super) instance: InstanceId,
    pid: u32,
    pub(super) pidfd: AsyncFd<OwnedFd>,
    pub(super) leader: Mutex<Leader>,
    pub(super) leaf: Option<Leaf>,
    go: Mutex<Option<ChildStdin>>,
    output: Mutex<Option<Output>>,
    pub(super) proof: tokio::sync::Mutex<Option<Proof>>,
}

impl Group {
    fn of(instance: InstanceId, raw: Raw) -> Result<Self, SpawnError> {
        let Raw { mut child, pidfd, leaf } = raw;
        let pid = pid_of(&child);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let output = match (stdout, stderr) {
            (Some(stdout), Some(stderr)) => Output::of(stdout, stderr).map(Some),
            _ => Ok(None),
        };
        let parts = output.and_then(|output| Ok((output, watch(pidfd)?)));
        match parts {
            Ok((output, pidfd)) => Ok(Self {
                instance,
                pid: child.id(),
                pidfd,
                leader: Mutex::new(Leader::Unreaped(Pgid::of_unreaped(pid))),
                leaf,
                go: Mutex::new(child.stdin.take()),
                output: Mutex::new(output),
                proof: tokio::sync::Mutex::new(None),
            }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                if let Some(leaf) = leaf {
                    leaf.remove()?;
                }
                Err(error.into())
            }
        }
    }

    /// The main process' number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What contains it.
    pub fn mechanism(&self) -> Mechanism {
        if self.leaf.is_some() { Mechanism::Cgroup } else { Mechanism::ProcessGroup }
    }

    /// Lets the runtime be executed. Before this nothing of it was.
    ///
    /// # Errors
    /// When the helper is gone already.
    pub fn go(&self) -> Result<(), GroupError> {
        let line = self.go.lock().unwrap_or_else(PoisonError::into_inner).take();
        match line {
            Some(mut line) => line.write_all(&[GO]).map_err(GroupError::Go),
            None => Ok(()),
        }
    }

    pub(super) fn close_go(&self) {
        self.go.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// SIGTERM, and SIGCONT so that a stopped process gets it, to the process group.
    ///
    /// # Errors
    /// When the kernel refuses; that nobody is left is no error.
    pub fn terminate(&self) -> Result<(), GroupError> {
        match &*self.leader.lock().unwrap_or_else(PoisonError::into_inner) {
            Leader::Reaped(_) => Ok(()),
            Leader::Unreaped(group) => {
                let sent = group.signal(Signal::TERM).and_then(|()| group.signal(Signal::CONT));
                sent.map_err(|error| GroupError::Signal(error.into()))
            }
        }
    }

    /// Resolves when the main process has ended, without collecting it: its number stays its own.
    /// Cancellation-safe; any number of tasks may wait.
    ///
    /// # Errors
    /// When the kernel does not say how it ended.
    pub async fn exited(&self) -> Result<Exit, GroupError> {
        loop {
            let mut readable = self.pidfd.readable().await.map_err(GroupError::Wait)?;
            if let Some(exit) = self.status(WaitIdOptions::NOWAIT)? {
                return Ok(exit);
            }
            if let Leader::Reaped(exit) = *self.leader.lock().unwrap_or_else(PoisonError::into_inner) {
                return Ok(exit);
            }
            // Readable without a status: a tracer has yet to let go of it. Wait for the next edge.
            readable.clear_ready();
        }
    }

    /// How the main process ended; `None` while it runs, and after it was collected.
    pub(super) fn status(&self, options: WaitIdOptions) -> Result<Option<Exit>, GroupError> {
        let options = options | WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(std::os::fd::AsFd::as_fd(self.pidfd.get_ref())), options) {
            Ok(status) => Ok(status.map(|status| Exit::of(&status))),
            Err(rustix::io::Errno::CHILD) => Ok(None),
            Err(error) => Err(GroupError::Wait(error.into())),
        }
    }

    /// The pipes of its stdout and stderr, once.
    pub fn take_output(&self) -> Option<Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Its living processes, for looking; at most a fixed number.
    pub fn members(&self) -> Vec<Member> {
        let pids = match (&self.leaf, &*self.leader.lock().unwrap_or_else(PoisonError::into_inner)) {
            (Some(leaf), _) => leaf.processes(MAX_MEMBERS),
            (None, Leader::Unreaped(group)) => {
                let mut pids = vec![self.pid];
                pids.extend(process::group_members(group.number()));
                pids
            }
            (None, Leader::Reaped(_)) => Vec::new(),
        };
        pids.into_iter().take(MAX_MEMBERS).filter_map(process::member).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(*self.leader.get_mut().unwrap_or_else(PoisonError::into_inner), Leader::Reaped(_)) {
            return;
        }
        tracing::error!(instance = %self.instance, "dropped before its end was proven; killed");
        if let Some(Err(error)) = self.leaf.as_ref().map(Leaf::kill) {
            tracing::error!(%error, "its leaf could not be killed");
        }
        if let Err(error) = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL) {
            tracing::error!(%error, "its main process could not be killed");
        }
    }
}
