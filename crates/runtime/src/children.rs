//! Invoking other functions.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Context, node::Answer};

/// The code of a cancelled request.
const CANCELED: &str = "FSS.4208";

/// Why a child has no result.
#[derive(Debug, thiserror::Error)]
pub enum InvokeError {
    /// This request is cancelled: it waits for nothing and starts nothing any more. The child, if it was
    /// accepted, goes on unless the cancel is recursive.
    #[error("the request that invokes is cancelled")]
    Canceled,
    /// The node refused it, or the function failed.
    #[error("{status} {code}: {message}")]
    Failed {
        /// The HTTP status.
        status: u16,
        /// `error_code` of the answer; empty if it has none.
        code: String,
        /// `error_msg` of the answer, or its text.
        message: String,
    },
    /// The node could not be reached.
    #[error("the node cannot be reached: {0}")]
    Unreachable(String),
    /// The event cannot be written as JSON, or the result is not what was expected.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl InvokeError {
    /// Whether the child was cancelled.
    pub fn child_was_canceled(&self) -> bool {
        matches!(self, Self::Failed { code, .. } if code == CANCELED)
    }
}

#[derive(Deserialize)]
struct Refusal {
    error_code: String,
    error_msg: String,
}

#[derive(Deserialize)]
struct Accepted {
    request_id: String,
}

pub(crate) async fn invoke<R: DeserializeOwned>(
    context: &Context,
    function: &str,
    event: &(impl Serialize + Sync),
) -> Result<R, InvokeError> {
    let answer = call(context, function, "invocations", event).await?;
    Ok(serde_json::from_slice(&answer)?)
}

pub(crate) async fn invoke_async(
    context: &Context,
    function: &str,
    event: &(impl Serialize + Sync),
) -> Result<String, InvokeError> {
    let answer = call(context, function, "invocations-async", event).await?;
    Ok(serde_json::from_slice::<Accepted>(&answer)?.request_id)
}

async fn call(
    context: &Context,
    function: &str,
    how: &str,
    event: &(impl Serialize + Sync),
) -> Result<Bytes, InvokeError> {
    let settings = context.node().settings();
    let (project, function) = (escaped(&settings.project), escaped(function));
    let uri = format!("{}/v2/{project}/fgs/functions/{function}/{how}", settings.endpoint);
    let body = serde_json::to_vec(event)?.into();
    let headers = [("x-auth-token", context.auth_token()), ("content-type", "application/json")];
    let answer = tokio::select! {
        biased;
        () = context.stopped() => return Err(InvokeError::Canceled),
        answer = context.node().call(&uri, &headers, body) => answer.map_err(InvokeError::Unreachable)?,
    };
    let Answer { status, body } = answer;
    if status.is_success() {
        return Ok(body);
    }
    let told = serde_json::from_slice(&body).unwrap_or_else(|_| Refusal {
        error_code: String::new(),
        error_msg: String::from_utf8_lossy(&body).into_owned(),
    });
    Err(InvokeError::Failed { status: status.as_u16(), code: told.error_code, message: told.error_msg })
}

/// A segment of a path.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(escaped("urn:fss:x:default:f_1-a.b"), "urn:fss:x:default:f_1-a.b");
        assert_eq!(escaped("../a b?c#d/é"), "..%2Fa%20b%3Fc%23d%2F%C3%A9");
    }
}
