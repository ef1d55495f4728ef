//! Request bodies: read within a limit, then parsed; nothing is believed about them before.

use std::error::Error;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value};
use supervisor::http::TooSlow;

use crate::error::ApiError;

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(own(body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "FSS.1201",
            format!("the request body is larger than {limit} bytes"),
        )),
        Err(error) => Err(match too_slow(error.as_ref()) {
            Some(late) => ApiError::new(StatusCode::REQUEST_TIMEOUT, "FSS.0408", late.to_string()),
            None => ApiError::invalid(format!("the request body could not be read: {error}")),
        }),
    }
}

/// Whether it came to that since the body took too long, whatever that is wrapped in.
fn too_slow<'a>(mut error: &'a (dyn Error + 'static)) -> Option<&'a TooSlow> {
    loop {
        match error.downcast_ref() {
            Some(late) => return Some(late),
            None => error = error.source()?,
        }
    }
}

/// A small body is a slice of the connection's read buffer, and would keep all of it for as long as the
/// request waits; a large one came in several pieces and has been put together in memory of its own.
fn own(body: Bytes) -> Bytes {
    if body.len() <= READ_BUFFER { Bytes::copy_from_slice(&body) } else { body }
}

/// More than one read of a connection brings at first; copying as much costs a few microseconds.
const READ_BUFFER: usize = 64 << 10;

/// Refuses a content type that says it is not JSON. None at all is taken for JSON: clients leave it out.
pub(crate) fn must_be_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or_default().to_ascii_lowercase();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(not_json(format!("content type {essence:?} is not application/json")))
}

pub(crate) fn not_json(why: String) -> ApiError {
    ApiError::new(StatusCode::NOT_ACCEPTABLE, "FSS.0406", why)
}

/// A body that must be a JSON object.
pub(crate) fn object(body: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the request body is not a JSON object".to_owned()),
        Err(error) => Err(format!("the request body is not JSON: {error}")),
    }
}
