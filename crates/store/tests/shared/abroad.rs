//! Bulk cancels over nodes: found by their keys on any, called off from any, and taken up by another when their own is gone.

use store::{BulkRecord, News, Shared as _, SharedBulk, Store as _, StoreError};

use crate::subject::*;

fn bulk(key: &str) -> BulkRecord {
    let (project, key) = ("p".to_owned(), key.to_owned());
    BulkRecord { project, key, body: "begun".to_owned(), requests: Some("[1]".to_owned()) }
}

fn with(body: &str, requests: Option<&str>, key: &str) -> BulkRecord {
    BulkRecord { body: body.to_owned(), requests: requests.map(str::to_owned), ..bulk(key) }
}

fn p() -> String {
    "p".to_owned()
}

#[tokio::test]
async fn one_of_another_node_is_found_and_its_node_alone_says_how_it_stands() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        a.begin_bulk(bulk("k")).await.unwrap();
        assert_eq!(b.begin_bulk(bulk("k")).await, Err(StoreError::Exists));
        let found = |record| SharedBulk { record, node: name(0) };
        assert_eq!(b.bulk(p(), "k".into()).await.unwrap(), Some(found(bulk("k"))));
        assert_eq!(b.bulk("q".into(), "k".into()).await.unwrap(), None);
        b.note_bulk(p(), "k".into(), "not its".into()).await.unwrap();
        b.end_bulk(p(), "k".into(), "not its".into()).await.unwrap();
        a.note_bulk(p(), "k".into(), "half".into()).await.unwrap();
        assert_eq!(b.bulk(p(), "k".into()).await.unwrap(), Some(found(with("half", Some("[1]"), "k"))));
        a.end_bulk(p(), "k".into(), "done".into()).await.unwrap();
        a.note_bulk(p(), "k".into(), "late".into()).await.unwrap();
        b.begin_bulk(bulk("l")).await.unwrap();
        let newest = SharedBulk { record: bulk("l"), node: name(1) };
        assert_eq!(a.bulks_of(p(), 9).await.unwrap(), [newest.clone(), found(with("done", None, "k"))]);
        assert_eq!(a.bulks_of(p(), 1).await.unwrap(), [newest]);
        assert_eq!(a.bulks().await.unwrap(), [with("done", None, "k")]);
    })
    .await;
}

#[tokio::test]
async fn one_that_is_called_off_elsewhere_is_told_to_its_node_until_that_ends_it() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        a.begin_bulk(bulk("k")).await.unwrap();
        a.begin_bulk(bulk("other")).await.unwrap();
        let mut told = a.news();
        assert!(b.call_off_bulk(p(), "k".into(), "called off".into()).await.unwrap());
        while told.recv().await.unwrap() != News::Bulks {}
        assert!(!b.call_off_bulk(p(), "k".into(), "again".into()).await.unwrap());
        assert!(!b.call_off_bulk(p(), "none".into(), "none".into()).await.unwrap());
        assert_eq!(a.renew().await.unwrap().called_off, [(p(), "k".into())]);
        assert_eq!(b.renew().await.unwrap().called_off, []);
        // A crash now: nobody goes on with it.
        assert_eq!(a.bulks().await.unwrap(), [with("called off", None, "k"), bulk("other")]);
        a.note_bulk(p(), "k".into(), "on its way".into()).await.unwrap();
        a.end_bulk(p(), "k".into(), "three of nine".into()).await.unwrap();
        assert_eq!(a.renew().await.unwrap().called_off, []);
        assert_eq!(b.bulk(p(), "k".into()).await.unwrap().unwrap().record, with("three of nine", None, "k"));
    })
    .await;
}

#[tokio::test]
async fn what_a_node_leaves_undone_is_taken_up_by_one_other_and_not_twice() {
    let home = home();
    let (a, b, c) = (home.node(0), home.node(1), home.node(2));
    soon(async {
        a.begin_bulk(bulk("undone")).await.unwrap();
        a.begin_bulk(bulk("done")).await.unwrap();
        a.end_bulk(p(), "done".into(), "done".into()).await.unwrap();
        b.begin_bulk(bulk("another's")).await.unwrap();
        assert!(!b.renew().await.unwrap().abandoned);
        assert_eq!(b.adopt_bulks().await.unwrap(), []);
        a.leave().await.unwrap();
        assert!(c.renew().await.unwrap().abandoned);
        c.drain().await.unwrap();
        assert_eq!(c.adopt_bulks().await.unwrap(), [], "it takes nothing new");
        assert_eq!(b.adopt_bulks().await.unwrap(), [bulk("undone")]);
        assert_eq!(b.adopt_bulks().await.unwrap(), []);
        assert!(!c.renew().await.unwrap().abandoned);
        assert_eq!(b.bulks().await.unwrap(), [bulk("undone"), bulk("another's")]);
        // The life that comes back has what is done alone.
        let again = home.again_after(a).await;
        assert_eq!(again.bulks().await.unwrap(), [with("done", None, "done")]);
        assert_eq!(b.bulk(p(), "undone".into()).await.unwrap().unwrap().node, name(1));
    })
    .await;
}

#[tokio::test]
async fn who_joins_again_before_anybody_took_his_up_keeps_it() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        a.begin_bulk(bulk("k")).await.unwrap();
        a.leave().await.unwrap();
        let again = home.again_after(a).await;
        assert!(!b.renew().await.unwrap().abandoned);
        assert_eq!(b.adopt_bulks().await.unwrap(), []);
        assert_eq!(again.bulks().await.unwrap(), [bulk("k")]);
    })
    .await;
}
