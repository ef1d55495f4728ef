//! Errors as the node is told of them.

use std::any::Any;

use bytes::Bytes;
use serde_json::json;

use crate::Error;

/// Of an error's text: enough for any diagnosis.
const MAX_MESSAGE: usize = 64 << 10;

pub(crate) fn error(kind: &str, message: &str) -> Bytes {
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    json!({ "errorType": kind, "errorMessage": &message[..end], "stackTrace": [] }).to_string().into()
}

/// A handler's own error.
pub(crate) fn failed(raised: &Error) -> Bytes {
    error("Error", &raised.to_string())
}

/// A panic; its message is what `panic!` was given.
pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Bytes {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    error("Panic", text.unwrap_or("the handler panicked"))
}

/// No code of the request runs any more.
pub(crate) fn canceled() -> Bytes {
    error("InvocationCanceled", "the invocation was cancelled")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let body = error("Error", &"é".repeat(MAX_MESSAGE));
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(told["errorMessage"].as_str().unwrap().len(), MAX_MESSAGE);
        let body = error("Error", &format!("x{}", "é".repeat(MAX_MESSAGE)));
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(told["errorMessage"].as_str().unwrap().len(), MAX_MESSAGE - 1);
    }
}
