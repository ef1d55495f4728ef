//! Runtimes that do their side of the Runtime API wrong: each fault has one defined outcome, and it is
//! the fault of nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::{Bell, Mode, Reply, TestNode, within};

const NOBODY: &str = "9c7d3c1e-0000-4000-8000-000000000000";

/// Deploys the faulty runtime with so many requests an instance and at most so many instances.
async fn deploy(node: &TestNode, name: &str, concurrency: u32, instances: u32, more: Value) {
    let package = support::zip(&[("bootstrap", include_bytes!("functions/faulty.py"))]);
    let mut body = json!({
        "runtime": "Custom",
        "handler": "faulty.serve",
        "code_type": "zip",
        "func_code": { "file": support::base64(&package) },
        "strategy_config": { "concurrency": instances, "concurrent_num": concurrency },
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.deploy(name, "", body).await;
}

async fn invoke(node: &TestNode, name: &str, event: Value) -> Reply {
    within("an answer", node.invoke(name, &event)).await.unwrap()
}

/// That the function is served as if nothing had been.
async fn serves(node: &TestNode, name: &str) {
    let reply = invoke(node, name, json!({ "do": "work", "tag": "after" })).await;
    assert_eq!((reply.status, &reply.json()["tag"]), (200, &json!("after")), "{}", reply.text());
}

fn instances(view: &Value) -> Vec<String> {
    let rows = view["instances"].as_array().unwrap();
    rows.iter().map(|row| row["instance"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn answers_for_the_request_of_another_instance_are_dropped_and_nobody_can_tell_which_ids_there_are() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 1, 2, json!({})).await;
    let victim = node.invoke("f", &json!({ "do": "wait", "port": bell.port, "tag": "victim" }));
    let mut ring = bell.ring().await;
    let event = json!({ "do": "spoof", "other": ring.request(), "nobody": NOBODY });
    let spoofed = invoke(&node, "f", event).await;
    assert_eq!(spoofed.json()["tried"], json!([202, 202, 202, 400, 202]), "{}", spoofed.text());
    assert!(!victim.is_finished(), "somebody answered for it");
    ring.release().await;
    let reply = within("the victim", victim).await.unwrap().json();
    assert_eq!((&reply["tag"], &reply["told"]), (&json!("victim"), &json!("go")));
    node.stop().await;
}

#[tokio::test]
async fn an_answer_that_names_another_attempt_does_not_count() {
    let node = TestNode::start().await;
    deploy(&node, "f", 1, 1, json!({})).await;
    let reply = invoke(&node, "f", json!({ "do": "other_attempt", "nobody": NOBODY })).await;
    assert_eq!((reply.status, &reply.json()["tried"]), (200, &json!([202, 202, 202])), "{}", reply.text());
    serves(&node, "f").await;
    node.stop().await;
}

#[tokio::test]
async fn of_two_answers_the_first_counts_and_the_second_is_not_taken_for_the_next_request() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 1, 1, json!({})).await;
    let reply = invoke(&node, "f", json!({ "do": "twice", "port": bell.port })).await;
    assert_eq!((reply.status, &reply.json()["told"]), (200, &json!("first")));
    let mut ring = bell.ring().await;
    assert_eq!(ring.line().await, json!([202, 202, 202]));
    serves(&node, "f").await;
    node.stop().await;
}

#[tokio::test]
async fn an_answer_after_the_cancel_is_not_delivered_and_ends_the_stop_at_most_sooner() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    for (name, concurrency) in [("alone", 1), ("shared", 2)] {
        deploy(&node, name, concurrency, 1, json!({ "quell": { "grace_ms": 30_000 } })).await;
        let request = node.invoke_async(name, &json!({ "do": "late", "port": bell.port })).await;
        let mut ring = bell.ring().await;
        node.fence(name, &request).await;
        ring.release().await;
        // One that was told to end with a signal is ended as soon as it is done, and may not get to say it.
        let said = ring.last_or_line().await;
        assert!(said == json!(202) || (concurrency == 1 && said == json!(null)), "{name}: {said}");
        assert_eq!(node.settled(name, &request).await, ("FAIL".to_owned(), 4208), "{name}");
        let cancel = node.cancel(name, &request, Mode::Plain).await;
        assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{name}");
        serves(&node, name).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn half_an_answer_fails_its_request_at_once_and_the_runtime_goes_on() {
    let node = TestNode::start().await;
    deploy(&node, "f", 1, 1, json!({})).await;
    serves(&node, "f").await;
    let before = instances(&node.view().await);
    for fault in ["half", "half_chunked"] {
        let (status, code, message) = invoke(&node, "f", json!({ "do": fault })).await.error();
        assert_eq!((status, code.as_str()), (500, "FSS.4204"), "{fault}: {message}");
        assert_eq!(message, "RuntimeExited: the response ended before it was whole", "{fault}");
    }
    serves(&node, "f").await;
    assert_eq!(instances(&node.view().await), before);
    node.stop().await;
}

#[tokio::test]
async fn an_answer_that_trickles_ends_at_the_deadline_and_so_does_one_that_never_comes() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 1, 1, json!({ "timeout": 3, "quell": { "grace_ms": 0 } })).await;
    for fault in ["slow", "never"] {
        let answer = node.invoke("f", &json!({ "do": fault, "port": bell.port }));
        let ring = bell.ring().await;
        let (status, code, _) = within(fault, answer).await.unwrap().error();
        assert_eq!((status, code.as_str()), (500, "FSS.4010"), "{fault}");
        assert!(ring.process.is_gone(), "{fault}");
    }
    serves(&node, "f").await;
    node.stop().await;
}

