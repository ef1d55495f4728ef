//! The Runtime API: what runtimes speak to the node, one private loopback address per instance.
//!
//! One listener on all loopback addresses; the address a runtime connected to names its instance
//! (`runtime-api.md` 1.8), so a plain `host:port` is all a client needs. The FunctionGraph protocol
//! is here; another protocol is another set of routes over the same four messages: poll, report,
//! initialisation failed, listen for cancellations.
//!
//! Rules from `runtime-api.md` section 1: a poll is held, never timed out; a late or fenced answer
//! gets 202 and is dropped; answers are matched by id and attempt, never by connection.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use cancel::{Attempt, RequestId};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{mpsc, oneshot},
};

use crate::{
    doors::Doors,
    http::Ends,
    message::{Delivery, Message, Report, ReportKind},
    settings::MAX_RESPONSE_BYTES,
};

/// Waiting connections in the kernel; instances reconnect in bursts.
const BACKLOG: u32 = 1_024;
/// An error body larger than this is cut off by refusing it; it is text for people.
const MAX_ERROR_BYTES: usize = 256 << 10;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-cff-request-id");
const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-cff-auth-token");
const ACCESS_KEY: HeaderName = HeaderName::from_static("x-cff-access-key");
const SECRET_KEY: HeaderName = HeaderName::from_static("x-cff-secret-key");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-cff-security-token");
const INVOKE_TYPE: HeaderName = HeaderName::from_static("x-cff-invoke-type");
const INVOCATION_ID: HeaderName = HeaderName::from_static("x-quell-invocation-id");
const DEADLINE: HeaderName = HeaderName::from_static("x-quell-deadline-ms");
const FUNCTION_URN: HeaderName = HeaderName::from_static("x-quell-function-urn");
const ALIAS: HeaderName = HeaderName::from_static("x-quell-alias");

/// Opens the listener on every loopback address and no other.
///
/// # Errors
/// When the socket cannot be made or bound.
pub(crate) fn bind() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    // Bound to the loopback device the port does not exist for other machines. Where that is not
    // allowed, the doors still refuse everything that was not addressed to 127/8.
    if let Err(error) = socket.bind_device(Some(b"lo")) {
        tracing::warn!(%error, "the Runtime API listens on all devices and refuses all but loopback");
    }
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    socket.listen(BACKLOG)
}

