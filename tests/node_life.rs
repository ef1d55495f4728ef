//! How a node ends and begins again: signals, drains, SIGKILL, and what the next life takes up.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::collections::HashMap;

use nix::sys::signal::Signal;
use serde_json::json;
use support::{Bell, Mode, Ring, TestNode, within};

#[tokio::test]
async fn the_first_signal_drains_what_runs_finishes_and_nothing_new_is_taken() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
        node.deploy_probe("f", 1, 2, json!({})).await;
        let answer = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
        let mut ring = bell.ring().await;
        node.signal(signal);
        // Until it drains it takes requests as ever; its health tells when it does.
        within("the drain", async { while node.get("/quell/v1/ready").await.status == 200 {} }).await;
        let refused = within("a refusal", node.invoke("f", &json!({}))).await.unwrap().error();
        assert_eq!((refused.0, refused.1.as_str()), (503, "FSS.0503"), "{signal}");
        assert!(!ring.process.is_gone(), "{signal}");
        ring.release().await;
        assert_eq!(within("the running one", answer).await.unwrap().status, 200, "{signal}");
        let (status, log) = node.ended().await;
        assert!(status.success(), "{signal} {status}: {log:#?}");
        assert!(ring.process.is_gone(), "{signal}: its instance was ended before the node");
        assert!(log.iter().any(|line| line.contains("every instance was reaped")), "{log:#?}");
        let said = log
            .iter()
            .find(|line| line.contains("draining for at most 30 s"))
            .expect("it says that it drains");
        for word in ["waits for 1 request on 1 instance;", "Ctrl-C again"] {
            assert!(said.contains(word), "{signal}: {said}");
        }
    }
}

#[tokio::test]
async fn a_second_signal_stops_now_and_leaves_no_process_of_any_kind() {
    // 31: the kill's own signal is taken for a failure.
    let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 4, json!({})).await;
    let stubborn = node.invoke("f", &json!({ "do": "stubborn", "port": bell.port }));
    let stubborn_ring = bell.ring().await;
    let asynchronous = node.invoke_async("f", &json!({ "do": "setsid", "port": bell.port })).await;
    let rings = bell.rings(2).await;
    let leaf = rings["setsid"].started();
    node.signal(Signal::SIGINT);
    node.signal(Signal::SIGTERM);
    let (status, log) = node.ended().await;
    assert!(status.success(), "{status}: {log:#?}");
    assert!(log.iter().any(|line| line.contains("stopping now: what still runs is killed")), "{log:#?}");
    assert!(stubborn_ring.process.is_gone() && leaf.is_gone());
    assert!(rings.values().all(|ring| ring.process.is_gone()));
    let reply = within("its caller", stubborn).await.unwrap();
    assert_eq!(reply.status, 500, "the caller is told: {}", reply.text());
    // The asynchronous one was accepted: the next life runs it.
    let dir = node.dir.clone();
    let next = TestNode::start_in(&dir, &[]).await;
    let again = bell.rings(2).await;
    let again = again.values().find(|ring| ring.facts["tag"].is_null()).expect("the handler rang");
    assert_eq!(again.request(), asynchronous);
    let reply = next.cancel("f", &asynchronous, Mode::Both).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "null"));
    next.stop().await;
}

#[tokio::test]
async fn after_sigkill_nothing_runs_on_accepted_runs_again_and_cancelled_never_does() {
    // 63: after a restart one pid was killed and a leftover went on.
    let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let wait = |tag: &str| json!({ "do": "wait", "port": bell.port, "tag": tag });
    let canceled = node.invoke_async("f", &wait("canceled while running")).await;
    let _line = bell.ring().await;
    let removed = node.invoke_async("f", &wait("canceled while queued")).await;
    for request in [&removed, &canceled] {
        assert_eq!(node.cancel("f", request, Mode::Plain).await.status, 200);
    }
    let event = json!({ "do": "setsid", "port": bell.port, "tag": "running" });
    let running = node.invoke_async("f", &event).await;
    let rings = bell.rings(2).await;
    let leaf = rings["setsid"].started();
    let queued = node.invoke_async("f", &wait("queued")).await;

    node.kill();
    let dir = node.dir.clone();
    let next = TestNode::start_in(&dir, &[]).await;
    // Listening means: what the last life left has been ended, and is proven gone.
    assert!(rings["running"].process.is_gone(), "the runtime of the last life");
    assert!(leaf.is_gone(), "and what it had started in another session");
    let again = bell.rings(2).await;
    assert_eq!(again["running"].request(), running, "interrupted, so run again");
    assert_eq!(next.cancel("f", &running, Mode::Force).await.status, 200);
    let mut last = bell.ring().await;
    assert_eq!(last.request(), queued, "still queued after it");
    last.release().await;
    last.last_words().await;
    for request in [&canceled, &removed] {
        let (status, code) = next.listed("f", request).await;
        assert!(status == "FAIL" || status == "DISCARD", "{status}");
        assert_eq!(code, 4208);
        let again = next.cancel("f", request, Mode::Plain).await;
        assert_eq!((again.status, again.text().as_str()), (200, "null"), "cancelled in the last life");
    }
    next.stop().await;
}

