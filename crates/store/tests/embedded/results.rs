//! What a result brings about in the same commit, and what functions say of their asynchronous requests.

use cancel::RequestId;
use store::{FunctionFilter, NewInvocation, Settlement, Status, Store as _};

use crate::samples::{fresh, function, invocation, key, settlement};

fn handed_on(id: u128, to: u128) -> Settlement {
    let next = NewInvocation { hops: 1, ..invocation(to) };
    Settlement { next: Some(Box::new(next)), ..settlement(id, Status::Success, 50) }
}

#[tokio::test]
async fn a_result_is_handed_on_once_and_with_the_settlement() {
    let (store, _dir) = fresh();
    store.accept(invocation(1)).await.unwrap();
    assert!(store.settle(handed_on(1, 2)).await.unwrap());
    let next = store.invocation(RequestId(2)).await.unwrap().unwrap();
    assert_eq!((next.status, next.hops, next.payload), (Status::Wait, 1, invocation(2).payload));
    // A life that died after the commit settles again what it did not see settled.
    assert!(!store.settle(handed_on(1, 3)).await.unwrap());
    assert_eq!(store.invocation(RequestId(3)).await.unwrap(), None);
}

#[tokio::test]
async fn a_result_that_cannot_be_handed_on_settles_nothing() {
    let (store, _dir) = fresh();
    store.accept(invocation(1)).await.unwrap();
    store.accept(invocation(2)).await.unwrap();
    store.settle(handed_on(1, 2)).await.unwrap_err();
    assert_eq!(store.invocation(RequestId(1)).await.unwrap().unwrap().status, Status::Wait);
}

#[tokio::test]
async fn the_configuration_of_asynchronous_requests_goes_with_its_function() {
    let (store, _dir) = fresh();
    let put = async |body: &str, now| store.put_async_config(key("f"), body.to_owned(), now).await.unwrap();
    assert!(!put("{}", 1).await, "there is no such function yet");
    store.create_function(function("f", "d"), "code".into()).await.unwrap();
    assert!(put("{}", 2).await);
    assert!(put("{\"a\":1}", 3).await);
    let kept = store.async_config(key("f")).await.unwrap().unwrap();
    assert_eq!((kept.body.as_str(), kept.created_ms, kept.modified_ms), ("{\"a\":1}", 2, 3));
    assert_eq!(store.async_configs(FunctionFilter::whole(key("f"))).await.unwrap(), [kept]);
    assert!(store.delete_async_config(key("f")).await.unwrap());
    assert!(!store.delete_async_config(key("f")).await.unwrap());
    assert!(put("{}", 4).await);
    store.delete_function(key("f")).await.unwrap();
    assert_eq!(store.async_config(key("f")).await.unwrap(), None);
}
