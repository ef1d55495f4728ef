//! Settled requests of which the node still knows what they were: what a late cancel is told without asking the
//! store, and what a tree shows of whoever is over and has children that are not. Bounded; the oldest go first.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use cancel::RequestId;
use store::Labels;

use crate::{request::Request, settings::MAX_REMEMBERED, spec::FunctionSpec};

/// What is still known of one. A copy costs no memory.
#[derive(Clone)]
pub(crate) struct Settled {
    pub(crate) function: Arc<FunctionSpec>,
    pub(crate) status: &'static str,
    pub(crate) alias: Option<Arc<str>>,
    pub(crate) labels: Labels,
    pub(crate) asynchronous: bool,
    pub(crate) created_ms: i64,
    pub(crate) started_ms: Option<i64>,
}

impl Settled {
    /// Of a request that settles now.
    pub(crate) fn of(request: &Request, status: &'static str) -> Self {
        Self {
            function: Arc::clone(&request.function),
            status,
            alias: request.alias.clone(),
            labels: request.labels.clone(),
            asynchronous: request.asynchronous,
            created_ms: request.created_ms,
            started_ms: request.started.map(|(_, ms)| ms),
        }
    }
}

#[derive(Default)]
pub(crate) struct Remembered {
    settled: HashMap<RequestId, Settled>,
    order: VecDeque<RequestId>,
}

impl Remembered {
    pub(crate) fn keep(&mut self, request: RequestId, settled: Settled) {
        if self.settled.insert(request, settled).is_none() {
            self.order.push_back(request);
        }
        while self.order.len() > MAX_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.settled.remove(&oldest);
            }
        }
    }

    pub(crate) fn get(&self, request: RequestId) -> Option<&Settled> {
        self.settled.get(&request)
    }
}
