//! What runtimes do and what is done with them: started, polling, answering, ending.

use std::{ffi::OsString, net::Ipv4Addr, sync::Arc, time::Instant};

use cancel::{Answer, Attempt, Event, InstanceId, RequestId, State};
use store::FunctionKey;
use tokio::sync::{mpsc, oneshot};

use crate::{
    codes,
    group::{Exit, Group, NotProven, OutputRing, Proof, SpawnOrder},
    instance::Instance,
    lifecycle,
    message::{Delivery, Notice, Report, ReportKind},
    perform::error_message,
    settings::MAX_POLLS,
    shell::{Shell, Timer},
    spec::FunctionSpec,
};

/// Private addresses are 127.1.0.0 to 127.254.255.255: away from the ones people use by hand.
const FIRST_ADDRESS: u32 = 0x7f01_0000;
const ADDRESSES: u32 = 0x00fe_0000;
/// Lines of a runtime's output that are quoted when it could not start.
const QUOTED_LINES: usize = 5;

impl Shell {
    /// Starts one more instance of a function. False if the node has no room for it now.
    pub(crate) fn start_one(&mut self, key: &FunctionKey) -> bool {
        let starting = self.instances.values().filter(|instance| !instance.ready && !instance.ending).count();
        if starting >= self.settings.max_starting {
            return false;
        }
        if self.instances.len() >= self.settings.max_instances {
            self.release_longest_idle();
            return false;
        }
        let Some(function) = self.pools.get(key).map(|pool| Arc::clone(&pool.function)) else { return false };
        let (id, address) = self.fresh_instance();
        let mut instance = Instance::new(Arc::clone(&function), address);
        let failure = missing_bootstrap(&function);
        if failure.is_none() {
            let (control, commands) = mpsc::channel(lifecycle::CONTROLS);
            instance.control = Some(control);
            instance.start_timer = Some(self.set_timer(Timer::Start(id), function.start_timeout));
            let spawn = self.spawn_order(id, address, &function);
            tokio::spawn(lifecycle::run(
                id,
                lifecycle::Start { spawn, address, concurrency: function.concurrency },
                Arc::clone(&self.spawner),
                self.doors.clone(),
                self.settings.kill_timeout,
                self.inbox.clone(),
                commands,
            ));
        }
        instance.start_failure.clone_from(&failure);
        self.instances.insert(id, instance);
        if let Some(pool) = self.pools.get_mut(key) {
            pool.instances.push(id);
        }
        self.tell(Event::InstanceStarted { instance: id, capacity: function.concurrency });
        if failure.is_some() {
            // Somebody must be told: the request that asked for this instance.
            if let Some(first) = self.pools.get(key).and_then(|pool| pool.all_waiting().first().copied()) {
                self.bind_and_fail(key, first, id);
            }
            self.tell(Event::StartFailed { instance: id, code: codes::NO_BOOTSTRAP });
            self.tell(Event::Reaped(id));
            self.forget_instance(id);
        }
        true
    }

    fn bind_and_fail(&mut self, key: &FunctionKey, request: RequestId, instance: InstanceId) {
        let Some(record) = self.requests.get_mut(&request) else { return };
        record.instance = Some(instance);
        record.failure = self.instances.get(&instance).and_then(|instance| instance.start_failure.clone());
        if let Some(pool) = self.pools.get_mut(key) {
            pool.leave(record.order);
        }
        self.tell(Event::Placed { request, instance });
    }

    fn fresh_instance(&mut self) -> (InstanceId, Ipv4Addr) {
        loop {
            let id = self.next_instance;
            self.next_instance += 1;
            let low = u32::try_from(id % u64::from(ADDRESSES)).unwrap_or(0);
            // After 16 million instances the addresses come round; a live one keeps its own.
            if let std::collections::hash_map::Entry::Vacant(free) = self.addresses.entry(low) {
                free.insert(InstanceId(id));
                return (InstanceId(id), Ipv4Addr::from_bits(FIRST_ADDRESS + low));
            }
        }
    }

    fn at(&self, address: Ipv4Addr) -> Option<InstanceId> {
        self.addresses.get(&address.to_bits().checked_sub(FIRST_ADDRESS)?).copied()
    }

    fn spawn_order(&self, id: InstanceId, address: Ipv4Addr, function: &FunctionSpec) -> SpawnOrder {
        let image = &function.image;
        let fill = |text: &String| {
            let text = text.replace("{image}", &image.dir.to_string_lossy());
            OsString::from(text.replace("{code}", &function.code_dir.to_string_lossy()))
        };
        let mut command = image.command.iter().map(fill);
        SpawnOrder {
            instance: id,
            program: command.next().unwrap_or_default(),
            args: command.collect(),
            env: self.environment(id, address, function),
            cwd: function.code_dir.clone(),
            keep: vec![function.code_dir.clone(), image.dir.clone()],
        }
    }

