//! `POST /quell/v1/cancels`: the cancel of many requests at once, planned first; how one stands; and the list of
//! live requests by the same selection.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use supervisor::{
    Actor, AsOf, Bulk, BulkOrder, BulkPlan, BulkRefusal, ListedPage, MAX_BULK_RATE, NotSelected, Selection,
};
use utoipa::{IntoParams, ToSchema};

use crate::{
    auth::{Caller, Head, Right},
    body,
    cancel::{self, How},
    error::ApiError,
    functions::number,
    openapi::Refusals,
    registry::Api,
    selection::Where,
    settings::{MAX_CANCEL_BODY, MAX_LISTED},
    urn::Urn,
};

/// Cancels a second, if nothing is said: 20,000 in 20 s, and no caller of anything else sees it.
const DEFAULT_RATE: u32 = 1_000;
/// Bytes of a key: a UUID, a date, a ticket.
const MAX_KEY: usize = 128;
/// Four numbers with dots.
const MAX_AS_OF: usize = 96;

/// A cancel of many requests.
#[derive(Debug, Serialize, ToSchema)]
#[allow(dead_code)] // it describes the body; what reads it names each mistake
pub(crate) struct BulkAsk {
    /// Which: `function=f,age>10m,status=waiting,parent=ID,label.team=x`, or an object of the same.
    r#where: Value,
    /// A name of your own: asking again under it tells how it stands, and never selects anew. Needed unless
    /// `dry_run`.
    key: Option<String>,
    /// `recursive` or `force`, as for a single cancel.
    r#type: Option<String>,
    /// Also everything below.
    recursive: Option<bool>,
    /// Kill at once.
    force: Option<bool>,
    /// Why, for the receipts.
    reason: Option<String>,
    /// Only say what would be done.
    dry_run: Option<bool>,
    /// Cancels a second, at most.
    rate: Option<u32>,
    /// From a plan: nothing that arrived after it is selected.
    as_of: Option<String>,
}

/// What was understood.
pub(crate) struct Ask {
    wanted: Where,
    how: How,
    key: Option<String>,
    dry_run: bool,
    rate: u32,
    as_of: Option<AsOf>,
}

/// Plans or begins a cancel of many requests.
#[utoipa::path(post, path = "/quell/v1/cancels", tag = "cancels", request_body = BulkAsk, responses(
    (status = 200, description = "with dry_run what would be done; else how the one of this key stands", body = BulkPlan),
    (status = 202, description = "it begins, and a new life of the node would go on with it", body = Bulk),
    Refusals))]
pub(crate) async fn ask(State(api): State<Arc<Api>>, head: Head, body: Body) -> Result<Response, ApiError> {
    let caller = api.any_caller(&head, Right::Cancel)?;
    let body = api.body(&caller, body, MAX_CANCEL_BODY).await?;
    body::must_be_json(&head)?;
    let ask = parse(&body).map_err(ApiError::invalid)?;
    if ask.dry_run {
        api.any_caller(&head, Right::Read)?; // it tells what there is
    }
    let selection = selection(&api, &caller, &ask.wanted, ask.as_of)?;
    if ask.dry_run {
        let plan = api.handle.bulk_plan(selection, ask.how.scope, ask.how.level).await.map_err(unselected)?;
        if plan.selected == 0 {
            must_be_there(&api, &caller, &ask.wanted)?;
        }
        return Ok(Json(plan).into_response());
    }
    let key = ask.key.ok_or_else(|| {
        ApiError::invalid(
            "key is missing: a name of your own, under which this is asked for once and no more",
        )
    })?;
    let described = ask.wanted.to_string();
    let actor =
        Actor { credential: caller.credential, remote: head.peer(), reason: ask.how.reason, bulk: None };
    let (scope, level) = (ask.how.scope, ask.how.level);
    let order = BulkOrder { key, selection, described, scope, level, rate: ask.rate, actor };
    let (bulk, is_new) = api.handle.bulk_cancel(order).await.map_err(refused)?;
    let status = if is_new { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok((status, Json(bulk)).into_response())
}

pub(crate) fn parse(body: &[u8]) -> Result<Ask, String> {
    let object = body::object(body)?;
    let how = cancel::how(&object)?;
    let wanted = object.get("where").ok_or("where is missing: which requests")?;
    let wanted = Where::of_json(wanted).map_err(|why| format!("where: {why}"))?;
    let dry_run = match object.get("dry_run") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(flag)) => *flag,
        Some(_) => return Err("dry_run is not a boolean".to_owned()),
    };
    if wanted.is_everything() {
        return Err("where selects every request of the project; if you mean that, say age>0s".to_owned());
    }
    let rate = match object.get("rate") {
        None | Some(Value::Null) => DEFAULT_RATE,
        Some(rate) => {
            let rate = rate.as_u64().and_then(|rate| u32::try_from(rate).ok());
            let rate = rate.filter(|rate| (1..=MAX_BULK_RATE).contains(rate));
            rate.ok_or_else(|| format!("rate is not a number of 1 to {MAX_BULK_RATE} cancels a second"))?
        }
    };
    let as_of = match text(&object, "as_of", MAX_AS_OF)? {
        None => None,
        Some(text) => Some(AsOf::parse(&text).ok_or("as_of is not what a plan said")?),
    };
    let key = text(&object, "key", MAX_KEY)?;
    let plain =
        |key: &String| key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    if !key.as_ref().is_none_or(plain) {
        return Err("key is not of letters, digits and - _ . :".to_owned());
    }
    Ok(Ask { wanted, how, key, dry_run, rate, as_of })
}

