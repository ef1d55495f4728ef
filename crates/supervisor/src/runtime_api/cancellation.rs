//! The cancellation channel: how a runtime learns which of its requests are to stop, and says that they have
//! (`docs/runtime-protocol.md`).

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Extension, Router,
    body::{Body, Bytes, HttpBody},
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cancel::{Attempt, RequestId};
use futures_util::stream;
use hyper::body::{Frame, SizeHint};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::{
    invocation_id, loopback, parse_invocation, small,
    worker::{Worker, is_process},
};
use crate::{
    http::{Ends, Kept},
    message::{Heard, Listener, Message, Notice},
};

/// What a runtime says of itself when it listens; without it, that it acknowledges.
const CAPABILITY: HeaderName = HeaderName::from_static("x-quell-cancellation");
pub(super) const NEXT: &str = "/v1/runtime/invocation/cancellation/next";
const NDJSON: &str = "application/x-ndjson";

pub(super) fn routes() -> Router<mpsc::Sender<Message>> {
    Router::new()
        .route(NEXT, get(next))
        .route("/v1/runtime/invocation/cancellation/{id}/ack", post(acknowledge))
}

#[derive(Deserialize)]
pub(super) struct Asked {
    /// The invocation to hear of and no other. Empty: none, which only announces the runtime.
    invocation: Option<String>,
}

async fn next(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
    Extension(kept): Extension<Kept>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let Some(at) = loopback(ends) else { return StatusCode::FORBIDDEN.into_response() };
    let (Some(named), Some(acknowledges), Some(is_process)) =
        (named(&asked), acknowledges(&headers), is_process(&headers))
    else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if is_process {
        kept.keep(|| Box::new(Worker::new(at, inbox.clone(), named)));
    }
    let ear = Ear { at, inbox, named, acknowledges };
    // Before any answer: whoever reads the head of a stream is known to listen.
    let Some(first) = ear.listen().await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    if headers.get(header::ACCEPT).is_some_and(|kind| kind.as_bytes() == NDJSON.as_bytes()) {
        return ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(ear.lines(first))).into_response();
    }
    match first.await.ok() {
        Some(Heard::Notice(carried)) => {
            ([(header::CONTENT_TYPE, "application/json")], Body::new(OnItsWay::new(carried))).into_response()
        }
        Some(Heard::Over) => StatusCode::NO_CONTENT.into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

/// Which invocation is named, if one is; `None` if what was written is no name.
#[expect(clippy::option_option, reason = "the outer one is whether it can be read")]
pub(super) fn named(asked: &Asked) -> Option<Option<(RequestId, Attempt)>> {
    match asked.invocation.as_deref() {
        None => Some(None),
        Some("") => Some(Some((RequestId(0), Attempt(0)))), // never was: attempts begin with 1
        Some(id) => parse_invocation(id).map(Some),
    }
}

fn acknowledges(headers: &HeaderMap) -> Option<bool> {
    match headers.get(CAPABILITY).map(|value| value.as_bytes()) {
        None | Some(b"acknowledges") => Some(true),
        Some(b"tells") => Some(false),
        Some(_) => None,
    }
}

/// One who listens.
struct Ear {
    at: Ipv4Addr,
    inbox: mpsc::Sender<Message>,
    named: Option<(RequestId, Attempt)>,
    acknowledges: bool,
}

impl Ear {
    /// Polls once. Nothing comes when the instance is gone, or holds too many polls.
    async fn listen(&self) -> Option<oneshot::Receiver<Heard>> {
        let (poll, heard) = oneshot::channel();
        let listener = Listener { named: self.named, acknowledges: self.acknowledges, poll };
        self.inbox.send(Message::Listening { at: self.at, listener }).await.ok()?;
        Some(heard)
    }

    /// A line for each cancellation, until there can be no more: of a named invocation there is one. Each is
    /// asked for when the one before it is on its way, so that at most one is between the inbox and the socket.
    fn lines(self, first: oneshot::Receiver<Heard>) -> impl stream::Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold((self, Some(first)), async |(ear, polled)| {
            let poll = match polled {
                Some(polled) => polled,
                None if ear.named.is_some() => return None,
                None => ear.listen().await?,
            };
            let Heard::Notice(carried) = poll.await.ok()? else { return None };
            let mut line = body(&carried.take()?);
            line.push('\n');
            Some((Ok(line.into()), (ear, None)))
        })
    }
}

