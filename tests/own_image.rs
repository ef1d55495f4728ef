//! An image of the operator's own, made from docs/runtime-images.md alone: `docs/examples/images/bash`.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{path::PathBuf, time::Duration};

use serde_json::{Value, json};
use support::{Mode, TestNode, base64, within, zip};

/// Between two looks at a log.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Longer than any test: what ends before it was not ended by the grace.
const LONG: u64 = 600_000;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A node with a copy of the examples' images, where other users can read it.
async fn node() -> (TestNode, tempfile::TempDir) {
    let images = TestNode::folder();
    let (from, to) = (repository().join("docs/examples/images/bash"), images.path().join("bash"));
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    let folder = images.path().to_str().unwrap().to_owned();
    (TestNode::start_with(&["--images", &folder]).await, images)
}

async fn deploy(node: &TestNode, name: &str, concurrency: u32, more: Value) {
    let mut body = json!({
        "runtime": "Bash",
        "handler": "tried.answer",
        "code_type": "zip",
        "func_code": { "file": base64(&zip(&[("tried.sh", include_bytes!("functions/tried.sh"))])) },
        "strategy_config": { "concurrency": 1, "concurrent_num": concurrency },
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.deploy(name, "", body).await;
}

/// Resolves when a request has printed this.
async fn printed(node: &TestNode, request: &str, words: &str) {
    within(words, async {
        loop {
            let log = node.get(&format!("/quell/v1/requests/{request}/log")).await.text();
            if log.contains(words) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
}

#[tokio::test]
async fn functions_of_an_own_image_answer_fail_and_say_why() {
    let (node, _images) = node().await;
    deploy(&node, "f", 1, json!({})).await;
    for event in [json!({}), json!({ "text": "größer: \\ \" \n" }), json!("x".repeat(3 << 20))] {
        let reply = within("an answer", node.invoke("f", &event)).await.unwrap();
        assert_eq!((reply.status, reply.json()), (200, event));
    }
    let first = node.view().await["instances"][0]["pid"].clone();
    for (event, says) in [("fail", "answer ended with status 7"), ("exit", "answer ended with status 3")] {
        let reply = within(event, node.invoke("f", &json!(event))).await.unwrap();
        assert_eq!(reply.header("x-func-err-code"), "4002", "{}", reply.text());
        assert!(reply.text().contains(says), "{}", reply.text());
    }
    assert_eq!(node.view().await["instances"][0]["pid"], first, "in the same process");
    deploy(&node, "none", 1, json!({ "handler": "tried.nothing" })).await;
    let (_, code, why) = within("none", node.invoke("none", &json!({}))).await.unwrap().error();
    assert_eq!((code.as_str(), why.contains("there is no function nothing")), ("FSS.4201", true), "{why}");
    node.stop().await;
}

#[tokio::test]
async fn who_does_not_listen_gets_the_signal_cleans_up_and_is_proven_gone() {
    let (node, _images) = node().await;
    deploy(&node, "f", 1, json!({ "quell": { "grace_ms": LONG } })).await;
    let request = node.invoke_async("f", &json!("wait")).await;
    printed(&node, &request, "begun").await;
    let cancel = node.cancel("f", &request, Mode::Plain).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
    printed(&node, &request, "cleaned").await;
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "reaped", "{receipt}");
    assert_eq!(receipt["instances"][0]["signals"][0], "terminated", "{receipt}");
    assert_eq!(node.listed("f", &request).await, ("FAIL".to_owned(), 4208));
    node.stop().await;
}

#[tokio::test]
async fn its_initializer_and_its_pre_stop_handler_run_and_its_deadline_is_a_cancel() {
    let (node, _images) = node().await;
    let hooks = json!({
        "initializer_handler": "tried.begin", "initializer_timeout": 10,
        "pre_stop_handler": "tried.farewell", "pre_stop_timeout": 10,
    });
    deploy(&node, "f", 1, hooks).await;
    assert_eq!(within("an answer", node.invoke("f", &json!({}))).await.unwrap().status, 200);
    // Without its function the idle instance is retired.
    node.send(reqwest::Method::DELETE, "/v2/default/fgs/functions/f", &[], b"").await;
    within("its last words", async {
        loop {
            let log = node.get("/quell/v1/instances/i1/log").await.text();
            if log.contains("begins") && log.contains("leaves") {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    deploy(&node, "g", 1, json!({ "timeout": 3 })).await;
    let late = within("its deadline", node.invoke("g", &json!("wait"))).await.unwrap();
    assert_eq!(late.error().1, "FSS.4010");
    node.stop().await;
}

#[tokio::test]
async fn who_ignores_the_signal_is_killed_with_everything_it_started() {
    let (node, _images) = node().await;
    deploy(&node, "f", 1, json!({ "quell": { "grace_ms": 300 } })).await;
    let request = node.invoke_async("f", &json!("stubborn")).await;
    printed(&node, &request, "begun").await;
    let cancel = node.cancel("f", &request, Mode::Plain).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "reaped", "{receipt}");
    assert_eq!(receipt["instances"][0]["signals"], json!(["terminated", "killed"]), "{receipt}");
    node.stop().await;
}

#[tokio::test]
async fn with_others_on_board_it_drains_and_they_finish() {
    let (node, _images) = node().await;
    deploy(&node, "f", 2, json!({ "quell": { "grace_ms": 300 } })).await;
    let request = node.invoke_async("f", &json!("stubborn")).await;
    let other = node.invoke_async("f", &json!("wait")).await;
    within("both to run", async {
        while node.listed("f", &request).await.0 != "RUNNING" || node.listed("f", &other).await.0 != "RUNNING"
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    let cancel = node.cancel("f", &request, Mode::Plain).await;
    assert_eq!(cancel.header("x-quell-stop"), "draining", "{cancel:?}");
    assert_eq!(node.listed("f", &other).await.0, "RUNNING", "nobody touched it");
    let cancel = node.cancel("f", &other, Mode::Force).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
    node.stop().await;
}

/// The program at the end of docs/runtime-protocol.md.
fn documented() -> &'static str {
    let page = include_str!("../docs/runtime-protocol.md");
    let (_, program) = page.split_once("```python\n").unwrap();
    program.split_once("```").unwrap().0
}

#[tokio::test]
async fn the_runtime_in_the_documentation_of_the_protocol_is_one() {
    let node = TestNode::start().await;
    let code = json!({ "file": base64(&zip(&[("bootstrap", documented().as_bytes())])) });
    let more = json!({ "runtime": "Custom", "handler": "bootstrap.handler", "func_code": code });
    let mut body = json!({ "quell": { "grace_ms": LONG } });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    deploy(&node, "f", 3, body).await;
    let endless = json!({ "steps": 1, "seconds": 600 });
    let (first, second) = (node.invoke_async("f", &endless).await, node.invoke_async("f", &endless).await);
    for request in [&first, &second] {
        within("it to run", async {
            while node.listed("f", request).await.0 != "RUNNING" {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
        .await;
    }
    let cancel = node.cancel("f", &first, Mode::Plain).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "acknowledged", "{receipt}");
    assert_eq!(node.listed("f", &second).await.0, "RUNNING");
    let reply = within("an answer", node.invoke("f", &json!({ "steps": 2, "seconds": 0 }))).await.unwrap();
    assert_eq!((reply.status, reply.json()), (200, json!({ "steps": 2 })));
    let reply = within("a failure", node.invoke("f", &json!({}))).await.unwrap();
    assert!(reply.text().contains("KeyError: 'steps'"), "{}", reply.text());
    let cancel = node.cancel("f", &second, Mode::Plain).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
    assert_eq!(node.view().await["instances"].as_array().unwrap().len(), 1);
    node.stop().await;
}
