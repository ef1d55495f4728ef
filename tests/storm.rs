//! A recursive cancel in the middle of a storm of new children leaves nothing running and nothing queued.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::{Bell, Mode, TestNode};

/// How often the storm is stopped (issue: 200 runs).
const RUNS: usize = 200;

/// How many sizes of tree the cancels meet, the smallest of 2.
const SIZES: usize = 40;

fn live(view: &Value) -> usize {
    view["requests"].as_array().unwrap().len()
}

#[tokio::test]
async fn two_hundred_storms_are_stopped_without_a_trace() {
    // 27: a step starts while its run is being cancelled.
    let node = TestNode::start_with(&["--max-instances", "16"]).await;
    let bell = Bell::hang().await;
    let storm = include_str!("functions/storm.py");
    let few =
        json!({ "strategy_config": { "concurrency": 4, "concurrent_num": 1 }, "quell": { "grace_ms": 100 } });
    node.deploy("storm", storm, few).await;
    let mut largest = 0;
    for run in 0..RUNS {
        let event = json!({ "depth": 3, "port": bell.port });
        let root = node.invoke_async("storm", &event).await;
        let ring = bell.ring().await;
        // Let it rage until there are children for sure: now a breeze, now a gale. How many more there
        // are by the time of the cancel is left to chance.
        while node.tree(&root).await.len() < 2 + run % SIZES {
            assert!(!ring.process.is_gone(), "run {run}: the storm died by itself");
        }
        let mode = if run % 2 == 0 { Mode::Recursive } else { Mode::Both };
        let reply = node.cancel("storm", &root, mode).await;
        assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "run {run}: {reply:?}");
        let view = node.view().await;
        assert_eq!(live(&view), 0, "run {run}: {view}");
        let receipt = node.receipt(reply.header("x-quell-cancel-id")).await;
        let rows = receipt["requests"].as_array().unwrap();
        largest = largest.max(rows.len());
        let unsettled = rows.iter().filter(|row| row["code"] != json!(4208)).count();
        assert_eq!(unsettled, 0, "run {run}: {receipt}");
    }
    println!("largest tree stopped: {largest} requests");
    assert!(largest > SIZES, "a storm of {largest} is none");
    // Nothing of 200 storms waits in the store either: a new life has nothing to take up.
    let list = node.get("/v2/default/fgs/functions/storm/async-invocations?status=RUNNING").await.json();
    assert_eq!(list["count"], 0, "{list}");
    let list = node.get("/v2/default/fgs/functions/storm/async-invocations?status=WAIT").await.json();
    assert_eq!(list["count"], 0, "{list}");
    node.stop().await;
}
