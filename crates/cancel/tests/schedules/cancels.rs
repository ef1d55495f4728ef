//! The reference for cancels, graces and the ends of instances.

use std::collections::{BTreeSet, VecDeque};

use cancel::{
    CancelAsk, CancelId, Cause, Effect, Evidence, InstanceId, Level, OnGrace, Outcome, Reply, RequestId,
    Scope, Ticket,
};

use crate::model::{At, Model, Why};

/// What an asker waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    Stopped,
    Fenced,
    /// The target had stopped before; its record is what is missing.
    Record {
        draining: bool,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Cancel {
    pub(crate) target: RequestId,
    pub(crate) scope: Scope,
    pub(crate) level: Level,
    pub(crate) askers: Vec<(Ticket, Wants)>,
    pub(crate) asked: u32,
    pub(crate) answered: u32,
    pub(crate) record_ok: bool,
    /// Since the last rise: something in scope was left draining, or could not be killed.
    pub(crate) draining: bool,
    pub(crate) stuck: bool,
    pub(crate) closed: Option<Reply>,
    /// Its way through its scope, while it lasts.
    pub(crate) walk: Option<Walk>,
}

#[derive(Clone, Debug)]
pub(crate) struct Walk {
    cause: Cause,
    /// Whom it has been to; `None` once it has been everywhere.
    been_to: Option<BTreeSet<RequestId>>,
    /// What rose and was not acted upon.
    raised: VecDeque<RequestId>,
}

impl Cancel {
    pub(crate) fn recorded(&self) -> bool {
        self.asked == self.answered && !self.fences()
    }

    fn fences(&self) -> bool {
        self.walk.as_ref().is_some_and(|walk| walk.been_to.is_some())
    }

    /// Whether it has heard of a request of its scope.
    fn knows(&self, request: RequestId) -> bool {
        let been_to = self.walk.as_ref().and_then(|walk| walk.been_to.as_ref());
        been_to.is_none_or(|been_to| been_to.contains(&request))
    }
}

impl Model {
    /// The running cancel of exactly this request.
    pub(crate) fn running(&self, target: RequestId) -> Option<CancelId> {
        let is = |cancel: &Cancel| cancel.target == target && cancel.closed.is_none();
        self.cancels.iter().find(|(_, cancel)| is(cancel)).map(|(id, _)| *id)
    }

    /// What a cancel of this scope covers now.
    pub(crate) fn covered(&self, target: RequestId, scope: Scope) -> Vec<RequestId> {
        match scope {
            Scope::Request => self.requests.contains_key(&target).then_some(target).into_iter().collect(),
            Scope::Subtree => self.subtree(target),
        }
    }

    fn reply(&mut self, ask: &CancelAsk, reply: Reply) {
        if let Some(ticket) = ask.ticket {
            self.effects.push(Effect::Answer { ticket, reply });
        }
    }

    /// What is left to stop, or what the asker is told at once.
    pub(crate) fn stoppable(&self, ask: &CancelAsk) -> Result<(), Reply> {
        let Some(req) = self.requests.get(&ask.request) else {
            return Err(match self.graves.get(&ask.request) {
                None => Reply::Unknown,
                Some((Outcome::Canceled, Some(cancel))) => {
                    Reply::AlreadyCanceled { cancel: *cancel, draining: false }
                }
                Some((outcome, _)) => Reply::Finished(*outcome),
            });
        };
        let At::Over(outcome, ghost) = req.at else { return Ok(()) };
        let (Outcome::Canceled, Some((_, cancel))) = (outcome, req.fence) else {
            return Err(Reply::Finished(outcome));
        };
        let widens = ask.scope == Scope::Subtree && self.has_children(ask.request);
        let hardens = ask.level == Level::Kill && ghost.is_some();
        if widens || hardens || self.running(ask.request).is_some() {
            return Ok(());
        }
        Err(Reply::AlreadyCanceled { cancel, draining: ghost.is_some() })
    }

    pub(crate) fn cancel_asked(&mut self, ask: &CancelAsk) {
        match self.stoppable(ask) {
            Err(Reply::AlreadyCanceled { cancel, draining }) if self.unrecorded(cancel) => {
                let over = self.cancels[&cancel].closed;
                match over {
                    Some(_) => self.reply(ask, Reply::NotRecorded(cancel)),
                    None => self.add_asker(cancel, ask, Wants::Record { draining }),
                }
            }
            Err(reply) => self.reply(ask, reply),
            Ok(()) => {
                let fenced = self.requests[&ask.request].fence.is_some();
                let cancel = match self.running(ask.request) {
                    Some(running) => running,
                    // A timer of ours has nothing to add to somebody's cancel.
                    None if fenced && ask.cause != Cause::Asked && ask.ticket.is_none() => return,
                    None => ask.cancel,
                };
                self.press(cancel, ask);
                let wants = if ask.early { Wants::Fenced } else { Wants::Stopped };
                self.add_asker(cancel, ask, wants);
            }
        }
    }

    /// Its last record is not durable (yet).
    fn unrecorded(&self, cancel: CancelId) -> bool {
        self.cancels.get(&cancel).is_some_and(|cancel| !cancel.recorded() || !cancel.record_ok)
    }

    fn add_asker(&mut self, id: CancelId, ask: &CancelAsk, wants: Wants) {
        let Some(ticket) = ask.ticket else { return };
        let max = self.bounds.max_askers as usize;
        let cancel = self.cancels.get_mut(&id).expect("known");
        if cancel.recorded() && wants != Wants::Stopped {
            let reply = at_record(id, cancel, wants);
            self.reply(ask, reply);
        } else if cancel.askers.len() < max {
            cancel.askers.push((ticket, wants));
        } else {
            self.reply(ask, Reply::TooManyAskers(id));
        }
    }

    fn press(&mut self, id: CancelId, ask: &CancelAsk) {
        let cancel = self.cancels.entry(id).or_insert(Cancel {
            target: ask.request,
            scope: ask.scope,
            level: ask.level,
            askers: Vec::new(),
            asked: 0,
            answered: 0,
            record_ok: true,
            draining: false,
            stuck: false,
            closed: None,
            walk: None,
        });
        let new = cancel.asked == 0 && cancel.walk.is_none();
        if !new && ask.scope <= cancel.scope && ask.level <= cancel.level {
            return;
        }
        cancel.scope = cancel.scope.max(ask.scope);
        cancel.level = cancel.level.max(ask.level);
        (cancel.draining, cancel.stuck) = (false, false);
        let (been_to, raised) = (Some(BTreeSet::new()), VecDeque::new());
        cancel.walk = Some(Walk { cause: ask.cause, been_to, raised });
        let again = self.walks.contains(&id);
        let all = !again && self.walks.len() >= self.bounds.max_walks as usize;
        let over = self.advance(id, if all { usize::MAX } else { self.slice() });
        if over {
            self.walks.retain(|walk| *walk != id);
        } else if !again {
            self.walks.push_back(id);
        }
    }

    fn slice(&self) -> usize {
        self.bounds.slice.max(1) as usize
    }

    pub(crate) fn walk_on(&mut self) {
        let Some(id) = self.walks.pop_front() else { return };
        if !self.advance(id, self.slice()) {
            self.walks.push_back(id);
        }
    }

    /// Whether the walk is over with this slice.
    fn advance(&mut self, id: CancelId, slice: usize) -> bool {
        if self.cancels[&id].fences() && !self.fence_slice(id, slice) {
            return false;
        }
        let level = self.cancels[&id].level;
        for _ in 0..slice {
            let walk = self.cancels.get_mut(&id).and_then(|cancel| cancel.walk.as_mut()).expect("walks");
            let Some(request) = walk.raised.pop_front() else { break };
            self.act(request, level);
        }
        let cancel = self.cancels.get_mut(&id).expect("known");
        if cancel.walk.as_ref().is_some_and(|walk| !walk.raised.is_empty()) {
            return false;
        }
        cancel.walk = None;
        true
    }

    fn fence_slice(&mut self, id: CancelId, slice: usize) -> bool {
        let Cancel { target, scope, level, .. } = self.cancels[&id];
        let ahead: Vec<_> =
            self.covered(target, scope).into_iter().filter(|id2| !self.cancels[&id].knows(*id2)).collect();
        for request in ahead.iter().take(slice) {
            self.visit(id, *request);
        }
        if ahead.len() > slice {
            return false;
        }
        let cancel = self.cancels.get_mut(&id).expect("known");
        cancel.asked += 1;
        cancel.walk.as_mut().expect("walks").been_to = None;
        self.effects.push(Effect::Record { cancel: id, record: cancel.asked, level });
        true
    }

    fn visit(&mut self, id: CancelId, request: RequestId) {
        let cancel = self.cancels.get_mut(&id).expect("known");
        let (level, walk) = (cancel.level, cancel.walk.as_mut().expect("walks"));
        walk.been_to.as_mut().expect("fences").insert(request);
        let req = self.requests.get_mut(&request).expect("covered");
        if matches!(req.at, At::Over(_, None)) {
            return;
        }
        let first = req.fence.is_none();
        self.effects.push(Effect::Fence { request, cancel: id, first });
        if matches!(req.at, At::Over(..)) && level == Level::Ask {
            return;
        }
        if first {
            req.fence = Some((walk.cause, id));
        }
        if req.level < Some(level) {
            req.level = Some(level);
            walk.raised.push_back(request);
        }
    }

    fn act(&mut self, request: RequestId, level: Level) {
        // It may have stopped, or be stopped harder, since it was fenced.
        let Some(req) = self.requests.get(&request).cloned() else { return };
        let level = level.max(req.level.expect("fenced"));
        let alive = |i: &InstanceId| self.instances.get(i).is_some_and(|i| i.why.is_none());
        match req.at {
            At::Placed(i) if level == Level::Kill && !self.instances[&i].ready => {
                self.end(i, Why::Canceled);
            }
            At::Queued | At::Placed(_) => {
                self.settle(request, req.outcome_if_fenced(), Evidence::NeverStarted);
            }
            At::Running(i) | At::Over(_, Some(i)) if level == Level::Kill => self.end(i, Why::Canceled),
            At::Running(i) if alive(&i) => {
                self.effects.push(Effect::StartGrace(request));
                let holder = self.instances.get_mut(&i).expect("known");
                if holder.cooperates {
                    self.effects.push(Effect::Ask { request, instance: i });
                } else if holder.capacity == 1 {
                    holder.terminated = true;
                    self.effects.push(Effect::Terminate(i));
                    self.drain(i);
                }
            }
            At::Running(_) | At::Over(..) => {}
        }
    }

    pub(crate) fn grace_over(&mut self, request: RequestId) {
        let Some(req) = self.requests.get(&request).cloned() else { return };
        let At::Running(instance) = req.at else { return };
        if req.level != Some(Level::Ask) || self.instances[&instance].why.is_some() {
            return;
        }
        if req.policy.on_grace == OnGrace::Drain && self.innocents(instance) > 0 {
            self.settle(request, req.outcome_if_fenced(), Evidence::FencedOnly(instance));
            self.drain(instance);
        } else {
            self.requests.get_mut(&request).expect("known").level = Some(Level::Kill);
            self.end(instance, Why::Canceled);
        }
    }

    /// Requests that run there and that nobody stopped.
    pub(crate) fn innocents(&self, instance: InstanceId) -> usize {
        self.requests.values().filter(|req| req.at == At::Running(instance) && req.fence.is_none()).count()
    }

    pub(crate) fn recorded(&mut self, id: CancelId, record: u32, ok: bool) {
        let Some(cancel) = self.cancels.get_mut(&id).filter(|cancel| cancel.closed.is_none()) else {
            return;
        };
        if record <= cancel.answered || record > cancel.asked {
            return;
        }
        cancel.answered = record;
        cancel.record_ok = ok;
        if !cancel.recorded() {
            return;
        }
        let (later, now): (Vec<_>, Vec<_>) =
            cancel.askers.iter().partition(|(_, wants)| *wants == Wants::Stopped);
        cancel.askers = later;
        for (ticket, wants) in now {
            let reply = at_record(id, cancel, wants);
            self.effects.push(Effect::Answer { ticket, reply });
        }
    }

    /// A cancel is over when it is recorded and nothing in its scope is left to wait for.
    pub(crate) fn close_what_is_over(&mut self) {
        let open = self.cancels.iter().filter(|(_, cancel)| cancel.closed.is_none());
        for id in open.map(|(id, _)| *id).collect::<Vec<_>>() {
            let cancel = &self.cancels[&id];
            let kill = cancel.level == Level::Kill;
            let (mut waits, mut stuck, mut draining) = (false, cancel.stuck, cancel.draining);
            for request in self.covered(cancel.target, cancel.scope) {
                if !cancel.knows(request) {
                    continue;
                }
                let req = &self.requests[&request];
                let ghost = matches!(req.at, At::Over(_, Some(_)));
                if !req.settled() || (kill && ghost) {
                    stuck |= req.stuck;
                    waits |= !req.stuck;
                }
                draining |= !kill && ghost;
            }
            let cancel = self.cancels.get_mut(&id).expect("known");
            (cancel.stuck, cancel.draining) = (stuck, draining);
            if waits || cancel.walk.is_some() || !cancel.recorded() {
                continue;
            }
            let reply = match (stuck, cancel.record_ok, draining) {
                (true, _, _) => Reply::Unkillable(id),
                (false, false, _) => Reply::NotRecorded(id),
                (false, true, true) => Reply::Draining(id),
                (false, true, false) => Reply::Stopped(id),
            };
            cancel.closed = Some(reply);
            for (ticket, _) in std::mem::take(&mut cancel.askers) {
                self.effects.push(Effect::Answer { ticket, reply });
            }
            self.effects.push(Effect::Close { cancel: id, reply });
        }
    }

    /// Moves to the graves who is over, runs nowhere and has nobody below.
    pub(crate) fn bury(&mut self) {
        loop {
            let over = |(id, req): (&RequestId, &crate::model::Req)| match req.at {
                At::Over(outcome, None) if !self.has_children(*id) => {
                    Some((*id, outcome, req.fence.map(|(_, cancel)| cancel)))
                }
                _ => None,
            };
            let Some((id, outcome, cancel)) = self.requests.iter().find_map(over) else { return };
            self.requests.remove(&id);
            self.graves.insert(id, (outcome, cancel));
        }
    }
}

fn at_record(id: CancelId, cancel: &Cancel, wants: Wants) -> Reply {
    match wants {
        _ if !cancel.record_ok => Reply::NotRecorded(id),
        Wants::Record { draining } => Reply::AlreadyCanceled { cancel: id, draining },
        Wants::Stopped | Wants::Fenced => Reply::Fenced(id),
    }
}
