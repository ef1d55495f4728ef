//! The client half: requests to a node's API, and errors that say what to do next.

use std::{borrow::Cow, time::Duration};

use reqwest::{Method, StatusCode, header::HeaderMap};
use serde_json::Value;

use crate::{config::ClientConfig, trust};

/// Connecting takes microseconds on loopback; a node that is away should be told soon.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Why a request to a node came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no node answers at {endpoint} ({cause}); is `quell serve` running?")]
    Unreachable { endpoint: String, cause: String },
    #[error(
        "who answers at {endpoint} is not trusted ({cause}); give --ca with a PEM file of the node's certificate, or of \
         one that signed it"
    )]
    Distrusted { endpoint: String, cause: String },
    #[error("who listens at {endpoint} speaks no TLS: is it http://, or another port?")]
    NoTls { endpoint: String },
    #[error(
        "who listens at {endpoint} does not speak HTTP in the clear ({cause}): is it https://, or another port?"
    )]
    NoHttp { endpoint: String, cause: String },
    #[error("{code}: {message}")]
    Refused { status: u16, code: String, message: String },
    #[error("the node's answer is not understood: {0}")]
    Garbled(String),
}

impl ClientError {
    /// What to do about it, beyond what it says itself.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        let Self::Refused { status, code, .. } = self else { return None };
        match (status, code.as_str()) {
            (401 | 403, _) => Some(
                "the node does not know this credential, or it opens another project, or may not do this: look at --token, \
                 --project, --context (`quell context list`) or --data; whoever may, sees credentials by `quell credentials \
                 list`",
            ),
            (404, "FSS.1051") => Some("`quell functions` lists the functions of the project"),
            (400, "FSS.150434") => Some(
                "it is disabled: `quell functions enable NAME` lets it be invoked again, as it was before",
            ),
            (429, _) => Some("the node is busy, or a limit is reached; try it again in a while"),
            // 503 is of many causes (a drain, a disk, a database, labels), and its message says which.
            _ => None,
        }
    }
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
        let http = reqwest::Client::builder().connect_timeout(CONNECT_LIMIT).no_proxy();
        let http = trust::trusting(http, &config.endpoint, config.ca.as_deref())?.build()?;
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
        let request = self.http.request(method, url).header("X-Auth-Token", &self.config.token);
        // Most of Quell's own routes take the project of the credential: whoever named another is to be refused.
        match self.config.is_project_named {
            true => request.header("X-Quell-Project", &self.config.project),
            false => request,
        }
    }

    async fn reply(&self, response: reqwest::Response) -> Result<Reply, ClientError> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.map_err(|error| self.unreachable(&error))?.to_vec();
        Ok(Reply { status, headers, body })
    }

    fn unreachable(&self, error: &reqwest::Error) -> ClientError {
        let endpoint = self.config.endpoint.clone();
        let tls = caused_by(error, |cause: &rustls::Error| Some(cause.clone()));
        match tls {
            Some(rustls::Error::InvalidCertificate(why)) => {
                ClientError::Distrusted { endpoint, cause: why.to_string() }
            }
            // Its first bytes were none of a handshake.
            Some(rustls::Error::InvalidMessage(_)) => ClientError::NoTls { endpoint },
            _ if caused_by(error, |cause: &hyper::Error| cause.is_parse().then_some(())).is_some() => {
                ClientError::NoHttp { endpoint, cause: innermost(error) }
            }
            _ => ClientError::Unreachable { endpoint, cause: innermost(error) },
        }
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
        let function = with_project(&self.config.project, function);
        format!("{}/{}{rest}", self.functions(), encode(&function))
    }

    /// A function, as the API takes it.
    pub(crate) fn named<'a>(&self, function: &'a str) -> Cow<'a, str> {
        with_project(&self.config.project, function)
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

/// A short name that ends with a version or an alias, as the API takes it: there two parts are always
/// `package:name`, and a version needs the project before it.
fn with_project<'a>(project: &str, function: &'a str) -> Cow<'a, str> {
    let parts: Vec<&str> = function.split(':').collect();
    match parts.as_slice() {
        [name, last] if is_version(last) => format!("{project}:default:{name}:{last}").into(),
        [package, name, last] if is_version(last) => format!("{project}:{package}:{name}:{last}").into(),
        _ => function.into(),
    }
}

/// Whether a text is sure to be no function's name: an alias, `latest`, or `vYYYYMMDD-HHMMSS`.
fn is_version(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let made = text.strip_prefix('v').and_then(|text| text.split_once('-'));
    let made =
        made.is_some_and(|(day, time)| day.len() == 8 && time.len() == 6 && digits(day) && digits(time));
    text.starts_with('!') || text == "latest" || made
}

/// What is picked of the first cause of that kind.
fn caused_by<E: std::error::Error + 'static, T>(
    error: &reqwest::Error,
    pick: impl Fn(&E) -> Option<T>,
) -> Option<T> {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    loop {
        if let Some(picked) = cause.downcast_ref().and_then(&pick) {
            return Some(picked);
        }
        // An error of input and output hides what it wraps from `source`, and may wrap another.
        let wrapped = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match wrapped {
            Some(wrapped) => wrapped,
            None => cause.source()?,
        };
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
    fn a_short_name_may_end_with_a_version_or_an_alias() {
        for (text, whole) in [
            ("f", "f"),
            ("k:f", "k:f"),
            ("f:!prod", "p:default:f:!prod"),
            ("f:latest", "p:default:f:latest"),
            ("f:v20260131-235959", "p:default:f:v20260131-235959"),
            ("k:f:v20260131-235959", "p:k:f:v20260131-235959"),
            ("f:v1", "f:v1"),
            ("f:v20260131-2359599", "f:v20260131-2359599"),
            ("p:k:f", "p:k:f"),
            ("p:k:f:v1", "p:k:f:v1"),
            ("urn:fss:r:p:function:k:f:latest", "urn:fss:r:p:function:k:f:latest"),
        ] {
            assert_eq!(with_project("p", text), whole);
        }
    }

    #[test]
    fn colons_and_slashes_are_encoded() {
        assert_eq!(encode("urn:fss:a/b é"), "urn%3Afss%3Aa%2Fb%20%C3%A9");
    }
}
