//! ListAsyncInvocations.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, State},
};
use cancel::RequestId;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{InvocationPage, InvocationQuery, InvocationRecord, Status};

use crate::{
    auth::{Head, Right},
    error::ApiError,
    functions::number,
    labels,
    registry::Api,
    settings::MAX_INVOCATIONS,
    spec::bad,
    urn::Urn,
};

const HOUR_MS: i64 = 3_600_000;
const DEFAULT_ROWS: u32 = 100;
/// Named in one query; an address holds no more anyway.
const MAX_IDS: usize = 100;

#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    request_id: Option<String>,
    requests: Option<String>,
    status: Option<String>,
    query_begin_time: Option<String>,
    query_end_time: Option<String>,
    marker: Option<String>,
    limit: Option<String>,
    /// Ours: `team=x,tier=1`.
    labels: Option<String>,
}

pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Path(named): Path<(String, String)>,
    Query(query): Query<ListQuery>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    page(&api, named, query, &head, false).await
}

/// ListActiveAsyncInvocations: the same of what is not over.
pub(crate) async fn list_active(
    State(api): State<Arc<Api>>,
    Path(named): Path<(String, String)>,
    Query(query): Query<ListQuery>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    page(&api, named, query, &head, true).await
}

async fn page(
    api: &Api,
    (project, urn): (String, String),
    query: ListQuery,
    head: &Head,
    active: bool,
) -> Result<Json<Value>, ApiError> {
    api.caller_or_403(head, &project, Right::Read)?;
    let urn = Urn::parse(&urn, &project)?;
    api.version(&urn, &project).map_err(|_| ApiError::cannot_find_function())?;
    let function = api.requests_of(&urn).ok_or_else(ApiError::cannot_find_function)?;
    let now = Timestamp::now().as_millisecond();
    let given = |text: &Option<String>| {
        text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    // Clients of the active list name several, with commas; of one that is no id there is no row.
    let named = given(&query.request_id).or_else(|| given(&query.requests));
    let requests: Vec<RequestId> =
        named.iter().flat_map(|ids| ids.split(',')).filter_map(RequestId::parse).collect();
    if requests.len() > MAX_IDS {
        return Err(bad("FSS.1001", format!("more than {MAX_IDS} request ids")));
    }
    if named.is_some() && requests.is_empty() {
        return Ok(show(&InvocationPage::default(), 0));
    }
    // A row that was asked for by its id is shown whenever it was accepted; so is what is not over.
    let default_from = if named.is_some() || active { 0 } else { now - HOUR_MS };
    let offset = number(query.marker.as_deref(), "marker")?.unwrap_or(0) as u64;
    let limit = number(query.limit.as_deref(), "limit")?.unwrap_or(0);
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let filter = InvocationQuery {
        function,
        requests,
        unsettled: active,
        labels: labels::parse(&given(&query.labels).unwrap_or_default()).map_err(ApiError::invalid)?,
        status: given(&query.status).map(|word| status(&word)).transpose()?,
        from_ms: given(&query.query_begin_time).map(|text| time(&text)).transpose()?.unwrap_or(default_from),
        // Not the present: what was accepted before the clock was set back is not hidden.
        until_ms: given(&query.query_end_time).map(|text| time(&text)).transpose()?.unwrap_or(i64::MAX),
        offset,
        limit: if limit == 0 { DEFAULT_ROWS } else { limit.min(MAX_INVOCATIONS) },
    };
    // What was answered before this was asked must be seen in it.
    api.store.barrier().await?;
    let page = api.store.invocations(filter).await?;
    Ok(show(&page, offset))
}

fn show(page: &InvocationPage, offset: u64) -> Json<Value> {
    let rows: Vec<Value> = page.rows.iter().map(row).collect();
    let next = offset + rows.len() as u64;
    let next = if next < page.total { next } else { 0 };
    Json(json!({ "invocations": rows, "count": page.total, "next_marker": next }))
}

/// One request in the shape of the list.
pub(crate) fn row(record: &InvocationRecord) -> Value {
    let time = |ms: Option<i64>| ms.map(shown_time).unwrap_or_default();
    json!({
        "request_id": record.request.to_string(),
        "status": word(record.status),
        "error_code": record.error_code,
        "error_message": record.error_message,
        "start_time": time(record.started_ms.or(Some(record.created_ms))),
        "end_time": time(record.ended_ms),
    })
}

/// A time as the lists show it, UTC; empty if it is none.
pub(crate) fn shown_time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map(|at| at.strftime("%Y-%m-%dT%H:%M:%S").to_string()).unwrap_or_default()
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Wait => "WAIT",
        Status::Running => "RUNNING",
        Status::Success => "SUCCESS",
        Status::Fail => "FAIL",
        Status::Discard => "DISCARD",
    }
}

fn status(word: &str) -> Result<Status, ApiError> {
    Ok(match word {
        "WAIT" => Status::Wait,
        "RUNNING" => Status::Running,
        "SUCCESS" => Status::Success,
        "FAIL" => Status::Fail,
        "DISCARD" => Status::Discard,
        _ => return Err(bad("FSS.1001", format!("status {word:?} is not one of the five"))),
    })
}

/// `YYYY-MM-DDTHH:mm:ss`, UTC; with an offset where a client adds one.
pub(crate) fn time(text: &str) -> Result<i64, ApiError> {
    let at = text.parse::<Timestamp>().or_else(|_| {
        let local: DateTime = text.parse()?;
        TimeZone::UTC.to_timestamp(local)
    });
    at.map(Timestamp::as_millisecond)
        .map_err(|_| bad("FSS.1001", format!("{text:?} is not a time like 2026-01-31T23:59:59")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_or_without_an_offset() {
        assert_eq!(time("1970-01-01T00:00:01").unwrap(), 1_000);
        assert_eq!(time("1970-01-01T00:00:01+00:00").unwrap(), 1_000);
        assert_eq!(time("1970-01-01T01:00:01+01:00").unwrap(), 1_000);
        assert!(time("yesterday").is_err());
    }
}
