//! Which waiting request goes where: plain data and plain decisions, no I/O.
//!
//! One pool per function. Requests wait in order of arrival; a request that waits again keeps its
//! place. An instance that is ready and has room is always preferred to one that is starting, and a
//! starting one to a new one.

use std::{collections::BTreeMap, sync::Arc};

use cancel::{InstanceId, RequestId};

use crate::{reserve::Reserve, spec::FunctionSpec};

/// The queue and the instances of one function.
pub(crate) struct Pool {
    /// The current revision.
    pub(crate) function: Arc<FunctionSpec>,
    /// Waiting requests by order of arrival.
    waiting: BTreeMap<u64, RequestId>,
    /// Its live instances, of any revision, oldest first.
    pub(crate) instances: Vec<InstanceId>,
    /// Of the instances that are kept without work.
    pub(crate) reserve: Reserve,
}

/// What an instance offers, as the pool is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) instance: InstanceId,
    pub(crate) ready: bool,
    pub(crate) room: u32,
    /// It takes later requests too: it is of the current revision, and neither drains nor ends.
    pub(crate) kept: bool,
}

/// What to do next for a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Give this request a place here.
    Place(RequestId, InstanceId),
    /// Start an instance, if the node has room for one.
    Start,
    /// Nothing.
    Rest,
}

impl Pool {
    pub(crate) fn new(function: Arc<FunctionSpec>) -> Self {
        Self { function, waiting: BTreeMap::new(), instances: Vec::new(), reserve: Reserve::default() }
    }

    pub(crate) fn wait(&mut self, order: u64, request: RequestId) {
        self.waiting.insert(order, request);
    }

    pub(crate) fn leave(&mut self, order: u64) {
        self.waiting.remove(&order);
    }

    pub(crate) fn first_waiting(&self) -> Option<RequestId> {
        self.waiting.values().next().copied()
    }

    pub(crate) fn in_order(&self) -> impl Iterator<Item = RequestId> {
        self.waiting.values().copied()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn all_waiting(&self) -> Vec<RequestId> {
        self.waiting.values().copied().collect()
    }

    /// Decides one step: work first, then what is to be kept. `offers` are the pool's instances; `bound` are requests that have a place on
    /// a starting instance, oldest first, and may be moved to a ready one.
    pub(crate) fn next(&self, offers: &[Offer], bound: &[RequestId]) -> Next {
        match self.next_for_work(offers, bound) {
            Next::Rest if self.falls_short(offers) => Next::Start,
            next => next,
        }
    }

    fn next_for_work(&self, offers: &[Offer], bound: &[RequestId]) -> Next {
        let first = self.waiting.values().next().copied();
        // The fullest ready instance first: the emptier ones can then be released.
        let ready = offers.iter().filter(|offer| offer.ready && offer.room > 0).min_by_key(|o| o.room);
        if let Some(ready) = ready {
            return match bound.first().copied().or(first) {
                Some(request) => Next::Place(request, ready.instance),
                None => Next::Rest,
            };
        }
        let Some(request) = first else { return Next::Rest };
        if let Some(starting) = offers.iter().find(|offer| !offer.ready && offer.room > 0) {
            return Next::Place(request, starting.instance);
        }
        if self.instances.len() < self.function.max_instances as usize { Next::Start } else { Next::Rest }
    }
}
