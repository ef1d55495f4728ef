//! Three nodes with one database, as their operator sees and steers them: plans, lists, cancels of many, figures, drains.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/openmetrics.rs"]
mod openmetrics;
#[path = "support/mod.rs"]
mod support;

use nix::sys::signal::Signal;
use openmetrics::Exposition;
use reqwest::Method;
use serde_json::{Value, json};
use support::{
    Bell, Mode, Ring, TestNode,
    parts::{leaf, spread},
    site::{LEASE_S, ONE_EACH, three},
    within,
};

/// A request on each node, and two that wait for any; their ids in this order.
async fn crowd(nodes: &[TestNode], bell: &Bell) -> (Vec<String>, Vec<Ring>) {
    let (mut ids, mut rings) = (Vec::new(), Vec::new());
    for at in 0..3 {
        ids.push(nodes[0].invoke_async("part", &leaf(bell, &format!("busy-{at}"))).await);
        rings.push(bell.ring().await);
    }
    for at in 0..2 {
        ids.push(nodes[0].invoke_async("part", &leaf(bell, &format!("waits-{at}"))).await);
    }
    (ids, rings)
}

fn ids_of(rows: &Value) -> Vec<String> {
    rows.as_array().unwrap().iter().map(|row| row["request_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_cancel_of_many_takes_what_other_nodes_run_and_what_waits_for_any_and_nothing_that_came_later() {
    let (site, nodes, bell) = three().await;
    let (ids, rings) = crowd(&nodes, &bell).await;
    let mut ask = json!({ "where": "function=part", "force": true, "dry_run": true });
    let plan = nodes[1].post("/quell/v1/cancels", &ask).await.json();
    let stops = plan["removed"].as_u64().unwrap() + plan["killed"].as_u64().unwrap();
    assert_eq!((plan["selected"].as_u64(), stops, &plan["elsewhere"]), (Some(5), 5, &json!(4)), "{plan:#}");
    assert_eq!(ids_of(&plan["first"]), ids, "in the order of their arrival, over all nodes");
    let said = site.types(1, &["plan", "--where", "function=part", "--force"]).await;
    assert!(said.contains("4 of them are on other nodes or wait for any"), "{said}");
    let later = nodes[2].invoke_async("part", &leaf(&bell, "later")).await;
    ask["as_of"] = plan["as_of"].clone();
    ask["dry_run"] = json!(false);
    ask["key"] = json!("everything");
    let begun = nodes[1].post("/quell/v1/cancels", &ask).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let mut last = bell.ring().await;
    assert_eq!(last.request(), later, "of those that waited only the one that came later begins");
    let bulk = within("its end", async {
        loop {
            let bulk = nodes[1].get("/quell/v1/cancels/bulk/everything").await.json();
            if bulk["state"] == "done" {
                return bulk;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!((&bulk["selected"], &bulk["stopped"]), (&json!(5), &json!(5)), "{bulk:#}");
    assert!(rings.iter().all(|ring| ring.process.is_gone()), "everything is stopped when that is said");
    for (at, id) in ids.iter().enumerate() {
        let (status, code) = nodes[2].listed("part", id).await;
        let wanted = if at < 3 { "FAIL" } else { "DISCARD" };
        assert_eq!((status.as_str(), code), (wanted, 4208), "{at}");
    }
    last.release().await;
    assert_eq!(nodes[0].settled("part", &later).await, ("SUCCESS".to_owned(), 0));
    assert!(bell.is_silent().await, "nothing of it begins again");
}

#[tokio::test]
async fn a_plan_names_what_is_on_other_nodes_and_what_waits_for_any_and_changes_nothing() {
    let (site, nodes, bell) = three().await;
    let (root, mut rings) = spread(&nodes, &bell).await;
    let waits = nodes[0].invoke_async("part", &leaf(&bell, "waits")).await;
    for (at, node) in nodes.iter().enumerate() {
        let path = format!("/quell/v1/requests/{root}/plan?recursive=true&force=true");
        let plan = node.get(&path).await.json();
        let mut stops = ids_of(&plan["stops"]);
        stops.sort_unstable();
        let mut wanted: Vec<String> = rings.values().map(Ring::request).collect();
        wanted.sort_unstable();
        assert_eq!((stops, &plan["elsewhere"]), (wanted, &json!(2)), "{at}: {plan:#}");
        let named = plan["stops"].as_array().unwrap().iter().filter(|stop| stop["node"].is_string()).count();
        let here = plan["kills"].as_array().unwrap().len();
        assert_eq!((named, here), (2, 1), "{at}: one is its own, with its instance: {plan:#}");
        let plan = node.get(&format!("/quell/v1/requests/{waits}/plan")).await.json();
        assert_eq!(ids_of(&plan["stops"]), std::slice::from_ref(&waits), "{at}: {plan:#}");
        assert_eq!((&plan["stops"][0]["how"], &plan["elsewhere"]), (&json!("removed"), &json!(1)), "{at}");
        let said = site.types(at, &["cancel", &root, "--recursive", "--dry-run"]).await;
        assert!(said.contains("2 of them are on other nodes"), "{said}");
    }
    // One of them alone is one of them alone, wherever it is asked.
    let leaf = rings["leaf"].request();
    for node in &nodes {
        let plan = node.get(&format!("/quell/v1/requests/{leaf}/plan?force=true")).await.json();
        assert_eq!(
            (ids_of(&plan["stops"]), &plan["stops"][0]["how"]),
            (vec![leaf.clone()], &json!("killed"))
        );
    }
    for tag in ["leaf", "middle", "root"] {
        let mut ring = rings.remove(tag).unwrap();
        ring.release().await;
        assert_eq!(nodes[1].settled("part", &ring.request()).await, ("SUCCESS".to_owned(), 0), "{tag}");
    }
    bell.ring().await.release().await;
    assert_eq!(nodes[1].settled("part", &waits).await, ("SUCCESS".to_owned(), 0));
    let over = nodes[1].get(&format!("/quell/v1/requests/{root}/plan")).await;
    assert_eq!(over.status, 404, "what is over has no plan: {over:?}");
}

#[tokio::test]
async fn a_list_has_the_requests_of_every_node_page_by_page_and_names_their_nodes() {
    let (site, nodes, bell) = three().await;
    let own = nodes[1].invoke("part", &leaf(&bell, "alone"));
    let mut alone = bell.ring().await;
    let alone_says = site.types(1, &["ls"]).await;
    assert!(alone_says.contains(&alone.request()) && !alone_says.contains("NODE"), "{alone_says}");
    alone.release().await;
    assert_eq!(own.await.unwrap().status, 200);
    let (ids, rings) = crowd(&nodes, &bell).await;
    for (at, node) in nodes.iter().enumerate() {
        let (mut seen, mut marker) = (Vec::new(), 0);
        loop {
            let page = node.get(&format!("/quell/v1/requests?limit=2&marker={marker}")).await.json();
            let rows = page["requests"].as_array().unwrap();
            assert!((1..=2).contains(&rows.len()) && page["count"] == json!(5), "{at}: {page:#}");
            seen.extend(rows.clone());
            marker = page["next_marker"].as_u64().unwrap();
            if marker == 0 {
                break;
            }
        }
        let mut listed = ids_of(&json!(seen));
        listed.sort_unstable();
        let mut wanted = ids.clone();
        wanted.sort_unstable();
        assert_eq!(listed, wanted, "{at}: each once");
        let mut named: Vec<&str> = seen.iter().filter_map(|row| row["node"].as_str()).collect();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named.len(), 3, "{at}: each node has one: {seen:#?}");
        let waiting = seen.iter().filter(|row| row["node"].is_null());
        assert_eq!(ids_of(&json!(waiting.collect::<Vec<_>>())), ids[3..], "{at}: in order");
        for args in [&["ls"][..], &["ls", "--where", "function=part"]] {
            let said = site.types(at, args).await;
            assert!(said.contains("NODE") && ids.iter().all(|id| said.contains(id)), "{args:?}: {said}");
        }
    }
    let none = nodes[0].get("/quell/v1/requests?where=status%3Ddraining").await.json();
    assert_eq!((&none["count"], &none["next_marker"]), (&json!(0), &json!(0)), "{none:#}");
    for mut ring in rings {
        ring.release().await;
    }
    for _ in &ids[3..] {
        bell.ring().await.release().await;
    }
}

#[tokio::test]
async fn a_node_that_drains_lets_what_runs_end_and_leaves_the_rest_to_others() {
    let (site, mut nodes, bell) = three().await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "runs")).await;
    let mut ring = bell.ring().await;
    nodes[0].signal(Signal::SIGTERM);
    nodes[0].logs("draining");
    ring.release().await;
    let (status, _) = nodes[0].ended().await;
    assert!(status.success(), "{status}");
    assert_eq!(nodes[1].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    let left: Value = nodes[1].get("/quell/v1/nodes").await.json();
    let states: Vec<&str> =
        left["nodes"].as_array().unwrap().iter().map(|node| node["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|state| **state == "left").count(), 1, "{left:#}");
    nodes[0] = site.start(0, &ONE_EACH).await;
    nodes[0].invoke_async("part", &leaf(&bell, "again")).await;
    bell.ring().await.release().await;
}

async fn figures(node: &TestNode) -> Exposition {
    let reply = node.get("/metrics").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    Exposition::parse(&reply.text())
}

#[tokio::test]
async fn what_a_node_does_for_the_others_is_counted_and_what_is_left_of_its_lease_is_shown() {
    let (_site, mut nodes, bell) = three().await;
    let (root, rings) = spread(&nodes, &bell).await;
    let lease: f64 = LEASE_S.parse().unwrap();
    let mut claimed = 0.0;
    for node in &nodes {
        let seen = figures(node).await;
        let left = seen.value("quell_node_lease_seconds_left", &[]);
        assert!((0.0..lease).contains(&left), "{left} of {lease}");
        assert_eq!(seen.value("quell_nodes_accepts", &[]), 1.0);
        assert_eq!(seen.value("quell_node_takeovers_total", &[]), 0.0);
        claimed += seen.value("quell_node_claimed_total", &[]);
    }
    assert!(claimed >= 2.0, "three requests on three nodes: two at least went by the shared queue");
    let reply = nodes[1].cancel("part", &root, Mode::Both).await;
    assert_eq!(reply.header("x-quell-stop"), "stopped", "{reply:?}");
    let parts = async |result| {
        let mut all = 0.0;
        for node in &nodes {
            all += figures(node).await.value("quell_node_parts_total", &[("result", result)]);
        }
        all
    };
    let told = nodes[1].receipt(reply.header("x-quell-cancel-id")).await;
    let told = told["parts"].as_array().unwrap().len();
    assert!((2..=3).contains(&told), "one for each node that had some of it and was asked: {told}");
    let stopped = parts("stopped").await;
    assert!((stopped - told as f64).abs() < 0.5 && parts("unkillable").await < 0.5, "{stopped} of {told}");
    drop(rings);
    nodes[0].kill();
    within("its work is taken over", async {
        let mut taken = 0.0;
        while taken < 1.0 {
            taken = 0.0;
            for node in &nodes[1..] {
                taken += figures(node).await.value("quell_node_takeovers_total", &[]);
            }
        }
        assert_eq!(taken, 1.0, "by one of them");
    })
    .await;
    let alone = TestNode::start().await;
    let seen = figures(&alone).await;
    assert!(!seen.families().any(|name| name.starts_with("quell_node")), "a node alone is none among others");
    alone.stop().await;
}

#[tokio::test]
async fn the_console_is_told_of_the_nodes_only_where_there_are_some_and_only_an_operator_is() {
    let (_site, nodes, _bell) = three().await;
    let seen = nodes[1].view().await;
    let told = nodes[1].get("/quell/v1/nodes").await.json();
    assert_eq!(seen["node"], told["this"], "the page asks for the others where it is told of this");
    assert_eq!(told["nodes"].as_array().unwrap().len(), 3);
    let body = json!({ "project": "default", "scopes": ["admin"] });
    let made = nodes[1].post("/quell/v1/credentials", &body).await.json();
    let refused = nodes[1].send_as(made["token"].as_str(), Method::GET, "/quell/v1/nodes", &[], b"").await;
    assert_eq!(refused.error().0, 403);
    let alone = TestNode::start().await;
    assert!(alone.view().await["node"].is_null());
    assert_eq!(alone.get("/quell/v1/nodes").await.error().0, 404);
    alone.stop().await;
}
