//! A tree that spans nodes, put together: what lives here, by the shell, and the rest as the store knows it.

use std::collections::{BTreeMap, HashMap};

use cancel::RequestId;
use store::{InvocationRecord, Status, StoreError};

use super::Nodes;
use crate::{
    settings::MAX_SHOWN,
    view::{RequestRow, TreeView},
};

impl Nodes {
    /// The tree a request is in, over all nodes. Synchronous requests of other nodes are not in it: the store does not
    /// know them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn tree(
        &self,
        request: RequestId,
        here: Option<TreeView>,
    ) -> Result<Option<TreeView>, StoreError> {
        let known = self.shared.invocation(request).await?;
        let local = here.as_ref().and_then(|tree| RequestId::parse(&tree.root));
        let top = known.as_ref().and_then(|row| row.root).or(local).unwrap_or(request);
        let limit = u32::try_from(MAX_SHOWN).unwrap_or(u32::MAX);
        let rows = self.shared.below(top, limit).await?;
        let there = rows.iter().any(|(row, _)| row.request == request);
        if here.is_none() && (!there || rows.iter().all(|(row, _)| row.ended_ms.is_some())) {
            return Ok(None); // it is over and all below it, or nobody's
        }
        Ok(merged(top, here, rows))
    }
}

fn merged(
    top: RequestId,
    here: Option<TreeView>,
    rows: Vec<(InvocationRecord, Option<String>)>,
) -> Option<TreeView> {
    let project = match (&here, rows.first()) {
        (Some(tree), _) => tree.project.clone(),
        (None, Some((row, _))) => row.function.project.clone(),
        (None, None) => return None,
    };
    let mut truncated = rows.len() >= MAX_SHOWN || here.as_ref().is_some_and(|tree| tree.truncated);
    let mut all: HashMap<String, RequestRow> =
        rows.into_iter().map(|(row, owner)| (row.request.to_string(), shown(row, owner))).collect();
    for mut row in here.into_iter().flat_map(|tree| tree.requests) {
        // The shell does not know what is above on other nodes; the store does.
        if let Some(stored) = all.get(&row.request_id) {
            row.parent = row.parent.or_else(|| stored.parent.clone());
        }
        all.insert(row.request_id.clone(), row);
    }
    let mut below: BTreeMap<Option<String>, Vec<RequestRow>> = BTreeMap::new();
    let ids: Vec<String> = all.keys().cloned().collect();
    for row in all.into_values() {
        let parent = row.parent.clone().filter(|parent| ids.contains(parent));
        below.entry(parent).or_default().push(row);
    }
    for children in below.values_mut() {
        children.sort_by(|a, b| (a.created_ms, &a.request_id).cmp(&(b.created_ms, &b.request_id)));
    }
    let mut requests = Vec::new();
    let mut path: Vec<(u16, RequestRow)> =
        below.remove(&None).unwrap_or_default().into_iter().rev().map(|row| (0, row)).collect();
    while let Some((depth, mut row)) = path.pop() {
        if requests.len() >= MAX_SHOWN {
            truncated = true;
            break;
        }
        row.depth = depth;
        let children = below.remove(&Some(row.request_id.clone())).unwrap_or_default();
        path.extend(children.into_iter().rev().map(|child| (depth.saturating_add(1), child)));
        requests.push(row);
    }
    Some(TreeView { root: top.to_string(), project, requests, truncated })
}

pub(super) fn shown(row: InvocationRecord, owner: Option<String>) -> RequestRow {
    let over = row.ended_ms.is_some();
    let state = match (row.status, &owner) {
        _ if over => "settled",
        (Status::Running, _) => "running",
        (_, None) => "queued",
        (_, Some(_)) => "placed",
    };
    RequestRow {
        request_id: row.request.to_string(),
        parent: row.parent.map(|parent| parent.to_string()),
        depth: 0,
        function: format!("{}:{}", row.function.package, row.function.name),
        version: row.function.version,
        alias: row.alias,
        labels: row.labels.to_map(),
        state: state.to_owned(),
        asynchronous: Some(true),
        stopping: row.fenced_by.filter(|_| !over).map(|_| "ask".to_owned()),
        cancel_id: row.fenced_by.map(|cancel| cancel.to_string()),
        code: over.then(|| u16::try_from(row.error_code).unwrap_or(u16::MAX)),
        instance: None,
        pid: None,
        attempt: row.attempts,
        created_ms: Some(row.created_ms),
        started_ms: row.started_ms,
        node: owner.filter(|_| !over),
        waits_for: None,
    }
}
