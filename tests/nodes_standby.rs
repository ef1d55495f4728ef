//! Three nodes whose database has a standby: it is promoted, and what was said holds.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use reqwest::Method;
use serde_json::json;
use support::{
    Bell, Mode, Reply, TestNode,
    load::Load,
    parts::{leaf, spread},
    site::{LEASE_S, Site, known, three_with_standby, three_with_standby_apart},
    within,
};

/// Long enough for a standby that is promoted on a busy machine.
const LONG_LEASE_S: &str = "120";
/// A function that ends at once.
const QUICK: &str = "def handler(event, context):\n    return event\n";

/// Ends what the nodes have connected.
const END_SESSIONS: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'quell'";

/// Waits until the node says that it is ready, or that it is not.
async fn ready(node: &TestNode, wanted: bool) -> Reply {
    let status = if wanted { 200 } else { 503 };
    within("what the node says of itself", async {
        loop {
            // As a load balancer does, that has no credential.
            let said = node.send_as(None, Method::GET, "/quell/v1/ready", &[], b"").await;
            if said.status == status {
                return said;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
}

/// State and epoch of each node, as one of them tells.
async fn told(node: &TestNode) -> Vec<(String, u64)> {
    let told = node.get("/quell/v1/nodes").await.json();
    let rows = told["nodes"].as_array().unwrap_or_else(|| panic!("{told:#}"));
    rows.iter()
        .map(|row| (row["state"].as_str().unwrap().to_owned(), row["epoch"].as_u64().unwrap()))
        .collect()
}

/// Kills the database at once and makes its standby the one.
fn fail_over(site: &mut Site) {
    site.database.crash();
    site.standby.as_ref().unwrap().promote();
}

/// Whether a request of the function is accepted, run and stopped from another node.
async fn works(nodes: &[TestNode], bell: &Bell, tag: &str) {
    let path = "/v2/default/fgs/functions/part/invocations-async";
    let request = within("it accepts", async {
        loop {
            let reply = nodes[0].post(path, &leaf(bell, tag)).await;
            match reply.status {
                202 => return reply.json()["request_id"].as_str().unwrap().to_owned(),
                _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    })
    .await;
    let ring = bell.ring().await;
    assert_eq!(ring.request(), request, "{tag}");
    // A node that has not found out yet where the writes go is told so by this one, and says 503.
    let reply = within("a cancel", async {
        loop {
            let reply = nodes[1].cancel("part", &request, Mode::Both).await;
            if reply.status != 503 {
                return reply;
            }
        }
    })
    .await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{tag}: {reply:?}");
    assert!(ring.process.is_gone(), "{tag}: it is stopped when that is said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_promoted_standby_is_found_and_nothing_that_was_said_is_forgotten() {
    let (mut site, nodes, bell) = three_with_standby(LONG_LEASE_S).await;
    nodes[0].deploy("quick", QUICK, json!({})).await;
    known(&nodes, "quick").await;
    let stopped = nodes[0].invoke_async("part", &leaf(&bell, "stopped")).await;
    let _ring = bell.ring().await;
    let first = nodes[1].cancel("part", &stopped, Mode::Force).await;
    assert_eq!((first.status, first.header("x-quell-stop")), (200, "stopped"), "{first:?}");
    let (root, rings) = spread(&nodes, &bell).await;
    let waits = nodes[0].invoke_async("part", &leaf(&bell, "waits")).await;
    let never = nodes[1].invoke_async("part", &leaf(&bell, "never")).await;
    let reply = nodes[2].cancel("part", &never, Mode::Plain).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    let mut load = Load::begin(&nodes, "quick", &json!({}));
    load.more(20).await;
    site.database.crash();
    for (at, node) in nodes.iter().enumerate() {
        let said = ready(node, false).await.error().2;
        assert!(said.starts_with("not ready: "), "{said}");
        assert_eq!(node.get("/quell/v1/nodes").await.error().0, 503);
        let (done, said) = site.tries(at, &["nodes"]).await;
        assert!(!done && said.contains("503"), "{said}");
    }
    site.standby.as_ref().unwrap().promote();
    for node in &nodes {
        ready(node, true).await;
        assert_eq!(told(node).await, vec![("live".to_owned(), 1); 3], "within its lease a node goes on");
    }
    load.more(20).await;
    let accepted = load.end().await;
    assert!(rings.values().all(|ring| !ring.process.is_gone()), "what runs goes on");
    let reply = nodes[2].cancel("part", &root, Mode::Both).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(rings.values().all(|ring| ring.process.is_gone()), "everything is stopped when that is said");
    let mut ring = bell.ring().await;
    assert_eq!(ring.request(), waits, "what waited runs, and what was cancelled does not");
    ring.release().await;
    assert_eq!(nodes[1].settled("part", &waits).await, ("SUCCESS".to_owned(), 0));
    for id in &accepted {
        assert_eq!(nodes[2].settled("quick", id).await, ("SUCCESS".to_owned(), 0), "accepted: {id}");
    }
    for node in &nodes {
        assert_eq!(node.listed("part", &stopped).await, ("FAIL".to_owned(), 4208));
        assert_eq!(node.listed("part", &never).await, ("DISCARD".to_owned(), 4208));
        for cancel in [&first, &reply] {
            let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
            assert_eq!(receipt["result"], "stopped", "{receipt:#}");
        }
    }
    assert!(bell.is_silent().await, "nothing that was cancelled begins again");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_standby_that_is_promoted_when_the_leases_are_over_has_what_is_to_run_again_and_what_is_not() {
    let (mut site, mut nodes, bell) = three_with_standby(LEASE_S).await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let first = bell.ring().await;
    let stopped = nodes[1].invoke_async("part", &leaf(&bell, "stopped")).await;
    let ring = bell.ring().await;
    assert_eq!(nodes[2].cancel("part", &stopped, Mode::Force).await.status, 200);
    assert!(ring.process.is_gone(), "it is stopped when that is said");
    site.database.crash();
    within("its end with the lease", first.process.gone()).await;
    for node in &nodes {
        node.logs("the lease is over");
    }
    site.standby.as_ref().unwrap().promote();
    for node in &mut nodes {
        node.lives_again();
    }
    let mut second = within("it is run again", bell.ring()).await;
    assert_eq!(second.request(), request);
    second.release().await;
    assert_eq!(nodes[2].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    assert_eq!(nodes[2].listed("part", &stopped).await, ("FAIL".to_owned(), 4208));
    let states = told(&nodes[1]).await;
    assert!(states.iter().all(|(state, epoch)| state == "live" && *epoch > 1), "{states:?}");
    works(&nodes, &bell, "after it").await;
    assert!(bell.is_silent().await, "nothing that was cancelled begins again");
}

#[tokio::test]
async fn a_primary_whose_machine_is_gone_without_a_word_is_given_up_within_the_lease() {
    let (mut site, nodes, bell) = three_with_standby_apart(LONG_LEASE_S).await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let mut ring = bell.ring().await;
    // Nothing that is sent there is answered or refused.
    site.cut(3);
    site.standby.as_ref().unwrap().promote();
    works(&nodes[1..], &bell, "on the standby").await;
    // Fenced, as an operator has to before it can be reached again.
    site.database.crash();
    site.mend(3);
    works(&nodes[1..], &bell, "when it is back without it").await;
    ring.release().await;
    assert_eq!(nodes[2].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    assert_eq!(told(&nodes[0]).await, vec![("live".to_owned(), 1); 3], "within its lease a node goes on");
}

#[tokio::test]
async fn an_old_primary_that_is_back_as_a_standby_is_passed_over_until_it_is_promoted() {
    let (mut site, nodes, bell) = three_with_standby(LONG_LEASE_S).await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let mut ring = bell.ring().await;
    fail_over(&mut site);
    works(&nodes[1..], &bell, "on the standby").await;
    // In the same place, which every node looks at first.
    site.database = site.standby.as_ref().unwrap().standby_in_place_of(&site.database);
    let sessions =
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'quell'";
    let ended: u32 = site.standby.as_ref().unwrap().ask(sessions).parse().unwrap();
    assert!(ended >= 6, "a writer and a listener for each node at least: {ended}");
    works(&nodes[1..], &bell, "beside one in recovery").await;
    assert_eq!(site.database.ask("SELECT pg_is_in_recovery()"), "t");
    // And back again.
    site.standby.as_mut().unwrap().crash();
    site.database.promote();
    works(&nodes[1..], &bell, "on the first again").await;
    ring.release().await;
    assert_eq!(nodes[2].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
}

#[tokio::test]
async fn a_primary_that_takes_no_more_writes_is_left_for_the_promoted_standby() {
    let (site, nodes, bell) = three_with_standby(LONG_LEASE_S).await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let mut ring = bell.ring().await;
    // Its sessions go on, and are told of each write that it is read-only.
    site.database.ask("ALTER SYSTEM SET default_transaction_read_only = on");
    site.database.ask("SELECT pg_reload_conf()");
    site.standby.as_ref().unwrap().promote();
    works(&nodes[1..], &bell, "on the promoted one").await;
    ring.release().await;
    assert_eq!(nodes[2].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    assert_eq!(told(&nodes[0]).await, vec![("live".to_owned(), 1); 3], "within its lease a node goes on");
}

#[tokio::test]
async fn an_old_primary_that_is_started_as_it_was_acknowledges_nothing_while_it_waits_for_a_standby() {
    let (mut site, nodes, bell) = three_with_standby(LONG_LEASE_S).await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    fail_over(&mut site);
    works(&nodes[1..], &bell, "on the standby").await;
    // What no operator should do. It takes writes, in the place that every node looks at first, and its commits wait.
    site.database.begin();
    site.standby.as_ref().unwrap().ask(END_SESSIONS);
    let event = leaf(&bell, "no");
    let accept = nodes[1].post("/v2/default/fgs/functions/part/invocations-async", &event);
    let cancel = nodes[0].cancel("part", &request, Mode::Both);
    let end = async {
        within("a commit that waits", async {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            while site.database.ask(waits) == "0" {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
        site.database.crash();
    };
    let (accept, cancel, ()) = tokio::join!(accept, cancel, end);
    assert_ne!(accept.status, 202, "what is accepted there is lost: {accept:?}");
    // It is stopped where it runs, and that is not said to be recorded before it is.
    assert_eq!((cancel.status, cancel.error().1.as_str()), (500, "FSS.0500"), "{cancel:?}");
    within("its end", ring.process.gone()).await;
    works(&nodes[1..], &bell, "on the standby again").await;
    assert_eq!(nodes[2].settled("part", &request).await, ("FAIL".to_owned(), 4208));
    let path = format!("/quell/v1/receipts/{}", cancel.header("x-quell-cancel-id"));
    within("its receipt, which is tried again and says when it was recorded", async {
        loop {
            let reply = nodes[2].get(&path).await;
            if reply.status == 200 && reply.json()["recorded_ms"].is_u64() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(bell.is_silent().await, "nothing that was refused begins");
}
