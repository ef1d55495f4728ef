//! What runtimes do and what is done with them: polling, answering, ending.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use cancel::{Answer, Attempt, Event, InstanceId, Outcome, RequestId, State};
use tokio::sync::oneshot;

use crate::{
    codes,
    group::{Exit, Group, NotProven, OutOfMemory, Proof},
    instance::Instance,
    message::{Delivery, Report, ReportKind},
    perform::error_message,
    settings::MAX_POLLS,
    shell::{Shell, Timer},
    starting::FIRST_ADDRESS,
};

/// Lines of a runtime's output that are quoted when it could not start.
const QUOTED_LINES: usize = 5;

/// What a response that breaks off is taken for: most often the process that sent it is gone, and it is
/// tried again as after a crash.
const HALF_RESPONSE: &[u8] =
    br#"{"errorType":"RuntimeExited","errorMessage":"the response ended before it was whole"}"#;

impl Shell {
    pub(crate) fn at(&self, address: Ipv4Addr) -> Option<InstanceId> {
        self.addresses.get(&address.to_bits().checked_sub(FIRST_ADDRESS)?).copied()
    }

    pub(crate) fn spawned(&mut self, id: InstanceId, group: Arc<Group>, not_forked: Option<String>) {
        self.capture(id, &group);
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.not_forked = not_forked;
        instance.group = Some(group);
    }

    pub(crate) fn spawn_failed(&mut self, id: InstanceId, why: String) {
        tracing::error!(instance = %id, why, "could not be spawned");
        self.start_failed(id, codes::INIT_FAILED, why);
    }