    /// The whole environment of a runtime: nothing is inherited but the path and the locale.
    fn environment(
        &self,
        id: InstanceId,
        address: Ipv4Addr,
        function: &FunctionSpec,
    ) -> Vec<(OsString, OsString)> {
        let mut env: Vec<(OsString, OsString)> = Vec::new();
        for inherited in ["PATH", "LANG", "LC_ALL", "TZ"] {
            if let Some(value) = std::env::var_os(inherited) {
                env.push((inherited.into(), value));
            }
        }
        let code = function.code_dir.to_string_lossy().into_owned();
        let own = [
            ("HOME", code.clone()),
            ("RUNTIME_API_ADDR", format!("{address}:{}", self.runtime_port)),
            ("RUNTIME_CODE_ROOT", code),
            ("RUNTIME_ROOT", function.image.dir.to_string_lossy().into_owned()),
            ("RUNTIME_PROJECT_ID", function.key.project.clone()),
            ("RUNTIME_PACKAGE", function.key.package.clone()),
            ("RUNTIME_FUNC_NAME", function.key.name.clone()),
            ("RUNTIME_FUNC_VERSION", "latest".to_owned()),
            ("RUNTIME_HANDLER", function.handler.clone()),
            ("RUNTIME_TIMEOUT", function.timeout.as_secs().to_string()),
            ("RUNTIME_USERDATA", function.user_data.clone()),
            ("RUNTIME_CPU", function.cpu_millis.to_string()),
            ("RUNTIME_MEMORY", function.memory_mb.to_string()),
            ("RUNTIME_MAX_RESP_BODY_SIZE", "6291456".to_owned()),
            ("QUELL_API_ENDPOINT", self.settings.api_endpoint.clone()),
            ("QUELL_CONCURRENCY", function.concurrency.to_string()),
            ("QUELL_FUNCTION_URN", function.urn.clone()),
            ("QUELL_INSTANCE_ID", id.to_string()),
        ];
        env.extend(own.map(|(name, value)| (name.into(), value.into())));
        if let Some(initializer) = &function.initializer {
            env.push(("RUNTIME_INITIALIZER_HANDLER".into(), initializer.into()));
            let limit = function.start_timeout.as_secs().to_string();
            env.push(("RUNTIME_INITIALIZER_TIMEOUT".into(), limit.into()));
        }
        env
    }

    pub(crate) fn spawned(&mut self, id: InstanceId, group: Arc<Group>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.output = group.take_output().map(|output| OutputRing::start(id, output));
        instance.group = Some(group);
    }

    pub(crate) fn spawn_failed(&mut self, id: InstanceId, why: String) {
        tracing::error!(instance = %id, why, "could not be spawned");
        self.start_failed(id, codes::INIT_FAILED, why);
    }

