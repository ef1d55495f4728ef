//! Logs: what requests, instances and functions printed, one JSON object a line; and what they go on to print.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::header,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use cancel::RequestId;
use futures_util::stream;
use serde::Deserialize;
use supervisor::{Follower, LogError, LogOf, LogQuery};
use utoipa::IntoParams;

use crate::{
    auth::{Caller, Head, Right},
    error::ApiError,
    functions::number,
    list_invocations,
    openapi::Refusals,
    registry::Api,
    response::set,
    urn::Urn,
};

const NDJSON: &str = "application/x-ndjson";
/// Lines of an answer if nobody says how many: what a person looks through.
const USUAL_LINES: usize = 1_000;
/// Lines of one answer at most; by time one gets at the rest.
const MAX_LINES: usize = 10_000;
/// A follower whose credential was revoked is given nothing after this.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Which lines. Times are milliseconds since the Unix epoch, or as 2026-01-31T23:59:59, UTC.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogParams {
    /// Not before this: a time.
    since: Option<String>,
    /// The last so many, at most 10000: a number. Without it and `since`, the last 1000.
    tail: Option<String>,
    /// With `since`: the first so many, at most and by default 10000: a number.
    limit: Option<String>,
    /// `true`: go on with what is printed from now on, until whatever prints it has ended.
    follow: Option<String>,
}

impl LogParams {
    fn read(&self) -> Result<(LogQuery, bool), ApiError> {
        // Empty is absent: clients send it so.
        let given = |text: &Option<String>| {
            text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let follow = match given(&self.follow).as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(ApiError::invalid(format!("follow {other:?} is neither true nor false")));
            }
        };
        let since_ms = match given(&self.since) {
            None => None,
            Some(text) => Some(match text.parse::<i64>() {
                Ok(ms) => ms,
                Err(_) => list_invocations::time(&text)?,
            }),
        };
        let count = |text: &Option<String>, name: &str| match number(text.as_deref(), name)? {
            Some(count) if count > MAX_LINES => {
                Err(ApiError::invalid(format!("{name} {count} is more than {MAX_LINES}")))
            }
            count => Ok(count),
        };
        let (tail, limit) = (count(&self.tail, "tail")?, count(&self.limit, "limit")?);
        let query = match (tail, limit) {
            (Some(_), Some(_)) => return Err(ApiError::invalid("tail and limit do not go together")),
            (None, Some(_)) if follow => {
                return Err(ApiError::invalid("limit and follow do not go together"));
            }
            (Some(tail), None) => LogQuery { since_ms, lines: tail, last: true },
            (None, Some(limit)) => LogQuery { since_ms, lines: limit, last: false },
            (None, None) if since_ms.is_some() => LogQuery { since_ms, lines: MAX_LINES, last: false },
            (None, None) => LogQuery { since_ms, lines: USUAL_LINES, last: true },
        };
        Ok((query, follow))
    }
}

/// What a request printed.
///
/// Of an instance that serves one request at a time, everything that came meanwhile; else the lines that carry its
/// id (docs/logs.md).
#[utoipa::path(get, path = "/quell/v1/requests/{id}/log", tag = "logs",
               params(("id" = String, Path, description = "a request id"), LogParams),
               responses((status = 200, description = "a `LogLine` a line", body = String, content_type = "application/x-ndjson"), Refusals))]
pub(crate) async fn request(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Query(params): Query<LogParams>,
    head: Head,
) -> Result<Response, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    let (query, follow) = params.read()?;
    let request = RequestId::parse(&id).ok_or_else(|| ApiError::not_found("request"))?;
    match answer(&api, caller.clone(), LogOf::Request(request), query, follow).await {
        Err(LogError::Unknown) => {
            // One that is over and printed nothing.
            api.store.barrier().await?;
            let record = api.store.invocation(request).await?;
            let own = record.is_some_and(|record| record.function.project == caller.project);
            if own { Ok(ndjson(Body::empty())) } else { Err(ApiError::not_found("request")) }
        }
        answered => answered.map_err(refused("request")),
    }
}

/// What an instance printed.
#[utoipa::path(get, path = "/quell/v1/instances/{id}/log", tag = "logs",
               params(("id" = String, Path, description = "an instance"), LogParams),
               responses((status = 200, description = "a `LogLine` a line", body = String, content_type = "application/x-ndjson"), Refusals))]
pub(crate) async fn instance(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    Query(params): Query<LogParams>,
    head: Head,
) -> Result<Response, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    let (query, follow) = params.read()?;
    answer(&api, caller, LogOf::Instance(id), query, follow).await.map_err(refused("instance"))
}

