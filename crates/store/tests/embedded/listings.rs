//! Lists of requests, the scan of a new life, and forgetting.

use cancel::{CancelId, RequestId};
use store::{FunctionFilter, InvocationQuery, Status, Store};

use crate::samples::*;

fn ids(rows: &[store::InvocationRecord]) -> Vec<u128> {
    rows.iter().map(|row| row.request.0).collect()
}

#[tokio::test]
async fn a_list_is_narrowed_by_each_field_that_is_given() {
    let (store, _dir) = fresh();
    for id in 1..=6 {
        store.accept(invocation(id)).await.unwrap();
    }
    let mut of_g = invocation(7);
    of_g.function = key("g").into();
    store.accept(of_g).await.unwrap();
    store.mark_running(RequestId(2), 1, 9).await.unwrap();
    store.settle(settlement(4, Status::Fail, 9)).await.unwrap();
    let list = async |query: InvocationQuery| {
        let page = store.invocations(query).await.unwrap();
        assert_eq!(page.total, page.rows.len() as u64);
        ids(&page.rows)
    };
    assert_eq!(list(query()).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(list(InvocationQuery { function: FunctionFilter::whole(key("g")), ..query() }).await, [7]);
    assert_eq!(list(InvocationQuery { status: Some(Status::Wait), ..query() }).await, [6, 5, 3, 1]);
    assert_eq!(list(InvocationQuery { status: Some(Status::Running), ..query() }).await, [2]);
    assert_eq!(list(InvocationQuery { status: Some(Status::Fail), ..query() }).await, [4]);
    assert_eq!(list(InvocationQuery { from_ms: 2, until_ms: 4, ..query() }).await, [4, 3, 2]);
    let requests = vec![RequestId(1), RequestId(5), RequestId(5), RequestId(7), RequestId(99)];
    assert_eq!(list(InvocationQuery { requests: requests.clone(), ..query() }).await, [5, 1]);
    assert_eq!(list(InvocationQuery { requests, from_ms: 2, ..query() }).await, [5]);
}

#[tokio::test]
async fn a_page_says_how_many_there_are_and_leaves_the_payloads_out() {
    let (store, _dir) = fresh();
    for id in 1..=10 {
        store.accept(invocation(id)).await.unwrap();
    }
    let page = async |offset, limit| {
        let page = store.invocations(InvocationQuery { offset, limit, ..query() }).await.unwrap();
        assert!(page.rows.iter().all(|row| row.payload.is_empty()));
        (ids(&page.rows), page.total)
    };
    assert_eq!(page(0, 3).await, (vec![10, 9, 8], 10));
    assert_eq!(page(9, 3).await, (vec![1], 10));
    assert_eq!(page(10, 3).await, (vec![], 10));
    assert_eq!(page(0, 0).await, (vec![], 10));
    assert_eq!(page(u64::MAX, 3).await, (vec![], 10));
}

#[tokio::test]
async fn requests_of_one_millisecond_are_listed_by_their_acceptance() {
    let (store, _dir) = fresh();
    for id in [3, 1, 2] {
        let mut one = invocation(id);
        one.created_ms = 5;
        store.accept(one).await.unwrap();
    }
    assert_eq!(ids(&store.invocations(query()).await.unwrap().rows), [2, 1, 3]);
}

#[tokio::test]
async fn any_number_of_ids_may_be_asked_for() {
    let (store, _dir) = fresh();
    store.accept(invocation(u128::from(u64::MAX >> 1))).await.unwrap();
    let mut requests: Vec<_> = (0..40_000).map(RequestId).collect();
    requests.push(RequestId(u128::from(u64::MAX >> 1)));
    let page = store.invocations(InvocationQuery { requests, ..query() }).await.unwrap();
    assert_eq!(page.total, 1);
}

#[tokio::test]
async fn a_new_life_reads_what_is_not_final_oldest_first_page_by_page() {
    let (store, _dir) = fresh();
    // Accepted in another order than their ids and times.
    for id in [5, 3, 8, 1, 9] {
        store.accept(invocation(id)).await.unwrap();
    }
    store.mark_running(RequestId(8), 1, 1).await.unwrap();
    store.settle(settlement(3, Status::Success, 1)).await.unwrap();
    store.record_cancel(receipt(70, &[1])).await.unwrap();
    let rows = store.unsettled(None, 10).await.unwrap();
    assert_eq!(ids(&rows), [5, 8, 1, 9]);
    assert_eq!((rows[0].payload.len(), rows[0].payload_len), (0, invocation(5).payload.len() as u64));
    assert_eq!(rows[2].fenced_by, Some(CancelId(70)));
    assert_eq!(ids(&store.unsettled(None, 2).await.unwrap()), [5, 8]);
    assert_eq!(ids(&store.unsettled(Some(RequestId(8)), 2).await.unwrap()), [1, 9]);
    // The last of a page may have settled meanwhile: its place is still known.
    store.settle(settlement(8, Status::Success, 1)).await.unwrap();
    assert_eq!(ids(&store.unsettled(Some(RequestId(8)), 2).await.unwrap()), [1, 9]);
    assert_eq!(ids(&store.unsettled(Some(RequestId(9)), 2).await.unwrap()), [0_u128; 0]);
}

#[tokio::test]
async fn forgetting_takes_the_oldest_that_ended_up_to_the_bound_and_nothing_that_runs() {
    let (store, _dir) = fresh();
    for id in 1..=5 {
        store.accept(invocation(id)).await.unwrap();
    }
    for (id, ended_ms) in [(1, 30), (2, 10), (3, 20), (4, 100)] {
        store.settle(settlement(id, Status::Success, ended_ms)).await.unwrap();
    }
    assert_eq!(store.prune(100, 2).await, Ok(2));
    assert_eq!(ids(&store.invocations(query()).await.unwrap().rows), [5, 4, 1]);
    assert_eq!(store.prune(100, 2).await, Ok(1));
    assert_eq!(store.prune(100, 2).await, Ok(0), "one ended at the bound, one did not end");
    assert_eq!(ids(&store.invocations(query()).await.unwrap().rows), [5, 4]);
}

#[tokio::test]
async fn forgetting_takes_receipts_with_their_fences_but_no_fence_off_a_request() {
    let (store, _dir) = fresh();
    store.accept(invocation(1)).await.unwrap();
    for id in 10..=13 {
        store.record_cancel(receipt(id, &[1, id])).await.unwrap();
    }
    assert_eq!(store.prune(13, 2).await, Ok(2));
    assert_eq!(store.receipt(CancelId(11)).await.unwrap(), None);
    assert_eq!(store.receipt_of(RequestId(11)).await.unwrap(), None);
    assert_eq!(store.receipt_of(RequestId(1)).await.unwrap().unwrap().cancel, CancelId(12));
    assert_eq!(store.prune(13, 2).await, Ok(1));
    assert_eq!(store.receipt_of(RequestId(1)).await.unwrap().unwrap().cancel, CancelId(13));
    let row = store.invocation(RequestId(1)).await.unwrap().unwrap();
    assert_eq!(row.fenced_by, Some(CancelId(10)), "it never runs again, receipt or not");
}
