//! The invariants, checked on what is seen from outside: events in, effects out, nothing else.
//!
//! The reference model says what must happen; these say what must never happen, whoever is right.

use std::collections::{BTreeMap, BTreeSet};

use cancel::{
    CancelId, Effect, Engine, Event, Evidence, InstanceId, Level, OnGrace, Outcome, Policy, Refusal, Reply,
    RequestId, RequestView, Scope, State, Ticket,
};

#[derive(Clone, Debug, Default)]
struct Seen {
    target: Option<RequestId>,
    subtree: bool,
    level: Option<Level>,
    asked: u32,
    durable: bool,
    closed: bool,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Laws {
    parents: BTreeMap<RequestId, Option<RequestId>>,
    policies: BTreeMap<RequestId, Policy>,
    fenced: BTreeSet<RequestId>,
    /// Targets of cancels that covered everything below them.
    closed_over: BTreeSet<RequestId>,
    settled: BTreeMap<RequestId, (Outcome, Evidence)>,
    gone: BTreeSet<RequestId>,
    attempts: BTreeMap<RequestId, u32>,
    kills: BTreeSet<InstanceId>,
    cancels: BTreeMap<CancelId, Seen>,
    /// What each cancel may be about and whether all below it, as far as its askers said.
    asks: BTreeMap<CancelId, (RequestId, bool)>,
    pub(crate) waiting: BTreeSet<Ticket>,
    answered: BTreeSet<Ticket>,
}

/// How things stood before the event.
pub(crate) type Before = BTreeMap<RequestId, RequestView>;

impl Laws {
    /// What has to be remembered of the state before an event.
    pub(crate) fn before(&self, engine: &Engine) -> Before {
        let live = self.parents.keys().filter(|id| !self.settled.contains_key(*id) || !self.gone(**id));
        live.filter_map(|id| Some((*id, engine.request(*id)?))).collect()
    }

    fn gone(&self, request: RequestId) -> bool {
        match self.settled.get(&request) {
            Some((_, Evidence::FencedOnly(_))) => self.gone.contains(&request),
            Some(_) => true,
            None => false,
        }
    }

    fn ancestors(&self, request: RequestId) -> Vec<RequestId> {
        let mut all = vec![request];
        while let Some(Some(parent)) = self.parents.get(all.last().expect("never empty")) {
            all.push(*parent);
        }
        all
    }

    pub(crate) fn step(&mut self, before: &Before, event: &Event, effects: &[Effect], engine: &Engine) {
        self.facts(event);
        self.order(event, effects);
        for effect in effects {
            self.effect(before, event, effect, engine);
        }
        for (request, was) in before {
            if let Some(is) = engine.request(*request) {
                assert!(is.level >= was.level, "I3: the level of {request} fell");
                assert!(was.fenced_by.is_none() || was.fenced_by == is.fenced_by, "first fence changed");
            }
        }
        if let Event::Withdrawn(request) = event
            && engine.request(*request).is_none()
            && !self.settled.contains_key(request)
        {
            self.parents.remove(request);
            self.attempts.remove(request);
            self.policies.remove(request);
        }
    }

    fn facts(&mut self, event: &Event) {
        match event {
            Event::CancelAsked(ask) => {
                self.waiting.extend(ask.ticket);
                let subtree = ask.scope == Scope::Subtree;
                // It may join one that is about the same request.
                for (target, all) in self.asks.values_mut() {
                    *all |= subtree && *target == ask.request;
                }
                self.asks.insert(ask.cancel, (ask.request, subtree));
            }
            Event::Recorded { cancel, record, ok } => {
                if let Some(seen) = self.cancels.get_mut(cancel).filter(|seen| seen.asked == *record) {
                    seen.durable = *ok || seen.durable;
                }
            }
            Event::Arrived { request, policy, .. } => {
                self.policies.entry(*request).or_insert(*policy);
            }
            _ => {}
        }
    }

    /// Fence all, then record, then act (I2); answers before the close.
    fn order(&self, event: &Event, effects: &[Effect]) {
        if let Event::CancelAsked(_) | Event::WalkOn = event {
            let rank = |effect: &Effect| match effect {
                Effect::Fence { .. } => 0,
                Effect::Record { .. } => 1,
                _ => 2,
            };
            assert!(effects.is_sorted_by_key(rank), "fence, record, act: {effects:?}");
        }
        for (at, effect) in effects.iter().enumerate() {
            let Effect::Close { reply, .. } = effect else { continue };
            let late =
                |effect: &Effect| matches!(effect, Effect::Answer { reply: late, .. } if late == reply);
            assert!(!effects[at..].iter().any(late), "an answer after its close");
        }
    }

