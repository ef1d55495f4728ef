//! Short words for telling an engine facts.

use cancel::{
    Answer, Attempt, Bounds, CancelAsk, CancelId, Cause, Effect, Engine, Event, Evidence, InstanceId, Level,
    OnCollateral, OnGrace, Outcome, Policy, Reply, RequestId, Requeue, Scope, Ticket,
};

pub(crate) use cancel::Level::{Ask, Kill};
pub(crate) use cancel::Scope::{Request, Subtree};

pub(crate) const SYNCHRONOUS: Policy =
    Policy { on_grace: OnGrace::Drain, on_collateral: OnCollateral::Fail, asynchronous: false, retries: 0 };
pub(crate) const RETRIED_AS_COLLATERAL: Policy =
    Policy { on_grace: OnGrace::Drain, on_collateral: OnCollateral::Retry, asynchronous: true, retries: 0 };

/// An engine and its ears. Requests, instances, cancels and tickets are named by small numbers; an
/// ask of cancel 7 carries ticket 7.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
}

pub(crate) fn request(id: u128) -> RequestId {
    RequestId(id)
}

pub(crate) fn instance(id: u64) -> InstanceId {
    InstanceId(id)
}

pub(crate) fn cancel(id: u128) -> CancelId {
    CancelId(id)
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::bounded(Bounds::default())
    }

    pub(crate) fn bounded(bounds: Bounds) -> Self {
        Self { engine: Engine::new(bounds) }
    }

    pub(crate) fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.engine.step(event, &mut out);
        self.engine.check().expect("the structures hold");
        out
    }

    pub(crate) fn arrive_as(&mut self, id: u128, parent: Option<u128>, policy: Policy) -> Vec<Effect> {
        let parent = parent.map(RequestId);
        self.tell(Event::Arrived { request: request(id), parent, detached: false, policy })
    }

    pub(crate) fn arrive(&mut self, id: u128) -> Vec<Effect> {
        self.arrive_as(id, None, SYNCHRONOUS)
    }

    pub(crate) fn child(&mut self, id: u128, parent: u128) -> Vec<Effect> {
        self.arrive_as(id, Some(parent), SYNCHRONOUS)
    }

    /// A ready, cooperating instance.
    pub(crate) fn start(&mut self, on: u64, capacity: u32) {
        self.start_silent(on, capacity);
        self.tell(Event::InstanceCooperates(instance(on)));
    }

    /// A ready instance that does not cooperate.
    pub(crate) fn start_silent(&mut self, on: u64, capacity: u32) {
        self.tell(Event::InstanceStarted { instance: instance(on), capacity });
        self.tell(Event::InstanceReady(instance(on)));
    }

    pub(crate) fn place(&mut self, id: u128, on: u64) -> Vec<Effect> {
        self.tell(Event::Placed { request: request(id), instance: instance(on) })
    }

    pub(crate) fn take(&mut self, id: u128, on: u64) -> Vec<Effect> {
        self.tell(Event::Taken { request: request(id), instance: instance(on) })
    }

    pub(crate) fn run(&mut self, id: u128, on: u64) {
        self.place(id, on);
        let taken = self.take(id, on);
        assert!(matches!(taken[..], [Effect::Deliver { .. }]), "{taken:?}");
    }

    /// New root requests, running on the instance.
    pub(crate) fn running(&mut self, ids: &[u128], on: u64) {
        for id in ids {
            self.arrive(*id);
            self.run(*id, on);
        }
    }

    pub(crate) fn answer(&mut self, id: u128, on: u64) -> Vec<Effect> {
        let (request, instance, attempt) = (request(id), instance(on), Attempt(1));
        self.tell(Event::Answered { request, instance, attempt, answer: Answer::Returned })
    }

    pub(crate) fn ask(id: u128, about: u128, scope: Scope, level: Level) -> CancelAsk {
        CancelAsk {
            ticket: Some(Ticket(id as u64)),
            early: false,
            cancel: cancel(id),
            request: request(about),
            scope,
            level,
            cause: Cause::Asked,
        }
    }

    pub(crate) fn cancel(&mut self, id: u128, about: u128, scope: Scope, level: Level) -> Vec<Effect> {
        self.tell(Event::CancelAsked(Self::ask(id, about, scope, level)))
    }

    pub(crate) fn cancel_early(&mut self, id: u128, about: u128, scope: Scope, level: Level) -> Vec<Effect> {
        self.tell(Event::CancelAsked(CancelAsk { early: true, ..Self::ask(id, about, scope, level) }))
    }

    pub(crate) fn recorded(&mut self, id: u128, record: u32) -> Vec<Effect> {
        self.tell(Event::Recorded { cancel: cancel(id), record, ok: true })
    }

    pub(crate) fn record_failed(&mut self, id: u128, record: u32) -> Vec<Effect> {
        self.tell(Event::Recorded { cancel: cancel(id), record, ok: false })
    }

    pub(crate) fn grace_over(&mut self, id: u128) -> Vec<Effect> {
        self.tell(Event::GraceOver(request(id)))
    }

    pub(crate) fn reaped(&mut self, on: u64) -> Vec<Effect> {
        self.tell(Event::Reaped(instance(on)))
    }
}

pub(crate) fn fence(id: u128, by: u128) -> Effect {
    Effect::Fence { request: request(id), cancel: cancel(by), first: true }
}

pub(crate) fn fence_again(id: u128, by: u128) -> Effect {
    Effect::Fence { request: request(id), cancel: cancel(by), first: false }
}

pub(crate) fn record(id: u128, record: u32, level: Level) -> Effect {
    Effect::Record { cancel: cancel(id), record, level }
}

pub(crate) fn ask_of(id: u128, on: u64) -> Effect {
    Effect::Ask { request: request(id), instance: instance(on) }
}

pub(crate) fn grace(id: u128) -> Effect {
    Effect::StartGrace(request(id))
}

pub(crate) fn kill(on: u64) -> Effect {
    Effect::Kill(instance(on))
}

pub(crate) fn drain(on: u64) -> Effect {
    Effect::Drain(instance(on))
}

pub(crate) fn requeue(id: u128, why: Requeue) -> Effect {
    Effect::Requeue { request: request(id), why }
}

pub(crate) fn settle(id: u128, outcome: Outcome, evidence: Evidence) -> Effect {
    Effect::Settle { request: request(id), outcome, ran: true, evidence }
}

pub(crate) fn removed(id: u128) -> Effect {
    Effect::Settle {
        request: request(id),
        outcome: Outcome::Canceled,
        ran: false,
        evidence: Evidence::NeverStarted,
    }
}

pub(crate) fn acknowledged(id: u128, on: u64) -> Effect {
    settle(id, Outcome::Canceled, Evidence::Acknowledged(instance(on), Attempt(1)))
}

pub(crate) fn died(id: u128, on: u64) -> Effect {
    settle(id, Outcome::Canceled, Evidence::Reaped(instance(on)))
}

pub(crate) fn told(ticket: u64, reply: Reply) -> Effect {
    Effect::Answer { ticket: Ticket(ticket), reply }
}

pub(crate) fn close(id: u128, reply: Reply) -> Effect {
    Effect::Close { cancel: cancel(id), reply }
}
