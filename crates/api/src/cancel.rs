//! `POST /v2/{project}/fgs/functions/{urn}/cancel`: the operation all of this is for.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use cancel::{Cause, Level, RequestId, Scope};
use serde_json::{Map, Value};
use supervisor::{Actor, CancelAnswer, CancelOrder, Stop};

use crate::{
    auth::{Head, Right},
    body,
    error::ApiError,
    registry::Api,
    response::set,
    settings::{MAX_CANCEL_BODY, MAX_REASON, MAX_REQUEST_ID},
    urn::Urn,
};

const CANCEL_ID: HeaderName = HeaderName::from_static("x-quell-cancel-id");
const STOP: HeaderName = HeaderName::from_static("x-quell-stop");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// This client cannot parse the literal `null` of the API page (`functiongraph.md` section 1).
const NEEDS_AN_OBJECT: &str = "huaweicloud-usdk-nodejs";

/// What a body asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) request: RequestId,
    pub(crate) scope: Scope,
    pub(crate) level: Level,
    pub(crate) reason: Option<String>,
}

pub(crate) async fn cancel(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
    body: Body,
) -> Result<Response, ApiError> {
    let caller = api.caller_or_403(&head, &project, Right::Cancel)?;
    let body = api.body(&caller, body, MAX_CANCEL_BODY).await?;
    body::must_be_json(&head).map_err(|error| ApiError::invalid(error.message))?;
    let ask = parse(&body).map_err(ApiError::invalid)?;
    let urn = Urn::parse(&urn, &project)?;
    if urn.key.project != project {
        return Err(ApiError::cannot_find_function());
    }
    let function = api.requests_of(&urn).ok_or_else(ApiError::cannot_find_function)?;
    // Requests of a function or version that was deleted meanwhile can be stopped as ever.
    let exists = api.version(&urn, &project).is_ok();
    let early = prefers_early(&head);
    let reason = match ask.reason {
        Some(reason) => Some(reason),
        None => header_reason(&head)?,
    };
    let remote = head.peer();
    let order = CancelOrder {
        request: ask.request,
        function,
        scope: ask.scope,
        level: ask.level,
        cause: Cause::Asked,
        early,
        actor: Actor { credential: caller.credential, remote, reason, bulk: None },
    };
    let mut response = match api.handle.cancel(order).await {
        CancelAnswer::Unknown if !exists => return Err(ApiError::cannot_find_function()),
        told => answer(told, &head)?,
    };
    if early {
        set(&mut response, PREFERENCE_APPLIED, "respond-async");
    }
    Ok(response)
}

/// Reads a body: every mistake is named, and a mistake about the id is always `Invalid RequestId`.
pub(crate) fn parse(body: &[u8]) -> Result<Ask, String> {
    let object = body::object(body)?;
    let id = match object.get("request_id") {
        Some(Value::String(id)) if id.len() <= MAX_REQUEST_ID => RequestId::parse(id),
        _ => None,
    };
    let request = id.ok_or("Invalid RequestId")?;
    let How { scope, level, reason } = how(&object)?;
    Ok(Ask { request, scope, level, reason })
}

/// How wide, how hard and why, which is said the same way of one request and of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct How {
    pub(crate) scope: Scope,
    pub(crate) level: Level,
    pub(crate) reason: Option<String>,
}

pub(crate) fn how(object: &Map<String, Value>) -> Result<How, String> {
    let (recursive, force) = match object.get("type") {
        None | Some(Value::Null) => (false, false),
        Some(Value::String(kind)) if kind == "recursive" => (true, false),
        Some(Value::String(kind)) if kind == "force" => (false, true),
        Some(_) => return Err("type is neither \"force\" nor \"recursive\"".to_owned()),
    };
    let flag = |name: &str| match object.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(format!("{name} is not a boolean")),
    };
    let (recursive, force) = (recursive || flag("recursive")?, force || flag("force")?);
    let reason = match object.get("reason") {
        None | Some(Value::Null) => None,
        Some(Value::String(reason)) if reason.len() <= MAX_REASON => Some(reason.clone()),
        Some(Value::String(_)) => return Err(format!("reason is longer than {MAX_REASON} bytes")),
        Some(_) => return Err("reason is not a string".to_owned()),
    };
    let scope = if recursive { Scope::Subtree } else { Scope::Request };
    let level = if force { Level::Kill } else { Level::Ask };
    Ok(How { scope, level, reason })
}

