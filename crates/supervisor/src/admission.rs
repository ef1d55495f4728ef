//! How requests come in: accepted, made durable, queued, given a place.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cancel::{Attempt, CancelAsk, Cause, Event, InstanceId, Level, Policy, Refusal, RequestId, Scope, State};
use store::{FunctionKey, Lineage, NewInvocation, Placement, StoreError};
use tokio::{runtime, sync::mpsc::error::TrySendError};

use crate::{
    codes,
    handle::{Invocation, InvokeError},
    logged::Followers,
    message::{Arrival, Kept, Message, Mode},
    pool::{Next, Offer, Pool},
    request::{Payload, Request},
    retries::left_retries,
    shell::{Shell, Timer, fresh_cancel, now_ms},
    spec::{FunctionSpec, OnDisconnect},
};

impl Shell {
    pub(crate) fn arrived(&mut self, arrival: Arrival) {
        let Some(Arrival { invocation, mode }) = self.unless_refused(arrival) else { return };
        let Invocation { request, function, alias, payload, parent, detached, labels, log, trace } =
            invocation;
        let trace = self.trace_of(request, trace, parent);
        let (asynchronous, is_kept) = match &mode {
            Mode::Sync(_) => (false, false),
            Mode::Async(_) => (true, false),
            Mode::Kept(_) => (true, true),
        };
        let (mut caller, mut accepting) = (None, None);
        let mut kept = Kept { created_ms: now_ms(), ..Kept::default() };
        match mode {
            Mode::Sync(respond) => caller = Some(respond),
            Mode::Async(respond) => accepting = Some(respond),
            Mode::Kept(known) => kept = known,
        }
        let root = kept.root.or_else(|| self.root_below(parent.filter(|_| !detached)));
        let (parent, orphan_of) = self.lineage(parent.filter(|_| !detached), kept.over, is_kept);
        // Of a clock that was set back since, it is as if it had just come.
        let age_ms = u64::try_from(now_ms().saturating_sub(kept.created_ms)).unwrap_or(0);
        self.waiting_bytes += payload.len();
        let order = self.next_order;
        self.next_order += 1;
        let policy = policy_of(&function, asynchronous, kept.failures);
        let now = Instant::now();
        let record = Request {
            function,
            alias,
            payload: if is_kept { Payload::Kept } else { Payload::Here(payload) },
            parent,
            orphan_of,
            labels,
            asynchronous,
            runnable: accepting.is_none() && !is_kept,
            caller,
            storing: false,
            anywhere: false,
            root,
            accepting,
            order,
            created_ms: kept.created_ms,
            taken_up: (now, Duration::from_millis(age_ms)),
            waits_since: now,
            placed_at: None,
            trace,
            started: None,
            instance: None,
            attempt: Attempt(0),
            earlier_attempts: kept.attempts,
            forgiven: 0,
            failures: kept.failures,
            hops: kept.hops,
            fence: None,
            report: None,
            failure: None,
            timer: None,
            grace: None,
            covered_by: Vec::new(),
            bystander_of: Vec::new(),
            draining: false,
            log,
            followers: Followers::default(),
            printed_before: 0,
        };
        self.requests.insert(request, Box::new(record));
        self.tell(Event::Arrived { request, parent, detached, policy });
        if kept.given_up {
            self.give_up_deadly(request);
        } else if is_kept {
            self.wait_until(request, kept.not_before_ms);
        }
    }

    /// The arrival, unless it may not be accepted; then it was told why.
    fn unless_refused(&mut self, arrival: Arrival) -> Option<Arrival> {
        if self.is_banned(&arrival) {
            return None;
        }
        let Err(error) = self.may_accept(&arrival.invocation, &arrival.mode) else { return Some(arrival) };
        self.counters.rejected(&arrival.invocation.function.key, now_ms());
        self.metrics.refused(&error);
        refuse(arrival.mode, error);
        None
    }

