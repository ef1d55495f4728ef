//! The database as the rules of `store::Shared` have it: each function is one transaction.

use std::collections::{BTreeMap, BTreeSet};

use cluster::PartState;

use crate::fault::Fault;

/// Microseconds of the database's clock, which is the world's.
pub(crate) type Time = u64;
pub(crate) type Id = u32;
pub(crate) type NodeId = usize;
pub(crate) type Cancel = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Request,
    Subtree,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Waiting,
    Succeeded,
    Canceled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Fenced,
    Left,
}

struct NodeRow {
    epoch: i64,
    state: State,
    lease_end: Time,
}

pub(crate) struct Row {
    pub(crate) above: Vec<Id>,
    pub(crate) owner: Option<NodeId>,
    pub(crate) version: u64,
    pub(crate) status: Status,
    pub(crate) fenced: bool,
    /// Who still ran synchronous requests below it when it was over, and in which epoch.
    tail: Option<(NodeId, i64)>,
}

/// A request as it is handed to a node.
#[derive(Clone, Debug)]
pub(crate) struct Handed {
    pub(crate) id: Id,
    pub(crate) version: u64,
    pub(crate) above: Vec<Id>,
    pub(crate) fenced: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) part: i64,
    pub(crate) cancel: Cancel,
    pub(crate) node: NodeId,
    pub(crate) request: Id,
    pub(crate) scope: Scope,
    /// The node is only asked whether it has it.
    pub(crate) around: bool,
    pub(crate) state: PartState,
}

#[derive(Clone, Debug)]
pub(crate) struct Fence {
    pub(crate) cancel: Cancel,
    pub(crate) target: Id,
    pub(crate) scope: Scope,
    /// The asker holds the target: the store need not know it.
    pub(crate) mine: bool,
}

/// What a node asks for in one transaction.
#[derive(Clone, Debug)]
pub(crate) enum Want {
    Join,
    Renew,
    Owned,
    Claim(usize),
    Accept { id: Id, above: Vec<Id>, anywhere: bool },
    Release(Id, u64),
    Settle { id: Id, version: u64, status: Status, tail: bool },
    Fence(Fence),
    Around(Fence),
    PartsOf(Cancel),
    Report { part: i64, state: PartState, tail: bool },
    TakeOver(NodeId),
    Leave,
}

/// What it is told.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Joined(i64),
    Beat { lapsed: Vec<NodeId>, parts: Vec<Part>, waiting: bool, owns: usize },
    Owned(Vec<Handed>),
    Accepted(u64),
    Banned,
    Unknown,
    Finished(Status),
    Parts(Vec<Part>),
    Done,
    Lapsed,
}

/// What a transaction tells others; it may be lost.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hint {
    Parts(NodeId),
    Reported(Cancel),
    Queue,
}

/// What the laws want to know of a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Settled(Id, Status, NodeId),
    Epoch(NodeId, i64, i64),
}

pub(crate) struct Database {
    fault: Option<Fault>,
    lease: Time,
    nodes: BTreeMap<NodeId, NodeRow>,
    pub(crate) rows: BTreeMap<Id, Row>,
    below: BTreeMap<Id, Vec<Id>>,
    queue: BTreeSet<Id>,
    owned: BTreeMap<NodeId, BTreeSet<Id>>,
    tree_bans: BTreeSet<Id>,
    own_bans: BTreeSet<Id>,
    parts: Vec<Part>,
    open: BTreeMap<NodeId, BTreeSet<i64>>,
    pub(crate) hints: Vec<Hint>,
    pub(crate) changes: Vec<Change>,
}

