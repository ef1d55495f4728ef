//! A name is one node's: what becomes of a data folder that was copied.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::process::Output;

use serde_json::{Value, json};
use support::{Bell, TestNode, site::Site, within};

const LEASE_S: &str = "3";

async fn deploy(node: &TestNode) {
    let more = json!({ "handler": "index.handler", "memory_size": 256 });
    node.deploy("part", include_str!("functions/tree.py"), more).await;
}

fn leaf(bell: &Bell) -> Value {
    json!({ "bell": bell.path(), "tag": "one", "children": [] })
}

/// The folder of one machine, as somebody copies it to another.
fn copy_folder(site: &Site, from: usize, to: usize) {
    for file in ["node", "lock", "client.json"] {
        std::fs::copy(site.folder(from).join(file), site.folder(to).join(file)).unwrap();
    }
}

/// Starts a node that is to end by itself.
async fn ends(site: &Site, machine: usize) -> Output {
    let mut command = site.command(machine, &[]);
    let done = tokio::task::spawn_blocking(move || command.output());
    within("its end", done).await.unwrap().unwrap()
}

async fn nodes_by(node: &TestNode) -> Vec<Value> {
    node.get("/quell/v1/nodes").await.json()["nodes"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_copy_of_a_data_folder_does_not_start_beside_its_node_and_says_what_to_do() {
    let site = Site::build(2, LEASE_S);
    let node = site.start(0, &[]).await;
    deploy(&node).await;
    let bell = Bell::hang_in_a_folder().await;
    let request = node.invoke_async("part", &leaf(&bell)).await;
    let mut ring = bell.ring().await;
    copy_folder(&site, 0, 1);
    let done = ends(&site, 1).await;
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    let file = site.folder(1).join("node");
    for words in [node.endpoint.as_str(), "is a copy of the other", file.to_str().unwrap()] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(
        !ring.process.is_gone(),
        "it ended what the node runs, which has the same name on the same machine"
    );
    let rows = nodes_by(&node).await;
    assert_eq!(
        (rows.len(), &rows[0]["epoch"], &rows[0]["state"]),
        (1, &json!(1), &json!("live")),
        "{rows:#?}"
    );
    ring.release().await;
    assert_eq!(node.settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    // What it said to do is what helps.
    std::fs::remove_file(file).unwrap();
    let other = site.start(1, &[]).await;
    assert_eq!(nodes_by(&other).await.len(), 2);
    other.stop().await;
    node.stop().await;
}

#[tokio::test]
async fn a_node_whose_name_another_took_while_it_was_cut_off_ends_and_leaves_it_alone() {
    let site = Site::build(2, LEASE_S);
    let mut node = site.start(0, &[]).await;
    deploy(&node).await;
    copy_folder(&site, 0, 1);
    site.cut(0);
    node.logs("every instance was reaped");
    // It waits for the end of the lease: whoever has the name says nothing any more.
    let other = site.start(1, &[]).await;
    let bell = Bell::hang_in_a_folder().await;
    let request = other.invoke_async("part", &leaf(&bell)).await;
    let mut ring = bell.ring().await;
    site.mend(0);
    let (status, said) = node.ended().await;
    assert_eq!(status.code(), Some(1), "{said:#?}");
    let told =
        said.iter().any(|line| line.contains("is a copy of the other") && line.contains(&other.endpoint));
    assert!(told, "{said:#?}");
    let rows = nodes_by(&other).await;
    assert_eq!((rows.len(), &rows[0]["state"]), (1, &json!("live")), "{rows:#?}");
    assert_eq!(rows[0]["endpoint"], json!(other.endpoint), "{rows:#?}");
    assert!(!ring.process.is_gone(), "it ended what the other one runs");
    ring.release().await;
    assert_eq!(other.settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    other.stop().await;
}
