//! Cancels: who is asked to stop, and what is done to each.
//!
//! How a cancel reaches its scope is in `walk.rs`, how it ends in `rest.rs`.

use alloc::vec::Vec;

use crate::{
    CancelAsk, Cause, Effect, Engine, InstanceId, Level, OnGrace, Outcome, Reply, RequestId, Scope,
    instance::Ending,
    rest::{Cancel, Rest, Wants},
    tree::{CancelKey, Fence, Node, NodeKey, Phase},
};

impl Engine {
    pub(crate) fn cancel_asked(&mut self, ask: CancelAsk, out: &mut Vec<Effect>) {
        match self.stoppable(&ask) {
            Ok(target) => match self.tree.get(target).and_then(|node| node.cancel) {
                Some(running) => self.join(running, &ask, out),
                None => self.open(target, &ask, out),
            },
            Err(Reply::AlreadyCanceled { cancel, draining }) => {
                // Stopped, but its cancel may still wait for its record: 200 only after that (I6).
                match self.open.get(&cancel).copied() {
                    Some(running) => self.add_asker(running, &ask, Wants::Record { draining }, out),
                    None => answer(&ask, Reply::AlreadyCanceled { cancel, draining }, out),
                }
            }
            Err(reply) => answer(&ask, reply, out),
        }
    }

    /// Whether there is anything left to stop; if not, what the asker is told.
    pub(crate) fn stoppable(&self, ask: &CancelAsk) -> Result<NodeKey, Reply> {
        let Some((key, node)) = self.tree.find(ask.request) else {
            return Err(match self.tombstone(ask.request) {
                None => Reply::Unknown,
                Some(tomb) => match (tomb.outcome, tomb.fence) {
                    (Outcome::Canceled, Some(fence)) => already(fence, false),
                    (outcome, _) => Reply::Finished(outcome),
                },
            });
        };
        let Some(outcome) = node.settled() else { return Ok(key) };
        let Some(fence) = node.fence.filter(|_| outcome == Outcome::Canceled) else {
            return Err(Reply::Finished(outcome));
        };
        let draining = matches!(node.phase, Phase::Draining(..));
        let below = ask.scope == Scope::Subtree && self.tree.has_children(key);
        if node.cancel.is_some() || below || (draining && ask.level == Level::Kill) {
            return Ok(key);
        }
        Err(already(fence, draining))
    }

    fn open(&mut self, target: NodeKey, ask: &CancelAsk, out: &mut Vec<Effect>) {
        let fenced = self.tree.get(target).is_some_and(|node| node.fence.is_some());
        if fenced && ask.cause != Cause::Asked && ask.ticket.is_none() {
            return; // our own timers have nothing to add to somebody's cancel
        }
        let key = self.cancels.insert(Cancel {
            id: ask.cancel,
            target,
            scope: ask.scope,
            level: ask.level,
            askers: Vec::new(),
            pending: 0,
            records: 0,
            recorded: 0,
            draining: false,
            stuck: false,
            record_failed: false,
            walk: None,
        });
        self.open.insert(ask.cancel, key);
        if let Some(node) = self.tree.get_mut(target) {
            node.cancel = Some(key);
        }
        self.press(key, ask.cause, out);
        self.add_asker(key, ask, wants(ask), out);
    }

    /// How wide and hard an ask about this request comes to be: if it joins a running cancel, the
    /// wider and the harder of the two.
    pub(crate) fn comes_to(&self, target: NodeKey, ask: &CancelAsk) -> (Scope, Level) {
        let running = self.tree.get(target).and_then(|node| node.cancel);
        match running.and_then(|running| self.cancels.get(running)) {
            Some(cancel) => (cancel.scope.max(ask.scope), cancel.level.max(ask.level)),
            None => (ask.scope, ask.level),
        }
    }

    /// A second ask about the same request: wider or harder raises the running cancel, and every
    /// asker is answered when it is over.
    fn join(&mut self, key: CancelKey, ask: &CancelAsk, out: &mut Vec<Effect>) {
        let Some(target) = self.cancels.get(key).map(|cancel| cancel.target) else { return };
        let (scope, level) = self.comes_to(target, ask);
        let Some(cancel) = self.cancels.get_mut(key) else { return };
        if (scope, level) != (cancel.scope, cancel.level) {
            (cancel.scope, cancel.level) = (scope, level);
            self.press(key, ask.cause, out);
        }
        self.add_asker(key, ask, wants(ask), out);
    }

    fn add_asker(&mut self, key: CancelKey, ask: &CancelAsk, wants: Wants, out: &mut Vec<Effect>) {
        let bound = self.bounds.max_askers as usize;
        let (Some(cancel), Some(ticket)) = (self.cancels.get_mut(key), ask.ticket) else { return };
        let reply = if wants != Wants::Stopped && cancel.is_recorded() {
            cancel.reply_at_record(wants)
        } else if cancel.askers.len() < bound {
            return cancel.askers.push((ticket, wants));
        } else {
            Reply::TooManyAskers(cancel.id)
        };
        out.push(Effect::Answer { ticket, reply });
    }

