//! Looking without touching: what the shell and its users may see of the tree.

use alloc::vec::Vec;

use crate::{
    Attempt, CancelId, Engine, InstanceId, Level, Outcome, RequestId,
    tree::{Node, NodeKey, Phase},
};

/// Where a request stands, as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for a place.
    Queued,
    /// Has a place on an instance that has not taken it.
    Placed,
    /// A runtime holds it.
    Running,
    /// Settled as fenced only; its code may still run.
    Draining,
    /// Settled.
    Settled,
}

/// One request as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestView {
    /// Its id.
    pub request: RequestId,
    /// The request that made it.
    pub parent: Option<RequestId>,
    /// Its distance from the root.
    pub depth: u16,
    /// Where it stands.
    pub state: State,
    /// The instance it is on.
    pub instance: Option<InstanceId>,
    /// Deliveries so far.
    pub attempt: Attempt,
    /// How hard it is being stopped.
    pub level: Option<Level>,
    /// The first cancel that fenced it.
    pub fenced_by: Option<CancelId>,
    /// Its result, if settled.
    pub outcome: Option<Outcome>,
    /// Its instance could not be killed in time.
    pub stuck: bool,
}

/// One instance as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceView {
    /// Its id.
    pub instance: InstanceId,
    /// Requests it may hold at once.
    pub capacity: u32,
    /// Places left for new requests.
    pub room: u32,
    /// Whether it has initialised.
    pub ready: bool,
    /// Whether it listens for cancellations.
    pub cooperates: bool,
    /// Whether it takes nothing new.
    pub draining: bool,
    /// Whether it is being killed.
    pub ending: bool,
    /// Whether it could not be killed in time.
    pub stuck: bool,
    /// Requests on it.
    pub tenants: Vec<RequestId>,
}

impl Engine {
    /// One request, if it is in the tree.
    pub fn request(&self, request: RequestId) -> Option<RequestView> {
        let (_, node) = self.tree.find(request)?;
        Some(self.show(node))
    }

    /// The request and everything below it, parents before children; at most `limit`.
    pub fn subtree(&self, request: RequestId, limit: usize) -> Vec<RequestView> {
        let Some(key) = self.tree.key(request) else { return Vec::new() };
        let mut keys: Vec<NodeKey> = Vec::new();
        self.tree.subtree(key, limit, &mut keys);
        keys.iter().filter_map(|key| self.tree.get(*key)).map(|node| self.show(node)).collect()
    }

    /// The root of the tree a request is in.
    pub fn root(&self, request: RequestId) -> Option<RequestId> {
        let (_, node) = self.tree.find(request)?;
        Some(self.tree.get(node.root)?.id)
    }

    /// How a settled request ended, as long as it is remembered.
    pub fn outcome(&self, request: RequestId) -> Option<Outcome> {
        match self.tree.find(request) {
            Some((_, node)) => node.settled(),
            None => self.tombstone(request).map(|tomb| tomb.outcome),
        }
    }

    /// One instance, until it is reaped.
    pub fn instance(&self, instance: InstanceId) -> Option<InstanceView> {
        let holder = self.instances.get(&instance)?;
        let id = |key: &NodeKey| self.tree.get(*key).map(|node| node.id);
        Some(InstanceView {
            instance,
            capacity: holder.capacity,
            room: holder.room(),
            ready: holder.ready,
            cooperates: holder.cooperates,
            draining: holder.draining,
            ending: holder.ending.is_some(),
            stuck: holder.stuck,
            tenants: holder.tenants.iter().filter_map(id).collect(),
        })
    }

    /// Places left for new requests on an instance; 0 if it is unknown, drains or ends.
    pub fn room(&self, instance: InstanceId) -> u32 {
        self.instances.get(&instance).map_or(0, |holder| holder.room())
    }

    /// Requests that have not settled.
    pub fn live(&self) -> u32 {
        self.tree.unsettled()
    }

    /// Whether a cancel of this id is running: asked, and not over. One that joined another never is.
    pub fn is_running(&self, cancel: CancelId) -> bool {
        self.open.contains_key(&cancel)
    }

    /// What is held in memory: nodes, instances, running cancels.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.tree.len(), self.instances.len(), self.cancels.len())
    }

    /// Checks the invariants of the data structures. For tests: O(nodes x depth).
    ///
    /// # Errors
    /// Names the first invariant that does not hold.
    pub fn check(&self) -> Result<(), &'static str> {
        self.tree.check()
    }

    fn show(&self, node: &Node) -> RequestView {
        let (state, instance) = match node.phase {
            Phase::Queued => (State::Queued, None),
            Phase::Placed(instance) => (State::Placed, Some(instance)),
            Phase::Running(instance) => (State::Running, Some(instance)),
            Phase::Draining(instance, _) => (State::Draining, Some(instance)),
            Phase::Husk(_) => (State::Settled, None),
        };
        RequestView {
            request: node.id,
            parent: node.parent.and_then(|parent| self.tree.get(parent)).map(|parent| parent.id),
            depth: node.depth,
            state,
            instance,
            attempt: node.attempt,
            level: node.level(),
            fenced_by: node.fence.map(|fence| fence.by),
            outcome: node.settled(),
            stuck: node.stuck,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bounds, Event, Policy};

    #[test]
    fn the_check_of_an_engine_finds_what_is_wrong_in_its_tree() {
        let mut engine = Engine::new(Bounds::default());
        let (request, policy) = (RequestId(1), Policy::default());
        engine.step(Event::Arrived { request, parent: None, detached: false, policy }, &mut Vec::new());
        assert_eq!(engine.check(), Ok(()));
        if let Some(node) = engine.tree.key(request).and_then(|key| engine.tree.get_mut(key)) {
            node.depth = 1;
        }
        assert_eq!(engine.check(), Err("T1: depth"));
    }
}
