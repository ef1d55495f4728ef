//! The engine: one state, one entry point, and the events that are not about stopping.

use alloc::{collections::VecDeque, vec::Vec};
use hashbrown::HashMap;
use slotmap::SlotMap;

use crate::{
    Attempt, Bounds, CancelId, Effect, Event, InstanceId, Outcome, Policy, Refusal, RequestId, Requeue,
    instance::{Ending, Instance},
    rest::Cancel,
    tombstones::{Tombstone, Tombstones},
    tree::{CancelKey, Node, NodeKey, Phase, Tree},
};

/// Live requests whose ids have room from the start; for more of them the table grows, and a step that makes
/// it grow waits for that: some milliseconds at a hundred thousand.
const ROOM: u32 = 100_000;

/// Decides every stop. Owned by one task; see the crate page for the contract.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) bounds: Bounds,
    pub(crate) tree: Tree,
    pub(crate) instances: HashMap<InstanceId, Instance>,
    pub(crate) cancels: SlotMap<CancelKey, Cancel>,
    /// Running cancels by the id their askers and tombstones know.
    pub(crate) open: HashMap<CancelId, CancelKey>,
    pub(crate) tombstones: Tombstones,
    /// Cancels whose walk goes on, the one that has waited longest first; bounded by `max_walks`.
    pub(crate) walks: VecDeque<CancelKey>,
    /// Reused by walks, so that a cancel allocates nothing once it has grown.
    pub(crate) scratch: Vec<NodeKey>,
}

impl Engine {
    /// Memory of one live request inside the engine, in bytes: its node with the slot around it, its
    /// entry in the id map, its place on an instance, and its place in a walk.
    pub const BYTES_PER_REQUEST: usize =
        size_of::<Node>() + 8 + (size_of::<(RequestId, NodeKey)>() + 1) * 2 + size_of::<NodeKey>() * 2;

