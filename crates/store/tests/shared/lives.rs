//! Lives of nodes: leases, epochs, and what becomes of the work of who is gone.

use cancel::{CancelId, RequestId};
use store::{
    Claim, Joining, NewInvocation, NodeState, PartState, Placement, Postgres, Shared as _, Status,
    Store as _, StoreError,
};

use crate::{samples::*, subject::*};

fn anything() -> Claim {
    Claim { limit: 100, each: 100, not: Vec::new() }
}

#[tokio::test]
async fn before_it_joins_a_node_writes_only_what_belongs_to_no_node() {
    let home = home();
    let store = home.open(0);
    soon(async {
        assert_eq!(store.accept(invocation(1)).await, Err(StoreError::Lapsed));
        assert_eq!(store.claim(anything()).await, Err(StoreError::Lapsed));
        assert_eq!(store.renew().await, Err(StoreError::Lapsed));
        store.put_fact("lives", "1".into()).await.unwrap();
        store.put_credential(credential("a", None)).await.unwrap();
        store.create_function(function("f", "d"), "code".into()).await.unwrap();
        assert_eq!(store.fact("node").await, Ok(Some(name(0))));
        assert_eq!(store.fact("lives").await, Ok(Some("1".into())));
        assert!(matches!(store.put_fact("node", "x".into()).await, Err(StoreError::Unsupported(_))));
        assert!(matches!(store.backup("x".into()).await, Err(StoreError::Unsupported(_))));
    })
    .await;
}

#[tokio::test]
async fn a_second_life_ends_the_first_and_has_what_it_owned() {
    let home = home();
    let first = home.open(0);
    soon(async {
        // A lease of no length is over at once: it sleeps.
        first.join(joining(0)).await.unwrap();
        first.accept(invocation(1)).await.unwrap();
        let second = copy_of(&home, 1);
        assert_eq!(second.join(joining(60_000)).await, Ok(2));
        assert_eq!(first.accept(invocation(2)).await, Err(StoreError::Lapsed));
        assert_eq!(first.settle(settlement(1, Status::Success, 5)).await, Err(StoreError::Lapsed));
        assert_eq!(first.renew().await, Err(StoreError::Lapsed));
        assert_eq!(first.put_fact("x", "y".into()).await, Err(StoreError::Lapsed));
        assert_eq!(first.take_over(name(1)).await, Err(StoreError::Lapsed));
        assert_eq!(second.invocation(RequestId(2)).await, Ok(None));
        let mine = second.unsettled(None, 10).await.unwrap();
        assert_eq!(mine.iter().map(|row| row.request.0).collect::<Vec<_>>(), [1]);
    })
    .await;
}

/// The node 0 from a copy of its folder: it could be anywhere.
fn copy_of(home: &Home, folder: usize) -> Postgres {
    Postgres::connect(&home.config, None, None, name(0), home.folders[folder].path()).unwrap()
}

#[tokio::test]
async fn a_copy_of_a_folder_does_not_join_as_long_as_its_node_holds_its_lease() {
    let home = home();
    let (node, copy) = (home.node(0), copy_of(&home, 1));
    soon(async {
        // By its folder, whatever endpoint it has; two machines behind one name may have the same.
        for endpoint in ["http://here:1", "http://there:1"] {
            let found = copy.namesake(endpoint.to_owned()).await.unwrap().unwrap();
            assert_eq!(found.endpoint, "http://here:1");
            assert!((1..=60_000).contains(&found.left_ms), "{found:?}");
            let joining = Joining { endpoint: endpoint.to_owned(), ..joining(60_000) };
            assert!(matches!(copy.join(joining).await, Err(StoreError::Namesake(_))));
        }
        assert_eq!(node.namesake("http://anywhere:1".to_owned()).await, Ok(None), "it is itself");
        node.renew().await.unwrap();
        node.accept(invocation(1)).await.unwrap();
        node.drain().await.unwrap();
        let before = copy.namesake(String::new()).await.unwrap().unwrap();
        node.renew().await.unwrap();
        let after = copy.namesake(String::new()).await.unwrap().unwrap();
        assert!(after.until_us > before.until_us, "what is renewed shows: {before:?} {after:?}");
        node.leave().await.unwrap();
        assert_eq!(copy.join(joining(60_000)).await, Ok(3), "nobody has the name");
        assert!(
            matches!(node.join(joining(60_000)).await, Err(StoreError::Namesake(_))),
            "now that is the node"
        );
    })
    .await;
}

