//! The Node.js image on a real node: one of many cancelled, and what does not obey.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

mod support;

use std::collections::{HashMap, HashSet};

use serde_json::json;
use support::{
    Mode, TestNode,
    javascript::{SHARED, TcpBell, answered, assert_canceled, deploy, deploy_shared, finish, waiting},
};
use tokio::io::AsyncWriteExt as _;

#[tokio::test]
async fn a_cooperative_cancel_stops_one_of_eight_and_the_other_seven_finish_in_the_same_process() {
    let (node, bell) = (TestNode::start().await, TcpBell::hang().await);
    deploy_shared(&node, "f", SHARED, json!({})).await;
    let (mut answers, mut rings) = waiting(&node, &bell, "f", SHARED).await;
    let mut target = rings.remove("a3").unwrap();
    let cancel = node.cancel("f", &target.request(), Mode::Plain).await;
    assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
    assert_eq!(target.last_words().await, "cleaned cancel AbortError\n");
    assert_canceled(&answered("the target", answers.remove("a3").unwrap()).await);
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "acknowledged");
    assert_eq!(receipt["co_tenants"], json!([]));
    assert!(rings.values().all(|ring| ring.fact("me") == target.fact("me")), "one process");
    finish(answers, rings).await;
    let next = answered("the next", node.invoke("f", &json!({ "do": "echo" }))).await;
    assert_eq!(next.json()["me"], target.facts["me"], "and it is warm");
    node.stop().await;
}

