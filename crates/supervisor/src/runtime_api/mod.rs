//! The Runtime API: what runtimes speak to the node, one private loopback address per instance.
//!
//! One listener on all loopback addresses; the address a runtime connected to names its instance
//! (`runtime-api.md` 1.8), so a plain `host:port` is all a client needs. Each protocol is a set of
//! routes of its own over the same four messages: poll, report, initialisation failed, listen for
//! cancellations. What they share is here.
//!
//! Rules from `runtime-api.md` section 1: a poll is held, never timed out; a late or fenced answer
//! gets 202 and is dropped; answers are matched by id and attempt, never by connection.

mod body;
mod cancellation;
mod extensions;
mod functiongraph;
mod lambda;
mod streamed;
mod worker;

pub(crate) use cancellation::Carried;

pub(crate) use functiongraph::{TRACEPARENT, TRACESTATE, functiongraph_headers};

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use axum::{
    Extension, Router,
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
};
use bytes::Bytes;
use cancel::{Attempt, RequestId};
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
};

use body::{BrokenOff, Gathered, gather};

use crate::{
    doors::Doors,
    http::Ends,
    message::{Delivery, Message, Report, ReportKind},
    settings::MAX_RESPONSE_BYTES,
};

/// Waiting connections in the kernel; instances reconnect in bursts.
const BACKLOG: u32 = 1_024;
/// An error body larger than this is read and not kept; it is text for people.
const MAX_ERROR_BYTES: usize = 256 << 10;

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

/// The routes of every protocol, and the cancellation channel.
pub(crate) fn router(inbox: mpsc::Sender<Message>, doors: Doors) -> Router {
    let protocols = functiongraph::routes().merge(lambda::routes()).merge(extensions::routes());
    protocols.merge(cancellation::routes()).layer(Extension(doors)).with_state(inbox)
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

/// A poll that waits in the shell. One that ends just when a delivery was sent to it gives that back.
struct Waiting {
    answer: oneshot::Receiver<Delivery>,
    at: Ipv4Addr,
    inbox: mpsc::Sender<Message>,
}

impl Waiting {
    async fn handover(&mut self) -> Option<Handover> {
        let delivery = (&mut self.answer).await.ok()?;
        Some(self.hold(delivery))
    }

    fn hold(&self, delivery: Delivery) -> Handover {
        Handover { delivery: Some(delivery), at: self.at, inbox: self.inbox.clone() }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.answer.close();
        if let Ok(delivery) = self.answer.try_recv() {
            drop(self.hold(delivery));
        }
    }
}

/// Waits for the next delivery of the instance at this address; the poll is held as long as it takes.
/// Cancellation-safe: a delivery that is not taken goes back.
///
/// # Errors
/// What to answer if there is none to be had.
pub(crate) async fn next_delivery(inbox: &mpsc::Sender<Message>, ends: Ends) -> Result<Delivery, StatusCode> {
    let at = loopback(ends).ok_or(StatusCode::FORBIDDEN)?;
    loop {
        let (poll, answer) = oneshot::channel();
        let polled = inbox.send(Message::Polled { at, poll }).await;
        polled.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let mut waiting = Waiting { answer, at, inbox: inbox.clone() };
        let handover = waiting.handover().await.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
        if let Some(delivery) = handover.take() {
            return Ok(delivery);
        }
    }
}

/// The id of one delivery, which clients echo with what they report.
fn invocation_id(request: RequestId, attempt: Attempt) -> String {
    format!("{request}-{}", attempt.0)
}

/// The headers of a delivery; one that cannot be written is left out and logged.
pub(crate) fn headers_of<const N: usize>(values: [(HeaderName, String); N]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(N + 2);
    for (name, value) in values {
        match HeaderValue::from_str(&value) {
            Ok(value) => drop(headers.insert(name, value)),
            Err(error) => tracing::error!(%error, %name, "header left out"),
        }
    }
    headers
}

/// What a runtime reports, before it is known what it belongs to.
struct Told<'a> {
    id: &'a str,
    /// The echoed id of the delivery, if the client echoes it.
    invocation: Option<&'a HeaderValue>,
    body: Bytes,
    kind: ReportKind,
}

/// A result that was read. Its place is held until the shell has it: of one instance so many bodies
/// are in memory, and no more (I10).
struct Read {
    body: Bytes,
    trailers: Option<HeaderMap>,
    kind: ReportKind,
    _place: OwnedSemaphorePermit,
}

