//! Pre-stop handlers and initializers: run where the API says so, within their limits, and by nobody who is in a
//! hurry.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Ring, TestNode, within};

const SOURCE: &str = include_str!("functions/leaves.py");

/// Deploys the function with a pre-stop handler; `user` is its user data besides the bell.
async fn deploy(node: &TestNode, bell: &Bell, user: Value, more: Value) {
    let mut data = json!({ "bell": bell.port.to_string() });
    data.as_object_mut().unwrap().extend(user.as_object().unwrap().clone());
    let mut body = json!({
        "user_data": data.to_string(),
        "pre_stop_handler": "index.leave",
        "strategy_config": { "concurrency": 1, "concurrent_num": 1 },
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.deploy("f", SOURCE, body).await;
}

async fn answered(node: &TestNode) {
    let reply = within("a request", node.invoke("f", &json!({}))).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Waits until the node has no instance any more.
async fn until_gone(node: &TestNode) {
    within("the end of the instances", async {
        while !node.view().await["instances"].as_array().unwrap().is_empty() {}
    })
    .await;
}

/// That the one instance is in its handler: it counts as ending and takes nothing.
async fn is_in_its_hook(node: &TestNode, ring: &Ring) {
    assert_eq!(ring.facts["tag"], "leave", "{}", ring.facts);
    let view = node.view().await;
    assert_eq!(view["instances"].as_array().unwrap().len(), 1, "{view}");
    assert_eq!(view["instances"][0]["state"], "ending", "{view}");
    assert_eq!(view["instances"][0]["requests"], json!([]), "{view}");
    assert!(!ring.process.is_gone());
}

#[tokio::test]
async fn an_instance_that_is_released_runs_its_handler_once_and_ends_by_itself() {
    for (handler, leave, concurrency, isolation) in [
        ("index.handler", "index.leave", 1, "auto"),
        ("index.handler", "index.leave", 1, "subreaper"),
        ("index.handler", "index.leave", 1, "process-group"),
        ("index.handler", "index.leave", 8, "auto"),
        ("index.handler", "index.leave", 8, "process-group"),
        ("index.handler", "index.aleave", 1, "auto"),
        ("index.ahandler", "index.leave", 8, "auto"),
        ("index.ahandler", "index.aleave", 8, "auto"),
    ] {
        let node = TestNode::start_with(&["--idle", "0.2", "--isolation", isolation]).await;
        let bell = Bell::hang().await;
        let more = json!({
            "handler": handler, "pre_stop_handler": leave, "pre_stop_timeout": 60,
            "strategy_config": { "concurrency": 1, "concurrent_num": concurrency },
        });
        deploy(&node, &bell, json!({}), more).await;
        answered(&node).await;
        let mut ring = bell.ring().await;
        is_in_its_hook(&node, &ring).await;
        let facts = ["function", "request", "limit", "handler"].map(|name| ring.facts[name].clone());
        assert_eq!(json!(facts), json!(["f", "", "60", leave]));
        ring.release().await;
        assert_eq!(ring.last_words().await, "cleaned\n", "{handler} {leave}");
        until_gone(&node).await;
        assert!(ring.process.is_gone());
        node.logs("its pre-stop handler is done");
        node.stop().await;
        assert!(bell.is_silent().await, "once: {handler} {leave} {concurrency}");
    }
}

#[tokio::test]
async fn an_update_lets_the_old_instance_leave_and_its_slot_is_free_only_with_its_end() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, &bell, json!({}), json!({})).await;
    answered(&node).await;
    let json = [("Content-Type", "application/json")];
    let config = json!({
        "func_name": "f", "runtime": "Python3.10", "handler": "index.handler", "timeout": 9, "memory_size": 128,
        "pre_stop_handler": "",
    });
    let path = "/v2/default/fgs/functions/f/config";
    let reply = node.send(Method::PUT, path, &json, config.to_string().as_bytes()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["pre_stop_handler"], "");
    let mut ring = bell.ring().await;
    is_in_its_hook(&node, &ring).await;
    let waiting = node.invoke_async("f", &json!({})).await;
    within("the request", async { while node.tree(&waiting).await.is_empty() {} }).await;
    is_in_its_hook(&node, &ring).await;
    assert_eq!(node.tree(&waiting).await[&waiting]["state"], "queued");
    ring.release().await;
    assert_eq!(node.settled("f", &waiting).await, ("SUCCESS".to_owned(), 0));
    assert!(ring.process.is_gone());
    node.stop().await;
    assert!(bell.is_silent().await, "the new revision has no handler");
}

#[tokio::test]
async fn a_drain_with_nothing_to_do_lets_instances_leave() {
    let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, &bell, json!({}), json!({})).await;
    answered(&node).await;
    node.signal(Signal::SIGTERM);
    let mut ring = bell.ring().await;
    ring.release().await;
    assert_eq!(ring.last_words().await, "cleaned\n");
    let (status, log) = node.ended().await;
    assert!(status.success(), "{status}: {log:#?}");
    assert!(log.iter().any(|line| line.contains("its pre-stop handler is done")), "{log:#?}");
    assert!(ring.process.is_gone());
}

