//! Versions of functions, and the aliases that name them.

use bytes::Bytes;
use store::{AliasRecord, FunctionFilter, FunctionRecord, LATEST, Share, Store, StoreError};

use crate::samples::*;

const OLD: Bytes = Bytes::from_static(b"old");
const NEW: Bytes = Bytes::from_static(b"new");

fn version(version: &str, digest: &str, created_ms: i64) -> FunctionRecord {
    let revision = created_ms.cast_unsigned();
    FunctionRecord { key: key("f").at(version), revision, created_ms, ..function("f", digest) }
}

fn alias(name: &str, version: &str, additional: Option<(&str, u8)>) -> AliasRecord {
    AliasRecord {
        function: key("f").at(version),
        name: name.into(),
        additional: additional.map(|(version, percent)| Share { version: version.into(), percent }),
        description: String::new(),
        created_ms: 1,
        modified_ms: 1,
    }
}

#[tokio::test]
async fn a_version_stays_when_latest_changes_and_its_code_with_it() {
    let (store, _dir) = fresh();
    assert!(!store.publish_version(version("v1", "old", 20)).await.unwrap(), "there is no function");
    store.create_function(function("f", "old"), OLD).await.unwrap();
    assert!(store.publish_version(version("v1", "old", 20)).await.unwrap());
    assert_eq!(store.publish_version(version("v1", "old", 30)).await, Err(StoreError::Exists));
    assert!(store.update_function(function("f", "new"), Some(NEW)).await.unwrap());
    assert_eq!(store.code("old".into()).await.unwrap(), Some(OLD));
    assert!(store.publish_version(version("v2", "new", 30)).await.unwrap());
    let listed = store.versions(key("f").at("v1")).await.unwrap();
    let names: Vec<_> = listed.iter().map(|record| record.key.version.as_str()).collect();
    assert_eq!(names, [LATEST, "v2", "v1"]);
    assert_eq!(store.function(key("f").at("v1")).await.unwrap(), Some(version("v1", "old", 20)));
    assert!(store.delete_version(key("f").at("v1")).await.unwrap());
    assert!(!store.delete_version(key("f").at("v1")).await.unwrap());
    assert_eq!(store.code("old".into()).await.unwrap(), None);
    assert_eq!(store.code("new".into()).await.unwrap(), Some(NEW));
}

#[tokio::test]
async fn a_version_takes_along_what_latest_says_of_its_asynchronous_requests() {
    let (store, _dir) = fresh();
    store.create_function(function("f", "old"), OLD).await.unwrap();
    let put =
        async |of: &str, body: &str| store.put_async_config(key("f").at(of), body.into(), 2).await.unwrap();
    assert!(put(LATEST, "first").await);
    assert!(!put("v1", "none").await);
    assert!(store.publish_version(version("v1", "old", 20)).await.unwrap());
    assert!(put(LATEST, "second").await);
    let of = async |version: &str| {
        let kept = store.async_config(key("f").at(version)).await.unwrap();
        kept.map(|kept| (kept.body, kept.created_ms))
    };
    assert_eq!(of("v1").await, Some(("first".into(), 20)));
    assert_eq!(of(LATEST).await, Some(("second".into(), 2)));
    let bodies = async |function| {
        let kept = store.async_configs(function).await.unwrap();
        kept.into_iter().map(|kept| kept.body).collect::<Vec<_>>()
    };
    assert_eq!(bodies(FunctionFilter::whole(key("f"))).await, ["second", "first"]);
    assert_eq!(bodies(FunctionFilter::exactly(key("f").at("v1"))).await, ["first"]);
    assert!(store.delete_version(key("f").at("v1")).await.unwrap());
    assert_eq!(of("v1").await, None);
}

#[tokio::test]
async fn an_alias_names_versions_that_are_there_and_goes_with_its_function() {
    let (store, _dir) = fresh();
    store.create_function(function("f", "old"), OLD).await.unwrap();
    store.create_function(function("g", "old"), OLD).await.unwrap();
    assert!(store.publish_version(version("v1", "old", 20)).await.unwrap());
    for missing in [alias("a", "v2", None), alias("a", LATEST, Some(("v2", 1)))] {
        assert!(!store.put_alias(missing).await.unwrap());
    }
    let first = alias("a", LATEST, Some(("v1", 10)));
    assert!(store.put_alias(first.clone()).await.unwrap());
    let mut changed = AliasRecord { modified_ms: 9, created_ms: 9, ..alias("a", "v1", None) };
    assert!(store.put_alias(changed.clone()).await.unwrap());
    changed.created_ms = first.created_ms;
    let other = AliasRecord { function: key("g"), ..alias("a", LATEST, None) };
    assert!(store.put_alias(other.clone()).await.unwrap());
    assert_eq!(store.aliases().await.unwrap(), [changed, other.clone()]);
    assert!(!store.delete_alias(key("f"), "b".into()).await.unwrap());
    assert!(store.delete_function(key("f")).await.unwrap());
    assert_eq!(store.versions(key("f")).await.unwrap(), []);
    assert_eq!(store.aliases().await.unwrap(), [other]);
    assert!(store.delete_alias(key("g"), "a".into()).await.unwrap());
    assert_eq!(store.code("old".into()).await.unwrap(), Some(OLD), "g has it");
}