    /// Below whom a request hangs, and what above it is over. What is taken up is so in the order of
    /// acceptance: a parent that was taken up is there already, and is the nearest above that is not over.
    /// A recursive cancel of what is over reaches what it left behind, and all that this makes.
    fn lineage(
        &self,
        parent: Option<RequestId>,
        mut over: Vec<RequestId>,
        is_kept: bool,
    ) -> (Option<RequestId>, Vec<RequestId>) {
        let live = |parent: &RequestId| {
            let view = self.engine.request(*parent);
            view.is_some_and(|view| view.outcome.is_none() && view.level.is_none())
        };
        let lost = parent.filter(|parent| is_kept && !live(parent));
        over.extend(lost);
        let parent = parent.filter(|_| lost.is_none());
        if let Some(above) = parent.and_then(|parent| self.requests.get(&parent)) {
            over.extend(above.orphan_of.iter().copied());
        }
        (parent, over)
    }

    /// What was stopped before it came: its row says so, and nobody waits for it.
    fn is_banned(&self, arrival: &Arrival) -> bool {
        matches!(arrival.mode, Mode::Kept(_)) && self.banned.has(arrival.invocation.request)
    }

    fn may_accept(&self, invocation: &Invocation, mode: &Mode) -> Result<(), InvokeError> {
        if self.draining.is_some() {
            return Err(InvokeError::Stopping);
        }
        if self.requests.contains_key(&invocation.request) {
            return Err(InvokeError::Busy("this request id is in use"));
        }
        // What an earlier life accepted is owed a run, whatever else waits; where its function is disabled
        // now it waits, and can be cancelled.
        let recovered = matches!(mode, Mode::Kept(_));
        if !recovered && invocation.function.max_instances == 0 {
            return Err(InvokeError::Disabled);
        }
        self.may_run_here(invocation, mode)?;
        if !recovered && self.waiting_bytes + invocation.payload.len() > self.settings.max_waiting_bytes {
            return Err(InvokeError::Busy("the events that wait fill the memory set aside for them"));
        }
        Ok(())
    }

    /// Effect `Accept`: asynchronous requests are made durable first; the rest may run.
    pub(crate) fn accepted(&mut self, id: RequestId) {
        let parent = self.requests.get(&id).and_then(|request| self.durable_ancestor(request.parent));
        let lineage = self.lineage_of(id);
        let anywhere = self.is_for_any_node(id);
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Payload::Here(payload) = &request.payload else {
            self.metrics.taken_up.count();
            return; // it is in the store, and waits for its time
        };
        let Some(accepting) = request.accepting.take() else {
            self.metrics.of(false).accepted.count();
            return self.runnable(id);
        };
        request.storing = true;
        request.anywhere = anywhere;
        let row = NewInvocation {
            request: id,
            function: Arc::clone(&request.function.key),
            alias: request.alias.clone(),
            parent,
            payload: payload.clone(),
            created_ms: request.created_ms,
            hops: request.hops,
            labels: request.labels.clone(),
            lineage,
            placement: if anywhere { Placement::Anywhere } else { Placement::Here },
        };
        let (inbox, runtime) = (self.inbox.clone(), runtime::Handle::current());
        let told = move |result: Result<(), StoreError>| {
            // First the inbox: what the caller does next finds it queued. Then the caller, who may be gone.
            match inbox.try_send(Message::Stored(id, result.clone())) {
                // Neither the store's thread nor the shell itself may wait for a place in the inbox.
                Err(TrySendError::Full(message)) => {
                    drop(runtime.spawn(async move { inbox.send(message).await }))
                }
                Ok(()) | Err(TrySendError::Closed(_)) => {} // closed: the node has ended
            }
            let refused = |error| match error {
                StoreError::Banned => InvokeError::ParentCanceled,
                StoreError::Lapsed => InvokeError::NoLease,
                error => InvokeError::Store(error),
            };
            accepting.send(result.map_err(refused)).ok();
        };
        self.store.accept_then(row, Box::new(told));
    }

    /// The nearest asynchronous request above: what lies between ends with the node, and the next life
    /// hangs what it takes up below what it takes up.
    fn durable_ancestor(&self, parent: Option<RequestId>) -> Option<RequestId> {
        let mut at = parent;
        while let Some(id) = at {
            let above = self.requests.get(&id)?;
            if above.asynchronous {
                return Some(id);
            }
            at = above.parent;
        }
        None
    }

