//! Functions, and the code that is kept as long as one of them uses it.

use bytes::Bytes;
use store::{FunctionRecord, Store, StoreError};

use crate::samples::*;

const OLD: Bytes = Bytes::from_static(b"old");
const NEW: Bytes = Bytes::from_static(b"new");

#[tokio::test]
async fn a_name_is_taken_once_and_the_second_leaves_no_code_behind() {
    let (store, _dir) = fresh();
    store.create_function(function("f", "old"), OLD).await.unwrap();
    assert_eq!(store.create_function(function("f", "new"), NEW).await, Err(StoreError::Exists));
    assert_eq!(store.function(key("f")).await.unwrap(), Some(function("f", "old")));
    assert_eq!(store.code("new".into()).await.unwrap(), None);
}

#[tokio::test]
async fn code_goes_with_the_last_function_that_uses_it() {
    let (store, _dir) = fresh();
    store.create_function(function("a", "old"), OLD).await.unwrap();
    store.create_function(function("b", "old"), OLD).await.unwrap();
    assert_eq!(store.delete_function(key("a")).await, Ok(true));
    assert_eq!(store.code("old".into()).await.unwrap(), Some(OLD));
    assert_eq!(store.delete_function(key("b")).await, Ok(true));
    assert_eq!(store.code("old".into()).await.unwrap(), None);
    assert_eq!(store.delete_function(key("b")).await, Ok(false));
}

#[tokio::test]
async fn new_code_replaces_the_old_one_unless_another_function_still_uses_it() {
    let (store, _dir) = fresh();
    store.create_function(function("a", "old"), OLD).await.unwrap();
    store.create_function(function("b", "old"), OLD).await.unwrap();
    assert_eq!(store.update_function(function("a", "new"), Some(NEW)).await, Ok(true));
    assert_eq!(store.code("old".into()).await.unwrap(), Some(OLD));
    assert_eq!(store.update_function(function("b", "new"), Some(NEW)).await, Ok(true));
    assert_eq!(store.code("old".into()).await.unwrap(), None);
    assert_eq!(store.code("new".into()).await.unwrap(), Some(NEW));
}

#[tokio::test]
async fn a_change_of_configuration_keeps_the_code_and_the_day_of_birth() {
    let (store, _dir) = fresh();
    store.create_function(function("f", "old"), OLD).await.unwrap();
    let changed = FunctionRecord {
        revision: 2,
        config: r#"{"timeout":9}"#.into(),
        modified_ms: 20,
        ..function("f", "old")
    };
    let told = FunctionRecord { created_ms: 99, ..changed.clone() };
    assert_eq!(store.update_function(told, None).await, Ok(true));
    assert_eq!(store.function(key("f")).await.unwrap(), Some(changed));
    assert_eq!(store.code("old".into()).await.unwrap(), Some(OLD));
}

#[tokio::test]
async fn a_function_that_is_not_there_cannot_be_updated_and_keeps_no_code() {
    let (store, _dir) = fresh();
    assert_eq!(store.update_function(function("f", "new"), Some(NEW)).await, Ok(false));
    assert_eq!(store.function(key("f")).await.unwrap(), None);
    assert_eq!(store.code("new".into()).await.unwrap(), None);
}

#[tokio::test]
async fn functions_are_listed_by_key_and_by_project() {
    let (store, _dir) = fresh();
    let mut elsewhere = function("a", "old");
    elsewhere.key.project = "q".into();
    for record in [function("b", "old"), elsewhere.clone(), function("a", "old")] {
        store.create_function(record, OLD).await.unwrap();
    }
    let (a, b) = (function("a", "old"), function("b", "old"));
    assert_eq!(store.functions(None).await.unwrap(), vec![a.clone(), b.clone(), elsewhere]);
    assert_eq!(store.functions(Some("p".into())).await.unwrap(), vec![a, b]);
}
