//! Request bodies: read within a limit, then parsed; nothing is believed about them before.

use std::error::Error;

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde_json::{Map, Value};
use supervisor::http::TooSlow;

use crate::error::ApiError;

/// A body that says how long it is gets its memory at once up to this; the rest comes as it arrives.
const FIRST_ROOM: usize = 64 << 10;

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    read_counted(body, limit, |_| Ok(())).await
}

/// The same, and `more` is asked before each piece whether there is room for so many bytes.
///
/// Into one buffer of its own: pieces are slices of the connection's read buffer, however small they are, and
/// would keep all of it for as long as the request waits.
pub(crate) async fn read_counted(
    mut body: Body,
    limit: usize,
    mut more: impl FnMut(usize) -> Result<(), ApiError>,
) -> Result<Bytes, ApiError> {
    let too_large = || {
        let message = format!("the request body is larger than {limit} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "FSS.1201", message)
    };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    // What announces too much is read up to its limit all the same: who is cut off while he sends may not see
    // the answer.
    let mut all = Vec::with_capacity(announced.min(FIRST_ROOM));
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|error| unread(&error))?.into_data() else { continue };
        if all.len() + piece.len() > limit {
            return Err(too_large());
        }
        more(piece.len())?;
        all.extend_from_slice(&piece);
    }
    all.shrink_to_fit();
    Ok(Bytes::from(all))
}

fn unread(error: &(dyn Error + 'static)) -> ApiError {
    match too_slow(error) {
        Some(late) => ApiError::new(StatusCode::REQUEST_TIMEOUT, "FSS.0408", late.to_string()),
        None => ApiError::invalid(format!("the request body could not be read: {error}")),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that comes byte by byte and says nothing of its length.
    fn crumbs(count: usize) -> Body {
        let crumb = || Ok::<_, std::io::Error>(Bytes::from_static(b"x"));
        Body::from_stream(futures_util::stream::iter((0..count).map(move |_| crumb())))
    }

    #[tokio::test]
    async fn a_body_in_crumbs_is_one_piece_no_larger_than_it_is_and_counted_as_it_comes() {
        let mut counted = 0;
        let body = read_counted(crumbs(10_000), 10_000, |more| {
            counted += more;
            Ok(())
        });
        assert_eq!((body.await.unwrap().len(), counted), (10_000, 10_000));
        let refused = read_counted(crumbs(10), 100, |_| Err(ApiError::unavailable("no room"))).await;
        assert_eq!(refused.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_body_is_refused_where_it_passes_its_limit() {
        assert_eq!(read(crumbs(101), 100).await.unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(read(Body::from(vec![0; 101]), 100).await.unwrap_err().code, "FSS.1201");
        assert_eq!(read(Body::from("abc"), 3).await.unwrap(), "abc");
    }
}
