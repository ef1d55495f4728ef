//! The shared queue: in order, fair, and each request to one node.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use std::time::SystemTime;

use cancel::RequestId;
use store::{Claim, NewInvocation, News, Placement, Shared, Store};

use crate::{samples::*, subject::*};

fn queued(id: u128, function: &str) -> NewInvocation {
    NewInvocation { placement: Placement::Anywhere, function: key(function).into(), ..invocation(id) }
}

fn ids(rows: &[store::InvocationRecord]) -> Vec<u128> {
    rows.iter().map(|row| row.request.0).collect()
}

#[tokio::test]
async fn a_claim_is_fair_between_functions_and_in_order_within_each() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        for id in 0..50 {
            a.accept(queued(id, "busy")).await.unwrap();
        }
        for id in 50..53 {
            a.accept(queued(id, "quiet")).await.unwrap();
        }
        a.accept(queued(60, "other")).await.unwrap();
        let claim = async |limit, each, not: &[&str]| {
            let not = not.iter().map(|name| key(name)).collect();
            ids(&b.claim(Claim { limit, each, not }).await.unwrap())
        };
        assert_eq!(claim(0, 9, &[]).await, [0_u128; 0]);
        assert_eq!(claim(6, 9, &[]).await, [0, 1, 2, 50, 51, 60]);
        assert_eq!(claim(9, 2, &["quiet"]).await, [3, 4]);
        assert_eq!(claim(9, 2, &[]).await, [5, 6, 52]);
        assert_eq!(claim(100, 100, &[]).await, (7..50).collect::<Vec<_>>());
        assert!(!b.renew().await.unwrap().waiting);
        let all = b.unsettled(None, 1_000).await.unwrap();
        assert_eq!((all.len(), all[0].payload_len), (54, 7));
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_its_next_attempt_is_not_claimed_before_its_time() {
    let home = home();
    let a = home.node(0);
    soon(async {
        for (id, until) in [(1, i64::MAX), (2, 5)] {
            a.accept(invocation(id)).await.unwrap();
            a.mark_waiting(RequestId(id), 1, until).await.unwrap();
        }
        a.release(vec![RequestId(1), RequestId(2)]).await.unwrap();
        assert_eq!(ids(&a.claim(Claim { limit: 9, each: 9, not: vec![] }).await.unwrap()), [2]);
        assert!(!a.renew().await.unwrap().waiting);
    })
    .await;
}

#[tokio::test]
async fn what_waited_for_its_next_attempt_is_claimed_as_due_by_whoever_comes_then() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        a.accept(invocation(1)).await.unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let due = i64::try_from(now.as_millis()).unwrap() + 100;
        a.mark_waiting(RequestId(1), 1, due).await.unwrap();
        let kept = a.invocation(RequestId(1)).await.unwrap().unwrap().not_before_ms;
        assert!((due..due + 60_000).contains(&kept), "{due} {kept}");
        a.release(vec![RequestId(1)]).await.unwrap();
        let claimed = loop {
            let claimed = b.claim(Claim { limit: 9, each: 9, not: vec![] }).await.unwrap();
            if !claimed.is_empty() {
                break claimed;
            }
        };
        // Nothing is left to wait for, though this node's clock may say so.
        assert_eq!((claimed[0].failures, claimed[0].not_before_ms), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn whoever_waits_for_work_hears_of_it_the_own_node_too() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        let (mut at_a, mut at_b) = (a.news(), b.news());
        a.accept(invocation(1)).await.unwrap();
        a.accept(queued(2, "f")).await.unwrap();
        assert_eq!(at_a.recv().await, Ok(News::Queue));
        assert_eq!(at_b.recv().await, Ok(News::Queue));
        b.create_function(function("f", "d"), "code".into()).await.unwrap();
        assert_eq!(at_a.recv().await, Ok(News::Functions));
        let before = a.renew().await.unwrap();
        b.put_credential(credential("k", None)).await.unwrap();
        assert_eq!(at_a.recv().await, Ok(News::Credentials));
        let beat = a.renew().await.unwrap();
        assert_eq!((beat.functions, beat.credentials), (before.functions, before.credentials + 1));
    })
    .await;
}

#[tokio::test]
async fn what_is_revoked_on_one_node_opens_nothing_on_another_that_heard_of_it() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        a.put_credential(credential("k", Some("ann"))).await.unwrap();
        assert!(b.credential("k").await.unwrap().is_some());
        assert!(b.credential("k").await.unwrap().is_some());
        let mut news = b.news();
        assert_eq!(a.delete_credential("k".into()).await, Ok(true));
        while news.recv().await.unwrap() != News::Credentials {}
        assert_eq!(b.credential("k").await, Ok(None));
        assert_eq!(b.credential_of("ann").await, Ok(None));
    })
    .await;
}

/// Requests in the queue, and nodes that take them.
const REQUESTS: u128 = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_claim_every_request_once_and_in_order_while_more_come() {
    let home = Arc::new(home());
    let nodes: Vec<_> = (0..4).map(|number| Arc::new(home.node(number))).collect();
    let claimed = Arc::new(Mutex::new(BTreeMap::new()));
    let filling = {
        let node = Arc::clone(&nodes[0]);
        async move {
            let accepts: Vec<_> = (0..REQUESTS)
                .map(|id| node.accept(queued(id, if id % 7 == 0 { "rare" } else { "often" })))
                .collect();
            for accept in accepts {
                accept.await.unwrap();
            }
        }
    };
    soon(async {
        let claimers = nodes.iter().enumerate().map(|(number, node)| {
            let (node, claimed) = (Arc::clone(node), Arc::clone(&claimed));
            tokio::spawn(async move {
                while claimed.lock().unwrap().len() < REQUESTS as usize {
                    let rows = node.claim(Claim { limit: 16, each: 10, not: vec![] }).await.unwrap();
                    let mut claimed = claimed.lock().unwrap();
                    for row in &rows {
                        assert_eq!(claimed.insert(row.request, number), None, "{:?} went twice", row.request);
                    }
                }
            })
        });
        let claimers: Vec<_> = claimers.collect();
        filling.await;
        for claimer in claimers {
            claimer.await.unwrap();
        }
        let mut owned = 0;
        for (number, node) in nodes.iter().enumerate() {
            for row in node.unsettled(None, 10_000).await.unwrap() {
                assert_eq!(claimed.lock().unwrap().get(&row.request), Some(&number));
                owned += 1;
            }
        }
        assert_eq!(owned, REQUESTS);
    })
    .await;
}
