//! Requests signed by SDK-HMAC-SHA256 (`functiongraph.md` 4.1): what was signed, put together again.
//!
//! Pure: the caller brings the secret, the time and the body. What a client may leave out of its signature
//! is its choice, except for what would let others reuse it: the host and the time are always in it.

use std::fmt::Write as _;

use axum::http::{HeaderMap, Method, Uri, header};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use sha2::{Digest as _, Sha256};

/// The algorithm, first word of the header and of what is signed.
pub(crate) const ALGORITHM: &str = "SDK-HMAC-SHA256";
const DATE: &str = "x-sdk-date";
/// How far the clocks of client and node may be apart, in seconds: as the service's gateway has it.
const MAX_SKEW_S: i64 = 15 * 60;
/// Headers one signature may name: clients name five to ten.
const MAX_SIGNED_HEADERS: usize = 64;
/// Pairs of a query: more are no client's of ours, and sorting them is not free.
const MAX_PAIRS: usize = 256;
/// An access key, ours or the service's, is shorter.
const MAX_ACCESS_KEY: usize = 128;

/// Why a signature is refused, for the audit log: a client is told no more than that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("the Authorization header cannot be read")]
    Unreadable,
    #[error("X-Sdk-Date is missing or cannot be read")]
    NoDate,
    #[error("host and x-sdk-date must be signed")]
    NotBound,
    #[error("a signed header is not in the request")]
    HeaderMissing,
    #[error("X-Sdk-Date is more than 15 minutes from the time of the node")]
    Skewed,
    #[error("the query has too many parameters")]
    TooMany,
    #[error("the signature is of another secret or of another request")]
    Wrong,
}

/// What an `Authorization` header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature<'a> {
    pub(crate) access_key: &'a str,
    signed_headers: Vec<&'a str>,
    signature: [u8; 32],
}

impl<'a> Signature<'a> {
    /// Whether a header is one of this algorithm at all.
    pub(crate) fn is_one(authorization: &str) -> bool {
        authorization.strip_prefix(ALGORITHM).is_some_and(|rest| rest.starts_with(' '))
    }

    /// `SDK-HMAC-SHA256 Access=AK, SignedHeaders=a;b, Signature=64 hexadecimal digits`.
    pub(crate) fn parse(authorization: &'a str) -> Result<Self, SignatureError> {
        let rest = authorization.strip_prefix(ALGORITHM).and_then(|rest| rest.strip_prefix(' '));
        let (mut access_key, mut headers, mut signature) = (None, None, None);
        for part in rest.ok_or(SignatureError::Unreadable)?.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or(SignatureError::Unreadable)?;
            let place = match name {
                "Access" => &mut access_key,
                "SignedHeaders" => &mut headers,
                "Signature" => &mut signature,
                _ => return Err(SignatureError::Unreadable),
            };
            if place.replace(value).is_some() {
                return Err(SignatureError::Unreadable);
            }
        }
        let (Some(access_key), Some(headers), Some(hex)) = (access_key, headers, signature) else {
            return Err(SignatureError::Unreadable);
        };
        let signed_headers: Vec<&str> = headers.split(';').take(MAX_SIGNED_HEADERS + 1).collect();
        let mut signature = [0; 32];
        let read = hex::decode_to_slice(hex, &mut signature).is_ok();
        let sane =
            (1..=MAX_ACCESS_KEY).contains(&access_key.len()) && signed_headers.len() <= MAX_SIGNED_HEADERS;
        if !read || !sane || signed_headers.iter().any(|name| name.is_empty()) {
            return Err(SignatureError::Unreadable);
        }
        let has = |wanted: &str| signed_headers.iter().any(|name| name.eq_ignore_ascii_case(wanted));
        if !has(DATE) || !has("host") {
            return Err(SignatureError::NotBound);
        }
        Ok(Self { access_key, signed_headers, signature })
    }

    /// Whether this header is part of what was signed.
    pub(crate) fn covers(&self, header: &str) -> bool {
        self.signed_headers.iter().any(|name| name.eq_ignore_ascii_case(header))
    }

    /// What the client must have signed: everything but the body's hash. Checks the date against `now`.
    pub(crate) fn statement(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Statement, SignatureError> {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok()).ok_or(SignatureError::NoDate)?;
        if (now.as_second() - time(date)?.as_second()).abs() > MAX_SKEW_S {
            return Err(SignatureError::Skewed);
        }
        let mut canonical = format!("{method}\n{}\n{}\n", path(uri.path()), query(uri.query())?);
        for name in &self.signed_headers {
            let name = name.to_ascii_lowercase();
            writeln!(canonical, "{name}:{}", value(&name, uri, headers)?).ok(); // a String takes anything
        }
        write!(canonical, "\n{}\n", self.signed_headers.join(";")).ok();
        Ok(Statement { canonical, date: date.to_owned() })
    }

    /// Whether it is the signature of this secret under that statement with this body. In constant time.
    pub(crate) fn verify(
        &self,
        statement: &Statement,
        body: &[u8],
        secret: &str,
    ) -> Result<(), SignatureError> {
        let canonical = format!("{}{}", statement.canonical, hex::encode(Sha256::digest(body)));
        let hash = hex::encode(Sha256::digest(canonical.as_bytes()));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| SignatureError::Wrong)?;
        mac.update(format!("{ALGORITHM}\n{}\n{hash}", statement.date).as_bytes());
        mac.verify_slice(&self.signature).map_err(|_| SignatureError::Wrong)
    }
}

