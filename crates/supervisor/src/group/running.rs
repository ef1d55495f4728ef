//! One instance's processes while they are ours: let go, signalled, watched, looked at.

use std::{
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::{Child, ChildStdin},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cancel::InstanceId;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};
use tokio::{io::unix::AsyncFd, sync::mpsc};

use super::{
    containment::{GroupError, Mechanism},
    ending::Ending,
    exit::Exit,
    init::GO,
    leaf::Leaf,
    output::Output,
    pgid::Pgid,
    process::{self, Member},
    spawner::{Made, Order, SpawnError, Unclaimed, end_unused},
    watch::watch,
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
    pub(super) ending: tokio::sync::Mutex<Ending>,
    /// Keeps the spawner's thread, and so the main process, alive.
    _thread: mpsc::Sender<Order>,
}

impl Group {
    /// # Errors
    /// When it cannot be watched; it was ended then.
    pub(super) fn of(
        instance: InstanceId,
        made: Unclaimed,
        thread: mpsc::Sender<Order>,
    ) -> Result<Self, SpawnError> {
        let Made { mut child, pidfd, leaf } = made.claim().ok_or(SpawnError::Ended)?;
        let main = Pid::from_child(&child);
        match parts(&mut child, pidfd) {
            Ok((output, pidfd)) => Ok(Self {
                instance,
                pid: child.id(),
                pidfd,
                leader: Mutex::new(Leader::Unreaped(Pgid::of_unreaped(main))),
                leaf,
                go: Mutex::new(child.stdin.take()),
                output: Mutex::new(output),
                ending: tokio::sync::Mutex::default(),
                _thread: thread,
            }),
            Err(error) => {
                end_unused(child, leaf);
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
        match &*self.leader() {
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
            if let Leader::Reaped(exit) = *self.leader() {
                return Ok(exit);
            }
            // Readable without a status: a tracer has yet to let go of it. Wait for the next edge.
            readable.clear_ready();
        }
    }

    /// How the main process ended; `None` while it runs, and after it was collected.
    pub(super) fn status(&self, options: WaitIdOptions) -> Result<Option<Exit>, GroupError> {
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

    /// Its living processes, for looking; at most a fixed number, none where they cannot be looked at.
    /// Blocking: reads files of `/proc`; without a leaf, of every process there.
    pub fn members(&self) -> Vec<Member> {
        let listed = match (&self.leaf, &*self.leader()) {
            (Some(leaf), _) => leaf.processes(MAX_MEMBERS),
            (None, Leader::Unreaped(group)) => process::group_members(group.number()).map(|mut pids| {
                pids.insert(0, self.pid);
                pids
            }),
            (None, Leader::Reaped(_)) => Ok(Vec::new()),
        };
        let pids = listed.unwrap_or_else(|error| {
            tracing::warn!(instance = %self.instance, %error, "its processes cannot be listed");
            Vec::new()
        });
        pids.into_iter().take(MAX_MEMBERS).filter_map(process::member).collect()
    }
}

/// What of a child is watched from now on.
fn parts(child: &mut Child, pidfd: OwnedFd) -> io::Result<(Option<Output>, AsyncFd<OwnedFd>)> {
    let output = match (child.stdout.take(), child.stderr.take()) {
        (Some(stdout), Some(stderr)) => Some(Output::of(stdout, stderr)?),
        _ => None,
    };
    Ok((output, watch(pidfd)?))
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ending.get_mut().proof.is_some() {
            return;
        }
        tracing::error!(instance = %self.instance, "dropped before its end was proven; killed");
        if let Some(Err(error)) = self.leaf.as_ref().map(Leaf::kill) {
            tracing::error!(%error, "its leaf could not be killed");
        }
        if let Leader::Unreaped(group) = &*self.leader() {
            for sent in [pidfd_send_signal(&self.pidfd, Signal::KILL), group.signal(Signal::KILL)] {
                match sent {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => tracing::error!(%error, "SIGKILL refused"),
                }
            }
        }
    }
}
