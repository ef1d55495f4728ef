//! The number of a process group, and the only place that signals one.

use rustix::{
    io::Errno,
    process::{Pid, Signal},
};

/// A process group whose leader has not been reaped: its number can belong to nobody else.
#[derive(Debug)]
pub(super) struct Pgid(Pid);

impl Pgid {
    /// The group that `leader`, a child of ours that has not been reaped, was made the leader of.
    pub(super) fn of_unreaped(leader: Pid) -> Self {
        Self(leader)
    }

    pub(super) fn number(&self) -> Pid {
        self.0
    }

    /// Signals every member. A group with nobody left to signal is no error.
    #[expect(clippy::disallowed_methods, reason = "the one place; the leader is unreaped by contract")]
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        match rustix::process::kill_process_group(self.0, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
