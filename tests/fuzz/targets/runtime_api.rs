//! Requests of runtimes.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Sent {
    route: u8,
    rest: String,
    method: bool,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

const ROUTES: [&str; 6] = [
    "/v1/runtime/invocation/request",
    "/v1/runtime/invocation/response/",
    "/v1/runtime/invocation/error/",
    "/v1/runtime/invocation/cancellation/next",
    "/v1/runtime/init/error",
    "/",
];

fuzz_target!(|sent: Sent| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let route = ROUTES[usize::from(sent.route) % ROUTES.len()];
    let uri = format!("{route}{}", sent.rest);
    let method = if sent.method { "POST" } else { "GET" };
    let status = runtime.block_on(supervisor::fuzzing::runtime_api(method, &uri, &sent.headers, &sent.body));
    // 503: nobody answers in here.
    assert!(status.is_none_or(|status| status < 500 || status == 503), "{uri}: {status:?}");
});
