//! Wishes, in the imperative. The shell carries them out in order; none is carried out here.

use crate::{Attempt, CancelId, Evidence, InstanceId, Level, Outcome, Refusal, Reply, RequestId, Ticket};

/// Why a request waits again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Requeue {
    /// Its instance was killed for another request and its function chose retry; no attempt is counted.
    Collateral,
    /// It had a place but was never handed over, or the node ends; no attempt is counted.
    Displaced,
    /// Its attempt failed and another is allowed; the shell decides how long to back off.
    Retry,
}

/// A wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Admitted: make it durable if asynchronous, then queue it.
    Accept {
        /// Which.
        request: RequestId,
        /// The root of its tree, itself if it is one.
        root: RequestId,
        /// Its distance from the root.
        depth: u16,
    },
    /// Not admitted; nothing is kept.
    Refuse {
        /// Which.
        request: RequestId,
        /// Why.
        why: Refusal,
    },
    /// Hand it to the runtime's waiting poll: from here on it counts as running.
    Deliver {
        /// Which.
        request: RequestId,
        /// To whom.
        instance: InstanceId,
        /// The number of this delivery; answers must carry it.
        attempt: Attempt,
    },
    /// From here on nothing of it starts and nothing it says counts: revoke its credentials, end its
    /// tasks. Always comes before any other effect of the same cancel.
    Fence {
        /// Which.
        request: RequestId,
        /// By which cancel.
        cancel: CancelId,
        /// False if it was fenced before, by another cancel or by this one before it rose: it is
        /// covered, and nothing is new about its fence.
        first: bool,
    },
    /// Make the cancel and everything it has fenced so far durable; tell `Recorded`.
    Record {
        /// Which cancel.
        cancel: CancelId,
        /// The number of this record within the cancel, from 1; each contains the ones before.
        record: u32,
        /// What it has come to.
        level: Level,
    },
    /// Tell the cooperating runtime that this request is cancelled.
    Ask {
        /// Which.
        request: RequestId,
        /// Who runs it.
        instance: InstanceId,
    },
    /// Send the soft signal to the whole group: it serves this one request and does not cooperate.
    Terminate(InstanceId),
    /// Start the grace of this request; tell `GraceOver`.
    StartGrace(RequestId),
    /// The instance takes nothing new.
    Drain(InstanceId),
    /// Kill the whole containment now, prove it empty, tell `Reaped` (or `KillTimedOut`).
    Kill(InstanceId),
    /// The instance could not be killed: keep its slot out of use, show it.
    Quarantine(InstanceId),
    /// A request sits on a quarantined instance: do not let its callers hang. It is not settled.
    Stuck(RequestId),
    /// It waits again.
    Requeue {
        /// Which.
        request: RequestId,
        /// Why.
        why: Requeue,
    },
    /// It has its one final result.
    Settle {
        /// Which.
        request: RequestId,
        /// What.
        outcome: Outcome,
        /// Whether any attempt of it reached a runtime: a delivery that failed did not.
        ran: bool,
        /// On what evidence.
        evidence: Evidence,
    },
    /// Code of a request that settled as fenced only is now known to have ended.
    Gone {
        /// Which.
        request: RequestId,
        /// On what evidence.
        evidence: Evidence,
    },
    /// Answer an asker.
    Answer {
        /// Whom.
        ticket: Ticket,
        /// What.
        reply: Reply,
    },
    /// The cancel is over: complete its receipt.
    Close {
        /// Which.
        cancel: CancelId,
        /// How it came out, as an asker would be told.
        reply: Reply,
    },
}
