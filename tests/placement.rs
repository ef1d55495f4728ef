//! Functions that ask for labels of their node: they run where those are, wait where they are not, and nothing is stuck on a
//! node that may not run it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use support::{Bell, Mode, TestNode, postgres::Postgres, within};
use tempfile::TempDir;

/// Between two looks at something that nothing tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Three data folders and their database.
struct Shared {
    database: Postgres,
    folders: [TempDir; 3],
    lease: &'static str,
}

impl Shared {
    fn build(lease: &'static str) -> Self {
        let folders = std::array::from_fn(|_| TestNode::folder());
        Self { database: Postgres::start("127.0.0.1"), folders, lease }
    }

    /// Starts the node of a folder, or starts it again, with these labels.
    async fn node(&self, number: usize, labels: &str) -> TestNode {
        let url = self.database.url();
        let mut options = vec!["--store", &url, "--lease", self.lease];
        if !labels.is_empty() {
            options.extend(["--node-labels", labels]);
        }
        TestNode::start_in(self.folders[number].path(), &options).await
    }

    fn name(&self, number: usize) -> String {
        let name = std::fs::read_to_string(self.folders[number].path().join("node")).unwrap();
        name.trim().to_owned()
    }
}

/// Deploys `part`, which asks for these, and waits until every node knows it.
async fn deploy(nodes: &[&TestNode], labels: &[&str]) {
    let more = json!({ "memory_size": 256, "quell": { "node_labels": labels, "grace_ms": 20_000 } });
    nodes[0].deploy("part", include_str!("functions/tree.py"), more).await;
    for node in nodes {
        within("the function on every node", async {
            let nobody = "00000000-0000-4000-8000-000000000000";
            while node.cancel("part", nobody, Mode::Plain).await.status != 400 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        })
        .await;
    }
}

fn leaf(bell: &Bell, tag: &str) -> Value {
    json!({ "bell": bell.path(), "tag": tag, "children": [] })
}

/// Which node has requests that are not over, as another one sees it.
async fn owners(node: &TestNode) -> Vec<String> {
    let all = node.get("/quell/v1/nodes").await.json();
    let rows = all["nodes"].as_array().unwrap().clone();
    let owns = rows.iter().filter(|row| row["owns"].as_u64().unwrap() > 0);
    owns.map(|row| row["node"].as_str().unwrap().to_owned()).collect()
}

async fn quell(dir: &Path, args: &[&str]) -> String {
    let mut command = TestNode::client_command(dir, args);
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test]
async fn a_request_waits_for_a_node_with_its_labels_and_a_caller_is_told_which_nodes_have_them() {
    let shared = Shared::build("3");
    let (plain, fast, later) =
        (shared.node(0, "").await, shared.node(1, "fast").await, shared.node(2, "").await);
    deploy(&[&plain, &fast, &later], &["gpu", "fast"]).await;
    let bell = Bell::hang_in_a_folder().await;
    let request = plain.invoke_async("part", &leaf(&bell, "asked")).await;
    for node in [&plain, &fast] {
        let row = node.tree(&request).await[&request].clone();
        assert_eq!(row["state"], "queued", "{row}");
        assert_eq!(row["waits_for"], json!({ "node_labels": ["fast", "gpu"], "live_nodes": 0 }), "{row}");
        let refused = within("a refusal", node.invoke("part", &leaf(&bell, "sync"))).await.unwrap();
        let (status, code, message) = refused.error();
        assert_eq!((status, code.as_str()), (503, "FSS.0503"), "{message}");
        assert!(message.contains("fast, gpu") && message.contains("no live node has them"), "{message}");
    }
    assert!(quell(shared.folders[0].path(), &["tree", &request]).await.contains("needs fast,gpu (no node)"));
    fast.logs("no live node has the labels it asks for");
    assert_eq!(owners(&plain).await, [""; 0], "nobody took what nobody may run");

    later.stop().await;
    let later = shared.node(2, "gpu,fast").await;
    let ring = bell.ring().await;
    assert_eq!(ring.facts["request"].as_str(), Some(&*request));
    assert_eq!(owners(&plain).await, [shared.name(2)]);
    let refused = within("a refusal", plain.invoke("part", &leaf(&bell, "sync"))).await.unwrap();
    let (status, _, message) = refused.error();
    assert!(
        status == 503 && message.contains(&shared.name(2)) && !message.contains(&shared.name(1)),
        "{message}"
    );
    let served = later.invoke("part", &leaf(&bell, "sync"));
    let mut waits = bell.ring().await;
    waits.release().await;
    assert_eq!(within("its result", served).await.unwrap().status, 200);

    let shown = quell(shared.folders[0].path(), &["nodes"]).await;
    let line = shown.lines().find(|line| line.starts_with(&shared.name(2))).unwrap();
    assert!(line.ends_with("fast, gpu"), "{shown}");
    let reply = plain.cancel("part", &request, Mode::Both).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(ring.process.is_gone());
}

