//! What a bulk cancel would do, without doing it.

use std::collections::HashSet;

use cancel::{InstanceId, Level, Plan, RequestId, Scope, StopHow};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::state::count;
use crate::{
    handle::Handle,
    message::Question,
    selection::{Found, NotSelected, Selected, Standing, Whereabouts},
    view::{InstanceRow, RequestRow},
};

/// Requests planned in one message: the shell does other things in between.
const AT_ONCE: usize = 64;
/// Rows and ids named in each list of a plan: as many as somebody looks through.
pub(crate) const FIRST: usize = 100;

/// What a bulk cancel would do now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkPlan {
    /// The moment of the selection. Given with the cancel, nothing that arrived later is in its selection.
    pub as_of: String,
    /// Requests that are selected.
    pub selected: u32,
    /// Of these, those that wait.
    pub waiting: u32,
    /// Of these, those that run.
    pub running: u32,
    /// Of these, those that drain.
    pub draining: u32,
    /// The first of them, in the order of their arrival.
    pub first: Vec<RequestRow>,
    /// Requests that would be taken out of a queue.
    pub removed: u32,
    /// Requests whose runtimes would be asked.
    pub asked: u32,
    /// Requests whose instances would be killed.
    pub killed: u32,
    /// Requests that are being stopped already, as hard as this would.
    pub stopping: u32,
    /// Requests that would be stopped since they are below one that is selected.
    pub below: FirstIds,
    /// How many instances would be killed at once.
    pub kills: u32,
    /// The first of these, with their processes.
    pub first_kills: Vec<InstanceRow>,
    /// Requests that are not meant and would end with 4208.
    pub collateral: FirstIds,
    /// Requests that are not meant and would wait again.
    pub requeued: FirstIds,
    /// Of those that are selected, those that are on other nodes or wait for any: what hangs below them, on what instances they
    /// are, and whom else a cancel touches there, is not known here and not in this plan.
    #[serde(default)]
    pub elsewhere: u32,
}

/// How many, and the first 100 of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FirstIds {
    /// How many.
    pub count: u32,
    /// The first.
    pub first: Vec<String>,
}

impl FirstIds {
    fn of(mut ids: Vec<RequestId>) -> Self {
        ids.sort_unstable();
        Self { count: count(ids.len()), first: ids.iter().take(FIRST).map(ToString::to_string).collect() }
    }
}

/// The plans of many cancels, as one.
#[derive(Default)]
struct Sum {
    stops: HashSet<RequestId>,
    kills: HashSet<InstanceId>,
    collateral: HashSet<RequestId>,
    requeued: HashSet<RequestId>,
    plan: BulkPlan,
}

impl Sum {
    fn add(&mut self, plan: Plan) {
        for stop in plan.stops {
            if !self.stops.insert(stop.request) {
                continue;
            }
            match stop.how {
                StopHow::Removed => self.plan.removed += 1,
                StopHow::Asked { .. } => self.plan.asked += 1,
                StopHow::Killed(_) => self.plan.killed += 1,
                StopHow::Stopping | StopHow::Draining(_) => self.plan.stopping += 1,
            }
        }
        self.kills.extend(plan.kills);
        self.collateral.extend(plan.collateral);
        self.requeued.extend(plan.requeued);
    }

    /// One that another node has, or none: this node sees that it would be stopped, and not whom else that touches.
    fn add_elsewhere(&mut self, found: &Found, stopping: bool, level: Level) {
        self.stops.insert(found.request);
        self.plan.elsewhere += 1;
        match found.standing {
            _ if stopping => self.plan.stopping += 1,
            Standing::Waiting => self.plan.removed += 1,
            Standing::Running | Standing::Draining if level == Level::Kill => self.plan.killed += 1,
            Standing::Running | Standing::Draining => self.plan.asked += 1,
        }
    }
}

pub(super) async fn planned(
    handle: &Handle,
    selected: Selected,
    scope: Scope,
    level: Level,
) -> Result<BulkPlan, NotSelected> {
    let Selected { as_of, requests, first_elsewhere } = selected;
    let mut sum = Sum::default();
    let mut here: Vec<RequestId> = Vec::new();
    for found in &requests {
        match found.whereabouts {
            Whereabouts::Here => here.push(found.request),
            Whereabouts::Elsewhere { stopping } => sum.add_elsewhere(found, stopping, level),
        }
    }
    for chunk in here.chunks(AT_ONCE) {
        // Whoever is below one that was planned is planned with it: a deep tree is looked at once.
        let chunk = chunk.iter().copied().filter(|request| !sum.stops.contains(request));
        let requests: Vec<RequestId> = chunk.collect();
        let asked = |respond| Question::PlanEach { requests, scope, level, respond };
        let plans = handle.ask(asked).await.ok_or(NotSelected::Gone)?;
        plans.into_iter().flatten().for_each(|plan| sum.add(plan));
    }
    let Sum { stops, kills, mut collateral, mut requeued, mut plan } = sum;
    let meant: HashSet<RequestId> = requests.iter().map(|found| found.request).collect();
    collateral.retain(|request| !stops.contains(request));
    requeued.retain(|request| !stops.contains(request) && !collateral.contains(request));
    let mut instances: Vec<InstanceId> = kills.into_iter().collect();
    instances.sort_unstable();
    plan.kills = count(instances.len());
    instances.truncate(FIRST);
    here.truncate(FIRST);
    let asked = |respond| Question::Rows { requests: here, instances, respond };
    (plan.first, plan.first_kills) = handle.ask(asked).await.ok_or(NotSelected::Gone)?;
    if let Some(nodes) = handle.nodes() {
        let this = nodes.shared().node();
        plan.first.iter_mut().for_each(|row| row.node = Some(this.clone()));
        plan.first.extend(first_elsewhere);
        plan.first.sort_by_key(|row| row.created_ms);
        plan.first.truncate(FIRST);
    }
    let stood = |standing| {
        let stood = |found: &&Found| found.standing == standing;
        count(requests.iter().filter(stood).count())
    };
    Ok(BulkPlan {
        as_of: as_of.to_string(),
        selected: count(requests.len()),
        waiting: stood(Standing::Waiting),
        running: stood(Standing::Running),
        draining: stood(Standing::Draining),
        below: FirstIds::of(stops.into_iter().filter(|request| !meant.contains(request)).collect()),
        collateral: FirstIds::of(collateral.into_iter().collect()),
        requeued: FirstIds::of(requeued.into_iter().collect()),
        ..plan
    })
}
