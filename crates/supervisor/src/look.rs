//! Questions answered: trees, the node, plans, receipts in the making. Changes nothing.

use cancel::{CancelAsk, Cause, InstanceId, Level, OnGrace, Reply, RequestId, RequestView, Scope, StopHow};

use crate::{
    group::{Layer, LimitKind},
    handle::{CancelAnswer, CancelOrder, Stop},
    logs::Logs,
    message::Question,
    request::shown,
    settings::MAX_SHOWN,
    shell::{Shell, fresh_cancel},
    view::{InstanceRow, MeansRow, NodeView, PlanRow, PlanView, RequestRow, TreeView},
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
            Question::Glimpse { project, respond } => drop(respond.send(self.glimpse(&project))),
            Question::Counted { project, respond } => drop(respond.send(self.instance_counts(&project))),
            Question::Census { respond } => drop(respond.send(self.census())),
            Question::Strangers { requests, respond } => drop(respond.send(self.strangers(requests))),
            Question::Room { respond } => drop(respond.send(self.free_places())),
            Question::Select { selection, respond } => drop(respond.send(self.select(&selection))),
            Question::List { selection, after, limit, respond } => {
                drop(respond.send(self.list(&selection, after, limit)));
            }
            Question::PlanEach { requests, scope, level, respond } => {
                let plan = |request: &RequestId| self.engine.plan(&dry_run(*request, scope, level)).ok();
                drop(respond.send(requests.iter().map(plan).collect()));
            }
            Question::Rows { requests, instances, respond } => {
                let views = requests.iter().filter_map(|request| self.engine.request(*request));
                let requests = views.map(|view| self.request_row(&view)).collect();
                let instances = instances.into_iter().filter_map(|id| self.instance_row(id)).collect();
                drop(respond.send((requests, instances)));
            }
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
        let ask = dry_run(order.request, order.scope, order.level);
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
            elsewhere: 0,
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
            created_ms: self
                .engine
                .request(request)
                .and_then(|view| self.request_row(&view).created_ms)
                .unwrap_or(0),
            node: None,
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

    pub(crate) fn request_row(&self, view: &RequestView) -> RequestRow {
        self.seen_request(*view).row()
    }

    fn instance_row(&self, id: InstanceId) -> Option<InstanceRow> {
        let seen = self.seen_instance(id)?;
        Some(seen.row(seen.processes()))
    }

    fn node(&self, project: Option<&str>) -> NodeView {
        let of_project = |owner: &str| project.is_none_or(|project| project == owner);
        let (oldest, count) = self.oldest(project);
        let views = oldest.iter().filter_map(|id| self.engine.request(*id));
        let instances = self.instances_of(project);
        let containment = self.spawner.containment();
        NodeView {
            requests: views.map(|view| self.request_row(&view)).collect(),
            instances: instances.into_iter().filter_map(|id| self.instance_row(id)).collect(),
            fork_servers: self.fork_servers.rows(of_project),
            node: self.nodes.as_ref().map(|nodes| nodes.shared().node()),
            live: u32::try_from(count).unwrap_or(u32::MAX),
            truncated: count > MAX_SHOWN,
            draining: self.draining.is_some(),
            unwritten: u32::try_from(self.unwritten.len()).unwrap_or(u32::MAX),
            log_lines_lost: self.logs.as_ref().map_or(0, Logs::lost),
            containment: containment.layers().iter().map(layer_row).collect(),
            limits: containment.limits().iter().map(limit_row).collect(),
        }
    }
}

/// A cancel that is only planned.
fn dry_run(request: RequestId, scope: Scope, level: Level) -> CancelAsk {
    let (cancel, cause) = (fresh_cancel(), Cause::Asked);
    CancelAsk { ticket: None, early: false, cancel, request, scope, level, cause }
}

fn layer_row(layer: &Layer) -> MeansRow {
    let Layer { id, name, active, detail } = layer;
    MeansRow { id: Some((*id).to_owned()), name: (*name).to_owned(), active: *active, detail: detail.clone() }
}

fn limit_row(limit: &LimitKind) -> MeansRow {
    let LimitKind { name, active, detail } = limit;
    MeansRow { id: None, name: (*name).to_owned(), active: *active, detail: detail.clone() }
}
