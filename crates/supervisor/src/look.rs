//! Questions answered: trees, the node, plans, receipts in the making. Changes nothing.

use cancel::{CancelAsk, InstanceId, OnGrace, Reply, RequestId, RequestView, State, StopHow};

use crate::{
    drafts::level_word,
    group::{Layer, LimitKind},
    handle::{CancelAnswer, CancelOrder, Stop},
    logs::Logs,
    message::Question,
    request::shown,
    settings::MAX_SHOWN,
    shell::{Shell, fresh_cancel},
    view::{InstanceRow, MeansRow, NodeView, PlanRow, PlanView, ProcessRow, RequestRow, TreeView},
};

impl Shell {
    pub(crate) fn look(&self, question: Question) {
        // Whoever asked may be gone; an answer nobody takes is no loss.
        match question {
            Question::Plan { order, respond } => drop(respond.send(self.plan(&order))),
            Question::Tree { request, respond } => drop(respond.send(self.tree(request))),
            Question::Node { project, respond } => drop(respond.send(self.node(project.as_deref()))),
            Question::Output { instance, project, respond } => {
                drop(respond.send(self.output(&instance, &project)));
            }
            Question::Minutes { of, from_ms, respond } => {
                drop(respond.send(self.counters.minutes(&of, from_ms)));
            }
            Question::Totals { project, from_ms, until_ms, respond } => {
                drop(respond.send(self.counters.totals(&project, from_ms, until_ms)));
            }
            Question::Counted { project, respond } => drop(respond.send(self.instance_counts(&project))),
            Question::Receipt { cancel, respond } => {
                drop(respond.send(self.drafts.receipt(cancel).cloned()));
            }
        }
    }

    fn output(&self, instance: &str, project: &str) -> Option<String> {
        let named = |id: &InstanceId| id.to_string() == instance;
        let (_, instance) = self.instances.iter().find(|(id, _)| named(id))?;
        if instance.function.key.project != project {
            return None;
        }
        Some(instance.output.as_ref().map(|output| output.tail(usize::MAX)).unwrap_or_default())
    }

    fn plan(&self, order: &CancelOrder) -> Result<PlanView, CancelAnswer> {
        if !self.function_of(order.request).is_some_and(|function| order.function.fits(&function)) {
            return Err(CancelAnswer::Unknown);
        }
        let ask = CancelAsk {
            ticket: None,
            early: false,
            cancel: fresh_cancel(),
            request: order.request,
            scope: order.scope,
            level: order.level,
            cause: order.cause,
        };
        let plan = self.engine.plan(&ask).map_err(|reply| match reply {
            Reply::AlreadyCanceled { cancel, draining } => {
                let stop = if draining { Stop::Draining } else { Stop::Stopped };
                CancelAnswer::Done { cancel, stop }
            }
            Reply::Finished(outcome) => {
                let code = outcome.code();
                CancelAnswer::Finished(if code == 0 { "SUCCESS" } else { "FAIL" })
            }
            _ => CancelAnswer::Unknown,
        })?;
        let ids = |requests: Vec<RequestId>| requests.iter().map(ToString::to_string).collect();
        Ok(PlanView {
            stops: plan.stops.iter().map(|stop| self.plan_row(stop.request, stop.how)).collect(),
            kills: plan.kills.iter().filter_map(|id| self.instance_row(*id)).collect(),
            collateral: ids(plan.collateral),
            requeued: ids(plan.requeued),
        })
    }

    fn plan_row(&self, request: RequestId, how: StopHow) -> PlanRow {
        let (how, instance, then) = match how {
            StopHow::Removed => ("removed", None, None),
            StopHow::Asked { instance, then } => ("asked", Some(instance), Some(then)),
            StopHow::Killed(instance) => ("killed", Some(instance), None),
            StopHow::Stopping => ("stopping", None, None),
            StopHow::Draining(instance) => ("draining", Some(instance), None),
        };
        let then = then.map(|then| match then {
            OnGrace::Drain => "drain",
            OnGrace::Kill => "kill",
        });
        PlanRow {
            request_id: request.to_string(),
            function: self.requests.get(&request).map(|r| shown(&r.function)).unwrap_or_default(),
            version: self.requests.get(&request).map(|r| r.function.key.version.clone()).unwrap_or_default(),
            how: how.to_owned(),
            instance: instance.map(|instance| instance.to_string()),
            at_grace_end: then.map(str::to_owned),
        }
    }

    fn tree(&self, request: RequestId) -> Option<TreeView> {
        let root = self.engine.root(request)?;
        let mut rows = self.engine.subtree(root, MAX_SHOWN + 1);
        let truncated = rows.len() > MAX_SHOWN;
        rows.truncate(MAX_SHOWN);
        let requests = rows.iter().map(|view| self.request_row(view)).collect();
        let project = self.function_of(request)?.project.clone();
        Some(TreeView { root: root.to_string(), project, requests, truncated })
    }