/// A running asynchronous request and its running asynchronous child.
async fn root_and_child(node: &TestNode, bell: &Bell) -> (String, String, HashMap<String, Ring>) {
    node.deploy_probe("f", 1, 20, json!({})).await;
    let wait = |tag: &str| json!({ "do": "wait", "port": bell.port, "tag": tag });
    let mut event = wait("root");
    event["children"] = json!([wait("child")]);
    let root = node.invoke_async("f", &event).await;
    let rings = bell.rings(2).await;
    let child = rings["child"].request();
    (root, child, rings)
}

#[tokio::test]
async fn after_sigkill_the_tree_is_a_tree_again_and_is_stopped_as_one() {
    let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
    let (root, child, _rings) = root_and_child(&node, &bell).await;
    node.kill();
    let next = TestNode::start_in(&node.dir.clone(), &[]).await;
    // The root runs again and invokes a second child; the first runs again below it.
    let mut again = vec![bell.ring().await, bell.ring().await, bell.ring().await];
    let tree = next.tree(&root).await;
    assert_eq!(tree.len(), 3, "{tree:?}");
    assert_eq!(tree[&child]["parent"], json!(root));
    let reply = next.cancel("f", &root, Mode::Recursive).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"));
    assert_eq!(next.view().await["requests"], json!([]));
    for ring in &mut again {
        ring.last_words().await;
    }
    next.stop().await;
}

#[tokio::test]
async fn after_sigkill_a_recursive_cancel_reaches_what_a_cancelled_request_left_behind() {
    let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
    let (root, child, _rings) = root_and_child(&node, &bell).await;
    assert_eq!(node.cancel("f", &root, Mode::Plain).await.status, 200);
    node.kill();
    let next = TestNode::start_in(&node.dir.clone(), &[]).await;
    let again = bell.ring().await;
    assert_eq!(again.request(), child, "the child was not cancelled: it runs again, alone");
    assert_eq!(next.cancel("f", &root, Mode::Plain).await.header("x-quell-stop"), "stopped");
    assert_eq!(next.listed("f", &child).await.0, "RUNNING");
    let reply = next.cancel("f", &root, Mode::Both).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(again.process.is_gone());
    let receipt = next.receipt(reply.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["request_id"], json!(child));
    assert_eq!(next.listed("f", &child).await, ("FAIL".into(), 4208));
    next.stop().await;
}

/// A running root, what it invoked, and what that did, all of them asynchronous.
async fn three_deep(node: &TestNode, bell: &Bell) -> (String, HashMap<String, Ring>) {
    node.deploy_probe("f", 1, 20, json!({})).await;
    let wait = |tag: &str| json!({ "do": "wait", "port": bell.port, "tag": tag });
    let (mut event, mut middle) = (wait("root"), wait("middle"));
    middle["children"] = json!([wait("leaf")]);
    event["children"] = json!([middle]);
    let root = node.invoke_async("f", &event).await;
    (root, bell.rings(3).await)
}

#[tokio::test]
async fn after_sigkill_a_recursive_cancel_reaches_beyond_what_has_ended_in_the_middle() {
    for root_ends in [false, true] {
        let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
        let (root, mut rings) = three_deep(&node, &bell).await;
        let (middle, leaf) = (rings["middle"].request(), rings["leaf"].request());
        let ending =
            if root_ends { vec![("middle", &middle), ("root", &root)] } else { vec![("middle", &middle)] };
        for (tag, request) in ending {
            rings.get_mut(tag).unwrap().release().await;
            assert_eq!(node.settled("f", request).await.0, "SUCCESS");
        }
        node.kill();
        let next = TestNode::start_in(&node.dir.clone(), &[]).await;
        // The leaf runs again; so does the root, with all that it invokes, if it had not ended.
        // (Two of them may be leaves, the old one and a new one: each line is held.)
        let mut again = Vec::new();
        for _ in 0..if root_ends { 1 } else { 4 } {
            again.push(bell.ring().await);
        }
        assert!(again.iter().any(|ring| ring.request() == leaf));
        let reply = next.cancel("f", &root, Mode::Both).await;
        assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
        assert_eq!(next.listed("f", &leaf).await, ("FAIL".into(), 4208), "root ended: {root_ends}");
        assert_eq!(next.view().await["requests"], json!([]));
        next.stop().await;
        assert!(bell.is_silent().await);
    }
}

