//! The arena of live requests, linked by who invoked whom.
//!
//! Invariants of this file:
//! * **T1** a node's depth is its parent's plus one, so no walk can loop.
//! * **T2** `ids` holds exactly the nodes of the arena.
//! * **T3** a settled node without children is not in the arena: what is here is live, or drains, or
//!   is the only path from a live request to its ancestors.
//! * **T4** `below_root` of a root counts the unsettled nodes of its tree.
//! * **T5** siblings follow each other from the youngest to the eldest, so that of two nodes of a tree the
//!   order in which a walk meets them is known without walking.
//! * **T6** a walk that is under way stands on a node at or below its top, or has nowhere to go.

use alloc::vec::Vec;
use hashbrown::HashMap;
use slotmap::{SlotMap, new_key_type};

use crate::{Attempt, CancelId, Cause, InstanceId, Level, Outcome, Policy, RequestId};

new_key_type! {
    /// Generational: the key of a node that is gone never reaches a newer node.
    pub(crate) struct NodeKey;
    /// The same for a running cancel.
    pub(crate) struct CancelKey;
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Admitted; waits for a place (or for its back-off).
    Queued,
    /// Has a place on an instance that has not taken it.
    Placed(InstanceId),
    /// Handed to that instance.
    Running(InstanceId),
    /// Settled as fenced only; its code may still run there.
    Draining(InstanceId, Outcome),
    /// Settled, and nothing of it runs; kept for the children below it.
    Husk(Outcome),
}

/// The fence of a request: from here on nothing of it starts and nothing it says counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    /// Rises, never falls (I3).
    pub(crate) level: Level,
    /// Of the first cancel that fenced it.
    pub(crate) cause: Cause,
    /// The first cancel that fenced it.
    pub(crate) by: CancelId,
    /// That cancel is over, and its record could not be made durable.
    pub(crate) unrecorded: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: RequestId,
    pub(crate) phase: Phase,
    pub(crate) fence: Option<Fence>,
    /// The running cancel that targets this very request.
    pub(crate) cancel: Option<CancelKey>,
    pub(crate) root: NodeKey,
    pub(crate) parent: Option<NodeKey>,
    first_child: Option<NodeKey>,
    next_sibling: Option<NodeKey>,
    prev_sibling: Option<NodeKey>,
    /// The number of its admission: later ones have higher ones (T5).
    born: u64,
    pub(crate) attempt: Attempt,
    /// Deliveries known not to have reached a runtime.
    pub(crate) undelivered: u32,
    /// On a root: the unsettled nodes of its tree. Elsewhere 0.
    pub(crate) below_root: u32,
    pub(crate) depth: u16,
    pub(crate) policy: Policy,
    /// Its instance could not be killed in time; cancels over it have been told.
    pub(crate) stuck: bool,
}

impl Node {
    /// Whether it has its one final result.
    pub(crate) fn settled(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Draining(_, outcome) | Phase::Husk(outcome) => Some(outcome),
            Phase::Queued | Phase::Placed(_) | Phase::Running(_) => None,
        }
    }

    /// Whether any attempt reached a runtime.
    pub(crate) fn ran(&self) -> bool {
        self.attempt > Attempt(self.undelivered)
    }

    pub(crate) fn level(&self) -> Option<Level> {
        self.fence.map(|fence| fence.level)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    nodes: SlotMap<NodeKey, Node>,
    ids: HashMap<RequestId, NodeKey>,
    unsettled: u32,
    admitted: u64,
    /// Of the walks that still fence: few, so that a look through them costs nothing.
    walkers: Vec<Walker>,
}

/// Where a walk through the nodes at and below `top` is.
#[derive(Clone, Debug)]
struct Walker {
    cancel: CancelKey,
    top: NodeKey,
    /// The next node it visits; `None` when there is none left.
    at: Option<NodeKey>,
}

impl Tree {
    pub(crate) fn with_room_for(requests: usize) -> Self {
        Self { ids: HashMap::with_capacity(requests), ..Self::default() }
    }

    pub(crate) fn key(&self, id: RequestId) -> Option<NodeKey> {
        self.ids.get(&id).copied()
    }

    pub(crate) fn get(&self, key: NodeKey) -> Option<&Node> {
        self.nodes.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: NodeKey) -> Option<&mut Node> {
        self.nodes.get_mut(key)
    }