    fn effect(&mut self, before: &Before, event: &Event, effect: &Effect, engine: &Engine) {
        match *effect {
            Effect::Accept { request, .. } => self.accept(event, request),
            Effect::Refuse { why, .. } => {
                if let Event::Arrived { parent: Some(parent), .. } = event
                    && engine.request(*parent).is_some_and(|parent| parent.level.is_some())
                {
                    assert!(matches!(why, Refusal::ParentCanceled | Refusal::Duplicate), "I2: {why:?}");
                }
            }
            Effect::Deliver { request, instance, attempt } => {
                assert!(!self.fenced.contains(&request), "I1: delivered after its fence");
                assert!(!self.settled.contains_key(&request), "I1: delivered after its end");
                for above in self.ancestors(request) {
                    assert!(!self.closed_over.contains(&above), "I2: started below a fenced subtree");
                }
                assert!(!self.kills.contains(&instance), "delivered to a killed instance");
                let last = self.attempts.insert(request, attempt.0).unwrap_or(0);
                assert_eq!(attempt.0, last + 1, "I8: attempts count up");
            }
            Effect::Fence { request, first, .. } => {
                assert!(!first || !self.settled.contains_key(&request), "first fenced after its end");
                assert!(!self.gone.contains(&request), "fenced after its last code had ended");
                assert_eq!(self.fenced.insert(request), first, "`first` tells whether it is news");
            }
            Effect::Record { cancel, record, level } => self.record(event, cancel, record, level),
            Effect::Requeue { request, .. } => {
                assert!(!self.fenced.contains(&request), "I2: a fenced request waits again");
                assert!(!self.settled.contains_key(&request), "I1: waits again after its end");
            }
            Effect::Kill(instance) => {
                assert!(self.kills.insert(instance), "killed twice");
                self.blast(before, event, instance, engine);
            }
            Effect::Settle { request, outcome, evidence, ran } => {
                assert!(!ran || self.attempts.contains_key(&request), "ran, and was never delivered");
                self.settle(before, event, request, outcome, evidence);
            }
            Effect::Gone { request, evidence } => {
                let (_, how) = self.settled[&request];
                let Evidence::FencedOnly(instance) = how else { panic!("gone, but never a ghost") };
                assert!(self.gone.insert(request), "gone twice");
                self.evidence(event, instance, evidence);
            }
            Effect::Answer { ticket, reply } => {
                assert!(self.waiting.remove(&ticket), "answered nobody, or twice");
                assert!(self.answered.insert(ticket), "answered twice");
                self.reply(reply);
            }
            Effect::Close { cancel, reply } => {
                self.reply(reply);
                let seen = self.cancels.get_mut(&cancel).expect("closed before it was recorded");
                assert!(!std::mem::replace(&mut seen.closed, true), "closed twice");
            }
            Effect::Ask { .. }
            | Effect::Terminate(_)
            | Effect::StartGrace(_)
            | Effect::Drain(_)
            | Effect::Quarantine(_)
            | Effect::Stuck(_) => {}
        }
    }

    fn accept(&mut self, event: &Event, request: RequestId) {
        let Event::Arrived { parent, detached, .. } = event else { panic!("accepted what never arrived") };
        if let Some(parent) = parent {
            assert!(!self.fenced.contains(parent), "I2: born below a fence");
            assert!(!self.settled.contains_key(parent), "born of the dead");
            for above in self.ancestors(*parent) {
                assert!(!self.closed_over.contains(&above), "I2: born below a fenced subtree");
            }
        }
        self.parents.insert(request, parent.filter(|_| !detached));
    }

    fn record(&mut self, event: &Event, cancel: CancelId, record: u32, level: Level) {
        assert!(matches!(event, Event::CancelAsked(_) | Event::WalkOn), "a record nobody asked for");
        let (target, subtree) = self.asks[&cancel];
        let seen = self.cancels.entry(cancel).or_default();
        assert!(!seen.closed, "a record of a closed cancel");
        assert_eq!(record, seen.asked + 1, "records count up");
        assert!(Some(level) >= seen.level, "I3: the level of a cancel fell");
        seen.target = Some(target);
        seen.subtree |= subtree;
        seen.level = Some(level);
        seen.asked = record;
        seen.durable = false;
        if seen.subtree {
            self.closed_over.insert(target);
        }
    }

    /// I4: who may be killed.
    fn blast(&self, before: &Before, event: &Event, instance: InstanceId, engine: &Engine) {
        let is_fact_of = |id: InstanceId| id == instance;
        match event {
            Event::StartFailed { instance: id, .. } | Event::Exited(id) | Event::EndAsked(id)
                if is_fact_of(*id) =>
            {
                return;
            }
            _ => {}
        }
        let mut on_it = before.values().filter(|was| was.instance == Some(instance));
        let hard = |was: &RequestView| {
            // Of a walk in slices the fence was there before.
            (matches!(event, Event::CancelAsked(_)) && was.level < Some(Level::Kill)
                || matches!(event, Event::WalkOn))
                && engine.request(was.request).is_some_and(|is| is.level == Some(Level::Kill))
        };
        if on_it.clone().any(hard) {
            return;
        }
        let chose = matches!(event, Event::GraceOver(request)
            if before[request].instance == Some(instance) && before[request].level == Some(Level::Ask)
                && self.policies[request].on_grace == OnGrace::Kill);
        let innocent = on_it.find(|was| {
            let left = matches!(event, Event::Answered { request, .. } | Event::DeliveryFailed { request, .. }
                if *request == was.request);
            was.state == State::Running && was.level.is_none() && !left
        });
        assert!(chose || innocent.is_none(), "I4: {instance} served {innocent:?}");
    }

