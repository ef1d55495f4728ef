//! Three nodes that are exchanged one by one for those of another version, while requests come and run.
//!
//! There is one version. What a newer program changes for those beside it are the tables: the step that it would make is
//! made here, under nodes that run.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{collections::HashMap, os::unix::fs::PermissionsExt as _, path::PathBuf};

use nix::sys::signal::Signal;
use serde_json::json;
use support::{
    Mode, TestNode,
    load::Load,
    parts::spread,
    postgres::Postgres,
    site::{ONE_EACH, known, three_with},
};

const NEXT_VERSION: &str = include_str!("../crates/store/tests/shared/next_version.sql");
/// Says in a file that it runs, each time.
const NOTES: &str = "
import os

def handler(event, context):
    file = os.open(event['file'], os.O_WRONLY | os.O_APPEND)
    os.write(file, (context.getRequestID() + '\\n').encode())
    os.close(file)
";

/// A file that functions of every node write to; it goes with the test.
struct Notes(PathBuf);

impl Notes {
    fn new() -> Self {
        // Where every user may pass, and not an instance's own as `/tmp` is.
        let path = PathBuf::from(format!("/var/tmp/quell-notes-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        Self(path)
    }

    /// How often each request has run.
    fn runs(&self) -> HashMap<String, u32> {
        let mut runs = HashMap::new();
        for id in std::fs::read_to_string(&self.0).unwrap().lines() {
            *runs.entry(id.to_owned()).or_default() += 1;
        }
        runs
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0)); // gone already is as well
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn three_nodes_are_exchanged_one_by_one_and_every_request_runs_once() {
    // So long that no lease is lost on a busy machine: what a lost one had would run again.
    let (site, mut nodes, bell) = three_with("120").await;
    nodes[0].deploy("notes", NOTES, json!({})).await;
    known(&nodes, "notes").await;
    let notes = Notes::new();
    let mut load = Load::begin(&nodes, "notes", &json!({ "file": notes.0 }));
    load.more(20).await;
    site.database.ask(NEXT_VERSION);
    load.more(20).await;
    for (at, node) in nodes.iter_mut().enumerate() {
        node.signal(Signal::SIGTERM);
        let (status, log) = node.ended().await;
        assert!(status.success(), "{status}: {log:#?}");
        load.more(10).await;
        *node = site.start(at, &ONE_EACH).await;
        load.more(10).await;
    }
    let accepted = load.end().await;
    assert!(accepted.len() >= 100, "{}", accepted.len());
    for id in &accepted {
        assert_eq!(nodes[0].settled("notes", id).await, ("SUCCESS".to_owned(), 0), "accepted: {id}");
    }
    let runs = notes.runs();
    let twice: Vec<_> = runs.iter().filter(|(_, runs)| **runs != 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
    assert!(accepted.iter().all(|id| runs.contains_key(id)), "what was accepted ran");
    // And a tree over all of them is stopped as ever.
    let (root, rings) = spread(&nodes, &bell).await;
    let reply = nodes[2].cancel("part", &root, Mode::Both).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(rings.values().all(|ring| ring.process.is_gone()), "everything is stopped when that is said");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_node_that_is_two_versions_behind_its_database_does_not_start_and_says_why() {
    let database = Postgres::start("127.0.0.1");
    let data = TestNode::folder();
    let url = database.url();
    TestNode::start_in(data.path(), &["--store", &url]).await.stop().await;
    database.ask(NEXT_VERSION);
    TestNode::start_in(data.path(), &["--store", &url]).await.stop().await;
    database.ask(NEXT_VERSION);
    let refused = TestNode::command(data.path(), &["--store", &url]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("use the newer program"), "{said}");
}
