//! What a response of the Lambda protocol says beside its bytes: that it failed in the middle, or that it
//! begins with a status and headers (`runtime-api.md` 1.3).

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::lambda::ERROR_TYPE;
use crate::{message::ReportKind, settings::MAX_RESPONSE_BYTES};

const ERROR_BODY: HeaderName = HeaderName::from_static("lambda-runtime-function-error-body");
/// A JSON object with `statusCode`, `headers` and `cookies`, eight NUL bytes, and the body proper.
const WITH_PRELUDE: &[u8] = b"application/vnd.awslambda.http-integration-response";
const PRELUDE_END: &[u8] = &[0; 8];
/// This client writes its "trailers" as the last bytes of the body.
const WRITES_TRAILERS_INTO_BODY: &[u8] = b"aws-lambda-rust/";
const TYPE_LINE: &[u8] = b"Lambda-Runtime-Function-Error-Type: ";
const BODY_LINE: &str = "\r\nLambda-Runtime-Function-Error-Body: ";
/// Of an error that a stream ends with: text for people.
const MAX_TAIL: usize = 256 << 10;

/// The result that a response means, and whether it is one.
pub(super) fn meaning(headers: &HeaderMap, trailers: Option<&HeaderMap>, body: Bytes) -> (Bytes, ReportKind) {
    if let Some(error) = trailers.and_then(trailed_error).or_else(|| written_error(headers, &body)) {
        return (error, ReportKind::Error);
    }
    if !has(headers, &header::CONTENT_TYPE, WITH_PRELUDE) {
        return (body, ReportKind::Response);
    }
    match with_prelude(&body) {
        Some(result) if result.len() > MAX_RESPONSE_BYTES => (Bytes::new(), ReportKind::TooLarge),
        Some(result) => (result, ReportKind::Response),
        None => {
            let why = "the response has no status and headers before its body, as its content type says";
            (error_body("Runtime.InvalidPrelude", why), ReportKind::Error)
        }
    }
}

fn has(headers: &HeaderMap, name: &HeaderName, prefix: &[u8]) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes().starts_with(prefix))
}

/// A failure in the protocol's own words.
pub(super) fn error_body(kind: &str, message: &str) -> Bytes {
    json!({ "errorType": kind, "errorMessage": message }).to_string().into()
}

/// An error that real trailers tell of.
fn trailed_error(trailers: &HeaderMap) -> Option<Bytes> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let kind = trailers.get(ERROR_TYPE).map(text).filter(|kind| !kind.is_empty())?;
    let told = trailers.get(ERROR_BODY).map(text).unwrap_or_default();
    Some(told_error(&kind, &told))
}

/// An error that the last bytes of a stream tell of, of a client that does that.
fn written_error(headers: &HeaderMap, body: &Bytes) -> Option<Bytes> {
    if !has(headers, &header::USER_AGENT, WRITES_TRAILERS_INTO_BODY) || !headers.contains_key(header::TRAILER)
    {
        return None;
    }
    let tail = &body[body.len().saturating_sub(MAX_TAIL)..];
    let at = tail.windows(TYPE_LINE.len()).rposition(|bytes| bytes == TYPE_LINE)?;
    let lines = std::str::from_utf8(&tail[at + TYPE_LINE.len()..]).ok()?;
    let (kind, told) = lines.strip_suffix("\r\n")?.split_once(BODY_LINE)?;
    let is_tail = !kind.contains(['\r', '\n']) && !told.contains(['\r', '\n']);
    is_tail.then(|| told_error(kind, told))
}

/// An error by its type and its body in base64: JSON, or words.
fn told_error(kind: &str, told: &str) -> Bytes {
    let told = BASE64.decode(told).unwrap_or_default();
    match serde_json::from_slice::<Map<String, Value>>(&told) {
        Ok(mut error) if error.contains_key("errorMessage") => {
            error.entry("errorType").or_insert_with(|| json!(kind));
            Value::Object(error).to_string().into()
        }
        Ok(_) | Err(_) => error_body(kind, &String::from_utf8_lossy(&told)),
    }
}