    /// Effect `Refuse`: nothing of it is kept.
    pub(crate) fn refused(&mut self, id: RequestId, why: Refusal) {
        let Some(request) = self.requests.remove(&id) else { return };
        self.waiting_bytes -= request.payload.bytes_here();
        self.counters.rejected(&request.function.key, now_ms());
        self.metrics.not_admitted(why);
        let error = match why {
            Refusal::ParentCanceled => InvokeError::ParentCanceled,
            Refusal::ParentGone => InvokeError::ParentGone,
            Refusal::TooDeep => InvokeError::TooDeep(self.settings.bounds.max_depth),
            Refusal::TooManyBelowRoot => InvokeError::Busy("its root has too many live requests"),
            Refusal::TooMany => InvokeError::Busy("the node has too many live requests"),
            Refusal::Duplicate => InvokeError::Busy("this request id is in use"),
        };
        answer(request, error);
    }

    pub(crate) fn stored(&mut self, id: RequestId, result: Result<(), StoreError>) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.storing = false;
        match &result {
            Ok(()) => self.metrics.of(true).accepted.count(),
            Err(error) => self.metrics.refused(&InvokeError::Store(error.clone())),
        }
        let anywhere = request.anywhere;
        if result.is_ok() && !anywhere {
            if self.waiting_bytes > self.settings.kept_bytes {
                self.leave_to_the_store(id);
            }
            return self.runnable(id);
        }
        // It was not accepted, or it is any node's now and may come back by a claim.
        self.withdraw(id);
        if let Some(nodes) = self.nodes.as_ref().filter(|_| anywhere && result.is_ok()) {
            nodes.waits();
        }
    }

    /// Takes a request that does not run out of this node, as if it had never come.
    pub(crate) fn withdraw(&mut self, id: RequestId) {
        self.tell(Event::Withdrawn(id));
        // If it was cancelled meanwhile it has settled, and its record went with that.
        if let Some(request) = self.requests.remove(&id) {
            self.waiting_bytes -= request.payload.bytes_here();
            self.clear_timer(request.timer);
            if let Some(pool) = self.pools.get_mut(&request.function.key) {
                pool.leave(request.order);
            }
        }
    }

    /// Whether a request that is being accepted had better run on whichever node has room first: it would wait here.
    fn is_for_any_node(&self, id: RequestId) -> bool {
        let Some(request) = self.requests.get(&id).filter(|_| self.nodes.is_some()) else { return false };
        if self.lacks_labels(&request.function) {
            return true;
        }
        let full = self.instances.len() >= self.settings.max_instances;
        match self.pools.get(&request.function.key) {
            Some(pool) => {
                let offered = pool.instances.iter().any(|id| self.engine.room(*id) > 0);
                pool.waiting() > 0 || !self.has_room(pool) || (full && !offered)
            }
            None => full,
        }
    }

    /// Where a request hangs, for a store of several nodes: which keeps a child from being accepted below a fence
    /// that another node has set.
    fn lineage_of(&self, id: RequestId) -> Lineage {
        let mut above = Vec::new();
        let mut at =
            self.requests.get(&id).filter(|_| self.nodes.is_some()).and_then(|request| request.parent);
        while let Some(id) = at {
            above.push(id);
            let request = self.requests.get(&id);
            at = request.filter(|request| !request.asynchronous).and_then(|request| request.parent);
        }
        let root = above.last().map(|last| self.root_of(*last));
        Lineage { root, above }
    }

    /// The top of the tree that a request comes into, as long as its parent is here to tell.
    fn root_below(&self, parent: Option<RequestId>) -> Option<RequestId> {
        parent.filter(|_| self.nodes.is_some()).map(|parent| self.root_of(parent))
    }

    /// The top of a request's tree, as far as it is known here: a request that came from the store knows its own.
    pub(crate) fn root_of(&self, id: RequestId) -> RequestId {
        let mut top = id;
        while let Some(request) = self.requests.get(&top) {
            match (request.root, request.parent) {
                (Some(root), _) => return root,
                (None, Some(parent)) => top = parent,
                (None, None) => return top,
            }
        }
        top
    }

    pub(crate) fn runnable(&mut self, id: RequestId) {
        let limit = self.settings.queue_timeout;
        let timed = self.requests.get(&id).is_some_and(|request| !request.asynchronous);
        let timer = timed.then(|| self.set_timer(Timer::Queue(id), limit));
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.runnable = true;
        request.timer = timer;
        self.wait(id);
    }

    /// Puts a request into the queue of its function.
    pub(crate) fn wait(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(&id).filter(|request| request.runnable) else { return };
        if self.draining.is_some() && request.asynchronous {
            return; // it waits in the store, for the next life
        }
        let (order, known) = (request.order, Arc::clone(&request.function));
        let Some(function) = self.functions.get(&known.key).map(Arc::clone) else {
            // Deleted while it was being stored, or between two attempts.
            return self.tell(Event::Expired { request: id, code: codes::NO_FUNCTION });
        };
        if let Some(request) = self.requests.get_mut(&id) {
            request.function = Arc::clone(&function);
        }
        match self.pools.get_mut(&known.key) {
            Some(pool) => pool.wait(order, id),
            None => {
                let pool = self.pools.entry(Arc::clone(&known.key)).or_insert_with(|| Pool::new(function));
                pool.wait(order, id);
            }
        }
        // Behind a full function nothing comes of a look: who makes room looks then.
        let comes_of_it = |pool: &Pool| self.has_room(pool) || self.lacks_labels(&pool.function);
        if self.pools.get(&known.key).is_some_and(comes_of_it) {
            self.dirty.insert(Arc::clone(&known.key));
        }
    }

    /// Whether something of a pool can be placed or started, as far as the pool goes.
    pub(crate) fn has_room(&self, pool: &Pool) -> bool {
        pool.instances.len() < pool.function.max_instances as usize
            || pool.instances.iter().any(|id| self.engine.room(*id) > 0)
    }

    /// Places what can be placed of one function, and starts what may be started.
    pub(crate) fn schedule(&mut self, key: &Arc<FunctionKey>) {
        self.let_go_of_waiting(key);
        // Each round places a request or starts an instance; both run out.
        while let Some(pool) = self.pools.get(key) {
            let offers: Vec<Offer> = pool.instances.iter().filter_map(|id| self.offer(*id)).collect();
            let bound = self.bound(&pool.instances);
            match pool.next(&offers, &bound) {
                Next::Place(request, instance) => self.place(key, request, instance),
                Next::Start => {
                    if self.is_closing() || !self.start_for(key) {
                        break;
                    }
                }
                Next::Rest => break,
            }
        }
        self.forget_pool(key);
    }

    fn is_closing(&self) -> bool {
        self.draining.is_some()
    }

    fn offer(&self, id: InstanceId) -> Option<Offer> {
        let instance = self.instances.get(&id)?;
        let current = self.pools.get(&instance.function.key)?.function.revision == instance.function.revision;
        // At a drain, what waits asynchronously stays in the store for the next life.
        let room = if current { self.engine.room(id) } else { 0 };
        Some(Offer { instance: id, ready: instance.ready, room, kept: current && self.is_kept(id) })
    }

    /// Requests bound to starting instances of this pool, oldest first.
    fn bound(&self, instances: &[InstanceId]) -> Vec<RequestId> {
        let starting =
            instances.iter().filter_map(|id| self.instances.get(id)).filter(|i| !i.ready && !i.ending);
        let mut bound: Vec<RequestId> =
            starting.flat_map(|instance| instance.placed.iter().copied()).collect();
        bound.sort_by_key(|id| self.requests.get(id).map(|request| request.order));
        bound
    }

    fn place(&mut self, key: &FunctionKey, id: RequestId, instance: InstanceId) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let from = request.instance.replace(instance);
        request.placed_at = Some(Instant::now());
        let order = request.order;
        if let Some(pool) = self.pools.get_mut(key) {
            pool.leave(order);
        }
        if let Some(from) = from.and_then(|from| self.instances.get_mut(&from)) {
            from.placed.retain(|placed| *placed != id);
        }
        if let Some(to) = self.instances.get_mut(&instance) {
            to.placed.push_back(id);
        }
        self.clear_idle(instance);
        // If the engine refuses, its answer is a `Requeue`, which undoes the lines above.
        self.tell(Event::Placed { request: id, instance });
        self.load(id);
        self.hand_over(instance);
    }

    /// Forgets a deleted function once nothing of it lives.
    fn forget_pool(&mut self, key: &FunctionKey) {
        let empty = |pool: &Pool| pool.instances.is_empty() && pool.waiting() == 0 && pool.wanted() == 0;
        if self.pools.get(key).is_some_and(empty) {
            self.pools.remove(key);
        }
    }

    pub(crate) fn caller_gone(&mut self, id: RequestId) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.caller = None;
        if request.function.on_disconnect == OnDisconnect::Cancel {
            self.cancel_ourselves(id, Cause::Disconnect);
        }
    }

    pub(crate) fn deadline_passed(&mut self, id: RequestId, attempt: Attempt) {
        let Some(view) = self.engine.request(id) else { return };
        if view.attempt == attempt && view.state == State::Running {
            self.cancel_ourselves(id, Cause::Deadline);
        }
    }

    /// A timeout is a cancel like any other: fenced, recorded, graced, proven.
    fn cancel_ourselves(&mut self, id: RequestId, cause: Cause) {
        let cancel = fresh_cancel();
        self.open_draft(cancel, id, None, Scope::Request, Level::Ask, cause);
        let (scope, level) = (Scope::Request, Level::Ask);
        self.tell(Event::CancelAsked(CancelAsk {
            ticket: None,
            early: false,
            cancel,
            request: id,
            scope,
            level,
            cause,
        }));
        self.drop_unused(cancel);
    }

    pub(crate) fn function_changed(&mut self, function: Arc<FunctionSpec>) {
        let (key, function) = (Arc::clone(&function.key), self.as_here(function));
        self.functions.insert(Arc::clone(&key), Arc::clone(&function));
        self.fork_servers.let_go(&key, function.fork_server.then_some(function.revision));
        if function.reserved > 0 {
            self.pools.entry(Arc::clone(&key)).or_insert_with(|| Pool::new(Arc::clone(&function)));
        }
        let Some(pool) = self.pools.get_mut(&key) else { return };
        pool.follow(function);
        let waiting = pool.all_waiting();
        let revision = pool.function.revision;
        let function = Arc::clone(&pool.function);
        let instances = pool.instances.clone();
        for id in waiting {
            if let Some(request) = self.requests.get_mut(&id) {
                request.function = Arc::clone(&function);
            }
        }
        for id in instances {
            match self.instances.get(&id).is_some_and(|instance| instance.function.revision != revision) {
                true => self.tell(Event::RetireAsked(id)),
                // One that is not kept any more has its idle limit again.
                false => self.watch_idle(id),
            }
        }
        self.dirty.insert(key);
    }

    pub(crate) fn function_deleted(&mut self, key: &FunctionKey) {
        self.functions.remove(key);
        self.expire_between_attempts(key);
        self.counters.forget(key);
        self.settled_of.forget(key);
        self.fork_servers.let_go(key, None);
        let Some(pool) = self.pools.get_mut(key) else { return };
        pool.release();
        let (waiting, instances) = (pool.all_waiting(), pool.instances.clone());
        for request in waiting {
            self.tell(Event::Expired { request, code: codes::NO_FUNCTION });
        }
        for instance in instances {
            self.tell(Event::RetireAsked(instance));
        }
        // Requests displaced from those instances have nowhere to run either.
        let displaced = self.pools.get(key).map(Pool::all_waiting).unwrap_or_default();
        for request in displaced {
            self.tell(Event::Expired { request, code: codes::NO_FUNCTION });
        }
        self.dirty.insert(Arc::new(key.clone()));
    }
}

/// What the engine has to know of a request.
fn policy_of(function: &FunctionSpec, asynchronous: bool, failures: u32) -> Policy {
    Policy {
        on_grace: function.on_grace,
        on_collateral: function.on_collateral,
        asynchronous,
        retries: if asynchronous { left_retries(function, failures) } else { 0 },
    }
}

fn refuse(mode: Mode, error: InvokeError) {
    match mode {
        // A caller that is gone needs no answer.
        Mode::Sync(respond) => drop(respond.send(Err(error))),
        Mode::Async(respond) => drop(respond.send(Err(error))),
        Mode::Kept(_) => tracing::warn!(%error, "an accepted request waits for another life"),
    }
}

fn answer(request: Box<Request>, error: InvokeError) {
    if let Some(caller) = request.caller {
        drop(caller.send(Err(error)));
    } else if let Some(accepting) = request.accepting {
        drop(accepting.send(Err(error)));
    }
}
