//! The reference: what every event must do, written as plainly as possible.
//!
//! Plain ordered maps, a parent link per request and nothing else: no counters, no generational keys,
//! no walk that stops early. Whether a cancel is over, who is below whom, what may still run: all of
//! it is computed anew from the requests each time it is asked. Slow, and meant to be.

use std::collections::{BTreeMap, VecDeque};

use cancel::{
    Answer, Attempt, Bounds, CancelId, Cause, Effect, Event, Evidence, InstanceId, Level, Outcome, Policy,
    Refusal, RequestId, Requeue,
};

use crate::cancels::Cancel;

/// Where a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Queued,
    Placed(InstanceId),
    Running(InstanceId),
    /// It has its result; its code may still run on the instance, if one is named.
    Over(Outcome, Option<InstanceId>),
}

#[derive(Clone, Debug)]
pub(crate) struct Req {
    pub(crate) parent: Option<RequestId>,
    /// How many had arrived before it.
    pub(crate) born: usize,
    pub(crate) policy: Policy,
    pub(crate) at: At,
    /// Cause and cancel of the first fence.
    pub(crate) fence: Option<(Cause, CancelId)>,
    pub(crate) level: Option<Level>,
    pub(crate) attempt: u32,
    /// Attempts that reached a runtime.
    pub(crate) runs: u32,
    pub(crate) stuck: bool,
}

impl Req {
    pub(crate) fn settled(&self) -> bool {
        matches!(self.at, At::Over(..))
    }

    pub(crate) fn instance(&self) -> Option<InstanceId> {
        match self.at {
            At::Placed(i) | At::Running(i) | At::Over(_, Some(i)) => Some(i),
            At::Queued | At::Over(_, None) => None,
        }
    }

    pub(crate) fn outcome_if_fenced(&self) -> Outcome {
        match self.fence {
            Some((Cause::Deadline, _)) => Outcome::TimedOut,
            _ => Outcome::Canceled,
        }
    }
}

/// Why an instance ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Canceled,
    Crashed,
    StartFailed(u16),
    Drained,
    NodeEnds,
}

#[derive(Clone, Debug)]
pub(crate) struct Inst {
    pub(crate) capacity: u32,
    pub(crate) ready: bool,
    pub(crate) cooperates: bool,
    pub(crate) draining: bool,
    pub(crate) terminated: bool,
    pub(crate) stuck: bool,
    pub(crate) why: Option<Why>,
}

/// The reference state.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) bounds: Bounds,
    /// Requests that have not settled, whose code may run, or below which such a one is.
    pub(crate) requests: BTreeMap<RequestId, Req>,
    /// How the others ended: result, cancel that fenced it.
    pub(crate) graves: BTreeMap<RequestId, (Outcome, Option<CancelId>)>,
    pub(crate) instances: BTreeMap<InstanceId, Inst>,
    pub(crate) cancels: BTreeMap<CancelId, Cancel>,
    /// Those whose walk goes on, in turn.
    pub(crate) walks: VecDeque<CancelId>,
    arrivals: usize,
    /// What is expected of the event at hand.
    pub(crate) effects: Vec<Effect>,
}

