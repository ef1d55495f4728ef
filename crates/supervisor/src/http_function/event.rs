//! What an event is as an HTTP request: one of the API gateway's is the request it describes, and every
//! other is `POST /invoke`, as for functions in containers.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value};

/// Where an event goes that is no HTTP request, and what initialises a function that says it has an initializer.
const INVOKE: &str = "/invoke";
pub(super) const INITIALIZE: &str = "/init";
/// Path and query; servers take 8 KiB or so.
const MAX_TARGET_BYTES: usize = 32 << 10;
/// Headers of an event, and their bytes together: servers take about so many.
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 32 << 10;
/// What names these begin with is said by the node alone.
const OWN_PREFIXES: [&str; 2] = ["x-cff-", "x-quell-"];
/// About one connection, or the length that the node counts itself.
const NOT_PASSED_ON: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::CONTENT_LENGTH,
    header::EXPECT,
];

/// Whether a header is passed on between a caller and a function. `connection`: what its own header of that
/// name says, which names more that are not.
pub(super) fn is_passed_on(name: &HeaderName, connection: &str) -> bool {
    let named = connection.split(',').any(|word| word.trim().eq_ignore_ascii_case(name.as_str()));
    !named && !NOT_PASSED_ON.contains(name)
}

/// An event as a request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) target: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// It came from a gateway, which takes whatever status it is answered with; else only 2xx is a success.
    pub(super) any_status: bool,
}

impl Call {
    /// `POST` of this to a fixed path.
    pub(super) fn post(path: &'static str, body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let target = Uri::from_static(path);
        Self { method: Method::POST, target, headers, body, any_status: false }
    }

    /// # Errors
    /// What of a gateway's event cannot be sent, in words.
    pub(super) fn of(event: &Bytes) -> Result<Self, String> {
        let parsed = serde_json::from_slice::<Value>(event).ok();
        let fields = parsed.as_ref().and_then(Value::as_object);
        let text = |name: &str| fields.and_then(|fields| fields.get(name)).and_then(Value::as_str);
        let (Some(fields), Some(method), Some(path)) = (fields, text("httpMethod"), text("path")) else {
            return Ok(Self::post(INVOKE, event.clone()));
        };
        let method = match Method::from_bytes(method.to_ascii_uppercase().as_bytes()) {
            Ok(method) if method != Method::CONNECT => method,
            _ => return Err(format!("httpMethod {method:?} is no method")),
        };
        Ok(Self {
            method,
            target: target(path, fields.get("queryStringParameters"))?,
            headers: headers(fields.get("headers"))?,
            body: body(fields)?,
            any_status: true,
        })
    }
}

fn target(path: &str, query: Option<&Value>) -> Result<Uri, String> {
    if !path.starts_with('/') {
        return Err(format!("path {path:?} does not begin with /"));
    }
    let mut target = String::with_capacity(path.len());
    // What is escaped in it stays as it is.
    escape(path, |byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}?#".contains(&byte), &mut target);
    let mut sign = '?';
    for (name, values) in map("queryStringParameters", query)?.into_iter().flatten() {
        for value in texts(name, values)? {
            target.push(sign);
            sign = '&';
            escape(name, is_unreserved, &mut target);
            target.push('=');
            escape(&value, is_unreserved, &mut target);
        }
    }
    if target.len() > MAX_TARGET_BYTES {
        return Err(format!("path and query are longer than {MAX_TARGET_BYTES} bytes"));
    }
    target.parse().map_err(|error| format!("path {path:?}: {error}"))
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn escape(text: &str, plain: impl Fn(u8) -> bool, into: &mut String) {
    for byte in text.bytes() {
        match plain(byte) {
            true => into.push(char::from(byte)),
            false => into.push_str(&format!("%{byte:02X}")),
        }
    }
}

fn map<'a>(name: &str, value: Option<&'a Value>) -> Result<Option<&'a Map<String, Value>>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(format!("{name} is not an object")),
    }
}

/// One value, or several of one name.
fn texts(name: &str, value: &Value) -> Result<Vec<String>, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null => Ok(String::new()),
        Value::Array(_) | Value::Object(_) => Err(format!("{name:?} is neither a text nor a list of texts")),
    };
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        value => Ok(vec![text(value)?]),
    }
}

fn headers(given: Option<&Value>) -> Result<HeaderMap, String> {
    let given = map("headers", given)?;
    let connection = given.into_iter().flatten().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    let connection = connection.filter_map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(",");
    let (mut headers, mut bytes) = (HeaderMap::new(), 0);
    for (name, values) in given.into_iter().flatten() {
        let known = HeaderName::from_bytes(name.as_bytes());
        let known = known.map_err(|_| format!("{name:?} is no name of a header"))?;
        if !is_passed_on(&known, &connection)
            || OWN_PREFIXES.iter().any(|own| known.as_str().starts_with(own))
        {
            continue;
        }
        for value in texts(name, values)? {
            bytes += known.as_str().len() + value.len();
            if headers.len() >= MAX_HEADERS || bytes > MAX_HEADER_BYTES {
                return Err(format!(
                    "more than {MAX_HEADERS} headers, or than {MAX_HEADER_BYTES} bytes of them"
                ));
            }
            let value = HeaderValue::from_str(&value);
            headers.append(&known, value.map_err(|_| format!("the value of {name:?} is no header's"))?);
        }
    }
    Ok(headers)
}