#[tokio::test]
async fn a_node_that_was_killed_joins_again_at_once_at_any_endpoint() {
    let home = home();
    drop(home.node(0));
    let again = home.open(0);
    soon(async {
        let joining = Joining { endpoint: "http://here:2".to_owned(), ..joining(60_000) };
        assert_eq!(again.namesake(joining.endpoint.clone()).await, Ok(None));
        assert_eq!(again.join(joining).await, Ok(2));
    })
    .await;
}

#[tokio::test]
async fn a_node_of_the_last_version_is_known_by_its_endpoint() {
    let home = home();
    drop(home.node(0));
    // The tables as that version made them, and its join.
    crate::server::sql(
        &home.config,
        "ALTER TABLE nodes DROP COLUMN place, DROP COLUMN labels; ALTER TABLE functions DROP COLUMN node_labels;
         ALTER TABLE bulks DROP COLUMN called_off; DROP INDEX bulks_running;
         UPDATE quell_schema SET version = 1, oldest_program = 1;",
    );
    let node = home.open(0);
    let old_join = "INSERT INTO nodes (node, epoch, state, endpoint, version, lease_ms, joined_ms, lease_until)
         VALUES ('00000000000000000000000000000000', 1, 0, 'http://here:1', '0', 60000, 5, clock_timestamp() + interval '60 s')
         ON CONFLICT (node) DO UPDATE
         SET epoch = nodes.epoch + 1, state = 0, endpoint = excluded.endpoint, version = excluded.version,
             lease_ms = excluded.lease_ms, joined_ms = excluded.joined_ms, lease_until = excluded.lease_until";
    crate::server::sql(&home.config, old_join);
    soon(async {
        let elsewhere = Joining { endpoint: "http://there:1".into(), ..joining(60_000) };
        assert!(matches!(node.join(elsewhere).await, Err(StoreError::Namesake(_))));
        assert_eq!(node.join(joining(60_000)).await, Ok(3));
    })
    .await;
    // And it goes on beside this one.
    crate::server::sql(&home.config, old_join);
}

#[tokio::test]
async fn one_folder_has_one_process() {
    let home = home();
    let _store = home.open(0);
    let second = Postgres::connect(&home.config, None, None, name(0), home.folders[0].path()).err();
    assert_eq!(second, Some(StoreError::Locked(home.folders[0].path().display().to_string())));
    for wrong in ["", "A0", "../etc", &"g".repeat(32)] {
        let refused = Postgres::connect(&home.config, None, None, wrong.into(), home.folders[1].path());
        assert!(matches!(refused.err(), Some(StoreError::Unopenable(_))), "{wrong}");
    }
}

