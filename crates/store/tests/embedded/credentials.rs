//! Credentials: what is revoked opens nothing, at once and in the next life.

use std::sync::Arc;

use store::{CredentialRecord, Store as _, StoreError};

use crate::samples::{again, credential, fresh};

#[tokio::test]
async fn a_login_belongs_to_one_credential() {
    let (store, _dir) = fresh();
    store.put_credential(credential("a", Some("ann"))).await.unwrap();
    store.put_credential(credential("b", None)).await.unwrap();
    store.put_credential(credential("c", None)).await.unwrap();
    assert_eq!(store.put_credential(credential("b", Some("ann"))).await, Err(StoreError::Exists));
    assert_eq!(store.credential("b").await.unwrap(), Some(Arc::new(credential("b", None))));
    assert_eq!(store.credential_of("ann").await.unwrap().unwrap().key_id, "a");
    // Its own login it may keep.
    let rotated = CredentialRecord { generation: 1, ..credential("a", Some("ann")) };
    store.put_credential(rotated.clone()).await.unwrap();
    assert_eq!(store.credential("a").await.unwrap(), Some(Arc::new(rotated)));
}

#[tokio::test]
async fn what_is_revoked_is_gone_at_once_and_for_good() {
    let (store, dir) = fresh();
    store.put_credential(credential("a", Some("ann"))).await.unwrap();
    assert_eq!(store.delete_credential("a".into()).await, Ok(true));
    assert_eq!(store.delete_credential("a".into()).await, Ok(false));
    assert_eq!(store.credential("a").await, Ok(None));
    assert_eq!(store.credential_of("ann").await, Ok(None));
    store.put_credential(credential("b", Some("ann"))).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = again(&dir);
    assert_eq!(store.credential("a").await, Ok(None));
    assert_eq!(store.credentials(None).await.unwrap(), [credential("b", Some("ann"))]);
}