    fn evidence(&self, event: &Event, instance: InstanceId, evidence: Evidence) {
        match (evidence, event) {
            (Evidence::Reaped(at), Event::Reaped(now)) => assert_eq!((at, *now), (instance, instance)),
            (Evidence::Acknowledged(at, _), Event::Answered { instance: by, .. }) => {
                assert_eq!((at, *by), (instance, instance));
                assert!(!self.kills.contains(&at), "I5: the word of a killed instance");
            }
            _ => panic!("{evidence:?} at {event:?}"),
        }
    }

    /// I1 and I5: one result, and only on evidence.
    fn settle(
        &mut self,
        before: &Before,
        event: &Event,
        request: RequestId,
        outcome: Outcome,
        evidence: Evidence,
    ) {
        let was = &before[&request];
        let fenced = self.fenced.contains(&request);
        assert!(self.settled.insert(request, (outcome, evidence)).is_none(), "I1: settled twice");
        if fenced {
            assert!(
                matches!(outcome, Outcome::Canceled | Outcome::TimedOut),
                "I1: {outcome:?} after a fence"
            );
        }
        if !fenced && outcome == Outcome::Canceled {
            assert!(matches!(evidence, Evidence::Reaped(at) if self.kills.contains(&at)), "I4: collateral");
        }
        match evidence {
            Evidence::NeverStarted => {
                let undelivered =
                    matches!(event, Event::DeliveryFailed { request: failed, .. } if *failed == request);
                assert!(was.state != State::Running || undelivered, "it had started");
            }
            Evidence::Answered => {
                assert!(!fenced && matches!(event, Event::Answered { request: by, .. } if *by == request));
            }
            Evidence::FencedOnly(at) => {
                assert!(matches!(event, Event::GraceOver(over) if *over == request));
                assert_eq!((was.level, was.instance), (Some(Level::Ask), Some(at)));
            }
            Evidence::Reaped(at) | Evidence::Acknowledged(at, _) => {
                assert_eq!(was.instance, Some(at));
                self.evidence(event, at, evidence);
            }
        }
        let undelivered =
            matches!(event, Event::DeliveryFailed { request: failed, .. } if *failed == request);
        if was.level == Some(Level::Kill) && was.state == State::Running && !undelivered {
            assert!(matches!(evidence, Evidence::Reaped(_)), "I5: a killed one settled before its reap");
        }
    }

    /// I5 and I6: what an asker is told is so.
    fn reply(&self, reply: Reply) {
        match reply {
            Reply::Stopped(cancel) => {
                assert!(self.cancels[&cancel].durable, "I6: Stopped, and not recorded");
                for request in self.covered(cancel) {
                    assert!(self.gone(request), "I5: Stopped, and {request} may run");
                }
            }
            Reply::Draining(cancel) => {
                assert!(self.cancels[&cancel].durable, "I6: Draining, and not recorded");
                assert_eq!(
                    self.cancels[&cancel].level,
                    Some(Level::Ask),
                    "I5: a kill leaves nothing draining"
                );
                for request in self.covered(cancel) {
                    assert!(self.settled.contains_key(&request), "I5: Draining, and {request} not settled");
                }
            }
            Reply::Fenced(cancel) => {
                assert!(self.cancels[&cancel].durable, "I6: Fenced, and not recorded");
                for request in self.covered(cancel) {
                    let over = self.settled.contains_key(&request);
                    assert!(over || self.fenced.contains(&request), "I2: Fenced, and {request} is not");
                }
            }
            Reply::AlreadyCanceled { cancel, .. } => {
                assert!(self.cancels[&cancel].durable, "I6: AlreadyCanceled, and not recorded");
            }
            Reply::Unkillable(_)
            | Reply::NotRecorded(_)
            | Reply::Finished(_)
            | Reply::Unknown
            | Reply::TooManyAskers(_) => {}
        }
    }

    fn covered(&self, cancel: CancelId) -> Vec<RequestId> {
        let seen = &self.cancels[&cancel];
        let target = seen.target.expect("recorded");
        let below = |id: &RequestId| self.ancestors(*id).contains(&target);
        self.parents.keys().copied().filter(|id| *id == target || (seen.subtree && below(id))).collect()
    }

    /// I9 at the end: nobody waits, nothing fenced is open, nothing killed is left.
    pub(crate) fn end(&self) {
        assert!(self.waiting.is_empty(), "I9: nobody answered {:?}", self.waiting);
        for request in &self.fenced {
            assert!(self.settled.contains_key(request), "I9: {request} never settled");
        }
        for (cancel, seen) in &self.cancels {
            assert!(seen.closed, "I9: {cancel} never closed");
        }
        for request in self.parents.keys() {
            assert!(self.gone(*request), "{request} never ended");
        }
    }
}
