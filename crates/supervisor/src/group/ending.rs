//! Ending an instance: kill everything at once, then see that it is gone, then say so.
//!
//! The order is what makes the proof: everything is struck; the main process is seen to have ended
//! and is kept unreaped, so that its numbers stay its own; what else lives is killed one by one
//! through checked pidfds until the kernel says that nothing does (`cgroup.kill` does not reach a
//! process whose main thread has exited: `containment.md` F1); then it is collected and its leaf
//! removed. Nothing is waited for but events; where the kernel has none, a comment says so.

use std::{collections::HashSet, fmt, io, os::fd::OwnedFd, sync::PoisonError, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, WaitIdOptions, pidfd_open, pidfd_send_signal},
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, timeout_at},
};

use super::{
    containment::Mechanism,
    exit::Exit,
    leaf::Leaf,
    process::{self, Stat, Survivor},
    spawner::{Group, Leader},
    watch::watch,
};

/// Processes handled in one round; the next round takes the rest. Each holds a descriptor meanwhile.
const ROUND: usize = 256;
/// Survivors named in a report.
const MAX_NAMED: usize = 32;
/// Between two looks where the kernel tells nothing: a process that is listed and cannot be opened is
/// between its last breath and its removal, which takes microseconds.
const NO_EVENT_PAUSE: Duration = Duration::from_micros(500);

/// One thing that was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The main process' exit status was collected.
    ExitCollected,
    /// The kernel said that nothing alive is in the leaf.
    Populated0,
    /// The leaf could be removed, which it cannot while anything is in it.
    LeafRemoved,
    /// A whole pass over the processes found no living member of the group.
    GroupEmpty,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExitCollected => "exit_collected",
            Self::Populated0 => "populated_0",
            Self::LeafRemoved => "leaf_removed",
            Self::GroupEmpty => "group_empty",
        })
    }
}

/// Nothing of an instance is left, and this is how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// What contained it.
    pub mechanism: Mechanism,
    /// How its main process ended.
    pub exit: Exit,
    /// Processes beside the main one that were found alive after the first strike and killed again.
    pub others: u32,
    /// What was proven, in order.
    pub steps: Vec<Step>,
    /// What this kind of containment cannot see.
    pub cannot_see: Vec<&'static str>,
    /// From the strike to the proof.
    pub took: Duration,
}

/// Something of an instance may be left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotProven {
    /// Who lives, as far as can be seen; bounded.
    pub survivors: Vec<Survivor>,
    /// What went wrong besides, in words.
    pub trouble: Option<String>,
}

