//! Cancels of many over nodes: a key holds on all of them, any tells how one stands and calls it off, and one whose node is gone
//! is gone on with.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Reply, TestNode, postgres::Postgres, within};
use tempfile::TempDir;

const BULK: &str = "/quell/v1/cancels/bulk";
/// Between two looks at something that nothing tells a client of.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Nodes of one database.
struct Shared {
    _database: Postgres,
    _folders: Vec<TempDir>,
    nodes: Vec<TestNode>,
}

/// So many nodes, and so many requests that wait: their function asks for what no node has.
async fn waiting(nodes: usize, requests: usize) -> Shared {
    let database = Postgres::start("127.0.0.1");
    let folders: Vec<TempDir> = (0..nodes).map(|_| TestNode::folder()).collect();
    let mut all = Vec::new();
    for folder in &folders {
        let url = database.url();
        all.push(TestNode::start_in(folder.path(), &["--store", &url, "--lease", "3"]).await);
    }
    all[0].deploy_probe("f", 1, 1, json!({ "quell": { "node_labels": ["nowhere"] } })).await;
    for _ in 0..requests {
        all[0].invoke_async("f", &json!({})).await;
    }
    Shared { _database: database, _folders: folders, nodes: all }
}

async fn ask(node: &TestNode, selected: &str, key: &str, rate: u32) -> Reply {
    let body = json!({ "where": selected, "key": key, "rate": rate });
    within("an answer", node.post("/quell/v1/cancels", &body)).await
}

async fn one(node: &TestNode, key: &str) -> Value {
    let reply = node.get(&format!("{BULK}/{key}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// How it stands as soon as that is so.
async fn once(node: &TestNode, key: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    within(what, async {
        loop {
            let bulk = one(node, key).await;
            if is_so(&bulk) {
                return bulk;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await
}

fn number(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_else(|| panic!("{name} of {of}"))
}

async fn left(node: &TestNode) -> u64 {
    number(&node.get("/quell/v1/requests?limit=1").await.json(), "count")
}

#[tokio::test]
async fn a_key_holds_on_every_node_and_any_of_them_tells_how_it_stands_and_calls_it_off() {
    let shared = waiting(3, 60).await;
    let [a, b, c] = [&shared.nodes[0], &shared.nodes[1], &shared.nodes[2]];
    let begun = ask(a, "age>0s", "night", 4).await;
    assert_eq!((begun.status, number(&begun.json(), "selected")), (202, 60), "{}", begun.text());
    for node in [b, c, a] {
        let again = ask(node, "age>0s", "night", 9).await;
        assert_eq!((again.status, &again.json()["rate"]), (200, &json!(4)), "{}", again.text());
        assert_eq!(again.json()["node"], begun.json()["node"]);
        let (status, code, message) = ask(node, "age>1s", "night", 4).await.error();
        assert_eq!((status, code.as_str()), (409, "FSS.0409"), "{message}");
        assert!(message.contains("(age>0ms, scope request, level ask)"), "{message}");
    }
    let on_its_way =
        once(c, "night", "some of it done, as another node tells", |bulk| number(bulk, "done") > 2).await;
    assert_eq!(on_its_way["state"], "running", "{on_its_way}");
    let listed = b.get(BULK).await.json();
    assert_eq!((&listed["bulks"][0]["key"], &listed["bulks"][1]), (&json!("night"), &Value::Null));

    let off = within("an answer", c.send(Method::DELETE, &format!("{BULK}/night"), &[], b"")).await;
    assert_eq!((off.status, &off.json()["state"]), (200, &json!("called_off")), "{}", off.text());
    let ended = once(a, "night", "its end on its own node", |bulk| bulk["state"] != "running").await;
    assert_eq!(ended["state"], "called_off");
    let done = number(&ended, "done");
    assert!((3..60).contains(&done), "{ended}");
    assert_eq!(number(&ended, "stopped"), done, "{ended}");
    once(b, "night", "the same everywhere", |bulk| number(bulk, "done") == done).await;
    assert_eq!(left(b).await, 60 - done, "the others are left alone");
    // It is over for good: not even its own key begins it anew, and what is over is not called off.
    assert_eq!(ask(b, "age>0s", "night", 4).await.json()["state"], "called_off");
    let nobody = b.send(Method::DELETE, &format!("{BULK}/other"), &[], b"").await;
    assert_eq!(nobody.status, 404, "{}", nobody.text());
}

#[tokio::test]
async fn one_whose_node_dies_or_leaves_is_gone_on_with_by_another() {
    let mut shared = waiting(3, 60).await;
    let begun = ask(&shared.nodes[0], "age>0s", "night", 4).await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let first = begun.json()["node"].clone();
    shared.nodes.remove(0).kill();
    let resumed = |bulk: &Value| bulk["node"] != first && number(bulk, "done") > 2;
    let second = once(&shared.nodes[1], "night", "another node has it", resumed).await;
    assert_eq!((&second["resumed"], &second["state"]), (&json!(true), &json!("running")), "{second}");
    // The one that has it now leaves in order; the last one has the rest.
    let all = shared.nodes[0].get("/quell/v1/nodes").await.json();
    let at = usize::from(second["node"] != all["this"]);
    shared.nodes.remove(at).stop().await;
    let last = &shared.nodes[0];
    let ended = once(last, "night", "its end", |bulk| bulk["state"] == "done").await;
    assert!(ended["node"] != second["node"] && ended["node"] != first, "{ended}");
    assert_eq!((number(&ended, "done"), number(&ended, "failed")), (60, 0), "{ended}");
    assert_eq!(left(last).await, 0);
    assert_eq!(ask(last, "age>0s", "night", 4).await.status, 200);
}