    /// An engine that knows nothing yet.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            tree: Tree::with_room_for(bounds.max_live.min(ROOM) as usize),
            instances: HashMap::new(),
            cancels: SlotMap::with_key(),
            open: HashMap::new(),
            tombstones: Tombstones::new(bounds.max_tombstones as usize),
            walks: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    /// Takes one fact and appends what is to be done about it, in order. Facts that come late, twice,
    /// or about things that are gone append nothing.
    pub fn step(&mut self, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Arrived { request, parent, detached, policy } => {
                self.arrived(request, parent, detached, policy, out);
            }
            Event::Withdrawn(request) => self.withdrawn(request),
            Event::Expired { request, code } => self.expired(request, code, out),
            Event::InstanceStarted { instance, capacity } => {
                self.instances.entry(instance).or_insert_with(|| Instance::new(capacity));
            }
            Event::InstanceCooperates(instance) => {
                if let Some(instance) = self.instances.get_mut(&instance) {
                    instance.cooperates = true;
                }
            }
            Event::InstanceReady(instance) => {
                if let Some(instance) = self.instances.get_mut(&instance) {
                    instance.ready = true;
                }
            }
            Event::StartFailed { instance, code } => self.end(instance, Ending::StartFailed(code), out),
            Event::Placed { request, instance } => self.placed(request, instance, out),
            Event::Taken { request, instance } => self.taken(request, instance, out),
            Event::DeliveryFailed { request, instance, attempt } => {
                self.delivery_failed(request, instance, attempt, out);
            }
            Event::Answered { request, instance, attempt, answer } => {
                self.answered(request, instance, attempt, answer, out);
            }
            Event::CancelAsked(ask) => self.cancel_asked(ask, out),
            Event::WalkOn => self.walk_on(out),
            Event::Recorded { cancel, record, ok } => self.recorded(cancel, record, ok, out),
            Event::GraceOver(request) => self.grace_over(request, out),
            Event::Exited(instance) => self.end(instance, Ending::Crashed, out),
            Event::Reaped(instance) => self.reaped(instance, out),
            Event::KillTimedOut(instance) => self.kill_timed_out(instance, out),
            Event::RetireAsked(instance) => self.retire(instance, out),
            Event::EndAsked(instance) => self.end(instance, Ending::NodeEnds, out),
        }
    }

    fn arrived(
        &mut self,
        request: RequestId,
        parent: Option<RequestId>,
        detached: bool,
        policy: Policy,
        out: &mut Vec<Effect>,
    ) {
        match self.admission(request, parent, detached) {
            Err(why) => out.push(Effect::Refuse { request, why }),
            Ok(parent) => {
                let key = self.tree.admit(request, parent, policy);
                let (root, depth) = self.root_of(key).unwrap_or((request, 0));
                out.push(Effect::Accept { request, root, depth });
            }
        }
    }

    fn root_of(&self, key: NodeKey) -> Option<(RequestId, u16)> {
        let node = self.tree.get(key)?;
        Some((self.tree.get(node.root)?.id, node.depth))
    }

    /// Whether a request may be admitted, and below whom. A child of a fenced parent never is: that
    /// is what makes the fence hold for the unborn (I2).
    fn admission(
        &self,
        request: RequestId,
        parent: Option<RequestId>,
        detached: bool,
    ) -> Result<Option<NodeKey>, Refusal> {
        if self.tree.key(request).is_some() || self.tombstones.get(request).is_some() {
            return Err(Refusal::Duplicate);
        }
        let parent = match parent {
            None => None,
            Some(parent) => Some(self.admission_below(parent)?),
        };
        if self.tree.unsettled() >= self.bounds.max_live {
            return Err(Refusal::TooMany);
        }
        let Some((key, node)) = parent.filter(|_| !detached) else { return Ok(None) };
        if node.depth >= self.bounds.max_depth {
            return Err(Refusal::TooDeep);
        }
        let below = self.tree.get(node.root).map_or(0, |root| root.below_root);
        if below >= self.bounds.max_below_root {
            return Err(Refusal::TooManyBelowRoot);
        }
        Ok(Some(key))
    }

    fn admission_below(&self, parent: RequestId) -> Result<(NodeKey, &Node), Refusal> {
        let Some((key, node)) = self.tree.find(parent) else {
            let canceled = self.tombstones.get(parent).is_some_and(|tomb| tomb.fence.is_some());
            return Err(if canceled { Refusal::ParentCanceled } else { Refusal::ParentGone });
        };
        if node.fence.is_some() {
            return Err(Refusal::ParentCanceled);
        }
        if node.settled().is_some() {
            return Err(Refusal::ParentGone);
        }
        Ok((key, node))
    }

    fn withdrawn(&mut self, request: RequestId) {
        let Some((key, node)) = self.tree.find(request) else { return };
        if node.phase != Phase::Queued || node.fence.is_some() || self.tree.has_children(key) {
            return;
        }
        if let Some(parent) = self.tree.withdraw(key) {
            self.prune(parent);
        }
    }

    fn expired(&mut self, request: RequestId, code: u16, out: &mut Vec<Effect>) {
        let Some((key, node)) = self.tree.find(request) else { return };
        if node.fence.is_none() && matches!(node.phase, Phase::Queued | Phase::Placed(_)) {
            self.settle_never_started(key, Outcome::Failed(code), out);
        }
    }

    fn placed(&mut self, request: RequestId, instance: InstanceId, out: &mut Vec<Effect>) {
        let Some((key, node)) = self.tree.find(request) else { return };
        let from = match node.phase {
            Phase::Queued => None,
            Phase::Placed(from) => Some(from),
            Phase::Running(_) | Phase::Draining(..) | Phase::Husk(_) => return,
        };
        // A fenced request may keep a place on an instance that is being killed, and gets no new one.
        if node.fence.is_some() || from == Some(instance) {
            return;
        }
        match self.instances.get_mut(&instance).filter(|instance| instance.room() > 0) {
            Some(to) => {
                to.tenants.push(key);
                if let Some(node) = self.tree.get_mut(key) {
                    node.phase = Phase::Placed(instance);
                }
                if let Some(from) = from {
                    self.vacate(from, key, out);
                }
            }
            // The pool was behind: tell it that the request still waits.
            None if from.is_none() => out.push(Effect::Requeue { request, why: Requeue::Displaced }),
            None => {}
        }
    }

    fn taken(&mut self, request: RequestId, instance: InstanceId, out: &mut Vec<Effect>) {
        let Some((key, node)) = self.tree.find(request) else { return };
        let ending = self.instances.get(&instance).is_none_or(|instance| instance.ending.is_some());
        if node.phase != Phase::Placed(instance) || node.fence.is_some() || ending {
            return;
        }
        let attempt = Attempt(node.attempt.0.saturating_add(1));
        if let Some(node) = self.tree.get_mut(key) {
            node.phase = Phase::Running(instance);
            node.attempt = attempt;
        }
        out.push(Effect::Deliver { request, instance, attempt });
    }

    fn retire(&mut self, instance: InstanceId, out: &mut Vec<Effect>) {
        self.drain(instance, out);
        self.end_if_drained(instance, out);
    }

    /// How a settled request that has left the tree ended, if that is still remembered.
    pub(crate) fn tombstone(&self, request: RequestId) -> Option<Tombstone> {
        self.tombstones.get(request).copied()
    }

    /// Drops husks from `key` upwards and remembers how they ended.
    pub(crate) fn prune(&mut self, key: NodeKey) {
        let tombstones = &mut self.tombstones;
        self.tree.prune(key, |node| {
            if let Phase::Husk(outcome) = node.phase {
                tombstones.bury(node.id, Tombstone { outcome, fence: node.fence });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_request_is_counted_in_full_and_bounded() {
        let slot = size_of::<Node>() + 8;
        let id_entry = size_of::<(RequestId, NodeKey)>() + 1;
        let full = [slot, id_entry, id_entry, size_of::<NodeKey>(), size_of::<NodeKey>()].iter().sum();
        assert_eq!(Engine::BYTES_PER_REQUEST, full);
        const { assert!(Engine::BYTES_PER_REQUEST <= 320) };
    }
}
