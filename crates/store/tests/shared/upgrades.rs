//! A database that a newer program has brought one step further, and this program beside that one.

use cancel::{CancelId, Level, RequestId};
use store::{
    AliasRecord, BulkRecord, Claim, ElsewhereQuery, Fenced, FunctionFilter, Lineage, NewInvocation,
    NodeState, PartState, Placement, Postgres, Reach, Settlement, Shared, Status, Store, StoreError,
};

use crate::{
    lives::FenceOf,
    samples::*,
    server::{sql, value},
    subject::*,
};

/// A program of the next version brings the tables one step further.
fn migrated(home: &Home) {
    sql(&home.config, include_str!("next_version.sql"));
}

fn anywhere(id: u128) -> NewInvocation {
    NewInvocation { placement: Placement::Anywhere, ..invocation(id) }
}

fn below(id: u128, above: u128) -> NewInvocation {
    NewInvocation {
        parent: Some(RequestId(above)),
        lineage: Lineage { root: Some(RequestId(above)), above: vec![RequestId(above)] },
        ..anywhere(id)
    }
}

fn claim(limit: u32) -> Claim {
    Claim { limit, each: limit, not: Vec::new() }
}

fn ids(rows: &[store::InvocationRecord]) -> Vec<u128> {
    rows.iter().map(|row| row.request.0).collect()
}

/// What operators do: written and read, changed and deleted.
async fn administered(store: &dyn Store, at: &str) {
    let (key, name) = (key(at), at.to_owned());
    store.create_function(function(at, "d"), "code".into()).await.unwrap();
    assert!(store.update_function(function(at, "e"), Some("more".into())).await.unwrap());
    let mut first = function(at, "e");
    first.key.version = "1".into();
    assert!(store.publish_version(first.clone()).await.unwrap());
    let alias = AliasRecord {
        function: first.key.clone(),
        name: "live".into(),
        additional: None,
        description: String::new(),
        created_ms: 1,
        modified_ms: 1,
    };
    assert!(store.put_alias(alias.clone()).await.unwrap());
    assert!(store.aliases().await.unwrap().contains(&alias));
    assert!(store.delete_alias(key.clone(), "live".into()).await.unwrap());
    assert_eq!(store.versions(key.clone()).await.unwrap().len(), 2);
    assert_eq!(store.code("e".into()).await.unwrap(), Some("more".into()));
    assert!(store.put_async_config(key.clone(), "{}".into(), 1).await.unwrap());
    assert_eq!(store.async_configs(FunctionFilter::whole(key.clone())).await.unwrap().len(), 1);
    assert!(store.delete_async_config(key.clone()).await.unwrap());
    assert!(store.delete_version(first.key).await.unwrap());
    assert!(store.delete_function(key).await.unwrap());
    store.put_credential(credential(at, Some(at))).await.unwrap();
    assert_eq!(store.credential_of(at).await.unwrap().unwrap().key_id, name);
    assert!(store.delete_credential(name.clone()).await.unwrap());
    store.put_fact("a fact", name.clone()).await.unwrap();
    assert_eq!(store.keep_fact("a fact", "another".into()).await.unwrap(), name);
    let bulk = BulkRecord { project: "p".into(), key: name.clone(), body: "{}".into(), requests: None };
    store.begin_bulk(bulk).await.unwrap();
    store.end_bulk("p".into(), name.clone(), "{}".into()).await.unwrap();
    assert!(store.bulks().await.unwrap().iter().any(|bulk| bulk.key == name));
    assert!(store.forget_bulk("p".into(), name).await.unwrap());
}

