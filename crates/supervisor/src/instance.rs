//! What the shell keeps of a live instance: its process, its address, its open polls.

use std::{
    collections::{HashMap, VecDeque},
    net::Ipv4Addr,
    sync::Arc,
    time::Instant,
};

use cancel::{Attempt, RequestId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::time::delay_queue;

use crate::{
    group::{Exit, Group, OutOfMemory},
    lifecycle::Control,
    logged::Followers,
    message::{Delivery, Heard, Listener, Notice},
    ports::Port,
    spec::FunctionSpec,
};

pub(crate) struct Instance {
    pub(crate) function: Arc<FunctionSpec>,
    pub(crate) address: Ipv4Addr,
    /// Where its HTTP server listens on the loopback device of all.
    pub(crate) port: Option<Port>,
    /// To its task; `None` if no process was ever asked for.
    pub(crate) control: Option<mpsc::Sender<Control>>,
    pub(crate) group: Option<Arc<Group>>,
    /// Polls for work that are held. Bounded by `MAX_POLLS`.
    pub(crate) polls: VecDeque<oneshot::Sender<Delivery>>,
    /// The poll that takes the request at hand, between `Taken` and `Deliver`.
    pub(crate) taking: Option<oneshot::Sender<Delivery>>,
    /// Cancellations not yet told. Bounded by the requests on the instance.
    pub(crate) notices: VecDeque<Notice>,
    /// Those told, as long as the request is here: who names its invocation is told again, as a poll may
    /// have died with what it heard. Bounded by the requests on the instance.
    pub(crate) told: HashMap<RequestId, Notice>,
    /// Polls for cancellations that are held. Bounded by `MAX_POLLS`.
    pub(crate) listeners: VecDeque<Listener>,
    /// It listens for cancellations and cannot say when code has ended: nothing it says of a request that
    /// is being stopped is believed.
    pub(crate) only_listens: bool,
    /// Requests that have a place and were not taken, oldest first.
    pub(crate) placed: VecDeque<RequestId>,
    /// What was delivered and not answered, to be delivered again to a client that lost it.
    pub(crate) delivered: HashMap<RequestId, Delivery>,
    pub(crate) ready: bool,
    pub(crate) ending: bool,
    /// It runs its pre-stop handler, and is killed when that is over or somebody is in a hurry.
    pub(crate) retiring: bool,
    /// It takes no new requests.
    pub(crate) draining: bool,
    pub(crate) ready_since: Option<Instant>,
    /// Its main process was seen to have ended before anybody ended it.
    pub(crate) ended_by_itself: bool,
    pub(crate) start_timer: Option<delay_queue::Key>,
    pub(crate) idle_timer: Option<delay_queue::Key>,
    /// When it was asked for.
    pub(crate) asked_at: Instant,
    /// Since when it has had nothing to do.
    pub(crate) idle_since: Option<Instant>,
    /// Why it was executed although its function asks for a fork server.
    pub(crate) not_forked: Option<String>,
    /// Why it could not start, in words.
    pub(crate) start_failure: Option<String>,
    pub(crate) exit: Option<Exit>,
    /// The kernel ended it, or processes of it, for want of memory, as far as it was seen.
    pub(crate) out_of_memory: Option<OutOfMemory>,
    /// It could not be killed in time: which processes and why.
    pub(crate) stuck: Option<String>,
    /// Its captured output.
    pub(crate) output: Option<crate::group::OutputRing>,
    /// The name of its log, if it has one.
    pub(crate) log: Option<String>,
    /// Whoever follows that.
    pub(crate) followers: Followers,
}

impl Instance {
    pub(crate) fn new(function: Arc<FunctionSpec>, address: Ipv4Addr) -> Self {
        Self {
            function,
            address,
            port: None,
            control: None,
            group: None,
            polls: VecDeque::new(),
            taking: None,
            notices: VecDeque::new(),
            told: HashMap::new(),
            listeners: VecDeque::new(),
            only_listens: false,
            placed: VecDeque::new(),
            delivered: HashMap::new(),
            ready: false,
            ending: false,
            retiring: false,
            draining: false,
            ready_since: None,
            ended_by_itself: false,
            start_timer: None,
            idle_timer: None,
            asked_at: Instant::now(),
            idle_since: None,
            not_forked: None,
            start_failure: None,
            exit: None,
            out_of_memory: None,
            stuck: None,
            output: None,
            log: None,
            followers: Followers::default(),
        }
    }

    /// The runtime's own process, as this node sees it.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.group.as_ref().map(|group| group.runtime_pid())
    }

    /// It is an HTTP server, which the node delivers to by itself.
    pub(crate) fn is_driven(&self) -> bool {
        self.function.image.http_port.is_some()
    }

    /// How its fork server comes into it, for people.
    pub(crate) fn fork_server(&self) -> Option<String> {
        match self.group.as_ref().is_some_and(|group| group.mechanism().is_forked()) {
            true => Some("forked".to_owned()),
            false => self.not_forked.as_ref().map(|why| format!("executed: {why}")),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.placed.is_empty() && self.delivered.is_empty()
    }

    /// It holds this request no more: what was delivered is forgotten, what it prints from now on is not of
    /// it, and whoever listens for that invocation alone hears that nothing will come.
    pub(crate) fn let_go(&mut self, request: RequestId) {
        if self.delivered.remove(&request).is_some()
            && let Some(output) = &self.output
        {
            output.end(request);
        }
        self.told.remove(&request);
        let of_it = |listener: &Listener| listener.named.is_some_and(|(named, _)| named == request);
        while let Some(listener) =
            self.listeners.iter().position(of_it).and_then(|at| self.listeners.remove(at))
        {
            drop(listener.poll.send(Heard::Over)); // it may have hung up
        }
    }

    /// Whether it was given this very attempt and has not answered it.
    pub(crate) fn holds(&self, request: RequestId, attempt: Attempt) -> bool {
        self.delivered.get(&request).is_some_and(|delivery| delivery.attempt == attempt)
    }

    /// Takes the held poll that is to hear of this: one that named its invocation, else one that named none.
    pub(crate) fn listener_for(&mut self, notice: &Notice) -> Option<oneshot::Sender<Heard>> {
        loop {
            let held = |named| self.listeners.iter().position(|listener| listener.named == named);
            let at = held(Some((notice.request, notice.attempt))).or_else(|| held(None))?;
            let listener = self.listeners.remove(at)?;
            if !listener.poll.is_closed() {
                return Some(listener.poll);
            }
        }
    }

    /// What this poll is to hear of: the oldest cancellation not yet told that is meant for it, or the one of
    /// the invocation it names, told or not.
    pub(crate) fn notice_for(&mut self, listener: &Listener) -> Option<Notice> {
        let meant =
            |notice: &Notice| listener.named.is_none_or(|named| named == (notice.request, notice.attempt));
        match self.notices.iter().position(meant) {
            Some(at) => self.notices.remove(at),
            None => listener
                .named
                .and_then(|(request, _)| self.told.get(&request))
                .filter(|it| meant(it))
                .copied(),
        }
    }

    /// The next held poll whose client is still there.
    pub(crate) fn live_poll(&mut self) -> Option<oneshot::Sender<Delivery>> {
        while let Some(poll) = self.polls.pop_front() {
            if !poll.is_closed() {
                return Some(poll);
            }
        }
        None
    }
}
