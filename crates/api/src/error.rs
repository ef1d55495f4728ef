//! Every error of the API: its status, its code, its message, in one place.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;
use store::StoreError;
use supervisor::InvokeError;

/// What a request is refused with: exactly `{"error_code", "error_msg"}` on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "FSS.0400", message)
    }

    pub(crate) fn invalid_token() -> Self {
        Self::new(StatusCode::FORBIDDEN, "FSS.0403", "invalid token")
    }

    pub(crate) fn not_permitted() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "FSS.0401", "not permit")
    }

    /// For cancel and the lists (`functiongraph.md` section 1).
    pub(crate) fn cannot_find_function() -> Self {
        Self::new(StatusCode::NOT_FOUND, "FSS.0404", "can not find function")
    }

    /// For the operations on functions themselves.
    pub(crate) fn no_function() -> Self {
        Self::new(StatusCode::NOT_FOUND, "FSS.1051", "Not found the function")
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "FSS.0404", format!("{what} not found"))
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "FSS.0500", message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "FSS.0503", message)
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "FSS.0429", message)
    }

    /// An operation that has no meaning on a node.
    pub(crate) fn unsupported_because(why: &str) -> Self {
        let message = format!("this operation is not supported by a node: {why}");
        Self::new(StatusCode::NOT_IMPLEMENTED, "FSS.0501", message)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed a request");
        match error {
            // Of a store that nodes share this is a server that does not answer.
            StoreError::Busy
            | StoreError::Closed
            | StoreError::Lapsed
            | StoreError::Unwritable(_)
            | StoreError::Unreadable(_) => Self::unavailable(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<InvokeError> for ApiError {
    fn from(error: InvokeError) -> Self {
        let message = error.to_string();
        match error {
            InvokeError::ParentCanceled => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "FSS.4208", message),
            // Its credentials ended with it; this call was on its way.
            InvokeError::ParentGone => Self::invalid_token(),
            InvokeError::TooDeep(_) | InvokeError::Busy(_) => {
                Self::busy(format!("api is busy now: {message}"))
            }
            InvokeError::Disabled => Self::new(StatusCode::BAD_REQUEST, "FSS.150434", message),
            InvokeError::Store(_)
            | InvokeError::Stopping
            | InvokeError::NoLease
            | InvokeError::LacksLabels { .. } => Self::unavailable(message),
            InvokeError::Stuck(_) => Self::internal(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error_code": self.code, "error_msg": self.message }));
        (self.status, body).into_response()
    }
}
