//! The shell: one task, one ordered inbox, the engine, and the maps that join its decisions to the
//! world. Nothing here waits for anything but the inbox and the timers; whatever takes time is a task
//! that reports back as a message.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::Router;
use cancel::{Attempt, CancelId, Effect, Engine, Event, InstanceId, RequestId, Ticket};
use store::{FunctionKey, Store, StoreFuture};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{
    sync::CancellationToken,
    time::{DelayQueue, delay_queue},
};

use crate::{
    asks::Asker,
    census::SettledOf,
    counters::Counters,
    credentials::AttemptCredentials,
    doors::Doors,
    drafts::Drafts,
    forked::ForkServers,
    group::Spawner,
    instance::Instance,
    live::LiveRequests,
    logged::Followers,
    logs::Logs,
    message::Message,
    metrics::Metrics,
    nodes::{Banned, Nodes},
    pool::Pool,
    ports::Ports,
    remembered::Remembered,
    reserve::COUNT_EVERY,
    retries::AGES_EVERY,
    settings::{Settings, Tunable},
    spec::FunctionSpec,
    unwritten::Unwritten,
    watch::Watchers,
};

/// What runs out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A synchronous request has waited too long for a place.
    Queue(RequestId),
    /// An attempt has run too long.
    Deadline(RequestId, Attempt),
    /// A request was asked to stop and has not.
    Grace(RequestId),
    /// An instance has not become ready.
    Start(InstanceId),
    /// An instance has had nothing to do.
    Idle(InstanceId),
    /// A request may be tried again.
    Pause(RequestId),
    /// An event that could not be read is read again.
    Load(RequestId),
    /// A reserved instance of this function may be started again.
    Reserve(Arc<FunctionKey>),
    /// Instances are counted.
    Count,
    /// What waits is looked at for what has waited too long.
    Ages,
    /// Writes that the disk refused are tried again.
    Rewrite,
    /// What is over for long enough is forgotten.
    Forget,
    /// The drain has lasted long enough.
    Drain,
}

/// The node's own ending.
pub(crate) struct Draining {
    pub(crate) done: Vec<oneshot::Sender<usize>>,
    /// Everything was ordered to end.
    pub(crate) ending: bool,
    /// Its limit is over: nothing more is waited for.
    pub(crate) hurried: bool,
}

pub(crate) struct Shell {
    pub(crate) settings: Settings,
    pub(crate) engine: Engine,
    pub(crate) requests: LiveRequests,
    pub(crate) remembered: Remembered,
    /// What other nodes had this one stop before it came here.
    pub(crate) banned: Banned,
    pub(crate) instances: HashMap<InstanceId, Instance>,
    /// Low 24 bits of a private address -> who lives there.
    pub(crate) addresses: HashMap<u32, InstanceId>,
    pub(crate) pools: HashMap<Arc<FunctionKey>, Pool>,
    /// Every version of every function there is, in its current form.
    pub(crate) functions: HashMap<Arc<FunctionKey>, Arc<FunctionSpec>>,
    /// Pools that something changed for since they were last looked at.
    pub(crate) dirty: HashSet<Arc<FunctionKey>>,
    /// Those that wanted an instance when the node had no room to start one.
    pub(crate) crowded_out: HashSet<Arc<FunctionKey>>,
    /// Functions of which requests were given back to other nodes, and that have had no room here since.
    pub(crate) given_back: HashSet<Arc<FunctionKey>>,
    pub(crate) counters: Counters,
    pub(crate) metrics: Arc<Metrics>,
    /// Of each version of a function there is, in this life.
    pub(crate) settled_of: SettledOf,
    pub(crate) drafts: Drafts,
    /// Cancels that are over and whose receipts are not on their way to the store yet.
    pub(crate) closed: VecDeque<CancelId>,
    pub(crate) unwritten: Unwritten,
    pub(crate) askers: HashMap<Ticket, Asker>,
    pub(crate) timers: DelayQueue<Timer>,
    pub(crate) waiting_bytes: usize,
    pub(crate) next_instance: u64,
    pub(crate) next_ticket: u64,
    pub(crate) next_order: u64,
    /// Names this life among those of the node: orders of arrival are counted anew in each.
    pub(crate) life_began: (Instant, i64),
    pub(crate) draining: Option<Draining>,
    pub(crate) store: Arc<dyn Store>,
    /// The other nodes, where several share the store.
    pub(crate) nodes: Option<Arc<Nodes>>,
    pub(crate) spawner: Arc<Spawner>,
    pub(crate) credentials: Arc<AttemptCredentials>,
    /// For the tasks the shell starts; the shell itself never sends to its own inbox.
    pub(crate) inbox: mpsc::Sender<Message>,
    pub(crate) runtime_port: u16,
    /// The Runtime API, to be served in networks of instances as well.
    pub(crate) runtime_api: Router,
    /// For HTTP servers on the loopback device of all.
    pub(crate) ports: Ports,
    pub(crate) doors: Doors,
    pub(crate) logs: Option<Logs>,
    /// Whoever follows the log of a function.
    pub(crate) followers: Followers,
    /// Whoever watches a project.
    pub(crate) watchers: Watchers,
    pub(crate) fork_servers: ForkServers,
    /// Parent of every request's fence.
    pub(crate) life: CancellationToken,
    effects: Vec<Effect>,
    /// Records that the step at hand asked for, on their way to the store.
    pub(crate) recording: Vec<(CancelId, u32, StoreFuture<()>)>,
    /// Cancels that the step at hand named somebody in who is not in their scope.
    pub(crate) touched: Vec<CancelId>,
    /// Facts that performing an effect brought about, told after the effects of the one at hand.
    pub(crate) follow_up: VecDeque<Event>,
}

