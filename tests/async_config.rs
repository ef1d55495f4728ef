//! What a function says of its asynchronous requests, and the lists that show them and their cancels.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Reply, TestNode};

const PLAIN: &str = include_str!("functions/plain.py");

fn path(function: &str, rest: &str) -> String {
    format!("/v2/default/fgs/functions/{function}/{rest}")
}

async fn put(node: &TestNode, function: &str, body: &Value) -> Reply {
    let json = [("Content-Type", "application/json")];
    node.send(Method::PUT, &path(function, "async-invoke-config"), &json, body.to_string().as_bytes()).await
}

async fn show(node: &TestNode, function: &str) -> Reply {
    node.get(&path(function, "async-invoke-config")).await
}

async fn delete(node: &TestNode, function: &str) -> Reply {
    node.send(Method::DELETE, &path(function, "async-invoke-config"), &[], b"").await
}

#[tokio::test]
async fn a_configuration_is_set_shown_listed_replaced_and_removed() {
    let node = TestNode::start().await;
    for name in ["f", "g"] {
        node.deploy(name, PLAIN, json!({})).await;
    }
    assert_eq!(show(&node, "f").await.status, 404);
    assert_eq!(delete(&node, "f").await.status, 404);
    let list = async || node.get(&path("f", "async-invoke-configs")).await.json();
    assert_eq!(list().await["count"], 0);
    let destination = json!({ "destination": "FunctionGraph", "param": "{\"func_urn\":\"g\"}" });
    let body = json!({
        "max_async_event_age_in_seconds": 60, "max_async_retry_attempts": 3,
        "destination_config": { "on_failure": destination }, "enable_async_status_log": true,
        "log_group_id": "group", "unknown": [1],
    });
    let set = put(&node, "f", &body).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let shown = show(&node, "f").await.json();
    assert_eq!(shown, set.json());
    for field in ["max_async_event_age_in_seconds", "max_async_retry_attempts", "enable_async_status_log"] {
        assert_eq!(shown[field], body[field], "{shown}");
    }
    assert_eq!(shown["destination_config"], json!({ "on_success": {}, "on_failure": destination }));
    assert_eq!(shown["log_group_id"], "group");
    assert_eq!(shown["func_urn"], "urn:fss:local:default:function:default:f:latest");
    let listed = list().await;
    assert_eq!((&listed["count"], &listed["async_invoke_configs"][0]), (&json!(1), &shown));
    // The whole is replaced: what is not said is the default again.
    let replaced = put(&node, "f", &json!({})).await.json();
    assert_eq!(replaced["max_async_event_age_in_seconds"], 3_600);
    assert_eq!(replaced["destination_config"]["on_failure"], json!({}));
    assert_eq!(delete(&node, "f").await.status, 204);
    assert_eq!(show(&node, "f").await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn a_wrong_configuration_changes_nothing_and_says_what_is_wrong() {
    let node = TestNode::start().await;
    node.deploy("f", PLAIN, json!({})).await;
    let kept = put(&node, "f", &json!({ "max_async_retry_attempts": 2 })).await.json();
    let to = |kind: &str, param: &str| json!({ "destination_config": { "on_success": { "destination": kind, "param": param } } });
    for (body, word) in [
        (json!({ "max_async_retry_attempts": 4 }), "max_async_retry_attempts"),
        (json!({ "max_async_event_age_in_seconds": "60" }), "max_async_event_age_in_seconds"),
        (to("OBS", "{\"bucket\":\"b\"}"), "FunctionGraph"),
        (to("FunctionGraph", "{\"func_urn\":\"f\"}"), "its own results"),
        (to("FunctionGraph", "{\"func_urn\":\"nowhere\"}"), "nowhere"),
        (to("FunctionGraph", "nothing"), "func_urn"),
    ] {
        let (status, code, message) = put(&node, "f", &body).await.error();
        assert_eq!((status, code.as_str()), (400, "FSS.1001"), "{body}: {message}");
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(show(&node, "f").await.json(), kept);
    assert_eq!(put(&node, "nowhere", &json!({})).await.status, 404);
    let listed = node.get(&path("f", "async-invoke-configs?limit=-1")).await;
    assert_eq!(listed.status, 400, "{}", listed.text());
    node.stop().await;
}

#[tokio::test]
async fn a_configuration_outlives_a_redeploy_and_the_node_and_goes_with_its_function() {
    let mut node = TestNode::start().await;
    node.deploy("f", PLAIN, json!({})).await;
    let kept = put(&node, "f", &json!({ "max_async_retry_attempts": 0 })).await.json();
    let json = [("Content-Type", "application/json")];
    let config = json!({
        "func_name": "f", "runtime": "Python3.10", "handler": "index.large", "timeout": 9, "memory_size": 128,
    });
    let update = node.send(Method::PUT, &path("f", "config"), &json, config.to_string().as_bytes()).await;
    assert_eq!(update.status, 200, "{}", update.text());
    node.kill();
    let next = TestNode::start_in(&node.dir.clone(), &[]).await;
    assert_eq!(show(&next, "f").await.json(), kept);
    let gone = next.send(Method::DELETE, "/v2/default/fgs/functions/f", &[], b"").await;
    assert_eq!(gone.status, 204);
    next.deploy("f", PLAIN, json!({})).await;
    assert_eq!(show(&next, "f").await.status, 404);
    next.stop().await;
}

#[tokio::test]
async fn the_active_list_has_what_is_not_over_and_cancels_are_listed_by_function_and_time() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let wait = json!({ "do": "wait", "port": bell.port });
    let over = node.invoke_async("f", &wait).await;
    let _ring = bell.ring().await;
    assert_eq!(node.cancel("f", &over, Mode::Force).await.status, 200);
    let running = node.invoke_async("f", &wait).await;
    let _ring = bell.ring().await;
    let waiting = node.invoke_async("f", &wait).await;
    let active = async |query: &str| {
        let list = node.get(&path("f", &format!("active-async-invocations{query}"))).await.json();
        let rows = list["invocations"].as_array().unwrap().clone();
        rows.iter().map(|row| row["request_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(active("").await, [waiting.as_str(), running.as_str()]);
    assert_eq!(active("?status=RUNNING&query_begin_time=").await, [running.as_str()]);
    assert_eq!(active(&format!("?requests={over},{running}")).await, [running.as_str()]);
    assert_eq!(active("?limit=1&marker=1").await, [running.as_str()]);
    assert_eq!(active("?requests=none").await, [""; 0]);

    let cancels = async |query: &str| {
        let list = node.get(&format!("/quell/v1/cancels?{query}")).await.json();
        list["receipts"].as_array().unwrap().clone()
    };
    let all = cancels("function=f").await;
    assert_eq!((all.len(), &all[0]["request_id"]), (1, &json!(over)));
    let at = all[0]["cancel_id"].as_str().unwrap().to_owned();
    assert_eq!(node.get(&format!("/quell/v1/cancels/{at}")).await.json(), all[0]);
    assert_eq!(cancels("from=2000-01-01T00:00:00").await.len(), 1);
    assert_eq!(cancels("until=2000-01-01T00:00:00").await.len(), 0);
    assert_eq!(node.get("/quell/v1/cancels?from=yesterday").await.status, 400);
    node.stop().await;
}
