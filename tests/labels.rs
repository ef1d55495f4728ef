//! What callers say of requests is kept with them, shown wherever they are, and searched by.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, TestNode, within};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Accepts a labelled request; returns its id.
async fn invoke(node: &TestNode, labels: &str, event: &Value) -> String {
    let headers = [JSON, ("X-Quell-Labels", labels)];
    let path = "/v2/default/fgs/functions/f/invocations-async";
    let reply = node.send(Method::POST, path, &headers, event.to_string().as_bytes()).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.json()["request_id"].as_str().unwrap().to_owned()
}

async fn labels_of(node: &TestNode, request: &str) -> Value {
    node.get(&format!("/quell/v1/requests/{request}")).await.json()["labels"].clone()
}

#[tokio::test]
async fn labels_are_shown_wherever_a_request_is_and_its_children_have_their_own() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 2, json!({})).await;
    let child = json!({ "do": "wait", "port": bell.port, "tag": "child" });
    let event = json!({ "do": "wait", "port": bell.port, "tag": "parent", "children": [child] });
    let request = invoke(&node, "team=x, run=7", &event).await;
    let rings = bell.rings(2).await;
    let mine = json!({ "run": "7", "team": "x" });
    assert_eq!(labels_of(&node, &request).await, mine);
    let tree = node.tree(&request).await;
    assert_eq!(tree[&request]["labels"], mine);
    let child = rings["child"].request();
    assert_eq!(tree[&child]["labels"], Value::Null, "its parent's say nothing of it");
    let view = node.view().await;
    let row = view["requests"].as_array().unwrap().iter().find(|row| row["request_id"] == json!(request));
    assert_eq!(row.unwrap()["labels"], mine);
    let reply = node.cancel("f", &request, Mode::Recursive).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let receipt = node.receipt(reply.header("x-quell-cancel-id")).await;
    let rows = receipt["requests"].as_array().unwrap();
    let labels = |id: &str| rows.iter().find(|row| row["request_id"] == json!(id)).unwrap()["labels"].clone();
    assert_eq!((labels(&request), labels(&child)), (mine.clone(), Value::Null));
    assert_eq!(labels_of(&node, &request).await, mine, "and when it is over");
    node.stop().await;
}

#[tokio::test]
async fn labels_outlive_the_node_and_lists_are_narrowed_by_them() {
    let (data, bell) = (TestNode::folder(), Bell::hang().await);
    let mut node = TestNode::start_in(data.path(), &[]).await;
    node.deploy_probe("f", 1, 1, json!({})).await;
    let event = json!({ "do": "wait", "port": bell.port });
    let first = invoke(&node, "team=x,tier=1", &event).await;
    let second = invoke(&node, "team=x,tier=2", &event).await;
    let third = invoke(&node, "", &event).await;
    drop(bell.ring().await);
    node.kill();
    let node = TestNode::start_in(data.path(), &[]).await;
    assert_eq!(labels_of(&node, &second).await, json!({ "team": "x", "tier": "2" }));
    for (labels, found) in [
        ("", vec![&third, &second, &first]),
        ("team=x", vec![&second, &first]),
        ("tier=1,team=x", vec![&first]),
        ("team=y", vec![]),
    ] {
        let path = format!("/v2/default/fgs/functions/f/async-invocations?labels={labels}");
        let list = within("a list", node.get(&path)).await.json();
        let rows = list["invocations"].as_array().unwrap();
        let ids: Vec<&str> = rows.iter().map(|row| row["request_id"].as_str().unwrap()).collect();
        assert_eq!(ids, found, "{labels:?}");
    }
    for request in [&first, &second, &third] {
        assert_eq!(node.cancel("f", request, Mode::Force).await.status, 200);
    }
    node.stop().await;
}

#[tokio::test]
async fn labels_that_cannot_be_are_refused_and_nothing_runs() {
    let node = TestNode::start().await;
    node.deploy_probe("f", 1, 1, json!({})).await;
    for (labels, said) in [("team", "name=value"), ("team=x,team=y", "twice"), ("a b=c", "letters")] {
        for verb in ["invocations", "invocations-async"] {
            let path = format!("/v2/default/fgs/functions/f/{verb}");
            let reply = node.send(Method::POST, &path, &[JSON, ("X-Quell-Labels", labels)], b"{}").await;
            let (status, code, message) = reply.error();
            assert_eq!((status, code.as_str()), (400, "FSS.0400"), "{message}");
            assert!(message.contains("X-Quell-Labels") && message.contains(said), "{message}");
        }
    }
    let list = node.get("/v2/default/fgs/functions/f/async-invocations").await.json();
    assert_eq!(list["count"], 0, "{list}");
    assert_eq!(node.view().await["live"], 0);
    node.stop().await;
}
