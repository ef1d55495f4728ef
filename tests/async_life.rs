//! The asynchronous life: attempts, pauses, results that go on, and a cancel at every point of it.
//! Numbers in comments are those of complaints about other systems, see `docs/durability.md`.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, TestNode, within};

const SOURCE: &str = include_str!("functions/obeys.py");
/// A pause that no test waits for.
const LONG: &str = "60";
const SHORT: &str = "0.05";

async fn deploy(node: &TestNode, name: &str, config: Value) {
    let one = json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } });
    node.deploy(name, SOURCE, one).await;
    configure(node, name, config).await;
}

async fn configure(node: &TestNode, name: &str, config: Value) {
    let path = format!("/v2/default/fgs/functions/{name}/async-invoke-config");
    let json = [("Content-Type", "application/json")];
    let reply = node.send(Method::PUT, &path, &json, config.to_string().as_bytes()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

fn to(function: &str) -> Value {
    let urn = format!("urn:fss:local:default:function:default:{function}:latest");
    json!({ "destination": "FunctionGraph", "param": json!({ "func_urn": urn }).to_string() })
}

/// Nobody rings any more: not after the node has ended.
async fn ends_in_silence(node: TestNode, bell: &Bell) {
    node.stop().await;
    assert!(bell.is_silent().await);
}

fn row(status: &str, code: i64) -> (String, i64) {
    (status.to_owned(), code)
}

#[tokio::test]
async fn a_runtime_that_dies_is_given_a_second_attempt_and_no_third() {
    let (node, bell) = (TestNode::start_with(&["--retry-backoff", SHORT]).await, Bell::hang().await);
    deploy(&node, "f", json!({})).await;
    for (second, end) in [("leave", row("FAIL", 4204)), ("return", row("SUCCESS", 0))] {
        let request = node.invoke_async("f", &json!({ "port": bell.port })).await;
        bell.ring().await.tell("leave").await;
        let mut again = bell.ring().await;
        assert_eq!(again.request(), request);
        again.tell(second).await;
        assert_eq!(node.settled("f", &request).await, end);
    }
    ends_in_silence(node, &bell).await;
}

#[tokio::test]
async fn what_the_function_itself_did_wrong_is_tried_again_only_if_its_owner_says_so() {
    let (node, bell) = (TestNode::start_with(&["--retry-backoff", SHORT]).await, Bell::hang().await);
    deploy(&node, "default", json!({})).await;
    deploy(&node, "never", json!({ "max_async_retry_attempts": 0 })).await;
    deploy(&node, "twice", json!({ "max_async_retry_attempts": 2 })).await;
    for (function, word, attempts, code) in
        [("default", "raise", 1, 4002), ("never", "leave", 1, 4204), ("twice", "raise", 3, 4002)]
    {
        let request = node.invoke_async(function, &json!({ "port": bell.port })).await;
        for _ in 0..attempts {
            bell.ring().await.tell(word).await;
        }
        assert_eq!(node.settled(function, &request).await, row("FAIL", code), "{function}");
    }
    ends_in_silence(node, &bell).await;
}

#[tokio::test]
async fn a_cancel_between_two_attempts_is_the_end_in_every_mode_and_life() {
    // 47, 49: a retry that comes after the cancel.
    let (mut node, bell) = (TestNode::start_with(&["--retry-backoff", LONG]).await, Bell::hang().await);
    deploy(&node, "f", json!({ "max_async_retry_attempts": 3 })).await;
    let mut requests = Vec::new();
    for mode in Mode::ALL {
        let request = node.invoke_async("f", &json!({ "port": bell.port })).await;
        let mut ring = bell.ring().await;
        ring.tell("leave").await;
        within("its pause", async { while node.listed("f", &request).await.0 != "WAIT" {} }).await;
        let reply = node.cancel("f", &request, mode).await;
        assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{mode:?}");
        assert_eq!(node.settled("f", &request).await, row("FAIL", 4208), "{mode:?}");
        requests.push(request);
    }
    // The next life has no pause to wait for.
    node.kill();
    let next = TestNode::start_in(&node.dir.clone(), &["--retry-backoff", "0"]).await;
    for request in &requests {
        assert_eq!(next.listed("f", request).await, row("FAIL", 4208));
    }
    ends_in_silence(next, &bell).await;
}

#[tokio::test]
async fn a_failure_that_is_reported_after_the_cancel_brings_no_further_attempt() {
    // 48: the failure of a cancelled task starts a retry.
    let (node, bell) = (TestNode::start_with(&["--retry-backoff", "0"]).await, Bell::hang().await);
    deploy(&node, "f", json!({ "max_async_retry_attempts": 3 })).await;
    for word in ["raise", "leave"] {
        let request = node.invoke_async("f", &json!({ "port": bell.port })).await;
        let mut ring = bell.ring().await;
        node.fence("f", &request).await;
        // Its code was interrupted, or gets to fail by itself first: it is the end in either case.
        ring.may_tell(word).await;
        assert_eq!(node.settled("f", &request).await, row("FAIL", 4208), "{word}");
    }
    ends_in_silence(node, &bell).await;
}

#[tokio::test]
async fn failures_and_pauses_outlive_the_node() {
    let (mut node, bell) = (TestNode::start_with(&["--retry-backoff", "1"]).await, Bell::hang().await);
    deploy(&node, "f", json!({})).await;
    let request = node.invoke_async("f", &json!({ "port": bell.port })).await;
    bell.ring().await.tell("leave").await;
    within("its pause", async { while node.listed("f", &request).await.0 != "WAIT" {} }).await;
    node.kill();
    let next = TestNode::start_in(&node.dir.clone(), &["--retry-backoff", "1"]).await;
    let mut second = bell.ring().await;
    assert_eq!(second.request(), request);
    second.tell("leave").await;
    assert_eq!(next.settled("f", &request).await, row("FAIL", 4204), "one failure was before");
    ends_in_silence(next, &bell).await;
}

#[tokio::test]
async fn what_waits_longer_than_its_function_lets_it_is_given_up() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "after", json!({})).await;
    let config = json!({
        "max_async_event_age_in_seconds": 1, "destination_config": { "on_failure": to("after") },
    });
    deploy(&node, "f", config).await;
    let running = node.invoke_async("f", &json!({ "port": bell.port })).await;
    let mut ring = bell.ring().await;
    let waits = node.invoke_async("f", &json!({ "port": bell.port, "tell": "return" })).await;
    assert_eq!(node.settled("f", &waits).await, row("DISCARD", 6039));
    // It is told what that one was told.
    let after = bell.ring().await;
    assert_eq!(after.facts["event"]["request_context"]["condition"], "EventAgeExceeded");
    // What had begun in time may end when it likes.
    ring.tell("return").await;
    assert_eq!(node.settled("f", &running).await, row("SUCCESS", 0));
    ends_in_silence(node, &bell).await;
}

