//! Cancels: the receipt and the fences are one write.

use cancel::{CancelId, RequestId};
use store::{FunctionFilter, Status, Store};

use crate::samples::*;

async fn fenced_by(store: &dyn Store, id: u128) -> Option<CancelId> {
    store.invocation(RequestId(id)).await.unwrap().unwrap().fenced_by
}

#[tokio::test]
async fn a_cancel_marks_every_request_it_fences_and_nobody_else() {
    let (store, _dir) = fresh();
    for id in 1..=4 {
        store.accept(invocation(id)).await.unwrap();
    }
    store.mark_running(RequestId(2), 1, 5).await.unwrap();
    store.settle(settlement(3, Status::Success, 5)).await.unwrap();
    // 77 is synchronous: the store never accepted it.
    store.record_cancel(receipt(9, &[1, 2, 3, 77])).await.unwrap();
    assert_eq!(fenced_by(&store, 1).await, Some(CancelId(9)));
    assert_eq!(fenced_by(&store, 2).await, Some(CancelId(9)));
    assert_eq!(fenced_by(&store, 3).await, None, "it had ended");
    assert_eq!(fenced_by(&store, 4).await, None);
    assert_eq!(store.invocation(RequestId(77)).await.unwrap(), None);
    let of_sync = store.receipt_of(RequestId(77)).await.unwrap().unwrap();
    assert_eq!(of_sync.cancel, CancelId(9));
    assert_eq!(store.receipt_of(RequestId(4)).await.unwrap(), None);
}

#[tokio::test]
async fn the_same_cancel_again_adds_requests_and_replaces_the_body_only() {
    let (store, _dir) = fresh();
    store.accept(invocation(1)).await.unwrap();
    store.accept(invocation(2)).await.unwrap();
    store.record_cancel(receipt(9, &[1])).await.unwrap();
    let mut harder = receipt(9, &[2]);
    harder.body = r#"{"level":"kill"}"#.into();
    harder.created_ms = 1_000;
    store.record_cancel(harder.clone()).await.unwrap();
    store.record_cancel(harder).await.unwrap();
    assert_eq!(fenced_by(&store, 1).await, Some(CancelId(9)));
    assert_eq!(fenced_by(&store, 2).await, Some(CancelId(9)));
    let kept = store.receipt(CancelId(9)).await.unwrap().unwrap();
    assert_eq!(kept.body, r#"{"level":"kill"}"#);
    assert_eq!((kept.target, kept.created_ms), (RequestId(1), 9), "whom and when stay as first told");
    assert_eq!(store.receipts("p".into(), None, (0, i64::MAX), 0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_first_cancel_that_fenced_a_request_is_the_one_that_counts() {
    let (store, _dir) = fresh();
    store.accept(invocation(1)).await.unwrap();
    // The later one has the smaller id and the earlier time: neither decides.
    store.record_cancel(receipt(9, &[1])).await.unwrap();
    store.record_cancel(receipt(5, &[2, 1])).await.unwrap();
    assert_eq!(fenced_by(&store, 1).await, Some(CancelId(9)));
    assert_eq!(store.receipt_of(RequestId(1)).await.unwrap().unwrap().cancel, CancelId(9));
    assert_eq!(store.receipt_of(RequestId(2)).await.unwrap().unwrap().cancel, CancelId(5));
}

#[tokio::test]
async fn a_receipt_is_rewritten_and_never_made_by_rewriting() {
    let (store, _dir) = fresh();
    store.record_cancel(receipt(9, &[1])).await.unwrap();
    store.update_receipt(CancelId(9), "stopped".into()).await.unwrap();
    store.update_receipt(CancelId(8), "stopped".into()).await.unwrap();
    assert_eq!(store.receipt(CancelId(9)).await.unwrap().unwrap().body, "stopped");
    assert_eq!(store.receipt(CancelId(8)).await.unwrap(), None);
}

#[tokio::test]
async fn receipts_are_listed_newest_first_by_project_and_by_function() {
    let (store, _dir) = fresh();
    let mut of_g = receipt(2, &[20]);
    of_g.function = key("g");
    let mut elsewhere = receipt(3, &[30]);
    elsewhere.function.project = "q".into();
    let mut same_time = receipt(4, &[40]);
    same_time.created_ms = 1;
    for one in [receipt(1, &[10]), of_g, elsewhere, same_time] {
        store.record_cancel(one).await.unwrap();
    }
    let mut of_v1 = receipt(5, &[50]);
    of_v1.function = key("g").at("v1");
    store.record_cancel(of_v1).await.unwrap();
    let list = async |project: &str, function: Option<&str>, offset, limit| {
        let function = function.map(|name| match name.split_once(':') {
            Some((name, version)) => FunctionFilter::exactly(key(name).at(version)),
            None => FunctionFilter::whole(key(name)),
        });
        let rows = store.receipts(project.into(), function, (0, i64::MAX), offset, limit).await.unwrap();
        rows.iter().map(|row| row.cancel.0).collect::<Vec<_>>()
    };
    assert_eq!(list("p", Some("g"), 0, 10).await, [5, 2]);
    assert_eq!(list("p", Some("g:v1"), 0, 10).await, [5]);
    assert_eq!(list("p", Some("g:latest"), 0, 10).await, [2]);
    assert_eq!(list("p", None, 0, 10).await, [5, 2, 4, 1], "at one time, the later written first");
    assert_eq!(list("p", Some("f"), 0, 10).await, [4, 1]);
    assert_eq!(list("q", None, 0, 10).await, [3]);
    assert_eq!(list("p", None, 2, 1).await, [4]);
    assert_eq!(list("p", None, u64::MAX, 10).await, [0_u128; 0]);
    let within = async |from, until| {
        let rows = store.receipts("p".into(), None, (from, until), 0, 10).await.unwrap();
        rows.iter().map(|row| row.cancel.0).collect::<Vec<_>>()
    };
    assert_eq!(within(2, 2).await, [2]);
    assert_eq!(within(0, 1).await, [4, 1]);
    assert_eq!(within(6, 9).await, [0_u128; 0]);
}
