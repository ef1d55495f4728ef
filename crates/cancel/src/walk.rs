//! How a cancel reaches everything in its scope: first it fences, then it acts, in slices.
//!
//! A scope can hold as many requests as a tree may have, and nobody else's event may wait for all of
//! them. So one step visits at most `Bounds::slice` requests; `Event::WalkOn` goes on, for one of the
//! walks under way after the other. What fits into one slice, and that is nearly everything, is done in
//! the step that asked for it.
//!
//! What holds between two slices:
//! * **W1** parents are fenced before their children, and nothing is admitted below a fence. So what is
//!   born during a walk is born where the walk has not been yet, and the walk will find it (I2).
//! * **W2** nothing is acted upon before everything in scope is fenced and the record is asked for.
//! * **W3** a cancel counts exactly the requests that its walk has visited: a request that comes to rest
//!   where the walk has not been is none of its business yet.
//! * **W4** a cancel whose walk is under way is not over, and until all is fenced it is not recorded.

use alloc::vec::Vec;

use crate::{
    CancelId, Cause, Effect, Engine, Level, Scope,
    tree::{CancelKey, Fence, NodeKey, Phase},
};

/// Places for the next walk that are kept of the last one's list; more would be memory that a rare giant left.
const KEPT: usize = 8_192;

/// What is left to do of a cancel's way through its scope.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    cause: Cause,
    /// Not everything in scope is fenced yet; where the walk is, the tree knows.
    pub(crate) fencing: bool,
    /// What it fenced, or fenced harder, in order: that is what it acts upon.
    raised: Vec<NodeKey>,
    /// So many of them it has acted upon.
    acted: usize,
}

impl Engine {
    /// Whether a walk is under way: then the shell tells `Event::WalkOn` when it has seen to the events
    /// that wait, again and again, until there is none.
    pub fn unfinished(&self) -> bool {
        !self.walks.is_empty()
    }

    /// Sets out to fence and raise everything in a cancel's scope, to ask for the record, and to act: in
    /// this order, so that nothing in scope can start between the first act and the last (I2). A cancel
    /// that was on its way sets out anew.
    pub(crate) fn press(&mut self, key: CancelKey, cause: Cause, out: &mut Vec<Effect>) {
        let mut raised = core::mem::take(&mut self.scratch);
        let Some(cancel) = self.cancels.get_mut(key) else { return };
        (cancel.pending, cancel.draining, cancel.stuck) = (0, false, false);
        if let Some(before) = cancel.walk.take() {
            // What it raised and had not acted upon is raised once more: only harder asks come here.
            raised = before.raised;
        }
        raised.clear();
        cancel.walk = Some(Walk { cause, fencing: true, raised, acted: 0 });
        self.tree.set_out(key, cancel.target);
        let under_way = self.walks.contains(&key);
        let crowded = !under_way && self.walks.len() >= self.bounds.max_walks as usize;
        let slice = if crowded { usize::MAX } else { self.bounds.slice.max(1) as usize };
        let over = self.advance(key, slice, out);
        if !over && !under_way {
            self.walks.push_back(key);
        } else if over && under_way {
            self.walks.retain(|walk| *walk != key);
        }
    }

    /// The next slice of the walk that has waited longest.
    pub(crate) fn walk_on(&mut self, out: &mut Vec<Effect>) {
        let Some(key) = self.walks.pop_front() else { return };
        if !self.advance(key, self.bounds.slice.max(1) as usize, out) {
            self.walks.push_back(key);
        }
    }

    /// Fences at most a slice; when all is fenced, asks for the record and acts upon at most a slice. True
    /// if the walk is over.
    fn advance(&mut self, key: CancelKey, slice: usize, out: &mut Vec<Effect>) -> bool {
        let Some(cancel) = self.cancels.get(key) else { return true };
        if cancel.walk.as_ref().is_some_and(|walk| walk.fencing) && !self.fence_slice(key, slice, out) {
            return false;
        }
        if !self.act_slice(key, slice, out) {
            return false;
        }
        if let Some(walk) = self.cancels.get_mut(key).and_then(|cancel| cancel.walk.take()) {
            self.scratch = walk.raised;
            self.scratch.clear();
            self.scratch.shrink_to(KEPT);
        }
        self.close_if_over(key, out);
        true
    }