fn body(fields: &Map<String, Value>) -> Result<Bytes, String> {
    let encoded = fields.get("isBase64Encoded").and_then(Value::as_bool).unwrap_or(false);
    match fields.get("body") {
        None | Some(Value::Null) => Ok(Bytes::new()),
        Some(Value::String(text)) if encoded => match STANDARD.decode(text) {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(format!("body is not the Base64 that isBase64Encoded says it is: {error}")),
        },
        Some(Value::String(text)) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Some(other) => Ok(other.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(event: Value) -> Result<Call, String> {
        Call::of(&event.to_string().into())
    }

    #[test]
    fn what_is_no_request_is_posted_to_invoke_as_it_came() {
        for event in [
            "{\"a\": 1}",
            "[1]",
            "no JSON",
            "",
            "{\"httpMethod\": \"GET\"}",
            "{\"path\": \"/\", \"httpMethod\": 1}",
        ] {
            let call = Call::of(&Bytes::from(event)).unwrap();
            assert_eq!((call.method, call.target.to_string().as_str()), (Method::POST, "/invoke"), "{event}");
            assert_eq!((&call.body[..], call.any_status), (event.as_bytes(), false));
        }
    }

    #[test]
    fn a_gateways_event_is_the_request_it_describes() {
        let rows = [
            (json!({}), "/", ""),
            (json!({ "path": "/a b/%20/ü?#" }), "/a%20b/%20/%C3%BC%3F%23", ""),
            (json!({ "queryStringParameters": null, "headers": null, "body": null }), "/", ""),
            (
                json!({ "queryStringParameters": { "a": "1 &", "b": ["x", 2, true, null] } }),
                "/?a=1%20%26&b=x&b=2&b=true&b=",
                "",
            ),
            (json!({ "body": "plain", "isBase64Encoded": false }), "/", "plain"),
            (json!({ "body": "cGxhaW4=", "isBase64Encoded": true }), "/", "plain"),
            (json!({ "body": { "a": 1 } }), "/", "{\"a\":1}"),
        ];
        for (more, target, body) in rows {
            let mut event = json!({ "httpMethod": "put", "path": "/" });
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let call = call(event).unwrap();
            assert_eq!((call.method, call.target.to_string().as_str()), (Method::PUT, target), "{more}");
            assert_eq!((&call.body[..], call.any_status), (body.as_bytes(), true), "{more}");
        }
    }

    #[test]
    fn only_what_is_the_callers_to_say_is_passed_on() {
        let headers = json!({
            "Accept": ["a", "b"], "Host": "example", "X-One": 1, "Connection": "close, X-Hop", "X-Hop": "x",
            "Transfer-Encoding": "chunked", "Content-Length": "7", "Expect": "100-continue", "TE": "trailers",
            "X-CFF-Request-Id": "spoofed", "x-quell-invocation-id": "spoofed",
        });
        let call = call(json!({ "httpMethod": "GET", "path": "/", "headers": headers })).unwrap();
        let mut passed: Vec<_> =
            call.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        passed.sort();
        assert_eq!(passed, ["accept: a", "accept: b", "host: example", "x-one: 1"]);
    }

    #[test]
    fn what_cannot_be_sent_is_said_and_nothing_is_sent() {
        let many: Map<String, Value> = (0..101).map(|at| (format!("h{at}"), json!("v"))).collect();
        for (more, part) in [
            (json!({ "httpMethod": "B A D" }), "no method"),
            (json!({ "httpMethod": "CONNECT" }), "no method"),
            (json!({ "path": "a" }), "does not begin"),
            (json!({ "path": format!("/{}", "a".repeat(MAX_TARGET_BYTES)) }), "longer than"),
            (json!({ "headers": [] }), "headers is not an object"),
            (json!({ "headers": { "a b": "c" } }), "no name"),
            (json!({ "headers": { "a": "b\nc" } }), "no header's"),
            (json!({ "headers": { "a": {} } }), "neither a text"),
            (json!({ "headers": many }), "more than 100"),
            (json!({ "headers": { "a": "b".repeat(MAX_HEADER_BYTES) } }), "more than"),
            (json!({ "queryStringParameters": "a=b" }), "not an object"),
            (json!({ "body": "%", "isBase64Encoded": true }), "not the Base64"),
        ] {
            let mut event = json!({ "httpMethod": "GET", "path": "/" });
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let why = call(event).unwrap_err();
            assert!(why.contains(part), "{part}: {why}");
        }
    }
}
