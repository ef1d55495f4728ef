//! The protocol of FunctionGraph's custom runtimes (`runtime-api.md` 1.7), as our own images speak it.

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::sync::mpsc;

use super::{Told, headers_of, init_failed, invocation_id, next_delivery, read_error, read_response, report};
use crate::{
    doors::Doors,
    http::Ends,
    message::{Delivery, Message},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-cff-request-id");
const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-cff-auth-token");
const ACCESS_KEY: HeaderName = HeaderName::from_static("x-cff-access-key");
const SECRET_KEY: HeaderName = HeaderName::from_static("x-cff-secret-key");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-cff-security-token");
const INVOKE_TYPE: HeaderName = HeaderName::from_static("x-cff-invoke-type");
/// Echoed with what is reported, it says which delivery that belongs to.
const INVOCATION_ID: HeaderName = HeaderName::from_static("x-quell-invocation-id");
const DEADLINE: HeaderName = HeaderName::from_static("x-quell-deadline-ms");
const FUNCTION_URN: HeaderName = HeaderName::from_static("x-quell-function-urn");
/// W3C trace context: what the function begins is below that.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const ALIAS: HeaderName = HeaderName::from_static("x-quell-alias");

pub(super) fn routes() -> Router<mpsc::Sender<Message>> {
    Router::new()
        .route("/v1/runtime/invocation/request", get(next))
        .route("/v1/runtime/invocation/response/{id}", post(response))
        .route("/v1/runtime/invocation/error/{id}", post(error))
        .route("/v1/runtime/init/error", post(init_error))
}

async fn next(State(inbox): State<mpsc::Sender<Message>>, Extension(ends): Extension<Ends>) -> Response {
    match next_delivery(&inbox, ends).await {
        Ok(delivery) => deliver(delivery),
        Err(status) => status.into_response(),
    }
}

/// What a runtime is told of a delivery besides the event.
pub(crate) fn functiongraph_headers(delivery: &Delivery) -> HeaderMap {
    let kind = if delivery.asynchronous { "async" } else { "sync" };
    let mut headers = headers_of([
        (REQUEST_ID, delivery.request.to_string()),
        (SECURITY_TOKEN, delivery.secrets.token.clone()),
        (AUTH_TOKEN, delivery.secrets.token.clone()),
        (ACCESS_KEY, delivery.secrets.access_key.clone()),
        (SECRET_KEY, delivery.secrets.secret_key.clone()),
        (INVOKE_TYPE, kind.to_owned()),
        (INVOCATION_ID, invocation_id(delivery.request, delivery.attempt)),
        (DEADLINE, delivery.deadline_ms.to_string()),
        (FUNCTION_URN, delivery.function_urn.clone()),
    ]);
    if let Some(alias) = delivery.alias.as_ref().and_then(|alias| HeaderValue::from_str(alias).ok()) {
        headers.insert(ALIAS, alias);
    }
    if let Some(trace) = &delivery.trace {
        headers.extend(headers_of([(TRACEPARENT, trace.to_string())]));
        if !trace.state().is_empty() {
            headers.extend(headers_of([(TRACESTATE, trace.state().to_owned())]));
        }
    }
    headers
}

fn deliver(delivery: Delivery) -> Response {
    let mut headers = functiongraph_headers(&delivery);
    // Without a content type some clients die of SIGSEGV (`runtime-api.md` 1.1).
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    (headers, delivery.payload).into_response()
}

async fn response(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
    Extension(doors): Extension<Doors>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> StatusCode {
    let read = match read_response(&doors, ends, body).await {
        Ok(read) => read,
        Err(status) => return status,
    };
    let invocation = headers.get(INVOCATION_ID);
    report(&inbox, ends, Told { id: &id, invocation, body: read.body.clone(), kind: read.kind }).await
}

async fn error(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> StatusCode {
    let (body, kind) = read_error(body).await;
    report(&inbox, ends, Told { id: &id, invocation: headers.get(INVOCATION_ID), body, kind }).await
}

async fn init_error(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
    body: Body,
) -> StatusCode {
    init_failed(&inbox, ends, body).await
}
