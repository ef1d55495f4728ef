//! What a function may take: memory, processes, room in `/tmp`; and what is said of one that met a limit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::{Bell, Reply, TestNode, within};

const HUNGRY: &str = include_str!("functions/hungry.py");
/// Far more than the smallest function may have.
const TOO_MUCH: u32 = 400;

/// Deploys it with the smallest memory.
async fn deploy(node: &TestNode, name: &str, concurrency: u32, more: Value) {
    let shared = json!({ "concurrency": 1, "concurrent_num": concurrency });
    let mut spec = json!({ "memory_size": 128, "strategy_config": shared });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.deploy(name, HUNGRY, spec).await;
}

async fn call(node: &TestNode, function: &str, event: Value) -> Reply {
    within("an answer", async { node.invoke(function, &event).await.unwrap() }).await
}

/// Whether this machine limits that for an instance as a whole; says so if not.
async fn limited(node: &TestNode, what: &str) -> bool {
    let view = node.view().await;
    let limits = view["limits"].as_array().unwrap();
    let limit = limits.iter().find(|limit| limit["name"] == what).unwrap();
    if limit["active"] != true {
        println!("not limited here, so nothing is tested: {limit}");
    }
    limit["active"] == true
}

#[tokio::test]
async fn a_runtime_that_takes_more_memory_than_its_function_has_is_4205_with_the_evidence() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    if !limited(&node, "memory").await {
        return node.stop().await;
    }
    deploy(&node, "hungry", 1, json!({})).await;
    deploy(&node, "other", 1, json!({})).await;
    let other = node.invoke("other", &json!({ "take": "wait", "port": bell.port }));
    let mut ring = bell.ring().await;

    let reply = call(&node, "hungry", json!({ "take": "memory", "mib": TOO_MUCH })).await;
    assert_eq!(reply.header("x-func-err-code"), "4205", "{}", reply.text());
    let (_, _, message) = reply.error();
    assert!(message.starts_with("runtime memory limit exceeded"), "{message}");
    assert!(message.contains("128 MiB") && message.contains("oom_kill 1"), "{message}");
    // Asynchronously the same is in the listing.
    let request = node.invoke_async("hungry", &json!({ "take": "memory", "mib": TOO_MUCH })).await;
    assert_eq!(node.settled("hungry", &request).await, ("FAIL".to_owned(), 4205));
    // The function goes on in a fresh runtime, and nobody else was touched.
    let reply = call(&node, "hungry", json!({ "take": "memory", "mib": 8 })).await;
    assert_eq!(reply.json()["held"], 8, "{}", reply.text());
    ring.release().await;
    assert_eq!(within("the other", other).await.unwrap().json()["told"], "go");
    node.stop().await;
}

#[tokio::test]
async fn a_worker_that_takes_too_much_fails_its_own_request_with_4205_and_no_other() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    if !limited(&node, "memory").await {
        return node.stop().await;
    }
    deploy(&node, "hungry", 2, json!({})).await;
    let waiting = node.invoke("hungry", &json!({ "take": "wait", "port": bell.port }));
    let mut ring = bell.ring().await;
    let reply = call(&node, "hungry", json!({ "take": "memory", "mib": TOO_MUCH })).await;
    assert_eq!(reply.header("x-func-err-code"), "4205", "{}", reply.text());
    ring.release().await;
    assert_eq!(within("the other", waiting).await.unwrap().json()["told"], "go");
    node.stop().await;
}

#[tokio::test]
async fn a_function_that_outlives_its_starved_child_is_not_blamed_for_it() {
    let node = TestNode::start().await;
    if !limited(&node, "memory").await {
        return node.stop().await;
    }
    deploy(&node, "hungry", 1, json!({})).await;
    let event = json!({ "take": "memory_in_a_child", "mib": TOO_MUCH });
    assert_eq!(call(&node, "hungry", event).await.json(), json!({ "child": -9 }));
    let event = json!({ "take": "exit_beside_a_starved_child", "mib": TOO_MUCH });
    let reply = call(&node, "hungry", event).await;
    assert_eq!(reply.header("x-func-err-code"), "4204", "it ended by itself: {}", reply.text());
    node.stop().await;
}

#[tokio::test]
async fn an_initializer_that_takes_too_much_says_so() {
    let node = TestNode::start().await;
    if !limited(&node, "memory").await {
        return node.stop().await;
    }
    let more = json!({ "initializer_handler": "index.initialize", "initializer_timeout": 30 });
    deploy(&node, "hungry", 1, more).await;
    let reply = call(&node, "hungry", json!({ "take": "room", "mib": 1 })).await;
    let (_, _, message) = reply.error();
    assert!(message.contains("memory limit exceeded") && message.contains("128 MiB"), "{message}");
    assert_eq!(reply.header("x-func-err-code"), "4205", "{message}");
    node.stop().await;
}

#[tokio::test]
async fn a_function_that_forks_without_end_is_refused_at_its_limit_and_goes_on() {
    let node = TestNode::start_with(&["--max-processes", "32"]).await;
    if !limited(&node, "processes").await {
        return node.stop().await;
    }
    deploy(&node, "hungry", 1, json!({})).await;
    for _ in 0..2 {
        let told = call(&node, "hungry", json!({ "take": "processes", "most": 64 })).await.json();
        let forked = told["forked"].as_u64().unwrap();
        assert!(told["refused"] == true && (20..32).contains(&forked), "{told}");
    }
    node.stop().await;
}

#[tokio::test]
async fn tmp_has_the_size_that_was_set_and_begins_empty() {
    let node = TestNode::start_with(&["--tmp-size", "4"]).await;
    let layers = node.view().await["containment"].clone();
    let namespace =
        layers.as_array().unwrap().iter().any(|layer| layer["id"] == "L3" && layer["active"] == true);
    if !namespace {
        println!("no namespaces here, so no /tmp of its own: {layers}");
        return node.stop().await;
    }
    deploy(&node, "hungry", 1, json!({})).await;
    let told = call(&node, "hungry", json!({ "take": "room", "mib": 9 })).await.json();
    assert!(told["written"].as_u64().unwrap() <= 4, "{told}");
    // Nor does shared memory go from one to another, or stay.
    deploy(&node, "other", 1, json!({})).await;
    for function in ["hungry", "other"] {
        let told = call(&node, function, json!({ "take": "leave_memory" })).await.json();
        assert_eq!(told, json!({ "found": [] }), "{function}");
    }
    node.stop().await;
    assert!(!std::path::Path::new("/dev/shm/left").exists());
}

#[tokio::test]
async fn without_control_groups_each_process_is_held_to_what_it_may_map() {
    let node = TestNode::start_with(&["--isolation", "subreaper"]).await;
    let view = node.view().await;
    assert_eq!(view["limits"][0]["active"], false, "{view}");
    deploy(&node, "hungry", 1, json!({})).await;
    let reply = call(&node, "hungry", json!({ "take": "memory", "mib": TOO_MUCH })).await;
    // Its own exception, not the node's word: nothing was seen to be killed.
    assert_eq!(reply.header("x-func-err-code"), "4002", "{}", reply.text());
    assert!(reply.text().contains("MemoryError"), "{}", reply.text());
    node.stop().await;
}
