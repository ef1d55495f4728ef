//! Killing what the first strike did not: look who lives, pin each by pidfd, see that it is ours, kill
//! it, wait for its end, look again, until nobody is left.

use std::{collections::HashSet, io, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::{io::unix::AsyncFd, time::timeout};

use super::{leaf::Leaf, process, watch::watch};

/// Processes handled in one round; the next round takes the rest. Each holds a descriptor meanwhile.
const ROUND: usize = 256;
/// Between two looks where the kernel tells nothing: a process that is listed and cannot be opened is
/// between its last breath and its removal, which takes microseconds.
const NO_EVENT_PAUSE: Duration = Duration::from_micros(500);
/// Who has not died after this cannot be killed now and may never wake us; the others of its leaf must
/// not wait for it, and whoever came in meanwhile must be struck.
const ROUND_LIMIT: Duration = Duration::from_millis(250);

/// Something that can be emptied of processes.
pub(super) trait Members {
    /// Who lives in it, at most `limit`; `None` when the kernel says that nobody does.
    fn alive(&self, limit: usize) -> io::Result<Option<Vec<u32>>>;
    /// Whether a process, pinned meanwhile, is one of them.
    fn holds(&self, pid: u32) -> io::Result<bool>;
}

impl Members for Leaf {
    fn alive(&self, limit: usize) -> io::Result<Option<Vec<u32>>> {
        if self.populated()? { self.processes(limit).map(Some) } else { Ok(None) }
    }

    fn holds(&self, pid: u32) -> io::Result<bool> {
        Ok(process::cgroup_of(pid).is_some_and(|cgroup| Self::holds(self, &cgroup)))
    }
}

/// Resolves when nobody lives in it. `seen` collects who did.
pub(super) async fn empty(of: &impl Members, seen: &mut HashSet<u32>) -> io::Result<()> {
    while let Some(alive) = of.alive(ROUND)? {
        let mut dying = Vec::with_capacity(alive.len());
        let mut refused = None;
        for pid in alive {
            match kill_one(of, pid) {
                Ok(Some(pidfd)) => {
                    seen.insert(pid);
                    dying.push(pidfd);
                }
                Ok(None) => {}
                Err(error) => refused = Some(error),
            }
        }
        match (dying.is_empty(), refused) {
            (true, Some(error)) => return Err(error),
            (true, None) => tokio::time::sleep(NO_EVENT_PAUSE).await,
            (false, _) => match timeout(ROUND_LIMIT, all_dead(&dying)).await {
                Ok(dead) => dead?,
                Err(_) => tracing::debug!(processes = dying.len(), "some do not die; looking again"),
            },
        }
    }
    Ok(())
}

/// Kills everybody in it that can be, once, and waits for nobody.
pub(super) fn strike(of: &impl Members, seen: &mut HashSet<u32>) -> io::Result<()> {
    for pid in of.alive(ROUND)?.unwrap_or_default() {
        if kill_one(of, pid)?.is_some() {
            seen.insert(pid);
        }
    }
    Ok(())
}

async fn all_dead(dying: &[AsyncFd<OwnedFd>]) -> io::Result<()> {
    for pidfd in dying {
        drop(pidfd.readable().await?);
    }
    Ok(())
}

/// Kills one process that is listed as ours. The pidfd pins who it is; that it is ours is looked at
/// after that, so a number that was reused in between is left alone (I8). `None` if it is gone.
fn kill_one(of: &impl Members, pid: u32) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    let Some(target) = Pid::from_raw(pid.cast_signed()) else { return Ok(None) };
    let pidfd = match pidfd_open(target, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !of.holds(pid)? {
        return Ok(None);
    }
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) => watch(pidfd).map(Some),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
