//! Cancels of many requests: one under a key, kept until it is forgotten.

use store::{BulkRecord, Store as _, StoreError};

use crate::samples::{again, fresh};

fn bulk(project: &str, key: &str) -> BulkRecord {
    BulkRecord {
        project: project.to_owned(),
        key: key.to_owned(),
        body: "{}".to_owned(),
        requests: Some("[1]".to_owned()),
    }
}

#[tokio::test]
async fn a_key_of_a_project_begins_one_and_its_end_is_kept_over_a_restart() {
    let (store, dir) = fresh();
    store.begin_bulk(bulk("p", "k")).await.unwrap();
    assert_eq!(store.begin_bulk(bulk("p", "k")).await, Err(StoreError::Exists));
    store.begin_bulk(bulk("q", "k")).await.unwrap();
    store.end_bulk("p".into(), "k".into(), "{\"done\":1}".into()).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = again(&dir);
    let ended = BulkRecord { body: "{\"done\":1}".into(), requests: None, ..bulk("p", "k") };
    assert_eq!(store.bulks().await.unwrap(), [ended, bulk("q", "k")]);
    assert!(store.forget_bulk("p".into(), "k".into()).await.unwrap());
    assert!(!store.forget_bulk("p".into(), "k".into()).await.unwrap());
    assert_eq!(store.bulks().await.unwrap(), [bulk("q", "k")]);
}
