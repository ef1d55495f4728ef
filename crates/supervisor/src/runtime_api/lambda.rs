//! The Lambda Runtime API, as its vendor's own clients speak it (`runtime-api.md` 1.1 to 1.3).
//!
//! Whatever they report is answered with 202: for less, one of them ends its process. Errors have the
//! vendor's shape, `{errorMessage, errorType}`.

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::{
    Told, headers_of, init_failed, invocation_id, next_delivery, read_error, read_response, report, small,
    streamed::{error_body, meaning},
};
use crate::{
    doors::Doors,
    http::Ends,
    message::{Delivery, Message, ReportKind},
    trace::TraceContext,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("lambda-runtime-aws-request-id");
const DEADLINE: HeaderName = HeaderName::from_static("lambda-runtime-deadline-ms");
const FUNCTION: HeaderName = HeaderName::from_static("lambda-runtime-invoked-function-arn");
const TRACE_ID: HeaderName = HeaderName::from_static("lambda-runtime-trace-id");
const CLIENT_CONTEXT: HeaderName = HeaderName::from_static("lambda-runtime-client-context");
/// Clients that know it echo it with what they report: it says which delivery that belongs to.
const INVOCATION_ID: HeaderName = HeaderName::from_static("lambda-runtime-invocation-id");
/// The same, for what reads our own protocols.
const OWN_INVOCATION_ID: HeaderName = HeaderName::from_static("x-quell-invocation-id");
const RESPONSE_MODE: HeaderName = HeaderName::from_static("lambda-runtime-function-response-mode");
pub(super) const ERROR_TYPE: HeaderName = HeaderName::from_static("lambda-runtime-function-error-type");

pub(super) fn routes() -> Router<mpsc::Sender<Message>> {
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .route("/2018-06-01/runtime/init/error", post(init_error))
        .route("/2018-06-01/runtime/restore/next", get(restored))
        .route("/2018-06-01/runtime/restore/error", post(init_error))
        .route("/2018-06-01/{*unknown}", any(nothing_here))
}

async fn next(State(inbox): State<mpsc::Sender<Message>>, Extension(ends): Extension<Ends>) -> Response {
    match next_delivery(&inbox, ends).await {
        Ok(delivery) => deliver(delivery),
        Err(status) => failure(status),
    }
}

fn deliver(delivery: Delivery) -> Response {
    let invocation = invocation_id(delivery.request, delivery.attempt);
    let headers = headers_of([
        (REQUEST_ID, delivery.request.to_string()),
        (DEADLINE, delivery.deadline_ms.to_string()),
        (FUNCTION, delivery.function_urn.clone()),
        (TRACE_ID, trace(&delivery).xray()),
        (CLIENT_CONTEXT, client_context(&delivery, &invocation)),
        (INVOCATION_ID, invocation.clone()),
        (OWN_INVOCATION_ID, invocation),
        // Without one two clients die of SIGSEGV; with any other than exactly this one of them hands the
        // bytes to its handler as they are.
        (header::CONTENT_TYPE, "application/json".to_owned()),
    ]);
    (headers, delivery.payload).into_response()
}

/// The trace of the request, else one of its own, whose parent is this attempt of it: then nothing is sampled, as nobody
/// collects it.
fn trace(delivery: &Delivery) -> TraceContext {
    let own = || TraceContext::of(delivery.request, false).below(u64::from(delivery.attempt.0));
    delivery.trace.clone().unwrap_or_else(own)
}

/// What the handler finds in its context: the credentials of this very request, with which it invokes its
/// children. All values are text in one map, since one client takes nothing else.
fn client_context(delivery: &Delivery, invocation: &str) -> String {
    let secrets = &delivery.secrets;
    let mut custom = Map::new();
    for (name, value) in [
        ("quell-token", secrets.token.as_str()),
        ("quell-access-key", &secrets.access_key),
        ("quell-secret-key", &secrets.secret_key),
        ("quell-security-token", &secrets.token),
        ("quell-invocation-id", invocation),
        ("quell-invoke-type", if delivery.asynchronous { "async" } else { "sync" }),
    ] {
        custom.insert(name.to_owned(), json!(value));
    }
    if let Some(alias) = &delivery.alias {
        custom.insert("quell-alias".to_owned(), json!(**alias));
    }
    let trace = trace(delivery);
    let mut w3c = json!({ "traceparent": trace.to_string() });
    if !trace.state().is_empty() {
        w3c["tracestate"] = json!(trace.state());
    }
    json!({ "custom": custom, "w3c": w3c }).to_string()
}

async fn response(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
    Extension(doors): Extension<Doors>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let read = match read_response(&doors, ends, body).await {
        Ok(read) => read,
        Err(status) => return failure(status),
    };
    let invocation = headers.get(INVOCATION_ID);
    let mode = headers.get(RESPONSE_MODE).map(|mode| mode.as_bytes());
    if mode.is_some_and(|mode| !matches!(mode, b"streaming" | b"buffered")) {
        let body = error_body("Runtime.InvalidResponseMode", "the response mode is neither of those known");
        report(&inbox, ends, Told { id: &id, invocation, body, kind: ReportKind::Error }).await;
        return failure(StatusCode::BAD_REQUEST);
    }
    let (body, kind) = match read.kind {
        ReportKind::Response => meaning(&headers, read.trailers.as_ref(), read.body.clone()),
        kind => (Bytes::new(), kind),
    };
    reported(report(&inbox, ends, Told { id: &id, invocation, body, kind }).await)
}

async fn error(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let (body, kind) = read_error(body).await;
    let body = with_type(body, &headers);
    let told = Told { id: &id, invocation: headers.get(INVOCATION_ID), body, kind };
    reported(report(&inbox, ends, told).await)
}

/// A reported error; one that does not say in its body what it is says so in its headers.
fn with_type(body: Bytes, headers: &HeaderMap) -> Bytes {
    if serde_json::from_slice::<Map<String, Value>>(&body).is_ok_and(|body| body.contains_key("errorMessage"))
    {
        return body;
    }
    let kind = headers.get(ERROR_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("Unknown");
    error_body(kind, &String::from_utf8_lossy(&body))
}

async fn init_error(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // Half a reason is none. Of several processes that cannot start, one is ended while it says why.
    let Some(body) = small(body).await else { return failure(StatusCode::BAD_REQUEST) };
    reported(init_failed(&inbox, ends, with_type(body, &headers).into()).await)
}

/// No instance is ever restored, so whoever asks may go on at once.
async fn restored() -> StatusCode {
    StatusCode::OK
}

pub(super) async fn nothing_here() -> Response {
    failure(StatusCode::NOT_FOUND)
}

/// The answer to a report. What was too large, late or fenced is answered as what counts.
pub(super) fn reported(status: StatusCode) -> Response {
    match status {
        StatusCode::ACCEPTED | StatusCode::PAYLOAD_TOO_LARGE => {
            (StatusCode::ACCEPTED, axum::Json(json!({ "status": "OK" }))).into_response()
        }
        status => failure(status),
    }
}

/// A refusal in the vendor's shape.
pub(super) fn failure(status: StatusCode) -> Response {
    let (kind, message) = match status {
        StatusCode::BAD_REQUEST => ("InvalidRequest", "the id, the mode or the body of this report is none"),
        StatusCode::FORBIDDEN => ("Forbidden", "not the address of an instance"),
        StatusCode::NOT_FOUND => ("NotFound", "there is nothing of this name"),
        StatusCode::SERVICE_UNAVAILABLE => ("Unavailable", "the instance is gone, or holds too many polls"),
        _ => ("InternalError", "this should not be"),
    };
    (status, axum::Json(json!({ "errorMessage": message, "errorType": kind }))).into_response()
}

#[cfg(test)]
mod tests;