fn text(object: &Map<String, Value>, name: &str, longest: usize) -> Result<Option<String>, String> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if (1..=longest).contains(&text.len()) => Ok(Some(text.clone())),
        Some(Value::String(_)) => Err(format!("{name} has not 1 to {longest} bytes")),
        Some(_) => Err(format!("{name} is not a text")),
    }
}

/// What a caller may select: his own project's.
fn selection(api: &Api, caller: &Caller, wanted: &Where, as_of: Option<AsOf>) -> Result<Selection, ApiError> {
    let urn = wanted.function.as_deref().map(|function| Urn::parse(function, &caller.project)).transpose()?;
    let function = match urn {
        None => None,
        Some(urn) if urn.key.project != caller.project => return Err(ApiError::no_function()),
        Some(urn) => Some(api.requests_of(&urn).ok_or_else(ApiError::no_function)?),
    };
    Ok(Selection {
        project: caller.project.clone(),
        function,
        older_than: wanted.older_than,
        standing: wanted.status,
        parent: wanted.parent,
        labels: wanted.labels.clone(),
        as_of,
    })
}

/// Nothing of it is live: it may be a name that was misspelt.
fn must_be_there(api: &Api, caller: &Caller, wanted: &Where) -> Result<(), ApiError> {
    let Some(function) = &wanted.function else { return Ok(()) };
    let urn = Urn::parse(function, &caller.project)?;
    api.version(&urn, &caller.project).map(drop)
}

fn unselected(why: NotSelected) -> ApiError {
    let message = why.to_string();
    match why {
        NotSelected::TooMany(_) => ApiError::invalid(message),
        NotSelected::EarlierLife => ApiError::new(StatusCode::CONFLICT, "FSS.0409", message),
        NotSelected::Gone => ApiError::unavailable(message),
        NotSelected::Store(_) => ApiError::unavailable(message),
    }
}

fn refused(why: BulkRefusal) -> ApiError {
    let message = why.to_string();
    match why {
        BulkRefusal::NotSelected(why) => unselected(why),
        BulkRefusal::OtherAsk { .. } => ApiError::new(StatusCode::CONFLICT, "FSS.0409", message),
        BulkRefusal::TooManyRunning => ApiError::busy(message),
        BulkRefusal::Store(error) => ApiError::from(error),
    }
}

/// How a cancel of many stands, whichever node of a store has it.
#[utoipa::path(get, path = "/quell/v1/cancels/bulk/{key}", tag = "cancels", params(("key" = String, Path, description = "as it was given")), responses((status = 200, body = Bulk), Refusals))]
pub(crate) async fn one(
    State(api): State<Arc<Api>>,
    Path(key): Path<String>,
    head: Head,
) -> Result<Json<Bulk>, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    let bulk = api.handle.bulk(&caller.project, &key).await?;
    bulk.map(Json).ok_or_else(|| ApiError::not_found("bulk cancel"))
}

/// Calls one off: whoever was not asked to stop yet is left alone, by the next life of the node too.
#[utoipa::path(delete, path = "/quell/v1/cancels/bulk/{key}", tag = "cancels", params(("key" = String, Path, description = "as it was given")), responses((status = 200, description = "how it stands; what was begun of it goes on", body = Bulk), Refusals))]
pub(crate) async fn call_off(
    State(api): State<Arc<Api>>,
    Path(key): Path<String>,
    head: Head,
) -> Result<Json<Bulk>, ApiError> {
    let caller = api.any_caller(&head, Right::Cancel)?;
    let bulk = api.handle.call_off_bulk(&caller.project, &key).await?;
    bulk.map(Json).ok_or_else(|| ApiError::not_found("bulk cancel"))
}