#[tokio::test]
async fn what_ignores_the_signal_or_blocks_the_loop_drains_or_is_killed_as_the_function_chose() {
    let (node, bell) = (TestNode::start().await, TcpBell::hang().await);
    for what in ["stubborn", "block"] {
        // Alone: killed when its grace is over.
        let alone = format!("{what}-alone");
        deploy_shared(&node, &alone, 1, json!({ "grace_ms": 300 })).await;
        let event = json!({ "do": what, "port": bell.port() });
        let answer = node.invoke(&alone, &event);
        let mut ring = bell.ring().await;
        let cancel = node.cancel(&alone, &ring.request(), Mode::Plain).await;
        assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
        let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["requests"][0]["evidence"], "reaped", "{receipt}");
        assert_canceled(&answered(what, answer).await);
        ring.last_words().await;

        // With others, and they may finish. (Those that share a blocked loop cannot, until it is killed.)
        let drains = format!("{what}-drains");
        deploy_shared(&node, &drains, 3, json!({ "grace_ms": 300 })).await;
        let (answers, rings) = waiting(&node, &bell, &drains, 2).await;
        let answer = node.invoke(&drains, &event);
        let target = bell.ring().await;
        let cancel = node.cancel(&drains, &target.request(), Mode::Plain).await;
        assert_eq!(cancel.header("x-quell-stop"), "draining", "{cancel:?}");
        assert_canceled(&answered(what, answer).await);
        if what == "stubborn" {
            finish(answers, rings).await;
            // With the last innocent one its process ends.
            let next = answered("the next", node.invoke(&drains, &json!({ "do": "echo" }))).await;
            assert_ne!(next.json()["me"], target.facts["me"]);
        } else {
            let forced = node.cancel(&drains, &target.request(), Mode::Force).await;
            assert_eq!(forced.header("x-quell-stop"), "stopped", "{forced:?}");
            for answer in answers.into_values() {
                assert_canceled(&answered("a co-tenant", answer).await);
            }
        }

        // With others, and the function chose that they end with it.
        let kills = format!("{what}-kills");
        deploy_shared(&node, &kills, 3, json!({ "grace_ms": 300, "on_grace_expired": "kill" })).await;
        let (answers, _rings) = waiting(&node, &bell, &kills, 2).await;
        let answer = node.invoke(&kills, &event);
        let target = bell.ring().await;
        let cancel = node.cancel(&kills, &target.request(), Mode::Plain).await;
        assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
        let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["co_tenants"].as_array().unwrap().len(), 2, "{receipt}");
        for answer in answers.into_values().chain([answer]) {
            assert_canceled(&answered(what, answer).await);
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn processes_of_the_request_are_dead_when_it_is_acknowledged_and_the_runtime_stays() {
    let bell = TcpBell::hang().await;
    for isolation in ["auto", "subreaper"] {
        let node = TestNode::start_with(&["--isolation", isolation]).await;
        deploy_shared(&node, "f", 2, json!({})).await;
        let (answers, rings) = waiting(&node, &bell, "f", 1).await;
        let answer = node.invoke("f", &json!({ "do": "process", "port": bell.port() }));
        let target = bell.ring().await;
        let cancel = node.cancel("f", &target.request(), Mode::Plain).await;
        assert_eq!(cancel.header("x-quell-stop"), "stopped", "{isolation}: {cancel:?}");
        let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["requests"][0]["evidence"], "acknowledged", "{isolation}: {receipt}");
        assert_canceled(&answered("the target", answer).await);
        finish(answers, rings).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn where_nobody_inherits_what_processes_leave_behind_the_runtime_is_ended_instead() {
    let bell = TcpBell::hang().await;
    let node = TestNode::start_with(&["--isolation", "process-group"]).await;
    deploy_shared(&node, "f", 1, json!({ "grace_ms": 300 })).await;
    let answer = node.invoke("f", &json!({ "do": "process", "port": bell.port() }));
    let target = bell.ring().await;
    let cancel = node.cancel("f", &target.request(), Mode::Plain).await;
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "reaped", "{receipt}");
    assert_canceled(&answered("the target", answer).await);
    node.stop().await;
}

#[tokio::test]
async fn a_late_answer_of_what_drains_is_not_delivered_and_crosses_no_other() {
    let (node, bell) = (TestNode::start().await, TcpBell::hang().await);
    deploy_shared(&node, "f", 3, json!({ "grace_ms": 300 })).await;
    let (answers, rings) = waiting(&node, &bell, "f", 1).await;
    let request = node.invoke_async("f", &json!({ "do": "deaf", "port": bell.port(), "tag": "deaf" })).await;
    let mut target = bell.ring().await;
    let cancel = node.cancel("f", &request, Mode::Plain).await;
    assert_eq!(cancel.header("x-quell-stop"), "draining", "{cancel:?}");
    target.release().await;
    target.last_words().await;
    finish(answers, rings).await;
    assert_eq!(node.settled("f", &request).await, ("FAIL".into(), 4208));
    node.stop().await;
}

#[tokio::test]
async fn answers_that_race_with_cancels_reach_nobody_else() {
    const ROUNDS: usize = 30;
    let (node, bell) = (TestNode::start().await, TcpBell::hang().await);
    deploy_shared(&node, "f", SHARED, json!({})).await;
    let mut processes = HashSet::new();
    for round in 0..ROUNDS {
        let (answers, mut rings) = waiting(&node, &bell, "f", SHARED).await;
        let target = format!("a{}", round % SHARED);
        let request = rings[&target].request();
        let release = async {
            for ring in rings.values_mut() {
                // The one that is cancelled may be over.
                drop(ring.line.get_mut().write_all(b"go").await);
            }
        };
        let (cancel, ()) = tokio::join!(node.cancel("f", &request, Mode::Plain), release);
        assert!(matches!(cancel.status, 200 | 400), "{cancel:?}");
        for (tag, answer) in answers {
            let reply = answered(&tag, answer).await;
            if tag == target && cancel.status == 200 {
                assert_canceled(&reply);
                continue;
            }
            assert_eq!((reply.status, reply.json()["tag"].as_str()), (200, Some(tag.as_str())));
        }
        processes.extend(rings.values().map(|ring| ring.fact("me")));
    }
    assert_eq!(processes.len(), 1, "one process for all of it");
    node.stop().await;
}

#[tokio::test]
async fn a_deadline_aborts_the_signal_and_is_4010_and_force_asks_nobody() {
    let (node, bell) = (TestNode::start().await, TcpBell::hang().await);
    deploy(&node, "short", json!({ "timeout": 3 })).await;
    let answer = node.invoke("short", &json!({ "do": "wait", "port": bell.port() }));
    let mut ring = bell.ring().await;
    assert_eq!(ring.last_words().await, "cleaned deadline TimeoutError\n");
    assert_eq!(answered("the deadline", answer).await.error().1, "FSS.4010");
    let next = answered("the next", node.invoke("short", &json!({ "do": "echo" }))).await;
    assert_eq!(next.json()["me"], ring.facts["me"], "the process stays");

    deploy_shared(&node, "f", SHARED, json!({})).await;
    let (answers, mut rings) = waiting(&node, &bell, "f", SHARED).await;
    let cancel = node.cancel("f", &rings["a0"].request(), Mode::Force).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
    for answer in answers.into_values() {
        assert_canceled(&answered("one of eight", answer).await);
    }
    for ring in rings.values_mut() {
        assert_eq!(ring.last_words().await, "", "no handler was asked");
    }
    node.stop().await;
}

#[tokio::test]
async fn children_are_stopped_with_their_parent_by_a_recursive_cancel_and_not_by_a_plain_one() {
    let (node, bell) = (TestNode::start().await, TcpBell::hang().await);
    deploy(&node, "f", json!({})).await;
    let leaf = |tag: &str| json!({ "do": "wait", "port": bell.port(), "tag": tag });
    let tree = json!({
        "do": "child", "port": bell.port(), "tag": "root", "children": [leaf("async")], "child": leaf("sync"),
    });
    for mode in [Mode::Recursive, Mode::Plain] {
        let root = node.invoke_async("f", &tree).await;
        let mut rings = HashMap::new();
        for _ in 0..3 {
            let ring = bell.ring().await;
            rings.insert(ring.fact("tag"), ring);
        }
        let children = rings["root"].facts["children"].clone();
        assert_eq!(children, json!([rings["async"].request()]));
        assert_eq!(node.tree(&root).await.len(), 3);
        let cancel = node.cancel("f", &root, mode).await;
        assert_eq!(cancel.header("x-quell-stop"), "stopped", "{mode:?}: {cancel:?}");
        assert_eq!(node.settled("f", &root).await, ("FAIL".into(), 4208));
        for tag in ["async", "sync"] {
            let mut ring = rings.remove(tag).unwrap();
            if mode == Mode::Plain {
                ring.release().await;
            }
            let words = if mode == Mode::Plain { "" } else { "cleaned cancel AbortError\n" };
            assert_eq!(ring.last_words().await, words, "{mode:?} {tag}");
        }
    }
    node.stop().await;
}
