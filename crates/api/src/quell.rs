//! Quell's own routes, below `/quell/v1`. A caller sees its own project and nothing of others.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use cancel::{CancelId, Cause, Level, RequestId, Scope};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::FunctionFilter;
use supervisor::{Actor, CancelAnswer, CancelOrder, NodeView, PlanView, Receipt, RequestRow, TreeView};
use utoipa::{IntoParams, ToSchema};

use crate::{
    auth::{Caller, Head, Right},
    error::ApiError,
    functions::number,
    list_invocations,
    openapi::Refusals,
    registry::Api,
    settings::MAX_RECEIPTS,
    urn::Urn,
};

/// What lives on the node, of the caller's project.
#[utoipa::path(get, path = "/quell/v1/node", tag = "node", responses((status = 200, body = NodeView), Refusals))]
pub(crate) async fn node(State(api): State<Arc<Api>>, head: Head) -> Result<Json<NodeView>, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    let view = api.handle.node(Some(caller.project.clone())).await;
    let mut view = view.ok_or_else(|| api.ended())?;
    api.explain_waiting(&caller.project, &mut view.requests).await;
    Ok(Json(view))
}

/// The tree of a request, if all of it is the caller's: children are always of the same project.
async fn own_tree(api: &Api, caller: &Caller, id: &str) -> Result<(RequestId, TreeView), ApiError> {
    let request = RequestId::parse(id).ok_or_else(|| ApiError::not_found("request"))?;
    let mut tree = api.handle.tree(request).await.ok_or_else(|| ApiError::not_found("request"))?;
    if tree.project != caller.project {
        return Err(ApiError::not_found("request"));
    }
    api.explain_waiting(&caller.project, &mut tree.requests).await;
    Ok((request, tree))
}

/// The live tree a request is in.
#[utoipa::path(get, path = "/quell/v1/requests/{id}/tree", tag = "requests", params(("id" = String, Path, description = "a request id")), responses((status = 200, body = TreeView), Refusals))]
pub(crate) async fn tree(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    head: Head,
) -> Result<Json<TreeView>, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    Ok(Json(own_tree(&api, &caller, &id).await?.1))
}

/// One request.
#[utoipa::path(get, path = "/quell/v1/requests/{id}", tag = "requests", params(("id" = String, Path, description = "a request id")), responses((status = 200, description = "a live one, or one that is kept: then as a row of the list of asynchronous requests", body = serde_json::Value), Refusals))]
pub(crate) async fn request(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    if let Ok((request, tree)) = own_tree(&api, &caller, &id).await
        && let Some(row) = row(&tree, request)
    {
        return Ok(Json(json!(row)));
    }
    let request = RequestId::parse(&id).ok_or_else(|| ApiError::not_found("request"))?;
    api.store.barrier().await?;
    let record = api.store.invocation(request).await?;
    let record = record.filter(|record| record.function.project == caller.project);
    let record = record.ok_or_else(|| ApiError::not_found("request"))?;
    let mut shown = list_invocations::row(&record);
    shown["version"] = json!(record.function.version);
    shown["alias"] = json!(record.alias);
    if !record.labels.is_empty() {
        shown["labels"] = json!(record.labels.to_map());
    }
    shown["function"] = json!(format!("{}:{}", record.function.package, record.function.name));
    shown["cancel_id"] = json!(record.fenced_by.map(|cancel| cancel.to_string()));
    Ok(Json(shown))
}

fn row(tree: &TreeView, request: RequestId) -> Option<&RequestRow> {
    let id = request.to_string();
    tree.requests.iter().find(|row| row.request_id == id)
}

/// How a cancel would be asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PlanQuery {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    recursive: bool,
}