/// Requests `base + 1 ...`: accepted on one node, claimed by the other, ended, handed on and cancelled between them.
async fn worked(one: &Postgres, other: &Postgres, base: u128) {
    one.accept(anywhere(base + 1)).await.unwrap();
    assert_eq!(ids(&other.claim(claim(9)).await.unwrap()), [base + 1]);
    assert_eq!(other.release(vec![RequestId(base + 1)]).await.unwrap(), [RequestId(base + 1)]);
    assert_eq!(ids(&other.claim(claim(9)).await.unwrap()), [base + 1]);
    other.mark_running(RequestId(base + 1), 1, 7).await.unwrap();
    other.mark_waiting(RequestId(base + 1), 1, 0).await.unwrap();
    let next = Some(Box::new(anywhere(base + 2)));
    let end = Settlement { next, ..settlement(base + 1, Status::Success, 8) };
    assert!(other.settle(end).await.unwrap());
    assert_eq!(ids(&one.claim(claim(9)).await.unwrap()), [base + 2], "what its result makes");
    other.accept(below(base + 3, base + 2)).await.unwrap();
    assert_eq!(ids(&other.claim(claim(9)).await.unwrap()), [base + 3]);
    assert_eq!(one.below(RequestId(base + 2), 9).await.unwrap().len(), 2);
    let seen = one
        .select(ElsewhereQuery { project: "p".into(), limit: 9, ..ElsewhereQuery::default() })
        .await
        .unwrap();
    assert!(seen.rows.iter().any(|row| row.row.request == RequestId(base + 3)), "{seen:?}");
    // A cancel of what the other has, of the whole tree, and its end there.
    let fenced = other.fence(FenceOf { cancel: base + 9, target: base + 2 }.ask()).await.unwrap();
    let Fenced::Stopping { parts, .. } = fenced else { panic!("{fenced:?}") };
    assert_eq!(parts.len(), 2, "one on each node: {parts:?}");
    let mine = one.parts().await.unwrap();
    assert_eq!(mine.len(), 1, "{mine:#?}");
    one.report(mine[0].part, PartState::Stopped, String::new()).await.unwrap();
    assert!(one.settle(settlement(base + 2, Status::Fail, 9)).await.unwrap());
    for part in other.parts().await.unwrap() {
        other.report(part.part, PartState::Stopped, String::new()).await.unwrap();
    }
    assert!(other.settle(settlement(base + 3, Status::Fail, 9)).await.unwrap());
    let told = one.parts_of(CancelId(base + 9)).await.unwrap();
    assert!(told.iter().all(|part| part.state == PartState::Stopped), "{told:?}");
    assert_eq!(one.accept(below(base + 4, base + 2)).await, Err(StoreError::Banned));
    // One of its own, that reaches over nodes, and its receipt.
    one.accept(invocation(base + 5)).await.unwrap();
    let reach = Some(Reach { root: RequestId(base + 5), level: Level::Kill, actor: "{}".into() });
    let mut ask = receipt(base + 8, &[base + 5]);
    ask.reach = reach;
    one.record_cancel(ask).await.unwrap();
    assert!(one.settle(settlement(base + 5, Status::Discard, 9)).await.unwrap());
    one.update_receipt(CancelId(base + 8), "{\"closed\":1}".into()).await.unwrap();
    assert_eq!(other.receipt(CancelId(base + 8)).await.unwrap().unwrap().body, "{\"closed\":1}");
    assert!(other.receipt_of(RequestId(base + 5)).await.unwrap().is_some());
    assert!(one.invocations(query()).await.unwrap().rows.len() >= 3);
    assert!(one.unsettled(None, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_node_goes_on_beside_one_of_the_next_version_which_has_changed_the_tables_under_it() {
    let home = home();
    let (old, other) = (home.node(0), home.node(1));
    soon(async {
        // What they have prepared and what they keep open is of the tables as they were.
        administered(&old, "before").await;
        worked(&old, &other, 100).await;
        migrated(&home);
        administered(&old, "after").await;
        worked(&old, &other, 200).await;
        assert!(old.renew().await.unwrap().lapsed.is_empty());
        // And one of this version that begins only now.
        let young = home.node(2);
        administered(&young, "young").await;
        worked(&young, &old, 300).await;
        worked(&old, &young, 400).await;
        other.drain().await.unwrap();
        other.leave().await.unwrap();
        let states: Vec<_> = old.nodes().await.unwrap().iter().map(|node| node.state).collect();
        assert_eq!(states, [NodeState::Live, NodeState::Left, NodeState::Live]);
        assert!(old.prune(i64::MAX, 100).await.unwrap() > 0);
    })
    .await;
}

#[tokio::test]
async fn what_a_node_of_one_version_left_is_taken_over_by_one_of_the_other() {
    let home = home();
    let (gone, old) = (home.open(0), home.node(1));
    soon(async {
        gone.join(joining(1)).await.unwrap();
        gone.accept(invocation(1)).await.unwrap();
        gone.mark_running(RequestId(1), 1, 7).await.unwrap();
        migrated(&home);
        while old.renew().await.unwrap().lapsed != [name(0)] {}
        assert!(old.take_over(name(0)).await.unwrap());
        assert_eq!(ids(&old.claim(claim(9)).await.unwrap()), [1]);
        assert_eq!(gone.settle(settlement(1, Status::Success, 9)).await, Err(StoreError::Lapsed));
    })
    .await;
}

#[tokio::test]
async fn a_database_two_steps_further_is_refused_with_both_versions_and_left_as_it_is() {
    let home = home();
    drop(home.open(0));
    migrated(&home);
    drop(home.open(0));
    migrated(&home);
    let known: u32 = value(&home.config, "SELECT version - 2 FROM quell_schema").parse().unwrap();
    match Postgres::connect(&home.config, None, None, name(0), home.folders[0].path()).err() {
        Some(StoreError::Unopenable(why)) => assert_eq!(
            why,
            format!(
                "the database has version {}, for programs that know {} at least; this one knows {known}: use the newer \
                 program",
                known + 2,
                known + 1
            )
        ),
        other => panic!("{other:?}"),
    }
    let left = value(&home.config, "SELECT version || ' ' || oldest_program FROM quell_schema");
    assert_eq!(left, format!("{} {}", known + 2, known + 1));
}
