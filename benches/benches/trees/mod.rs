//! Engines with a tree in them, for both kinds of bench.

mod ask;

use cancel::{
    Answer, Attempt, Bounds, Effect, Engine, Event, InstanceId, OnCollateral, OnGrace, Policy, RequestId,
};

use self::ask::whole_tree;

/// Requests on one instance, where some run.
const ON_AN_INSTANCE: u32 = 4;
/// Longest chain of a deep tree; the engine's default bound is a little more.
const DEEP: u128 = 60;

const POLICY: Policy =
    Policy { on_grace: OnGrace::Drain, on_collateral: OnCollateral::Fail, asynchronous: true, retries: 0 };

/// How a tree looks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// One parent of all others.
    Wide,
    /// Chains.
    Deep,
    /// Four children each.
    Mixed,
}

impl Shape {
    fn parent(self, id: u128) -> Option<RequestId> {
        let parent = match self {
            _ if id == 0 => return None,
            Self::Wide => 0,
            Self::Deep if id % DEEP == 1 => 0,
            Self::Deep => id - 1,
            Self::Mixed => (id - 1) / 4,
        };
        Some(RequestId(parent))
    }
}

/// An engine, and a place for its effects that need not grow.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) out: Vec<Effect>,
}

impl Bench {
    /// An engine without a request, for so many.
    pub(crate) fn empty(requests: u128) -> Self {
        Self { engine: Engine::new(Bounds::default()), out: Vec::with_capacity(requests as usize * 6) }
    }

    /// A tree of requests that wait.
    pub(crate) fn queued(shape: Shape, requests: u128) -> Self {
        let mut bench = Self::empty(requests);
        for id in 0..requests {
            bench.arrive(id, shape.parent(id));
        }
        bench.out.clear();
        bench
    }

    /// A tree of requests that run, four on an instance.
    pub(crate) fn running(shape: Shape, requests: u128) -> Self {
        let mut bench = Self::queued(shape, requests);
        for id in 0..requests {
            let instance = InstanceId(1 + id as u64 / u64::from(ON_AN_INSTANCE));
            if id % u128::from(ON_AN_INSTANCE) == 0 {
                bench.step(Event::InstanceStarted { instance, capacity: ON_AN_INSTANCE });
                bench.step(Event::InstanceReady(instance));
            }
            bench.take(id, instance);
        }
        bench.out.clear();
        bench
    }

    pub(crate) fn step(&mut self, event: Event) {
        self.engine.step(event, &mut self.out);
    }

    fn arrive(&mut self, id: u128, parent: Option<RequestId>) {
        self.step(Event::Arrived { request: RequestId(id), parent, detached: false, policy: POLICY });
    }

    fn take(&mut self, id: u128, instance: InstanceId) {
        self.step(Event::Placed { request: RequestId(id), instance });
        self.step(Event::Taken { request: RequestId(id), instance });
    }

    /// Requests that come, run and end one after the other.
    pub(crate) fn arrive_and_settle(&mut self, requests: u128) {
        let instance = InstanceId(1);
        self.step(Event::InstanceStarted { instance, capacity: 1 });
        self.step(Event::InstanceReady(instance));
        for id in 0..requests {
            self.arrive(id, None);
            self.take(id, instance);
            let (request, attempt) = (RequestId(id), Attempt(1));
            self.step(Event::Answered { request, instance, attempt, answer: Answer::Returned });
        }
    }

    /// The whole tree is cancelled by force, until nothing is left to do but what others must tell.
    pub(crate) fn cancel_all(&mut self) {
        self.step(Event::CancelAsked(whole_tree(0)));
        while self.engine.unfinished() {
            self.step(Event::WalkOn);
        }
    }

    /// The same, and every instance of so many requests is seen dead.
    pub(crate) fn cancel_and_reap(&mut self, requests: u128) {
        self.cancel_all();
        for instance in 1..=requests.div_ceil(u128::from(ON_AN_INSTANCE)) as u64 {
            self.step(Event::Exited(InstanceId(instance)));
            self.step(Event::Reaped(InstanceId(instance)));
        }
    }

    pub(crate) fn plan_all(&self) -> usize {
        self.engine.plan(&whole_tree(0)).map_or(0, |plan| plan.stops.len())
    }
}
