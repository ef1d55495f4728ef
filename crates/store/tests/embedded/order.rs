//! Order, futures that nobody waits for, and the states of one request.

use cancel::RequestId;
use store::{Status, Store, StoreError};

use crate::samples::*;

#[tokio::test]
async fn writes_are_committed_in_the_order_of_the_calls_not_of_the_waiting() {
    let (store, _dir) = fresh();
    let settle = |id| store.settle(settlement(id, Status::Success, 5));
    let (settled_early, accepted) = (settle(1), store.accept(invocation(1)));
    let (accepted_first, settled_late) = (store.accept(invocation(2)), settle(2));
    settled_late.await.unwrap();
    accepted_first.await.unwrap();
    accepted.await.unwrap();
    settled_early.await.unwrap();
    let status = async |id| store.invocation(RequestId(id)).await.unwrap().unwrap().status;
    assert_eq!(status(1).await, Status::Wait, "there was nothing to settle yet");
    assert_eq!(status(2).await, Status::Success);
}

#[tokio::test]
async fn a_future_that_is_dropped_unpolled_does_not_lose_its_write() {
    let (store, _dir) = fresh();
    drop(store.accept(invocation(1)));
    store.barrier().await.unwrap();
    assert!(store.invocation(RequestId(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_request_is_accepted_once() {
    let (store, _dir) = fresh();
    store.accept(invocation(1)).await.unwrap();
    let mut again = invocation(1);
    again.payload = "another".into();
    assert_eq!(store.accept(again).await, Err(StoreError::Exists));
    let kept = store.invocation(RequestId(1)).await.unwrap().unwrap();
    assert_eq!(kept.payload, invocation(1).payload);
}

#[tokio::test]
async fn a_request_goes_from_waiting_to_running_and_back_and_to_its_end() {
    let (store, _dir) = fresh();
    let mut child = invocation(2);
    child.parent = Some(RequestId(1));
    store.accept(child).await.unwrap();
    let row = async || store.invocation(RequestId(2)).await.unwrap().unwrap();
    assert_eq!((row().await.status, row().await.parent), (Status::Wait, Some(RequestId(1))));
    store.mark_running(RequestId(2), 1, 40).await.unwrap();
    let running = row().await;
    assert_eq!((running.status, running.attempts, running.started_ms), (Status::Running, 1, Some(40)));
    store.mark_waiting(RequestId(2), 0, 0).await.unwrap();
    assert_eq!((row().await.status, row().await.attempts), (Status::Wait, 1));
    store.settle(settlement(2, Status::Discard, 50)).await.unwrap();
    let end = row().await;
    assert_eq!((end.status, end.error_code, end.ended_ms), (Status::Discard, 4208, Some(50)));
}

#[tokio::test]
async fn a_final_state_is_never_overwritten() {
    // 52, and the answer of a request that was cancelled: an end is an end.
    let (store, _dir) = fresh();
    store.accept(invocation(1)).await.unwrap();
    store.settle(settlement(1, Status::Fail, 50)).await.unwrap();
    let first = store.invocation(RequestId(1)).await.unwrap();
    store.settle(settlement(1, Status::Success, 60)).await.unwrap();
    store.mark_running(RequestId(1), 7, 70).await.unwrap();
    store.mark_waiting(RequestId(1), 0, 0).await.unwrap();
    store.record_cancel(receipt(9, &[1])).await.unwrap();
    assert_eq!(store.invocation(RequestId(1)).await.unwrap(), first);
}

#[tokio::test]
async fn a_state_that_is_not_final_settles_nothing() {
    let (store, _dir) = fresh();
    store.accept(invocation(1)).await.unwrap();
    for status in [Status::Wait, Status::Running] {
        let settled = store.settle(settlement(1, status, 50)).await;
        assert!(matches!(settled, Err(StoreError::Unwritable(_))), "{settled:?}");
    }
    let row = store.invocation(RequestId(1)).await.unwrap().unwrap();
    assert_eq!((row.status, row.ended_ms), (Status::Wait, None));
}

#[tokio::test]
async fn a_request_that_was_never_accepted_is_not_made_by_what_happens_to_it() {
    let (store, _dir) = fresh();
    store.mark_running(RequestId(1), 1, 1).await.unwrap();
    store.mark_waiting(RequestId(1), 0, 0).await.unwrap();
    store.settle(settlement(1, Status::Success, 1)).await.unwrap();
    assert_eq!(store.invocation(RequestId(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_closed_store_has_done_what_it_was_asked_and_takes_no_more() {
    let (store, dir) = fresh();
    let writes: Vec<_> = (0..500).map(|id| store.accept(invocation(id))).collect();
    let closed = store.close();
    assert_eq!(store.accept(invocation(1_000)).await, Err(StoreError::Closed));
    assert_eq!(store.invocation(RequestId(1)).await, Err(StoreError::Closed));
    assert_eq!(store.barrier().await, Err(StoreError::Closed));
    assert_eq!(store.close().await, Err(StoreError::Closed));
    closed.await.unwrap();
    for write in writes {
        assert_eq!(write.await, Ok(()));
    }
    drop(store);
    let reopened = again(&dir);
    assert_eq!(reopened.invocations(query()).await.unwrap().total, 500);
}
