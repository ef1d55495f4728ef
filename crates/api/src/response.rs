//! What every answer carries: `X-Request-Id`, and errors in the API's own shape, whoever made them.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use crate::{body, error::ApiError};

/// More than the framework ever says.
const MAX_WORDS: usize = 4_096;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Adds `X-Request-Id` where a handler did not, and gives the framework's own refusals a body.
pub(crate) async fn complete(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let error = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "FSS.0405", "method not allowed");
        let allow = response.headers_mut().remove(axum::http::header::ALLOW);
        response = error.into_response();
        if let Some(allow) = allow {
            response.headers_mut().insert(axum::http::header::ALLOW, allow);
        }
    }
    if response.status().is_client_error() && !is_json(&response) {
        // The framework's own refusal of a path or a query, in its words but in our shape.
        let (parts, body) = response.into_parts();
        let text = body::read(body, MAX_WORDS).await.unwrap_or_default();
        let words = String::from_utf8_lossy(&text).into_owned();
        response = ApiError::new(parts.status, "FSS.0400", words).into_response();
    }
    if !response.headers().contains_key(REQUEST_ID) {
        set(&mut response, REQUEST_ID, &uuid::Uuid::new_v4().to_string());
    }
    response
}

fn is_json(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
}

/// Sets a header whose value may hold anything; what cannot be a header value is left out.
pub(crate) fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The text of a header; empty if it is not there.
pub(crate) fn text_header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, ApiError> {
    let Some(value) = headers.get(name) else { return Ok("") };
    value
        .to_str()
        .map(str::trim)
        .map_err(|_| ApiError::invalid(format!("the header {name} is not plain text")))
}

/// The answer to a path nobody knows.
pub(crate) async fn unknown_route() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "FSS.0404", "no such operation")
}
