//! Three nodes on three machines with one database: trees that span them, stopped from any of them in every mode;
//! and each of the things that happen to machines, wires and databases at 3 a.m.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/openmetrics.rs"]
mod openmetrics;
#[path = "support/mod.rs"]
mod support;

use std::collections::HashMap;

use nix::sys::signal::Signal;
use openmetrics::Exposition;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Ring, TestNode, site::Site, within};

/// Leases in most of these tests: short, so that a lost one is not waited for long.
const LEASE_S: &str = "3";
/// Of each function one instance a node: a child of the same function finds its own node full.
const ONE_EACH: [&str; 2] = ["--max-instances", "1"];

/// Three machines, each with a node that runs one instance, and the function.
async fn three() -> (Site, Vec<TestNode>, Bell) {
    three_with(LEASE_S).await
}

async fn three_with(lease: &'static str) -> (Site, Vec<TestNode>, Bell) {
    let site = Site::build(3, lease);
    let mut nodes = Vec::new();
    for machine in 0..3 {
        nodes.push(site.start(machine, &ONE_EACH).await);
    }
    deploy(&nodes).await;
    (site, nodes, Bell::hang_in_a_folder().await)
}

async fn deploy(nodes: &[TestNode]) {
    let source = include_str!("functions/tree.py");
    let more = json!({ "handler": "index.handler", "quell": { "grace_ms": 20_000 }, "memory_size": 256 });
    nodes[0].deploy("part", source, more).await;
    for node in nodes {
        // The others hear of it by a notification.
        within("the function on every node", async {
            // It says that the function is unknown as long as that is.
            let nobody = "00000000-0000-4000-8000-000000000000";
            while node.cancel("part", nobody, Mode::Plain).await.status != 400 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

fn leaf(bell: &Bell, tag: &str) -> Value {
    json!({ "bell": bell.path(), "tag": tag, "children": [] })
}

/// A chain of three, each a child of the one before, that no one waits for.
fn chain(bell: &Bell) -> Value {
    let child = |event| json!([{ "function": "part", "sync": false, "event": event }]);
    let middle = json!({ "bell": bell.path(), "tag": "middle", "children": child(leaf(bell, "leaf")) });
    json!({ "bell": bell.path(), "tag": "root", "children": child(middle) })
}

/// Which node has which request of a chain, by tag; and their rings.
async fn spread(nodes: &[TestNode], bell: &Bell) -> (String, HashMap<String, Ring>) {
    let root = nodes[0].invoke_async("part", &chain(bell)).await;
    let rings = bell.rings(3).await;
    let owners: Vec<String> =
        serde_json::from_value::<Vec<Value>>(nodes[0].get("/quell/v1/nodes").await.json()["nodes"].clone())
            .unwrap()
            .iter()
            .filter(|node| node["owns"] == json!(1))
            .map(|node| node["node"].to_string())
            .collect();
    assert_eq!(owners.len(), 3, "each of the three nodes has one of the three");
    (root, rings)
}

/// Waits until it is written down that it runs: a node that is stopped in the middle of that holds the rows.
async fn written_down(nodes: &[TestNode], request: &str) {
    within("it is listed as running", async {
        while nodes[1].listed("part", request).await.0 != "RUNNING" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A receipt in its last form, which is written after the answer.
async fn closed(nodes: &[TestNode], cancel: &str) -> Value {
    within("the last form of the receipt", async {
        loop {
            let receipt = nodes[2].receipt(cancel).await;
            if !receipt["closed_ms"].is_null() {
                return receipt;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_tree_over_three_nodes_is_stopped_from_any_of_them_in_every_mode() {
    let (_site, nodes, bell) = three().await;
    for (at, mode) in [(0, Mode::Both), (1, Mode::Recursive), (2, Mode::Both), (2, Mode::Recursive)] {
        let (root, rings) = spread(&nodes, &bell).await;
        let shown = nodes[at].tree(&root).await;
        assert_eq!(shown.len(), 3, "the tree is seen from node {at}: {shown:#?}");
        let reply = nodes[at].cancel("part", &root, mode).await;
        assert_eq!(
            (reply.status, reply.header("x-quell-stop")),
            (200, "stopped"),
            "{mode:?} at {at}: {reply:?}"
        );
        for (tag, ring) in &rings {
            // A kill ends the process; an asked handler has ended, and its runtime lives on.
            assert!(
                !mode.kills() || ring.process.is_gone(),
                "{mode:?} at {at}: {tag} is alive after the answer"
            );
            let (status, code) = nodes[0].listed("part", &ring.request()).await;
            assert_eq!((status.as_str(), code), ("FAIL", 4208), "{mode:?} at {at}: {tag}");
        }
        for (_, mut ring) in rings {
            assert_eq!(ring.last_words().await, "", "its line has ended with its code");
        }
        assert!(bell.is_silent().await, "nothing of it begins again");
        let receipt = nodes[at].receipt(reply.header("x-quell-cancel-id")).await;
        let parts = receipt["parts"].as_array().unwrap();
        assert!(!parts.is_empty() && parts.iter().all(|part| part["result"] == "stopped"), "{receipt:#}");
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn one_request_is_stopped_from_a_node_that_does_not_have_it_and_its_children_go_on() {
    let (_site, nodes, bell) = three().await;
    for mode in [Mode::Plain, Mode::Force] {
        let (root, mut rings) = spread(&nodes, &bell).await;
        let reply = nodes[2].cancel("part", &root, mode).await;
        assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{mode:?}: {reply:?}");
        assert_eq!(nodes[1].listed("part", &root).await, ("FAIL".to_owned(), 4208));
        assert_eq!(rings.remove("root").unwrap().last_words().await, "");
        for tag in ["middle", "leaf"] {
            let mut ring = rings.remove(tag).unwrap();
            ring.release().await;
            assert_eq!(nodes[1].settled("part", &ring.request()).await, ("SUCCESS".to_owned(), 0), "{tag}");
        }
        let again = nodes[1].cancel("part", &root, mode).await;
        assert_eq!(
            (again.status, again.header("x-quell-stop")),
            (200, "stopped"),
            "asked once more elsewhere"
        );
    }
}

#[tokio::test]
async fn a_synchronous_request_is_found_by_any_node_and_what_it_made_elsewhere_stops_with_it() {
    let (_site, nodes, bell) = three().await;
    let caller = nodes[0].invoke("part", &chain(&bell));
    let rings = bell.rings(3).await;
    let root = rings["root"].request();
    let reply = nodes[2].cancel("part", &root, Mode::Both).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(rings.values().all(|ring| ring.process.is_gone()), "everything is stopped when that is said");
    assert_eq!(caller.await.unwrap().json()["errorCode"].as_str().unwrap_or("4208"), "4208");
    // And what nobody has is nobody's, on every node.
    let nobody = nodes[1].cancel("part", "00000000-0000-4000-8000-000000000000", Mode::Both).await;
    assert_eq!(nobody.error(), (400, "FSS.0400".to_owned(), "Invalid RequestId".to_owned()));
}

#[tokio::test]
async fn what_waits_for_a_place_on_any_node_is_stopped_and_never_starts() {
    let (_site, nodes, bell) = three().await;
    let mut running = Vec::new();
    for at in 0..3 {
        nodes[0].invoke_async("part", &leaf(&bell, &format!("busy-{at}"))).await;
        running.push(bell.ring().await);
    }
    let waits = nodes[0].invoke_async("part", &leaf(&bell, "waits")).await;
    let reply = nodes[1].cancel("part", &waits, Mode::Plain).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert_eq!(nodes[2].listed("part", &waits).await, ("DISCARD".to_owned(), 4208));
    for mut ring in running {
        ring.release().await;
        nodes[2].settled("part", &ring.request()).await;
    }
    assert!(bell.is_silent().await, "what was cancelled does not begin when there is room");
}

#[tokio::test]
async fn the_work_of_a_killed_node_is_run_by_another_and_what_was_cancelled_is_not() {
    let (_site, mut nodes, bell) = three().await;
    let (root, rings) = spread(&nodes, &bell).await;
    let reply = nodes[1].cancel("part", &rings["leaf"].request(), Mode::Plain).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    nodes[0].kill();
    for tag in ["root"] {
        within("the end of what ran there", rings[tag].process.gone()).await;
    }
    // After its lease somebody else takes it up: it rings again, and makes a middle of its own.
    let mut again = within("another node", bell.ring()).await;
    assert_eq!((again.facts["tag"].as_str(), again.request()), (Some("root"), root.clone()));
    again.release().await;
    assert_eq!(nodes[1].settled("part", &root).await, ("SUCCESS".to_owned(), 0));
    assert_eq!(nodes[1].listed("part", &rings["leaf"].request()).await, ("FAIL".to_owned(), 4208));
}

#[tokio::test]
async fn a_cancel_that_finds_a_node_dead_is_answered_by_its_next_life() {
    // So long that nobody takes over: the node itself comes back, and settles what was fenced meanwhile.
    let (site, mut nodes, bell) = three_with("60").await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    written_down(&nodes, &request).await;
    nodes[0].kill();
    let fenced = nodes[1].fence("part", &request).await;
    within("the end of what ran there", ring.process.gone()).await;
    nodes[0] = site.start(0, &ONE_EACH).await;
    let reply = nodes[1].cancel("part", &request, Mode::Plain).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert_eq!(nodes[2].listed("part", &request).await, ("FAIL".to_owned(), 4208));
    let receipt = closed(&nodes, fenced.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["parts"][0]["result"], "stopped", "{receipt:#}");
    assert!(bell.is_silent().await, "it does not begin again");
}

#[tokio::test]
async fn a_cancel_under_way_waits_for_a_database_that_comes_back_and_its_receipt_tells_the_end() {
    // So long that neither the node that sleeps nor the others lose theirs.
    let (mut site, nodes, bell) = three_with("60").await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    written_down(&nodes, &request).await;
    nodes[0].signal(Signal::SIGSTOP);
    let cancel = nodes[1].cancel("part", &request, Mode::Force);
    tokio::pin!(cancel);
    let parts = async {
        while site.database.ask("SELECT count(*) FROM parts WHERE state = 0") != "1" {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        reply = &mut cancel => panic!("answered while the node that has it sleeps: {reply:?}"),
        () = within("a part for the node that sleeps", parts) => {}
    }
    site.database.crash();
    tokio::select! {
        reply = &mut cancel => panic!("answered though nobody knows whether it is stopped: {reply:?}"),
        () = tokio::time::sleep(std::time::Duration::from_secs(3)) => {}
    }
    site.database.begin();
    nodes[0].signal(Signal::SIGCONT);
    let reply = cancel.await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(ring.process.is_gone(), "it is stopped when that is said");
    let receipt = closed(&nodes, reply.header("x-quell-cancel-id")).await;
    assert_eq!((&receipt["result"], &receipt["parts"][0]["result"]), (&json!("stopped"), &json!("stopped")));
}

#[tokio::test]
async fn an_end_that_is_not_written_yet_is_told_to_nobody() {
    let (mut site, nodes, bell) = three_with("60").await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let mut ring = bell.ring().await;
    written_down(&nodes, &request).await;
    site.database.crash();
    ring.release().await;
    assert_eq!(ring.last_words().await, "");
    // Tried again after 1, 2 and 4 s: when the database is back there is time to ask before it is written.
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    site.database.begin();
    within("an end that is not written yet", async {
        while nodes[0].view().await["unwritten"] != json!(1) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    // Should the node die now, the request would run again.
    let reply = nodes[0].cancel("part", &request, Mode::Plain).await;
    let (status, _) = nodes[1].listed("part", &request).await;
    assert!(reply.status == 503 || status == "SUCCESS", "it is {status} by the store: {reply:?}");
    assert_eq!(nodes[0].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    let late = nodes[0].cancel("part", &request, Mode::Plain).await;
    assert_eq!(late.error(), (400, "FSS.0400".to_owned(), "Invalid RequestId: SUCCESS".to_owned()));
}

#[tokio::test]
async fn a_receipt_that_a_node_left_open_says_stopped_only_when_the_others_have_stopped_it() {
    let (site, mut nodes, bell) = three_with("60").await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    written_down(&nodes, &request).await;
    nodes[0].signal(Signal::SIGSTOP);
    let fenced = nodes[1].fence("part", &request).await;
    let cancel = fenced.header("x-quell-cancel-id").to_owned();
    nodes[1].kill();
    nodes[1] = site.start(1, &ONE_EACH).await;
    let receipt = nodes[2].receipt(&cancel).await;
    assert!(!ring.process.is_gone(), "its node sleeps, and its lease is long");
    assert_eq!(receipt["result"], "running", "nobody has stopped it: {receipt:#}");
    nodes[0].signal(Signal::SIGCONT);
    let receipt = closed(&nodes, &cancel).await;
    assert_eq!((&receipt["result"], &receipt["parts"][0]["result"]), (&json!("stopped"), &json!("stopped")));
}

#[tokio::test]
async fn a_node_that_sleeps_beyond_its_lease_runs_nothing_meanwhile_and_comes_back() {
    let (_site, mut nodes, bell) = three().await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let first = bell.ring().await;
    nodes[0].signal(Signal::SIGSTOP);
    // Its helper ends it with the lease, though the daemon cannot; and only then somebody else begins.
    let mut second = within("another node", bell.ring()).await;
    assert!(first.process.is_gone(), "the same request runs on two nodes");
    assert_eq!(second.request(), request);
    nodes[0].signal(Signal::SIGCONT);
    nodes[0].lives_again();
    second.release().await;
    assert_eq!(nodes[0].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
    let caller = nodes[0].invoke("part", &leaf(&bell, "two"));
    within("it works again", bell.ring()).await.release().await;
    assert_eq!(caller.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_node_that_is_cut_off_from_the_database_stops_what_it_runs_within_its_lease() {
    let (site, mut nodes, bell) = three().await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let first = bell.ring().await;
    site.cut(0);
    let mut second = within("another node", bell.ring()).await;
    assert!(first.process.is_gone(), "the same request runs on two nodes");
    // Asked while the wire is cut, about a request that the lost node had.
    let reply = nodes[1].cancel("part", &request, Mode::Force).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(second.last_or_line().await.is_null());
    site.mend(0);
    nodes[0].lives_again();
    assert_eq!(nodes[0].listed("part", &request).await, ("FAIL".to_owned(), 4208));
}

#[tokio::test]
async fn a_cancel_of_what_a_cut_off_node_runs_is_answered_when_its_lease_is_over() {
    let (site, mut nodes, bell) = three().await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    site.cut(0);
    let reply = nodes[2].cancel("part", &request, Mode::Force).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(ring.process.is_gone(), "it is stopped when that is said, by its own helper");
    let receipt = nodes[2].receipt(reply.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["parts"][0]["result"], "lease_over", "{receipt:#}");
    assert!(bell.is_silent().await, "nobody runs it again");
    site.mend(0);
    nodes[0].lives_again();
    assert_eq!(nodes[0].listed("part", &request).await, ("FAIL".to_owned(), 4208));
}

#[tokio::test]
async fn a_database_that_comes_back_within_the_lease_stops_nothing() {
    // Long enough for a database that recovers on a busy machine.
    let (mut site, nodes, bell) = three_with("60").await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let mut ring = bell.ring().await;
    site.database.crash();
    site.database.begin();
    within("it accepts again", async {
        let path = "/v2/default/fgs/functions/part/invocations-async";
        while nodes[1].post(path, &leaf(&bell, "two")).await.status != 202 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    bell.ring().await.release().await;
    ring.release().await;
    assert_eq!(nodes[2].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
}

#[tokio::test]
async fn a_database_that_stays_away_stops_everything_and_all_goes_on_when_it_is_back() {
    let (mut site, nodes, bell) = three().await;
    let request = nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let first = bell.ring().await;
    site.database.crash();
    within("its end with the lease", first.process.gone()).await;
    let refused = nodes[0].post("/v2/default/fgs/functions/part/invocations-async", &leaf(&bell, "no")).await;
    assert_eq!(refused.error().0, 503);
    site.database.begin();
    let mut second = within("it is run again", bell.ring()).await;
    assert_eq!(second.request(), request);
    second.release().await;
    assert_eq!(nodes[2].settled("part", &request).await, ("SUCCESS".to_owned(), 0));
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

#[tokio::test]
async fn a_node_waits_for_a_database_that_is_not_there_yet_and_can_be_ended_meanwhile() {
    let data = TestNode::folder();
    let url = "postgres://quell@127.0.0.1:1/postgres"; // nobody listens there
    let mut child = TestNode::command(data.path(), &["--store", url]).spawn().unwrap();
    let said = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let mut said = said.map_while(Result::ok);
    assert!(said.any(|line| line.contains("the database is not there")));
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    #[expect(clippy::disallowed_methods, reason = "our own child, not reaped yet: the pid is its own")]
    nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
    assert!(said.any(|line| line.contains("ended before it had started")));
    assert!(child.wait().unwrap().success());
}

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

/// The command line as a client of a node.
async fn types(site: &Site, at: usize, args: &[&str]) -> String {
    let mut command = TestNode::client_command(&site.folder(at), args);
    let done = within("quell", tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{args:?}: {out}{err}");
    out.into_owned()
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
    let said = types(&site, 1, &["plan", "--where", "function=part", "--force"]).await;
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
        let said = types(&site, at, &["cancel", &root, "--recursive", "--dry-run"]).await;
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
    let alone_says = types(&site, 1, &["ls"]).await;
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
            let said = types(&site, at, args).await;
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

/// A request that waits for a synchronous one, both on the node that is asked.
fn waiting_parent(bell: &Bell) -> Value {
    let child = json!([{ "function": "part", "sync": true, "event": leaf(bell, "child") }]);
    json!({ "bell": bell.path(), "tag": "parent", "children": child })
}

#[tokio::test]
async fn a_tree_is_stopped_by_a_wider_ask_though_its_top_was_stopped_before() {
    let (_site, nodes, bell) = three().await;
    let (root, rings) = spread(&nodes, &bell).await;
    let reply = nodes[0].cancel("part", &root, Mode::Plain).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(!rings["leaf"].process.is_gone(), "its children go on");
    let reply = nodes[0].cancel("part", &root, Mode::Both).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    for tag in ["middle", "leaf"] {
        assert!(rings[tag].process.is_gone(), "{tag} is alive after the answer");
    }
}

#[tokio::test]
async fn a_narrow_cancel_that_becomes_wider_on_its_way_lets_nothing_below_start() {
    let (_site, nodes, bell) = three().await;
    for _ in 0..5 {
        let mut busy = Vec::new();
        for at in [1, 2] {
            nodes[at].invoke_async("part", &leaf(&bell, "busy")).await;
            busy.push(bell.ring().await);
        }
        let child = json!([{ "function": "part", "sync": false, "event": leaf(&bell, "child") }]);
        let event = json!({ "bell": bell.path(), "tag": "root", "children": child });
        let root = nodes[0].invoke_async("part", &event).await;
        let _root = bell.ring().await;
        let (one, all) = tokio::join!(
            nodes[0].cancel("part", &root, Mode::Force),
            nodes[0].cancel("part", &root, Mode::Both)
        );
        assert_eq!((one.status, all.status), (200, 200), "{one:?} {all:?}");
        for mut ring in busy {
            ring.release().await;
            nodes[1].settled("part", &ring.request()).await;
        }
        assert!(bell.is_silent().await, "a child of a stopped tree began");
    }
}

#[tokio::test]
async fn a_synchronous_request_below_one_that_is_over_is_stopped_from_any_node() {
    let site = Site::build(2, LEASE_S);
    let mut nodes = Vec::new();
    for machine in 0..2 {
        nodes.push(site.start(machine, &["--max-instances", "2"]).await);
    }
    deploy(&nodes).await;
    let bell = Bell::hang_in_a_folder().await;
    let parent = nodes[0].invoke_async("part", &waiting_parent(&bell)).await;
    let rings = bell.rings(2).await;
    let reply = nodes[0].cancel("part", &parent, Mode::Plain).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(!rings["child"].process.is_gone(), "a child goes on");
    let reply = nodes[1].cancel("part", &parent, Mode::Both).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(rings["child"].process.is_gone(), "it is alive after the answer");
}

#[tokio::test]
async fn a_node_whose_database_does_not_answer_can_be_ended() {
    let (site, mut nodes, bell) = three().await;
    nodes[0].invoke_async("part", &leaf(&bell, "one")).await;
    let ring = bell.ring().await;
    site.cut(0);
    // Two: the second cuts the drain short.
    nodes[0].signal(Signal::SIGTERM);
    nodes[0].logs("draining");
    nodes[0].signal(Signal::SIGINT);
    within("the end of what ran", ring.process.gone()).await;
    nodes[0].ended().await;
    site.mend(0);
}
