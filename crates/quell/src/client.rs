//! The client half: requests to a node's API, and errors that say what to do next.

use std::time::Duration;

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::Value;

use crate::config::ClientConfig;

/// Connecting takes microseconds on loopback; a node that is away should be told soon.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Why a request to a node came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no node answers at {endpoint} ({cause}); is `quell serve` running?")]
    Unreachable { endpoint: String, cause: String },
    #[error("{code}: {message}")]
    Refused { status: u16, code: String, message: String },
    #[error("the node's answer is not understood: {0}")]
    Garbled(String),
}

/// A node's answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// One node, one credential.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    config: ClientConfig,
}

impl Client {
    pub(crate) fn new(config: ClientConfig) -> anyhow::Result<Self> {
        // A cancel may take as long as grace and kill take, an invocation as long as its function:
        // the node bounds both, so only connecting has a limit here.
        let http = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT).no_proxy().build()?;
        Ok(Self { http, config })
    }

    /// Sends a request; every status is a reply.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Reply, ClientError> {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        self.reply(response).await
    }

    /// Sends a request whose answer is read piece by piece; anything but a success is an error.
    pub(crate) async fn open(&self, method: Method, path: &str) -> Result<reqwest::Response, ClientError> {
        let response = self.request(method, path).send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.reply(response).await?.refusal())
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.config.endpoint.trim_end_matches('/'));
        self.http.request(method, url).header("X-Auth-Token", &self.config.token)
    }

    async fn reply(&self, response: reqwest::Response) -> Result<Reply, ClientError> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?.to_vec();
        Ok(Reply { status, headers, body })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { endpoint: self.config.endpoint.clone(), cause: innermost(error) }
    }

    /// Sends a request and reads its answer as JSON; anything but a success is an error.
    pub(crate) async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let body = body.map(|body| body.to_string().into_bytes());
        self.send(method, path, &[], body).await?.json()
    }

    /// The path of a function, below the project.
    pub(crate) fn function(&self, function: &str, rest: &str) -> String {
        format!("{}/{}{rest}", self.functions(), encode(function))
    }

    /// The path of all functions of the project.
    pub(crate) fn functions(&self) -> String {
        format!("/v2/{}/fgs/functions", encode(&self.config.project))
    }
}

impl Reply {
    pub(crate) fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body of a success as JSON; an empty one is null.
    pub(crate) fn json(&self) -> Result<Value, ClientError> {
        if !self.is_success() {
            return Err(self.refusal());
        }
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body).map_err(|error| ClientError::Garbled(error.to_string()))
    }

    /// The error a failure carries.
    pub(crate) fn refusal(&self) -> ClientError {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        ClientError::Refused {
            status: self.status,
            code: text("error_code").unwrap_or_else(|| format!("HTTP {}", self.status)),
            message: text("error_msg").unwrap_or_else(|| String::from_utf8_lossy(&self.body).into_owned()),
        }
    }
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_and_slashes_are_encoded() {
        assert_eq!(encode("urn:fss:a/b é"), "urn%3Afss%3Aa%2Fb%20%C3%A9");
    }
}