/// What all instances of a function printed, by time.
#[utoipa::path(get, path = "/quell/v1/functions/{urn}/log", tag = "logs",
               params(("urn" = String, Path, description = "any form of a function's URN"), LogParams),
               responses((status = 200, description = "a `LogLine` a line", body = String, content_type = "application/x-ndjson"), Refusals))]
pub(crate) async fn function(
    State(api): State<Arc<Api>>,
    Path(urn): Path<String>,
    Query(params): Query<LogParams>,
    head: Head,
) -> Result<Response, ApiError> {
    let caller = api.any_caller(&head, Right::Read)?;
    let (query, follow) = params.read()?;
    let urn = Urn::parse(&urn, &caller.project)?;
    let own = Some(urn).filter(|urn| urn.key.project == caller.project);
    let of = own.and_then(|urn| api.requests_of(&urn)).ok_or_else(ApiError::no_function)?;
    let answered = answer(&api, caller, LogOf::Function(of), query, follow).await;
    answered.map_err(|error| match error {
        LogError::Unknown => ApiError::no_function(),
        error => refused("function")(error),
    })
}

async fn answer(
    api: &Arc<Api>,
    caller: Caller,
    of: LogOf,
    query: LogQuery,
    follow: bool,
) -> Result<Response, LogError> {
    let project = caller.project.clone();
    if !follow {
        return Ok(ndjson(Body::from(api.handle.log(of, project, query).await?)));
    }
    let follower = api.handle.follow_log(of, project, query).await?;
    let following = Following { api: Arc::clone(api), caller, follower, looked: Instant::now() };
    Ok(ndjson(Body::from_stream(stream::unfold(following, Following::next))))
}

/// A follower as the body of an answer: it is asked for more when the client has taken what it had.
struct Following {
    api: Arc<Api>,
    caller: Caller,
    follower: Follower,
    /// When it was last seen that the caller may.
    looked: Instant,
}

impl Following {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        let lines = self.follower.next().await?;
        if self.looked.elapsed() >= LOOK_AGAIN {
            if self.is_over().await {
                return None;
            }
            self.looked = Instant::now();
        }
        Some((Ok(lines), self))
    }

    /// Whether the caller may see nothing more: his credential was revoked, or his request is over.
    async fn is_over(&self) -> bool {
        match self.caller.request {
            Some(request) => self.api.handle.tree(request).await.is_none(),
            None => self.api.still(&self.caller).await.is_err(),
        }
    }
}

fn ndjson(body: Body) -> Response {
    let mut response = body.into_response();
    set(&mut response, header::CONTENT_TYPE, NDJSON);
    response
}

fn refused(what: &'static str) -> impl Fn(LogError) -> ApiError {
    move |error| match error {
        LogError::Unknown => ApiError::not_found(what),
        LogError::Busy => ApiError::busy(format!("api is busy now: {error}")),
        LogError::None => ApiError::unavailable(error.to_string()),
        LogError::Io(_) => ApiError::internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(since: &str, tail: &str, limit: &str, follow: &str) -> Result<(LogQuery, bool), ApiError> {
        let text = |text: &str| Some(text.to_owned());
        LogParams { since: text(since), tail: text(tail), limit: text(limit), follow: text(follow) }.read()
    }

    #[test]
    fn what_is_asked_for_is_the_last_lines_or_the_first_since_a_time() {
        let query = |since_ms, lines, last| LogQuery { since_ms, lines, last };
        assert_eq!(read("", "", "", ""), Ok((query(None, USUAL_LINES, true), false)));
        assert_eq!(read("5", "", "", "false"), Ok((query(Some(5), MAX_LINES, false), false)));
        assert_eq!(read("1970-01-01T00:00:01", "", "2", ""), Ok((query(Some(1_000), 2, false), false)));
        assert_eq!(read("5", "0", "", "true"), Ok((query(Some(5), 0, true), true)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (since, tail, limit, follow) in [
            ("yesterday", "", "", ""),
            ("", "-1", "", ""),
            ("", "10001", "", ""),
            ("", "", "many", ""),
            ("", "1", "1", ""),
            ("", "", "1", "true"),
            ("", "", "", "yes"),
        ] {
            let error = read(since, tail, limit, follow).unwrap_err();
            assert_eq!(error.status.as_u16(), 400, "{since} {tail} {limit} {follow}");
        }
    }
}