impl Model {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            requests: BTreeMap::new(),
            graves: BTreeMap::new(),
            instances: BTreeMap::new(),
            cancels: BTreeMap::new(),
            walks: VecDeque::new(),
            arrivals: 0,
            effects: Vec::new(),
        }
    }

    /// Takes the event and tells, in no particular order, what must come out.
    pub(crate) fn step(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Arrived { request, parent, detached, policy } => {
                self.arrived(request, parent, detached, policy);
            }
            Event::Withdrawn(request) => self.withdrawn(request),
            Event::Expired { request, code } => self.expired(request, code),
            Event::InstanceStarted { instance, capacity } => self.started(instance, capacity),
            Event::InstanceCooperates(instance) => {
                self.instances.entry(instance).and_modify(|i| i.cooperates = true);
            }
            Event::InstanceReady(instance) => {
                self.instances.entry(instance).and_modify(|i| i.ready = true);
            }
            Event::StartFailed { instance, code } => self.end(instance, Why::StartFailed(code)),
            Event::Placed { request, instance } => self.placed(request, instance),
            Event::Taken { request, instance } => self.taken(request, instance),
            Event::DeliveryFailed { request, instance, attempt } => {
                self.delivery_failed(request, instance, attempt);
            }
            Event::Answered { request, instance, attempt, answer } => {
                self.answered(request, instance, attempt, answer);
            }
            Event::CancelAsked(ask) => self.cancel_asked(&ask),
            Event::WalkOn => self.walk_on(),
            Event::Recorded { cancel, record, ok } => self.recorded(cancel, record, ok),
            Event::GraceOver(request) => self.grace_over(request),
            Event::Exited(instance) => self.end(instance, Why::Crashed),
            Event::Reaped(instance) => self.reaped(instance),
            Event::KillTimedOut(instance) => self.kill_timed_out(instance),
            Event::RetireAsked(instance) => {
                self.drain(instance);
            }
            Event::EndAsked(instance) => self.end(instance, Why::NodeEnds),
        }
        self.end_what_has_drained();
        self.close_what_is_over();
        self.bury();
        std::mem::take(&mut self.effects)
    }

    fn arrived(&mut self, request: RequestId, parent: Option<RequestId>, detached: bool, policy: Policy) {
        if let Err(why) = self.admission(request, parent, detached) {
            return self.effects.push(Effect::Refuse { request, why });
        }
        let parent = parent.filter(|_| !detached);
        self.arrivals += 1;
        let new = Req {
            parent,
            born: self.arrivals,
            policy,
            at: At::Queued,
            fence: None,
            level: None,
            attempt: 0,
            runs: 0,
            stuck: false,
        };
        self.requests.insert(request, new);
        let (root, depth) = self.root(request);
        self.effects.push(Effect::Accept { request, root, depth });
    }

    fn admission(
        &self,
        request: RequestId,
        parent: Option<RequestId>,
        detached: bool,
    ) -> Result<(), Refusal> {
        if self.requests.contains_key(&request) || self.graves.contains_key(&request) {
            return Err(Refusal::Duplicate);
        }
        if let Some(parent) = parent {
            let fenced = match (self.requests.get(&parent), self.graves.get(&parent)) {
                (Some(parent), _) => parent.fence.is_some(),
                (None, Some((_, cancel))) => cancel.is_some(),
                (None, None) => return Err(Refusal::ParentGone),
            };
            if fenced {
                return Err(Refusal::ParentCanceled);
            }
            if self.requests.get(&parent).is_none_or(Req::settled) {
                return Err(Refusal::ParentGone);
            }
        }
        if self.live().count() >= self.bounds.max_live as usize {
            return Err(Refusal::TooMany);
        }
        let Some(parent) = parent.filter(|_| !detached) else { return Ok(()) };
        let (root, depth) = self.root(parent);
        if depth + 1 > self.bounds.max_depth {
            return Err(Refusal::TooDeep);
        }
        if self.live().filter(|id| self.root(*id).0 == root).count() >= self.bounds.max_below_root as usize {
            return Err(Refusal::TooManyBelowRoot);
        }
        Ok(())
    }

    /// Requests that have not settled.
    pub(crate) fn live(&self) -> impl Iterator<Item = RequestId> + '_ {
        self.requests.iter().filter(|(_, req)| !req.settled()).map(|(id, _)| *id)
    }

    /// The root of a request and its distance from it.
    pub(crate) fn root(&self, request: RequestId) -> (RequestId, u16) {
        match self.requests[&request].parent {
            None => (request, 0),
            Some(parent) => {
                let (root, depth) = self.root(parent);
                (root, depth + 1)
            }
        }
    }

    pub(crate) fn has_children(&self, request: RequestId) -> bool {
        self.requests.values().any(|req| req.parent == Some(request))
    }

    /// The request and everything below it, parents first and of brothers the youngest.
    pub(crate) fn subtree(&self, request: RequestId) -> Vec<RequestId> {
        let mut all = Vec::new();
        if self.requests.contains_key(&request) {
            all.push(request);
        }
        let mut children: Vec<_> =
            self.requests.iter().filter(|(_, req)| req.parent == Some(request)).collect();
        children.sort_by_key(|(_, req)| std::cmp::Reverse(req.born));
        for (id, _) in children {
            all.extend(self.subtree(*id));
        }
        all
    }

    fn withdrawn(&mut self, request: RequestId) {
        let Some(req) = self.requests.get(&request) else { return };
        if req.at == At::Queued && req.fence.is_none() && !self.has_children(request) {
            self.requests.remove(&request);
        }
    }

    fn expired(&mut self, request: RequestId, code: u16) {
        let Some(req) = self.requests.get(&request) else { return };
        if req.fence.is_none() && matches!(req.at, At::Queued | At::Placed(_)) {
            self.settle(request, Outcome::Failed(code), Evidence::NeverStarted);
        }
    }

    fn started(&mut self, instance: InstanceId, capacity: u32) {
        self.instances.entry(instance).or_insert(Inst {
            capacity: if capacity == 0 { 1 } else { capacity },
            ready: false,
            cooperates: false,
            draining: false,
            terminated: false,
            stuck: false,
            why: None,
        });
    }

    /// Requests that hold a place on the instance.
    pub(crate) fn tenants(&self, instance: InstanceId) -> Vec<RequestId> {
        self.requests.iter().filter(|(_, req)| req.instance() == Some(instance)).map(|(id, _)| *id).collect()
    }

    pub(crate) fn room(&self, instance: InstanceId) -> u32 {
        match self.instances.get(&instance) {
            Some(i) if !i.draining && i.why.is_none() => {
                i.capacity.saturating_sub(self.tenants(instance).len() as u32)
            }
            _ => 0,
        }
    }

    fn placed(&mut self, request: RequestId, instance: InstanceId) {
        let room = self.room(instance);
        let Some(req) = self.requests.get_mut(&request) else { return };
        if req.fence.is_some() || !matches!(req.at, At::Queued | At::Placed(_)) {
            return;
        }
        if req.at == At::Placed(instance) {
            return;
        }
        if room > 0 {
            req.at = At::Placed(instance);
        } else if req.at == At::Queued {
            self.effects.push(Effect::Requeue { request, why: Requeue::Displaced });
        }
    }

    fn taken(&mut self, request: RequestId, instance: InstanceId) {
        let Some(req) = self.requests.get_mut(&request) else { return };
        let alive = self.instances.get(&instance).is_some_and(|i| i.why.is_none());
        if req.at == At::Placed(instance) && req.fence.is_none() && alive {
            req.at = At::Running(instance);
            req.attempt += 1;
            req.runs += 1;
            let attempt = Attempt(req.attempt);
            self.effects.push(Effect::Deliver { request, instance, attempt });
        }
    }

    fn delivery_failed(&mut self, request: RequestId, instance: InstanceId, attempt: Attempt) {
        let Some(req) = self.requests.get_mut(&request) else { return };
        let Some(i) = self.instances.get(&instance) else { return };
        if req.at != At::Running(instance) || Attempt(req.attempt) != attempt || i.why.is_some() {
            return;
        }
        req.runs -= 1;
        if req.fence.is_some() {
            let outcome = req.outcome_if_fenced();
            self.settle(request, outcome, Evidence::NeverStarted);
        } else if i.draining {
            self.requeue(request, Requeue::Displaced);
        } else {
            req.at = At::Placed(instance);
        }
    }

    fn answered(&mut self, request: RequestId, instance: InstanceId, attempt: Attempt, answer: Answer) {
        let Some(req) = self.requests.get(&request) else { return };
        let Some(i) = self.instances.get(&instance) else { return };
        if Attempt(req.attempt) != attempt {
            return;
        }
        let evidence = Evidence::Acknowledged(instance, attempt);
        if let At::Over(outcome, Some(at)) = req.at {
            // What is being killed is believed only when reaped.
            if at == instance && i.why.is_none() {
                self.gone(request, outcome, evidence);
            }
        } else if req.at == At::Running(instance) {
            if req.fence.is_none() {
                match answer {
                    Answer::Returned => self.settle(request, Outcome::Returned, Evidence::Answered),
                    Answer::Failed { code, retry } => {
                        if !(retry && self.retry(request)) {
                            self.settle(request, Outcome::Failed(code), Evidence::Answered);
                        }
                    }
                }
            } else if i.why.is_some() || req.level == Some(Level::Kill) {
                // What is killed, or is about to be, is believed only when reaped.
            } else if i.terminated {
                self.end(instance, Why::Canceled);
            } else {
                self.settle(request, req.outcome_if_fenced(), evidence);
            }
        }
    }

    /// Another attempt, if one is left.
    pub(crate) fn retry(&mut self, request: RequestId) -> bool {
        let req = self.requests.get_mut(&request).expect("known");
        if req.policy.retries == 0 {
            return false;
        }
        req.policy.retries -= 1;
        self.requeue(request, Requeue::Retry);
        true
    }

    pub(crate) fn requeue(&mut self, request: RequestId, why: Requeue) {
        let req = self.requests.get_mut(&request).expect("known");
        req.at = At::Queued;
        req.stuck = false;
        self.effects.push(Effect::Requeue { request, why });
    }

    pub(crate) fn settle(&mut self, request: RequestId, outcome: Outcome, evidence: Evidence) {
        let req = self.requests.get_mut(&request).expect("known");
        let ghost = match evidence {
            Evidence::FencedOnly(instance) => Some(instance),
            _ => None,
        };
        req.at = At::Over(outcome, ghost);
        let ran = req.runs > 0;
        self.effects.push(Effect::Settle { request, outcome, ran, evidence });
    }

    pub(crate) fn gone(&mut self, request: RequestId, outcome: Outcome, evidence: Evidence) {
        self.requests.get_mut(&request).expect("known").at = At::Over(outcome, None);
        self.effects.push(Effect::Gone { request, evidence });
    }
}
