//! InvokeFunction and AsyncInvokeFunction.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use cancel::{Outcome, RequestId};
use serde_json::{Value, json};
use store::Labels;
use supervisor::{Completion, FunctionSpec, Invocation, InvokeError, TraceContext};

use crate::{
    auth::{Caller, Head, Right},
    body,
    error::ApiError,
    labels,
    named::Serving,
    registry::Api,
    response::{REQUEST_ID, set, text_header},
    run_log::{self, Figures},
    settings::{MAX_ASYNC_EVENT, MAX_SYNC_EVENT},
    spec::MEMORY_SIZES,
    urn::Urn,
};

const CFF_REQUEST_ID: HeaderName = HeaderName::from_static("x-cff-request-id");
const SUMMARY: HeaderName = HeaderName::from_static("x-cff-invoke-summary");
const FUNCTION_LOG: HeaderName = HeaderName::from_static("x-cff-function-log");
const VERSION: HeaderName = HeaderName::from_static("x-cff-response-version");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-func-err-code");
const IS_ERROR: HeaderName = HeaderName::from_static("x-is-func-err");
const BILLING: HeaderName = HeaderName::from_static("x-cff-billing-duration");

/// Codes from here on are the platform's, below the user's (`functiongraph.md` 5.2).
const FIRST_SYSTEM_CODE: u16 = 10_000;

/// Runs it and answers with its result.
pub(crate) async fn invoke(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
    body: Body,
) -> Result<Response, ApiError> {
    let caller = api.caller(&head, &project, Right::Invoke)?;
    let log = run_log::is_asked(&head)?;
    let labels = labels::of(&head)?;
    let request = fresh();
    let (serving, payload) = read(&api, &project, &urn, &head, body, MAX_SYNC_EVENT, request).await?;
    api.still(&caller).await?;
    let wrapped = head.get("x-cff-request-version").is_some_and(|version| version == "v1");
    let function = Arc::clone(&serving.0);
    let invocation = Invocation { labels, log, ..invocation(request, serving, payload, &caller, &head) };
    let mut response = match api.handle.invoke(invocation).await {
        Ok(completion) => answer(request, &completion, wrapped, &function),
        Err(error) => refused(&api, error).await,
    };
    set(&mut response, CFF_REQUEST_ID, &request.to_string());
    set(&mut response, REQUEST_ID, &request.to_string());
    Ok(response)
}

/// Accepts it: 202 once it is on the disk.
pub(crate) async fn invoke_async(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
    body: Body,
) -> Result<Response, ApiError> {
    let caller = api.caller(&head, &project, Right::Invoke)?;
    let labels = labels::of(&head)?;
    let request = fresh();
    let (serving, payload) = read(&api, &project, &urn, &head, body, MAX_ASYNC_EVENT, request).await?;
    api.still(&caller).await?;
    let invocation = Invocation { labels, ..invocation(request, serving, payload, &caller, &head) };
    let mut response = match api.handle.invoke_async(invocation).await {
        Ok(()) => (StatusCode::ACCEPTED, Json(json!({ "request_id": request.to_string() }))).into_response(),
        Err(error) => refused(&api, error).await,
    };
    set(&mut response, REQUEST_ID, &request.to_string());
    Ok(response)
}

fn fresh() -> RequestId {
    RequestId(uuid::Uuid::new_v4().as_u128())
}

/// Reads what both need: the version of the function that serves it, and an event that is JSON.
async fn read(
    api: &Api,
    project: &str,
    urn: &str,
    head: &Head,
    body: Body,
    limit: usize,
    request: RequestId,
) -> Result<(Serving, Bytes), ApiError> {
    body::must_be_json(head)?;
    check_memory(head)?;
    let urn = Urn::parse(urn, project)?;
    let serving = api.serving(&urn, project, request)?;
    let mut payload = body::read(body, limit).await?;
    if payload.is_empty() {
        payload = Bytes::from_static(b"{}");
    } else if let Err(error) = serde_json::from_slice::<&serde_json::value::RawValue>(&payload) {
        return Err(body::not_json(format!("the event is not JSON: {error}")));
    }
    Ok((serving, payload))
}