fn loopback(ends: Ends) -> Option<Ipv4Addr> {
    match ends.local.ip() {
        IpAddr::V4(at) if at.is_loopback() => Some(at),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// The routes of the FunctionGraph protocol (`runtime-api.md` 1.7) and our cancellation channel.
pub(crate) fn router(inbox: mpsc::Sender<Message>, doors: Doors) -> Router {
    Router::new()
        .route("/v1/runtime/invocation/request", get(next))
        .route("/v1/runtime/invocation/response/{id}", post(response))
        .route("/v1/runtime/invocation/error/{id}", post(error))
        .route("/v1/runtime/invocation/cancellation/next", get(cancellation))
        .route("/v1/runtime/init/error", post(init_error))
        .layer(Extension(doors))
        .with_state(inbox)
}

/// A delivery on its way out of the inbox's hands. Dropped before it was turned into an answer, it
/// goes back: the runtime never saw it.
pub(crate) struct Handover {
    delivery: Option<Delivery>,
    at: Ipv4Addr,
    inbox: mpsc::Sender<Message>,
}

impl Handover {
    /// The delivery, unless its request was fenced a moment ago: the last look before the wire.
    fn take(mut self) -> Option<Delivery> {
        if self.delivery.as_ref().is_some_and(|delivery| delivery.fence.is_cancelled()) {
            return None;
        }
        self.delivery.take()
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        let Some(delivery) = self.delivery.take() else { return };
        let Delivery { request, attempt, .. } = delivery;
        let message = Message::DeliveryDropped { at: self.at, request, attempt };
        if let Err(mpsc::error::TrySendError::Full(message)) = self.inbox.try_send(message) {
            let inbox = self.inbox.clone();
            tokio::spawn(async move { drop(inbox.send(message).await) });
        }
    }
}

async fn next(State(inbox): State<mpsc::Sender<Message>>, Extension(ends): Extension<Ends>) -> Response {
    let Some(at) = loopback(ends) else { return StatusCode::FORBIDDEN.into_response() };
    loop {
        let (poll, answer) = oneshot::channel();
        if inbox.send(Message::Polled { at, poll }).await.is_err() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let Ok(delivery) = answer.await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
        let handover = Handover { delivery: Some(delivery), at, inbox: inbox.clone() };
        if let Some(delivery) = handover.take() {
            return deliver(delivery);
        }
    }
}

fn deliver(delivery: Delivery) -> Response {
    let mut headers = HeaderMap::new();
    let invocation = format!("{}-{}", delivery.request, delivery.attempt.0);
    let kind = if delivery.asynchronous { "async" } else { "sync" };
    let values = [
        (REQUEST_ID, delivery.request.to_string()),
        (SECURITY_TOKEN, delivery.secrets.token.clone()),
        (AUTH_TOKEN, delivery.secrets.token),
        (ACCESS_KEY, delivery.secrets.access_key),
        (SECRET_KEY, delivery.secrets.secret_key),
        (INVOKE_TYPE, kind.to_owned()),
        (INVOCATION_ID, invocation),
        (DEADLINE, delivery.deadline_ms.to_string()),
        (FUNCTION_URN, delivery.function_urn),
        // Without a content type some clients die of SIGSEGV (`runtime-api.md` 1.1).
        (header::CONTENT_TYPE, "application/json".to_owned()),
    ];
    let alias = delivery.alias.map(|alias| (ALIAS, alias.to_string()));
    for (name, value) in values.into_iter().chain(alias) {
        match HeaderValue::from_str(&value) {
            Ok(value) => drop(headers.insert(name, value)),
            Err(error) => tracing::error!(%error, %name, "header left out"),
        }
    }
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
    let Some(at) = loopback(ends) else { return StatusCode::FORBIDDEN };
    // Held until the shell has it: of one instance so many bodies are in memory, and no more (I10).
    let Some(_reading) = doors.answer(at).await else { return StatusCode::SERVICE_UNAVAILABLE };
    let limited = Limited::new(body, MAX_RESPONSE_BYTES);
    let (body, kind, status) = match limited.collect().await {
        Ok(body) => (body.to_bytes(), ReportKind::Response, StatusCode::ACCEPTED),
        Err(error) if error.is::<LengthLimitError>() => {
            (Bytes::new(), ReportKind::TooLarge, StatusCode::PAYLOAD_TOO_LARGE)
        }
        // Half a result is none: the runtime's end, or its deadline, will settle the request.
        Err(_) => return StatusCode::BAD_REQUEST,
    };
    report(&inbox, ends, &id, &headers, body, kind, status).await
}

async fn error(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> StatusCode {
    let Some(body) = small(body).await else { return StatusCode::BAD_REQUEST };
    report(&inbox, ends, &id, &headers, body, ReportKind::Error, StatusCode::ACCEPTED).await
}

async fn small(body: Body) -> Option<Bytes> {
    match Limited::new(body, MAX_ERROR_BYTES).collect().await {
        Ok(body) => Some(body.to_bytes()),
        // Too long a story is still an error that was reported.
        Err(error) if error.is::<LengthLimitError>() => Some(Bytes::new()),
        Err(_) => None,
    }
}

async fn report(
    inbox: &mpsc::Sender<Message>,
    ends: Ends,
    id: &str,
    headers: &HeaderMap,
    body: Bytes,
    kind: ReportKind,
    status: StatusCode,
) -> StatusCode {
    let (Some(at), Some(request)) = (loopback(ends), RequestId::parse(id)) else {
        return StatusCode::BAD_REQUEST;
    };
    let attempt = headers.get(INVOCATION_ID).and_then(|value| parse_attempt(value, request));
    let report = Report { request, attempt, body, kind };
    match inbox.send(Message::Reported { at, report }).await {
        Ok(()) => status,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Reads `<request id>-<attempt>`. One that names another request is attempt 0, which never was.
fn parse_attempt(value: &HeaderValue, request: RequestId) -> Option<Attempt> {
    let (id, attempt) = value.to_str().ok()?.rsplit_once('-')?;
    if RequestId::parse(id) != Some(request) {
        return Some(Attempt(0));
    }
    Some(Attempt(attempt.parse().unwrap_or(0)))
}

async fn init_error(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
    body: Body,
) -> StatusCode {
    let (Some(at), Some(body)) = (loopback(ends), small(body).await) else {
        return StatusCode::BAD_REQUEST;
    };
    match inbox.send(Message::InitFailed { at, body }).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn cancellation(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
) -> Response {
    let Some(at) = loopback(ends) else { return StatusCode::FORBIDDEN.into_response() };
    let (poll, answer) = oneshot::channel();
    if inbox.send(Message::Listening { at, poll }).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Ok(notice) = answer.await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let body = serde_json::json!({
        "requestId": notice.request.to_string(),
        "invocationId": format!("{}-{}", notice.request, notice.attempt.0),
        "reason": notice.reason,
        "graceMs": u64::try_from(notice.grace.as_millis()).unwrap_or(u64::MAX),
    });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echoed_invocation_id_names_the_attempt() {
        let request = RequestId(9);
        let header = |text: &str| HeaderValue::from_str(text).unwrap();
        assert_eq!(parse_attempt(&header(&format!("{request}-3")), request), Some(Attempt(3)));
        assert_eq!(parse_attempt(&header(&format!("{request}-x")), request), Some(Attempt(0)));
        assert_eq!(parse_attempt(&header(&format!("{}-3", RequestId(8))), request), Some(Attempt(0)));
        assert_eq!(parse_attempt(&header("nonsense"), request), None);
    }
}