    /// True if everything in scope is fenced now; then the record is asked for.
    fn fence_slice(&mut self, key: CancelKey, slice: usize, out: &mut Vec<Effect>) -> bool {
        let Some(cancel) = self.cancels.get_mut(key) else { return true };
        let Some(walk) = &mut cancel.walk else { return true };
        let (top, scope) = (cancel.target, cancel.scope);
        let press = Press { by: cancel.id, level: cancel.level, cause: walk.cause };
        let mut counts = Counts::default();
        let mut at = self.tree.whereabouts(key);
        let mut left = slice;
        while let Some(here) = at {
            if left == 0 {
                break;
            }
            left -= 1;
            if let Some(node) = self.tree.get_mut(here)
                && press.fence(node, &mut counts, out)
            {
                walk.raised.push(here);
            }
            at = match scope {
                Scope::Request => None,
                Scope::Subtree => self.tree.following(here, top),
            };
        }
        cancel.pending += counts.pending;
        cancel.draining |= counts.draining;
        cancel.stuck |= counts.stuck;
        if at.is_some() {
            self.tree.set_out_from(key, at);
            return false;
        }
        self.tree.arrive(key);
        walk.fencing = false;
        cancel.records += 1;
        out.push(Effect::Record { cancel: cancel.id, record: cancel.records, level: cancel.level });
        true
    }

    /// True if everything raised was acted upon.
    fn act_slice(&mut self, key: CancelKey, slice: usize, out: &mut Vec<Effect>) -> bool {
        let Some(walk) = self.cancels.get_mut(key).and_then(|cancel| cancel.walk.as_mut()) else {
            return true;
        };
        // Out of the cancel while its requests come to rest; the walk itself stays, so that it is not over.
        let raised = core::mem::take(&mut walk.raised);
        let from = walk.acted;
        let to = raised.len().min(from.saturating_add(slice));
        for key in &raised[from..to] {
            self.act(*key, out);
        }
        let over = to == raised.len();
        if let Some(walk) = self.cancels.get_mut(key).and_then(|cancel| cancel.walk.as_mut()) {
            (walk.raised, walk.acted) = (raised, to);
        }
        over
    }

    /// W3: whether this cancel has counted this request of its scope.
    pub(crate) fn counted(&self, key: CancelKey, request: NodeKey) -> bool {
        let walk = self.cancels.get(key).and_then(|cancel| cancel.walk.as_ref());
        if !walk.is_some_and(|walk| walk.fencing) {
            return true;
        }
        self.tree.whereabouts(key).is_none_or(|at| self.tree.precedes(request, at))
    }
}

/// What a walk brings to each request.
struct Press {
    by: CancelId,
    level: Level,
    cause: Cause,
}

/// What a slice counts on its way.
#[derive(Default)]
struct Counts {
    pending: u32,
    draining: bool,
    stuck: bool,
}

impl Press {
    /// Fences one request and counts it. True if its level rose, so that something is to be done.
    fn fence(&self, node: &mut crate::tree::Node, counts: &mut Counts, out: &mut Vec<Effect>) -> bool {
        if matches!(node.phase, Phase::Husk(_)) {
            return false;
        }
        out.push(Effect::Fence { request: node.id, cancel: self.by, first: node.fence.is_none() });
        if matches!(node.phase, Phase::Draining(..)) && self.level == Level::Ask {
            counts.draining = true;
            return false;
        }
        if node.stuck {
            counts.stuck = true;
        } else {
            counts.pending += 1;
        }
        match &mut node.fence {
            None => {
                let (level, cause, by) = (self.level, self.cause, self.by);
                node.fence = Some(Fence { level, cause, by, unrecorded: false });
            }
            Some(fence) if fence.level < self.level => fence.level = self.level,
            Some(_) => return false,
        }
        true
    }
}
