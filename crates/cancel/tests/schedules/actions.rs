//! Abstract actions and how they become events against the state at hand.
//!
//! An action names things by a number that is taken modulo whatever there is, so that every action
//! means something in every state, and a failing schedule stays meaningful as it is shrunk.

use cancel::{
    Answer, Attempt, CancelAsk, CancelId, Cause, Event, InstanceId, Level, OnCollateral, OnGrace, Policy,
    RequestId, Scope, Ticket,
};
use proptest::prelude::*;

use crate::model::{At, Model};

/// One abstract action. `who` and `on` pick, `twist` decides how the fact is bent.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Arrive { who: u16, twist: u8, policy: Policy },
    Withdraw { who: u16 },
    Expire { who: u16 },
    Start { capacity: u32, ready: bool, cooperates: bool },
    Ready { on: u16 },
    Cooperate { on: u16 },
    Place { who: u16, on: u16 },
    Take { who: u16, twist: u8 },
    PlaceAndTake { who: u16, on: u16 },
    Undeliver { who: u16, twist: u8 },
    Answer { who: u16, twist: u8, answer: Answer },
    Cancel { who: u16, scope: Scope, level: Level, cause: Cause, early: bool, ticket: bool },
    WalkOn,
    Record { which: u16, ok: bool, twist: u8 },
    GraceOver { who: u16, spurious: bool },
    StartFail { on: u16 },
    Exit { on: u16 },
    Reap { on: u16, spurious: bool },
    KillTimeout { on: u16, spurious: bool },
    Retire { on: u16 },
    End { on: u16 },
}

