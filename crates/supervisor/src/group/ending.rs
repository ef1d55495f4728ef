//! Ending an instance: kill everything at once, then see that it is gone, then say so.
//!
//! The order is what makes the proof: everything is struck; the main process is seen to have ended
//! and is kept unreaped, so that its numbers stay its own; what else lives is killed one by one
//! through checked pidfds until the kernel says that nothing does (`cgroup.kill` does not reach a
//! process whose main thread has exited: `containment.md` F1); then it is collected and its leaf
//! removed.

use std::{collections::HashSet, io, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    process::{Signal, WaitIdOptions, pidfd_send_signal},
};
use tokio::time::{Instant, timeout_at};

use super::{
    exit::Exit,
    init::HelperMode,
    leaf::Leaf,
    process::{self, Stat},
    proof::{NotProven, Phases, Proof, Step},
    rounds::{self, Members},
    running::{Group, Leader},
    survivor::Survivor,
};

/// Survivors named in a report.
pub(super) const MAX_NAMED: usize = 32;
/// Processes counted before the first strike; counting more would delay it for a figure.
const MAX_COUNTED: usize = 1_024;
/// A reaper needs this long only where somebody keeps it from its work.
const HELP_AFTER: Duration = Duration::from_millis(250);
/// Before another try where the kernel refused something (no descriptor free, a leaf that is busy): it
/// gives no event when that changes.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// What the tries to end one instance came to so far.
#[derive(Debug, Default)]
pub(super) struct Ending {
    pub(super) proof: Option<Proof>,
    first_strike: Option<Instant>,
    /// Numbers of processes beside the main one that were seen alive.
    others: HashSet<u32>,
    /// Held until it is proven: see [`Group::hold_mounts`].
    mounts: Option<OwnedFd>,
    trouble: Option<String>,
}

impl Group {
    /// Kills everything now, and resolves when that is proven, or with who lives after `limit`. May be
    /// called again after a failure, and by several tasks; after a success it returns the same proof.
    /// Cancellation-safe: what was struck stays struck, and the next call goes on from there.
    ///
    /// # Errors
    /// [`NotProven`], not before `limit` is over, names what is left and why.
    pub async fn end(&self, limit: Duration) -> Result<Proof, NotProven> {
        let deadline = Instant::now() + limit;
        let Ok(mut ending) = timeout_at(deadline, self.ending.lock()).await else {
            return Err(NotProven { survivors: self.survivors(), trouble: None });
        };
        if let Some(proof) = &ending.proof {
            return Ok(proof.clone());
        }
        if self.mode == HelperMode::Reaper {
            self.hang_up(); // that is its order to end everything
        }
        if ending.first_strike.is_none()
            && let Some(Ok(listed)) = self.leaf.as_ref().map(|leaf| leaf.own_processes(MAX_COUNTED))
        {
            ending.others.extend(listed);
        }
        let start = *ending.first_strike.get_or_insert_with(Instant::now);
        if ending.mounts.is_none() {
            ending.mounts = self.hold_mounts();
        }
        self.strike();
        if self.mode != HelperMode::Reaper {
            self.hang_up(); // not before: it would only wake whom the strike kills
        }
        match timeout_at(deadline, self.proven(start, &mut ending)).await {
            Ok(proof) => {
                self.forget(ending.mounts.take());
                ending.proof = Some(proof.clone());
                Ok(proof)
            }
            Err(_) => Err(NotProven { survivors: self.survivors(), trouble: ending.trouble.clone() }),
        }
    }

