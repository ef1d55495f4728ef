//! Groups of writes: what one of them cannot do takes no other with it.

use cancel::RequestId;
use store::{Labels, NewInvocation, Settlement, Status, Store as _, StoreError};

use crate::{samples::*, subject::*};

#[tokio::test]
async fn a_write_that_the_server_refuses_takes_no_other_of_its_group_with_it() {
    let (store, _home) = fresh();
    soon(async {
        let before = store.accept(invocation(1));
        // No API lets a NUL into a name; the server refuses it.
        let broken = store.accept(NewInvocation { alias: Some("a\0b".into()), ..invocation(2) });
        let running = store.mark_running(RequestId(1), 1, 5);
        let after = store.accept(invocation(3));
        assert_eq!((before.await, running.await, after.await), (Ok(()), Ok(()), Ok(())));
        assert!(matches!(broken.await, Err(StoreError::Unwritable(_))));
        let rows = store.unsettled(None, 10).await.unwrap();
        let rows: Vec<_> = rows.iter().map(|row| (row.request.0, row.status)).collect();
        assert_eq!(rows, [(1, Status::Running), (3, Status::Wait)]);
    })
    .await;
}

#[tokio::test]
async fn texts_that_the_server_cannot_keep_are_kept_as_near_as_it_can() {
    let (store, _home) = fresh();
    soon(async {
        let labels = Labels::new([("team\0".to_owned(), "a\0".to_owned())].into());
        store.accept(NewInvocation { labels: labels.clone(), ..invocation(1) }).await.unwrap();
        let end = Settlement { error_message: "it said \0".into(), ..settlement(1, Status::Fail, 5) };
        assert_eq!(store.settle(end).await, Ok(true));
        let page = store.invocations(store::InvocationQuery { labels, ..query() }).await.unwrap();
        assert_eq!(page.rows[0].error_message, "it said \u{fffd}");
    })
    .await;
}

/// More than one group has.
const MANY: u128 = 3_000;

#[tokio::test]
async fn any_mixture_of_changes_of_one_request_is_made_in_its_order() {
    let (store, _home) = fresh();
    soon(async {
        let mut all = Vec::new();
        for id in 0..MANY / 6 {
            all.push(store.accept(invocation(id)));
            all.push(store.mark_running(RequestId(id), 1, 5));
            all.push(store.mark_waiting(RequestId(id), 1, 9));
            all.push(store.mark_running(RequestId(id), 2, 10));
            let settled = store.settle(settlement(id, Status::Success, 11));
            all.push(Box::pin(async { settled.await.map(|settled| assert!(settled)) }));
            let again = store.settle(settlement(id, Status::Fail, 12));
            all.push(Box::pin(async { again.await.map(|settled| assert!(!settled)) }));
        }
        for one in all {
            assert_eq!(one.await, Ok(()));
        }
        let page = store.invocations(query()).await.unwrap();
        assert_eq!(page.total, (MANY / 6) as u64);
        for row in page.rows {
            assert_eq!((row.status, row.attempts, row.failures), (Status::Success, 2, 1));
            assert_eq!((row.started_ms, row.not_before_ms, row.ended_ms), (Some(10), 9, Some(11)));
        }
    })
    .await;
}