/// A cancellation on its way out of the inbox's hands. Dropped before it was written, it goes back: another
/// poll gets it.
pub(crate) struct Carried {
    notice: Option<Notice>,
    at: Ipv4Addr,
    inbox: mpsc::Sender<Message>,
}

impl Carried {
    pub(crate) fn new(notice: Notice, at: Ipv4Addr, inbox: mpsc::Sender<Message>) -> Self {
        Self { notice: Some(notice), at, inbox }
    }

    pub(crate) fn take(mut self) -> Option<Notice> {
        self.notice.take()
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        let Some(notice) = self.notice.take() else { return };
        let message = Message::NoticeDropped { at: self.at, notice };
        if let Err(mpsc::error::TrySendError::Full(message)) = self.inbox.try_send(message) {
            let inbox = self.inbox.clone();
            tokio::spawn(async move { drop(inbox.send(message).await) });
        }
    }
}

/// A body of one cancellation. It is taken when the connection asks for its bytes, and not before.
struct OnItsWay {
    text: Bytes,
    carried: Option<Carried>,
}

impl OnItsWay {
    fn new(carried: Carried) -> Self {
        let text = carried.notice.as_ref().map(body).unwrap_or_default().into();
        Self { text, carried: Some(carried) }
    }
}

impl HttpBody for OnItsWay {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let taken = self.carried.take().and_then(Carried::take);
        Poll::Ready(taken.map(|_| Ok(Frame::data(self.text.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.carried.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.carried.as_ref().map_or(0, |_| self.text.len() as u64))
    }
}

fn body(notice: &Notice) -> String {
    let body = serde_json::json!({
        "requestId": notice.request.to_string(),
        "invocationId": invocation_id(notice.request, notice.attempt),
        "reason": notice.reason,
        "graceMs": u64::try_from(notice.grace.as_millis()).unwrap_or(u64::MAX),
        "deadlineMs": notice.grace_ends_ms,
    });
    body.to_string()
}

/// No code of this invocation runs any more. 202 whatever becomes of it, as for every report.
async fn acknowledge(
    State(inbox): State<mpsc::Sender<Message>>,
    Extension(ends): Extension<Ends>,
    Path(id): Path<String>,
    body: Body,
) -> StatusCode {
    let (Some(at), Some((request, attempt))) = (loopback(ends), parse_invocation(&id)) else {
        return StatusCode::BAD_REQUEST;
    };
    if small(body).await.is_none() {
        return StatusCode::BAD_REQUEST;
    }
    match inbox.send(Message::Acknowledged { at, request, attempt }).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;

    use super::*;

    fn on_its_way() -> (OnItsWay, Notice, mpsc::Receiver<Message>) {
        let (inbox, messages) = mpsc::channel(1);
        let notice = Notice {
            request: RequestId(7),
            attempt: Attempt(2),
            reason: "cancel",
            grace: Duration::from_secs(2),
            grace_ends_ms: 1_000,
        };
        (OnItsWay::new(Carried::new(notice, Ipv4Addr::LOCALHOST, inbox)), notice, messages)
    }

    #[tokio::test]
    async fn a_notice_whose_connection_died_before_it_was_written_goes_back() {
        let (unsent, told, mut messages) = on_its_way();
        drop(unsent);
        match messages.try_recv() {
            Ok(Message::NoticeDropped { notice, .. }) => assert_eq!(notice, told),
            _ => panic!("it is lost"),
        }
    }

    #[tokio::test]
    async fn one_that_was_written_does_not() {
        let (sent, notice, mut messages) = on_its_way();
        assert_eq!(sent.size_hint().exact(), Some(body(&notice).len() as u64));
        assert_eq!(sent.collect().await.unwrap().to_bytes(), body(&notice));
        assert!(messages.try_recv().is_err());
    }

    #[test]
    fn what_a_listener_says_of_itself_is_one_of_two_words() {
        let said = |word: &'static str| {
            acknowledges(&HeaderMap::from_iter([(CAPABILITY, axum::http::HeaderValue::from_static(word))]))
        };
        assert_eq!(acknowledges(&HeaderMap::new()), Some(true));
        assert_eq!((said("acknowledges"), said("tells"), said("Tells")), (Some(true), Some(false), None));
    }
}
