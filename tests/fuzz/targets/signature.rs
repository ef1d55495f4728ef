//! Signed requests.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Signed {
    authorization: String,
    /// Puts what stands in `authorization` behind the words that every signature begins with.
    plausible: bool,
    method: String,
    uri: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

fuzz_target!(|signed: Signed| {
    let words = "SDK-HMAC-SHA256 Access=AK, Signature=";
    let digits = "c69a62c9d7621ec97e18b44941b372925d3cf938385555c23b38acb9f3ff2eca";
    let authorization = match signed.plausible {
        true => format!("{words}{digits}, SignedHeaders=host;x-sdk-date{}", signed.authorization),
        false => signed.authorization,
    };
    api::fuzzing::signature(&authorization, &signed.method, &signed.uri, &signed.headers, &signed.body);
});
