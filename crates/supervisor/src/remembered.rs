//! Settled requests of which the node still knows the function and the status: what a late cancel
//! is told without asking the store. Bounded; the oldest go first.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use cancel::RequestId;

use crate::{settings::MAX_REMEMBERED, spec::FunctionSpec};

#[derive(Default)]
pub(crate) struct Remembered {
    settled: HashMap<RequestId, (Arc<FunctionSpec>, &'static str)>,
    order: VecDeque<RequestId>,
}

impl Remembered {
    pub(crate) fn keep(&mut self, request: RequestId, function: Arc<FunctionSpec>, status: &'static str) {
        if self.settled.insert(request, (function, status)).is_none() {
            self.order.push_back(request);
        }
        while self.order.len() > MAX_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.settled.remove(&oldest);
            }
        }
    }

    pub(crate) fn get(&self, request: RequestId) -> Option<(&Arc<FunctionSpec>, &'static str)> {
        self.settled.get(&request).map(|(function, status)| (function, *status))
    }
}