/// What a shell is made of besides its settings.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) nodes: Option<Arc<Nodes>>,
    pub(crate) spawner: Arc<Spawner>,
    pub(crate) credentials: Arc<AttemptCredentials>,
    pub(crate) doors: Doors,
    pub(crate) logs: Option<Logs>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) inbox: mpsc::Sender<Message>,
    pub(crate) runtime_port: u16,
    pub(crate) runtime_api: Router,
}

impl Shell {
    pub(crate) fn new(settings: Settings, parts: Parts) -> Self {
        Self {
            engine: Engine::new(settings.bounds),
            settings,
            requests: LiveRequests::default(),
            remembered: Remembered::default(),
            banned: Banned::default(),
            instances: HashMap::new(),
            addresses: HashMap::new(),
            pools: HashMap::new(),
            functions: HashMap::new(),
            dirty: HashSet::new(),
            crowded_out: HashSet::new(),
            given_back: HashSet::new(),
            counters: Counters::default(),
            metrics: parts.metrics,
            settled_of: SettledOf::default(),
            drafts: Drafts::default(),
            closed: VecDeque::new(),
            unwritten: Unwritten::default(),
            askers: HashMap::new(),
            timers: DelayQueue::new(),
            waiting_bytes: 0,
            next_instance: 1,
            next_ticket: 1,
            next_order: 1,
            life_began: (Instant::now(), now_ms()),
            draining: None,
            store: parts.store,
            nodes: parts.nodes,
            spawner: parts.spawner,
            credentials: parts.credentials,
            inbox: parts.inbox,
            runtime_port: parts.runtime_port,
            runtime_api: parts.runtime_api,
            ports: Ports::new(),
            doors: parts.doors,
            logs: parts.logs,
            followers: Followers::default(),
            watchers: Watchers::default(),
            fork_servers: ForkServers::default(),
            life: CancellationToken::new(),
            effects: Vec::new(),
            recording: Vec::new(),
            touched: Vec::new(),
            follow_up: VecDeque::new(),
        }
    }