#[tokio::test]
async fn a_recursive_cancel_reaches_beyond_a_request_that_was_given_up_after_too_many_lives() {
    let (data, bell) = (TestNode::folder(), Bell::hang().await);
    let mut node = TestNode::start_in(data.path(), &[]).await;
    let (root, mut rings) = three_deep(&node, &bell).await;
    let middle = rings["middle"].request();
    rings.get_mut("root").unwrap().release().await;
    assert_eq!(node.settled("f", &root).await.0, "SUCCESS");
    // In each life the middle one and all its leaves run again, and it invokes one more leaf.
    let mut held = Vec::new();
    for leaves in [2, 3] {
        node.kill();
        node = TestNode::start_in(data.path(), &[]).await;
        for _ in 0..1 + leaves {
            held.push(bell.ring().await);
        }
        assert_eq!(node.listed("f", &middle).await.0, "RUNNING"); // and that is on the disk
    }
    node.kill();
    let last = TestNode::start_in(data.path(), &[]).await;
    let orphans = [bell.ring().await, bell.ring().await];
    assert_eq!(last.settled("f", &middle).await, ("FAIL".into(), 4204), "three lives are enough");
    let reply = last.cancel("f", &root, Mode::Both).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    for orphan in &orphans {
        assert!(orphan.process.is_gone());
        assert_eq!(last.listed("f", &orphan.request()).await, ("FAIL".into(), 4208));
    }
    last.stop().await;
    assert!(bell.is_silent().await);
}

#[tokio::test]
async fn after_sigkill_a_recursive_cancel_reaches_what_its_orphans_made_and_outlived() {
    let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
    let (root, mut rings) = three_deep(&node, &bell).await;
    let (middle, leaf) = (rings["middle"].request(), rings["leaf"].request());
    assert_eq!(node.cancel("f", &leaf, Mode::Force).await.status, 200);
    rings.get_mut("root").unwrap().release().await;
    assert_eq!(node.settled("f", &root).await.0, "SUCCESS");
    node.kill();
    // In the next life the middle one invokes another, and ends before that does.
    let next = TestNode::start_in(&node.dir.clone(), &[]).await;
    let mut again = bell.rings(2).await;
    let leaf = again["leaf"].request();
    again.get_mut("middle").unwrap().release().await;
    assert_eq!(next.settled("f", &middle).await.0, "SUCCESS");
    let reply = next.cancel("f", &root, Mode::Recursive).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert_eq!(next.listed("f", &leaf).await, ("FAIL".into(), 4208));
    next.stop().await;
    assert!(bell.is_silent().await);
}

#[tokio::test]
async fn what_waits_for_a_disabled_function_survives_and_can_be_cancelled() {
    let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let running = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
    let _line = bell.ring().await;
    let waiting = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
    let path = "/v2/default/fgs/functions/f/config-max-instance";
    let body = json!({ "max_instance_num": 0 }).to_string();
    let json = [("Content-Type", "application/json")];
    let reply = node.send(reqwest::Method::PUT, path, &json, body.as_bytes()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    node.kill();
    let next = TestNode::start_in(&node.dir.clone(), &[]).await;
    for request in [&running, &waiting] {
        assert_eq!(next.listed("f", request).await.0, "WAIT");
        assert_eq!(next.cancel("f", request, Mode::Plain).await.header("x-quell-stop"), "stopped");
        assert_eq!(next.listed("f", request).await.1, 4208);
    }
    next.stop().await;
}

#[tokio::test]
async fn a_node_whose_log_nobody_reads_goes_on_as_ever() {
    let (mut node, bell) = (TestNode::start_deaf().await, Bell::hang().await);
    node.deploy_probe("f", 1, 2, json!({})).await;
    for mode in Mode::ALL {
        let request = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
        let _line = bell.ring().await;
        assert_eq!(node.cancel("f", &request, mode).await.header("x-quell-stop"), "stopped");
    }
    node.signal(Signal::SIGTERM);
    assert!(node.ended().await.0.success());
}

#[tokio::test]
async fn a_cancel_that_sigkill_interrupts_has_a_receipt_that_says_so() {
    let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({ "quell": { "grace_ms": 60_000 } })).await;
    let request = node.invoke_async("f", &json!({ "do": "stubborn", "port": bell.port })).await;
    let ring = bell.ring().await;
    let fenced = node.fence("f", &request).await;
    node.kill();
    let next = TestNode::start_in(&node.dir.clone(), &[]).await;
    assert!(ring.process.is_gone());
    let receipt = next.receipt(fenced.header("x-quell-cancel-id")).await;
    assert_eq!((&receipt["result"], &receipt["requests"][0]["code"]), (&json!("stopped"), &json!(4208)));
    assert_eq!(receipt["requests"][0]["evidence"], "node_ended", "{receipt}");
    assert!(receipt["closed_ms"].is_i64());
    next.stop().await;
}

