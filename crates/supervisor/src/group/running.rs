//! One instance's processes while they are ours: let go, signalled, watched, looked at.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use cancel::InstanceId;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};
use tokio::{io::unix::AsyncFd, sync::mpsc};

use super::{
    containment::{ForkedInto, GroupError, Mechanism},
    ending::Ending,
    exit::Exit,
    forking::Forked,
    handing,
    init::{GO, HelperMode, RETIRE, TERMINATE},
    leaf::Leaf,
    limits::{Limited, OutOfMemory},
    network::{HandedOut, Network},
    output::Output,
    pgid::Pgid,
    process::{self, Member},
    spawner::{Leftovers, Made, Main, Order, SpawnError, Unclaimed, end_unused},
    start::Helper,
    warden::Ended,
    watch::{has_ended, watch},
};

/// Processes shown of one instance.
const MAX_MEMBERS: usize = 256;

/// The main process: signalled only while its number is its own.
#[derive(Debug)]
pub(super) enum Leader {
    /// Running, or a zombie: its pid and group number are pinned.
    Unreaped(Pgid),
    /// Collected.
    Reaped(Exit),
    /// A template forked it, so another is its parent: its numbers may be anybody's at any time, and only its
    /// pidfd and its leaf are used.
    Forked,
}

/// One instance's processes. Dropping it before [`Group::end`] has proven them gone kills them as well
/// as it can: a net for bugs, not a way to end an instance.
pub struct Group {
    pub(super) instance: InstanceId,
    pub(super) mode: HelperMode,
    /// A template forked it, and where to.
    pub(super) forked: Option<ForkedInto>,
    pid: u32,
    /// The runtime's own number, once it was seen: it never changes.
    runtime: OnceLock<u32>,
    pub(super) pidfd: AsyncFd<OwnedFd>,
    pub(super) leader: Mutex<Leader>,
    /// PID 1 of its namespace, where that is not the main process: when it is seen dead, everything born
    /// in there is.
    pub(super) init: Option<(u32, AsyncFd<OwnedFd>)>,
    pub(super) leaf: Option<Leaf>,
    /// What it may take, and the groups that see to it; empty once they were given away to be removed.
    limited: Mutex<Limited>,
    line: Mutex<Line>,
    output: Mutex<Option<Output>>,
    network: Mutex<Option<HandedOut>>,
    pub(super) ending: tokio::sync::Mutex<Ending>,
    /// Keeps the spawner's thread, and so the main process, alive.
    thread: mpsc::Sender<Order>,
}

impl Group {
    /// # Errors
    /// When it cannot be watched; it was ended then.
    pub(super) fn of(
        instance: InstanceId,
        made: Unclaimed,
        thread: mpsc::Sender<Order>,
    ) -> Result<Self, SpawnError> {
        let Made { mut main, leaf, limited } = made.claim().ok_or(SpawnError::Ended)?;
        let parts = match parts(&mut main) {
            Ok(parts) => parts,
            Err(error) => {
                end_unused(Made { main, leaf, limited });
                return Err(error.into());
            }
        };
        let mut network = None;
        let (mode, pid, leader, line, forked) = match main {
            Main::Helper(Helper { mode, child, line, network: handed_out, .. }) => {
                network = handed_out;
                let leader = Leader::Unreaped(Pgid::of_unreaped(Pid::from_child(&child)));
                (mode, child.id(), leader, line, None)
            }
            Main::Forked(Forked { pid, line, into, .. }) => {
                (into.helper(), pid, Leader::Forked, line, Some(into))
            }
        };
        Ok(Self {
            instance,
            mode,
            forked,
            pid,
            runtime: OnceLock::new(),
            pidfd: parts.pidfd,
            leader: Mutex::new(leader),
            init: parts.init,
            leaf,
            limited: Mutex::new(limited),
            line: Mutex::new(Line { stream: Some(line), went: false, word: None }),
            output: Mutex::new(parts.output),
            network: Mutex::new(network),
            ending: tokio::sync::Mutex::default(),
            thread,
        })
    }