    pub(crate) fn find(&self, id: RequestId) -> Option<(NodeKey, &Node)> {
        let key = self.key(id)?;
        Some((key, self.nodes.get(key)?))
    }

    /// Requests that have not settled.
    pub(crate) fn unsettled(&self) -> u32 {
        self.unsettled
    }

    /// Nodes held, the settled ones that still carry children or code included.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a queued request below `parent`, or as a root.
    pub(crate) fn admit(&mut self, id: RequestId, parent: Option<NodeKey>, policy: Policy) -> NodeKey {
        let above = parent.and_then(|key| self.nodes.get(key)).map(|node| (node.root, node.depth));
        self.admitted += 1;
        let born = self.admitted;
        let key = self.nodes.insert_with_key(|key| Node {
            id,
            phase: Phase::Queued,
            fence: None,
            cancel: None,
            root: above.map_or(key, |(root, _)| root),
            parent,
            first_child: None,
            next_sibling: None,
            prev_sibling: None,
            born,
            attempt: Attempt(0),
            undelivered: 0,
            below_root: 0,
            depth: above.map_or(0, |(_, depth)| depth + 1),
            policy,
            stuck: false,
        });
        self.ids.insert(id, key);
        if let Some(parent) = parent {
            self.link(parent, key);
        }
        self.count(key, 1);
        key
    }

    /// Notes that a node has its result; it stays until [`Tree::prune`] finds it carries nothing.
    pub(crate) fn mark_settled(&mut self, key: NodeKey, phase: Phase) {
        if let Some(node) = self.nodes.get_mut(key) {
            debug_assert!(node.settled().is_none(), "I1: settled twice");
            node.phase = phase;
        }
        self.count(key, -1);
    }

    fn count(&mut self, key: NodeKey, change: i32) {
        self.unsettled = self.unsettled.saturating_add_signed(change);
        let Some(root) = self.nodes.get(key).map(|node| node.root) else { return };
        if let Some(root) = self.nodes.get_mut(root) {
            root.below_root = root.below_root.saturating_add_signed(change);
        }
    }

    /// Drops `key` and then its ancestors, as long as each is a husk without children (T3); tells
    /// `gone` of each. Bounded by the depth.
    pub(crate) fn prune(&mut self, key: NodeKey, mut gone: impl FnMut(&Node)) {
        let mut at = Some(key);
        while let Some(key) = at {
            let Some(node) = self.nodes.get(key) else { return };
            if !matches!(node.phase, Phase::Husk(_)) || node.first_child.is_some() {
                return;
            }
            at = node.parent;
            self.unlink(key);
            if let Some(node) = self.nodes.remove(key) {
                self.ids.remove(&node.id);
                gone(&node);
            }
        }
    }

    /// Forgets an unsettled leaf that never was: its admission could not be made durable.
    pub(crate) fn withdraw(&mut self, key: NodeKey) -> Option<NodeKey> {
        let parent = self.nodes.get(key)?.parent;
        self.count(key, -1);
        self.unlink(key);
        if let Some(node) = self.nodes.remove(key) {
            self.ids.remove(&node.id);
        }
        parent
    }

    pub(crate) fn has_children(&self, key: NodeKey) -> bool {
        self.nodes.get(key).is_some_and(|node| node.first_child.is_some())
    }

    /// `top` and what is below it, parents before children; at most `limit`. Iterative: the tree is users'
    /// data. Costs O(nodes it tells).
    pub(crate) fn subtree(&self, top: NodeKey, limit: usize, into: &mut Vec<NodeKey>) {
        into.clear();
        let mut at = Some(top);
        while let Some(here) = at.filter(|at| into.len() < limit && self.nodes.contains_key(*at)) {
            into.push(here);
            at = self.following(here, top);
        }
    }

    /// The node that comes after this one in a walk of everything at and below `top`.
    pub(crate) fn following(&self, node: NodeKey, top: NodeKey) -> Option<NodeKey> {
        self.nodes.get(node)?.first_child.or_else(|| self.beyond(node, top))
    }

    /// The same, without what is below the node: up until somebody has a next sibling, never above `top`.
    fn beyond(&self, node: NodeKey, top: NodeKey) -> Option<NodeKey> {
        let mut at = node;
        while at != top {
            let node = self.nodes.get(at)?;
            if node.next_sibling.is_some() {
                return node.next_sibling;
            }
            at = node.parent?;
        }
        None
    }