    fn start_failed(&mut self, id: InstanceId, code: u16, why: String) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance.ready {
            return;
        }
        instance.start_failure = Some(why);
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
        let why = format!("runtime initialization timed out after {limit} s");
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
            instance.ready = true;
            let timer = instance.start_timer.take();
            self.clear_timer(timer);
            self.tell(Event::InstanceReady(id));
        } else if instance.function.concurrency == 1 {
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
            self.dirty.insert(instance.function.key.clone());
        }
    }

    /// Gives placed requests to held polls.
    pub(crate) fn hand_over(&mut self, id: InstanceId) {
        while let Some(instance) = self.instances.get_mut(&id) {
            let Some(request) = instance.placed.front().copied() else { return };
            if !instance.ready || instance.ending {
                return;
            }
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
            holder.delivered.remove(&request);
        }
        if let Some(record) = self.requests.get_mut(&request).filter(|record| record.attempt == attempt) {
            record.started = None;
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
        let given = self.instances.get(&instance).and_then(|holder| holder.delivered.get(&request));
        let Some(given) = given.map(|delivery| delivery.attempt) else { return };
        let attempt = attempt.unwrap_or(given);
        let answer = match kind {
            ReportKind::Response => Answer::Returned,
            ReportKind::Error => error_answer(&body),
            ReportKind::TooLarge => Answer::Failed { code: codes::RESPONSE_TOO_LARGE, retry: false },
        };
        if attempt == given {
            if let Some(record) = self.requests.get_mut(&request).filter(|record| !record.draining) {
                record.report = Some((kind, body));
            }
            if let Some(holder) = self.instances.get_mut(&instance) {
                holder.delivered.remove(&request);
            }
        }
        self.tell(Event::Answered { request, instance, attempt, answer });
        if let Some(record) = self.requests.get_mut(&request) {
            record.report = None; // it did not count
        }
        self.hand_over(instance);
        self.watch_idle(instance);
    }

    /// A runtime listens for cancellations: from now on it cooperates.
    pub(crate) fn listening(&mut self, at: Ipv4Addr, poll: oneshot::Sender<Notice>) {
        let Some(id) = self.at(at) else { return };
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.listeners.retain(|held| !held.is_closed());
        if instance.listeners.len() >= MAX_POLLS {
            return; // dropped: the runtime gets 503
        }
        instance.listeners.push_back(poll);
        self.tell(Event::InstanceCooperates(id));
        self.tell_notices(id);
    }

    /// Gives cancellations to held polls. One that finds no live poll waits for the next.
    pub(crate) fn tell_notices(&mut self, id: InstanceId) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        while let Some(notice) = instance.notices.pop_front() {
            let Some(listener) = instance.listeners.pop_front() else {
                return instance.notices.push_front(notice);
            };
            if listener.send(notice).is_err() {
                instance.notices.push_front(notice);
            }
        }
    }

    pub(crate) fn exited(&mut self, id: InstanceId, exit: Option<Exit>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.exit = exit;
        let said = exit.map(|exit| exit.to_string()).unwrap_or_default();
        if instance.ready || instance.ending {
            return self.tell(Event::Exited(id));
        }
        let output = instance.output.as_ref().map(|output| output.tail(QUOTED_LINES)).unwrap_or_default();
        let words = if output.is_empty() { " nothing".to_owned() } else { format!(": {output}") };
        let why = format!("the runtime ended before it was ready: {said}; it said{words}");
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
        }
        let changed = self.drafts.proven(id, proof.as_ref());
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
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.stuck = Some(why.to_string());
        }
        self.tell(Event::KillTimedOut(id));
    }

    fn forget_instance(&mut self, id: InstanceId) {
        let Some(mut instance) = self.instances.remove(&id) else { return };
        self.addresses.remove(&(instance.address.to_bits() - FIRST_ADDRESS));
        self.doors.close(instance.address);
        self.clear_timer(instance.start_timer.take());
        self.clear_timer(instance.idle_timer.take());
        let key = instance.function.key.clone();
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.instances.retain(|held| *held != id);
        }
        self.dirty.insert(key);
        // Room on the node is room for any function.
        let waiting = self.pools.iter().filter(|(_, pool)| pool.waiting() > 0).map(|(key, _)| key.clone());
        self.dirty.extend(waiting.collect::<Vec<_>>());
    }

    /// Arms or disarms the idle limit of an instance, as it has nothing or something to do.
    pub(crate) fn watch_idle(&mut self, id: InstanceId) {
        let limit = self.settings.idle_release;
        let Some(instance) = self.instances.get(&id) else { return };
        if !instance.is_idle() || !instance.ready || instance.ending {
            return self.clear_idle(id);
        }
        if instance.idle_timer.is_none() {
            let timer = self.set_timer(Timer::Idle(id), limit);
            if let Some(instance) = self.instances.get_mut(&id) {
                instance.idle_timer = Some(timer);
                instance.idle_since = Some(Instant::now());
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
        self.tell(Event::RetireAsked(id));
    }

    /// The node is full: the instance that has been idle longest makes room.
    fn release_longest_idle(&mut self) {
        let idle = self.instances.iter().filter(|(_, instance)| !instance.ending);
        let longest = idle.filter_map(|(id, instance)| Some((instance.idle_since?, *id))).min();
        if let Some((_, id)) = longest {
            self.tell(Event::RetireAsked(id));
        }
    }
}

fn missing_bootstrap(function: &FunctionSpec) -> Option<String> {
    let required = function.image.requires.as_ref()?;
    let found = function.code_dir.join(required).is_file();
    (!found).then(|| format!("bootstrap file is not found: {required}"))
}

/// What a runtime's error body means: the image says when it was the runtime and not the function.
fn error_answer(body: &[u8]) -> Answer {
    let kind: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    match kind.as_ref().and_then(|body| body.get("errorType")).and_then(|kind| kind.as_str()) {
        Some("RuntimeExited") => Answer::Failed { code: cancel::CODE_CRASHED, retry: true },
        Some(_) | None => Answer::Failed { code: codes::FUNCTION_FAILED, retry: false },
    }
}