    /// Does to one freshly raised request what its level says (DESIGN section 4).
    pub(crate) fn act(&mut self, key: NodeKey, out: &mut Vec<Effect>) {
        let Some(node) = self.tree.get(key) else { return };
        let Some(fence) = node.fence else { return };
        match node.phase {
            Phase::Queued => self.settle_never_started(key, Outcome::of(fence.cause), out),
            Phase::Placed(instance) => {
                let starting = self.instances.get(&instance).is_some_and(|instance| !instance.ready);
                if starting && fence.level == Level::Kill {
                    self.end(instance, Ending::Canceled, out);
                } else {
                    self.settle_never_started(key, Outcome::of(fence.cause), out);
                }
            }
            Phase::Running(instance) => match fence.level {
                Level::Ask => self.ask(node.id, instance, out),
                Level::Kill => self.end(instance, Ending::Canceled, out),
            },
            Phase::Draining(instance, _) if fence.level == Level::Kill => {
                self.end(instance, Ending::Canceled, out);
            }
            Phase::Draining(..) | Phase::Husk(_) => {}
        }
    }

    fn ask(&mut self, request: RequestId, instance: InstanceId, out: &mut Vec<Effect>) {
        let Some(holder) = self.instances.get_mut(&instance) else { return };
        if holder.ending.is_some() {
            return; // the reap settles it
        }
        if holder.cooperates {
            out.push(Effect::Ask { request, instance });
        } else if holder.capacity == 1 && !holder.terminated {
            holder.terminated = true;
            self.drain(instance, out);
            out.push(Effect::Terminate(instance));
        }
        out.push(Effect::StartGrace(request));
    }

    pub(crate) fn grace_over(&mut self, request: RequestId, out: &mut Vec<Effect>) {
        let Some((key, node)) = self.tree.find(request) else { return };
        let (Phase::Running(instance), Some(Level::Ask)) = (node.phase, node.level()) else { return };
        let policy = node.policy;
        let Some(holder) = self.instances.get(&instance).filter(|holder| holder.ending.is_none()) else {
            return;
        };
        let innocent = |key: &NodeKey| self.tree.get(*key).is_some_and(is_innocent);
        if policy.on_grace == OnGrace::Drain && holder.tenants.iter().any(innocent) {
            return self.settle_draining(key, instance, out);
        }
        if let Some(fence) = self.tree.get_mut(key).and_then(|node| node.fence.as_mut()) {
            fence.level = Level::Kill;
        }
        self.end(instance, Ending::Canceled, out);
    }

    pub(crate) fn kill_timed_out(&mut self, instance: InstanceId, out: &mut Vec<Effect>) {
        let Some(holder) = self.instances.get_mut(&instance) else { return };
        let Some(ending) = holder.ending.filter(|_| !holder.stuck) else { return };
        holder.stuck = true;
        let (was_ready, tenants) = (holder.ready, holder.tenants.clone());
        out.push(Effect::Quarantine(instance));
        for key in self.bystanders_first(tenants) {
            let Some(node) = self.tree.get_mut(key) else { continue };
            if matches!(node.phase, Phase::Placed(_)) && node.fence.is_none() {
                // It waited for the reap only to be told why the start failed; no reap is in sight.
                self.never_taken(key, ending, was_ready, out);
                self.vacate(instance, key, out);
                continue;
            }
            if was_ready && matches!(node.phase, Phase::Placed(_)) {
                continue; // a cancel on its way has fenced it, and is about to settle it: it never started
            }
            node.stuck = true;
            let fenced = node.fence.is_some();
            let from = match node.settled() {
                Some(_) => Level::Kill,
                None => {
                    out.push(Effect::Stuck(node.id));
                    Level::Ask
                }
            };
            if fenced {
                self.rest(key, from, Rest::Stuck, out);
            }
        }
    }
}

/// What somebody is told who asks for what was cancelled before.
fn already(fence: Fence, draining: bool) -> Reply {
    if fence.unrecorded {
        Reply::NotRecorded(fence.by)
    } else {
        Reply::AlreadyCanceled { cancel: fence.by, draining }
    }
}

/// Whether a tenant is somebody whose request nobody stopped and whose code runs.
pub(crate) fn is_innocent(node: &Node) -> bool {
    node.fence.is_none() && matches!(node.phase, Phase::Running(_))
}

fn wants(ask: &CancelAsk) -> Wants {
    if ask.early { Wants::Fenced } else { Wants::Stopped }
}

fn answer(ask: &CancelAsk, reply: Reply, out: &mut Vec<Effect>) {
    if let Some(ticket) = ask.ticket {
        out.push(Effect::Answer { ticket, reply });
    }
}
