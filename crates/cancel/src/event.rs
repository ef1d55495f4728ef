//! Facts, in the past tense. The shell tells them in the order they arrived, one at a time.

use crate::{Attempt, CancelId, Cause, InstanceId, Level, RequestId, Scope, Ticket};

/// What happens to an instance whose request did not stop within its grace while co-tenants live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnGrace {
    /// The instance drains: nothing new, and it ends with its last innocent request.
    #[default]
    Drain,
    /// The instance is killed; its co-tenants are collateral.
    Kill,
}

/// What becomes of the co-tenants of a killed instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnCollateral {
    /// They settle as Canceled, 4208: the API's own rule.
    #[default]
    Fail,
    /// Asynchronous ones wait again, without counting as an attempt; synchronous ones settle.
    Retry,
}

/// What the function of a request chose, and how it was invoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// At the end of grace, with co-tenants.
    pub on_grace: OnGrace,
    /// As a co-tenant of a killed instance.
    pub on_collateral: OnCollateral,
    /// Nobody holds a connection for it: it may be queued again.
    pub asynchronous: bool,
    /// Further attempts it may have after its runtime crashed or reported a retryable failure.
    pub retries: u8,
}

/// One ask to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelAsk {
    /// Who waits for the answer; `None` for our own (a deadline).
    pub ticket: Option<Ticket>,
    /// The asker wants its answer as soon as everything is fenced and recorded.
    pub early: bool,
    /// The id a new cancel gets; unused if the ask joins a running one.
    pub cancel: CancelId,
    /// What to stop.
    pub request: RequestId,
    /// How wide.
    pub scope: Scope,
    /// How hard.
    pub level: Level,
    /// Why.
    pub cause: Cause,
}

/// What a runtime reported of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The function returned.
    Returned,
    /// The function failed with this code; retried if the policy has attempts left and `retry`.
    Failed {
        /// The integer code of the wire.
        code: u16,
        /// Whether this kind of failure may be retried.
        retry: bool,
    },
}

/// A fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new request asks to be admitted.
    Arrived {
        /// Its id.
        request: RequestId,
        /// The request that makes it, if one does.
        parent: Option<RequestId>,
        /// It must not be a child: it becomes a root, though a cancelled parent still refuses it.
        detached: bool,
        /// What its function chose.
        policy: Policy,
    },
    /// An admitted request could not be made durable: forget it, it never was.
    Withdrawn(RequestId),
    /// A request that has not been handed over waited too long; it settles with this code.
    Expired {
        /// Which.
        request: RequestId,
        /// The integer code of the wire.
        code: u16,
    },
    /// An instance is about to be started (told before its process exists).
    InstanceStarted {
        /// Its id, never used before.
        instance: InstanceId,
        /// Requests it may hold at once, at least 1.
        capacity: u32,
    },
    /// The runtime listens for cancellations by request id.
    InstanceCooperates(InstanceId),
    /// The runtime has initialised and asks for work.
    InstanceReady(InstanceId),
    /// The runtime could not initialise; requests that wait for it settle with this code.
    StartFailed {
        /// Which.
        instance: InstanceId,
        /// The integer code of the wire.
        code: u16,
    },
    /// The pool gave a waiting request a place on an instance.
    Placed {
        /// Which request.
        request: RequestId,
        /// Where.
        instance: InstanceId,
    },
    /// The runtime's poll is here to take a request placed on its instance.
    Taken {
        /// Which request.
        request: RequestId,
        /// Who takes it.
        instance: InstanceId,
    },
    /// A delivery is known not to have reached the runtime.
    DeliveryFailed {
        /// Which request.
        request: RequestId,
        /// Where to.
        instance: InstanceId,
        /// Which delivery.
        attempt: Attempt,
    },
    /// A runtime answered.
    Answered {
        /// Which request.
        request: RequestId,
        /// Who answers.
        instance: InstanceId,
        /// Which delivery it answers.
        attempt: Attempt,
        /// What.
        answer: Answer,
    },
    /// Somebody, or a timer of ours, asks to stop something.
    CancelAsked(CancelAsk),
    /// There is time for the next slice of a walk that is under way: see `Engine::unfinished`.
    WalkOn,
    /// A record this engine asked for is durable, or (`ok` false) could not be made so.
    Recorded {
        /// Of which cancel.
        cancel: CancelId,
        /// Which of its records.
        record: u32,
        /// Whether it is durable.
        ok: bool,
    },
    /// The grace of a request that was asked to stop is over.
    GraceOver(RequestId),
    /// The runtime's main process is gone; what it left is not yet known to be.
    Exited(InstanceId),
    /// Exit collected and containment seen empty: nothing of this instance is left.
    Reaped(InstanceId),
    /// A killed instance was not reaped within the limit.
    KillTimedOut(InstanceId),
    /// The pool wants an instance gone: at once if it holds nothing, else as its requests end.
    RetireAsked(InstanceId),
    /// The node ends: this instance is killed now; asynchronous requests on it wait for the next life.
    EndAsked(InstanceId),
}