    /// Whether a walk of a tree that holds both meets `one` before `other`. Costs O(depth).
    pub(crate) fn precedes(&self, one: NodeKey, other: NodeKey) -> bool {
        let (Some(mut left), Some(mut right)) = (self.nodes.get(one), self.nodes.get(other)) else {
            return false;
        };
        let (depth, other_depth) = (left.depth, right.depth);
        let up = |node: &Node| node.parent.and_then(|parent| self.nodes.get(parent));
        // To the two children of their nearest common ancestor, or until one is above the other.
        while left.depth > right.depth {
            let Some(above) = up(left) else { return false };
            left = above;
        }
        while right.depth > left.depth {
            let Some(above) = up(right) else { return false };
            right = above;
        }
        if left.born == right.born {
            return depth < other_depth;
        }
        while left.parent != right.parent {
            let (Some(above), Some(other_above)) = (up(left), up(right)) else { return false };
            (left, right) = (above, other_above);
        }
        left.born > right.born
    }

    /// A walk of a cancel begins, or begins again, at its top.
    pub(crate) fn set_out(&mut self, cancel: CancelKey, top: NodeKey) {
        self.arrive(cancel);
        let at = self.nodes.contains_key(top).then_some(top);
        self.walkers.push(Walker { cancel, top, at });
    }

    /// It goes on from here.
    pub(crate) fn set_out_from(&mut self, cancel: CancelKey, at: Option<NodeKey>) {
        if let Some(walker) = self.walkers.iter_mut().find(|walker| walker.cancel == cancel) {
            walker.at = at;
        }
    }

    /// The node it visits next, if there is one.
    pub(crate) fn whereabouts(&self, cancel: CancelKey) -> Option<NodeKey> {
        self.walkers.iter().find(|walker| walker.cancel == cancel)?.at
    }

    /// It is through.
    pub(crate) fn arrive(&mut self, cancel: CancelKey) {
        self.walkers.retain(|walker| walker.cancel != cancel);
    }

    /// A node without children is about to go: who stands on it steps on to the next.
    fn step_aside(&mut self, key: NodeKey) {
        for number in 0..self.walkers.len() {
            let Walker { top, at, .. } = self.walkers[number];
            if at == Some(key) {
                self.walkers[number].at = self.beyond(key, top);
            }
        }
    }

    /// New children go to the front: O(1), and the youngest are stopped first.
    fn link(&mut self, parent: NodeKey, key: NodeKey) {
        let Some(up) = self.nodes.get_mut(parent) else { return };
        let first = up.first_child.replace(key);
        if let Some(node) = self.nodes.get_mut(key) {
            node.next_sibling = first;
        }
        if let Some(next) = first.and_then(|first| self.nodes.get_mut(first)) {
            next.prev_sibling = Some(key);
        }
    }

    fn unlink(&mut self, key: NodeKey) {
        self.step_aside(key);
        let Some(node) = self.nodes.get(key) else { return };
        let (parent, prev, next) = (node.parent, node.prev_sibling, node.next_sibling);
        if let Some(next) = next.and_then(|next| self.nodes.get_mut(next)) {
            next.prev_sibling = prev;
        }
        match prev {
            Some(prev) => {
                if let Some(prev) = self.nodes.get_mut(prev) {
                    prev.next_sibling = next;
                }
            }
            None => {
                if let Some(parent) = parent.and_then(|parent| self.nodes.get_mut(parent)) {
                    parent.first_child = next;
                }
            }
        }
    }

