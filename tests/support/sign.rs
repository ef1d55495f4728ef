//! SDK-HMAC-SHA256 as a client makes it: for paths and headers that need no escaping, which is what these
//! tests send. The official clients are tested by themselves.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Headers of a signed request: `X-Sdk-Date`, `Authorization`, and `X-Security-Token` where there is one.
#[allow(unreachable_pub)] // a test file's module
pub fn sign(
    (access_key, secret_key, security_token): (&str, &str, Option<&str>),
    method: &str,
    path: &str,
    host: &str,
    body: &[u8],
) -> Vec<(&'static str, String)> {
    let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut signed = vec![("host", host.to_owned()), ("x-sdk-date", date.clone())];
    signed.extend(security_token.map(|token| ("x-security-token", token.to_owned())));
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let headers: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let slash = if path.ends_with('/') { "" } else { "/" };
    let names = names.join(";");
    let hash = hex::encode(Sha256::digest(body));
    let canonical = format!("{method}\n{path}{slash}\n\n{headers}\n{names}\n{hash}");
    let statement = format!("SDK-HMAC-SHA256\n{date}\n{}", hex::encode(Sha256::digest(canonical)));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret_key.as_bytes()).unwrap();
    mac.update(statement.as_bytes());
    let signature = hex::encode(mac.finalize().into_bytes());
    let authorization =
        format!("SDK-HMAC-SHA256 Access={access_key}, SignedHeaders={names}, Signature={signature}");
    let mut headers = vec![("X-Sdk-Date", date), ("Authorization", authorization)];
    headers.extend(security_token.map(|token| ("X-Security-Token", token.to_owned())));
    headers
}