/// `X-Cff-Instance-Memory` counts for functions with dynamic memory only, which a node has none of; a value
/// that it cannot have is refused all the same, as the API does.
fn check_memory(head: &Head) -> Result<(), ApiError> {
    let text = text_header(head, "x-cff-instance-memory")?;
    if text.is_empty() || text.parse().is_ok_and(|memory: u64| MEMORY_SIZES.contains(&memory)) {
        return Ok(());
    }
    let why = format!("X-Cff-Instance-Memory {text:?} is not one of {MEMORY_SIZES:?}");
    Err(ApiError::new(StatusCode::NOT_ACCEPTABLE, "FSS.0406", why))
}

fn invocation(
    request: RequestId,
    (function, alias): Serving,
    payload: Bytes,
    caller: &Caller,
    head: &Head,
) -> Invocation {
    Invocation {
        request,
        function,
        alias,
        payload,
        parent: caller.request,
        detached: head.get("x-quell-detached").is_some_and(|detached| detached == "true"),
        labels: Labels::default(),
        log: false,
        trace: trace(head),
    }
}

/// The trace that the caller is in (W3C trace context). What cannot be read is as if it were not there.
fn trace(head: &Head) -> Option<TraceContext> {
    let parent = head.get("traceparent")?.to_str().ok()?;
    let states = head.get_all("tracestate").iter().map(|state| state.to_str().unwrap_or_default());
    let state = states.collect::<Vec<_>>().join(",");
    TraceContext::read(parent, &state)
}

fn answer(request: RequestId, completion: &Completion, wrapped: bool, function: &FunctionSpec) -> Response {
    let code = completion.outcome.code();
    let ok = completion.outcome == Outcome::Returned;
    let figures = figures(completion, function.memory_mb);
    let log = completion.log.as_ref().map(|log| run_log::tail(request, &function.key.version, log, &figures));
    let mut response = match (ok, wrapped) {
        (true, false) => {
            // The result as such. Most functions return JSON; what is not is text.
            let json = serde_json::from_slice::<&serde_json::value::RawValue>(&completion.body).is_ok();
            let kind = if json { "application/json" } else { "text/plain; charset=utf-8" };
            ([(header::CONTENT_TYPE, kind)], completion.body.clone()).into_response()
        }
        (true, true) => {
            let result = String::from_utf8_lossy(&completion.body);
            let body = json!({
                "request_id": request.to_string(),
                "result": result,
                "log": log.as_deref().unwrap_or_default(),
                "status": 200,
            });
            Json(body).into_response()
        }
        (false, _) => {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            ApiError::new(status, &format!("FSS.{code}"), completion.message.clone()).into_response()
        }
    };
    let Figures { duration, billing, .. } = figures;
    let mut summary: Value =
        json!({ "duration": duration, "billingDuration": billing, "memorySize": figures.memory });
    if let Some(used) = figures.used {
        summary["memoryUsed"] = json!(used);
    }
    set(&mut response, SUMMARY, &summary.to_string());
    if let Some(log) = &log {
        set(&mut response, FUNCTION_LOG, &run_log::encoded(log));
    }
    set(&mut response, BILLING, &billing.to_string());
    set(&mut response, VERSION, if wrapped { "v1" } else { "v0" });
    set(&mut response, ERROR_CODE, &code.to_string());
    let users = !ok && code < FIRST_SYSTEM_CODE;
    set(&mut response, IS_ERROR, if users { "true" } else { "false" });
    response
}

fn figures(completion: &Completion, memory: u32) -> Figures {
    let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
    #[expect(clippy::cast_precision_loss, reason = "2^53 bytes are 8 PiB")]
    let used = completion.memory_used.map(|bytes| rounded(bytes as f64 / f64::from(1 << 20)));
    Figures {
        duration: rounded(completion.duration.as_secs_f64() * 1000.0),
        billing: completion.duration.as_millis() + 1,
        memory,
        used,
    }
}

async fn refused(api: &Api, error: InvokeError) -> Response {
    let canceled = error == InvokeError::ParentCanceled;
    let error = match error {
        InvokeError::LacksLabels { asked, missing } => api.placed_elsewhere(&asked, &missing).await,
        error => error.into(),
    };
    let mut response = error.into_response();
    if canceled {
        set(&mut response, ERROR_CODE, &cancel::CODE_CANCELED.to_string());
    }
    response
}
