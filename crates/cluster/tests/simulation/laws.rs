//! What must hold whatever goes wrong. The laws look at the attempts themselves and at what clients were told, not at
//! what the nodes believe.

use std::collections::{BTreeMap, BTreeSet};

use crate::database::{Cancel, Change, Id, NodeId, Scope, Status, Time};
use crate::machine::Machine;
use crate::node::Reply;
use crate::world::{Run, World};

struct Asked {
    target: Id,
    scope: Scope,
    reply: Option<Reply>,
}

#[derive(Default)]
pub(crate) struct Laws {
    parents: BTreeMap<Id, Option<Id>>,
    accepted: BTreeSet<Id>,
    settled: BTreeMap<Id, Status>,
    asked: BTreeMap<Cancel, Asked>,
    epochs: BTreeMap<NodeId, i64>,
    /// Of these, and of what is below these, nothing may happen any more.
    stopped: BTreeSet<Id>,
    stopped_trees: BTreeSet<Id>,
    pub(crate) broken: Option<String>,
    /// How often each thing was seen, so that a run that proves nothing is seen as well.
    pub(crate) stops: u64,
    pub(crate) successes: u64,
}

impl Laws {
    fn broke(&mut self, words: String) {
        self.broken.get_or_insert(words);
    }

    pub(crate) fn invoked(&mut self, id: Id, parent: Option<Id>, _sync: bool) {
        self.parents.insert(id, parent);
    }

    pub(crate) fn accepted(&mut self, id: Id) {
        self.accepted.insert(id);
    }

    pub(crate) fn asked(&mut self, cancel: Cancel, target: Id, scope: Scope) {
        self.asked.insert(cancel, Asked { target, scope, reply: None });
    }

    /// Whoever waits for a node that is gone sees the end of the connection.
    pub(crate) fn daemon_gone(&mut self, at: &BTreeMap<Cancel, NodeId>, node: NodeId) {
        for (cancel, asked) in &mut self.asked {
            if at.get(cancel) == Some(&node) && asked.reply.is_none() {
                asked.reply = Some(Reply::Unavailable);
            }
        }
    }

    fn is_stopped(&self, id: Id) -> bool {
        let mut at = Some(id);
        while let Some(one) = at {
            if self.stopped_trees.contains(&one) {
                return true;
            }
            at = self.parents.get(&one).copied().flatten();
        }
        self.stopped.contains(&id)
    }

    fn acts(run: &Run, machines: &[Machine], now: Time) -> bool {
        run.active && machines[run.node].frozen_until <= now
    }

    /// I1, I2, I6: nothing of what was answered as stopped starts; and no two attempts of one request at a time.
    pub(crate) fn starts(&mut self, node: NodeId, id: Id, runs: &[Run], machines: &[Machine], now: Time) {
        if self.is_stopped(id) {
            self.broke(format!("request {id} starts on node {node} after 200 said that it is stopped"));
        }
        if let Some(other) = runs.iter().find(|run| run.id == id && Self::acts(run, machines, now)) {
            let on = other.node;
            self.broke(format!(
                "request {id} starts on node {node} while an attempt of it acts on node {on}"
            ));
        }
        if let Some(status) = self.settled.get(&id) {
            self.broke(format!("request {id} starts on node {node}, and is settled as {status:?}"));
        }
    }

    /// A machine is back from sleep and this attempt of it goes on.
    pub(crate) fn goes_on(&mut self, run: usize, runs: &[Run], machines: &[Machine], now: Time) {
        let Run { id, node, .. } = runs[run];
        if self.is_stopped(id) {
            self.broke(format!("request {id} goes on on node {node} after 200 said that it is stopped"));
        }
        let other =
            |(at, other): (usize, &Run)| at != run && other.id == id && Self::acts(other, machines, now);
        if runs.iter().enumerate().any(other) {
            self.broke(format!("request {id} goes on on node {node} while another attempt of it acts"));
        }
    }

    pub(crate) fn answered(
        &mut self,
        cancel: Cancel,
        reply: Reply,
        runs: &[Run],
        machines: &[Machine],
        now: Time,
    ) {
        let Some(asked) = self.asked.get_mut(&cancel) else { return };
        asked.reply = Some(reply);
        if reply != Reply::Stopped {
            return;
        }
        self.stops += 1;
        match asked.scope {
            Scope::Request => self.stopped.insert(asked.target),
            Scope::Subtree => self.stopped_trees.insert(asked.target),
        };
        let acting = |run: &&Run| Self::acts(run, machines, now) && self.is_stopped(run.id);
        if let Some(run) = runs.iter().find(acting) {
            let (id, node) = (run.id, run.node);
            self.broke(format!("cancel {cancel} is answered 200, and request {id} acts on node {node}"));
        }
    }

    pub(crate) fn changed(&mut self, change: Change, runs: &[Run], machines: &[Machine], now: Time) {
        match change {
            Change::Settled(id, status, by) => {
                if let Some(before) = self.settled.insert(id, status) {
                    self.broke(format!("request {id} settles as {status:?} after {before:?}"));
                }
                if status == Status::Succeeded {
                    self.successes += 1;
                    if self.is_stopped(id) {
                        self.broke(format!("request {id} succeeds after 200 said that it is stopped"));
                    }
                }
                if let Some(run) =
                    runs.iter().find(|run| run.id == id && run.node != by && Self::acts(run, machines, now))
                {
                    let on = run.node;
                    self.broke(format!("request {id} is settled by {by} while it runs on node {on}"));
                }
            }
            Change::Epoch(node, before, after) => {
                let known = self.epochs.insert(node, after);
                if known.unwrap_or(0) != before || after <= before {
                    self.broke(format!("the epoch of node {node} went from {known:?} to {after}"));
                }
            }
        }
    }

    /// Once nothing goes wrong any more: what is not settled or not answered yet.
    pub(crate) fn unfinished(&self, world: &World) -> Option<String> {
        let lost = |id: &&Id| !world.database.rows.contains_key(*id);
        if let Some(id) = self.accepted.iter().find(lost) {
            return Some(format!("request {id} was accepted and is not in the database"));
        }
        let open = world.database.rows.iter().find(|(_, row)| row.status == Status::Waiting);
        if let Some((id, row)) = open {
            let owner = row.owner;
            return Some(format!("request {id}, owned by {owner:?}, is not settled, fenced: {}", row.fenced));
        }
        let open = self.asked.iter().find(|(_, asked)| asked.reply.is_none());
        open.map(|(cancel, asked)| format!("cancel {cancel} of request {} is not answered", asked.target))
    }
}
