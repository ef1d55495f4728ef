//! Requests of the function that is a part of a tree, spread over nodes.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Bell, LOOK_AGAIN, Ring, TestNode, within};

pub fn leaf(bell: &Bell, tag: &str) -> Value {
    json!({ "bell": bell.path(), "tag": tag, "children": [] })
}

/// A chain of three, each a child of the one before, that no one waits for.
pub fn chain(bell: &Bell) -> Value {
    let child = |event| json!([{ "function": "part", "sync": false, "event": event }]);
    let middle = json!({ "bell": bell.path(), "tag": "middle", "children": child(leaf(bell, "leaf")) });
    json!({ "bell": bell.path(), "tag": "root", "children": child(middle) })
}

/// A request that waits for a synchronous one, both on the node that is asked.
pub fn waiting_parent(bell: &Bell) -> Value {
    let child = json!([{ "function": "part", "sync": true, "event": leaf(bell, "child") }]);
    json!({ "bell": bell.path(), "tag": "parent", "children": child })
}

/// Which node has which request of a chain, by tag; and their rings.
pub async fn spread(nodes: &[TestNode], bell: &Bell) -> (String, HashMap<String, Ring>) {
    let root = nodes[0].invoke_async("part", &chain(bell)).await;
    let rings = bell.rings(3).await;
    let owners: Vec<String> =
        serde_json::from_value::<Vec<Value>>(nodes[0].get("/quell/v1/nodes").await.json()["nodes"].clone())
            .unwrap()
            .iter()
            .filter(|node| node["owns"] == json!(1))
            .map(|node| node["node"].to_string())
            .collect();
    assert_eq!(owners.len(), 3, "each of the three nodes has one of the three");
    (root, rings)
}

/// Waits until it is written down that it runs: a node that is stopped in the middle of that holds the rows.
pub async fn written_down(nodes: &[TestNode], request: &str) {
    within("it is listed as running", async {
        while nodes[1].listed("part", request).await.0 != "RUNNING" {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
}

/// A receipt in its last form, which is written after the answer.
pub async fn closed(nodes: &[TestNode], cancel: &str) -> Value {
    within("the last form of the receipt", async {
        loop {
            let receipt = nodes[2].receipt(cancel).await;
            if !receipt["closed_ms"].is_null() {
                return receipt;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await
}
