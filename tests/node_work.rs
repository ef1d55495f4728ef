//! What nodes leave to each other: requests that found no place where they were claimed, and receipts that were open when their
//! node died.
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

/// Three machines with a node on each, the function, and a bell. The first has a lease that is not over in this test.
async fn three() -> (Site, [TestNode; 3], Bell) {
    let mut site = Site::build(3, LEASE_S);
    let first = site.start(0, &[]).await;
    let more = json!({ "handler": "index.handler", "memory_size": 256, "quell": { "grace_ms": 60_000 } });
    first.deploy("part", include_str!("functions/tree.py"), more).await;
    site.lease = "3";
    let nodes = [first, site.start(1, &[]).await, site.start(2, &[]).await];
    (site, nodes, Bell::hang_in_a_folder().await)
}

/// A receipt, when it is closed.
async fn closed(node: &TestNode, cancel: &str) -> Value {
    within("the last form of the receipt", async {
        loop {
            let receipt = node.receipt(cancel).await;
            if !receipt["closed_ms"].is_null() {
                return receipt;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await; // nothing tells a client
        }
    })
    .await
}

async fn state_of(node: &TestNode, other: &str) -> String {
    let nodes = node.get("/quell/v1/nodes").await.json();
    let row = nodes["nodes"].as_array().unwrap().iter().find(|row| row["endpoint"] == other).unwrap().clone();
    row["state"].as_str().unwrap().to_owned()
}

async fn taken_over(node: &TestNode, gone: &str) {
    within("its work is taken over", async {
        while state_of(node, gone).await != "fenced" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await; // nothing tells a client
        }
    })
    .await;
}

#[tokio::test]
async fn a_receipt_of_a_node_that_died_is_closed_by_another_with_what_is_known() {
    let (site, mut nodes, bell) = three().await;
    let request = nodes[1].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    // Its runtime cannot end by itself: the cancel is under way when the node dies.
    ring.process.signal(rustix::process::Signal::STOP);
    let cancel = nodes[1].fence("part", &request).await.header("x-quell-cancel-id").to_owned();
    nodes[1].kill();
    assert!(nodes[2].receipt(&cancel).await["closed_ms"].is_null(), "nobody has closed it");
    let receipt = closed(&nodes[2], &cancel).await;
    assert_eq!((&receipt["result"], &receipt["took_us"]), (&json!("stopped"), &Value::Null), "{receipt:#}");
    let row = &receipt["requests"][0];
    assert_eq!((&row["evidence"], &row["code"]), (&json!("lease_over"), &json!(4208)), "{receipt:#}");
    assert!(ring.process.is_gone(), "what it is said of ended with the lease");
    assert_eq!(nodes[2].listed("part", &request).await, ("FAIL".to_owned(), 4208));
    // The node that comes back has nothing to say of it.
    nodes[1] = site.start(1, &[]).await;
    assert_eq!(nodes[1].receipt(&cancel).await, receipt);
    let again = nodes[1].cancel("part", &request, support::Mode::Plain).await;
    assert_eq!((again.status, again.header("x-quell-stop")), (200, "stopped"), "{again:?}");
}

#[tokio::test]
async fn a_receipt_of_a_node_that_died_stays_open_as_long_as_another_is_at_its_part() {
    let (site, mut nodes, bell) = three().await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    within("it is listed as running", async {
        while nodes[1].listed("part", &request).await.0 != "RUNNING" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await; // nothing tells a client
        }
    })
    .await;
    nodes[0].signal(nix::sys::signal::Signal::SIGSTOP);
    let cancel = nodes[1].fence("part", &request).await.header("x-quell-cancel-id").to_owned();
    let gone = nodes[1].endpoint.clone();
    nodes[1].kill();
    taken_over(&nodes[2], &gone).await;
    within("another node has the receipt", async {
        let whose = "SELECT count(*) FROM receipts r JOIN nodes n USING (node) WHERE r.open AND n.state = 0";
        while site.database.ask(whose) != "1" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await; // nothing tells
        }
    })
    .await;
    nodes[1] = site.start(1, &[]).await;
    let receipt = nodes[1].receipt(&cancel).await;
    assert!(!ring.process.is_gone() && receipt["closed_ms"].is_null(), "its node sleeps: {receipt:#}");
    nodes[0].signal(nix::sys::signal::Signal::SIGCONT);
    let receipt = closed(&nodes[1], &cancel).await;
    assert_eq!((&receipt["result"], &receipt["parts"][0]["result"]), (&json!("stopped"), &json!("stopped")));
    assert_eq!(nodes[0].listed("part", &request).await, ("FAIL".to_owned(), 4208));
}
