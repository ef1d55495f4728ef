//! `GET /quell/v1/events`: what lives in the caller's project, and what changes, as server-sent events.
//!
//! A page reads it by `fetch`, not by `EventSource`: that one cannot send a header, and a token in a URL would be
//! in histories and logs.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use supervisor::{WATCH_HEARTBEAT, WatchError, Watcher};

use crate::{
    auth::{Caller, Head, Right},
    error::ApiError,
    openapi::{ErrorBody, Refusals},
    registry::Api,
    response::set,
};

/// A watcher whose credential was revoked is given nothing after this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Who watches, as the first event says.
#[derive(Debug, Serialize)]
struct Hello<'a> {
    /// The project that is shown.
    project: &'a str,
    /// What the credential may do there.
    scopes: Vec<&'static str>,
    /// When it expires.
    until_ms: Option<i64>,
    /// The node's clock, by which all times are.
    now_ms: i64,
    /// Whoever hears nothing for longer than this is cut off.
    heartbeat_ms: u128,
}

/// What lives in the project, and what changes of it.
///
/// Server-sent events. `hello` is the first: who watches. Each `changes` holds the rows that are new or other than
/// they were, and what is gone; the first ones together are all there is. A comment says that nothing has changed.
/// `end` is the last, with an error's body: why nothing more comes.
#[utoipa::path(get, path = "/quell/v1/events", tag = "node",
               responses((status = 200, description = "events `changes` with a `Changes` each", body = String, content_type = "text/event-stream"), Refusals))]
pub(crate) async fn events(State(api): State<Arc<Api>>, head: Head) -> Result<Response, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    let watcher = api.handle.watch(caller.project.clone()).await.map_err(|error| match error {
        WatchError::Busy => ApiError::busy(format!("api is busy now: {error}")),
        WatchError::Ended => ApiError::unavailable(error.to_string()),
    })?;
    let hello = Hello {
        project: &caller.project,
        scopes: caller.scopes.words(),
        until_ms: caller.until_ms,
        now_ms: jiff::Timestamp::now().as_millisecond(),
        heartbeat_ms: WATCH_HEARTBEAT.as_millis(),
    };
    let first = event("hello", &hello);
    let watching = Watching { api, caller, watcher, looked: Instant::now(), first: Some(first), over: false };
    let body = Body::from_stream(stream::unfold(watching, Watching::next));
    let mut response = body.into_response();
    set(&mut response, header::CONTENT_TYPE, "text/event-stream");
    set(&mut response, header::CACHE_CONTROL, "no-store");
    Ok(response)
}

/// A watcher as the body of an answer: it is asked for more when the client has taken what it had.
struct Watching {
    api: Arc<Api>,
    caller: Caller,
    watcher: Watcher,
    /// When it was last seen that the caller may.
    looked: Instant,
    first: Option<Bytes>,
    over: bool,
}

impl Watching {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if self.over {
            return None;
        }
        let said = match self.first.take() {
            Some(first) => first,
            None => self.news().await,
        };
        Some((Ok(said), self))
    }

    async fn news(&mut self) -> Bytes {
        let Some(changes) = self.watcher.next().await else {
            return self.end(ApiError::unavailable("the node has ended"));
        };
        if self.looked.elapsed() >= LOOK_AGAIN {
            if let Err(error) = self.may_still().await {
                return self.end(error);
            }
            self.looked = Instant::now();
        }
        if changes.is_empty() {
            return Bytes::from_static(b": nothing new\n\n");
        }
        event("changes", &changes)
    }

    /// His credential was not revoked and has not expired; the request that he is, is not over.
    async fn may_still(&self) -> Result<(), ApiError> {
        match self.caller.request {
            Some(request) if self.api.handle.tree(request).await.is_none() => Err(ApiError::invalid_token()),
            Some(_) => Ok(()),
            None => self.api.still(&self.caller).await,
        }
    }

    fn end(&mut self, error: ApiError) -> Bytes {
        self.over = true;
        event("end", &ErrorBody { error_code: error.code, error_msg: error.message })
    }
}

/// One event. JSON has no line feeds of its own, so its data is one line.
fn event<T: Serialize>(name: &str, data: &T) -> Bytes {
    match serde_json::to_string(data) {
        Ok(data) => Bytes::from(format!("event: {name}\ndata: {data}\n\n")),
        // Cannot be: none of these types has a map whose keys are no texts.
        Err(error) => Bytes::from(format!(": {name}: {error}\n\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_data_whatever_it_says() {
        let error = ErrorBody { error_code: "FSS.1".into(), error_msg: "two\nlines\r\n\ndata: x".into() };
        let text = String::from_utf8(event("end", &error).to_vec()).unwrap();
        let (name, data) = text.strip_suffix("\n\n").unwrap().split_once('\n').unwrap();
        assert_eq!(name, "event: end");
        assert!(data.starts_with("data: {") && !data.contains(['\n', '\r']), "{data}");
    }
}
