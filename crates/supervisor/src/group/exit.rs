//! How a main process ended.

use std::fmt;

use rustix::process::WaitIdStatus;

use super::init::{CANNOT_EXECUTE, NOT_FOUND};

/// The exit of an instance's main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ended with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It ended for certain, and who was to tell how did not come to it: the main process of an instance that
    /// was forked is not the node's own child.
    Untold,
    /// Its helper ended it with all that it had started, as the node's lease was over: no crash.
    LeaseOver,
}

impl Exit {
    /// Whether the helper could not execute the runtime's program at all.
    pub fn was_not_executed(self) -> bool {
        matches!(self, Self::Code(code) if [NOT_FOUND, CANNOT_EXECUTE].map(i32::from).contains(&code))
    }

    pub(super) fn of(status: &WaitIdStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(9) => write!(f, "SIGKILL"),
            Self::Signal(15) => write!(f, "SIGTERM"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::LeaseOver => write!(f, "lease_over: ended by its helper, as the node's lease was over"),
            Self::Untold => write!(f, "ended before it could tell how"),
        }
    }
}