    /// The first strike: everything in the leaf, the main process, its group. Each alone may miss.
    pub(super) fn strike(&self) {
        // Who is born in a leaf that is being killed is killed by the kernel; elsewhere forks are stopped first.
        let leaf_first = self.mode != HelperMode::Reaper && self.leaf.is_some();
        if leaf_first {
            self.strike_leaf();
        }
        if let Err(error) = self.limited().stop_forks() {
            tracing::warn!(instance = %self.instance, %error, "forks could not be stopped");
        }
        if let Some((_, init)) = &self.init
            && let Err(error) = pidfd_send_signal(init, Signal::KILL)
            && error != Errno::SRCH
        {
            tracing::warn!(instance = %self.instance, %error, "SIGKILL to PID 1 of its namespace refused");
        }
        if self.mode == HelperMode::Reaper {
            // Its line was closed: it ends everything below, and its own end proves that. What it
            // watches over may have stopped it.
            match pidfd_send_signal(&self.pidfd, Signal::CONT) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => {
                    tracing::warn!(instance = %self.instance, %error, "SIGCONT to its helper refused")
                }
            }
            return;
        }
        let main = |()| pidfd_send_signal(&self.pidfd, Signal::KILL);
        let struck = match &*self.leader() {
            Leader::Reaped(_) => return,
            Leader::Unreaped(group) => [main(()), group.signal(Signal::KILL)],
            // Its group's number may be anybody's.
            Leader::Forked => [main(()), Ok(())],
        };
        for sent in struck {
            match sent {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => tracing::warn!(instance = %self.instance, %error, "SIGKILL refused"),
            }
        }
    }

    /// Everything in the leaf. Not what a reaper is in, which would die before it has ended what left the
    /// leaf; not before it had its time.
    pub(super) fn strike_leaf(&self) {
        if let Some(Err(error)) = self.leaf.as_ref().map(Leaf::kill) {
            // The rounds kill one by one what this did not.
            tracing::warn!(instance = %self.instance, %error, "cgroup.kill refused");
        }
    }

    /// Tries until it is proven: a refusal may be over the next time, a proof that is given up is not.
    async fn proven(&self, start: Instant, ending: &mut Ending) -> Proof {
        loop {
            match self.try_to_prove(start, &mut ending.others).await {
                Ok(proof) => return proof,
                Err(error) => {
                    let error = error.to_string();
                    if ending.trouble.as_ref() != Some(&error) {
                        tracing::warn!(instance = %self.instance, error, "not proven dead yet");
                        ending.trouble = Some(error);
                    }
                }
            }
            tokio::time::sleep(REFUSED_PAUSE).await;
            self.strike();
        }
    }

    async fn try_to_prove(&self, start: Instant, others: &mut HashSet<u32>) -> io::Result<Proof> {
        if self.mode == HelperMode::Reaper && self.leaf.is_none() {
            self.helper_ended(others).await?;
        } else if self.mode == HelperMode::Reaper
            && tokio::time::timeout(HELP_AFTER, self.exited()).await.is_err()
        {
            self.strike_leaf();
        }
        self.exited().await.map_err(io::Error::other)?;
        let main_exited = start.elapsed();
        let mut steps = Vec::new();
        if self.mode == HelperMode::Namespace {
            // The main process is PID 1: it ends when everything inside is dead and reaped.
            steps.push(Step::NamespaceEnded);
        } else if let Some((_, init)) = &self.init {
            // Readable once everything inside is dead and reaped, however the helper itself ended.
            drop(init.readable().await?);
            steps.push(Step::NamespaceEnded);
        }
        if self.mode == HelperMode::Reaper {
            let helper = self.status(WaitIdOptions::NOWAIT).map_err(io::Error::other)?;
            let word = helper.map_or(Ok(None), |helper| self.last_word(helper))?;
            // Whom a template forked, another may speak for: its leaf is the proof, not its word.
            if word.is_some() && self.forked.is_none() {
                steps.push(Step::NoDescendants);
            } else if self.leaf.is_none() {
                let why = "its helper did not end in order, so what it started may be alive";
                return Err(io::Error::other(why));
            }
        }
        match &self.leaf {
            Some(leaf) => {
                rounds::empty(leaf, others).await?;
                steps.push(Step::Populated0);
            }
            None if self.mode == HelperMode::Exec => {
                rounds::empty(&WithoutLeader(self), others).await?;
                steps.push(Step::GroupEmpty);
            }
            None => {}
        }
        // What left its leaf may still be in a group that limits it.
        let limiting = self.limited().last_group();
        if let Some(group) = limiting {
            group.end(others).await?;
        }
        let emptied = start.elapsed();
        let exit = self.runtime_exit(self.collect(&mut steps)?);
        others.remove(&self.pid());
        if let Some((init, _)) = &self.init {
            others.remove(init);
        }
        // Where the helper stays, the runtime is one of those below it, killed if it had not ended.
        let struck = matches!(exit, Exit::Signal(9) | Exit::Untold | Exit::LeaseOver);
        let runtime = usize::from(self.mode != HelperMode::Exec && struck);
        let others = others.len().saturating_sub(runtime);
        Ok(Proof {
            mechanism: self.mechanism(),
            exit,
            others: u32::try_from(others).unwrap_or(u32::MAX),
            steps,
            cannot_see: self.mechanism().cannot_see().to_vec(),
            phases: Phases { main_exited, emptied },
            took: start.elapsed(),
        })
    }

    /// Waits for a reaper that has work to do, and helps: whoever is below it may have stopped it, and may
    /// do so again.
    async fn helper_ended(&self, others: &mut HashSet<u32>) -> io::Result<()> {
        loop {
            match tokio::time::timeout(HELP_AFTER, self.exited()).await {
                Ok(ended) => return ended.map(drop).map_err(io::Error::other),
                Err(_) => {
                    self.strike();
                    rounds::strike(&Below(self.pid()), others)?;
                }
            }
        }
    }

    /// Collects the main process and removes the leaf, now that nothing else needs its numbers.
    fn collect(&self, steps: &mut Vec<Step>) -> io::Result<Exit> {
        let exit = {
            let mut leader = self.leader();
            match *leader {
                Leader::Reaped(exit) => exit,
                Leader::Unreaped(_) => {
                    let exit = self.status(WaitIdOptions::empty()).map_err(io::Error::other)?;
                    let exit = exit.ok_or_else(|| io::Error::other("its exit was collected by another"))?;
                    *leader = Leader::Reaped(exit);
                    exit
                }
                // Its parent is another, who collects it.
                Leader::Forked => self
                    .status(WaitIdOptions::empty())
                    .map_err(io::Error::other)?
                    .ok_or_else(|| io::Error::other("it was seen to have ended, and now it seems to live"))?,
            }
        };
        if self.forked.is_none() {
            steps.push(Step::ExitCollected);
        }
        if let Some(leaf) = &self.leaf {
            leaf.remove()?;
            steps.push(Step::LeafRemoved);
        }
        Ok(exit)
    }

    /// Who lives, as far as can be seen: for the report, which says so where it cannot look.
    fn survivors(&self) -> Vec<Survivor> {
        let listed = match &self.leaf {
            Some(leaf) => leaf.processes(MAX_NAMED),
            None if self.mode != HelperMode::Exec => Ok(process::below(self.pid(), MAX_NAMED)),
            None => WithoutLeader(self).alive(MAX_NAMED).map(Option::unwrap_or_default),
        };
        let mut pids = listed.unwrap_or_else(|error| {
            tracing::warn!(instance = %self.instance, %error, "survivors cannot be listed");
            Vec::new()
        });
        let main = self.pid();
        if !matches!(*self.leader(), Leader::Reaped(_)) && !pids.contains(&main) && self.main_lives() {
            pids.insert(0, main);
        }
        // A helper lives as long as what it waits for: that is the reason, if it is seen.
        let helper =
            |pid: &u32| self.mode != HelperMode::Exec && (*pid == main || Some(*pid) == self.init_pid());
        if pids.iter().any(|pid| !helper(pid)) {
            pids.retain(|pid| !helper(pid));
        }
        pids.into_iter().take(MAX_NAMED).filter_map(Survivor::look).collect()
    }

    /// Whether the main process has not ended for its parent, us: a tracer may keep that from us even
    /// when it is a zombie.
    fn main_lives(&self) -> bool {
        !matches!(self.status(WaitIdOptions::NOWAIT), Ok(Some(_)))
    }
}