/// What a cancel would do now.
#[utoipa::path(get, path = "/quell/v1/requests/{id}/plan", tag = "requests", params(("id" = String, Path, description = "a request id"), PlanQuery), responses((status = 200, body = PlanView), Refusals))]
pub(crate) async fn plan(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Query(query): Query<PlanQuery>,
    head: Head,
) -> Result<Json<PlanView>, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    let (request, tree) = own_tree(&api, &caller, &id).await?;
    let (recursive, force) = match query.kind.as_deref() {
        None => (query.recursive, query.force),
        Some("recursive") => (true, query.force),
        Some("force") => (query.recursive, true),
        Some(_) => return Err(ApiError::invalid("type is neither \"force\" nor \"recursive\"")),
    };
    let function = row(&tree, request).and_then(|row| row.function.split_once(':'));
    let (package, name) = function.ok_or_else(|| ApiError::not_found("request"))?;
    let order = CancelOrder {
        request,
        function: FunctionFilter {
            project: caller.project,
            package: package.to_owned(),
            name: name.to_owned(),
            versions: Vec::new(),
        },
        scope: if recursive { Scope::Subtree } else { Scope::Request },
        level: if force { Level::Kill } else { Level::Ask },
        cause: Cause::Asked,
        early: false,
        actor: Actor::default(),
    };
    match api.handle.plan(order).await {
        Ok(plan) => Ok(Json(plan)),
        Err(CancelAnswer::Done { cancel, .. }) => {
            Err(ApiError::invalid(format!("already cancelled: {cancel}")))
        }
        Err(CancelAnswer::Finished(status)) => Err(ApiError::invalid(format!("Invalid RequestId: {status}"))),
        Err(CancelAnswer::Gone) => {
            Err(ApiError::unavailable("the node has ended, or cannot read what other nodes have"))
        }
        Err(_) => Err(ApiError::not_found("request")),
    }
}

/// The last 64 KiB that a live instance printed, as text.
#[utoipa::path(get, path = "/quell/v1/instances/{id}/output", tag = "node",
               params(("id" = String, Path, description = "an instance")),
               responses((status = 200, body = String), Refusals))]
pub(crate) async fn output(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    head: Head,
) -> Result<String, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    let output = api.handle.output(id, caller.project).await;
    output.ok_or_else(|| ApiError::not_found("instance"))
}

/// The receipt of a cancel.
#[utoipa::path(get, path = "/quell/v1/cancels/{id}", tag = "cancels", params(("id" = String, Path, description = "a cancel id")), responses((status = 200, body = Receipt), Refusals))]
pub(crate) async fn receipt(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    head: Head,
) -> Result<Json<Receipt>, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    let cancel = CancelId::parse(&id).ok_or_else(|| ApiError::not_found("receipt"))?;
    let receipt = api.handle.receipt(cancel).await?;
    let receipt = receipt.filter(|receipt| receipt.project == caller.project);
    receipt.map(Json).ok_or_else(|| ApiError::not_found("receipt"))
}

/// Which receipts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReceiptsQuery {
    /// Of this function: any form of its URN.
    function: Option<String>,
    /// Not before: `YYYY-MM-DDTHH:mm:ss`, UTC.
    from: Option<String>,
    /// Not after.
    until: Option<String>,
    /// Where the page begins: a number.
    marker: Option<String>,
    /// How many, at most 500: a number.
    limit: Option<String>,
}

/// A page of receipts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReceiptsPage {
    receipts: Vec<Receipt>,
    /// How many are on this page.
    count: usize,
    /// Where the next page begins; 0 after the last.
    next_marker: u64,
}

/// Receipts, newest first.
#[utoipa::path(get, path = "/quell/v1/cancels", tag = "cancels", params(ReceiptsQuery), responses((status = 200, body = ReceiptsPage), Refusals))]
pub(crate) async fn receipts(
    State(api): State<Arc<Api>>,
    Query(query): Query<ReceiptsQuery>,
    head: Head,
) -> Result<Json<ReceiptsPage>, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    // Empty is absent: clients send it so.
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let ReceiptsQuery { function, from, until, marker, limit } = query;
    let (named, from, until) = (given(function), given(from), given(until));
    let function = named.as_deref().map(|urn| Urn::parse(urn, &caller.project)).transpose()?;
    let function = function.filter(|urn| urn.key.project == caller.project);
    let function = function.and_then(|urn| api.requests_of(&urn));
    if named.is_some() && function.is_none() {
        return Err(ApiError::no_function());
    }
    let offset = number(marker.as_deref(), "marker")?.unwrap_or(0) as u64;
    let limit = number(limit.as_deref(), "limit")?.unwrap_or(100);
    let limit = u32::try_from(limit).unwrap_or(u32::MAX).clamp(1, MAX_RECEIPTS);
    let from = from.as_deref().map(list_invocations::time).transpose()?.unwrap_or(0);
    let until = until.as_deref().map(list_invocations::time).transpose()?.unwrap_or(i64::MAX);
    api.store.barrier().await?;
    let records = api.store.receipts(caller.project, function, (from, until), offset, limit).await?;
    let receipts: Vec<Receipt> =
        records.iter().filter_map(|record| serde_json::from_str(&record.body).ok()).collect();
    // Whether there are more is seen when the next page is asked for; a short page is the last.
    let full = records.len() == limit as usize;
    let next = if full { offset + records.len() as u64 } else { 0 };
    Ok(Json(ReceiptsPage { count: receipts.len(), receipts, next_marker: next }))
}