#[tokio::test]
async fn an_answer_beyond_the_limit_fails_its_request_and_the_runtime_goes_on() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 1, 1, json!({})).await;
    let answer = node.invoke("f", &json!({ "do": "huge", "port": bell.port }));
    let mut ring = bell.ring().await;
    let status = ring.line().await;
    assert!(status == json!(413) || status == json!(0), "{status}");
    let (status, code, _) = within("its failure", answer).await.unwrap().error();
    assert_eq!((status, code.as_str()), (500, "FSS.4004"));
    serves(&node, "f").await;
    assert!(!ring.process.is_gone());
    node.stop().await;
}

#[tokio::test]
async fn a_crash_in_the_middle_of_an_answer_is_seen_at_once_whatever_a_child_holds_open() {
    let node = TestNode::start().await;
    deploy(&node, "f", 1, 1, json!({})).await;
    let (status, code, message) = invoke(&node, "f", json!({ "do": "crash" })).await.error();
    assert_eq!((status, code.as_str()), (500, "FSS.4204"), "{message}");
    serves(&node, "f").await;
    node.stop().await;
}

#[tokio::test]
async fn garbage_is_refused_or_hung_up_on_and_harms_neither_the_request_nor_the_node() {
    let node = TestNode::start().await;
    deploy(&node, "f", 1, 1, json!({})).await;
    let reply = invoke(&node, "f", json!({ "do": "garbage", "nobody": NOBODY })).await;
    let answers = reply.json()["answers"].clone();
    // 202: it was for a request that the runtime does not hold, and is dropped as such.
    let fine = |status: &Value| [0, 202, 400, 431].contains(&status.as_i64().unwrap());
    assert!(answers.as_array().unwrap().iter().all(fine), "{answers}");
    serves(&node, "f").await;
    node.stop().await;
}

#[tokio::test]
async fn two_polls_of_a_runtime_for_one_request_at_a_time_get_one_request_at_a_time() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 1, 1, json!({ "handler": "faulty.two" })).await;
    serves(&node, "f").await;
    let wait = json!({ "do": "wait", "port": bell.port });
    let first = node.invoke_async("f", &wait).await;
    let second = node.invoke_async("f", &wait).await;
    let mut ring = bell.ring().await;
    assert_eq!(ring.request(), first);
    assert_eq!(node.listed("f", &second).await.0, "WAIT");
    ring.release().await;
    // A poll that comes while it is at work is given the same request again, and never the other.
    let mut ring = bell.ring().await;
    while ring.request() == first {
        ring.may_tell("go").await;
        ring = bell.ring().await;
    }
    assert_eq!(node.settled("f", &first).await.0, "SUCCESS");
    ring.release().await;
    assert_eq!(node.settled("f", &second).await.0, "SUCCESS");
    node.stop().await;
}

#[tokio::test]
async fn a_runtime_that_asks_for_work_while_it_is_at_work_is_given_the_same_again() {
    let node = TestNode::start().await;
    deploy(&node, "f", 1, 1, json!({})).await;
    let reply = invoke(&node, "f", json!({ "do": "poll_again" })).await.json();
    assert_eq!(reply["second"], reply["request"]);
    serves(&node, "f").await;
    node.stop().await;
}

#[tokio::test]
async fn a_runtime_that_never_asks_is_ended_at_its_start_limit_and_its_last_words_are_told() {
    let node = TestNode::start().await;
    deploy(&node, "f", 1, 1, json!({ "handler": "faulty.silent", "quell": { "start_timeout_s": 2 } })).await;
    let (status, code, message) = invoke(&node, "f", json!({})).await.error();
    assert_eq!((status, code.as_str()), (500, "FSS.4211"));
    assert!(message.contains("timed out after 2 s"), "{message}");
    assert!(message.contains("the last words of one that never asks"), "{message}");
    assert_eq!(node.view().await["instances"], json!([]), "nothing of it is left");
    node.stop().await;
}
