//! Functions in Rust by `quell-runtime`: one of many is stopped and cleans up, and whoever does not listen is
//! dropped where that is possible, and killed where it is not.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};
use support::{Bell, Mode, TestNode, base64, within, zip};

const SHARED: usize = 8;
/// Longer than any test: what ends before it was not ended by the grace.
const LONG: u64 = 600_000;

/// The package with `crates/runtime/examples/probe.rs` as its bootstrap. Cargo builds no example of another
/// package by itself; if it is built already, this takes no time.
fn package() -> &'static str {
    static PACKAGE: OnceLock<String> = OnceLock::new();
    PACKAGE.get_or_init(|| {
        let profile = Path::new(env!("CARGO_BIN_EXE_quell")).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["rustc", "--offline", "--package", "quell-runtime", "--example", "probe"]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        // With its symbols it is ten times as large, and each test deploys it.
        cargo.args(["--", "-C", "strip=symbols"]);
        assert!(cargo.status().unwrap().success(), "the example cannot be built");
        let bootstrap = std::fs::read(profile.join("examples/probe")).unwrap();
        base64(&zip(&[("bootstrap", &bootstrap)]))
    })
}

async fn deploy(node: &TestNode, name: &str, concurrency: u32, more: Value) {
    let mut body = json!({
        "runtime": "Custom",
        "handler": "bootstrap.handler",
        "memory_size": 256,
        "code_type": "zip",
        "func_code": { "file": package() },
        "strategy_config": { "concurrency": 1, "concurrent_num": concurrency },
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.deploy(name, "", body).await;
}

#[tokio::test]
async fn one_of_eight_stops_and_cleans_up_and_the_other_seven_finish_in_the_same_process() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 8, json!({ "quell": { "grace_ms": LONG } })).await;
    let mut answers = std::collections::HashMap::new();
    for at in 0..SHARED {
        let event = json!({ "do": "wait", "port": bell.port, "tag": format!("r{at}") });
        answers.insert(format!("r{at}"), node.invoke("f", &event));
    }
    let mut rings = bell.rings(SHARED).await;
    let mut target = rings.remove("r3").unwrap();
    let cancel = node.cancel("f", &target.request(), Mode::Plain).await;
    assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
    assert_eq!(target.last_words().await, "cleaned Some(Cancel)");
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "acknowledged", "{receipt}");
    assert_eq!(
        (&receipt["co_tenants"], &receipt["instances"][0]["signals"]),
        (&json!([]), &json!(["asked"]))
    );
    let stopped = within("the target", answers.remove("r3").unwrap()).await.unwrap();
    assert_eq!(stopped.error().1, "FSS.4208");
    for (tag, answer) in answers {
        let mut ring = rings.remove(&tag).unwrap();
        assert_eq!(ring.pid, target.pid, "{tag}");
        ring.release().await;
        let reply = within(&tag, answer).await.unwrap();
        assert_eq!((reply.status, &reply.json()["tag"]), (200, &json!(tag)), "{}", reply.text());
    }
    assert!(!target.process.is_gone(), "the process stays");
    node.stop().await;
}

#[tokio::test]
async fn who_ignores_its_token_is_dropped_at_the_end_of_its_grace_and_so_is_what_it_left_behind() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 2, json!({ "quell": { "grace_ms": 1_000 } })).await;
    let answer = node.invoke("f", &json!({ "do": "wait", "port": bell.port, "tag": "other" }));
    let mut other = bell.ring().await;
    for what in ["ignore", "leave"] {
        let request = node.invoke_async("f", &json!({ "do": what, "port": bell.port })).await;
        let mut ring = bell.ring().await;
        let cancel = node.cancel("f", &request, Mode::Plain).await;
        assert_eq!(cancel.header("x-quell-stop"), "stopped", "{what}: {cancel:?}");
        let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["requests"][0]["evidence"], "acknowledged", "{what}: {receipt}");
        assert_eq!(ring.last_words().await, "", "{what}: its line closed with it");
        assert!(!other.process.is_gone(), "{what}");
    }
    other.release().await;
    assert_eq!(within("the other", answer).await.unwrap().status, 200);
    node.stop().await;
}

