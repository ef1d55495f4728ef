//! What `tests/fuzz` reaches of this crate: everything that reads bytes of strangers.

use std::path::Path;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jiff::Timestamp;
use store::FunctionKey;

use crate::{
    async_config::AsyncConfig,
    auth::signature::Signature,
    body, bulk, cancel, code, list_invocations, package,
    selection::Where,
    spec::{Fields, FunctionConfig},
    urn::Urn,
};

/// Reads a URN; one that is read names the same when it is written in its long form and read again.
pub fn urn(text: &str) {
    let Ok(urn) = Urn::parse(text, "p") else { return };
    let long = crate::urn::long("local", &urn.key);
    let again = Urn::parse(&long, "q");
    if long.len() > 269 {
        return; // no function has a name as long as a short form can hold
    }
    assert_eq!(again.map(|again| again.key).ok(), Some(urn.key));
}

/// Reads a signature and puts together what was signed.
pub fn signature(authorization: &str, method: &str, uri: &str, headers: &[(String, Vec<u8>)], body: &[u8]) {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    map.insert("x-sdk-date", HeaderValue::from_static("20261124T031830Z"));
    let (Ok(method), Ok(uri)) = (method.parse::<Method>(), uri.parse::<Uri>()) else { return };
    let Ok(now) = "2026-11-24T03:18:30Z".parse::<Timestamp>() else { return };
    let Ok(signature) = Signature::parse(authorization) else { return };
    if let Ok(statement) = signature.statement(&method, &uri, &map, now) {
        let _ = signature.verify(&statement, body, "sk-test-secret");
    }
}

/// Reads a body as each operation would.
pub fn bodies(bytes: &[u8]) {
    let _ = cancel::parse(bytes);
    let _ = bulk::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        // A selection that is read is written the same and read again.
        if let Ok(read) = Where::parse(text) {
            assert_eq!(Where::parse(&read.to_string()), Ok(read));
        }
        let _ = list_invocations::time(text);
    }
    let Ok(object) = body::object(bytes) else { return };
    let fields = Fields(&object);
    let _ = code::read(&fields);
    let own = FunctionKey {
        project: "p".into(),
        package: "default".into(),
        name: "f".into(),
        version: store::LATEST.into(),
    };
    let _ = AsyncConfig::read(&fields, &own, |_| true);
    if let Ok(config) = FunctionConfig::read(&fields, None) {
        // What was taken can be changed by the same again, and comes out as it went in.
        let changed = FunctionConfig::read(&fields, Some(&config));
        assert!(changed.is_ok(), "{changed:?}");
    }
}

/// Unpacks a package below a folder; nothing of it may be outside.
pub fn package(bytes: &[u8], file: &str, below: &Path) {
    let _ = package::unpack(bytes, file, &below.join("code"));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seeds of `tests/fuzz`, so that what the fuzzer runs is built and runs with every change.
    #[test]
    fn every_seed_is_taken_as_the_fuzzer_takes_it() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/seeds");
        let room = tempfile::tempdir().unwrap();
        let mut count = 0;
        for kind in ["urn", "bodies", "package", "signature"] {
            for seed in std::fs::read_dir(seeds.join(kind)).unwrap().flatten() {
                let bytes = std::fs::read(seed.path()).unwrap();
                let text = String::from_utf8_lossy(&bytes);
                match kind {
                    "urn" => urn(&text),
                    "bodies" => bodies(&bytes),
                    "package" => package(&bytes, "index.py", &room.path().join(seed.file_name())),
                    _ => signature(&text, "POST", "/v2/p?a=b", &[], &bytes),
                }
                count += 1;
            }
        }
        assert!(count >= 12, "{count} seeds");
        let beside = std::fs::read_dir(room.path()).unwrap().count();
        assert_eq!(beside, 2, "each package in a folder of its own");
    }
}