#[tokio::test]
async fn a_node_in_a_hurry_kills_in_the_middle_of_a_handler() {
    for (options, signals) in [(["--drain", "60"], 2), (["--drain", "0.3"], 1)] {
        let (mut node, bell) = (TestNode::start_with(&options).await, Bell::hang().await);
        deploy(&node, &bell, json!({}), json!({ "pre_stop_timeout": 90 })).await;
        answered(&node).await;
        node.signal(Signal::SIGTERM);
        let mut ring = bell.ring().await;
        if signals == 2 {
            node.signal(Signal::SIGINT);
        }
        let (status, log) = node.ended().await;
        assert!(status.success(), "{status}: {log:#?}");
        assert!(ring.process.is_gone());
        assert_eq!(ring.last_words().await, "");
        assert!(log.iter().any(|line| line.contains("in the middle of its pre-stop handler")), "{log:#?}");
    }
}

#[tokio::test]
async fn no_kill_for_a_cancel_or_a_limit_runs_a_handler() {
    for concurrency in [1, 8] {
        let (node, bell) = (TestNode::start().await, Bell::hang().await);
        let more = json!({
            "timeout": 3, "quell": { "grace_ms": 100 },
            "strategy_config": { "concurrency": 1, "concurrent_num": concurrency },
        });
        deploy(&node, &bell, json!({}), more).await;
        for mode in [Some(Mode::Force), Some(Mode::Plain), None] {
            let request = node.invoke_async("f", &json!({ "do": "stubborn" })).await;
            let ring = bell.ring().await;
            assert_eq!(ring.facts["tag"], "handler", "{mode:?}");
            match mode {
                Some(mode) => {
                    let reply = node.cancel("f", &request, mode).await;
                    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{mode:?}");
                }
                None => assert_eq!(node.settled("f", &request).await, ("FAIL".to_owned(), 4010)),
            }
            assert!(ring.process.is_gone(), "{mode:?}");
        }
        node.send(Method::DELETE, "/v2/default/fgs/functions/f", &[], b"").await;
        if concurrency == 1 {
            until_gone(&node).await;
            node.stop().await;
            assert!(bell.is_silent().await);
        }
    }
}

