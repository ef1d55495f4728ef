//! Many requests on one instance: one of them is stopped, and everybody else gets what they should.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::collections::{HashMap, HashSet};

use serde_json::json;
use support::{Bell, Mode, Reply, Ring, TestNode, within};
use tokio::task::JoinHandle;

const SHARED: usize = 8;

/// Eight synchronous requests, all running; by tag.
async fn eight(
    node: &TestNode,
    bell: &Bell,
    function: &str,
    prefix: &str,
) -> (HashMap<String, JoinHandle<Reply>>, HashMap<String, Ring>) {
    let mut answers = HashMap::new();
    for at in 0..SHARED {
        let tag = format!("{prefix}{at}");
        let event = json!({ "do": "wait", "port": bell.port, "tag": tag });
        answers.insert(tag, node.invoke(function, &event));
    }
    (answers, bell.rings(SHARED).await)
}

#[tokio::test]
async fn force_ends_the_eight_requests_of_the_instance_with_4208_and_nobody_else() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    for (function, handler) in [("sync", "index.handler"), ("async", "index.ahandler")] {
        node.deploy_probe(function, 8, 2, json!({ "handler": handler })).await;
        let (answers, rings) = eight(&node, &bell, function, "a").await;
        let (others, mut witnesses) = eight(&node, &bell, function, "b").await;
        let target = rings["a0"].request();
        let cancel = node.cancel(function, &target, Mode::Force).await;
        assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
        for (tag, answer) in answers {
            let reply = within(&tag, answer).await.unwrap();
            let canceled = (500, "FSS.4208".to_owned(), "function invocation canceled".to_owned());
            assert_eq!(reply.error(), canceled, "{function} {tag}");
            assert_eq!(reply.header("x-func-err-code"), "4208");
            assert!(rings[&tag].process.is_gone(), "{function} {tag}: its process");
        }
        let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["requests"].as_array().unwrap().len(), 1);
        assert_eq!(receipt["co_tenants"].as_array().unwrap().len(), SHARED - 1, "{receipt}");
        for ring in witnesses.values_mut() {
            assert!(!ring.process.is_gone(), "{function}: a request on another instance");
            ring.release().await;
        }
        for (tag, answer) in others {
            let reply = within(&tag, answer).await.unwrap();
            assert_eq!((reply.status, reply.json()["tag"].as_str()), (200, Some(tag.as_str())));
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn a_cooperative_cancel_stops_one_of_eight_and_the_other_seven_finish_on_the_same_process() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    for (function, handler) in [("sync", "index.handler"), ("async", "index.ahandler")] {
        node.deploy_probe(function, 8, 1, json!({ "handler": handler })).await;
        let (mut answers, mut rings) = eight(&node, &bell, function, "a").await;
        let mut target = rings.remove("a3").unwrap();
        let cancel = node.cancel(function, &target.request(), Mode::Plain).await;
        assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
        let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["requests"][0]["evidence"], "acknowledged");
        assert_eq!(receipt["co_tenants"], json!([]));
        assert!(!target.process.is_gone(), "{function}: the process stays");
        let stopped = within("the target", answers.remove("a3").unwrap()).await.unwrap();
        assert_eq!(stopped.error().1, "FSS.4208");
        target.last_words().await;
        for (tag, ring) in &mut rings {
            assert!(!ring.process.is_gone(), "{function} {tag}");
            ring.release().await;
        }
        for (tag, answer) in answers {
            let reply = within(&tag, answer).await.unwrap();
            assert_eq!(reply.status, 200, "{function} {tag}: {}", reply.text());
            assert_eq!(reply.json()["me"], rings[&tag].facts["me"], "{function} {tag}: on the same process");
        }
        // And the instance is warm: eight more run on the same processes.
        let pids: HashSet<u32> = rings.values().map(|ring| ring.pid).chain([target.pid]).collect();
        let (answers, mut rings) = eight(&node, &bell, function, "b").await;
        for ring in rings.values_mut() {
            assert!(pids.contains(&ring.pid), "{function}: {} is a new process", ring.pid);
            ring.release().await;
        }
        for answer in answers.into_values() {
            assert_eq!(within("b", answer).await.unwrap().status, 200);
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn a_blocked_loop_drains_and_its_innocent_co_tenants_finish() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    // Two requests on one loop; the second blocks the loop, so the runtime cannot cooperate.
    let more = json!({ "handler": "index.ahandler", "quell": { "grace_ms": 300 } });
    node.deploy_probe("f", 2, 1, more).await;
    let blocked =
        node.invoke_async("f", &json!({ "do": "wait", "port": bell.port, "tag": "innocent" })).await;
    let innocent = bell.ring().await;
    let request = node.invoke_async("f", &json!({ "do": "block", "port": bell.port, "tag": "blocks" })).await;
    bell.ring().await;
    let cancel = node.cancel("f", &request, Mode::Plain).await;
    assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "draining"), "{cancel:?}");
    assert_eq!(node.listed("f", &request).await, ("FAIL".into(), 4208));
    assert_eq!(node.listed("f", &blocked).await.0, "RUNNING", "the innocent one is not touched");
    assert!(!innocent.process.is_gone());
    // Force ends what drains; the innocent request is a co-tenant then.
    let forced = node.cancel("f", &request, Mode::Force).await;
    assert_eq!((forced.status, forced.header("x-quell-stop")), (200, "stopped"), "{forced:?}");
    let receipt = node.receipt(forced.header("x-quell-cancel-id")).await;
    let row = &receipt["requests"][0];
    assert_eq!(
        (&row["request_id"], &row["evidence"], &row["code"]),
        (&json!(request), &json!("reaped"), &json!(4208))
    );
    assert_eq!((&receipt["level"], &receipt["result"]), (&json!("kill"), &json!("stopped")));
    assert_eq!(receipt["co_tenants"][0]["request_id"], json!(blocked), "who forced it names who died of it");
    assert_eq!(receipt["instances"][0]["exit"], "SIGKILL");
    let first = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!((&first["result"], &first["co_tenants"]), (&json!("draining"), &json!([])), "{first}");
    assert!(first["stopped_later_ms"].is_i64(), "{first}");
    assert!(innocent.process.is_gone());
    assert_eq!(node.listed("f", &blocked).await, ("FAIL".into(), 4208));
    node.stop().await;
}

