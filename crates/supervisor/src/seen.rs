//! What lives, as the shell copies it for whoever looks: numbers, and references that are counted.
//!
//! The shell's one task must get back to its inbox, so the words of a row are made by whoever asked, and so is the
//! list of an instance's processes, which is read from files.

use std::{
    borrow::Cow,
    collections::HashSet,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use cancel::{InstanceId, RequestId, RequestView, State};
use store::{FunctionKey, Labels};

use crate::{
    drafts::level_word,
    group::{Group, Mechanism, Member},
    remembered::Settled,
    settings::MAX_SHOWN,
    shell::Shell,
    view::{InstanceRow, ProcessRow, RequestRow},
};

/// A request at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeenRequest {
    pub(crate) view: RequestView,
    function: Option<Arc<FunctionKey>>,
    alias: Option<Arc<str>>,
    labels: Labels,
    asynchronous: Option<bool>,
    pid: Option<u32>,
    created_ms: Option<i64>,
    started_ms: Option<i64>,
}

impl SeenRequest {
    /// As it goes out.
    pub(crate) fn row(&self) -> RequestRow {
        let view = &self.view;
        let state = match view.state {
            State::Queued => "queued",
            State::Placed => "placed",
            State::Running => "running",
            State::Draining => "draining",
            State::Settled => "settled",
        };
        RequestRow {
            request_id: view.request.to_string(),
            parent: view.parent.map(|parent| parent.to_string()),
            depth: view.depth,
            function: self.function.as_deref().map(named).unwrap_or_default(),
            version: self.function.as_ref().map(|function| function.version.clone()).unwrap_or_default(),
            alias: self.alias.as_deref().map(str::to_owned),
            labels: self.labels.to_map(),
            state: state.to_owned(),
            asynchronous: self.asynchronous,
            stopping: view.level.map(|level| level_word(level).to_owned()),
            cancel_id: view.fenced_by.map(|cancel| cancel.to_string()),
            code: view.outcome.map(cancel::Outcome::code),
            instance: view.instance.map(|instance| instance.to_string()),
            pid: self.pid,
            attempt: view.attempt.0,
            created_ms: self.created_ms,
            started_ms: self.started_ms,
            node: None,
            waits_for: None,
        }
    }
}

/// An instance at a moment.
#[derive(Clone)]
pub(crate) struct SeenInstance {
    pub(crate) id: InstanceId,
    function: Arc<FunctionKey>,
    pid: Option<u32>,
    state: &'static str,
    capacity: u32,
    requests: Vec<RequestId>,
    cooperates: bool,
    fork_server: Option<String>,
    mechanism: Option<Mechanism>,
    /// Weak: whoever looks must not hold up what waits for its end.
    group: Option<Weak<Group>>,
}

impl SeenInstance {
    /// As it goes out, with these processes.
    pub(crate) fn row(&self, processes: Vec<ProcessRow>) -> InstanceRow {
        InstanceRow {
            instance: self.id.to_string(),
            function: named(&self.function),
            version: self.function.version.clone(),
            pid: self.pid,
            state: self.state.to_owned(),
            capacity: self.capacity,
            requests: self.requests.iter().map(ToString::to_string).collect(),
            cooperates: self.cooperates,
            containment: self.mechanism.map(|mechanism| mechanism.to_string()),
            fork_server: self.fork_server.clone(),
            processes,
        }
    }

    /// Its processes now. Blocking: reads files of `/proc`.
    pub(crate) fn processes(&self) -> Vec<ProcessRow> {
        let row = |Member { pid, comm, state }| ProcessRow { pid, comm, state: state.to_string() };
        let group = self.group.as_ref().and_then(Weak::upgrade);
        let members = group.map(|group| group.members()).unwrap_or_default();
        members.into_iter().map(row).collect()
    }
}

fn named(function: &FunctionKey) -> String {
    format!("{}:{}", function.package, function.name)
}

/// What lives of a project.
pub(crate) struct Glimpse {
    /// Live requests, and those that have settled and are above live ones: the tree hangs together.
    pub(crate) requests: Vec<SeenRequest>,
    pub(crate) instances: Vec<SeenInstance>,
    /// Live requests in all.
    pub(crate) live: usize,
    /// Whether there are more of them than here.
    pub(crate) truncated: bool,
    pub(crate) draining: bool,
    /// What the disk has refused so far.
    pub(crate) unwritten: usize,
    /// What it took the shell to say so.
    pub(crate) took: Duration,
}

