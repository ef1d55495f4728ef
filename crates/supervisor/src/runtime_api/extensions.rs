//! The Extensions API, as much of it as unmodified binaries need to go on (`runtime-api.md` 1.6): to register,
//! and to wait. No event is ever sent: an instance ends without one, as it may always.

use std::future::pending;

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{any, get, post, put},
};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    init_failed,
    lambda::{failure, nothing_here, reported},
    loopback, small,
};
use crate::{doors::Doors, http::Ends, message::Message};

const NAME: HeaderName = HeaderName::from_static("lambda-extension-name");
const IDENTIFIER: HeaderName = HeaderName::from_static("lambda-extension-identifier");

/// What an extension may want to hear of.
const EVENTS: [&str; 2] = ["INVOKE", "SHUTDOWN"];

#[derive(Deserialize)]
struct Wanted {
    events: Vec<String>,
}

pub(super) fn routes() -> Router<mpsc::Sender<Message>> {
    Router::new()
        .route("/2020-01-01/extension/register", post(register))
        .route("/2020-01-01/extension/event/next", get(next))
        .route("/2020-01-01/extension/init/error", post(init_error))
        .route("/2020-01-01/extension/exit/error", post(exit_error))
        .route("/2020-01-01/{*unknown}", any(nothing_here))
        .route("/2020-08-15/logs", put(no_logs))
        .route("/2022-07-01/telemetry", put(no_telemetry))
}

/// Every extension that has a name is welcome. Nothing is kept of it, so there is no bound to how many.
async fn register(
    Extension(ends): Extension<Ends>,
    Extension(doors): Extension<Doors>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(function) = loopback(ends).and_then(|at| doors.function(at)) else {
        return failure(StatusCode::FORBIDDEN);
    };
    let wanted = small(body).await.and_then(|body| serde_json::from_slice::<Wanted>(&body).ok());
    let known =
        wanted.is_some_and(|wanted| wanted.events.iter().all(|event| EVENTS.contains(&event.as_str())));
    if headers.get(NAME).is_none_or(HeaderValue::is_empty) || !known {
        return failure(StatusCode::BAD_REQUEST);
    }
    let identifier = HeaderValue::from_str(&uuid::Uuid::new_v4().to_string());
    let answer = axum::Json(json!({
        "functionName": function.key.name,
        "functionVersion": function.key.version,
        "handler": function.handler,
    }));
    ([(IDENTIFIER, identifier.unwrap_or(HeaderValue::from_static("0")))], answer).into_response()
}

fn is_registered(headers: &HeaderMap) -> bool {
    let identifier = headers.get(IDENTIFIER).and_then(|identifier| identifier.to_str().ok());
    identifier.is_some_and(|identifier| uuid::Uuid::try_parse(identifier).is_ok())
}

/// Held to the end of the instance.
async fn next(headers: HeaderMap) -> Response {
    if !is_registered(&headers) {
        return failure(StatusCode::FORBIDDEN);
    }
    pending().await
}

async fn init_error(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !is_registered(&headers) {
        return failure(StatusCode::FORBIDDEN);
    }
    reported(init_failed(&inbox, ends, body).await)
}

async fn exit_error(headers: HeaderMap, body: Body) -> Response {
    let (true, Some(said)) = (is_registered(&headers), small(body).await) else {
        return failure(StatusCode::FORBIDDEN);
    };
    tracing::info!(said = %String::from_utf8_lossy(&said), "an extension ends with an error");
    reported(StatusCode::ACCEPTED)
}

async fn no_logs() -> Response {
    not_supported("Logs.NotSupported", "the Logs API is not supported")
}

async fn no_telemetry() -> Response {
    not_supported("Telemetry.NotSupported", "the Telemetry API is not supported")
}

/// 202, as extensions that ask for it do without it then and go on.
fn not_supported(kind: &str, message: &str) -> Response {
    (StatusCode::ACCEPTED, axum::Json(json!({ "errorMessage": message, "errorType": kind }))).into_response()
}
