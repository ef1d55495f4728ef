//! What `tests/fuzz` reaches of this crate: the Runtime API, whose callers are the functions themselves.

use std::net::{Ipv4Addr, SocketAddr};

use axum::{body::Body, http::Request};
use tokio::sync::mpsc;
use tower::ServiceExt as _;

use crate::{
    doors::Doors,
    http::{Ends, Kept},
    message::Message,
    runtime_api,
};

/// Sends one request to the Runtime API; whatever comes to the inbox is taken and not answered. Returns the
/// status, none if the request could not be put together.
pub async fn runtime_api(method: &str, uri: &str, headers: &[(String, Vec<u8>)], body: &[u8]) -> Option<u16> {
    let at = Ipv4Addr::new(127, 1, 0, 1);
    let (inbox, mut messages) = mpsc::channel::<Message>(64);
    let doors = Doors::new();
    doors.open(at, None, 1);
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(name.as_str(), value.as_slice());
    }
    let mut request = request.body(Body::from(body.to_vec())).ok()?;
    request
        .extensions_mut()
        .insert(Ends { local: SocketAddr::from((at, 80)), peer: SocketAddr::from((at, 4_000)) });
    request.extensions_mut().insert(Kept::default());
    let taken = tokio::spawn(async move { while messages.recv().await.is_some() {} });
    let answer = runtime_api::router(inbox, doors).oneshot(request).await;
    taken.abort();
    answer.ok().map(|answer| answer.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_fuzzer_sends_arrives() {
        let status = runtime_api("POST", "/v1/runtime/invocation/response/x", &[], b"{}").await;
        assert!(status.is_some_and(|status| status < 500), "{status:?}");
        assert_eq!(runtime_api("GET", "/nowhere", &[], b"").await, Some(404));
        assert_eq!(runtime_api("no method", "/", &[], b"").await, None);
    }
}