impl Shell {
    /// The oldest live requests of a project, or of all, and how many there are.
    pub(crate) fn oldest(&self, project: Option<&str>) -> (Vec<RequestId>, usize) {
        if let Some(order) = project.and_then(|project| self.requests.in_order(project)) {
            return (order.values().take(MAX_SHOWN).copied().collect(), order.len());
        }
        let mut live: Vec<(u64, RequestId)> = self
            .requests
            .iter()
            .filter(|(_, request)| project.is_none_or(|project| project == request.function.key.project))
            .map(|(id, request)| (request.order, *id))
            .collect();
        let count = live.len();
        if count > MAX_SHOWN {
            // Of a million only the first are put in order.
            live.select_nth_unstable(MAX_SHOWN);
            live.truncate(MAX_SHOWN);
        }
        live.sort_unstable();
        (live.into_iter().map(|(_, id)| id).collect(), count)
    }

    /// The instances of a project, or all, oldest first.
    pub(crate) fn instances_of(&self, project: Option<&str>) -> Vec<InstanceId> {
        let mut instances: Vec<InstanceId> = self
            .instances
            .iter()
            .filter(|(_, instance)| project.is_none_or(|project| project == instance.function.key.project))
            .map(|(id, _)| *id)
            .collect();
        instances.sort_unstable();
        instances
    }

    pub(crate) fn glimpse(&self, project: &str) -> Glimpse {
        let begun = Instant::now();
        let (oldest, live) = self.oldest(Some(project));
        let live_views: Vec<RequestView> = oldest.iter().filter_map(|id| self.engine.request(*id)).collect();
        let mut there: HashSet<RequestId> = oldest.into_iter().collect();
        let mut above = Vec::new();
        for view in &live_views {
            let mut parent = view.parent;
            while let Some(id) = parent.filter(|id| there.insert(*id)) {
                let Some(view) = self.engine.request(id) else { break };
                above.push(view);
                parent = view.parent;
            }
        }
        // Each way up was taken from below.
        let views = above.into_iter().rev().chain(live_views);
        let requests = views.map(|view| self.seen_request(view)).collect();
        let instances = self.instances_of(Some(project));
        Glimpse {
            requests,
            instances: instances.into_iter().filter_map(|id| self.seen_instance(id)).collect(),
            live,
            truncated: live > MAX_SHOWN,
            draining: self.draining.is_some(),
            unwritten: self.unwritten.len(),
            took: begun.elapsed(),
        }
    }

    pub(crate) fn seen_request(&self, view: RequestView) -> SeenRequest {
        // What is over has no record any more, and may be shown for the sake of what is below it.
        let known = match self.requests.get(&view.request) {
            Some(record) => Some(Cow::Owned(Settled::of(record, ""))),
            None => self.remembered.get(view.request).map(Cow::Borrowed),
        };
        let known = known.as_deref();
        let instance = view.instance.and_then(|id| self.instances.get(&id));
        SeenRequest {
            view,
            function: known.map(|known| Arc::clone(&known.function.key)),
            alias: known.and_then(|known| known.alias.clone()),
            labels: known.map(|known| known.labels.clone()).unwrap_or_default(),
            asynchronous: known.map(|known| known.asynchronous),
            pid: instance.and_then(|instance| instance.pid()),
            created_ms: known.map(|known| known.created_ms),
            started_ms: known.and_then(|known| known.started_ms),
        }
    }

    pub(crate) fn seen_instance(&self, id: InstanceId) -> Option<SeenInstance> {
        let instance = self.instances.get(&id)?;
        let view = self.engine.instance(id)?;
        let state = match (instance.stuck.is_some(), view.ending, view.draining, view.ready) {
            (true, ..) => "quarantined",
            (_, true, ..) => "ending",
            (_, _, true, _) => "draining",
            (_, _, _, true) => "ready",
            _ => "starting",
        };
        Some(SeenInstance {
            id,
            function: Arc::clone(&instance.function.key),
            pid: instance.pid(),
            state,
            capacity: view.capacity,
            requests: view.tenants,
            cooperates: view.cooperates,
            fork_server: instance.fork_server(),
            mechanism: instance.group.as_ref().map(|group| group.mechanism()),
            group: instance.group.as_ref().map(Arc::downgrade),
        })
    }
}
