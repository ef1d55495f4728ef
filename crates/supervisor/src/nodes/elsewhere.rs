//! What a node does not see by itself, put beside what it does: selections, lists and plans over all nodes. Of
//! synchronous requests of other nodes there is nothing here: the store does not know them.

use std::{collections::HashSet, sync::Arc};

use cancel::{Level, RequestId, Scope};
use store::{ElsewherePage, ElsewhereQuery, FunctionFilter, InvocationRecord, Status};

use super::{Nodes, cancels::word, trees::shown};
use crate::{
    bulk::FIRST,
    handle::{CancelAnswer, CancelOrder, Handle},
    selection::{AsOf, Found, ListedPage, NotSelected, Selected, Selection, Standing, Whereabouts},
    settings::MAX_SELECTED,
    shell::now_ms,
    view::{PlanRow, PlanView},
};

/// Markers from here on are places in the store; those below are of the shell, which does not count so far. Both are
/// whole numbers to every reader of JSON.
const PLACES: u64 = 1 << 52;

impl Nodes {
    /// Selects over all nodes. What goes from the shared queue into this shell waits meanwhile: it is seen in one of them.
    pub(crate) async fn select(
        &self,
        handle: &Handle,
        selection: Selection,
    ) -> Result<Selected, NotSelected> {
        let passing = self.passing.lock().await;
        let most = u32::try_from(MAX_SELECTED + 1).unwrap_or(u32::MAX);
        let began = now_ms();
        let others = self.others(&selection, 0, most).await?;
        let mut selected = handle.select_here(selection).await?;
        drop(passing);
        // Whoever is selected now arrived by that moment, whatever the clock of its node said.
        let at =
            |row: &InvocationRecord| row.created_ms.max(row.started_ms.unwrap_or(i64::MIN)).saturating_add(1);
        let latest = others.rows.iter().map(|other| at(&other.row)).max();
        selected.as_of = selected.as_of.at_wall(latest.unwrap_or(began).max(began));
        let known: HashSet<RequestId> = selected.requests.iter().map(|found| found.request).collect();
        let twice = others.rows.iter().filter(|other| known.contains(&other.row.request)).count();
        let all = (known.len() + usize::try_from(others.total).unwrap_or(usize::MAX)).saturating_sub(twice);
        if all > MAX_SELECTED {
            return Err(NotSelected::TooMany(all));
        }
        for other in others.rows.into_iter().filter(|other| !known.contains(&other.row.request)) {
            selected.requests.push(Found {
                request: other.row.request,
                function: Arc::new(other.row.function.clone()),
                standing: standing(&other.row),
                whereabouts: Whereabouts::Elsewhere { stopping: other.row.fenced_by.is_some() },
            });
            if selected.first_elsewhere.len() < FIRST {
                selected.first_elsewhere.push(shown(other.row, other.owner));
            }
        }
        Ok(selected)
    }

    /// A page of live requests: first those of this node, and then the others.
    pub(crate) async fn list(
        &self,
        handle: &Handle,
        selection: Selection,
        after: u64,
        limit: usize,
    ) -> Result<ListedPage, NotSelected> {
        let passing = self.passing.lock().await;
        // One more, to see whether there is one.
        let most = u32::try_from(limit).unwrap_or(u32::MAX).saturating_add(1);
        let others = self.others(&selection, after.saturating_sub(PLACES), most).await?;
        let mut page = match after.checked_sub(PLACES) {
            None => handle.list_here(selection, after, limit).await?,
            // Only how many they are.
            Some(_) => handle.list_here(selection, u64::MAX, 0).await?,
        };
        drop(passing);
        let this = self.shared.node();
        page.requests.iter_mut().for_each(|row| row.node = Some(this.clone()));
        page.node = Some(this);
        page.count += usize::try_from(others.total).unwrap_or(usize::MAX);
        if page.next_marker == 0 {
            let room = limit.saturating_sub(page.requests.len());
            let left = others.rows.len() > room;
            let mut last = after.saturating_sub(PLACES);
            for other in others.rows.into_iter().take(room) {
                last = other.place;
                let here = page.requests.iter().any(|row| row.request_id == other.row.request.to_string());
                if !here {
                    page.requests.push(shown(other.row, other.owner));
                }
            }
            page.next_marker = if left { PLACES + last } else { 0 };
        }
        Ok(page)
    }