fn header_reason(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    match headers.get("x-quell-reason").map(|reason| String::from_utf8_lossy(reason.as_bytes())) {
        Some(reason) if reason.len() > MAX_REASON => {
            Err(ApiError::invalid(format!("X-Quell-Reason is longer than {MAX_REASON} bytes")))
        }
        reason => Ok(reason.map(std::borrow::Cow::into_owned)),
    }
}

/// `Prefer: respond-async` (RFC 7240): the answer may come once it is fenced and recorded.
fn prefers_early(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut tokens = preferences.flat_map(|value| value.split([',', ';'])).map(str::trim);
    tokens.any(|token| token.eq_ignore_ascii_case("respond-async"))
}

fn answer(answer: CancelAnswer, headers: &HeaderMap) -> Result<Response, ApiError> {
    let words = answer.refusal();
    let refusal = |status| {
        let (code, message) = words.clone().unwrap_or_default();
        ApiError::new(status, code, message)
    };
    let (mut response, cancel, stop) = match answer {
        CancelAnswer::Done { cancel, stop } => {
            let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
            let node = agent.is_some_and(|agent| agent.starts_with(NEEDS_AN_OBJECT));
            let body = if node { "{}" } else { "null" };
            let response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
            let word = match stop {
                Stop::Stopped => "stopped",
                Stop::Draining => "draining",
                Stop::Fenced => "fenced",
            };
            (response, cancel, word)
        }
        CancelAnswer::Finished(_) | CancelAnswer::Unknown | CancelAnswer::Elsewhere => {
            return Err(refusal(StatusCode::BAD_REQUEST));
        }
        CancelAnswer::Unkillable { cancel, .. } => {
            (refusal(StatusCode::INTERNAL_SERVER_ERROR).into_response(), cancel, "unkillable")
        }
        CancelAnswer::NotRecorded { cancel, .. } => {
            (refusal(StatusCode::INTERNAL_SERVER_ERROR).into_response(), cancel, "stopped")
        }
        CancelAnswer::TooManyAskers => return Err(refusal(StatusCode::TOO_MANY_REQUESTS)),
        CancelAnswer::Gone => return Err(refusal(StatusCode::SERVICE_UNAVAILABLE)),
    };
    set(&mut response, CANCEL_ID, &cancel.to_string());
    set(&mut response, STOP, stop);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "1167bf8c-87b0-43ab-8f5f-26b16c64f252";

    fn with(rest: &str) -> Result<(Scope, Level), String> {
        let ask = parse(format!("{{\"request_id\": \"{ID}\"{rest}}}").as_bytes())?;
        assert_eq!(ask.request.to_string(), ID);
        Ok((ask.scope, ask.level))
    }

    #[test]
    fn type_and_booleans_are_one_union() {
        for (rest, scope, level) in [
            ("", Scope::Request, Level::Ask),
            (", \"type\": null", Scope::Request, Level::Ask),
            (", \"type\": \"recursive\"", Scope::Subtree, Level::Ask),
            (", \"type\": \"force\"", Scope::Request, Level::Kill),
            (", \"recursive\": true, \"force\": true", Scope::Subtree, Level::Kill),
            (", \"type\": \"force\", \"recursive\": true", Scope::Subtree, Level::Kill),
            (", \"type\": \"recursive\", \"force\": false", Scope::Subtree, Level::Ask),
            (", \"unknown\": [1], \"more\": {}", Scope::Request, Level::Ask),
        ] {
            assert_eq!(with(rest), Ok((scope, level)), "{rest}");
        }
    }

    #[test]
    fn a_bad_request_id_is_always_the_same_message() {
        let long = format!("{{\"request_id\": \"{}\"}}", "a".repeat(65));
        for body in [
            "{}",
            "{\"request_id\": null}",
            "{\"request_id\": \"\"}",
            "{\"request_id\": 7}",
            "{\"request_id\": [\"x\"]}",
            "{\"request_id\": \"no-uuid\"}",
            long.as_str(),
        ] {
            assert_eq!(parse(body.as_bytes()), Err("Invalid RequestId".to_owned()), "{body}");
        }
    }

    #[test]
    fn every_other_mistake_is_named() {
        for (rest, name) in [
            (", \"type\": \"bogus\"", "type"),
            (", \"type\": 1", "type"),
            (", \"type\": [\"force\"]", "type"),
            (", \"force\": \"true\"", "force"),
            (", \"recursive\": 1", "recursive"),
            (", \"reason\": 1", "reason"),
        ] {
            assert!(with(rest).unwrap_err().contains(name), "{rest}");
        }
        for body in ["", "null", "[]", "\"x\"", "{", "{\"request_id\": }"] {
            assert!(parse(body.as_bytes()).unwrap_err().contains("request body"), "{body}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = parse(&body);
        }
    }
}