#[tokio::test]
async fn what_a_node_has_and_may_not_run_any_more_goes_to_one_that_may() {
    // Nobody takes the work of a node over within this test: what moves was given back.
    let shared = Shared::build("60");
    let (plain, mut first, second) =
        (shared.node(0, "").await, shared.node(1, "gpu").await, shared.node(2, "gpu").await);
    deploy(&[&plain, &first, &second], &["gpu"]).await;
    let bell = Bell::hang_in_a_folder().await;
    let request = first.invoke_async("part", &leaf(&bell, "asked")).await;
    let _here = bell.ring().await;
    assert_eq!(owners(&plain).await, [shared.name(1)], "the node that was asked has room and the labels");
    first.kill();
    // Its next life has no labels.
    let _first = shared.node(1, "").await;
    let mut there = bell.ring().await;
    assert_eq!(there.facts["request"].as_str(), Some(&*request));
    assert_eq!(owners(&plain).await, [shared.name(2)]);
    // The function asks for something else while it runs: what runs goes on, what is new waits.
    let path = "/v2/default/fgs/functions/part/config";
    let body = json!({ "runtime": "Python3.10", "handler": "index.handler", "timeout": 120, "memory_size": 256,
                       "quell": { "node_labels": ["none"] } });
    let json = [("Content-Type", "application/json")];
    let changed = plain.send(reqwest::Method::PUT, path, &json, body.to_string().as_bytes()).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    let waits = plain.invoke_async("part", &leaf(&bell, "waits")).await;
    assert_eq!(plain.tree(&waits).await[&waits]["waits_for"]["node_labels"], json!(["none"]));
    there.release().await;
    assert_eq!(second.settled("part", &request).await.0, "SUCCESS");
    assert_eq!(owners(&plain).await, [""; 0]);
    let reply = second.cancel("part", &waits, Mode::Plain).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
}

#[tokio::test]
async fn a_lone_node_refuses_a_function_that_asks_for_labels_which_it_does_not_have() {
    let data = TestNode::folder();
    let bell = Bell::hang_in_a_folder().await;
    let mut node =
        TestNode::start_in(data.path(), &["--node-labels", "gpu", "--node-labels", "zone=a"]).await;
    deploy(&[&node], &["zone=a"]).await;
    let request = node.invoke_async("part", &leaf(&bell, "asked")).await;
    let _ring = bell.ring().await;
    node.kill();
    let node = TestNode::start_in(data.path(), &[]).await;
    let body = json!({ "func_name": "other", "package": "default", "runtime": "Python3.10", "timeout": 3,
                       "handler": "index.handler", "memory_size": 128, "code_type": "inline",
                       "func_code": { "file": "eA==" }, "quell": { "node_labels": ["zone=a"] } });
    let refused = node.post("/v2/default/fgs/functions", &body).await;
    let (status, code, message) = refused.error();
    assert_eq!((status, code.as_str()), (400, "FSS.0400"), "{message}");
    assert!(message.contains("quell.node_labels: this node does not have zone=a"), "{message}");
    let path = "/v2/default/fgs/functions/part/invocations";
    for path in [path.to_owned(), format!("{path}-async")] {
        let (status, code, message) = node.post(&path, &leaf(&bell, "refused")).await.error();
        assert_eq!((status, code.as_str()), (503, "FSS.0503"), "{message}");
        assert!(message.contains("zone=a") && message.contains("node_labels"), "{message}");
    }
    // What was accepted waits, and can be stopped.
    let row = node.tree(&request).await[&request].clone();
    assert_eq!((&row["state"], &row["waits_for"]["live_nodes"]), (&json!("queued"), &json!(0)), "{row}");
    let reply = node.cancel("part", &request, Mode::Plain).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    node.stop().await;
}
