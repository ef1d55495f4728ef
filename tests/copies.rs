//! What a node keeps is run once: not by a copy of its data folder beside it, and not by itself once it was moved elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{path::Path, process::Output};

use serde_json::json;
use support::{Bell, TestNode, site::Site, within};

/// Starts a node that is to end by itself, and does with code 1.
async fn refused(dir: &Path) -> String {
    let mut command = TestNode::command(dir, &[]);
    let done = tokio::task::spawn_blocking(move || command.output());
    let Output { status, stderr, .. } = within("its end", done).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

async fn deploy(node: &TestNode) {
    let more = json!({ "handler": "index.handler", "memory_size": 256 });
    node.deploy("part", include_str!("functions/tree.py"), more).await;
}

#[tokio::test]
async fn a_copy_of_a_lone_nodes_folder_does_not_start_beside_it_and_ends_nothing_of_it() {
    let (folder, copy) = (TestNode::folder(), TestNode::folder());
    let node = TestNode::start_in(folder.path(), &[]).await;
    deploy(&node).await;
    let bell = Bell::hang_in_a_folder().await;
    let event = json!({ "bell": bell.path(), "tag": "one", "children": [] });
    let request = node.invoke_async("part", &event).await;
    let mut ring = bell.ring().await;
    // As somebody copies it, lock and all.
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let said = refused(copy.path()).await;
    assert!(said.contains("another node of this name runs on this machine"), "{said}");
    assert!(!ring.process.is_gone(), "it ended what the node runs");
    ring.release().await;
    assert_eq!(node.settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    node.stop().await;
}

#[tokio::test]
async fn what_was_migrated_is_run_by_the_nodes_of_the_database_and_not_from_the_folder_again() {
    let site = Site::build(1, "3");
    let dir = site.folder(0);
    let node = TestNode::start_in(dir, &[]).await;
    deploy(&node).await;
    let bell = Bell::hang_in_a_folder().await;
    let event = json!({ "bell": bell.path(), "tag": "one", "children": [] });
    let request = node.invoke_async("part", &event).await;
    let first = bell.ring().await;
    let mut node = node;
    node.kill(); // in the middle of it, so that it is owed
    let moved = site.tries(0, &["migrate", "--store", &site.database.url()]).await;
    assert!(moved.0 && moved.1.contains("1 requests"), "{moved:?}");
    let said = refused(dir).await;
    for words in ["was moved into a database", "--store", dir.join("moved").to_str().unwrap()] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let node = site.start(0, &[]).await;
    first.process.gone().await;
    let mut ring = bell.ring().await;
    ring.release().await;
    assert_eq!(node.settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    node.stop().await;
}