    /// Checks T1-T6; the property tests call it after every step. O(nodes x depth).
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.ids.len() != self.nodes.len() {
            return Err("T2: ids and nodes differ");
        }
        let mut unsettled = 0;
        let mut scratch = Vec::new();
        for (key, node) in &self.nodes {
            if self.ids.get(&node.id) != Some(&key) {
                return Err("T2: id points elsewhere");
            }
            if node.settled().is_none() {
                unsettled += 1;
            }
            if matches!(node.phase, Phase::Husk(_)) && node.first_child.is_none() {
                return Err("T3: a husk without children is kept");
            }
            let above = node.parent.and_then(|parent| self.nodes.get(parent));
            if node.parent.is_some() != above.is_some() {
                return Err("a parent is gone before its child");
            }
            if above.map_or(0, |up| up.depth + 1) != node.depth {
                return Err("T1: depth");
            }
            let next = node.next_sibling.and_then(|next| self.nodes.get(next));
            if next.is_some_and(|next| next.born >= node.born) {
                return Err("T5: a younger sibling comes later");
            }
            if node.parent.is_none() {
                self.subtree(key, usize::MAX, &mut scratch);
                let live = scratch.iter().filter(|key| self.nodes[**key].settled().is_none()).count();
                if live != node.below_root as usize || scratch.iter().any(|at| self.nodes[*at].root != key) {
                    return Err("T4: below_root");
                }
            }
        }
        for walker in &self.walkers {
            let Some(at) = walker.at else { continue };
            self.subtree(walker.top, usize::MAX, &mut scratch);
            if !scratch.contains(&at) {
                return Err("T6: a walk stands elsewhere");
            }
        }
        if unsettled != self.unsettled { Err("unsettled count") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with two children, the elder with one of its own.
    fn family() -> (Tree, [NodeKey; 4]) {
        let mut tree = Tree::default();
        let root = tree.admit(RequestId(1), None, Policy::default());
        let elder = tree.admit(RequestId(2), Some(root), Policy::default());
        let younger = tree.admit(RequestId(3), Some(root), Policy::default());
        let grandchild = tree.admit(RequestId(4), Some(elder), Policy::default());
        (tree, [root, elder, younger, grandchild])
    }

    fn broken(harm: impl FnOnce(&mut Tree, [NodeKey; 4])) -> &'static str {
        let (mut tree, keys) = family();
        harm(&mut tree, keys);
        tree.check().unwrap_err()
    }

    #[test]
    fn a_sound_tree_passes_its_check() {
        assert_eq!(family().0.check(), Ok(()));
    }

    #[test]
    fn of_two_nodes_the_one_that_a_walk_meets_first_precedes() {
        let (mut tree, [root, elder, younger, grandchild]) = family();
        let deep = tree.admit(RequestId(5), Some(younger), Policy::default());
        let order = [root, younger, deep, elder, grandchild];
        let mut walked = Vec::new();
        tree.subtree(root, usize::MAX, &mut walked);
        assert_eq!(walked, order);
        for (at, one) in order.iter().enumerate() {
            for (other_at, other) in order.iter().enumerate() {
                assert_eq!(tree.precedes(*one, *other), at < other_at, "{at} before {other_at}");
            }
        }
    }

    #[test]
    fn the_check_names_each_broken_invariant() {
        assert_eq!(broken(|tree, [_, elder, ..]| tree.nodes[elder].depth = 3), "T1: depth");
        let missing = |tree: &mut Tree, _: [NodeKey; 4]| assert!(tree.ids.remove(&RequestId(4)).is_some());
        assert_eq!(broken(missing), "T2: ids and nodes differ");
        let crossed = |tree: &mut Tree, [root, ..]: [NodeKey; 4]| {
            assert!(tree.ids.insert(RequestId(4), root).is_some())
        };
        assert_eq!(broken(crossed), "T2: id points elsewhere");
        let husk = |tree: &mut Tree, keys: [NodeKey; 4]| {
            tree.mark_settled(keys[3], Phase::Husk(Outcome::Returned));
        };
        assert_eq!(broken(husk), "T3: a husk without children is kept");
        assert_eq!(broken(|tree, [root, ..]| tree.nodes[root].below_root += 1), "T4: below_root");
        let astray = |tree: &mut Tree, [_, elder, younger, _]: [NodeKey; 4]| tree.nodes[younger].root = elder;
        assert_eq!(broken(astray), "T4: below_root");
        let orphaned = |tree: &mut Tree, [root, elder, ..]: [NodeKey; 4]| {
            tree.nodes.remove(elder);
            tree.ids.remove(&RequestId(2));
            tree.nodes[root].below_root = 2;
        };
        assert_eq!(broken(orphaned), "a parent is gone before its child");
        assert_eq!(broken(|tree, _| tree.unsettled += 1), "unsettled count");
        let older = |tree: &mut Tree, [_, _, younger, _]: [NodeKey; 4]| tree.nodes[younger].born = 1;
        assert_eq!(broken(older), "T5: a younger sibling comes later");
        let astray = |tree: &mut Tree, [root, elder, ..]: [NodeKey; 4]| {
            tree.set_out(CancelKey::default(), elder);
            tree.set_out_from(CancelKey::default(), Some(root));
        };
        assert_eq!(broken(astray), "T6: a walk stands elsewhere");
    }
}
