//! How a request ends, on what evidence, and what the asker of a cancel is told.

use crate::{Attempt, CancelId, Cause, InstanceId};

/// The one final result of a request (I1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The function returned.
    Returned,
    /// The function's code, or the platform around it, failed with this code.
    Failed(u16),
    /// Canceled, in scope or as a co-tenant of a killed instance: 4208.
    Canceled,
    /// Stopped at its own time limit: 4010.
    TimedOut,
    /// Its runtime went away through no doing of ours: 4204.
    Crashed,
}

/// `function invocation canceled` on the wire (`functiongraph.md` 5.2).
pub const CODE_CANCELED: u16 = 4208;
/// `invocation timeout` on the wire.
pub const CODE_TIMED_OUT: u16 = 4010;
/// `runtime process is exited` on the wire.
pub const CODE_CRASHED: u16 = 4204;

impl Outcome {
    /// The integer error code of the wire; 0 for success.
    pub fn code(self) -> u16 {
        match self {
            Self::Returned => 0,
            Self::Failed(code) => code,
            Self::Canceled => CODE_CANCELED,
            Self::TimedOut => CODE_TIMED_OUT,
            Self::Crashed => CODE_CRASHED,
        }
    }

    /// The outcome of a request that was fenced for this cause.
    pub(crate) fn of(cause: Cause) -> Self {
        match cause {
            Cause::Asked | Cause::Disconnect => Self::Canceled,
            Cause::Deadline => Self::TimedOut,
        }
    }
}

/// Why we may say that a request has settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// No code of it was handed to any runtime by the attempt that ended.
    NeverStarted,
    /// Its runtime answered; nobody had stopped it.
    Answered,
    /// Its cooperating runtime answered after it was asked: the code has ended.
    Acknowledged(InstanceId, Attempt),
    /// Its instance was reaped: exit collected, containment seen empty.
    Reaped(InstanceId),
    /// Fenced only: its code may still run on a draining instance.
    FencedOnly(InstanceId),
}

/// What the asker of a cancel is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Everything in scope is stopped and recorded.
    Stopped(CancelId),
    /// The same, but code of at least one settled request may still run on a draining instance.
    Draining(CancelId),
    /// Fenced and recorded; the rest is under way (only to askers who wanted no more).
    Fenced(CancelId),
    /// Something in scope could not be killed within the limit; it stays fenced.
    Unkillable(CancelId),
    /// Everything is fenced and as stopped as it can be, but the record could not be made durable.
    /// Who asks again later is told the same: 200 would promise a record.
    NotRecorded(CancelId),
    /// It had been cancelled before; this is that cancel. `draining`: its code may still run.
    AlreadyCanceled {
        /// The cancel that stopped it.
        cancel: CancelId,
        /// Whether its code may still run on a draining instance.
        draining: bool,
    },
    /// It had settled by itself.
    Finished(Outcome),
    /// No such request is known here.
    Unknown,
    /// Too many askers wait for this cancel already; it goes on without this one.
    TooManyAskers(CancelId),
}

/// Why a request was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The request that makes it is being, or has been, cancelled: 4208.
    ParentCanceled,
    /// The request that makes it has settled, or is not known.
    ParentGone,
    /// A request of this id is known already.
    Duplicate,
    /// The chain of parents is longer than the bound.
    TooDeep,
    /// The root has more live requests below it than the bound.
    TooManyBelowRoot,
    /// The node has more live requests than the bound.
    TooMany,
}