    /// The number of the process that is ours: the helper, or the runtime it has become.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The runtime's own number, as this node sees it; the helper's while there is no runtime.
    pub fn runtime_pid(&self) -> u32 {
        let parent = match (self.mode, &self.init) {
            (HelperMode::Exec, _) => return self.pid,
            (_, Some((init, _))) => *init,
            (_, None) => self.pid,
        };
        if let Some(runtime) = self.runtime.get() {
            return *runtime;
        }
        match process::below(parent, 1).first() {
            Some(runtime) => *self.runtime.get_or_init(|| *runtime),
            None => self.pid,
        }
    }

    /// PID 1 of its namespace, as this node sees it, where that is not the main process.
    pub(super) fn init_pid(&self) -> Option<u32> {
        self.init.as_ref().map(|(pid, _)| *pid)
    }

    pub(super) fn limited(&self) -> MutexGuard<'_, Limited> {
        self.limited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the kernel ended any of its processes for want of memory; `None` also where nothing counts
    /// that. To be asked before [`Group::end`] has proven it gone. Reads one open file.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.limited().out_of_memory().unwrap_or_else(|error| {
            tracing::warn!(instance = %self.instance, %error, "whether it met its limit of memory cannot be read");
            None
        })
    }

    /// Bytes of memory that the kernel charges to it now; `None` where nothing counts that, and once it is
    /// gone. Reads one open file.
    pub fn memory_used(&self) -> Option<u64> {
        self.limited().memory_used()
    }

    /// Has what is left of it removed: its mounts, and the groups that limited it, which nothing is in.
    pub(super) fn forget(&self, mounts: Option<OwnedFd>) {
        let left = Leftovers { limited: std::mem::take(&mut *self.limited()), mounts };
        if let Err(unsent) = self.thread.try_send(Order::Forget(left))
            && let Order::Forget(left) = unsent.into_inner()
        {
            left.limited.remove();
        }
    }

    /// The mounts of its namespace, open: as long as they are, its last process need not take them down, which
    /// waits for the whole machine (an RCU grace period) before it counts as ended. `None` if it has none of its
    /// own, or if that cannot be told: then its end takes longer, and that is all.
    pub(super) fn hold_mounts(&self) -> Option<OwnedFd> {
        let pid = match self.mode {
            HelperMode::Namespace => self.pid,
            HelperMode::UserNamespace => self.init_pid()?,
            HelperMode::Reaper | HelperMode::Exec => return None,
        };
        // The number may be somebody else's by now only if it is dead already; those mounts are held in vain,
        // and not for long.
        File::open(format!("/proc/{pid}/ns/mnt")).ok().map(OwnedFd::from)
    }

    /// What contains it.
    pub fn mechanism(&self) -> Mechanism {
        Mechanism { leaf: self.leaf.is_some(), helper: self.mode, forked: self.forked }
    }

    pub(super) fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its leaf, if it has one; removed with the proof.
    pub fn leaf_path(&self) -> Option<&Path> {
        self.leaf.as_ref().map(Leaf::path)
    }

    /// The kernel's number of its leaf, by which it tells whose a socket is.
    pub fn leaf_id(&self) -> Option<u64> {
        self.leaf.as_ref().map(Leaf::id)
    }

    pub(super) fn leader(&self) -> MutexGuard<'_, Leader> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the runtime be executed. Before this nothing of it was; after [`Group::end`] nothing is.
    ///
    /// # Errors
    /// When the helper is gone already.
    pub fn go(&self) -> Result<(), GroupError> {
        self.go_with(&[])
    }

    /// The same; what is handed over, one descriptor at most, is the standard input of the runtime.
    pub(super) fn go_with(&self, handed: &[BorrowedFd<'_>]) -> Result<(), GroupError> {
        let mut line = self.line();
        if line.went {
            return Ok(());
        }
        line.went = true;
        let Some(stream) = line.stream.as_mut() else { return Ok(()) };
        let sent = handing::send(&*stream, &[GO], handed);
        if self.mode == HelperMode::Exec {
            line.stream = None; // the runtime it becomes is spoken to in other ways
        }
        sent.map_err(GroupError::Go)
    }

    /// Hangs up, in this direction: a helper that waits never goes, one that watches ends everything.
    pub(super) fn hang_up(&self) {
        let mut line = self.line();
        line.went = true;
        if let Some(stream) = &line.stream
            && let Err(error) = stream.shutdown(Shutdown::Write)
            && error.kind() != io::ErrorKind::NotConnected
        {
            tracing::warn!(instance = %self.instance, %error, "the helper's line could not be closed");
        }
    }

    /// How the runtime ended by the last word of a helper that stays and ended in an orderly way; a reaper
    /// says one only when no process is left below it. A word beside any other end is nobody's.
    pub(super) fn last_word(&self, helper: Exit) -> io::Result<Option<Ended>> {
        if !matches!(helper, Exit::Code(0) | Exit::Untold) {
            return Ok(None);
        }
        let mut line = self.line();
        if line.word.is_none()
            && let Some(stream) = line.stream.as_mut()
        {
            stream.set_nonblocking(true)?;
            let mut word = [0; 2];
            match stream.read_exact(&mut word) {
                Ok(()) => line.word = Ended::of_word(word),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::UnexpectedEof
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(line.word)
    }

    /// The runtime's end, where the helper's is not the same.
    pub(super) fn runtime_exit(&self, helper: Exit) -> Exit {
        if self.mode == HelperMode::Exec {
            return helper;
        }
        match self.last_word(helper) {
            Ok(Some(Ended::Code(code))) => Exit::Code(code.into()),
            Ok(Some(Ended::Signal(signal))) => Exit::Signal(signal.into()),
            Ok(Some(Ended::LeaseOver)) => Exit::LeaseOver,
            Ok(None) | Err(_) => helper,
        }
    }

    /// SIGTERM, and SIGCONT so that a stopped process gets it, to the process group.
    ///
    /// # Errors
    /// When the kernel refuses; that nobody is left is no error.
    pub fn terminate(&self) -> Result<(), GroupError> {
        if self.mode != HelperMode::Exec {
            return self.order(TERMINATE);
        }
        match &*self.leader() {
            Leader::Reaped(_) | Leader::Forked => Ok(()),
            Leader::Unreaped(group) => {
                let sent = group.signal(Signal::TERM).and_then(|()| group.signal(Signal::CONT));
                sent.map_err(|error| GroupError::Signal(error.into()))
            }
        }
    }

    /// The same to the runtime's main process alone: it is to end by itself, and what it started is its own
    /// affair.
    ///
    /// # Errors
    /// When the kernel refuses; that it is gone is no error.
    pub fn retire(&self) -> Result<(), GroupError> {
        if self.mode != HelperMode::Exec {
            return self.order(RETIRE);
        }
        for signal in [Signal::TERM, Signal::CONT] {
            match pidfd_send_signal(&self.pidfd, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(GroupError::Signal(error.into())),
            }
        }
        Ok(())
    }

    /// Has the helper signal: it knows the runtime's number, and whether that is still its own.
    fn order(&self, order: u8) -> Result<(), GroupError> {
        match self.line().stream.as_mut().map(|stream| stream.write_all(&[order])) {
            Some(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Err(GroupError::Signal(error)),
            _ => Ok(()),
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
                return Ok(self.runtime_exit(exit));
            }
            if let Leader::Reaped(exit) = *self.leader() {
                return Ok(self.runtime_exit(exit));
            }
            // Readable without a status: a tracer has yet to let go of it. Wait for the next edge.
            readable.clear_ready();
        }
    }

    /// How the main process ended; `None` while it runs, and after it was collected.
    pub(super) fn status(&self, options: WaitIdOptions) -> Result<Option<Exit>, GroupError> {
        if self.forked.is_some() {
            // Nothing to collect: the kernel says by the pidfd that it has ended, and no more.
            return has_ended(&self.pidfd)
                .map(|ended| ended.then_some(Exit::Untold))
                .map_err(GroupError::Wait);
        }
        let options = options | WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(status) => Ok(status.map(|status| Exit::of(&status))),
            Err(Errno::CHILD) => Ok(None),
            Err(error) => Err(GroupError::Wait(error.into())),
        }
    }

    /// The pipes of its stdout and stderr, once.
    pub fn take_output(&self) -> Option<Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Its network, once, where it has one of its own.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn take_network(&self) -> io::Result<Option<Network>> {
        let network = self.network.lock().unwrap_or_else(PoisonError::into_inner).take();
        network.map(HandedOut::watched).transpose()
    }

    /// How many of its processes live, as far as can be seen. Blocking, as [`Group::members`].
    pub fn living(&self) -> usize {
        self.listed(usize::MAX).len()
    }

    /// Its living processes, for looking; at most a fixed number, none where they cannot be looked at.
    /// Blocking: reads files of `/proc`; without a leaf, of every process there.
    pub fn members(&self) -> Vec<Member> {
        self.listed(MAX_MEMBERS).into_iter().filter_map(process::member).collect()
    }

    /// The numbers of its processes, without the helpers, which are ours.
    fn listed(&self, limit: usize) -> Vec<u32> {
        let listed = match (&self.leaf, &*self.leader()) {
            (Some(leaf), _) => leaf.processes(limit),
            (None, Leader::Unreaped(_)) if self.mode != HelperMode::Exec => {
                Ok(process::below(self.pid, limit))
            }
            (None, Leader::Unreaped(group)) => process::group_members(group.number()).map(|mut pids| {
                pids.insert(0, self.pid);
                pids
            }),
            (None, Leader::Reaped(_) | Leader::Forked) => Ok(Vec::new()),
        };
        let pids = listed.unwrap_or_else(|error| {
            tracing::warn!(instance = %self.instance, %error, "its processes cannot be listed");
            Vec::new()
        });
        let init = self.init_pid();
        let own = |pid: &u32| (self.mode != HelperMode::Exec && *pid == self.pid) || Some(*pid) == init;
        pids.into_iter().filter(|pid| !own(pid)).take(limit).collect()
    }
}

/// The line to the helper.
pub(super) struct Line {
    stream: Option<UnixStream>,
    went: bool,
    word: Option<Ended>,
}

/// What of a helper is watched from now on.
struct Parts {
    output: Option<Output>,
    pidfd: AsyncFd<OwnedFd>,
    init: Option<(u32, AsyncFd<OwnedFd>)>,
}

fn parts(main: &mut Main) -> io::Result<Parts> {
    let helper = match main {
        Main::Helper(helper) => helper,
        Main::Forked(forked) => {
            let output =
                forked.output.take().map(|[stdout, stderr]| Output::of(stdout.into(), stderr.into()));
            let pidfd = watch(forked.pidfd.try_clone()?)?;
            return Ok(Parts { output: output.transpose()?, pidfd, init: None });
        }
    };
    let output = match (helper.child.stdout.take(), helper.child.stderr.take()) {
        (Some(stdout), Some(stderr)) => Some(Output::of(stdout, stderr)?),
        _ => None,
    };
    // Duplicates: if one of them cannot be watched, the helper is ended through its own.
    let pidfd = watch(helper.pidfd.try_clone()?)?;
    let init = match &helper.init {
        Some((pid, init)) => Some((*pid, watch(init.try_clone()?)?)),
        None => None,
    };
    Ok(Parts { output, pidfd, init })
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ending.get_mut().proof.is_some() {
            return;
        }
        tracing::error!(instance = %self.instance, "dropped before its end was proven; killed");
        self.hang_up();
        self.strike();
        self.strike_leaf();
    }
}