/// Status, headers and body as one result, in the shape that HTTP front doors take.
fn with_prelude(body: &[u8]) -> Option<Bytes> {
    let end = body.windows(PRELUDE_END.len()).position(|bytes| bytes == PRELUDE_END)?;
    let (prelude, rest) = (&body[..end], &body[end + PRELUDE_END.len()..]);
    let prelude: Map<String, Value> = serde_json::from_slice(prelude).ok()?;
    let (text, encoded) = match std::str::from_utf8(rest) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (BASE64.encode(rest), true),
    };
    let mut result = Map::new();
    result.insert("statusCode".into(), prelude.get("statusCode").cloned().unwrap_or(json!(200)));
    result.insert("headers".into(), prelude.get("headers").cloned().unwrap_or_else(|| json!({})));
    let cookies =
        prelude.get("cookies").filter(|cookies| cookies.as_array().is_some_and(|all| !all.is_empty()));
    if let Some(cookies) = cookies {
        result.insert("cookies".into(), cookies.clone());
    }
    result.insert("body".into(), json!(text));
    result.insert("isBase64Encoded".into(), json!(encoded));
    Some(Value::Object(result).to_string().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn json_of(bytes: &Bytes) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    const PRELUDE: (&str, &str) = ("content-type", "application/vnd.awslambda.http-integration-response");
    const RUST: [(&str, &str); 2] =
        [("user-agent", "aws-lambda-rust/1.1.1"), ("trailer", "Lambda-Runtime-Function-Error-Type")];

    #[test]
    fn real_trailers_make_a_failure_of_whatever_came_before() {
        let body = BASE64.encode(r#"{"errorType":"Kaputt","errorMessage":"in the middle","trace":[]}"#);
        let trailers = headers(&[
            ("lambda-runtime-function-error-type", "Kaputt"),
            ("lambda-runtime-function-error-body", &body),
        ]);
        let (error, kind) = meaning(&headers(&[]), Some(&trailers), Bytes::from("half"));
        assert_eq!((kind, &json_of(&error)["errorMessage"]), (ReportKind::Error, &json!("in the middle")));
        let trailers = headers(&[("lambda-runtime-function-error-type", "Kaputt")]);
        let (error, kind) = meaning(&headers(&[]), Some(&trailers), Bytes::new());
        assert_eq!((kind, &json_of(&error)["errorType"]), (ReportKind::Error, &json!("Kaputt")));
        let none = headers(&[("lambda-runtime-function-error-type", "")]);
        assert_eq!(meaning(&headers(&[]), Some(&none), Bytes::from("x")).1, ReportKind::Response);
    }

    #[test]
    fn trailers_at_the_end_of_the_body_count_for_the_client_that_writes_them_there() {
        let told = BASE64.encode("it broke");
        let tail = format!(
            "begun\0Lambda-Runtime-Function-Error-Type: Runtime.StreamError\r\nLambda-Runtime-Function-Error-Body: {told}\r\n"
        );
        let (error, kind) = meaning(&headers(&RUST), None, Bytes::from(tail.clone()));
        assert_eq!(kind, ReportKind::Error);
        assert_eq!(
            json_of(&error),
            json!({ "errorType": "Runtime.StreamError", "errorMessage": "it broke" })
        );
        let other = headers(&[("user-agent", "node"), RUST[1]]);
        assert_eq!(meaning(&other, None, Bytes::from(tail.clone())).1, ReportKind::Response);
        let more = Bytes::from(format!("{tail}and so on"));
        assert_eq!(meaning(&headers(&RUST), None, more).1, ReportKind::Response);
    }

    #[test]
    fn a_prelude_becomes_one_result_with_status_headers_and_body() {
        let stream = |body: &[u8]| {
            let mut stream = br#"{"statusCode":201,"headers":{"a":"b"},"cookies":["c=d"]}"#.to_vec();
            stream.extend([0; 8]);
            stream.extend(body);
            meaning(&headers(&[PRELUDE]), None, Bytes::from(stream))
        };
        let (result, kind) = stream(b"text \0");
        assert_eq!(kind, ReportKind::Response);
        let whole = json!({
            "statusCode": 201, "headers": { "a": "b" }, "cookies": ["c=d"],
            "body": "text \0", "isBase64Encoded": false,
        });
        assert_eq!(json_of(&result), whole);
        let (result, _) = stream(&[0xff, 0xfe]);
        assert_eq!(
            (&json_of(&result)["body"], &json_of(&result)["isBase64Encoded"]),
            (&json!("//4="), &json!(true))
        );
        let control = vec![1; MAX_RESPONSE_BYTES / 3]; // six bytes each in JSON
        assert_eq!(stream(&control).1, ReportKind::TooLarge);
        for broken in [&b"no prelude"[..], b"[]\0\0\0\0\0\0\0\0x", b"{\0\0\0\0\0\0\0\0x"] {
            let (error, kind) = meaning(&headers(&[PRELUDE]), None, Bytes::from(broken));
            assert_eq!(
                (kind, &json_of(&error)["errorType"]),
                (ReportKind::Error, &json!("Runtime.InvalidPrelude"))
            );
        }
    }
}