fn policy() -> impl Strategy<Value = Policy> {
    (any::<bool>(), any::<bool>(), any::<bool>(), 0..3u8).prop_map(|(kill, retry, asynchronous, retries)| {
        Policy {
            on_grace: if kill { OnGrace::Kill } else { OnGrace::Drain },
            on_collateral: if retry { OnCollateral::Retry } else { OnCollateral::Fail },
            asynchronous,
            retries,
        }
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        3 => Just(Answer::Returned),
        2 => any::<bool>().prop_map(|retry| Answer::Failed { code: 4211, retry }),
    ]
}

fn cancel() -> impl Strategy<Value = Act> {
    let cause =
        prop_oneof![4 => Just(Cause::Asked), 1 => Just(Cause::Deadline), 1 => Just(Cause::Disconnect)];
    (any::<u16>(), any::<bool>(), any::<bool>(), cause, any::<bool>(), 0..5u8).prop_map(
        |(who, subtree, kill, cause, early, ticket)| Act::Cancel {
            who,
            scope: if subtree { Scope::Subtree } else { Scope::Request },
            level: if kill { Level::Kill } else { Level::Ask },
            cause,
            early,
            ticket: ticket > 0,
        },
    )
}

/// Any action, the ordinary ones more often.
pub(crate) fn act() -> impl Strategy<Value = Act> {
    let pick = any::<u16>;
    let twist = any::<u8>;
    prop_oneof![
        14 => (pick(), twist(), policy()).prop_map(|(who, twist, policy)| Act::Arrive { who, twist, policy }),
        1 => pick().prop_map(|who| Act::Withdraw { who }),
        1 => pick().prop_map(|who| Act::Expire { who }),
        5 => (1..8u32, 0..4u8, any::<bool>()).prop_map(|(capacity, ready, cooperates)| Act::Start {
            capacity: if capacity > 5 { 1 } else { capacity },
            ready: ready > 0,
            cooperates
        }),
        1 => pick().prop_map(|on| Act::Ready { on }),
        1 => pick().prop_map(|on| Act::Cooperate { on }),
        4 => (pick(), pick()).prop_map(|(who, on)| Act::Place { who, on }),
        4 => (pick(), twist()).prop_map(|(who, twist)| Act::Take { who, twist }),
        12 => (pick(), pick()).prop_map(|(who, on)| Act::PlaceAndTake { who, on }),
        2 => (pick(), twist()).prop_map(|(who, twist)| Act::Undeliver { who, twist }),
        7 => (pick(), twist(), answer()).prop_map(|(who, twist, answer)| Act::Answer { who, twist, answer }),
        10 => cancel(),
        8 => Just(Act::WalkOn),
        6 => (pick(), 0..4u8, twist()).prop_map(|(which, ok, twist)| Act::Record { which, ok: ok > 0, twist }),
        6 => (pick(), 0..8u8).prop_map(|(who, s)| Act::GraceOver { who, spurious: s == 0 }),
        1 => pick().prop_map(|on| Act::StartFail { on }),
        2 => pick().prop_map(|on| Act::Exit { on }),
        5 => (pick(), 0..8u8).prop_map(|(on, s)| Act::Reap { on, spurious: s == 0 }),
        3 => (pick(), 0..8u8).prop_map(|(on, s)| Act::KillTimeout { on, spurious: s == 0 }),
        1 => pick().prop_map(|on| Act::Retire { on }),
        1 => pick().prop_map(|on| Act::End { on }),
    ]
}

fn pick<T: Copy>(from: &[T], number: u16) -> Option<T> {
    from.get(usize::from(number).checked_rem(from.len())?).copied()
}

/// Hands out ids that were never used and turns actions into events.
#[derive(Default)]
pub(crate) struct Resolver {
    pub(crate) next: u64,
    /// Whether ids of requests that are over may arrive again: only where tombstones cover them all.
    pub(crate) reuse_buried: bool,
}

impl Resolver {
    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// A request: mostly one that is there, sometimes one that is over, now and then an unknown one.
    fn request(model: &Model, number: u16) -> RequestId {
        let unknown = RequestId(u128::MAX);
        let there: Vec<_> = model.requests.keys().copied().collect();
        let over: Vec<_> = model.graves.keys().copied().collect();
        match number % 32 {
            31 => unknown,
            27..=30 => pick(&over, number / 32).unwrap_or(unknown),
            _ => pick(&there, number / 32).unwrap_or(unknown),
        }
    }

    fn instance(model: &Model, number: u16) -> InstanceId {
        let there: Vec<_> = model.instances.keys().copied().collect();
        pick(&there, number).filter(|_| number % 32 != 31).unwrap_or(InstanceId(u64::MAX))
    }

    fn at(model: &Model, number: u16, wanted: impl Fn(At) -> bool) -> Option<RequestId> {
        let there: Vec<_> =
            model.requests.iter().filter(|(_, req)| wanted(req.at)).map(|(id, _)| *id).collect();
        pick(&there, number)
    }

    /// The events of an action; none if there is nothing it could mean.
    pub(crate) fn events(&mut self, model: &Model, act: &Act) -> Vec<Event> {
        match *act {
            Act::Arrive { who, twist, policy } => vec![self.arrival(model, who, twist, policy)],
            Act::Withdraw { who } => {
                let queued = Self::at(model, who, |at| at == At::Queued);
                vec![Event::Withdrawn(queued.unwrap_or_else(|| Self::request(model, who)))]
            }
            Act::Expire { who } => vec![Event::Expired { request: Self::request(model, who), code: 4213 }],
            Act::Start { capacity, ready, cooperates } => {
                let instance = InstanceId(self.fresh());
                let mut all = vec![Event::InstanceStarted { instance, capacity }];
                all.extend(cooperates.then_some(Event::InstanceCooperates(instance)));
                all.extend(ready.then_some(Event::InstanceReady(instance)));
                all
            }
            Act::Ready { on } => vec![Event::InstanceReady(Self::instance(model, on))],
            Act::Cooperate { on } => vec![Event::InstanceCooperates(Self::instance(model, on))],
            Act::Place { who, on } => {
                let waits = Self::at(model, who, |at| matches!(at, At::Queued | At::Placed(_)));
                let request = waits.filter(|_| who % 8 > 0).unwrap_or_else(|| Self::request(model, who));
                vec![Event::Placed { request, instance: Self::instance(model, on) }]
            }
            Act::PlaceAndTake { who, on } => {
                let free: Vec<_> =
                    model.instances.keys().copied().filter(|instance| model.room(*instance) > 0).collect();
                let waits = Self::at(model, who, |at| at == At::Queued);
                let (Some(request), Some(instance)) = (waits, pick(&free, on)) else { return Vec::new() };
                vec![Event::Placed { request, instance }, Event::Taken { request, instance }]
            }
            Act::Take { who, twist } => {
                let placed = Self::at(model, who, |at| matches!(at, At::Placed(_)));
                let request = placed.filter(|_| twist % 8 > 0).unwrap_or_else(|| Self::request(model, who));
                let (instance, _) = Self::bent(model, request, twist);
                vec![Event::Taken { request, instance }]
            }
            Act::Undeliver { who, twist } => {
                let (request, instance, attempt) = Self::held(model, who, twist);
                vec![Event::DeliveryFailed { request, instance, attempt }]
            }
            Act::Answer { who, twist, answer } => {
                let (request, instance, attempt) = Self::held(model, who, twist);
                let told = Event::Answered { request, instance, attempt, answer };
                if twist % 16 == 3 { vec![told, told] } else { vec![told] }
            }
            Act::Cancel { who, scope, level, cause, early, ticket } => {
                vec![Event::CancelAsked(CancelAsk {
                    ticket: ticket.then(|| Ticket(self.fresh())),
                    early,
                    cancel: CancelId(u128::from(self.fresh())),
                    request: Self::request(model, who),
                    scope,
                    level,
                    cause,
                })]
            }
            _ => Self::fate(model, act),
        }
    }

    /// Facts about records, graces and the ends of instances.
    fn fate(model: &Model, act: &Act) -> Vec<Event> {
        vec![match *act {
            Act::WalkOn => Event::WalkOn,
            Act::Record { which, ok, twist } => return Self::record(model, which, ok, twist),
            Act::GraceOver { who, spurious } => {
                let asked = Self::at(model, who, |at| matches!(at, At::Running(_)));
                Event::GraceOver(asked.filter(|_| !spurious).unwrap_or_else(|| Self::request(model, who)))
            }
            Act::StartFail { on } => {
                let young: Vec<_> =
                    model.instances.iter().filter(|(_, i)| !i.ready).map(|(id, _)| *id).collect();
                let instance = pick(&young, on).unwrap_or_else(|| Self::instance(model, on));
                Event::StartFailed { instance, code: 4201 }
            }
            Act::Exit { on } => Event::Exited(Self::instance(model, on)),
            Act::Reap { on, spurious } => Event::Reaped(Self::dying(model, on, spurious)),
            Act::KillTimeout { on, spurious } => Event::KillTimedOut(Self::dying(model, on, spurious)),
            Act::Retire { on } => Event::RetireAsked(Self::instance(model, on)),
            Act::End { on } => Event::EndAsked(Self::instance(model, on)),
            _ => unreachable!("handled by `events`"),
        }]
    }

    fn arrival(&mut self, model: &Model, who: u16, twist: u8, policy: Policy) -> Event {
        let there = Self::at(model, who, |at| !matches!(at, At::Over(..)));
        let parent = match twist % 16 {
            0..=4 => None,
            5..=11 => there,
            _ => Some(Self::request(model, who)),
        };
        let known: Vec<_> = model.requests.keys().copied().collect();
        let over: Vec<_> = model.graves.keys().copied().collect();
        let again = match twist / 16 {
            0 => pick(&known, who),
            1 if self.reuse_buried => pick(&over, who),
            _ => None,
        };
        let request = again.unwrap_or_else(|| RequestId(u128::from(self.fresh())));
        Event::Arrived { request, parent, detached: twist % 16 == 11, policy }
    }

    /// Where the request is, or not quite.
    fn bent(model: &Model, request: RequestId, twist: u8) -> (InstanceId, Attempt) {
        let unknown = (InstanceId(u64::MAX), Attempt(1));
        let Some(req) = model.requests.get(&request) else { return unknown };
        let instance = req.instance().unwrap_or(unknown.0);
        match twist % 16 {
            13 => (Self::instance(model, u16::from(twist)), Attempt(req.attempt)),
            14 => (instance, Attempt(req.attempt.saturating_sub(1))),
            15 => (instance, Attempt(req.attempt + 1)),
            _ => (instance, Attempt(req.attempt)),
        }
    }

    fn held(model: &Model, who: u16, twist: u8) -> (RequestId, InstanceId, Attempt) {
        let held = Self::at(model, who, |at| matches!(at, At::Running(_) | At::Over(_, Some(_))));
        let request = held.filter(|_| twist % 8 != 7).unwrap_or_else(|| Self::request(model, who));
        let (instance, attempt) = Self::bent(model, request, twist);
        (request, instance, attempt)
    }

    fn record(model: &Model, which: u16, ok: bool, twist: u8) -> Vec<Event> {
        let open: Vec<_> = model
            .cancels
            .iter()
            .filter(|(_, cancel)| cancel.closed.is_none() && !cancel.recorded())
            .map(|(id, _)| *id)
            .collect();
        let all: Vec<_> = model.cancels.keys().copied().collect();
        let from = if twist.is_multiple_of(8) { &all } else { &open };
        let Some(cancel) = pick(from, which) else { return Vec::new() };
        let record = match twist / 8 % 8 {
            0 => model.cancels[&cancel].answered,
            1 => model.cancels[&cancel].asked + 1,
            2 => model.cancels[&cancel].asked,
            _ => model.cancels[&cancel].answered + 1,
        };
        vec![Event::Recorded { cancel, record, ok }]
    }

    fn dying(model: &Model, number: u16, spurious: bool) -> InstanceId {
        let dying: Vec<_> =
            model.instances.iter().filter(|(_, i)| i.why.is_some()).map(|(id, _)| *id).collect();
        pick(&dying, number).filter(|_| !spurious).unwrap_or_else(|| Self::instance(model, number))
    }
}
