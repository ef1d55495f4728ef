//! What nodes of one store must have each for itself, and what all alike: a name is one node's, whatever becomes of its data folder,
//! and the length of a lease is everybody's.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{
    io::{BufRead as _, BufReader},
    process::Output,
};

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
    // These machines have the cgroups of one, and there no two nodes may have one name: this one has none.
    let mut node = site.start(0, &["--isolation", "subreaper"]).await;
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

/// Starts a node, and ends it when it has logged these words.
async fn said_at_its_start(site: &Site, machine: usize, words: &'static str) -> String {
    let mut node = site.command(machine, &[]).spawn().unwrap();
    let lines = BufReader::new(node.stderr.take().unwrap()).lines();
    let found = tokio::task::spawn_blocking(move || {
        lines
            .map_while(Result::ok)
            .take_while(|line| !line.contains("listening on "))
            .find(|line| line.contains(words))
    });
    let found = within("its log", found).await.unwrap();
    node.kill().unwrap();
    node.wait().unwrap();
    found.unwrap_or_else(|| panic!("it did not say {words:?} before it served"))
}

async fn told_by_nodes(site: &Site) -> String {
    let mut command = TestNode::client_command(site.folder(0), &["nodes"]);
    let done =
        within("quell nodes", tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap();
    assert!(done.status.success());
    String::from_utf8_lossy(&done.stderr).into_owned()
}

#[tokio::test]
async fn a_node_with_another_lease_than_the_others_says_so_and_whoever_looks_is_told() {
    let mut site = Site::build(3, "60");
    let first = site.start(0, &[]).await;
    let second = site.start(1, &[]).await;
    assert_eq!(told_by_nodes(&site).await, "", "all have the same");
    site.lease = "20";
    let said = said_at_its_start(&site, 2, "another lease_s").await;
    for words in ["lease_s=60", "own_lease_s=20"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!([&first, &second].iter().any(|node| said.contains(&node.endpoint)), "{said}");
    let third = site.start(2, &[]).await;
    let told = told_by_nodes(&site).await;
    let both = [
        format!("60 s on {}, {}", first.endpoint, second.endpoint),
        format!("60 s on {}, {}", second.endpoint, first.endpoint),
    ];
    assert!(told.contains("lease_s differs") && both.iter().any(|words| told.contains(words)), "{told}");
    assert!(told.contains(&format!("20 s on {}", third.endpoint)), "{told}");
    for node in [first, second, third] {
        node.stop().await;
    }
}
