//! Labels of nodes: who may claim what, and what nobody may.

use bytes::Bytes;
use store::{
    Claim, FunctionRecord, Joining, NewInvocation, NodeLabels, Placement, Postgres, Shared as _, Store as _,
};

use crate::{samples::*, server, subject::*};

fn labels(all: &[&str]) -> NodeLabels {
    NodeLabels::new(all).unwrap()
}

/// A node with these labels.
fn labelled(home: &Home, number: usize, all: &[&str]) -> Postgres {
    let store = home.open(number);
    wait(store.join(Joining { labels: labels(all), ..joining(60_000) })).unwrap();
    store
}

/// A function that asks for these.
fn asking(name: &str, all: &[&str]) -> FunctionRecord {
    let all = all.iter().map(|label| format!("{label:?}")).collect::<Vec<_>>().join(",");
    let config = format!(r#"{{"timeout":3,"quell":{{"node_labels":[{all}]}}}}"#);
    FunctionRecord { config, ..function(name, "d") }
}

fn queued(id: u128, function: &str) -> NewInvocation {
    NewInvocation { placement: Placement::Anywhere, function: key(function).into(), ..invocation(id) }
}

async fn claimed(node: &Postgres) -> Vec<u128> {
    let rows = node.claim(Claim { limit: 9, each: 9, not: vec![] }).await.unwrap();
    rows.iter().map(|row| row.request.0).collect()
}

#[tokio::test]
async fn requests_go_to_nodes_that_have_all_the_labels_their_function_asks_for() {
    let home = home();
    let (plain, half) = (home.node(0), labelled(&home, 1, &["gpu"]));
    let whole = labelled(&home, 2, &["gpu", "zone=a"]);
    soon(async {
        let code = || Bytes::from("code");
        for (name, asked) in [("both", &["zone=a", "gpu"][..]), ("gpu", &["gpu"]), ("any", &[])] {
            plain.create_function(asking(name, asked), code()).await.unwrap();
        }
        for (id, name) in [(1, "both"), (2, "gpu"), (3, "any"), (4, "both"), (5, "gone")] {
            plain.accept(queued(id, name)).await.unwrap();
        }
        // Whose function is gone is anybody's: he finds that out.
        assert_eq!(claimed(&plain).await, [3, 5]);
        assert_eq!(claimed(&half).await, [2]);
        assert_eq!(claimed(&whole).await, [1, 4]);
        let shown = plain.nodes().await.unwrap();
        let shown: Vec<String> = shown.iter().map(|node| node.labels.to_string()).collect();
        assert_eq!(shown, ["", "gpu", "gpu, zone=a"]);
    })
    .await;
}

#[tokio::test]
async fn what_no_live_node_may_run_is_told_until_one_may() {
    let home = home();
    let (plain, gpu) = (home.node(0), labelled(&home, 1, &["gpu"]));
    soon(async {
        for (name, asked) in [("f", &["gpu", "zone=b"][..]), ("g", &["gpu"]), ("h", &[])] {
            plain.create_function(asking(name, asked), Bytes::from("code")).await.unwrap();
        }
        assert_eq!(plain.unplaceable(9).await.unwrap(), []); // nothing of them waits
        for (id, name) in [(1, "f"), (2, "g"), (3, "h"), (4, "f")] {
            plain.accept(queued(id, name)).await.unwrap();
        }
        let lacking = (key("f"), labels(&["gpu", "zone=b"]));
        assert_eq!(plain.unplaceable(9).await.unwrap(), std::slice::from_ref(&lacking));
        gpu.drain().await.unwrap(); // it takes nothing new
        assert_eq!(plain.unplaceable(9).await.unwrap(), [lacking.clone(), (key("g"), labels(&["gpu"]))]);
        assert_eq!(plain.unplaceable(1).await.unwrap(), [lacking]);
        assert_eq!(claimed(&plain).await, [3]);
        // The function asks for less, and the node has a new life with other labels.
        plain.update_function(asking("f", &["zone=b"]), None).await.unwrap();
        let again = Joining { labels: labels(&["zone=b"]), ..joining(60_000) };
        plain.join(again).await.unwrap();
        assert_eq!(plain.unplaceable(9).await.unwrap(), [(key("g"), labels(&["gpu"]))]);
        assert_eq!(claimed(&plain).await, [1, 4]);
    })
    .await;
}

#[tokio::test]
async fn a_program_of_the_version_before_joins_and_deploys_and_has_no_labels() {
    let home = home();
    let node = labelled(&home, 0, &["gpu"]);
    // As that program says it.
    server::sql(
        &home.config,
        "INSERT INTO nodes (node, epoch, state, endpoint, version, lease_ms, joined_ms, lease_until)
         VALUES ('f', 1, 0, 'http://there:1', '0', 60000, 0, clock_timestamp() + interval '1 minute');
         INSERT INTO functions (project, package, name, version, revision, config, code_digest, code_size, created_ms,
                                modified_ms)
         VALUES ('p', 'default', 'old', 'latest', 1, '{}', 'd', 4, 1, 1);
         INSERT INTO bulks (project, key, body, requests, node) VALUES ('p', 'k', '{}', '[]', 'f')",
    );
    soon(async {
        let nodes = node.nodes().await.unwrap();
        assert_eq!((nodes.len(), nodes[1].labels.is_empty()), (2, true));
        node.accept(queued(1, "old")).await.unwrap();
        assert_eq!(claimed(&node).await, [1]);
    })
    .await;
}