#[tokio::test]
async fn who_cannot_be_dropped_is_not_acknowledged_and_drains_or_is_killed() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 2, json!({ "quell": { "grace_ms": 300 } })).await;
    let answer = node.invoke("f", &json!({ "do": "wait", "port": bell.port, "tag": "other" }));
    let mut other = bell.ring().await;
    let request = node.invoke_async("f", &json!({ "do": "block", "port": bell.port })).await;
    let blocked = bell.ring().await;
    let cancel = node.cancel("f", &request, Mode::Plain).await;
    assert_eq!(cancel.header("x-quell-stop"), "draining", "{cancel:?}");
    assert_eq!(node.listed("f", &request).await, ("FAIL".to_owned(), 4208));
    other.release().await;
    assert_eq!(within("the other", answer).await.unwrap().status, 200, "the innocent one finishes");
    within("its end", blocked.process.gone()).await;
    // Alone it is killed at the end of its grace.
    let request = node.invoke_async("f", &json!({ "do": "block", "port": bell.port })).await;
    let blocked = bell.ring().await;
    let cancel = node.cancel("f", &request, Mode::Plain).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "reaped", "{receipt}");
    assert!(blocked.process.is_gone());
    node.stop().await;
}

#[tokio::test]
async fn children_are_linked_and_a_recursive_cancel_reaches_them() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "parent", 2, json!({})).await;
    deploy(&node, "child", 4, json!({})).await;
    let child = |tag: &str| json!({ "function": "child", "do": "wait", "port": bell.port, "tag": tag });
    let event = json!({
        "do": "wait", "port": bell.port, "tag": "parent", "children": [child("a"), child("b")],
    });
    let parent = node.invoke_async("parent", &event).await;
    let mut rings = bell.rings(3).await;
    let tree = node.tree(&parent).await;
    for (at, tag) in ["a", "b"].into_iter().enumerate() {
        let request = rings[tag].request();
        assert_eq!(rings["parent"].child(at), request);
        assert_eq!(tree[&request]["parent"], json!(parent), "{tree:?}");
    }
    let cancel = node.cancel("parent", &parent, Mode::Recursive).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"].as_array().unwrap().len(), 3, "{receipt}");
    for (tag, ring) in &mut rings {
        assert_eq!(ring.last_words().await, "cleaned Some(Cancel)", "{tag}");
    }
    // A parent that waits for its child's result gets it, or its error.
    let event = json!({ "do": "invoke", "port": bell.port, "function": "child",
        "event": { "do": "wait", "port": bell.port, "tag": "c" } });
    let answer = node.invoke("parent", &event);
    let _parent = bell.ring().await;
    bell.ring().await.release().await;
    assert_eq!(within("the result", answer).await.unwrap().json()["tag"], "c");
    node.stop().await;
}

#[tokio::test]
async fn a_deadline_is_the_same_with_its_own_reason_and_force_asks_nobody() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 2, json!({ "timeout": 3 })).await;
    let answer = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let mut ring = bell.ring().await;
    assert_eq!(ring.last_words().await, "cleaned Some(Deadline)");
    assert_eq!(within("the deadline", answer).await.unwrap().error().1, "FSS.4010");
    let answer = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let mut ring = bell.ring().await;
    let cancel = node.cancel("f", &ring.request(), Mode::Force).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
    assert!(ring.process.is_gone());
    assert_eq!(ring.last_words().await, "", "it was asked nothing");
    assert_eq!(within("its caller", answer).await.unwrap().error().1, "FSS.4208");
    node.stop().await;
}

#[tokio::test]
async fn errors_panics_and_a_failed_initialisation_say_why() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 1, json!({})).await;
    for (event, says) in [
        (json!({ "do": "nothing", "port": bell.port }), "what is to be done?"),
        (json!({ "do": "panic", "port": bell.port }), "Panic: as the test asked"),
        (json!({}), "no port"),
    ] {
        let reply = within(says, node.invoke("f", &event)).await.unwrap();
        assert_eq!(reply.header("x-func-err-code"), "4002", "{}", reply.text());
        assert!(reply.text().contains(says), "{}", reply.text());
    }
    deploy(&node, "broken", 1, json!({ "handler": "bootstrap.broken" })).await;
    let (status, code, message) = within("broken", node.invoke("broken", &json!({}))).await.unwrap().error();
    assert_eq!((status, code.as_str()), (500, "FSS.4201"), "{message}");
    assert!(message.contains("no table to sit at"), "{message}");
    node.stop().await;
}
