//! One request and its answer, on a connection of its own. Dropped, the connection is closed.

use std::convert::Infallible;

use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{answer::Answer, event::Call};
use crate::settings::MAX_RESPONSE_BYTES;

/// The head of an answer: status, headers. More than any server sends by itself.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 100;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It is not HTTP, or ended before it was whole.
    #[error("{0}")]
    Connection(#[from] hyper::Error),
    /// Its body broke off.
    #[error("its answer broke off: {0}")]
    Body(String),
    /// Whether it is whole cannot be told.
    #[error("its answer has neither Content-Length nor chunks: its end cannot be told from a break")]
    Endless,
    /// It wants to speak something else.
    #[error("it switched to another protocol")]
    Switched,
    /// Larger than a result may be.
    #[error("its answer is larger than a result may be")]
    TooLarge,
}

/// Sends a request and reads the whole answer.
pub(super) async fn exchange(stream: TcpStream, call: Call, own: HeaderMap) -> Result<Answer, Broken> {
    let mut protocol = http1::Builder::new();
    protocol.max_buf_size(MAX_HEAD_BYTES).max_headers(MAX_HEADERS);
    let (mut sender, connection) = protocol.handshake(TokioIo::new(stream)).await?;
    // It is driven beside the exchange, and what it ends with the exchange sees as well.
    let driven = async {
        drop(connection.await);
        std::future::pending::<Infallible>().await
    };
    let answered = async { read(sender.send_request(request(call, own)).await?).await };
    tokio::select! {
        answer = answered => answer,
        never = driven => match never {},
    }
}

fn request(call: Call, own: HeaderMap) -> Request<Full<bytes::Bytes>> {
    let mut request = Request::new(Full::new(call.body));
    *request.method_mut() = call.method;
    *request.uri_mut() = call.target;
    let headers = request.headers_mut();
    *headers = call.headers;
    headers.extend(own);
    headers.entry(header::HOST).or_insert(HeaderValue::from_static("127.0.0.1"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    request
}

async fn read(response: Response<Incoming>) -> Result<Answer, Broken> {
    let (head, body) = response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Broken::Switched);
    }
    let chunked = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("chunked"));
    let chunked = head.headers.get_all(header::TRANSFER_ENCODING).iter().any(chunked);
    match body.size_hint().exact() {
        Some(size) if size > MAX_RESPONSE_BYTES as u64 => return Err(Broken::TooLarge),
        // A server that dies ends such an answer in the very way in which a whole one ends.
        None if !chunked => return Err(Broken::Endless),
        Some(_) | None => {}
    }
    match Limited::new(body, MAX_RESPONSE_BYTES).collect().await {
        Ok(body) => Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() }),
        Err(error) if error.is::<LengthLimitError>() => Err(Broken::TooLarge),
        Err(error) => Err(Broken::Body(error.to_string())),
    }
}