/// Those that are remembered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BulkList {
    bulks: Vec<Bulk>,
}

/// The cancels of many that are remembered, the newest first: the last 64 of a project.
#[utoipa::path(get, path = "/quell/v1/cancels/bulk", tag = "cancels", responses((status = 200, body = BulkList), Refusals))]
pub(crate) async fn list(State(api): State<Arc<Api>>, head: Head) -> Result<Json<BulkList>, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    Ok(Json(BulkList { bulks: api.handle.bulks(&caller.project).await? }))
}

/// Which live requests.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RequestsQuery {
    /// As for a cancel of many; all of the project's if it is not given.
    r#where: Option<String>,
    /// Where the page begins: a number.
    marker: Option<String>,
    /// How many, at most 500: a number.
    limit: Option<String>,
}

/// Live requests, in the order of their arrival.
#[utoipa::path(get, path = "/quell/v1/requests", tag = "requests", params(RequestsQuery), responses((status = 200, body = ListedPage), Refusals))]
pub(crate) async fn requests(
    State(api): State<Arc<Api>>,
    Query(query): Query<RequestsQuery>,
    head: Head,
) -> Result<Json<ListedPage>, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    let wanted = Where::parse(query.r#where.as_deref().unwrap_or_default());
    let wanted = wanted.map_err(|why| ApiError::invalid(format!("where: {why}")))?;
    let after = number(query.marker.as_deref(), "marker")?.unwrap_or(0) as u64;
    let limit = number(query.limit.as_deref(), "limit")?.unwrap_or(100).clamp(1, MAX_LISTED);
    let selection = selection(&api, &caller, &wanted, None)?;
    let mut page = api.handle.list(selection, after, limit).await.map_err(unselected)?;
    api.explain_waiting(&caller.project, &mut page.requests).await;
    if page.count == 0 {
        must_be_there(&api, &caller, &wanted)?;
    }
    Ok(Json(page))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::cancel::{Level, Scope};

    fn read(body: &Value) -> Result<Ask, String> {
        parse(body.to_string().as_bytes())
    }

    #[test]
    fn how_to_cancel_is_said_as_for_one() {
        use serde_json::json;
        let ask = read(&json!({
            "where": "function=f", "key": "k-1", "type": "recursive", "force": true, "reason": "why",
            "rate": 5, "as_of": "1764.7.9",
        }))
        .unwrap();
        assert_eq!((ask.how.scope, ask.how.level, ask.rate), (Scope::Subtree, Level::Kill, 5));
        assert_eq!((ask.key.as_deref(), ask.how.reason.as_deref()), (Some("k-1"), Some("why")));
        assert!(ask.as_of.is_some() && !ask.dry_run);
        assert_eq!(read(&json!({ "where": { "status": "waiting" } })).unwrap().rate, DEFAULT_RATE);
    }

    #[test]
    fn each_mistake_is_named() {
        use serde_json::json;
        for (body, said) in [
            (json!({}), "where is missing"),
            (json!({ "where": "" }), "every request"),
            (json!({ "where": {} }), "every request"),
            (json!({ "where": "functoin=f" }), "where: there is no \"functoin\""),
            (json!({ "where": "function=f", "type": "soft" }), "type"),
            (json!({ "where": "function=f", "dry_run": "yes" }), "dry_run"),
            (json!({ "where": "function=f", "rate": 0 }), "rate"),
            (json!({ "where": "function=f", "rate": 10_001 }), "10000"),
            (json!({ "where": "function=f", "rate": 1.5 }), "rate"),
            (json!({ "where": "function=f", "key": "" }), "key has not 1"),
            (json!({ "where": "function=f", "key": "a/b" }), "key is not of"),
            (json!({ "where": "function=f", "key": 7 }), "key is not a text"),
            (json!({ "where": "function=f", "as_of": "now" }), "as_of"),
        ] {
            let error = read(&body).err().unwrap_or_default();
            assert!(error.contains(said), "{body}: {error}");
        }
        for all in [json!(""), json!({})] {
            let error = read(&json!({ "where": all, "dry_run": true })).err().unwrap_or_default();
            assert!(error.contains("every request"), "what cannot be cancelled is not planned: {error}");
        }
    }
}