#[tokio::test]
async fn a_handler_that_does_not_end_is_killed_at_its_limit_and_one_that_fails_ends_its_instance() {
    for (how, said) in [
        ("return", "its pre-stop handler did not end in time: killed"),
        ("raise", "its pre-stop handler failed"),
        ("crash", "its pre-stop handler failed"),
    ] {
        let (node, bell) = (TestNode::start_with(&["--idle", "0.2"]).await, Bell::hang().await);
        deploy(&node, &bell, json!({ "leave": how }), json!({ "pre_stop_timeout": 1 })).await;
        answered(&node).await;
        // It rings, and nobody lets it go on.
        let ring = if how == "return" { Some(bell.ring().await) } else { None };
        node.logs(said);
        until_gone(&node).await;
        assert!(ring.is_none_or(|ring| ring.process.is_gone()));
        answered(&node).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn a_runtime_that_knows_nothing_of_the_signal_is_ended_by_it() {
    let node = TestNode::start_with(&["--idle", "0.2"]).await;
    // An initializer takes the signal away again: the default of the kernel is to end.
    let source = "import signal\n\n\ndef leave(context):\n    raise SystemExit(9)\n\n\n\
                  def handler(event, context):\n    signal.signal(signal.SIGTERM, signal.SIG_DFL)\n";
    node.deploy("f", source, json!({ "pre_stop_handler": "index.leave", "pre_stop_timeout": 90 })).await;
    answered(&node).await;
    node.logs("its pre-stop handler failed");
    until_gone(&node).await;
    node.stop().await;
}

#[tokio::test]
async fn an_initializer_has_its_own_limit_and_its_failure_a_code_of_its_own() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let more = json!({
        "initializer_handler": "index.initialize", "initializer_timeout": 1, "quell": { "start_timeout_s": 900 },
    });
    deploy(&node, &bell, json!({ "initialize": "hang" }), more).await;
    let reply = within("a request", node.invoke("f", &json!({}))).await.unwrap();
    let (status, code, message) = reply.error();
    assert_eq!((status, code.as_str()), (500, "FSS.4211"), "{message}");
    assert!(message.contains("runtime initialization timed out after 1 s"), "{message}");
    until_gone(&node).await;
    let path = "/v2/default/fgs/functions/f/config";
    let json = [("Content-Type", "application/json")];
    let config = json!({
        "func_name": "f", "runtime": "Python3.10", "handler": "index.handler", "timeout": 9, "memory_size": 128,
        "user_data": json!({ "bell": bell.port.to_string(), "initialize": "raise" }).to_string(),
    });
    assert_eq!(node.send(Method::PUT, path, &json, config.to_string().as_bytes()).await.status, 200);
    let reply = within("a request", node.invoke("f", &json!({}))).await.unwrap();
    let (status, code, message) = reply.error();
    assert_eq!((status, code.as_str()), (500, "FSS.4201"), "{message}");
    assert!(message.contains("as the test asked"), "{message}");
    until_gone(&node).await;
    node.stop().await;
    assert!(bell.is_silent().await, "what never initialised has no pre-stop handler to run");
}

#[tokio::test]
async fn a_pre_stop_handler_is_part_of_the_configuration_and_of_its_versions() {
    let node = TestNode::start().await;
    let more = json!({ "pre_stop_handler": "index.leave", "pre_stop_timeout": 90 });
    node.deploy("f", SOURCE, more).await;
    let versions = "/v2/default/fgs/functions/f/versions";
    assert_eq!(node.post(versions, &json!({ "version": "one" })).await.status, 200);
    let json = [("Content-Type", "application/json")];
    let config = json!({
        "func_name": "f", "runtime": "Python3.10", "handler": "index.handler", "timeout": 9, "memory_size": 128,
        "pre_stop_timeout": 5,
    });
    let path = "/v2/default/fgs/functions/f/config";
    assert_eq!(node.send(Method::PUT, path, &json, config.to_string().as_bytes()).await.status, 200);
    for (urn, limit) in
        [("f", 5), ("default:f:one", 90), ("urn:fss:local:default:function:default:f:one", 90)]
    {
        let shown = node.get(&format!("/v2/default/fgs/functions/{urn}/config")).await;
        if shown.status == 404 {
            continue; // not a form of a URN
        }
        let shown = shown.json();
        assert_eq!(
            (&shown["pre_stop_handler"], &shown["pre_stop_timeout"]),
            (&json!("index.leave"), &json!(limit))
        );
    }
    let wrong = json!({ "pre_stop_handler": "index.nobody" });
    node.deploy("g", SOURCE, wrong).await;
    let (status, code, message) = within("a request", node.invoke("g", &json!({}))).await.unwrap().error();
    assert_eq!((status, code.as_str()), (500, "FSS.4201"), "{message}");
    assert!(message.contains("nobody"), "{message}");
    node.stop().await;
}
