//! How a cancel comes to its end: requests come to rest, records come back, askers are answered.
//!
//! A cancel counts what it waits for instead of listing it: `pending` is the number of requests in
//! its scope that are not stopped, `records` against `recorded` whether its record is durable. Each
//! request that stops walks up its ancestors (bounded by the depth) and counts down every running
//! cancel that covers it and has counted it. Nothing can be added below a fenced subtree (I2), so the count only falls,
//! and the cancel is answered exactly when it reaches zero (I9).

use alloc::vec::Vec;

use crate::{
    CancelId, Effect, Engine, Level, Reply, Scope, Ticket,
    tree::{CancelKey, Fence, NodeKey},
    walk::Walk,
};

/// What an asker waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    /// Everything stopped and recorded.
    Stopped,
    /// Everything fenced and recorded.
    Fenced,
    /// Its request had stopped before; only the record is not durable yet.
    Record { draining: bool },
}

/// A running cancel.
#[derive(Clone, Debug)]
pub(crate) struct Cancel {
    pub(crate) id: CancelId,
    pub(crate) target: NodeKey,
    pub(crate) scope: Scope,
    pub(crate) level: Level,
    pub(crate) askers: Vec<(Ticket, Wants)>,
    /// Requests in scope that are not stopped and not stuck.
    pub(crate) pending: u32,
    /// The number of the last record asked for; each contains the ones before it.
    pub(crate) records: u32,
    /// The number of the last record that was answered.
    pub(crate) recorded: u32,
    pub(crate) draining: bool,
    pub(crate) stuck: bool,
    pub(crate) record_failed: bool,
    /// Its way through its scope, while that is under way.
    pub(crate) walk: Option<Walk>,
}

impl Cancel {
    pub(crate) fn is_recorded(&self) -> bool {
        // While it still fences, the record that is to name it all was not asked for (W4).
        self.recorded == self.records && !self.walk.as_ref().is_some_and(|walk| walk.fencing)
    }

    fn reply(&self) -> Reply {
        if self.stuck {
            Reply::Unkillable(self.id)
        } else if self.record_failed {
            Reply::NotRecorded(self.id)
        } else if self.draining {
            Reply::Draining(self.id)
        } else {
            Reply::Stopped(self.id)
        }
    }

    /// What an asker that waited for the record alone is told once it is there.
    pub(crate) fn reply_at_record(&self, wants: Wants) -> Reply {
        match wants {
            _ if self.record_failed => Reply::NotRecorded(self.id),
            Wants::Record { draining } => Reply::AlreadyCanceled { cancel: self.id, draining },
            Wants::Fenced | Wants::Stopped => Reply::Fenced(self.id),
        }
    }
}

/// How one request of a cancel's scope came to rest, as far as the cancel is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// No code of it runs.
    Stopped,
    /// It settled, and its code may run on.
    Draining,
    /// It could not be killed in time.
    Stuck,
}

impl Engine {
    /// A covered request came to rest: counts down the running cancels over it that are at least as
    /// hard as `from`, and answers those that are over.
    pub(crate) fn rest(&mut self, key: NodeKey, from: Level, how: Rest, out: &mut Vec<Effect>) {
        let mut at = Some(key);
        while let Some(over) = at {
            let Some(node) = self.tree.get(over) else { return };
            at = node.parent;
            let Some(running) = node.cancel else { continue };
            let Some(cancel) = self.cancels.get(running) else { continue };
            let covers = over == key || cancel.scope == Scope::Subtree;
            if !covers || cancel.level < from || !self.counted(running, key) {
                continue;
            }
            let Some(cancel) = self.cancels.get_mut(running) else { continue };
            debug_assert!(cancel.pending > 0, "counted down more than was counted");
            cancel.pending = cancel.pending.saturating_sub(1);
            cancel.draining |= how == Rest::Draining;
            cancel.stuck |= how == Rest::Stuck;
            self.close_if_over(running, out);
        }
    }

    pub(crate) fn recorded(&mut self, cancel: CancelId, record: u32, ok: bool, out: &mut Vec<Effect>) {
        let Some(key) = self.open.get(&cancel).copied() else { return };
        let Some(cancel) = self.cancels.get_mut(key) else { return };
        if record <= cancel.recorded || record > cancel.records {
            return;
        }
        cancel.recorded = record;
        cancel.record_failed = !ok;
        if !cancel.is_recorded() {
            return;
        }
        let early: Vec<_> = cancel.askers.extract_if(.., |(_, wants)| *wants != Wants::Stopped).collect();
        for (ticket, wants) in early {
            out.push(Effect::Answer { ticket, reply: cancel.reply_at_record(wants) });
        }
        self.close_if_over(key, out);
    }

    pub(crate) fn close_if_over(&mut self, key: CancelKey, out: &mut Vec<Effect>) {
        let over = |cancel: &Cancel| cancel.pending == 0 && cancel.walk.is_none() && cancel.is_recorded();
        if !self.cancels.get(key).is_some_and(over) {
            return;
        }
        let Some(cancel) = self.cancels.remove(key) else { return };
        let reply = cancel.reply();
        for (ticket, _) in &cancel.askers {
            out.push(Effect::Answer { ticket: *ticket, reply });
        }
        self.open.remove(&cancel.id);
        if cancel.record_failed {
            self.mark_unrecorded(&cancel);
        }
        if let Some(node) = self.tree.get_mut(cancel.target) {
            node.cancel = None;
        }
        out.push(Effect::Close { cancel: cancel.id, reply });
    }

    /// A cancel ended without a durable record: what it fenced first must not be called already
    /// cancelled later on, since that would promise a record (I6). Costs O(scope + tombstones).
    fn mark_unrecorded(&mut self, cancel: &Cancel) {
        let mut covered = core::mem::take(&mut self.scratch);
        self.tree.subtree(cancel.target, usize::MAX, &mut covered);
        for key in covered.drain(..) {
            mark(self.tree.get_mut(key).and_then(|node| node.fence.as_mut()), cancel.id);
        }
        self.scratch = covered;
        for fence in self.tombstones.fences() {
            mark(Some(fence), cancel.id);
        }
    }
}

fn mark(fence: Option<&mut Fence>, by: CancelId) {
    if let Some(fence) = fence.filter(|fence| fence.by == by) {
        fence.unrecorded = true;
    }
}
