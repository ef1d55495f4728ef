//! What a server's answer is as a result: `{statusCode, headers, body, isBase64Encoded}`.

use axum::http::{HeaderMap, StatusCode, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::event::is_passed_on;
use crate::settings::MAX_RESPONSE_BYTES;

/// Of a body that is quoted in an error.
const QUOTED_BYTES: usize = 512;

/// An answer that came whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// As a result; `None` if that is larger than a result may be, as text in JSON is longer than as it was.
    pub(super) fn result(&self) -> Option<Bytes> {
        let connection = self.headers.get(header::CONNECTION).and_then(|value| value.to_str().ok());
        let connection = connection.unwrap_or_default();
        let mut headers = Map::new();
        for name in self.headers.keys().filter(|name| is_passed_on(name, connection)) {
            let values = self.headers.get_all(name).iter();
            let mut values: Vec<Value> =
                values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned().into()).collect();
            let value = if values.len() == 1 { values.pop() } else { Some(Value::Array(values)) };
            headers.insert(name.to_string(), value.unwrap_or_default());
        }
        let (body, encoded) = match std::str::from_utf8(&self.body) {
            Ok(text) => (text.to_owned(), false),
            Err(_) => (STANDARD.encode(&self.body), true),
        };
        let result = json!({
            "statusCode": self.status.as_u16(),
            "headers": headers,
            "body": body,
            "isBase64Encoded": encoded,
        });
        let result = Bytes::from(result.to_string());
        (result.len() <= MAX_RESPONSE_BYTES).then_some(result)
    }

    /// What it says, in few words.
    pub(super) fn words(&self) -> String {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(QUOTED_BYTES)]).into_owned();
        let body = body.trim();
        if body.is_empty() { self.status.to_string() } else { format!("{}: {body}", self.status) }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn answer(body: &'static [u8]) -> Answer {
        Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::from_static(body) }
    }

    fn result(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.result().unwrap()).unwrap()
    }

    #[test]
    fn a_text_stays_one_and_other_bytes_are_base64() {
        let text = result(&answer("grün".as_bytes()));
        assert_eq!(
            (&text["statusCode"], &text["body"], &text["isBase64Encoded"]),
            (&json!(200), &json!("grün"), &json!(false))
        );
        let bytes = result(&answer(b"\xff\x00"));
        assert_eq!((&bytes["body"], &bytes["isBase64Encoded"]), (&json!("/wA="), &json!(true)));
    }

    #[test]
    fn headers_about_the_connection_are_dropped_and_repeated_ones_are_lists() {
        let mut answer = answer(b"");
        for (name, value) in [
            ("content-type", "text/plain"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "0"),
            ("keep-alive", "timeout=5"),
        ] {
            answer.headers.append(name, HeaderValue::from_static(value));
        }
        assert_eq!(
            result(&answer)["headers"],
            json!({ "content-type": "text/plain", "set-cookie": ["a=1", "b=2"] })
        );
    }

    #[test]
    fn a_result_that_grew_over_the_limit_is_none() {
        let large = |byte: u8| Answer { body: vec![byte; MAX_RESPONSE_BYTES - 1_000].into(), ..answer(b"") };
        assert!(large(b'a').result().is_some());
        assert!(large(1).result().is_none(), "every byte of it is six in JSON");
        assert!(large(0xff).result().is_none(), "in Base64 it is a third longer");
    }
}
