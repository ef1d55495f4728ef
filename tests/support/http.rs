//! HTTP functions that the tests deploy, and what they answer.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub use super::waiting;
use super::{Reply, Ring, TestNode, base64, within, zip};

const PROBE: &[u8] = include_bytes!("../functions/http_probe.py");
pub const SHARED: usize = 8;

/// Deploys a `bootstrap` as an HTTP function.
pub async fn deploy_file(node: &TestNode, name: &str, bootstrap: &[u8], more: Value) {
    let mut change = json!({
        "runtime": "http",
        "handler": "bootstrap.http",
        "code_type": "zip",
        "func_code": { "file": base64(&zip(&[("bootstrap", bootstrap)])) },
    });
    change.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.deploy(name, "", change).await;
}

/// Deploys the probe with N requests an instance, at most so many instances, and its own settings.
pub async fn deploy(node: &TestNode, name: &str, shape: (usize, usize), settings: Value, more: Value) {
    let mut change = json!({
        "user_data": settings.to_string(),
        "strategy_config": { "concurrency": shape.1, "concurrent_num": shape.0 },
    });
    change.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    deploy_file(node, name, PROBE, change).await;
}

pub async fn call(node: &TestNode, function: &str, event: Value) -> Reply {
    within("an answer", node.invoke(function, &event)).await.unwrap()
}

/// The body of a result that is JSON.
pub fn body(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text());
    serde_json::from_str(reply.json()["body"].as_str().unwrap()).unwrap()
}

pub async fn all_finish(answers: HashMap<String, JoinHandle<Reply>>, rings: &mut HashMap<String, Ring>) {
    for ring in rings.values_mut() {
        assert!(!ring.process.is_gone());
        ring.release().await;
    }
    for (tag, answer) in answers {
        let reply = within(&tag, answer).await.unwrap();
        let said = body(&reply);
        assert_eq!((&said["tag"], &said["request"]), (&json!(tag), &json!(rings[&tag].request())));
    }
}