    /// Runs until a drain is over.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        self.set_timer(Timer::Ages, AGES_EVERY);
        self.set_timer(Timer::Forget, FORGET_EVERY);
        self.set_timer(Timer::Count, COUNT_EVERY);
        loop {
            let mut changes = true;
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => {
                        changes = !message.only_looks();
                        self.receive(message);
                    }
                    None => break, // cannot be: the shell holds a sender for its tasks
                },
                Some(expired) = poll_fn(|context| self.timers.poll_expired(context)), if !self.timers.is_empty() => {
                    self.ran_out(expired.into_inner());
                }
                // The next slice of a large cancel, in turn with what others want: a busy inbox yields as well,
                // after as many messages as the runtime lets a task take in one go (128).
                () = tokio::task::yield_now(), if self.engine.unfinished() => self.tell(Event::WalkOn),
                // After those who were answered have run: they wait, and for this nobody does.
                () = tokio::task::yield_now(), if !self.closed.is_empty() => self.keep_closed(),
            }
            self.settle_down();
            if changes && !self.watchers.tell() {
                self.requests.keep_watched(|_| false);
            }
            if self.is_over() {
                break;
            }
        }
        while !self.closed.is_empty() {
            self.keep_closed();
        }
        self.life.cancel();
    }

    fn receive(&mut self, message: Message) {
        self.metrics.messages.count();
        match message {
            Message::Arrived(arrival) => self.arrived(arrival),
            Message::Stored(request, result) => self.stored(request, result),
            Message::Cancel { order, hearer } => self.cancel(order, hearer),
            Message::Recorded { cancel, record, result } => self.recorded(cancel, record, result),
            Message::ReceiptKept(cancel, result) => self.receipt_kept(cancel, result),
            Message::CallerGone(request) => self.caller_gone(request),
            Message::Polled { at, poll } => self.polled(at, poll),
            Message::DeliveryDropped { at, request, attempt } => self.delivery_dropped(at, request, attempt),
            Message::Reported { at, report } => self.reported(at, report),
            Message::InitFailed { at, body } => self.init_failed(at, &body),
            Message::Listening { at, listener } => self.listening(at, listener),
            Message::NoticeDropped { at, notice } => self.notice_dropped(at, notice),
            Message::WorkerGone { at, serves } => self.worker_gone(at, serves),
            Message::Acknowledged { at, request, attempt } => self.acknowledged(at, request, attempt),
            Message::Spawned { instance, group, not_forked } => self.spawned(instance, group, not_forked),
            Message::ForkServer(id, news) => self.fork_server_news(id, news),
            Message::SpawnFailed { instance, why } => self.spawn_failed(instance, why),
            Message::Exited { instance, exit, out_of_memory } => self.exited(instance, exit, out_of_memory),
            Message::Reaped { instance, proof } => self.reaped(instance, proof),
            Message::NotReaped { instance, why } => self.not_reaped(instance, &why),
            Message::FunctionChanged(function) => self.function_changed(function),
            Message::FunctionDeleted(key) => self.function_deleted(&key),
            Message::Loaded(request, read) => self.loaded(request, read),
            Message::HandedOn(next) => self.handed_on(*next),
            Message::Unwritten(write, error) => self.unwritten(write, &error),
            Message::Rewritten { done, left } => self.rewritten(done, left),
            Message::Claimed { rows, respond } => self.claimed(rows, respond),
            Message::GiveBack { respond } => self.give_back(respond),
            Message::Ban { request, respond } => drop(respond.send(self.ban(request))),
            Message::Ask(question) => self.look(question),
            Message::LogAsked { of, project, respond } => self.log_asked(of, project, respond),
            Message::Watch { project, respond } => self.watch(project, respond),
            Message::Tuned(settings) => self.tuned(settings),
            Message::Drain { limit, respond } => self.drain(limit, respond),
        }
    }

    fn ran_out(&mut self, timer: Timer) {
        match timer {
            Timer::Queue(request) => {
                self.forget_timer(request);
                self.tell(Event::Expired { request, code: crate::codes::NO_INSTANCE });
            }
            Timer::Deadline(request, attempt) => {
                self.forget_timer(request);
                self.deadline_passed(request, attempt);
            }
            Timer::Grace(request) => {
                if let Some(request) = self.requests.get_mut(&request) {
                    request.grace = None;
                }
                self.tell(Event::GraceOver(request));
            }
            Timer::Pause(request) => {
                self.forget_timer(request);
                self.pause_over(request);
            }
            Timer::Load(request) => self.load(request),
            Timer::Reserve(function) => self.reserve_again(function),
            Timer::Count => self.count_all_instances(),
            Timer::Ages => {
                self.give_up_all_old();
                self.look_again_at_misplaced();
            }
            Timer::Rewrite => self.rewrite(),
            Timer::Forget => self.forget_old(),
            Timer::Start(instance) => self.start_limit_passed(instance),
            Timer::Idle(instance) => self.idle_limit_passed(instance),
            Timer::Drain => self.hurry(),
        }
    }

    /// Has the store forget what is over for long enough, a bounded number at a time.
    fn forget_old(&mut self) {
        let retention = i64::try_from(self.settings.retention.as_millis()).unwrap_or(i64::MAX);
        let forgotten = self.store.prune(now_ms().saturating_sub(retention), FORGOTTEN_AT_ONCE);
        tokio::spawn(async move {
            match forgotten.await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "forgot what is over for long enough"),
                Err(error) => tracing::warn!(%error, "what is over for long enough cannot be forgotten"),
            }
        });
        self.set_timer(Timer::Forget, FORGET_EVERY);
    }

    /// Other settings hold. Whoever found the node full looks again: it may have become larger.
    fn tuned(&mut self, settings: Tunable) {
        self.settings.tune(settings);
        self.dirty.extend(self.crowded_out.drain());
    }

    fn forget_timer(&mut self, request: RequestId) {
        if let Some(request) = self.requests.get_mut(&request) {
            request.timer = None;
        }
    }

    /// Tells the engine a fact and carries out what it wishes, and what follows from that, until
    /// there is nothing left to do.
    pub(crate) fn tell(&mut self, event: Event) {
        self.follow_up.push_back(event);
        while let Some(event) = self.follow_up.pop_front() {
            let mut effects = std::mem::take(&mut self.effects);
            self.engine.step(event, &mut effects);
            for effect in effects.drain(..) {
                self.perform(effect);
            }
            self.effects = effects;
            self.await_records();
        }
    }

    /// After each message: place what can be placed, and see whether a drain is through.
    fn settle_down(&mut self) {
        while let Some(key) = self.dirty.iter().next().cloned() {
            self.dirty.remove(&key);
            self.schedule(&key);
            if let Some(nodes) = &self.nodes {
                nodes.room();
            }
        }
        if self.draining.is_some() {
            self.advance_drain();
        }
    }

    pub(crate) fn set_timer(&mut self, timer: Timer, after: Duration) -> delay_queue::Key {
        self.timers.insert(timer, after.min(MAX_DELAY))
    }

    pub(crate) fn clear_timer(&mut self, key: Option<delay_queue::Key>) {
        if let Some(key) = key {
            // Gone already means that it fired and its event is behind us; the engine ignores it.
            self.timers.try_remove(&key);
        }
    }

    pub(crate) fn fresh_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    fn drain(&mut self, limit: Duration, respond: oneshot::Sender<usize>) {
        match &mut self.draining {
            Some(draining) => draining.done.push(respond),
            None => {
                self.draining = Some(Draining { done: vec![respond], ending: false, hurried: false });
                self.leave_to_the_next_life();
            }
        }
        // A second ask may be in more of a hurry than the first; the earliest limit wins.
        if limit.is_zero() {
            self.hurry();
        } else {
            self.set_timer(Timer::Drain, limit);
        }
    }

    /// Asynchronous requests that wait are safe in the store; from here on none of them is placed.
    fn leave_to_the_next_life(&mut self) {
        if self.nodes.is_some() {
            self.leave_to_other_nodes();
        }
        let requests = &self.requests;
        for pool in self.pools.values_mut() {
            for id in pool.all_waiting() {
                if let Some(request) = requests.get(&id).filter(|request| request.asynchronous) {
                    pool.leave(request.order);
                }
            }
        }
    }

    /// Orders the end of every instance as soon as no request needs one any more.
    fn advance_drain(&mut self) {
        let busy = self.requests.values().any(|request| request.instance.is_some() || !request.asynchronous);
        if !busy {
            self.end_everything();
        }
    }

    /// The drain has lasted long enough: what still runs is killed, and so is what runs its pre-stop handler.
    fn hurry(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        draining.hurried = true;
        self.end_everything();
        self.end_hooks();
    }

    fn end_everything(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        draining.ending = true;
        // A synchronous request that has no place will not get one.
        let lost: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, request)| !request.asynchronous && request.instance.is_none())
            .map(|(id, _)| *id)
            .collect();
        for request in lost {
            self.tell(Event::Expired { request, code: crate::codes::NODE_STOPPING });
        }
        let instances: Vec<InstanceId> = self.instances.keys().copied().collect();
        for instance in instances {
            self.tell(Event::EndAsked(instance));
        }
        self.fork_servers.let_all_go();
    }

    /// A drain is over when everything was reaped and no cancel is on its way; what cannot be killed is named
    /// and left.
    fn is_over(&mut self) -> bool {
        let all_stuck = self.instances.values().all(|instance| instance.stuck.is_some());
        let all_stuck = all_stuck && self.fork_servers.are_over() && !self.engine.unfinished();
        let Some(draining) = self.draining.as_mut().filter(|draining| draining.ending && all_stuck) else {
            return false;
        };
        for done in draining.done.drain(..) {
            // Whoever asked may have stopped waiting.
            done.send(self.instances.len() + self.fork_servers.living()).ok();
        }
        for (id, instance) in &self.instances {
            let why = instance.stuck.as_deref().unwrap_or_default();
            tracing::error!(instance = %id, why, "left behind: it could not be killed");
        }
        for (id, why) in self.fork_servers.stuck() {
            tracing::error!(fork_server = %id, why, "left behind: it could not be killed");
        }
        true
    }
}

/// How often the store forgets, and how much then: more at once would hold up the writes of cancels.
const FORGET_EVERY: Duration = Duration::from_secs(10);
const FORGOTTEN_AT_ONCE: u32 = 2_000;

/// `DelayQueue` takes no more than about two years; no limit of ours needs a thousandth of that.
const MAX_DELAY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Milliseconds since the Unix epoch, for people; never used to decide anything.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn micros(from: Instant) -> u64 {
    u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A fresh cancel id.
pub(crate) fn fresh_cancel() -> CancelId {
    CancelId(uuid::Uuid::new_v4().as_u128())
}