    /// What a selection means of what other nodes have and of what waits for any.
    async fn others(
        &self,
        selection: &Selection,
        after: u64,
        limit: u32,
    ) -> Result<ElsewherePage, NotSelected> {
        let moment = selection.as_of.as_ref().and_then(AsOf::wall_ms);
        let old = selection.older_than.map(|age| {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            moment.unwrap_or_else(now_ms).saturating_sub(age)
        });
        let running = match selection.standing {
            None => None,
            Some(Standing::Waiting) => Some(false),
            Some(Standing::Running) => Some(true),
            // In the store it is over.
            Some(Standing::Draining) => return Ok(ElsewherePage::default()),
        };
        let query = ElsewhereQuery {
            project: selection.project.clone(),
            function: selection.function.clone(),
            created_before_ms: [moment, old].into_iter().flatten().min(),
            running,
            started_before_ms: moment.filter(|_| running == Some(true)),
            parent: selection.parent,
            labels: selection.labels.clone(),
            after,
            limit,
        };
        Ok(self.shared.select(query).await?)
    }

    /// What a cancel would do now, of the request and what hangs below it on any node. Whom else it touches on others they
    /// alone know.
    pub(crate) async fn plan(&self, handle: &Handle, order: CancelOrder) -> Result<PlanView, CancelAnswer> {
        let here = handle.plan_here(order.clone()).await;
        let whole = order.scope == Scope::Subtree;
        let mut plan = match &here {
            Ok(plan) if whole => plan.clone(),
            Err(CancelAnswer::Unknown) => PlanView::default(),
            Err(CancelAnswer::Finished(_)) if whole => PlanView::default(),
            _ => return here,
        };
        let limit = u32::try_from(MAX_SELECTED).unwrap_or(u32::MAX);
        let mut rows = match self.shared.below(order.request, limit).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(request = %order.request, %error, "what other nodes have of a plan could not be read");
                return Err(CancelAnswer::Gone);
            }
        };
        let target = rows.iter().find(|(row, _)| row.request == order.request).map(|(row, _)| row);
        let over =
            target.filter(|row| row.ended_ms.is_some()).map(|row| CancelAnswer::Finished(word(row.status)));
        // This node knows nothing of it: then the store says of which function it is.
        if matches!(here, Err(CancelAnswer::Unknown))
            && !target.is_some_and(|row| order.function.fits(&row.function))
        {
            return here;
        }
        rows.retain(|(row, _)| row.ended_ms.is_none() && (whole || row.request == order.request));
        self.add_rows(handle, &order, &mut plan, rows).await;
        match (plan.stops.is_empty(), here, over) {
            (false, ..) => Ok(plan),
            (true, Err(CancelAnswer::Unknown), Some(over)) => Err(over),
            (true, here, _) => here,
        }
    }

    async fn add_rows(
        &self,
        handle: &Handle,
        order: &CancelOrder,
        plan: &mut PlanView,
        rows: Vec<(InvocationRecord, Option<String>)>,
    ) {
        let this = self.shared.node();
        let mut planned: HashSet<String> = plan.stops.iter().map(|stop| stop.request_id.clone()).collect();
        for (row, owner) in rows {
            if planned.contains(&row.request.to_string()) {
                continue;
            }
            if owner.as_ref() == Some(&this) {
                // It hangs below something that is elsewhere, and this node knows what becomes of it.
                let function = FunctionFilter::whole(row.function);
                let order = CancelOrder { request: row.request, function, ..order.clone() };
                if let Ok(more) = handle.plan_here(order).await {
                    merge(plan, more, &mut planned);
                }
                continue;
            }
            planned.insert(row.request.to_string());
            plan.elsewhere += 1;
            plan.stops.push(planned_elsewhere(row, owner, order.level));
        }
        plan.collateral.retain(|request| !planned.contains(request));
        plan.requeued.retain(|request| !planned.contains(request));
    }
}

fn merge(plan: &mut PlanView, more: PlanView, planned: &mut HashSet<String>) {
    plan.stops.extend(more.stops.into_iter().filter(|stop| planned.insert(stop.request_id.clone())));
    let known: HashSet<String> = plan.kills.iter().map(|row| row.instance.clone()).collect();
    plan.kills.extend(more.kills.into_iter().filter(|row| !known.contains(&row.instance)));
    for (all, more) in [(&mut plan.collateral, more.collateral), (&mut plan.requeued, more.requeued)] {
        let more: Vec<String> = more.into_iter().filter(|request| !all.contains(request)).collect();
        all.extend(more);
    }
}

fn planned_elsewhere(row: InvocationRecord, owner: Option<String>, level: Level) -> PlanRow {
    let how = match (row.fenced_by, row.status, level) {
        (Some(_), ..) => "stopping",
        (None, Status::Running, Level::Kill) => "killed",
        (None, Status::Running, _) => "asked",
        (None, ..) => "removed",
    };
    PlanRow {
        request_id: row.request.to_string(),
        function: format!("{}:{}", row.function.package, row.function.name),
        version: row.function.version,
        how: how.to_owned(),
        instance: None,
        at_grace_end: None,
        created_ms: row.created_ms,
        node: owner,
    }
}

fn standing(row: &InvocationRecord) -> Standing {
    match row.status {
        Status::Running => Standing::Running,
        _ => Standing::Waiting,
    }
}