impl fmt::Display for NotProven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.survivors.iter().map(ToString::to_string).collect();
        parts.extend(self.trouble.clone());
        if parts.is_empty() {
            parts.push("it was not seen empty in time".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}

/// What runs on a process group alone may have left it unseen.
const GROUP_ONLY: &[&str] = &["processes that left the process group (setsid, setpgid)"];
const CGROUP: &[&str] = &["processes that a daemon outside started on its behalf"];

impl Group {
    /// Kills everything now, and resolves when that is proven, or with who lives after `limit`. May be
    /// called again after a failure; after a success it returns the same proof.
    ///
    /// # Errors
    /// [`NotProven`] names what is left and why.
    pub async fn end(&self, limit: Duration) -> Result<Proof, NotProven> {
        let mut proven = self.proof.lock().await;
        if let Some(proof) = &*proven {
            return Ok(proof.clone());
        }
        let start = Instant::now();
        let deadline = start + limit;
        let mut others = HashSet::new();
        self.close_go();
        self.strike();
        let ended = timeout_at(deadline, self.emptied(&mut others)).await;
        let trouble = match ended {
            Ok(Ok(())) => match self.collect() {
                Ok((exit, steps)) => {
                    let cannot_see = if self.leaf.is_some() { CGROUP } else { GROUP_ONLY };
                    let proof = Proof {
                        mechanism: self.mechanism(),
                        exit,
                        others: u32::try_from(others.len()).unwrap_or(u32::MAX),
                        steps,
                        cannot_see: cannot_see.to_vec(),
                        took: start.elapsed(),
                    };
                    *proven = Some(proof.clone());
                    return Ok(proof);
                }
                Err(trouble) => Some(trouble),
            },
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => None,
        };
        Err(NotProven { survivors: self.survivors(), trouble })
    }

    /// The first strike: everything in the leaf, the main process, its group. Each alone may miss.
    fn strike(&self) {
        if let Some(Err(error)) = self.leaf.as_ref().map(Leaf::kill) {
            // The rounds below kill one by one what this did not.
            tracing::warn!(instance = %self.instance, %error, "cgroup.kill refused");
        }
        if let Leader::Unreaped(group) = &*self.leader.lock().unwrap_or_else(PoisonError::into_inner) {
            for sent in [pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL), group.signal(Signal::KILL)] {
                match sent {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => tracing::warn!(instance = %self.instance, %error, "SIGKILL refused"),
                }
            }
        }
    }

    /// Resolves when the main process has ended and nothing else is alive.
    async fn emptied(&self, others: &mut HashSet<u32>) -> io::Result<()> {
        self.exited().await.map_err(io::Error::other)?;
        loop {
            let alive = match &self.leaf {
                Some(leaf) if !leaf.populated()? => return Ok(()),
                Some(leaf) => leaf.processes(ROUND),
                None => self.group_members(),
            };
            if self.leaf.is_none() && alive.is_empty() {
                return Ok(());
            }
            let struck: Vec<_> =
                alive.into_iter().filter_map(|pid| Some((pid, self.kill_one(pid)?))).collect();
            if struck.is_empty() {
                tokio::time::sleep(NO_EVENT_PAUSE).await;
            }
            for (pid, pidfd) in struck {
                others.insert(pid);
                drop(pidfd.readable().await?);
            }
        }
    }

    fn group_members(&self) -> Vec<u32> {
        match &*self.leader.lock().unwrap_or_else(PoisonError::into_inner) {
            Leader::Unreaped(group) => process::group_members(group.number()),
            Leader::Reaped(_) => Vec::new(),
        }
    }

    /// Kills one process that is listed as ours. The pidfd pins who it is; that it is ours is looked at
    /// after that, so a number that was reused in between is left alone (I8).
    fn kill_one(&self, pid: u32) -> Option<AsyncFd<OwnedFd>> {
        let target = Pid::from_raw(pid.cast_signed())?;
        let pidfd = pidfd_open(target, PidfdFlags::empty()).ok()?;
        let ours = match &self.leaf {
            Some(leaf) => process::cgroup_of(pid).is_some_and(|cgroup| leaf.holds(&cgroup)),
            None => self.group_members_hold(pid),
        };
        if !ours {
            return None;
        }
        match pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) => {}
            Err(Errno::SRCH) => return None,
            Err(error) => tracing::warn!(instance = %self.instance, pid, %error, "SIGKILL refused"),
        }
        watch(pidfd).inspect_err(|error| tracing::warn!(pid, %error, "cannot watch a process")).ok()
    }

    fn group_members_hold(&self, pid: u32) -> bool {
        match &*self.leader.lock().unwrap_or_else(PoisonError::into_inner) {
            Leader::Unreaped(group) => {
                let number = group.number().as_raw_nonzero().get();
                Stat::of(pid).is_some_and(|stat| stat.pgrp == number)
            }
            Leader::Reaped(_) => false,
        }
    }

    /// Collects the main process and removes the leaf, now that nothing else needs its numbers.
    fn collect(&self) -> Result<(Exit, Vec<Step>), String> {
        let mut steps = vec![if self.leaf.is_some() { Step::Populated0 } else { Step::GroupEmpty }];
        let exit = {
            let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
            match *leader {
                Leader::Reaped(exit) => exit,
                Leader::Unreaped(_) => {
                    let exit = self.status(WaitIdOptions::empty()).map_err(|error| error.to_string())?;
                    let exit = exit.ok_or("the exit status was collected by somebody else")?;
                    *leader = Leader::Reaped(exit);
                    exit
                }
            }
        };
        steps.push(Step::ExitCollected);
        if let Some(leaf) = &self.leaf {
            leaf.remove().map_err(|error| format!("{} cannot be removed: {error}", leaf.path().display()))?;
            steps.push(Step::LeafRemoved);
        }
        Ok((exit, steps))
    }

    fn survivors(&self) -> Vec<Survivor> {
        let mut pids = match &self.leaf {
            Some(leaf) => leaf.processes(MAX_NAMED),
            None => self.group_members(),
        };
        let main = self.pid();
        let unreaped =
            matches!(*self.leader.lock().unwrap_or_else(PoisonError::into_inner), Leader::Unreaped(_));
        if unreaped && !pids.contains(&main) && Stat::of(main).is_some_and(|stat| stat.is_alive()) {
            pids.insert(0, main);
        }
        pids.into_iter().take(MAX_NAMED).filter_map(process::survivor).collect()
    }
}

/// Ends a leaf of an earlier life, whose processes are nobody's children here.
pub(super) async fn sweep(leaf: &Leaf, limit: Duration) -> Result<u32, NotProven> {
    let deadline = Instant::now() + limit;
    let mut killed = HashSet::new();
    let trouble = match timeout_at(deadline, sweep_all(leaf, &mut killed)).await {
        Ok(Ok(())) => return Ok(u32::try_from(killed.len()).unwrap_or(u32::MAX)),
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => None,
    };
    let survivors = leaf.processes(MAX_NAMED).into_iter().filter_map(process::survivor).collect();
    Err(NotProven { survivors, trouble })
}

async fn sweep_all(leaf: &Leaf, killed: &mut HashSet<u32>) -> io::Result<()> {
    while leaf.populated()? {
        let mut watched = Vec::new();
        for pid in leaf.processes(ROUND) {
            let Some(target) = Pid::from_raw(pid.cast_signed()) else { continue };
            let Ok(pidfd) = pidfd_open(target, PidfdFlags::empty()) else { continue };
            if process::cgroup_of(pid).is_some_and(|cgroup| leaf.holds(&cgroup)) {
                killed.insert(pid);
                watched.push((pidfd_send_signal(&pidfd, Signal::KILL), pidfd));
            }
        }
        // One strike for all, after they were pinned, so that their ends can be waited for.
        leaf.kill()?;
        if watched.is_empty() {
            tokio::time::sleep(NO_EVENT_PAUSE).await;
        }
        for (sent, pidfd) in watched {
            match sent {
                Ok(()) | Err(Errno::SRCH) => drop(watch(pidfd)?.readable().await?),
                Err(error) => return Err(error.into()),
            }
        }
    }
    leaf.remove()
}
