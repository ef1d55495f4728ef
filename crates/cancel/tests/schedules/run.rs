//! One schedule: engine, model and laws side by side.

use std::collections::{BTreeMap, BTreeSet};

use cancel::{
    Attempt, Bounds, CancelAsk, Cause, Effect, Engine, Event, InstanceId, Level, OnGrace, Outcome, Plan,
    RequestId, Requeue, State, StopHow,
};

use crate::{
    actions::{Act, Resolver},
    laws::{Before, Laws},
    model::{At, Model},
};

pub(crate) struct Run {
    engine: Engine,
    model: Model,
    laws: Laws,
    resolver: Resolver,
    /// Graves in the order they were dug, by step; several of one step in any order.
    dug: BTreeMap<RequestId, usize>,
    steps: usize,
    graces: BTreeSet<RequestId>,
    /// Nothing comes between the slices of a walk.
    at_once: bool,
    traced: bool,
    trace: Vec<String>,
}

impl Drop for Run {
    /// With `QUELL_TRACE` set: the concrete events of a schedule that failed, so that it can be read.
    fn drop(&mut self) {
        if std::thread::panicking() && self.traced {
            println!("{}", self.trace.join("\n"));
        }
    }
}

impl Run {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let resolver = Resolver { reuse_buried: bounds.max_tombstones > 100, ..Resolver::default() };
        Self {
            engine: Engine::new(bounds),
            model: Model::new(bounds),
            laws: Laws::default(),
            resolver,
            dug: BTreeMap::new(),
            steps: 0,
            graces: BTreeSet::new(),
            at_once: false,
            traced: std::env::var_os("QUELL_TRACE").is_some(),
            trace: Vec::new(),
        }
    }

    /// The same, with every walk to its end before the next event.
    pub(crate) fn at_once(bounds: Bounds) -> Self {
        let mut run = Self::new(bounds);
        run.at_once = true;
        run
    }

    pub(crate) fn act(&mut self, act: &Act) {
        for event in self.resolver.events(&self.model, act) {
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        let planned = match event {
            Event::CancelAsked(ask) if !self.engine.unfinished() => Some((ask, self.engine.plan(&ask))),
            _ => None,
        };
        let before = self.laws.before(&self.engine);
        let mut effects = self.step_once(event);
        while self.at_once && self.engine.unfinished() {
            effects.extend(self.step_once(Event::WalkOn));
        }
        if let Some((ask, Ok(plan))) = planned.filter(|_| !self.engine.unfinished()) {
            self.plan_came_true(&ask, &plan, &effects, &before);
        }
    }

    fn step_once(&mut self, event: Event) -> Vec<Effect> {
        if self.traced {
            self.trace.push(format!("{event:?}"));
        }
        let before = self.laws.before(&self.engine);
        let mut effects = Vec::new();
        self.engine.step(event, &mut effects);
        let expected = self.model.step(event);
        same(event, &effects, expected);
        assert_eq!(self.engine.unfinished(), !self.model.walks.is_empty(), "whether a walk goes on");
        self.laws.step(&before, &event, &effects, &self.engine);
        for effect in &effects {
            if let Effect::StartGrace(request) = effect {
                assert!(self.graces.insert(*request), "a second grace for {request}");
            }
        }
        self.steps += 1;
        self.compare();
        effects
    }

    /// The engine shows exactly what the model holds, and holds no more.
    fn compare(&mut self) {
        self.engine.check().unwrap_or_else(|why| panic!("{why}"));
        for (id, req) in &self.model.requests {
            let shown = self.engine.request(*id).unwrap_or_else(|| panic!("{id} is gone"));
            let state = match req.at {
                At::Queued => State::Queued,
                At::Placed(_) => State::Placed,
                At::Running(_) => State::Running,
                At::Over(_, Some(_)) => State::Draining,
                At::Over(_, None) => State::Settled,
            };
            assert_eq!((shown.state, shown.instance), (state, req.instance()), "{id}");
            assert_eq!((shown.attempt, shown.level), (Attempt(req.attempt), req.level), "{id}");
            assert_eq!(shown.fenced_by, req.fence.map(|(_, cancel)| cancel), "{id}");
            assert_eq!(shown.parent, req.parent, "{id}");
            let outcome = match req.at {
                At::Over(outcome, _) => Some(outcome),
                _ => None,
            };
            assert_eq!((shown.outcome, self.engine.outcome(*id)), (outcome, outcome), "{id}");
            let (root, depth) = self.model.root(*id);
            assert_eq!((self.engine.root(*id), shown.depth), (Some(root), depth), "{id}");
            assert!(req.settled() || shown.stuck == req.stuck, "{id}: stuck");
            if req.parent.is_none() {
                self.compare_tree(*id);
            }
        }
        for (id, i) in &self.model.instances {
            let shown = self.engine.instance(*id).unwrap_or_else(|| panic!("{id} is gone"));
            assert_eq!((shown.capacity, shown.room), (i.capacity, self.model.room(*id)), "{id}");
            assert_eq!((shown.ready, shown.cooperates), (i.ready, i.cooperates), "{id}");
            assert_eq!(
                (shown.draining, shown.ending, shown.stuck),
                (i.draining, i.why.is_some(), i.stuck),
                "{id}"
            );
            assert_eq!(self.engine.room(*id), shown.room, "{id}");
            let mut tenants = shown.tenants;
            tenants.sort();
            assert_eq!(tenants, self.model.tenants(*id), "{id}");
        }
        let open = self.model.cancels.values().filter(|cancel| cancel.closed.is_none()).count();
        assert_eq!(
            self.engine.sizes(),
            (self.model.requests.len(), self.model.instances.len(), open),
            "requests, instances, cancels"
        );
        assert_eq!(self.engine.live() as usize, self.model.live().count());
        self.compare_tombstones();
    }

    fn compare_tree(&self, root: RequestId) {
        let shown = self.engine.subtree(root, usize::MAX);
        let mut ids: Vec<_> = shown.iter().map(|view| view.request).collect();
        for view in &shown[1..] {
            let parent = ids.iter().position(|id| Some(*id) == view.parent);
            assert!(parent < ids.iter().position(|id| *id == view.request), "parents come first");
        }
        ids.sort();
        let mut expected = self.model.subtree(root);
        expected.sort();
        assert_eq!(ids, expected, "below {root}");
        assert_eq!(self.engine.subtree(root, 1).len(), 1, "no more than asked for");
    }

    /// I10: the engine remembers of the buried the youngest: half as many as it may at least, and no more.
    fn compare_tombstones(&mut self) {
        for id in self.model.graves.keys() {
            self.dug.entry(*id).or_insert(self.steps);
        }
        let known = self.model.graves.len();
        let mut forgotten = Vec::new();
        for (id, (outcome, _)) in &self.model.graves {
            match self.engine.outcome(*id) {
                None => forgotten.push(*id),
                Some(remembered) => assert_eq!(remembered, *outcome, "{id}"),
            }
        }
        let bound = self.model.bounds.max_tombstones as usize;
        let remembered = known - forgotten.len();
        assert!((known.min(bound / 2)..=bound).contains(&remembered), "I10: {remembered} tombstones");
        self.model.graves.retain(|id, _| !forgotten.contains(id));
        for id in &forgotten {
            let dug = self.dug[id];
            let older = self.model.graves.keys().find(|kept| self.dug[kept] < dug);
            assert_eq!(older, None, "I10: {id} was forgotten before an older one");
        }
    }

    /// What was planned is what was done, and what follows from it.
    fn plan_came_true(&self, ask: &CancelAsk, plan: &Plan, effects: &[Effect], before: &Before) {
        if ask.cause != Cause::Asked && effects.is_empty() {
            return; // a timer of ours about what somebody stopped before
        }
        let kills: BTreeSet<InstanceId> = collect(effects, |effect| match effect {
            Effect::Kill(instance) => Some(*instance),
            _ => None,
        });
        assert_eq!(plan.kills.iter().copied().collect::<BTreeSet<_>>(), kills, "planned kills");
        let fenced: BTreeSet<RequestId> = collect(effects, |effect| match effect {
            Effect::Fence { request, .. } => Some(*request),
            _ => None,
        });
        for stop in &plan.stops {
            let id = stop.request;
            let was = &before[&id];
            let settled = self.model.requests.get(&id).is_none_or(|req| req.settled());
            match stop.how {
                StopHow::Removed => assert!(settled && fenced.contains(&id), "{id} was not removed"),
                StopHow::Asked { instance, then } => {
                    assert!(effects.contains(&Effect::StartGrace(id)), "{id} was not asked");
                    self.after_grace(id, instance, then);
                }
                StopHow::Killed(instance) => {
                    assert!(self.engine.instance(instance).is_some_and(|i| i.ending), "{instance} lives");
                }
                StopHow::Stopping => {
                    assert_eq!(was.level, self.engine.request(id).and_then(|is| is.level), "{id} was raised");
                }
                StopHow::Draining(_) => assert_eq!(was.state, State::Draining),
            }
        }
        for id in &fenced {
            assert!(plan.stops.iter().any(|stop| stop.request == *id), "{id} was not in the plan");
        }
        let mut after = effects.to_vec();
        let mut later = self.engine.clone();
        for instance in &kills {
            later.step(Event::Reaped(*instance), &mut after);
        }
        let collateral: BTreeSet<RequestId> = collect(&after, |effect| match effect {
            Effect::Settle { request, outcome: Outcome::Canceled, .. } => {
                self.engine.request(*request).filter(|is| is.level.is_none()).map(|_| *request)
            }
            _ => None,
        });
        let requeued: BTreeSet<RequestId> = collect(&after, |effect| match effect {
            Effect::Requeue { request, why: Requeue::Displaced | Requeue::Collateral } => Some(*request),
            _ => None,
        });
        assert_eq!(plan.collateral.iter().copied().collect::<BTreeSet<_>>(), collateral, "collateral");
        assert_eq!(plan.requeued.iter().copied().collect::<BTreeSet<_>>(), requeued, "requeued");
        assert!(ask.level == Level::Kill || plan.kills.is_empty() || self.hard(ask), "an Ask kills nobody");
    }

    fn hard(&self, ask: &CancelAsk) -> bool {
        let running = self.model.running(ask.request);
        running.is_some_and(|id| self.model.cancels[&id].level == Level::Kill)
    }

    fn after_grace(&self, request: RequestId, instance: InstanceId, then: OnGrace) {
        let (mut later, mut effects) = (self.engine.clone(), Vec::new());
        later.step(Event::GraceOver(request), &mut effects);
        let killed = effects.contains(&Effect::Kill(instance));
        assert_eq!(killed, then == OnGrace::Kill, "after the grace of {request}: {effects:?}");
    }

    /// I9: tells every outstanding fact; nobody may be left waiting. `choices` decides which of the
    /// instances resist their kill for a while.
    pub(crate) fn finish(&mut self, choices: u64) {
        while self.engine.unfinished() {
            self.step(Event::WalkOn);
        }
        // What a cancel waits for, and no answer of any runtime.
        self.tell_records();
        for request in std::mem::take(&mut self.graces) {
            self.step(Event::GraceOver(request));
        }
        self.tell_ends(choices);
        assert!(self.laws.waiting.is_empty(), "I9: nobody answered {:?}", self.laws.waiting);
        assert_eq!(self.engine.sizes().2, 0, "I9: a cancel is still open");
        // The innocent: they run to their ends, the waiting expire.
        for (request, req) in self.model.requests.clone() {
            match req.at {
                At::Queued | At::Placed(_) => self.step(Event::Expired { request, code: 4213 }),
                At::Running(instance) => {
                    let (attempt, answer) = (Attempt(req.attempt), cancel::Answer::Returned);
                    self.step(Event::Answered { request, instance, attempt, answer });
                }
                At::Over(..) => {}
            }
        }
        for instance in self.model.instances.keys().copied().collect::<Vec<_>>() {
            self.step(Event::RetireAsked(instance));
        }
        self.tell_ends(0);
        for request in self.model.live().collect::<Vec<_>>() {
            self.step(Event::Expired { request, code: 4213 });
        }
        self.laws.end();
        assert_eq!(self.engine.sizes(), (0, 0, 0), "something is left");
    }

    fn tell_records(&mut self) {
        for (cancel, open) in self.model.cancels.clone() {
            if open.closed.is_none() && !open.recorded() {
                self.step(Event::Recorded { cancel, record: open.asked, ok: true });
            }
        }
    }

    fn tell_ends(&mut self, choices: u64) {
        let dying: Vec<_> =
            self.model.instances.iter().filter(|(_, i)| i.why.is_some()).map(|(id, _)| *id).collect();
        for instance in dying {
            if choices >> (instance.0 % 64) & 1 == 1 {
                self.step(Event::KillTimedOut(instance));
            }
            self.step(Event::Exited(instance));
            self.step(Event::Reaped(instance));
        }
    }
}

fn collect<T: Ord>(effects: &[Effect], which: impl Fn(&Effect) -> Option<T>) -> BTreeSet<T> {
    effects.iter().filter_map(which).collect()
}

/// The same effects, each as often, in whatever order.
fn same(event: Event, came: &[Effect], mut expected: Vec<Effect>) {
    for effect in came {
        let Some(at) = expected.iter().position(|wanted| wanted == effect) else {
            panic!("{event:?}: nobody expected {effect:?}; still expected {expected:?}");
        };
        expected.swap_remove(at);
    }
    assert!(expected.is_empty(), "{event:?}: came {came:?}, still expected {expected:?}");
}
