//! What nodes leave to each other: requests that found no place where they were claimed.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/openmetrics.rs"]
mod openmetrics;
#[path = "support/mod.rs"]
mod support;

use openmetrics::Exposition;
use serde_json::{Value, json};
use support::{Bell, Ring, TestNode, site::Site, within};

/// Long: nobody's lease ends in these tests.
const LEASE_S: &str = "60";

/// Two machines, the node of the first, and a function of which each node runs one request at a time.
async fn one_of_two() -> (Site, TestNode, Bell) {
    let site = Site::build(2, LEASE_S);
    let node = site.start(0, &[]).await;
    let one = json!({ "concurrency": 1, "concurrent_num": 1 });
    let more = json!({ "handler": "index.handler", "memory_size": 256, "strategy_config": one });
    node.deploy("part", include_str!("functions/tree.py"), more).await;
    (site, node, Bell::hang_in_a_folder().await)
}

fn leaf(bell: &Bell, tag: &str) -> Value {
    json!({ "bell": bell.path(), "tag": tag, "children": [] })
}

/// A synchronous request, which has the node's only place.
async fn busy(node: &TestNode, bell: &Bell) -> Ring {
    drop(node.invoke("part", &leaf(bell, "busy"))); // it goes on
    bell.ring().await
}

async fn given_back(nodes: &[TestNode; 2]) -> f64 {
    let mut all = 0.0;
    for node in nodes {
        let page = node.get("/metrics").await;
        all += Exposition::parse(&page.text()).value("quell_node_given_back_total", &[]);
    }
    all
}

#[tokio::test]
async fn what_waits_on_a_node_that_has_no_room_is_run_by_another_that_has() {
    let (site, first, bell) = one_of_two().await;
    let mut ring = busy(&first, &bell).await;
    let mut requests = Vec::new();
    for tag in ["one", "two", "three"] {
        requests.push(first.invoke_async("part", &leaf(&bell, tag)).await);
    }
    // It takes all that it finds, and runs one for as long as this test wants.
    let second = site.start(1, &[]).await;
    let mut long = bell.ring().await;
    ring.release().await;
    for _ in 0..2 {
        let next = within("the others, on the first node", bell.ring()).await;
        assert_eq!(next.pid, ring.pid, "in its one instance");
        ring = next;
        ring.release().await;
    }
    assert!(!long.process.is_gone());
    long.release().await;
    for request in &requests {
        assert_eq!(first.settled("part", request).await, ("SUCCESS".to_owned(), 0));
    }
    assert!(bell.is_silent().await, "each ran once");
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn what_no_node_has_room_for_does_not_go_to_and_fro() {
    let (site, first, bell) = one_of_two().await;
    let nodes = [first, site.start(1, &[]).await];
    let (mut a, mut b) = (busy(&nodes[0], &bell).await, busy(&nodes[1], &bell).await);
    for at in 0..12 {
        nodes[at % 2].invoke_async("part", &leaf(&bell, &format!("waits-{at}"))).await;
    }
    within("all of them in the shared queue", async {
        let free = "SELECT count(*) FROM invocations WHERE owner IS NULL AND status = 0";
        while site.database.ask(free) != "12" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await; // nothing tells
        }
    })
    .await;
    let before = given_back(&nodes).await;
    assert!(before <= 24.0, "{before} were given back: no more than each node may have claimed");
    // Several looks of each node later they are where they were.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert!((given_back(&nodes).await - before).abs() < 0.5, "nodes without room claim them again");
    for ring in [&mut a, &mut b] {
        ring.release().await;
    }
    for _ in 0..12 {
        within("each of them runs", bell.ring()).await.release().await;
    }
    for node in nodes {
        node.stop().await;
    }
}
