//! Effects carried out, each in its own few lines. A failure becomes a fact, never an early return.

use std::{sync::Arc, time::Instant};

use cancel::{Attempt, CancelId, Effect, Event, Evidence, InstanceId, Level, Outcome, RequestId, Requeue};
use store::{Settlement, Status, StoreFuture};

use crate::{
    codes,
    drafts::evidence_word,
    handle::InvokeError,
    instance::Instance,
    lifecycle::Control,
    message::{Delivery, Message},
    remembered::Settled,
    request::{Payload, Request},
    shell::{Shell, Timer, now_ms},
};

impl Shell {
    pub(crate) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Accept { request, .. } => self.accepted(request),
            Effect::Refuse { request, why } => self.refused(request, why),
            Effect::Deliver { request, instance, attempt } => self.deliver(request, instance, attempt),
            Effect::Fence { request, cancel, first } => self.fenced(request, cancel, first),
            Effect::Record { cancel, record, level } => self.record(cancel, record, level),
            Effect::Ask { request, instance } => self.notify(request, instance, "asked"),
            Effect::Terminate(instance) => self.control(instance, Control::Terminate),
            Effect::StartGrace(request) => self.start_grace(request),
            Effect::Drain(instance) => self.drains(instance),
            Effect::Kill(instance) => self.kill(instance),
            Effect::Quarantine(instance) => {
                tracing::error!(%instance, "quarantined: it could not be killed in time");
            }
            Effect::Stuck(request) => self.stuck(request),
            Effect::Requeue { request, why } => self.requeued(request, why),
            Effect::Settle { request, outcome, ran, evidence } => {
                self.settled(request, outcome, ran, evidence);
            }
            Effect::Gone { request, evidence } => self.gone(request, evidence),
            Effect::Answer { ticket, reply } => self.answer(ticket, reply),
            Effect::Close { cancel, reply } => self.close(cancel, reply),
        }
    }

    fn deliver(&mut self, id: RequestId, instance: InstanceId, attempt: Attempt) {
        let now = now_ms();
        let failed = Event::DeliveryFailed { request: id, instance, attempt };
        let Some(poll) = self.instances.get_mut(&instance).and_then(|to| to.taking.take()) else {
            return self.follow_up.push_back(failed);
        };
        let trace = self.requests.get(&id).and_then(|request| self.trace_inside(id, request, attempt));
        let Some(request) = self.requests.get_mut(&id) else { return };
        let Payload::Here(payload) = &request.payload else {
            return self.follow_up.push_back(failed); // cannot be: it is handed over when it is here
        };
        let payload = payload.clone();
        let fence = request.fence.get_or_insert_with(|| self.life.child_token()).clone();
        let secrets = match self.credentials.mint(id, &request.function.key.project) {
            Ok(secrets) => secrets,
            Err(error) => {
                tracing::error!(%error, "no randomness for a credential; the request waits");
                return self.follow_up.push_back(failed);
            }
        };
        let timeout = request.function.timeout;
        let delivery = Delivery {
            request: id,
            attempt,
            payload,
            secrets,
            asynchronous: request.asynchronous,
            deadline_ms: now.saturating_add(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)),
            function_urn: request.function.urn.clone(),
            alias: request.alias.clone(),
            trace,
            fence,
        };
        // Before it is on its way: the runtime may be done with it before this function is.
        let begin = Instant::now();
        let output = self.instances.get(&instance).and_then(|to| to.output.as_ref());
        if let Some(output) = output {
            output.begin(id, attempt);
            request.printed_before = output.read();
        }
        if poll.send(delivery.clone()).is_err() {
            output.inspect(|output| output.end(id));
            self.credentials.revoke(id);
            return self.follow_up.push_back(failed);
        }
        request.attempt = attempt;
        request.started = Some((begin, now));
        self.counters.began(&request.function.key, now);
        let (old, asynchronous) = (request.timer.take(), request.asynchronous);
        let deliveries = request.deliveries();
        self.clear_timer(old);
        let timer = self.set_timer(Timer::Deadline(id, attempt), timeout);
        if let Some(request) = self.requests.get_mut(&id) {
            request.timer = Some(timer);
        }
        if let Some(to) = self.instances.get_mut(&instance) {
            to.placed.retain(|placed| *placed != id);
            to.delivered.insert(id, delivery);
        }
        if asynchronous {
            self.write("running", id, self.store.mark_running(id, deliveries, now));
        }
    }

    fn fenced(&mut self, id: RequestId, cancel: CancelId, first: bool) {
        self.credentials.revoke(id);
        if let Some(request) = self.requests.get_mut(&id) {
            if let Some(fence) = &request.fence {
                fence.cancel();
            }
            if !request.covered_by.contains(&cancel) {
                request.covered_by.push(cancel);
            }
            // It gets no place any more, though the walk that fenced it may come back for it later only.
            if let Some(pool) = self.pools.get_mut(&request.function.key).filter(|_| first) {
                pool.leave(request.order);
            }
            let outcome = self.engine.request(id).and_then(|view| view.outcome);
            self.drafts.cover(cancel, id, request, first, outcome);
        }
        self.connection_closed(id, cancel, first);
    }

    /// Says in its receipt that the connection of an HTTP function's request was closed: its fence does that.
    fn connection_closed(&mut self, id: RequestId, cancel: CancelId, first: bool) {
        let Some(at) = self.requests.get(&id).and_then(|request| request.instance).filter(|_| first) else {
            return;
        };
        let holds = |instance: &Instance| instance.is_driven() && instance.delivered.contains_key(&id);
        if self.instances.get(&at).is_some_and(holds) {
            self.drafts.signal(&[cancel], at, "connection_closed", &self.instances);
        }
    }

    pub(crate) fn control(&mut self, id: InstanceId, control: Control) {
        let Some(instance) = self.instances.get(&id) else { return };
        let word = match control {
            Control::Terminate => "terminated",
            Control::Retire(_) => "retired",
            Control::Kill => "killed",
        };
        let cancels = self.cancels_on(id);
        self.drafts.signal(&cancels, id, word, &self.instances);
        match instance.control.as_ref().map(|task| task.try_send(control)) {
            Some(Ok(())) => {}
            // No process was ever asked for, so there is none: that is proven.
            None => self.follow_up.push_back(Event::Reaped(id)),
            Some(Err(error)) => tracing::error!(instance = %id, %error, "its task takes no command"),
        }
    }

    /// The cancels that cover a request on this instance.
    fn cancels_on(&self, id: InstanceId) -> Vec<CancelId> {
        let mut cancels = Vec::new();
        for tenant in self.engine.instance(id).map(|view| view.tenants).unwrap_or_default() {
            for cancel in self.requests.get(&tenant).map(|request| &request.covered_by).into_iter().flatten()
            {
                if !cancels.contains(cancel) {
                    cancels.push(*cancel);
                }
            }
        }
        cancels
    }

    fn kill(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.ending = true;
            // Polls are held to the end: a runtime that is answered now would only ask again.
        }
        // A cancel that was answered while this instance drained touches nobody any more.
        let open = self.open_cancels_on(id);
        for tenant in self.engine.instance(id).map(|view| view.tenants).unwrap_or_default() {
            self.name_bystander(tenant, &open);
        }
        match self.hook_of(id) {
            Some(limit) => self.retire(id, limit),
            None => self.control(id, Control::Kill),
        }
        self.touch_pool(id);
    }

    /// The cancels on this instance that were not answered yet.
    fn open_cancels_on(&self, id: InstanceId) -> Vec<CancelId> {
        self.cancels_on(id).into_iter().filter(|cancel| !self.drafts.is_closed(*cancel)).collect()
    }

    /// Names, in each of these cancels' receipts, a request that loses its place or its code without
    /// being in scope. Whoever another cancel covers is touched as well, and sooner than asked.
    fn name_bystander(&mut self, id: RequestId, cancels: &[CancelId]) {
        let outcome = self.engine.request(id).and_then(|view| view.outcome);
        let Some(request) = self.requests.get_mut(&id) else { return };
        for cancel in cancels {
            if request.covered_by.contains(cancel) || request.bystander_of.contains(cancel) {
                continue;
            }
            request.bystander_of.push(*cancel);
            self.touched.push(*cancel);
            self.drafts.bystander(*cancel, id, request, outcome);
        }
    }

    fn start_grace(&mut self, id: RequestId) {
        let Some(grace) = self.requests.get(&id).map(|request| request.function.grace) else { return };
        let timer = self.set_timer(Timer::Grace(id), grace);
        let old = self.requests.get_mut(&id).and_then(|request| request.grace.replace(timer));
        self.clear_timer(old);
        self.tell_who_only_listens(id);
    }

    fn stuck(&mut self, id: RequestId) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        self.drafts.set_evidence(&request.covered_by, id, "stuck");
        let why = request.instance.and_then(|instance| self.instances.get(&instance));
        let why = why.and_then(|instance| instance.stuck.clone()).unwrap_or_default();
        if let Some(caller) = request.caller.take() {
            drop(caller.send(Err(InvokeError::Stuck(why)))); // a caller that is gone needs no answer
        }
    }

    fn requeued(&mut self, id: RequestId, why: Requeue) {
        // It had a place on an instance that a cancel kills: the engine has taken it off already.
        let from = self.requests.get(&id).and_then(|request| request.instance);
        if let Some(from) = from.filter(|from| self.instances.get(from).is_some_and(|from| from.ending)) {
            let open = self.open_cancels_on(from);
            self.name_bystander(id, &open);
        }
        let Some(request) = self.requests.get(&id) else { return };
        let delivered = request.started.is_some();
        if delivered {
            self.metrics.requeued.count();
            self.attempt_ends(id);
        }
        let Some(request) = self.requests.get_mut(&id) else { return };
        let started = request.started.take();
        (request.waits_since, request.placed_at) = (Instant::now(), None);
        if delivered {
            self.counters.ended(&request.function.key);
        }
        let (from, timer) = (request.instance.take(), request.timer.take());
        let bystander_of = std::mem::take(&mut request.bystander_of);
        let asynchronous = request.asynchronous;
        self.drafts.bystander_waits(&bystander_of, id);
        self.credentials.revoke(id);
        if let Some(from) = from.and_then(|from| self.instances.get_mut(&from)) {
            from.placed.retain(|placed| *placed != id);
            from.let_go(id);
        }
        if delivered {
            self.clear_timer(timer);
            tracing::info!(request = %id, ?why, "waits again");
        } else if let Some(request) = self.requests.get_mut(&id) {
            request.timer = timer; // the limit of its first wait goes on
        }
        match why {
            Requeue::Retry => self.try_again(id),
            Requeue::Collateral | Requeue::Displaced => {
                if let Some(request) = self.requests.get_mut(&id) {
                    request.report = None;
                    if let Some((_, started_ms)) = started.filter(|_| asynchronous) {
                        // It ended by the node's own doing: a later life must not take it for one more
                        // that ended under this request.
                        request.forgiven += 1;
                        let (attempts, failures) = (request.deliveries(), request.failures);
                        self.write("waiting", id, self.store.mark_running(id, attempts, started_ms));
                        self.write("waiting", id, self.store.mark_waiting(id, failures, 0));
                    }
                }
                self.wait(id);
            }
        }
    }

    fn settled(&mut self, id: RequestId, outcome: Outcome, ran: bool, evidence: Evidence) {
        self.credentials.revoke(id);
        let draining = matches!(evidence, Evidence::FencedOnly(_));
        let Some(mut request) = self.requests.remove(&id) else { return };
        if let Some(fence) = &request.fence {
            fence.cancel();
        }
        self.clear_timer(request.timer.take());
        self.clear_timer(request.grace.take());
        self.leave(id, &mut request, draining);
        let outcome = self.why_it_crashed(&mut request, outcome);
        let (body, message) = self.result(&mut request, outcome);
        let status = wire_status(outcome, ran || request.earlier_attempts > 0);
        for cancel in self.drafts.settled(&request, id, outcome, evidence_word(evidence)) {
            self.keep_receipt(cancel);
        }
        if request.asynchronous {
            let ended_ms = now_ms();
            let error_code = i32::from(outcome.code());
            let error_message = message.clone();
            let next = self.next_of(id, &request, outcome, &body, &message).map(Box::new);
            // What other nodes cannot see of it.
            let tail = self.nodes.is_some() && (draining || self.engine.subtree(id, 2).len() > 1);
            let settlement =
                Settlement { request: id, status: status.1, error_code, error_message, ended_ms, tail, next };
            self.settle_durably(settlement);
        }
        self.count_end(&request, outcome);
        self.request_over(id, &request, outcome);
        if let Some(caller) = request.caller.take() {
            drop(caller.send(Ok(self.completion(&request, outcome, body, message)))); // it may be gone
        }
        self.remembered.keep(id, Settled::of(&request, status.0));
        if draining {
            request.draining = true;
            request.payload = Payload::Kept;
            self.requests.insert(id, request);
        }
    }

    /// Takes a settled request out of the queue and off its instance.
    fn leave(&mut self, id: RequestId, request: &mut Request, draining: bool) {
        self.waiting_bytes -= request.payload.bytes_here();
        let key = &request.function.key;
        if let Some(pool) = self.pools.get_mut(key) {
            pool.leave(request.order);
        }
        self.dirty.insert(Arc::clone(key));
        let Some(at) = request.instance else { return };
        if let Some(instance) = self.instances.get_mut(&at) {
            instance.placed.retain(|placed| *placed != id);
            instance.notices.retain(|notice| notice.request != id);
            if !draining {
                instance.let_go(id);
            }
        }
        self.watch_idle(at);
    }

    fn gone(&mut self, id: RequestId, evidence: Evidence) {
        let Some(request) = self.requests.remove(&id) else { return };
        if let Some(instance) = request.instance.and_then(|at| self.instances.get_mut(&at)) {
            instance.let_go(id);
        }
        let near = request.covered_by.iter().chain(&request.bystander_of).copied();
        let changed = self.drafts.set_evidence(&near.collect::<Vec<_>>(), id, evidence_word(evidence));
        for cancel in changed {
            self.keep_receipt(cancel);
        }
    }

    /// Watches a write whose answer nobody waits for. If it fails, the row says less than happened,
    /// and the next life settles it by its fence or runs it again.
    pub(crate) fn write(&self, what: &'static str, request: RequestId, write: StoreFuture<()>) {
        tokio::spawn(async move {
            if let Err(error) = write.await {
                tracing::error!(%request, what, %error, "a request's state could not be kept");
            }
        });
    }

    pub(crate) fn record(&mut self, cancel: CancelId, record: u32, level: Level) {
        let Some(receipt) = self.drafts.record(cancel, level) else {
            // Cannot be: a draft is opened before the engine hears of the cancel.
            return self.follow_up.push_back(Event::Recorded { cancel, record, ok: false });
        };
        self.recording.push((cancel, record, self.store.record_cancel(receipt)));
    }

    /// After the effects of a step: waits for its records. Whoever the step touched besides is written into them
    /// as well before they count as durable, so that a crash right after the answer does not leave them unnamed.
    pub(crate) fn await_records(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched.retain(|cancel| !self.drafts.is_closed(*cancel)); // its last form is on its way
        for (cancel, record, write) in std::mem::take(&mut self.recording) {
            let besides = touched.iter().position(|other| *other == cancel).map(|at| touched.swap_remove(at));
            let besides = besides.and_then(|cancel| self.drafts.record_again(cancel));
            let besides = besides.map(|receipt| self.store.record_cancel(receipt));
            let inbox = self.inbox.clone();
            tokio::spawn(async move {
                let mut result = write.await;
                if let Some(besides) = besides {
                    result = result.and(besides.await);
                }
                drop(inbox.send(Message::Recorded { cancel, record, result }).await); // closed: ended
            });
        }
        for cancel in touched {
            let Some(receipt) = self.drafts.record_again(cancel) else { continue };
            let write = self.store.record_cancel(receipt);
            tokio::spawn(async move {
                if let Err(error) = write.await {
                    tracing::warn!(%cancel, %error, "whom a cancel touched besides could not be kept yet");
                }
            });
        }
    }

    fn drains(&mut self, instance: InstanceId) {
        if let Some(instance) = self.instances.get_mut(&instance) {
            instance.draining = true;
        }
        self.touch_pool(instance);
    }

    fn touch_pool(&mut self, instance: InstanceId) {
        if let Some(instance) = self.instances.get(&instance) {
            self.dirty.insert(Arc::clone(&instance.function.key));
        }
    }
}

/// Kind and message of a runtime's error body, as one line for people.
pub(crate) fn error_message(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let message = body.get("errorMessage")?.as_str()?;
    match body.get("errorType").and_then(serde_json::Value::as_str) {
        Some(kind) if !kind.is_empty() => Some(format!("{kind}: {message}")),
        _ => Some(message.to_owned()),
    }
}

/// The state of the wire (DESIGN section 4): what never ran is DISCARD, else FAIL or SUCCESS.
pub(crate) fn wire_status(outcome: Outcome, ran: bool) -> (&'static str, Status) {
    match (outcome, ran) {
        (Outcome::Returned, _) => ("SUCCESS", Status::Success),
        // It was tried: an instance was started for it, and that failed.
        (
            Outcome::Failed(
                codes::INIT_FAILED | codes::NO_BOOTSTRAP | codes::INIT_TIMED_OUT | codes::OUT_OF_MEMORY,
            ),
            _,
        )
        | (Outcome::Crashed, _)
        | (_, true) => ("FAIL", Status::Fail),
        (_, false) => ("DISCARD", Status::Discard),
    }
}
