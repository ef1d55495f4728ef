//! Three nodes on three machines with one database: trees that span them, stopped from any of them in every mode.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use serde_json::json;
use support::{
    Bell, Mode,
    parts::{chain, leaf, spread, waiting_parent},
    site::{LEASE_S, Site, deploy, three},
};

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