#[tokio::test]
async fn a_node_is_taken_over_when_its_lease_is_over_and_by_one() {
    let home = home();
    let (gone, a, b) = (home.open(0), home.node(1), home.node(2));
    soon(async {
        gone.join(joining(60_000)).await.unwrap();
        for id in 1..=4 {
            gone.accept(invocation(id)).await.unwrap();
        }
        for id in [2, 3, 4] {
            gone.mark_running(RequestId(id), 1, 7).await.unwrap();
        }
        gone.settle(settlement(4, Status::Success, 8)).await.unwrap();
        gone.record_cancel(receipt(9, &[3])).await.unwrap();
        assert_eq!(a.take_over(name(0)).await, Ok(false), "it holds its lease");
        assert_eq!(a.renew().await.unwrap().lapsed, [""; 0]);
        // A lease of no length is over at once.
        gone.join(joining(0)).await.unwrap();
        assert_eq!(a.renew().await.unwrap().lapsed, [name(0)]);
        let (first, second) = tokio::join!(a.take_over(name(0)), b.take_over(name(0)));
        assert_eq!([first, second].iter().filter(|taken| **taken == Ok(true)).count(), 1);
        assert_eq!(gone.accept(invocation(5)).await, Err(StoreError::Lapsed));
        assert_eq!(gone.renew().await, Err(StoreError::Lapsed));
        let row = async |id| a.invocation(RequestId(id)).await.unwrap().unwrap();
        assert_eq!((row(2).await.status, row(2).await.attempts), (Status::Wait, 1));
        let canceled = row(3).await;
        assert_eq!((canceled.status, canceled.error_code), (Status::Fail, 4208));
        assert!(canceled.ended_ms.is_some());
        assert_eq!(row(4).await.status, Status::Success);
        assert!(b.renew().await.unwrap().waiting);
        let claimed = b.claim(anything()).await.unwrap();
        assert_eq!(claimed.iter().map(|row| row.request.0).collect::<Vec<_>>(), [1, 2]);
        let nodes = a.nodes().await.unwrap();
        let states: Vec<_> = nodes.iter().map(|node| (node.state, node.owns)).collect();
        assert_eq!(states, [(NodeState::Fenced, 0), (NodeState::Live, 0), (NodeState::Live, 2)]);
        // It may come back, as a new life that owns nothing.
        assert_eq!(gone.join(joining(60_000)).await, Ok(4));
        assert_eq!(gone.unsettled(None, 10).await, Ok(vec![]));
        gone.accept(invocation(5)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn two_nodes_that_take_each_other_over_do_not_wait_for_each_other() {
    let home = home();
    let (a, b) = (home.open(0), home.open(1));
    soon(async {
        for _ in 0..20 {
            a.join(joining(0)).await.unwrap();
            b.join(joining(0)).await.unwrap();
            let taken = tokio::join!(a.take_over(name(1)), b.take_over(name(0)));
            match taken {
                (Ok(true), Err(StoreError::Lapsed) | Ok(false))
                | (Err(StoreError::Lapsed) | Ok(false), Ok(true)) => {}
                // In each other's way: whoever looks again is alone.
                (Ok(false), Ok(false)) => assert_eq!(a.take_over(name(1)).await, Ok(true)),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn who_leaves_gives_back_what_it_owns_and_answers_what_it_was_asked() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        for id in 1..=3 {
            a.accept(invocation(id)).await.unwrap();
        }
        let of = FenceOf { cancel: 9, target: 3 }.kill();
        assert!(matches!(b.fence(of).await, Ok(store::Fenced::Stopping { .. })));
        a.drain().await.unwrap();
        a.accept(invocation(4)).await.unwrap();
        assert_eq!(b.nodes().await.unwrap()[0].state, NodeState::Draining);
        assert_eq!(a.leave().await, Ok(3));
        assert_eq!(a.accept(invocation(5)).await, Err(StoreError::Lapsed));
        assert_eq!(a.leave().await, Err(StoreError::Lapsed));
        assert_eq!(b.nodes().await.unwrap()[0].state, NodeState::Left);
        let parts = b.parts_of(CancelId(9)).await.unwrap();
        assert_eq!((parts.len(), parts[0].state), (1, PartState::Stopped));
        assert_eq!(b.invocation(RequestId(3)).await.unwrap().unwrap().error_code, 4208);
        assert_eq!(b.claim(anything()).await.unwrap().len(), 3);
        assert_eq!(b.take_over(name(0)).await, Ok(false), "it owns nothing any more");
    })
    .await;
}

#[tokio::test]
async fn what_is_released_can_be_claimed_and_what_is_fenced_or_runs_is_not_released() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        for id in 1..=4 {
            a.accept(invocation(id)).await.unwrap();
        }
        a.record_cancel(receipt(9, &[2])).await.unwrap();
        a.mark_running(RequestId(3), 1, 5).await.unwrap();
        b.accept(invocation(10)).await.unwrap();
        let all = [1, 2, 3, 10, 77].map(RequestId).to_vec();
        assert_eq!(a.release(all).await, Ok(vec![RequestId(1)]));
        assert_eq!(a.unsettled(None, 10).await.unwrap().len(), 3);
        // Nobody owns it: nobody changes it.
        assert_eq!(a.settle(settlement(1, Status::Success, 5)).await, Ok(false));
        let later = NewInvocation { placement: Placement::Anywhere, ..invocation(5) };
        a.accept(later).await.unwrap();
        let claimed = b.claim(anything()).await.unwrap();
        assert_eq!(claimed.iter().map(|row| row.request.0).collect::<Vec<_>>(), [1, 5]);
        assert_eq!(b.settle(settlement(1, Status::Success, 5)).await, Ok(true));
    })
    .await;
}

#[tokio::test]
async fn what_one_node_keeps_for_itself_another_does_not_see() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        a.record_cancel(receipt(9, &[1])).await.unwrap();
        let bulk = store::BulkRecord {
            project: "p".into(),
            key: "k".into(),
            body: "{}".into(),
            requests: Some("[]".into()),
        };
        a.begin_bulk(bulk.clone()).await.unwrap();
        assert_eq!(b.begin_bulk(bulk).await, Err(StoreError::Exists), "the key is the project's");
        assert_eq!((b.open_receipts(9).await.unwrap(), b.bulks().await.unwrap()), (vec![], vec![]));
        assert_eq!((a.open_receipts(9).await.unwrap().len(), a.bulks().await.unwrap().len()), (1, 1));
        assert!(b.receipt(CancelId(9)).await.unwrap().is_some());
    })
    .await;
}