    fn start_failed(&mut self, id: InstanceId, code: u16, why: String) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance.ready || instance.start_failure.is_some() {
            return; // the first reason stays: what comes after it is of processes that are being ended
        }
        instance.start_failure = Some(why);
        self.metrics.failed_starts.count();
        self.tell(Event::StartFailed { instance: id, code });
    }

    pub(crate) fn init_failed(&mut self, at: Ipv4Addr, body: &[u8]) {
        let Some(id) = self.at(at) else { return };
        let why = error_message(body).unwrap_or_else(|| "the runtime gave no reason".to_owned());
        self.start_failed(id, codes::INIT_FAILED, why);
    }

    pub(crate) fn start_limit_passed(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.start_timer = None;
        let limit = instance.function.start_timeout.as_secs_f32();
        let why =
            format!("runtime initialization timed out after {limit} s; it said{}", last_words(instance));
        self.start_failed(id, codes::INIT_TIMED_OUT, why);
    }

    /// A runtime asks for work. Its first poll says that it has initialised.
    pub(crate) fn polled(&mut self, at: Ipv4Addr, poll: oneshot::Sender<Delivery>) {
        let Some(id) = self.at(at) else { return };
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.polls.retain(|held| !held.is_closed());
        if instance.polls.len() >= MAX_POLLS {
            return; // dropped: the runtime gets 503
        }
        instance.polls.push_back(poll);
        if instance.ending {
            return; // held to the end: a runtime that is answered now would only ask again
        }
        if !instance.ready {
            instance.is_ready_now();
            self.metrics.start.took(instance.asked_at.elapsed());
            // Looked up once, now: a kill must not wait for it, nor a look at thousands of requests.
            instance.pid();
            let timer = instance.start_timer.take();
            self.clear_timer(timer);
            self.tell(Event::InstanceReady(id));
            self.look_again_for_room();
        } else if instance.function.concurrency == 1 && !instance.is_driven() {
            self.polled_again(id);
        }
        self.hand_over(id);
        self.watch_idle(id);
        self.dirty_of(id);
    }

    /// At one request an instance, a poll says that the runtime is not at work: whatever we think it
    /// holds, it lost (`runtime-api.md` 1.1: delivered again), or was cancelled and is over.
    fn polled_again(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let Some((request, delivery)) = instance.delivered.iter().next() else { return };
        let (request, delivery) = (*request, delivery.clone());
        let fenced = delivery.fence.is_cancelled();
        if fenced {
            if instance.only_listens {
                return; // its poll is no better a word than its answer would be
            }
            let attempt = delivery.attempt;
            let answer = Answer::Failed { code: codes::FUNCTION_FAILED, retry: false };
            self.tell(Event::Answered { request, instance: id, attempt, answer });
        } else if let Some(poll) = instance.live_poll() {
            tracing::info!(instance = %id, %request, "delivered again: its poll was lost");
            drop(poll.send(delivery)); // lost again: it polls again, or its deadline comes
        }
    }

    fn dirty_of(&mut self, id: InstanceId) {
        if let Some(instance) = self.instances.get(&id) {
            self.dirty.insert(Arc::clone(&instance.function.key));
        }
    }

    /// Gives placed requests to held polls.
    pub(crate) fn hand_over(&mut self, id: InstanceId) {
        while let Some(instance) = self.instances.get_mut(&id) {
            let Some(request) = instance.placed.front().copied() else { return };
            if !instance.ready || instance.ending || !self.is_here(request) {
                return;
            }
            let Some(instance) = self.instances.get_mut(&id) else { return };
            let Some(poll) = instance.live_poll() else { return };
            instance.placed.pop_front();
            instance.taking = Some(poll);
            self.tell(Event::Taken { request, instance: id });
            let Some(instance) = self.instances.get_mut(&id) else { return };
            if let Some(unused) = instance.taking.take() {
                // The engine did not hand it over: the poll waits for the next.
                instance.polls.push_front(unused);
            }
            self.place_again(request, id);
        }
    }

    /// A delivery that did not reach its runtime left the request placed: it is first in line again.
    fn place_again(&mut self, request: RequestId, id: InstanceId) {
        let placed = self.engine.request(request).is_some_and(|view| {
            view.state == State::Placed && view.instance == Some(id) && view.level.is_none()
        });
        let Some(instance) = self.instances.get_mut(&id).filter(|_| placed) else { return };
        if !instance.placed.contains(&request) {
            instance.placed.push_front(request);
        }
    }

    pub(crate) fn delivery_dropped(&mut self, at: Ipv4Addr, request: RequestId, attempt: Attempt) {
        let Some(instance) = self.at(at) else { return };
        if let Some(holder) = self.instances.get_mut(&instance) {
            holder.let_go(request);
        }
        if let Some(record) = self.requests.get_mut(&request).filter(|record| record.attempt == attempt) {
            if record.started.take().is_some() {
                self.counters.ended(&record.function.key);
            }
            let timer = record.timer.take();
            self.clear_timer(timer);
        }
        self.tell(Event::DeliveryFailed { request, instance, attempt });
        self.place_again(request, instance);
        self.hand_over(instance);
    }

    pub(crate) fn reported(&mut self, at: Ipv4Addr, report: Report) {
        let Some(instance) = self.at(at) else { return };
        let Report { request, attempt, body, kind } = report;
        // Clients that do not echo the delivery can only mean the one this instance was given last.
        let Some(holder) = self.instances.get(&instance) else { return };
        let Some(given) = holder.delivered.get(&request) else { return };
        if holder.only_listens && given.fence.is_cancelled() {
            return; // it cannot say that the code has ended: the grace decides
        }
        let no_answer = matches!(kind, ReportKind::Broken | ReportKind::TooLarge);
        if no_answer && given.fence.is_cancelled() && holder.is_driven() {
            return; // that an exchange broke off does not say that the code has ended
        }
        let (given, fenced) = (given.attempt, given.fence.is_cancelled());
        let attempt = attempt.unwrap_or(given);
        if kind == ReportKind::BrokenOff && attempt != given {
            return;
        }
        let answer = match kind {
            ReportKind::Response => Answer::Returned,
            ReportKind::Broken => {
                Answer::Failed { code: codes::FUNCTION_FAILED, retry: self.retries_own_errors(request) }
            }
            ReportKind::Error => self.error_answer(instance, request, &body),
            ReportKind::TooLarge => {
                Answer::Failed { code: codes::RESPONSE_TOO_LARGE, retry: self.retries_own_errors(request) }
            }
            // It says that something went wrong, not that the code has ended: a fenced one is still waited for.
            ReportKind::BrokenOff if fenced => return,
            ReportKind::BrokenOff if body.is_empty() => self.error_answer(instance, request, HALF_RESPONSE),
            ReportKind::BrokenOff => self.error_answer(instance, request, &body),
        };
        if attempt == given {
            if let Some(record) = self.requests.get_mut(&request).filter(|record| !record.draining) {
                record.report = Some((kind, body));
            }
            if let Some(holder) = self.instances.get_mut(&instance) {
                holder.let_go(request);
            }
        }
        self.tell(Event::Answered { request, instance, attempt, answer });
        if let Some(record) = self.requests.get_mut(&request) {
            record.report = None; // it did not count
        }
        self.hand_over(instance);
        self.watch_idle(instance);
    }

    pub(crate) fn exited(&mut self, id: InstanceId, exit: Option<Exit>, out_of_memory: Option<OutOfMemory>) {
        if exit == Some(Exit::LeaseOver) {
            tracing::warn!(instance = %id, "lease_over: ended by its helper, as this node did not renew in time");
            // The node has ended it, as it ends everything when it loses its lease: no failure of what ran on it.
            self.tell(Event::EndAsked(id));
        }
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.exit = exit;
        instance.ended_by_itself = !instance.ending;
        let mut said = exit.map(|exit| exit.to_string()).unwrap_or_default();
        // Who ended in another way lost a child to its limit at most, and knew what to do.
        instance.out_of_memory =
            out_of_memory.filter(|_| matches!(exit, Some(Exit::Signal(9) | Exit::Untold)));
        if let Some(seen) = instance.out_of_memory {
            tracing::warn!(instance = %id, %seen, "met its limit of memory");
            said = format!("{said}, {}", memory_message(seen));
        }
        if instance.ready || instance.ending {
            return self.tell(Event::Exited(id));
        }
        let why = format!("the runtime ended before it was ready: {said}; it said{}", last_words(instance));
        let not_run = exit.is_some_and(|exit| exit.was_not_executed());
        instance.start_failure = Some(why);
        if not_run {
            return self.tell(Event::StartFailed { instance: id, code: codes::INIT_FAILED });
        }
        self.tell(Event::Exited(id));
    }

    pub(crate) fn reaped(&mut self, id: InstanceId, proof: Option<Proof>) {
        let Some(instance) = self.instances.get(&id) else { return };
        if let Some(output) = &instance.output {
            output.finish();
        }
        let failure = instance.start_failure.clone();
        for tenant in self.engine.instance(id).map(|view| view.tenants).unwrap_or_default() {
            if let Some(record) = self.requests.get_mut(&tenant) {
                record.failure.clone_from(&failure);
            }
            self.name_crash(tenant);
        }
        let changed = self.drafts.proven(id, proof.as_ref());
        self.metrics.reaped.count();
        self.tell(Event::Reaped(id));
        for cancel in changed {
            self.keep_receipt(cancel);
        }
        self.forget_instance(id);
    }

    pub(crate) fn not_reaped(&mut self, id: InstanceId, why: &NotProven) {
        let survivors: Vec<String> = why.survivors.iter().map(ToString::to_string).collect();
        tracing::error!(instance = %id, ?survivors, "could not be killed in time");
        self.drafts.not_proven(id, &survivors);
        self.metrics.stuck.count();
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.stuck = Some(why.to_string());
        }
        self.tell(Event::KillTimedOut(id));
    }

    pub(crate) fn forget_instance(&mut self, id: InstanceId) {
        let Some(mut instance) = self.instances.remove(&id) else { return };
        self.addresses.remove(&(instance.address.to_bits() - FIRST_ADDRESS));
        self.doors.close(instance.address);
        self.clear_timer(instance.start_timer.take());
        self.clear_timer(instance.idle_timer.take());
        let key = Arc::clone(&instance.function.key);
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.instances.retain(|held| *held != id);
        }
        self.replace(&key, &instance);
        self.count_instances(&key);
        self.dirty.insert(key);
        // Room on the node is room for any function.
        let waiting = self.pools.iter().filter(|(_, pool)| pool.waiting() > 0).map(|(key, _)| key.clone());
        self.dirty.extend(waiting.collect::<Vec<_>>());
        self.look_again_for_room();
    }

    /// There may be room to start instances now: whoever found none looks again.
    pub(crate) fn look_again_for_room(&mut self) {
        self.dirty.extend(self.crowded_out.drain());
    }

    /// Arms or disarms the idle limit of an instance, as it has nothing or something to do.
    pub(crate) fn watch_idle(&mut self, id: InstanceId) {
        let limit = self.settings.idle_release;
        let Some(instance) = self.instances.get(&id) else { return };
        if !instance.is_idle() || !instance.ready || instance.ending {
            return self.clear_idle(id);
        }
        if instance.idle_timer.is_none() {
            let key = Arc::clone(&instance.function.key);
            let timer = self.set_timer(Timer::Idle(id), limit);
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.idle_timer = Some(timer);
                instance.idle_since = Some(Instant::now());
            }
            // On a full node it may be ended for who waits, unless it has work of its own in a moment.
            if self.pools.get(&key).is_none_or(|pool| pool.waiting() == 0) {
                self.look_again_for_room();
            }
        }
    }

    pub(crate) fn clear_idle(&mut self, id: InstanceId) {
        let timer = self.instances.get_mut(&id).and_then(|instance| {
            instance.idle_since = None;
            instance.idle_timer.take()
        });
        self.clear_timer(timer);
    }

    pub(crate) fn idle_limit_passed(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.idle_timer = None;
        // One that is kept has no limit; it gets one with its next work, or when it is not kept any more.
        if self.instances.get(&id).is_some_and(|instance| self.is_spare(instance)) {
            self.tell(Event::RetireAsked(id));
        }
    }

    /// The node is full: the instance that has been idle longest makes room.
    pub(crate) fn release_longest_idle(&mut self) {
        if let Some(id) = self.longest_idle() {
            self.tell(Event::RetireAsked(id));
        }
    }

    fn retries_own_errors(&self, request: RequestId) -> bool {
        self.requests.get(&request).is_some_and(|request| request.function.asynchronous.retry_own_errors)
    }

    /// What a runtime's error body means: the image says when it was the runtime and not the function, and
    /// the kernel whether it was for want of memory.
    fn error_answer(&mut self, id: InstanceId, request: RequestId, body: &[u8]) -> Answer {
        let kind: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        match kind.as_ref().and_then(|body| body.get("errorType")).and_then(|kind| kind.as_str()) {
            Some("RuntimeExited") => {}
            Some(_) | None => {
                let retry = self.retries_own_errors(request);
                return Answer::Failed { code: codes::FUNCTION_FAILED, retry };
            }
        }
        if let Some(record) = self.requests.get_mut(&request) {
            record.failure = error_message(body);
        }
        let Some(instance) = self.instances.get_mut(&id) else {
            return Answer::Failed { code: cancel::CODE_CRASHED, retry: true };
        };
        let before = instance.out_of_memory.map_or(0, |seen| seen.killed);
        let now = instance.group.as_ref().and_then(|group| group.out_of_memory());
        let Some(now) = now.filter(|now| now.killed > before) else {
            return Answer::Failed { code: cancel::CODE_CRASHED, retry: true };
        };
        instance.out_of_memory = Some(now);
        if let Some(record) = self.requests.get_mut(&request) {
            record.failure = Some(memory_message(now));
        }
        Answer::Failed { code: codes::OUT_OF_MEMORY, retry: true }
    }
}

/// What it printed last, for whoever wonders why it did not start.
fn last_words(instance: &Instance) -> String {
    let output = instance.output.as_ref().map(|output| output.tail(QUOTED_LINES)).unwrap_or_default();
    if output.is_empty() { " nothing".to_owned() } else { format!(": {output}") }
}

/// What the caller of a request is told whose runtime met its limit of memory.
pub(crate) fn memory_message(seen: OutOfMemory) -> String {
    format!("{}: {seen}", codes::message(Outcome::Failed(codes::OUT_OF_MEMORY)))
}