    fn request_row(&self, view: &RequestView) -> RequestRow {
        let record = self.requests.get(&view.request);
        let function = match record {
            Some(record) => Some(&record.function),
            None => self.remembered.get(view.request).map(|(function, _)| function),
        };
        let state = match view.state {
            State::Queued => "queued",
            State::Placed => "placed",
            State::Running => "running",
            State::Draining => "draining",
            State::Settled => "settled",
        };
        let pid = view.instance.and_then(|id| self.instances.get(&id)).and_then(|instance| instance.pid());
        RequestRow {
            request_id: view.request.to_string(),
            parent: view.parent.map(|parent| parent.to_string()),
            depth: view.depth,
            function: function.map(|function| shown(function)).unwrap_or_default(),
            version: function.map(|function| function.key.version.clone()).unwrap_or_default(),
            alias: record.and_then(|record| record.alias.as_deref().map(str::to_owned)),
            state: state.to_owned(),
            asynchronous: record.is_some_and(|record| record.asynchronous),
            stopping: view.level.map(|level| level_word(level).to_owned()),
            cancel_id: view.fenced_by.map(|cancel| cancel.to_string()),
            code: view.outcome.map(cancel::Outcome::code),
            instance: view.instance.map(|instance| instance.to_string()),
            pid,
            attempt: view.attempt.0,
            created_ms: record.map_or(0, |record| record.created_ms),
            started_ms: record.and_then(|record| record.started).map(|(_, ms)| ms),
        }
    }

    fn instance_row(&self, id: InstanceId) -> Option<InstanceRow> {
        let instance = self.instances.get(&id)?;
        let view = self.engine.instance(id)?;
        let state = match (instance.stuck.is_some(), view.ending, view.draining, view.ready) {
            (true, ..) => "quarantined",
            (_, true, ..) => "ending",
            (_, _, true, _) => "draining",
            (_, _, _, true) => "ready",
            _ => "starting",
        };
        let members = instance.group.as_ref().map(|group| group.members()).unwrap_or_default();
        let process = |member: crate::group::Member| ProcessRow {
            pid: member.pid,
            comm: member.comm,
            state: member.state.to_string(),
        };
        Some(InstanceRow {
            instance: id.to_string(),
            function: shown(&instance.function),
            version: instance.function.key.version.clone(),
            pid: instance.pid(),
            state: state.to_owned(),
            capacity: view.capacity,
            requests: view.tenants.iter().map(ToString::to_string).collect(),
            cooperates: view.cooperates,
            containment: instance.group.as_ref().map(|group| group.mechanism().to_string()),
            fork_server: instance.fork_server(),
            processes: members.into_iter().map(process).collect(),
        })
    }

    fn node(&self, project: Option<&str>) -> NodeView {
        let of_project = |owner: &str| project.is_none_or(|project| project == owner);
        let mut live: Vec<(u64, RequestId)> = self
            .requests
            .iter()
            .filter(|(_, request)| of_project(&request.function.key.project))
            .map(|(id, request)| (request.order, *id))
            .collect();
        let (count, truncated) = (live.len(), live.len() > MAX_SHOWN);
        if truncated {
            // Of a million only the first are put in order.
            live.select_nth_unstable(MAX_SHOWN);
            live.truncate(MAX_SHOWN);
        }
        live.sort_unstable();
        let views = live.iter().take(MAX_SHOWN).filter_map(|(_, id)| self.engine.request(*id));
        let mut instances: Vec<InstanceId> = self
            .instances
            .iter()
            .filter(|(_, instance)| of_project(&instance.function.key.project))
            .map(|(id, _)| *id)
            .collect();
        instances.sort_unstable();
        let containment = self.spawner.containment();
        NodeView {
            requests: views.map(|view| self.request_row(&view)).collect(),
            instances: instances.into_iter().filter_map(|id| self.instance_row(id)).collect(),
            fork_servers: self.fork_servers.rows(of_project),
            live: u32::try_from(count).unwrap_or(u32::MAX),
            truncated,
            draining: self.draining.is_some(),
            unwritten: u32::try_from(self.unwritten.len()).unwrap_or(u32::MAX),
            log_lines_lost: self.logs.as_ref().map_or(0, Logs::lost),
            containment: containment.layers().iter().map(layer_row).collect(),
            limits: containment.limits().iter().map(limit_row).collect(),
        }
    }
}

fn layer_row(layer: &Layer) -> MeansRow {
    let Layer { id, name, active, detail } = layer;
    MeansRow { id: Some((*id).to_owned()), name: (*name).to_owned(), active: *active, detail: detail.clone() }
}

fn limit_row(limit: &LimitKind) -> MeansRow {
    let LimitKind { name, active, detail } = limit;
    MeansRow { id: None, name: (*name).to_owned(), active: *active, detail: detail.clone() }
}
