//! The cancellation channel: how a runtime learns which of its requests are to stop.

use axum::{
    Extension, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::{mpsc, oneshot};

use super::{invocation_id, loopback};
use crate::{
    http::Ends,
    message::{Message, Notice},
};

pub(super) fn routes() -> Router<mpsc::Sender<Message>> {
    Router::new().route("/v1/runtime/invocation/cancellation/next", get(next))
}

async fn next(State(inbox): State<mpsc::Sender<Message>>, Extension(ends): Extension<Ends>) -> Response {
    let Some(at) = loopback(ends) else { return StatusCode::FORBIDDEN.into_response() };
    let (poll, answer) = oneshot::channel();
    if inbox.send(Message::Listening { at, poll }).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Ok(notice) = answer.await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    ([(header::CONTENT_TYPE, "application/json")], body(&notice)).into_response()
}

fn body(notice: &Notice) -> String {
    let body = serde_json::json!({
        "requestId": notice.request.to_string(),
        "invocationId": invocation_id(notice.request, notice.attempt),
        "reason": notice.reason,
        "graceMs": u64::try_from(notice.grace.as_millis()).unwrap_or(u64::MAX),
    });
    body.to_string()
}
