//! A copy of a store that works on is a store.

use std::{fs, os::unix::fs::PermissionsExt as _};

use bytes::Bytes;
use cancel::{CancelId, RequestId};
use store::{Embedded, Status, Store as _, StoreError};

use crate::samples::{credential, fresh, function, invocation, key, receipt, settlement};

#[tokio::test]
async fn a_copy_has_all_that_was_acknowledged_and_is_a_store_of_its_own() {
    let (store, dir) = fresh();
    store.create_function(function("f", "d"), Bytes::from_static(b"code")).await.unwrap();
    for id in 0..100 {
        store.accept(invocation(id)).await.unwrap();
    }
    store.record_cancel(receipt(9, &[1])).await.unwrap();
    store.settle(settlement(1, Status::Fail, 60)).await.unwrap();
    store.put_credential(credential("a", None)).await.unwrap();
    let to = dir.path().join("copy");
    // What is asked for and not acknowledged is in it too if it was asked for before.
    let last = store.accept(invocation(100));
    let copying = store.backup(to.clone());
    let later = store.accept(invocation(101));
    let size = copying.await.unwrap();
    last.await.unwrap();
    later.await.unwrap();
    let metadata = fs::metadata(&to).unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (size, 0o600));

    let elsewhere = tempfile::tempdir().unwrap();
    fs::rename(&to, elsewhere.path().join("quell.db")).unwrap();
    let copy = Embedded::open(elsewhere.path()).unwrap();
    assert_eq!(copy.code("d".into()).await.unwrap(), Some(Bytes::from_static(b"code")));
    assert_eq!(copy.function(key("f")).await.unwrap(), Some(function("f", "d")));
    let row = copy.invocation(RequestId(1)).await.unwrap().unwrap();
    assert_eq!((row.status, row.fenced_by), (Status::Fail, Some(CancelId(9))));
    assert!(copy.invocation(RequestId(100)).await.unwrap().is_some());
    assert!(copy.credential("a").await.unwrap().is_some());
    copy.accept(invocation(500)).await.unwrap();
    assert_eq!(store.invocation(RequestId(500)).await, Ok(None));
}

#[tokio::test]
async fn a_copy_never_replaces_anything_and_leaves_nothing_when_it_fails() {
    let (store, dir) = fresh();
    let there = dir.path().join("there");
    fs::write(&there, "precious").unwrap();
    let refused = store.backup(there.clone()).await;
    assert!(matches!(refused, Err(StoreError::Unwritable(_))), "{refused:?}");
    assert_eq!(fs::read_to_string(&there).unwrap(), "precious");
    let nowhere = store.backup(dir.path().join("no/where")).await;
    assert!(matches!(nowhere, Err(StoreError::Unwritable(_))), "{nowhere:?}");
    // And the next one may go on.
    store.backup(dir.path().join("copy")).await.unwrap();
}