#[tokio::test]
async fn open_receipts_of_nodes_that_are_gone_are_adopted_once_and_are_not_theirs_any_more() {
    let home = home();
    let (left, lost, a, b) = (home.node(0), home.open(1), home.node(2), home.node(3));
    let ids = |mut rows: Vec<store::ReceiptRecord>| {
        rows.sort_by_key(|row| row.cancel.0);
        rows.into_iter().map(|row| row.cancel.0).collect::<Vec<_>>()
    };
    soon(async {
        lost.join(joining(60_000)).await.unwrap();
        for id in [1, 2] {
            left.record_cancel(receipt(id, &[id])).await.unwrap();
        }
        for id in 11..=15 {
            lost.record_cancel(receipt(id, &[id])).await.unwrap();
        }
        a.record_cancel(receipt(21, &[21])).await.unwrap();
        lost.update_receipt(CancelId(11), "{}".into()).await.unwrap();
        assert!(!a.renew().await.unwrap().orphans, "everybody is there");
        assert_eq!(a.adopt(100).await, Ok(vec![]));
        left.drain().await.unwrap();
        assert_eq!(a.adopt(100).await, Ok(vec![]), "it drains, and may close them");
        left.leave().await.unwrap();
        lost.join(joining(0)).await.unwrap();
        assert_eq!(ids(a.adopt(100).await.unwrap()), [1, 2], "of who left");
        assert_eq!(a.take_over(name(1)).await, Ok(true));
        assert!(b.renew().await.unwrap().orphans);
        let (one, other) = tokio::join!(a.adopt(2), b.adopt(2));
        let adopted = [one.unwrap(), other.unwrap(), a.adopt(100).await.unwrap()].concat();
        assert_eq!(ids(adopted), [12, 13, 14, 15], "each once, and none that was closed");
        assert!(!b.renew().await.unwrap().orphans);
        // They come back.
        left.join(joining(60_000)).await.unwrap();
        lost.join(joining(60_000)).await.unwrap();
        assert_eq!((left.open_receipts(100).await, lost.open_receipts(100).await), (Ok(vec![]), Ok(vec![])));
        b.update_receipt(CancelId(1), "{\"closed\":1}".into()).await.unwrap();
        let own = [a.open_receipts(100).await.unwrap(), b.open_receipts(100).await.unwrap()].concat();
        assert_eq!(ids(own), [2, 12, 13, 14, 15, 21], "those of the adopters, until they are closed");
    })
    .await;
}

#[test]
fn nodes_that_start_at_once_make_the_tables_once() {
    let home = home();
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4)
            .map(|node| {
                scope.spawn({
                    let home = &home;
                    move || home.node(node)
                })
            })
            .collect();
        for start in starts {
            start.join().unwrap();
        }
    });
    assert_eq!(wait(home.open(0).nodes()).unwrap().len(), 4);
}

#[tokio::test]
async fn a_newer_database_is_refused_unless_it_says_that_this_program_may() {
    let home = home();
    drop(home.open(0));
    let sql = |text: &'static str| crate::server::sql(&home.config, text);
    sql("UPDATE quell_schema SET version = version + 1");
    drop(home.open(0));
    sql("UPDATE quell_schema SET version = version + 1, oldest_program = version");
    match Postgres::connect(&home.config, None, None, name(0), home.folders[0].path()).err() {
        Some(StoreError::Unopenable(why)) => assert!(why.contains("newer program"), "{why}"),
        other => panic!("{other:?}"),
    }
    let other = home_of_others();
    match Postgres::connect(&other, None, None, name(0), home.folders[0].path()).err() {
        Some(StoreError::Unopenable(why)) => assert!(why.contains("not quell's"), "{why}"),
        other => panic!("{other:?}"),
    }
}

fn home_of_others() -> String {
    let config = crate::server::shared().database();
    crate::server::sql(&config, "CREATE TABLE songs (name TEXT)");
    config
}

/// A cancel in short.
pub(crate) struct FenceOf {
    pub(crate) cancel: u128,
    pub(crate) target: u128,
}

impl FenceOf {
    pub(crate) fn ask(self) -> store::Fence {
        store::Fence {
            cancel: CancelId(self.cancel),
            target: RequestId(self.target),
            function: store::FunctionFilter::whole(key("f")),
            scope: cancel::Scope::Subtree,
            level: cancel::Level::Ask,
            body: "{}".into(),
            actor: "{\"who\":1}".into(),
            now_ms: 50,
        }
    }

    pub(crate) fn kill(self) -> store::Fence {
        store::Fence { level: cancel::Level::Kill, ..self.ask() }
    }
}