impl Database {
    pub(crate) fn new(fault: Option<Fault>, lease: Time) -> Self {
        Self {
            fault,
            lease,
            nodes: BTreeMap::new(),
            rows: BTreeMap::new(),
            below: BTreeMap::new(),
            queue: BTreeSet::new(),
            owned: BTreeMap::new(),
            tree_bans: BTreeSet::new(),
            own_bans: BTreeSet::new(),
            parts: Vec::new(),
            open: BTreeMap::new(),
            hints: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// One transaction of `node`, in the life with `epoch`.
    pub(crate) fn serve(&mut self, now: Time, node: NodeId, epoch: i64, want: Want) -> Said {
        if let Want::Join = want {
            return Said::Joined(self.join(now, node));
        }
        let holds = |row: &NodeRow| row.epoch == epoch && row.state == State::Live;
        if !self.nodes.get(&node).is_some_and(holds) && self.fault != Some(Fault::NoEpochCheck) {
            return Said::Lapsed;
        }
        match want {
            Want::Join => Said::Lapsed,
            Want::Renew => self.renew(now, node),
            Want::Owned => {
                let ids = self.owned.get(&node).into_iter().flatten();
                Said::Owned(ids.map(|id| self.handed(*id)).collect())
            }
            Want::Claim(limit) => self.claim(node, limit),
            Want::Accept { id, above, anywhere } => self.accept(node, id, above, anywhere),
            Want::Release(id, version) => self.release(node, id, version),
            Want::Settle { id, version, status, tail } => {
                self.settle(node, id, version, status, tail.then_some((node, epoch)));
                Said::Done
            }
            Want::Fence(fence) => self.fence(&fence),
            Want::Around(fence) => self.ask_around(node, &fence),
            Want::PartsOf(cancel) => Said::Parts(self.parts_of(cancel)),
            Want::Report { part, state, tail } => {
                self.report(node, part, state, tail.then_some((node, epoch)))
            }
            Want::TakeOver(other) => self.take_over(now, other),
            Want::Leave => self.leave(node),
        }
    }

    fn raise(&mut self, node: NodeId, state: State, lease_end: Time) -> i64 {
        let row = self.nodes.entry(node).or_insert(NodeRow { epoch: 0, state, lease_end });
        let before = row.epoch;
        *row = NodeRow { epoch: before + 1, state, lease_end };
        self.changes.push(Change::Epoch(node, before, before + 1));
        before + 1
    }

    fn join(&mut self, now: Time, node: NodeId) -> i64 {
        self.raise(node, State::Live, now + self.lease)
    }

    fn renew(&mut self, now: Time, node: NodeId) -> Said {
        if let Some(row) = self.nodes.get_mut(&node) {
            row.lease_end = row.lease_end.max(now + self.lease);
        }
        let early = if self.fault == Some(Fault::TakeOverEarly) { self.lease / 2 } else { 0 };
        let over = |(other, row): (&NodeId, &NodeRow)| {
            (*other != node && row.state == State::Live && row.lease_end <= now + early).then_some(*other)
        };
        let lapsed = self.nodes.iter().filter_map(over).collect();
        let open = self.open.get(&node).into_iter().flatten();
        let parts = open.map(|part| self.part(*part).clone()).collect();
        let owns = self.owned.get(&node).map_or(0, BTreeSet::len);
        Said::Beat { lapsed, parts, waiting: !self.queue.is_empty(), owns }
    }

    fn handed(&self, id: Id) -> Handed {
        let row = &self.rows[&id];
        Handed { id, version: row.version, above: row.above.clone(), fenced: row.fenced }
    }

    fn own(&mut self, id: Id, owner: Option<NodeId>) {
        let row = self.rows.get_mut(&id).expect("a row");
        let before = std::mem::replace(&mut row.owner, owner);
        row.version += 1;
        self.queue.remove(&id);
        if let Some(before) = before {
            self.owned.entry(before).or_default().remove(&id);
        }
        match owner {
            Some(node) => {
                self.owned.entry(node).or_default().insert(id);
            }
            None => {
                self.queue.insert(id);
                self.hints.push(Hint::Queue);
            }
        }
    }

    fn over(&mut self, id: Id, status: Status, by: NodeId) {
        let row = self.rows.get_mut(&id).expect("a row");
        row.status = status;
        row.version += 1;
        self.queue.remove(&id);
        if let Some(owner) = row.owner {
            self.owned.entry(owner).or_default().remove(&id);
        }
        self.changes.push(Change::Settled(id, status, by));
    }

    fn claim(&mut self, node: NodeId, limit: usize) -> Said {
        let ids: Vec<Id> = self.queue.iter().copied().take(limit).collect();
        ids.iter().for_each(|id| self.own(*id, Some(node)));
        let mut handed: Vec<Handed> = ids.iter().map(|id| self.handed(*id)).collect();
        // What a claim takes is not fenced: a fence settled it, or it came after the claim.
        handed.iter_mut().for_each(|one| one.fenced = false);
        Said::Owned(handed)
    }

    /// Whether anything above is fenced: the parent itself, or a whole tree that it is in. The chain goes on above
    /// what the child names, over requests that are over as well.
    fn banned(&self, above: &[Id]) -> bool {
        if above.first().is_some_and(|parent| self.own_bans.contains(parent)) {
            return true;
        }
        let mut chain: Vec<Id> = above.to_vec();
        loop {
            if chain.iter().any(|id| self.tree_bans.contains(id)) {
                return true;
            }
            let row = chain.last().and_then(|top| self.rows.get(top));
            match row {
                Some(row) if self.fault != Some(Fault::ShallowBanCheck) => chain = row.above.clone(),
                _ => return false,
            }
        }
    }

    fn accept(&mut self, node: NodeId, id: Id, above: Vec<Id>, anywhere: bool) -> Said {
        if self.fault != Some(Fault::NoBanCheck) && self.banned(&above) {
            return Said::Banned;
        }
        for higher in &above {
            self.below.entry(*higher).or_default().push(id);
        }
        let row = Row { above, owner: None, version: 0, status: Status::Waiting, fenced: false, tail: None };
        self.rows.insert(id, row);
        self.own(id, (!anywhere).then_some(node));
        Said::Accepted(self.rows[&id].version)
    }

    fn holds(&self, node: NodeId, id: Id, version: u64) -> bool {
        let same = |row: &Row| row.version == version || self.fault == Some(Fault::NoVersionCheck);
        let holds = |row: &Row| row.status == Status::Waiting && row.owner == Some(node) && same(row);
        self.rows.get(&id).is_some_and(holds)
    }

    /// Says whether it is still this node's (it is fenced), and not whether it went: a second ask, after the answer to
    /// the first was lost, has to be told the same.
    fn release(&mut self, node: NodeId, id: Id, version: u64) -> Said {
        let held = self.holds(node, id, version);
        if held && !self.rows[&id].fenced {
            self.own(id, None);
            return Said::Done;
        }
        if held || self.fault == Some(Fault::ReleaseSaysWhatWent) { Said::Unknown } else { Said::Done }
    }

    fn settle(&mut self, node: NodeId, id: Id, version: u64, status: Status, tail: Option<(NodeId, i64)>) {
        if !self.holds(node, id, version) {
            return;
        }
        let row = self.rows.get_mut(&id).expect("it is held");
        row.tail = tail;
        let status = if row.fenced { Status::Canceled } else { status };
        self.over(id, status, node);
    }

    /// Everything below, over or not, each once.
    fn walk(&self, target: Id) -> Vec<Id> {
        let mut seen = BTreeSet::from([target]);
        let mut order = vec![target];
        let mut at = 0;
        while let Some(id) = order.get(at) {
            at += 1;
            for lower in self.below.get(id).into_iter().flatten() {
                if seen.insert(*lower) {
                    order.push(*lower);
                }
            }
        }
        order
    }

    fn fence(&mut self, fence: &Fence) -> Said {
        if !fence.mine && !self.rows.contains_key(&fence.target) {
            return Said::Unknown;
        }
        let same = |part: &Part| part.cancel == fence.cancel && part.request == fence.target;
        if !fence.mine && self.parts.iter().any(same) {
            return Said::Parts(self.parts_of(fence.cancel));
        }
        let ids = match fence.scope {
            Scope::Request => vec![fence.target],
            Scope::Subtree => self.walk(fence.target),
        };
        let found = self.reach(fence, &ids);
        match self.rows.get(&fence.target).map(|row| row.status) {
            Some(status) if !found && status != Status::Waiting && !fence.mine => {
                return Said::Finished(status);
            }
            _ => {}
        }
        self.ban(fence);
        Said::Parts(self.parts_of(fence.cancel))
    }

    fn ban(&mut self, fence: &Fence) {
        let bans = match fence.scope {
            Scope::Request => &mut self.own_bans,
            Scope::Subtree => &mut self.tree_bans,
        };
        bans.insert(fence.target);
    }

    /// Fences these; says whether any of them was not over.
    fn reach(&mut self, fence: &Fence, ids: &[Id]) -> bool {
        let mut found = false;
        for id in ids {
            let Some(row) = self.rows.get_mut(id) else { continue };
            if row.status == Status::Waiting {
                found = true;
                if row.owner.is_none() && self.fault == Some(Fault::ClaimIgnoresFence) {
                    continue;
                }
                row.fenced = true;
                if fence.scope == Scope::Subtree {
                    self.tree_bans.insert(*id);
                }
                match row.owner {
                    Some(owner) => self.add_part(fence, owner, *id, false),
                    None => self.over(*id, Status::Canceled, usize::MAX),
                }
            } else if let (Some((node, epoch)), Scope::Subtree) = (row.tail, fence.scope) {
                let alive = self.nodes.get(&node).is_some_and(|row| row.epoch == epoch);
                if alive && self.fault != Some(Fault::NoTail) {
                    found = true;
                    self.add_part(fence, node, *id, false);
                }
            }
        }
        found
    }

    fn add_part(&mut self, fence: &Fence, node: NodeId, request: Id, around: bool) {
        let part = i64::try_from(self.parts.len()).expect("few parts");
        let Fence { cancel, scope, .. } = *fence;
        // One for each request on each node: a fence that is asked for again, or by another node as well, adds none.
        let same = |part: &Part| part.cancel == cancel && part.node == node && part.request == request;
        if self.parts.iter().any(|part| same(part) && (around || !part.around)) {
            return;
        }
        self.parts.push(Part { part, cancel, node, request, scope, around, state: PartState::Open });
        self.open.entry(node).or_default().insert(part);
        self.hints.push(Hint::Parts(node));
    }

    /// The store does not know the target; it may know what hangs below it, wherever that went meanwhile.
    fn ask_around(&mut self, asker: NodeId, fence: &Fence) -> Said {
        if self.rows.contains_key(&fence.target) {
            // It was accepted since the fence did not find it.
            return self.fence(fence);
        }
        if self.parts_of(fence.cancel).is_empty() {
            if fence.scope == Scope::Subtree && self.fault != Some(Fault::NoWalkBelowUnknown) {
                let ids = self.walk(fence.target);
                self.reach(fence, &ids);
            }
            // It may be over before its node hears of this: what it made until then must not be accepted after.
            if self.fault != Some(Fault::NoBanOnUnknown) {
                self.ban(fence);
            }
            let live = self.nodes.iter().filter(|(node, row)| **node != asker && row.state == State::Live);
            let nodes: Vec<NodeId> = live.map(|(node, _)| *node).collect();
            nodes.into_iter().for_each(|node| self.add_part(fence, node, fence.target, true));
        }
        Said::Parts(self.parts_of(fence.cancel))
    }

    fn part(&self, part: i64) -> &Part {
        &self.parts[usize::try_from(part).expect("a number of a part")]
    }

    fn parts_of(&self, cancel: Cancel) -> Vec<Part> {
        self.parts.iter().filter(|part| part.cancel == cancel).cloned().collect()
    }

    fn close(&mut self, part: i64, state: PartState) {
        let row = &mut self.parts[usize::try_from(part).expect("a number of a part")];
        row.state = state;
        let (node, cancel) = (row.node, row.cancel);
        self.open.entry(node).or_default().remove(&part);
        self.hints.push(Hint::Reported(cancel));
    }

    /// A fenced request of the reporting node is over with the report: nothing of it runs, and nobody else may end it.
    fn report(&mut self, node: NodeId, part: i64, state: PartState, tail: Option<(NodeId, i64)>) -> Said {
        let Part { request, state: before, node: whose, .. } = *self.part(part);
        if before == PartState::Open && whose == node {
            self.close(part, state);
            let left = |row: &Row| row.status == Status::Waiting && row.fenced && row.owner == Some(node);
            if self.rows.get(&request).is_some_and(left) {
                self.rows.get_mut(&request).expect("it is left").tail = tail;
                self.over(request, Status::Canceled, node);
            }
        }
        Said::Done
    }

    fn take_over(&mut self, now: Time, node: NodeId) -> Said {
        let early = if self.fault == Some(Fault::TakeOverEarly) { self.lease / 2 } else { 0 };
        let over = |row: &NodeRow| row.state == State::Live && row.lease_end <= now + early;
        if self.nodes.get(&node).is_some_and(over) {
            self.raise(node, State::Fenced, 0);
            self.give_back(node, PartState::NodeLost);
        }
        Said::Done
    }

    fn leave(&mut self, node: NodeId) -> Said {
        if let Some(row) = self.nodes.get_mut(&node) {
            row.state = State::Left;
        }
        self.give_back(node, PartState::Stopped);
        Said::Done
    }

    fn give_back(&mut self, node: NodeId, state: PartState) {
        for id in self.owned.remove(&node).unwrap_or_default() {
            match self.rows[&id].fenced {
                true => self.over(id, Status::Canceled, usize::MAX),
                false => self.own(id, None),
            }
        }
        if state == PartState::Stopped && self.fault == Some(Fault::LeaveForgetsParts) {
            return;
        }
        for part in self.open.remove(&node).unwrap_or_default() {
            self.close(part, state);
        }
    }
}