#[tokio::test]
async fn a_result_goes_on_to_the_function_that_was_named_for_it() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    for name in ["good", "bad"] {
        deploy(&node, name, json!({})).await;
    }
    deploy(
        &node,
        "f",
        json!({ "destination_config": { "on_success": to("good"), "on_failure": to("bad") } }),
    )
    .await;
    for (word, next, status, error) in [("return", "good", 200, ""), ("raise", "bad", 200, "ValueError")] {
        let event = json!({ "port": bell.port, "n": word });
        let request = node.invoke_async("f", &event).await;
        bell.ring().await.tell(word).await;
        let mut ring = bell.ring().await;
        assert_eq!(ring.facts["function"], next);
        let told = ring.facts["event"].clone();
        assert_eq!(told["request_payload"], event);
        assert_eq!(told["request_context"]["request_id"], json!(request));
        assert_eq!(told["request_context"]["approximate_invoke_count"], 1);
        assert_eq!(told["response_context"]["status_code"], status);
        assert!(told["response_context"]["function_error"].as_str().unwrap().contains(error), "{told}");
        if word == "return" {
            assert_eq!(told["response_payload"], json!({ "told": "return" }));
        }
        ring.tell("return").await;
        assert_eq!(node.settled(next, &ring.request()).await, row("SUCCESS", 0));
    }
    ends_in_silence(node, &bell).await;
}

