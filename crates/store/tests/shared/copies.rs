//! From one node to several: what an embedded store has is in PostgreSQL afterwards, once.

use bytes::Bytes;
use cancel::{CancelId, RequestId};
use store::{
    AliasRecord, BulkRecord, Embedded, FunctionFilter, InvocationQuery, LATEST, Labels, NewInvocation,
    Shared as _, Status, Store, StoreError,
};

use crate::{samples::*, subject::*};

async fn filled() -> (Embedded, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path()).unwrap();
    store.create_function(function("f", "d"), Bytes::from_static(b"code")).await.unwrap();
    store.create_function(function("gone", "e"), Bytes::from_static(b"else")).await.unwrap();
    store.put_async_config(key("f"), "{\"a\":1}".into(), 7).await.unwrap();
    let alias = AliasRecord {
        function: key("f").at(LATEST),
        name: "prod".into(),
        additional: None,
        description: String::new(),
        created_ms: 1,
        modified_ms: 2,
    };
    store.put_alias(alias).await.unwrap();
    store.put_credential(credential("k", Some("ann"))).await.unwrap();
    // More than a page; the first made the second, which made the third; later ids come first.
    for id in (1..=40).rev() {
        let parent = [2, 3].contains(&id).then(|| RequestId(id - 1));
        let labels = Labels::new([("nul\0".to_owned(), "x".to_owned())].into());
        let (alias, hops) = (Some("prod".into()), 3);
        let of = if id == 40 { key("gone") } else { key("f") };
        let new = NewInvocation { parent, labels, alias, hops, function: of.into(), ..invocation(id) };
        store.accept(new).await.unwrap();
    }
    store.delete_function(key("gone")).await.unwrap();
    store.mark_running(RequestId(3), 2, 50).await.unwrap();
    store.mark_waiting(RequestId(4), 1, 99).await.unwrap();
    store.settle(settlement(2, Status::Success, 60)).await.unwrap();
    store.record_cancel(receipt(9, &[5, 77])).await.unwrap();
    store.record_cancel(receipt(8, &[5])).await.unwrap();
    store.update_receipt(CancelId(8), "over".into()).await.unwrap();
    let bulk =
        BulkRecord { project: "p".into(), key: "k".into(), body: "{}".into(), requests: Some("[]".into()) };
    store.begin_bulk(bulk).await.unwrap();
    store.put_fact("node", "me".into()).await.unwrap();
    store.put_fact("lives", "3".into()).await.unwrap();
    (store, dir)
}

/// All that the trait tells, without the trees that only one of them has.
async fn told(store: &dyn Store) -> Vec<String> {
    let mut told = Vec::new();
    let project = || Some("p".to_owned());
    told.push(format!("{:?}", store.functions(None).await));
    told.push(format!("{:?}", store.code("d".into()).await));
    told.push(format!("{:?}", store.aliases().await));
    told.push(format!("{:?}", store.async_configs(FunctionFilter::whole(key("f"))).await));
    told.push(format!("{:?}", store.credentials(project()).await));
    let mut rows = store.unsettled(None, 100).await.unwrap();
    for function in ["f", "gone"] {
        let query = InvocationQuery { function: FunctionFilter::whole(key(function)), ..query() };
        rows.extend(store.invocations(query).await.unwrap().rows);
    }
    for id in 1..=40 {
        rows.push(store.invocation(RequestId(id)).await.unwrap().unwrap());
    }
    for mut row in rows {
        row.root = None;
        row.labels = Labels::default();
        told.push(format!("{row:?}"));
    }
    told.push(format!("{:?}", store.receipts("p".into(), None, (0, 100), 0, 100).await));
    told.push(format!("{:?}", store.open_receipts(100).await));
    for id in [5, 77, 6] {
        told.push(format!("{:?}", store.receipt_of(RequestId(id)).await));
    }
    told.push(format!("{:?} {:?}", store.bulks().await, store.fact("lives").await));
    told
}

#[tokio::test]
async fn a_copy_has_everything_and_belongs_to_the_node() {
    let home = home();
    let to = home.open(0);
    let (from, _dir) = filled().await;
    soon(async {
        let copied = store::copy(&from, &to).await.unwrap();
        let counts = (copied.functions, copied.aliases, copied.async_configs, copied.credentials);
        assert_eq!(counts, (1, 1, 1, 1));
        let counts = (copied.invocations, copied.receipts, copied.fences, copied.bulks, copied.facts);
        assert_eq!(counts, (40, 2, 3, 1, 1));
        let (there, here) = (told(&from).await, told(&to).await);
        for (there, here) in there.iter().zip(&here) {
            assert_eq!(there, here);
        }
        assert_eq!(there.len(), here.len());
        assert_eq!(to.fact("node").await, Ok(Some(name(0))));
        let third = to.invocation(RequestId(3)).await.unwrap().unwrap();
        assert_eq!(third.root, Some(RequestId(1)));
        assert_eq!(third.labels.iter().collect::<Vec<_>>(), [("nul\u{fffd}", "x")]);
        let below = to.below(RequestId(1), 10).await.unwrap();
        assert_eq!(below.iter().map(|(row, _)| row.request.0).collect::<Vec<_>>(), [3, 1]);
        // And it goes on from there.
        to.join(joining(60_000)).await.unwrap();
        assert_eq!(to.settle(settlement(3, Status::Success, 70)).await, Ok(true));
        to.accept(invocation(100)).await.unwrap();
        assert_eq!(to.unsettled(None, 100).await.unwrap().last().unwrap().request, RequestId(100));
    })
    .await;
}

#[tokio::test]
async fn a_store_that_has_something_is_not_copied_into() {
    let home = home();
    let to = home.node(0);
    let (from, _dir) = filled().await;
    soon(async {
        to.accept(invocation(100)).await.unwrap();
        assert_eq!(store::copy(&from, &to).await, Err(StoreError::Exists));
        assert_eq!(to.functions(None).await, Ok(vec![]));
        to.prune(i64::MAX, 10).await.unwrap();
        to.settle(settlement(100, Status::Success, 5)).await.unwrap();
        to.prune(i64::MAX, 10).await.unwrap();
        store::copy(&from, &to).await.unwrap();
        assert_eq!(store::copy(&from, &to).await, Err(StoreError::Exists));
    })
    .await;
}