#[tokio::test]
async fn a_receipt_names_whom_its_kill_displaced_and_whom_another_cancel_covered() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    // Two on one instance: the first is being stopped softly and does not listen, the second by force.
    node.deploy_probe("f", 2, 1, json!({ "quell": { "grace_ms": 60_000 } })).await;
    let soft = node.invoke_async("f", &json!({ "do": "stubborn", "port": bell.port, "tag": "soft" })).await;
    bell.ring().await;
    let hard = node.invoke_async("f", &json!({ "do": "stubborn", "port": bell.port, "tag": "hard" })).await;
    bell.ring().await;
    node.fence("f", &soft).await;
    let forced = node.cancel("f", &hard, Mode::Force).await;
    let receipt = node.receipt(forced.header("x-quell-cancel-id")).await;
    let near = &receipt["co_tenants"][0];
    assert_eq!(
        (&near["request_id"], &near["code"], &near["evidence"]),
        (&json!(soft), &json!(4208), &json!("reaped"))
    );

    // Two wait for one instance that starts; force on the first kills it, the second waits again.
    let user_data = json!({ "port": bell.port.to_string() }).to_string();
    let more = json!({
        "user_data": user_data,
        "strategy_config": { "concurrency": 1, "concurrent_num": 2 },
    });
    node.deploy("slow", include_str!("functions/slow_start.py"), more).await;
    let first = node.invoke_async("slow", &json!({})).await;
    let _starting = bell.ring().await;
    let second = node.invoke_async("slow", &json!({})).await;
    let forced = node.cancel("slow", &first, Mode::Force).await;
    let receipt = node.receipt(forced.header("x-quell-cancel-id")).await;
    let near = &receipt["co_tenants"][0];
    assert_eq!((&near["request_id"], &near["evidence"]), (&json!(second), &json!("requeued")), "{receipt}");
    node.stop().await;
}

#[tokio::test]
async fn a_function_may_choose_that_collateral_runs_again() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 2, 1, json!({ "quell": { "on_collateral": "retry" } })).await;
    let target = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port, "tag": "target" })).await;
    let other = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port, "tag": "other" })).await;
    let rings = bell.rings(2).await;
    let cancel = node.cancel("f", &target, Mode::Force).await;
    assert_eq!(cancel.status, 200);
    let mut again = bell.ring().await;
    assert_eq!((again.facts["tag"].as_str(), again.request()), (Some("other"), other.clone()));
    assert_ne!(again.pid, rings["other"].pid);
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["co_tenants"][0]["evidence"], "requeued", "{receipt}");
    again.release().await;
    again.last_words().await;
    node.stop().await;
}

#[tokio::test]
async fn a_function_that_runs_too_long_is_stopped_by_its_deadline_with_4010() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({ "timeout": 3 })).await;
    let answer = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let ring = bell.ring().await;
    let reply = within("the deadline", answer).await.unwrap();
    assert_eq!((reply.error().0, reply.error().1.as_str()), (500, "FSS.4010"));
    // It was asked and stopped; its process serves the next request.
    let next = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let mut second = bell.ring().await;
    assert_eq!(second.pid, ring.pid);
    second.release().await;
    assert_eq!(within("the next", next).await.unwrap().status, 200);
    node.stop().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_where_the_function_says_so() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("stop", 1, 1, json!({ "quell": { "on_disconnect": "cancel" } })).await;
    node.deploy_probe("go-on", 1, 1, json!({})).await;
    let gone = node.invoke("stop", &json!({ "do": "cleanup", "port": bell.port }));
    let mut ring = bell.ring().await;
    gone.abort();
    assert_eq!(ring.last_words().await, "cleaned\n");
    let gone = node.invoke("go-on", &json!({ "do": "wait", "port": bell.port, "children": [] }));
    let mut ring = bell.ring().await;
    gone.abort();
    ring.release().await;
    // It finished by itself: its status is SUCCESS, not cancelled. (The next of the one instance runs
    // once it has settled.)
    let next = node.invoke("go-on", &json!({ "do": "wait", "port": bell.port }));
    bell.ring().await.release().await;
    within("the next", next).await.unwrap();
    let reply = node.cancel("go-on", &ring.request(), Mode::Plain).await;
    assert_eq!(reply.error().2, "Invalid RequestId: SUCCESS");
    node.stop().await;
}
