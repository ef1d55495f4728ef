//! The live requests, and those of watched projects in the order of their arrival.
//!
//! A look at a project must not walk through the hundred thousand requests of another. An order of all would cost
//! every request something; so there is one for each project that is watched, and for no other.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Deref,
};

use cancel::RequestId;

use crate::request::Request;

/// Reads like the map that it is; what is added and removed comes through here.
#[derive(Default)]
pub(crate) struct LiveRequests {
    all: HashMap<RequestId, Box<Request>>,
    /// By project: place in the order of arrival -> request.
    watched: HashMap<String, BTreeMap<u64, RequestId>>,
}

impl Deref for LiveRequests {
    type Target = HashMap<RequestId, Box<Request>>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl LiveRequests {
    pub(crate) fn get_mut(&mut self, id: &RequestId) -> Option<&mut Box<Request>> {
        self.all.get_mut(id)
    }

    pub(crate) fn insert(&mut self, id: RequestId, request: Box<Request>) {
        // Where nobody watches this is all that is looked at.
        if !self.watched.is_empty()
            && let Some(order) = self.watched.get_mut(&request.function.key.project)
        {
            order.insert(request.order, id);
        }
        self.all.insert(id, request);
    }

    pub(crate) fn remove(&mut self, id: &RequestId) -> Option<Box<Request>> {
        let request = self.all.remove(id)?;
        if !self.watched.is_empty()
            && let Some(order) = self.watched.get_mut(&request.function.key.project)
        {
            order.remove(&request.order);
        }
        Some(request)
    }

    /// From now on this project is watched. Walks through all requests, if it was not before.
    pub(crate) fn watch(&mut self, project: String) {
        let Self { all, watched } = self;
        watched.entry(project).or_insert_with_key(|project| {
            let own = all.iter().filter(|(_, request)| request.function.key.project == *project);
            own.map(|(id, request)| (request.order, *id)).collect()
        });
    }

    /// Only these projects are watched from now on.
    pub(crate) fn keep_watched(&mut self, is_watched: impl Fn(&str) -> bool) {
        self.watched.retain(|project, _| is_watched(project));
    }

    /// Those of a project in the order of their arrival; `None` if it is not watched.
    pub(crate) fn in_order(&self, project: &str) -> Option<&BTreeMap<u64, RequestId>> {
        self.watched.get(project)
    }
}
