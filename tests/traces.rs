//! W3C trace context: what comes in with an invocation reaches the function, and what that invokes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{TestNode, http, within};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const STATE: &str = "vendor=1,other=2";

async fn invoke(node: &TestNode, function: &str, event: Value, trace: &[(&str, &str)]) -> Value {
    let path = format!("/v2/default/fgs/functions/{function}/invocations");
    let headers = [&[("Content-Type", "application/json")], trace].concat();
    let event = event.to_string();
    let reply = within("an answer", node.send(Method::POST, &path, &headers, event.as_bytes())).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

#[tokio::test]
async fn a_function_and_what_it_invokes_are_in_the_trace_of_the_caller() {
    let node = TestNode::start().await;
    node.deploy("traced", include_str!("functions/traced.py"), json!({})).await;
    let trace = [("traceparent", PARENT), ("tracestate", "vendor=1"), ("tracestate", "other=2")];
    let said = invoke(&node, "traced", json!({ "child": true }), &trace).await;
    for said in [&said, &said["child"]] {
        // Nobody collects spans here, so the node puts none of its own in between.
        assert_eq!(
            (said["traceparent"].as_str(), said["tracestate"].as_str()),
            (Some(PARENT), Some(STATE)),
            "{said}"
        );
    }
    for trace in [&[] as &[(&str, &str)], &[("traceparent", "00-zz"), ("tracestate", STATE)]] {
        let said = invoke(&node, "traced", json!({ "child": true }), trace).await;
        assert_eq!(
            (said["traceparent"].as_str(), said["tracestate"].as_str()),
            (Some(""), Some("")),
            "{trace:?}"
        );
        assert_eq!(said["child"]["traceparent"], "");
    }
    node.stop().await;
}

#[tokio::test]
async fn an_http_function_gets_the_headers_and_those_of_its_event_count_more() {
    let node = TestNode::start().await;
    http::deploy(&node, "f", (1, 1), json!({}), json!({})).await;
    let got = async |event: Value| {
        let reply = invoke(&node, "f", event, &[("traceparent", PARENT), ("tracestate", STATE)]).await;
        let said: Value = serde_json::from_str(reply["body"].as_str().unwrap()).unwrap();
        let headers = said["headers"].as_array().unwrap().clone();
        move |name: &str| {
            headers.iter().find(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap().to_owned())
        }
    };
    let own = got(json!({ "httpMethod": "GET", "path": "/x" })).await;
    assert_eq!((own("traceparent").as_deref(), own("tracestate").as_deref()), (Some(PARENT), Some(STATE)));
    let nearer = PARENT.replace("b7ad", "c7ad");
    let event = json!({ "httpMethod": "GET", "path": "/x", "headers": { "traceparent": nearer } });
    let of_event = got(event).await;
    assert_eq!((of_event("traceparent"), of_event("tracestate")), (Some(nearer), None));
    node.stop().await;
}