/// The canonical request up to its last line, and the date that goes before its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    canonical: String,
    date: String,
}

/// `YYYYMMDDTHHMMSSZ`, and nothing else.
fn time(text: &str) -> Result<Timestamp, SignatureError> {
    let date = DateTime::strptime("%Y%m%dT%H%M%SZ", text).map_err(|_| SignatureError::NoDate)?;
    TimeZone::UTC.to_timestamp(date).map_err(|_| SignatureError::NoDate)
}

/// The value of a header as it was signed; HTTP/2 has the host in the request line.
fn value(name: &str, uri: &Uri, headers: &HeaderMap) -> Result<String, SignatureError> {
    let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = match values.next() {
        Some(first) => first.trim().to_owned(),
        None if name == header::HOST.as_str() => {
            uri.authority().ok_or(SignatureError::HeaderMissing)?.as_str().to_owned()
        }
        None => return Err(SignatureError::HeaderMissing),
    };
    Ok(values.fold(first, |all, next| format!("{all},{}", next.trim())))
}

/// Each segment decoded and encoded again, with a slash at the end.
fn path(path: &str) -> String {
    let mut canonical = String::with_capacity(path.len() + 16);
    for segment in path.split('/').skip(1) {
        canonical.push('/');
        encode(&decode(segment), &mut canonical);
    }
    if !canonical.ends_with('/') {
        canonical.push('/');
    }
    canonical
}

/// The pairs decoded, sorted, and encoded again.
fn query(query: Option<&str>) -> Result<String, SignatureError> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = pairs
        .take(MAX_PAIRS + 1)
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect();
    if pairs.len() > MAX_PAIRS {
        return Err(SignatureError::TooMany);
    }
    pairs.sort_unstable();
    let mut canonical = String::new();
    for (key, value) in &pairs {
        if !canonical.is_empty() {
            canonical.push('&');
        }
        encode(key, &mut canonical);
        canonical.push('=');
        encode(value, &mut canonical);
    }
    Ok(canonical)
}

/// What is no escape is taken as it stands.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escape = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let mut value = [0];
        if escape.is_some_and(|escape| hex::decode_to_slice(escape, &mut value).is_ok()) {
            decoded.push(value[0]);
            at += 3;
        } else {
            decoded.push(*byte);
            at += 1;
        }
    }
    decoded
}

fn encode(bytes: &[u8], to: &mut String) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            to.push(char::from(*byte));
        } else {
            write!(to, "%{byte:02X}").ok(); // a String takes anything
        }
    }
}

#[cfg(test)]
mod tests;