#[tokio::test]
async fn a_node_that_ends_in_order_leaves_no_cgroup() {
    let mut node = TestNode::start().await;
    node.deploy("f", include_str!("functions/plain.py"), json!({ "handler": "index.length" })).await;
    assert_eq!(node.invoke("f", &json!([1])).await.unwrap().text(), "1");
    let pid = u32::try_from(node.view().await["instances"][0]["pid"].as_u64().unwrap()).unwrap();
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let leaf = cgroups.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    let (own, _) = leaf.rsplit_once('/').unwrap();
    let name = own.rsplit('/').next().unwrap().to_owned();
    node.signal(Signal::SIGTERM);
    assert!(node.ended().await.0.success());
    if name.starts_with("quell-") {
        for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            assert!(!std::path::Path::new(mount).join(own.trim_start_matches('/')).exists(), "{own}");
        }
    }
}

#[tokio::test]
async fn a_second_node_on_the_same_data_is_refused_and_the_first_serves_on() {
    let node = TestNode::start().await;
    node.deploy("f", include_str!("functions/plain.py"), json!({ "handler": "index.length" })).await;
    let second = TestNode::command(&node.dir, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("quell: ") && said.contains("use"), "{said}");
    assert_eq!(node.invoke("f", &json!([1])).await.unwrap().text(), "1");
    node.stop().await;
}

#[tokio::test]
async fn functions_and_credentials_survive_a_restart() {
    let mut node = TestNode::start().await;
    node.deploy("f", include_str!("functions/plain.py"), json!({ "handler": "index.length" })).await;
    node.signal(Signal::SIGTERM);
    node.ended().await;
    let (dir, token) = (node.dir.clone(), node.token.clone());
    let next = TestNode::start_in(&dir, &[]).await;
    assert_eq!(next.token, token);
    assert_eq!(next.invoke("f", &json!([1, 2, 3])).await.unwrap().text(), "3");
    next.stop().await;
}

#[tokio::test]
async fn after_sigkill_right_behind_a_200_the_receipt_names_everybody_the_cancel_touched() {
    const TENANTS: usize = 8;
    let data = TestNode::folder();
    for round in 0..8 {
        let (mut node, bell) = (TestNode::start_in(data.path(), &[]).await, Bell::hang().await);
        node.deploy_probe(&format!("f{round}"), 8, 1, json!({})).await;
        let function = format!("f{round}");
        let mut requests = Vec::new();
        for tag in 0..TENANTS {
            let event = json!({ "do": "wait", "port": bell.port, "tag": tag.to_string() });
            requests.push(node.invoke_async(&function, &event).await);
        }
        let _rings = bell.rings(TENANTS).await;
        let reply = node.cancel(&function, &requests[0], Mode::Force).await;
        node.kill();
        assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{round}: {reply:?}");
        let node = TestNode::start_in(data.path(), &["--drain", "0"]).await;
        let receipt = node.receipt(reply.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["result"], "stopped", "{round}: {receipt}");
        let named: Vec<&str> = receipt["co_tenants"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["request_id"].as_str().unwrap())
            .collect();
        for other in &requests[1..] {
            assert!(named.contains(&other.as_str()), "{round}: {other} is not in {receipt}");
        }
        assert_eq!(receipt["instances"].as_array().unwrap().len(), 1, "{round}: {receipt}");
        // What was touched and not told so runs again; it is not what is asked about here.
        for other in &requests[1..] {
            node.cancel(&function, other, Mode::Force).await;
        }
        node.stop().await;
    }
}
