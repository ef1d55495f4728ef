//! The node as a runtime sees it: the Runtime API over HTTP.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, CONTENT_TYPE},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;

use crate::{RunError, settings::Settings};

/// An event or a result has 6 MiB at most, and some room.
const MAX_BODY: usize = 7 << 20;
/// A line of the cancellation channel is some 250 bytes; more than this is no notice.
const MAX_LINE: usize = 16 << 10;
pub(crate) const INVOCATION_ID: &str = "x-quell-invocation-id";

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    client: Client<HttpConnector, Full<Bytes>>,
    settings: Arc<Settings>,
}

/// A request as it was handed over.
pub(crate) struct Delivery {
    pub(crate) headers: HeaderMap,
    pub(crate) event: Bytes,
}

impl Delivery {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// One line of the cancellation channel.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Notice {
    pub(crate) invocation_id: String,
    pub(crate) reason: String,
    pub(crate) grace_ms: u64,
    pub(crate) deadline_ms: i64,
}

/// An answer that was read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Node {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        let mut connector = HttpConnector::new();
        // Answers are small and waited for: none of them waits for an acknowledgement of TCP.
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector), settings }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Waits for a request.
    pub(crate) async fn next(&self) -> Result<Delivery, RunError> {
        let uri = self.uri("invocation/request");
        let answer = self.send(Method::GET, &uri, &[], Bytes::new()).await.map_err(RunError::NodeGone)?;
        if answer.status() != StatusCode::OK {
            return Err(RunError::NodeGone(format!("the poll was answered with {}", answer.status())));
        }
        let (head, body) = answer.into_parts();
        let event = read(body).await.map_err(RunError::NodeGone)?;
        Ok(Delivery { headers: head.headers, event })
    }

    /// Opens the cancellation channel. When this returns, the node knows that this runtime cooperates.
    pub(crate) async fn listen(&self) -> Result<Notices, RunError> {
        let uri = self.uri("invocation/cancellation/next");
        let says = [(ACCEPT.as_str(), "application/x-ndjson"), ("x-quell-cancellation", "acknowledges")];
        let answer = self.send(Method::GET, &uri, &says, Bytes::new()).await.map_err(RunError::NodeGone)?;
        match answer.status() {
            StatusCode::OK => Ok(Notices { body: answer.into_body(), read: Vec::new() }),
            status => Err(RunError::NodeGone(format!("the cancellation channel was answered with {status}"))),
        }
    }

    /// Posts what became of an invocation; `what` is a path below `/v1/runtime/`.
    pub(crate) async fn post(&self, what: &str, invocation: &str, body: Bytes) -> Result<(), RunError> {
        let uri = self.uri(what);
        let headers = [(CONTENT_TYPE.as_str(), "application/json"), (INVOCATION_ID, invocation)];
        let answer = self.send(Method::POST, &uri, &headers, body).await.map_err(RunError::NodeGone)?;
        // Late, too large, or in order: the node knows what becomes of it. Read, so that the
        // connection can be used again.
        drop(read(answer.into_body()).await);
        Ok(())
    }

    /// Any other exchange, with the node's own API.
    pub(crate) async fn call(
        &self,
        uri: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, String> {
        let answer = self.send(Method::POST, uri, headers, body).await?;
        let status = answer.status();
        Ok(Answer { status, body: read(answer.into_body()).await? })
    }

    fn uri(&self, what: &str) -> String {
        format!("http://{}/v1/runtime/{what}", self.settings.runtime_api)
    }

    async fn send(
        &self,
        method: Method,
        uri: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        self.client.request(request).await.map_err(|error| with_causes(&error))
    }
}

/// The lines of the cancellation channel.
pub(crate) struct Notices {
    body: Incoming,
    read: Vec<u8>,
}

impl Notices {
    /// The next one. Not to be dropped half-way: what it has read would be lost.
    ///
    /// # Errors
    /// When there are no more: the instance is over.
    pub(crate) async fn next(&mut self) -> Result<Notice, RunError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let notice = serde_json::from_slice(&line);
                return notice.map_err(|error| RunError::NodeGone(format!("not a notice: {error}")));
            }
            if self.read.len() > MAX_LINE {
                return Err(RunError::NodeGone("a notice without end".to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.read.extend(frame.data_ref().into_iter().flatten()),
                Some(Err(error)) => return Err(RunError::NodeGone(with_causes(&error))),
                None => return Err(RunError::NodeGone("the cancellation channel ended".to_owned())),
            }
        }
    }
}

async fn read(body: Incoming) -> Result<Bytes, String> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err("the body is too large".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// An error's own words and those of what is behind it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(behind) = cause {
        text = format!("{text}: {behind}");
        cause = behind.source();
    }
    text
}