#[tokio::test]
async fn a_cancelled_request_hands_nothing_on_and_one_that_ran_out_of_time_does() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "after", json!({})).await;
    let both = json!({ "destination_config": { "on_success": to("after"), "on_failure": to("after") } });
    deploy(&node, "f", both.clone()).await;
    for mode in Mode::ALL {
        let request = node.invoke_async("f", &json!({ "port": bell.port })).await;
        let _ring = bell.ring().await;
        assert_eq!(node.cancel("f", &request, mode).await.status, 200);
    }
    let brief = json!({ "timeout": 3, "strategy_config": { "concurrency": 1, "concurrent_num": 1 } });
    node.deploy("brief", SOURCE, brief).await;
    configure(&node, "brief", both).await;
    let request = node.invoke_async("brief", &json!({ "port": bell.port })).await;
    let _ring = bell.ring().await;
    let mut after = bell.ring().await;
    assert_eq!(after.facts["event"]["request_context"]["request_id"], json!(request));
    assert_eq!(after.facts["event"]["response_context"]["error_code"], 4010);
    after.tell("return").await;
    ends_in_silence(node, &bell).await;
}

#[tokio::test]
async fn two_functions_that_hand_each_other_their_results_come_to_an_end() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "a", json!({})).await;
    deploy(&node, "b", json!({ "destination_config": { "on_success": to("a") } })).await;
    configure(&node, "a", json!({ "destination_config": { "on_success": to("b") } })).await;
    node.invoke_async("a", &json!({ "port": bell.port, "tell": "return" })).await;
    let mut last = bell.ring().await;
    for _ in 0..16 {
        last = bell.ring().await;
    }
    let (function, request) = (last.facts["function"].as_str().unwrap().to_owned(), last.request());
    assert_eq!(node.settled(&function, &request).await, row("SUCCESS", 0));
    ends_in_silence(node, &bell).await;
}

#[tokio::test]
async fn what_had_run_in_an_earlier_life_is_fail_and_not_discard_when_it_is_cancelled() {
    let (mut node, bell) = (TestNode::start_with(&["--retry-backoff", LONG]).await, Bell::hang().await);
    deploy(&node, "f", json!({})).await;
    let request = node.invoke_async("f", &json!({ "port": bell.port })).await;
    bell.ring().await.tell("leave").await;
    within("its pause", async { while node.listed("f", &request).await.0 != "WAIT" {} }).await;
    node.kill();
    let next = TestNode::start_in(&node.dir.clone(), &[]).await;
    assert_eq!(next.cancel("f", &request, Mode::Plain).await.status, 200);
    assert_eq!(next.settled("f", &request).await, row("FAIL", 4208));
    ends_in_silence(next, &bell).await;
}

#[tokio::test]
async fn a_request_under_which_the_node_ends_a_third_time_fails_and_its_failure_goes_on() {
    let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "after", json!({})).await;
    deploy(&node, "f", json!({ "destination_config": { "on_failure": to("after") } })).await;
    let request = node.invoke_async("f", &json!({ "port": bell.port })).await;
    let dir = node.dir.clone();
    let mut lives = Vec::new();
    for _ in 0..3 {
        let ring = bell.ring().await;
        assert_eq!(ring.request(), request);
        within("it to be noted", async { while node.listed("f", &request).await.0 != "RUNNING" {} }).await;
        node.kill();
        let next = TestNode::start_in(&dir, &[]).await;
        lives.push(std::mem::replace(&mut node, next));
    }
    assert_eq!(node.settled("f", &request).await, row("FAIL", 4204));
    // The event was not read for a run again, so the one it goes to finds no bell in it and fails; it ran.
    let after = async || node.get("/v2/default/fgs/functions/after/async-invocations").await.json();
    within("the next one's end", async { while after().await["invocations"][0]["status"] != "FAIL" {} })
        .await;
    assert_eq!(after().await["count"], 1);
    ends_in_silence(node, &bell).await;
}