/// Reads a result, in whatever pieces it comes.
///
/// # Errors
/// What to answer if the instance is gone.
async fn read_response(doors: &Doors, ends: Ends, body: Body) -> Result<Read, StatusCode> {
    let at = loopback(ends).ok_or(StatusCode::FORBIDDEN)?;
    let place = doors.answer(at).await.ok_or(StatusCode::SERVICE_UNAVAILABLE)?;
    let (body, trailers, kind) = match gather(body, MAX_RESPONSE_BYTES).await {
        Ok(Gathered { over: true, .. }) => (Bytes::new(), None, ReportKind::TooLarge),
        Ok(Gathered { bytes, trailers, .. }) => (bytes, trailers, ReportKind::Response),
        Err(BrokenOff) => (Bytes::new(), None, ReportKind::BrokenOff),
    };
    Ok(Read { body, trailers, kind, _place: place })
}

/// Reads an error. Too long a story is still an error that was reported, and half of one that there was one.
async fn read_error(body: Body) -> (Bytes, ReportKind) {
    match small(body).await {
        Some(body) => (body, ReportKind::Error),
        None => (Bytes::new(), ReportKind::BrokenOff),
    }
}

/// A body of text for people; empty if it is too long, `None` if it broke off.
async fn small(body: Body) -> Option<Bytes> {
    gather(body, MAX_ERROR_BYTES).await.ok().map(|gathered| gathered.bytes)
}

/// Tells the shell. Answered with 202 whatever becomes of it: who is late, or was fenced, must not
/// be able to tell, as some clients end their process otherwise.
async fn report(inbox: &mpsc::Sender<Message>, ends: Ends, told: Told<'_>) -> StatusCode {
    let Told { id, invocation, body, kind } = told;
    let (Some(at), Some(request)) = (loopback(ends), RequestId::parse(id)) else {
        return StatusCode::BAD_REQUEST;
    };
    let attempt = invocation.and_then(|value| parse_attempt(value, request));
    let status = match kind {
        ReportKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        // Of one that broke off nobody reads the answer.
        ReportKind::Response | ReportKind::Error | ReportKind::BrokenOff | ReportKind::Broken => {
            StatusCode::ACCEPTED
        }
    };
    let report = Report { request, attempt, body, kind };
    match inbox.send(Message::Reported { at, report }).await {
        Ok(()) => status,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// What was echoed with a report. One that names another request is attempt 0, which never was.
fn parse_attempt(value: &HeaderValue, request: RequestId) -> Option<Attempt> {
    let (id, attempt) = value.to_str().ok()?.rsplit_once('-')?;
    if RequestId::parse(id) != Some(request) {
        return Some(Attempt(0));
    }
    Some(Attempt(attempt.parse().unwrap_or(0)))
}

/// Reads the id of a delivery, `<request id>-<attempt>`.
fn parse_invocation(id: &str) -> Option<(RequestId, Attempt)> {
    let (request, attempt) = id.rsplit_once('-')?;
    Some((RequestId::parse(request)?, Attempt(attempt.parse().ok()?)))
}

/// The initialisation of an instance failed; the body says why.
async fn init_failed(inbox: &mpsc::Sender<Message>, ends: Ends, body: Body) -> StatusCode {
    let (Some(at), Some(body)) = (loopback(ends), small(body).await) else {
        return StatusCode::BAD_REQUEST;
    };
    match inbox.send(Message::InitFailed { at, body }).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
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

    #[tokio::test]
    async fn a_poll_that_ends_just_when_a_delivery_was_sent_to_it_gives_it_back() {
        let (inbox, mut messages) = mpsc::channel(2);
        let address = "127.1.0.1:1".parse().unwrap();
        let ends = Ends { local: address, peer: address };
        let mut polling = Box::pin(next_delivery(&inbox, ends));
        let message = tokio::select! {
            message = messages.recv() => message,
            _ = &mut polling => panic!("nothing was delivered"),
        };
        let Some(Message::Polled { poll, .. }) = message else { panic!("a poll comes first") };
        let delivery = Delivery {
            request: RequestId(9),
            attempt: Attempt(1),
            payload: Bytes::new(),
            secrets: crate::credentials::AttemptSecrets {
                token: String::new(),
                access_key: String::new(),
                secret_key: String::new(),
            },
            asynchronous: false,
            deadline_ms: 0,
            function_urn: String::new(),
            alias: None,
            trace: None,
            fence: tokio_util::sync::CancellationToken::new(),
        };
        assert!(poll.send(delivery).is_ok());
        drop(polling);
        let back = messages.recv().await;
        assert!(matches!(
            back,
            Some(Message::DeliveryDropped { request: RequestId(9), attempt: Attempt(1), .. })
        ));
    }

    #[test]
    fn an_invocation_id_is_a_request_and_an_attempt() {
        let request = RequestId(9);
        assert_eq!(parse_invocation(&invocation_id(request, Attempt(3))), Some((request, Attempt(3))));
        for wrong in ["", "-", "7", &request.to_string(), &format!("{request}-"), &format!("{request}-x")] {
            assert_eq!(parse_invocation(wrong), None, "{wrong}");
        }
    }
}
