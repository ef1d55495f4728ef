//! What the shell keeps of a live instance: its process, its address, its open polls.

use std::{
    collections::{HashMap, VecDeque},
    net::Ipv4Addr,
    sync::Arc,
    time::Instant,
};

use cancel::RequestId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::time::delay_queue;

use crate::{
    group::{Exit, Group, OutOfMemory},
    lifecycle::Control,
    message::{Delivery, Notice},
    spec::FunctionSpec,
};

pub(crate) struct Instance {
    pub(crate) function: Arc<FunctionSpec>,
    pub(crate) address: Ipv4Addr,
    /// To its task; `None` if no process was ever asked for.
    pub(crate) control: Option<mpsc::Sender<Control>>,
    pub(crate) group: Option<Arc<Group>>,
    /// Polls for work that are held. Bounded by `MAX_POLLS`.
    pub(crate) polls: VecDeque<oneshot::Sender<Delivery>>,
    /// The poll that takes the request at hand, between `Taken` and `Deliver`.
    pub(crate) taking: Option<oneshot::Sender<Delivery>>,
    /// Cancellations not yet told. Bounded by the requests on the instance.
    pub(crate) notices: VecDeque<Notice>,
    /// Polls for cancellations that are held. Bounded by `MAX_POLLS`.
    pub(crate) listeners: VecDeque<oneshot::Sender<Notice>>,
    /// Requests that have a place and were not taken, oldest first.
    pub(crate) placed: VecDeque<RequestId>,
    /// What was delivered and not answered, to be delivered again to a client that lost it.
    pub(crate) delivered: HashMap<RequestId, Delivery>,
    pub(crate) ready: bool,
    pub(crate) ending: bool,
    /// It takes no new requests.
    pub(crate) draining: bool,
    pub(crate) ready_since: Option<Instant>,
    /// Its main process was seen to have ended before anybody ended it.
    pub(crate) ended_by_itself: bool,
    pub(crate) start_timer: Option<delay_queue::Key>,
    pub(crate) idle_timer: Option<delay_queue::Key>,
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
}

impl Instance {
    pub(crate) fn new(function: Arc<FunctionSpec>, address: Ipv4Addr) -> Self {
        Self {
            function,
            address,
            control: None,
            group: None,
            polls: VecDeque::new(),
            taking: None,
            notices: VecDeque::new(),
            listeners: VecDeque::new(),
            placed: VecDeque::new(),
            delivered: HashMap::new(),
            ready: false,
            ending: false,
            draining: false,
            ready_since: None,
            ended_by_itself: false,
            start_timer: None,
            idle_timer: None,
            idle_since: None,
            not_forked: None,
            start_failure: None,
            exit: None,
            out_of_memory: None,
            stuck: None,
            output: None,
        }
    }

    /// The runtime's own process, as this node sees it.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.group.as_ref().map(|group| group.runtime_pid())
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