/// What is below a helper, while it lives.
struct Below(u32);

impl Members for Below {
    fn alive(&self, limit: usize) -> io::Result<Option<Vec<u32>>> {
        Ok(Some(process::below(self.0, limit)).filter(|below| !below.is_empty()))
    }

    fn holds(&self, pid: u32) -> io::Result<bool> {
        Ok(process::below(self.0, usize::MAX).contains(&pid))
    }
}

/// A process group beside its leader, which the kernel keeps as a zombie until it is collected.
struct WithoutLeader<'a>(&'a Group);

impl Members for WithoutLeader<'_> {
    fn alive(&self, limit: usize) -> io::Result<Option<Vec<u32>>> {
        let mut members = match &*self.0.leader() {
            Leader::Unreaped(group) => process::group_members(group.number())?,
            // It was collected because the group was empty; the number is not its own any more.
            Leader::Reaped(_) | Leader::Forked => return Ok(None),
        };
        members.truncate(limit);
        Ok(Some(members).filter(|members| !members.is_empty()))
    }

    fn holds(&self, pid: u32) -> io::Result<bool> {
        match &*self.0.leader() {
            Leader::Unreaped(group) => {
                let number = group.number().as_raw_nonzero().get();
                Ok(Stat::of(pid)?.is_some_and(|stat| stat.pgrp == number))
            }
            Leader::Reaped(_) | Leader::Forked => Ok(false),
        }
    }
}
