//! Reserved instances: there without work, replaced when they end, gone when they are released.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

mod support;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Reply, TestNode, within};

const PLAIN: &str = "def handler(event, context):\n    return event\n";
const BROKEN: &str = "raise ValueError('as the test asked')\n";
/// Between two looks at something that nothing tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

async fn reserve(node: &TestNode, function: &str, body: &Value) -> Reply {
    let path = format!("/v2/default/fgs/functions/{function}/reservedinstances");
    let json = [("Content-Type", "application/json")];
    node.send(Method::PUT, &path, &json, body.to_string().as_bytes()).await
}

/// The ready instances of a function.
async fn ready(node: &TestNode, function: &str) -> HashSet<String> {
    let function = format!("default:{function}");
    let view = node.view().await;
    let rows = view["instances"].as_array().unwrap().iter();
    let rows = rows.filter(|row| row["function"] == json!(function) && row["state"] == "ready");
    rows.map(|row| row["instance"].as_str().unwrap().to_owned()).collect()
}

/// Waits until a look at the node's instances of a function is as it should be.
async fn until(node: &TestNode, function: &str, fits: impl Fn(&HashSet<String>) -> bool) -> HashSet<String> {
    within("the instances", async {
        loop {
            let now = ready(node, function).await;
            if fits(&now) {
                return now;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await
}

#[tokio::test]
async fn reserved_instances_are_there_without_work_outlive_the_idle_limit_and_the_node_and_are_released() {
    let mut node = TestNode::start_with(&["--idle", "0.2"]).await;
    node.deploy("f", PLAIN, json!({})).await;
    let reply = reserve(&node, "f", &json!({ "count": 2, "idle_mode": false, "tactics_config": {} })).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json(), json!({ "count": 2, "idle_mode": false, "tactics_config": {} }));
    let first = until(&node, "f", |now| now.len() == 2).await;
    // A third comes with work for it and goes by the idle limit: the reserved ones have outlived it then.
    node.deploy("g", PLAIN, json!({})).await;
    assert_eq!(within("a request", node.invoke("g", &json!({}))).await.unwrap().status, 200);
    until(&node, "g", HashSet::is_empty).await;
    assert_eq!(ready(&node, "f").await, first);
    // Another configuration is another revision: its instances take the place of the old ones.
    let json = [("Content-Type", "application/json")];
    let config = json!({
        "func_name": "f", "runtime": "Python3.10", "handler": "index.handler", "timeout": 9, "memory_size": 256,
    });
    let path = "/v2/default/fgs/functions/f/config";
    assert_eq!(node.send(Method::PUT, path, &json, config.to_string().as_bytes()).await.status, 200);
    let second = until(&node, "f", |now| now.len() == 2 && now.is_disjoint(&first)).await;
    assert_eq!(second.len(), 2);
    node.kill();
    let next = TestNode::start_in(&node.dir.clone(), &["--idle", "0.2"]).await;
    until(&next, "f", |now| now.len() == 2).await;
    let listed = next.get("/v2/default/fgs/functions/reservedinstances").await.json();
    assert_eq!(listed["count"], 1);
    assert_eq!(listed["page_info"], json!({ "next_marker": 0, "previous_marker": 0, "current_count": 1 }));
    let urn = listed["reservedinstances"][0]["func_urn"].as_str().unwrap().to_owned();
    assert!(urn.ends_with(":function:default:f:latest"), "{urn}");
    assert_eq!(listed["reservedinstances"][0]["count"], 2);
    let configs = format!("/v2/default/fgs/functions/reservedinstanceconfigs?function_urn={urn}&limit=1");
    let configs = next.get(&configs).await.json();
    assert_eq!(
        configs["reserved_instances"],
        json!([{
            "function_urn": urn, "qualifier_type": "version", "qualifier_name": "latest", "min_count": 2,
            "idle_mode": false, "tactics_config": {},
        }])
    );
    assert_eq!(reserve(&next, "f", &json!({ "count": 0 })).await.status, 200);
    until(&next, "f", HashSet::is_empty).await;
    assert_eq!(next.get("/v2/default/fgs/functions/reservedinstances").await.json()["count"], 0);
    next.stop().await;
}

#[tokio::test]
async fn a_cancel_that_kills_a_reserved_instance_brings_a_new_one() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    assert_eq!(reserve(&node, "f", &json!({ "count": 1 })).await.status, 200);
    let first = until(&node, "f", |now| now.len() == 1).await;
    let request = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
    let _ring = bell.ring().await;
    assert_eq!(ready(&node, "f").await, first, "the reserved instance took it");
    assert_eq!(node.cancel("f", &request, Mode::Force).await.header("x-quell-stop"), "stopped");
    until(&node, "f", |now| now.len() == 1 && now.is_disjoint(&first)).await;
    // Deleted, nothing is kept for it.
    assert_eq!(node.send(Method::DELETE, "/v2/default/fgs/functions/f", &[], b"").await.status, 204);
    until(&node, "f", HashSet::is_empty).await;
    node.stop().await;
}

#[tokio::test]
async fn a_reserved_instance_that_falls_over_is_replaced() {
    let node = TestNode::start().await;
    let source = "import os\n\n\ndef handler(event, context):\n    os._exit(3)\n";
    node.deploy("f", source, json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } })).await;
    assert_eq!(reserve(&node, "f", &json!({ "count": 1 })).await.status, 200);
    let mut before = until(&node, "f", |now| now.len() == 1).await;
    for _ in 0..2 {
        let reply = within("a request", node.invoke("f", &json!({}))).await.unwrap();
        assert_eq!(reply.error().1, "FSS.4204");
        before = until(&node, "f", |now| now.len() == 1 && now.is_disjoint(&before)).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_function_that_cannot_start_or_falls_over_is_not_started_without_end() {
    let node = TestNode::start().await;
    node.deploy("broken", BROKEN, json!({})).await;
    node.deploy("f", PLAIN, json!({})).await;
    assert_eq!(reserve(&node, "broken", &json!({ "count": 1 })).await.status, 200);
    assert_eq!(reserve(&node, "f", &json!({ "count": 1 })).await.status, 200);
    until(&node, "f", |now| now.len() == 1).await;
    // Instances are numbered in order: how many were started is told by the number of a new one.
    let number = async |function: &str| {
        node.deploy(function, PLAIN, json!({})).await;
        assert_eq!(within("a request", node.invoke(function, &json!({}))).await.unwrap().status, 200);
        let one = ready(&node, function).await.into_iter().next().unwrap();
        one.trim_start_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap()
    };
    let since = Instant::now();
    let before = number("g").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = number("h").await;
    // The pauses are 1, 2, 4 s and so on: however long this took, that is a logarithm of it.
    let started = since.elapsed().as_secs_f64().log2() + 2.0;
    assert!(((after - before - 1) as f64) <= started, "{before} to {after}, at most {started}");
    // A revision that can start does so at once, whatever pause the old one had earned.
    let json = [("Content-Type", "application/json")];
    let code = json!({ "code_type": "inline", "func_code": { "file": support::base64(PLAIN.as_bytes()) } });
    let path = "/v2/default/fgs/functions/broken/code";
    assert_eq!(node.send(Method::PUT, path, &json, code.to_string().as_bytes()).await.status, 200);
    until(&node, "broken", |now| now.len() == 1).await;
    node.stop().await;
}

#[tokio::test]
async fn each_version_has_reserved_instances_of_its_own_and_an_alias_has_none() {
    let node = TestNode::start().await;
    node.deploy("f", PLAIN, json!({})).await;
    assert_eq!(reserve(&node, "f", &json!({ "count": 1 })).await.status, 200);
    let publish = |version: &str| json!({ "version": version });
    let path = "/v2/default/fgs/functions/f/versions";
    assert_eq!(node.post(path, &publish("v1")).await.status, 200);
    let configs = async || {
        let configs = node.get("/v2/default/fgs/functions/reservedinstanceconfigs").await.json();
        let rows = configs["reserved_instances"].as_array().unwrap().clone();
        rows.iter().map(|row| (row["qualifier_name"].clone(), row["min_count"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(configs().await, [(json!("latest"), json!(1))], "a version is published without any");
    assert_eq!(reserve(&node, "default:f:v1", &json!({ "count": 2 })).await.status, 404, "a project's");
    assert_eq!(reserve(&node, "default:default:f:v1", &json!({ "count": 2 })).await.status, 200);
    assert_eq!(configs().await, [(json!("latest"), json!(1)), (json!("v1"), json!(2))]);
    let again = node.post(path, &publish("v2")).await;
    assert_eq!(again.error().1, "FSS.1016", "what is reserved is no change of the function");
    let alias = json!({ "name": "live", "version": "v1" });
    assert_eq!(node.post("/v2/default/fgs/functions/f/aliases", &alias).await.status, 200);
    assert_eq!(reserve(&node, "default:default:f:!live", &json!({ "count": 1 })).await.error().1, "FSS.1014");
    within("the instances", async {
        while node.get("/v2/default/fgs/functions/reservedinstances").await.json()["reservedinstances"][1]
            ["count"]
            != 2
        {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn more_than_the_function_or_the_node_may_have_is_refused_and_changes_nothing() {
    let node = TestNode::start_with(&["--max-instances", "4"]).await;
    node.deploy("f", PLAIN, json!({ "strategy_config": { "concurrency": 2, "concurrent_num": 1 } })).await;
    node.deploy("g", PLAIN, json!({})).await;
    let cron = json!({ "cron_configs": [{ "name": "a", "cron": "0 1 * * * *", "count": 1 }] });
    assert_eq!(reserve(&node, "f", &json!({ "count": 1 })).await.status, 200);
    for (function, body, code, word) in [
        ("f", json!({ "count": 3 }), "FSS.1026", "that the function may have"),
        ("g", json!({ "count": 4 }), "FSS.1026", "of which 1 are reserved"),
        ("f", json!({ "count": -1 }), "FSS.0400", "count"),
        ("f", json!({ "count": 1, "idle_mode": true }), "FSS.0400", "not supported"),
        ("f", json!({ "count": 1, "tactics_config": cron }), "FSS.0400", "not supported"),
    ] {
        let (status, got, message) = reserve(&node, function, &body).await.error();
        assert_eq!((status, got.as_str()), (400, code), "{body}: {message}");
        assert!(message.contains(word), "{body}: {message}");
    }
    assert_eq!(reserve(&node, "nowhere", &json!({ "count": 1 })).await.error().1, "FSS.1051");
    let configs = node.get("/v2/default/fgs/functions/reservedinstanceconfigs").await.json();
    assert_eq!((&configs["count"], &configs["reserved_instances"][0]["min_count"]), (&json!(1), &json!(1)));
    for wrong in ["reservedinstances?limit=-1", "reservedinstanceconfigs?marker=x"] {
        let reply = node.get(&format!("/v2/default/fgs/functions/{wrong}")).await;
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.text());
    }
    node.stop().await;
}

#[tokio::test]
async fn whoever_found_no_room_to_start_gets_it_when_another_has_started() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    // Twice the cores, and at least four, start at once.
    let at_once = (2 * std::thread::available_parallelism().unwrap().get()).max(4);
    let user_data = json!({ "port": bell.port.to_string() }).to_string();
    for function in 0..=at_once {
        let source = include_str!("functions/slow_start.py");
        let name = format!("f{function}");
        node.deploy(&name, source, json!({ "user_data": user_data })).await;
        // Half of them have work, half are reserved: all want an instance.
        match function % 2 {
            0 => drop(node.invoke_async(&name, &json!({})).await),
            _ => assert_eq!(reserve(&node, &name, &json!({ "count": 1 })).await.status, 200),
        }
    }
    let mut starting = Vec::new();
    for _ in 0..at_once {
        starting.push(bell.ring().await);
    }
    assert!(bell.is_silent().await, "no more than so many start at once");
    starting[0].release().await;
    let mut last = bell.ring().await;
    last.release().await;
    for ring in &mut starting[1..] {
        ring.release().await;
    }
    for function in 0..=at_once {
        until(&node, &format!("f{function}"), |now| now.len() == 1).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_full_node_makes_room_with_what_becomes_idle_for_who_waits_already() {
    let (node, bell) = (TestNode::start_with(&["--max-instances", "1"]).await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    node.deploy("g", PLAIN, json!({})).await;
    let busy = node.invoke("f", &json!({ "do": "wait", "port": bell.port, "tag": "busy" }));
    let mut ring = bell.ring().await;
    let waits = node.invoke("g", &json!({}));
    within("it waits", async {
        while node.view().await["requests"].as_array().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    ring.release().await;
    assert_eq!(within("the first", busy).await.unwrap().status, 200);
    let reply = within("the one that waits", waits).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    node.stop().await;
}

#[tokio::test]
async fn a_full_node_makes_room_with_others_and_not_with_reserved_instances() {
    let node = TestNode::start_with(&["--max-instances", "2"]).await;
    for function in ["f", "g", "h"] {
        node.deploy(function, PLAIN, json!({})).await;
    }
    assert_eq!(reserve(&node, "f", &json!({ "count": 1 })).await.status, 200);
    let kept = until(&node, "f", |now| now.len() == 1).await;
    for function in ["g", "h", "g"] {
        // The reserved one has been idle longest each time.
        assert_eq!(within("a request", node.invoke(function, &json!({}))).await.unwrap().status, 200);
        assert_eq!(ready(&node, "f").await, kept, "{function}");
    }
    node.stop().await;
}
