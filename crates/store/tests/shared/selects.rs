//! What a node is told of requests that others have, and of those that wait for any.

use cancel::RequestId;
use store::{
    Claim, ElsewhereQuery, FunctionFilter, FunctionKey, Labels, NewInvocation, Placement, Postgres, Shared,
    Status, Store,
};

use crate::{samples::*, subject::*};

fn all() -> ElsewhereQuery {
    ElsewhereQuery { project: "p".into(), limit: u32::MAX, ..ElsewhereQuery::default() }
}

/// Ids and owners, in the order of acceptance; and how many match in all.
async fn seen(by: &Postgres, query: ElsewhereQuery) -> (Vec<(u128, Option<String>)>, u64) {
    let page = by.select(query).await.unwrap();
    assert!(page.rows.windows(2).all(|pair| pair[0].place < pair[1].place), "not in order: {page:?}");
    (page.rows.into_iter().map(|found| (found.row.request.0, found.owner)).collect(), page.total)
}

async fn ids(by: &Postgres, query: ElsewhereQuery) -> Vec<u128> {
    seen(by, query).await.0.into_iter().map(|(id, _)| id).collect()
}

#[tokio::test]
async fn a_node_sees_what_others_have_and_what_waits_for_any_and_not_its_own() {
    let home = home();
    let (a, b, c) = (home.node(0), home.node(1), home.node(2));
    soon(async {
        a.accept(invocation(1)).await.unwrap();
        b.accept(invocation(2)).await.unwrap();
        a.accept(NewInvocation { placement: Placement::Anywhere, ..invocation(3) }).await.unwrap();
        let foreign = FunctionKey { project: "q".into(), ..key("f") };
        b.accept(NewInvocation { function: foreign.clone().into(), ..invocation(4) }).await.unwrap();
        b.accept(invocation(5)).await.unwrap();
        b.settle(settlement(5, Status::Success, 20)).await.unwrap();
        let (at_a, at_b) = (Some(name(0)), Some(name(1)));
        assert_eq!(seen(&a, all()).await, (vec![(2, at_b.clone()), (3, None)], 2));
        assert_eq!(seen(&b, all()).await, (vec![(1, at_a.clone()), (3, None)], 2));
        assert_eq!(seen(&c, all()).await, (vec![(1, at_a), (2, at_b.clone()), (3, None)], 3));
        let page = c.select(all()).await.unwrap();
        assert!(page.rows.iter().all(|found| found.row.payload.is_empty() && found.row.payload_len == 7));
        // Bounded, and told how many there are; the next page begins where the last one ended.
        assert_eq!(seen(&c, ElsewhereQuery { limit: 2, ..all() }).await.1, 3);
        let rest = ElsewhereQuery { after: page.rows[1].place, limit: 2, ..all() };
        assert_eq!(seen(&c, rest).await, (vec![(3, None)], 3));
        // Once it is claimed it is the claimer's own.
        c.claim(Claim { limit: 9, each: 9, not: vec![] }).await.unwrap();
        assert_eq!(seen(&c, all()).await.0.len(), 2);
        assert_eq!(seen(&a, all()).await.0, [(2, at_b), (3, Some(name(2)))]);
        // Nobody is told of another project by naming its function.
        let named = FunctionFilter::whole(foreign);
        assert_eq!(seen(&a, ElsewhereQuery { function: Some(named), ..all() }).await, (vec![], 0));
    })
    .await;
}

#[tokio::test]
async fn each_term_narrows_what_is_seen_of_others() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        let labels = |pairs: &[(&str, &str)]| {
            Labels::new(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
        };
        let mine = labels(&[("team", "x"), ("tier", "1")]);
        a.accept(NewInvocation { labels: mine, ..invocation(1) }).await.unwrap();
        a.accept(NewInvocation { parent: Some(RequestId(1)), ..invocation(2) }).await.unwrap();
        a.accept(NewInvocation { function: key("g").into(), ..invocation(3) }).await.unwrap();
        a.accept(NewInvocation { function: key("f").at("v1").into(), ..invocation(4) }).await.unwrap();
        for (id, at) in [(2, 50), (3, 60)] {
            a.mark_running(RequestId(id), 1, at).await.unwrap();
        }
        let of = |key: FunctionKey| Some(FunctionFilter::exactly(key));
        let whole = Some(FunctionFilter::whole(key("f")));
        for (query, wanted) in [
            (all(), vec![1, 2, 3, 4]),
            (ElsewhereQuery { function: whole, ..all() }, vec![1, 2, 4]),
            (ElsewhereQuery { function: of(key("f").at("v1")), ..all() }, vec![4]),
            (ElsewhereQuery { function: of(key("h")), ..all() }, vec![]),
            (ElsewhereQuery { created_before_ms: Some(3), ..all() }, vec![1, 2]),
            (ElsewhereQuery { running: Some(true), ..all() }, vec![2, 3]),
            (ElsewhereQuery { running: Some(false), ..all() }, vec![1, 4]),
            (ElsewhereQuery { running: Some(true), started_before_ms: Some(60), ..all() }, vec![2]),
            (ElsewhereQuery { parent: Some(RequestId(1)), ..all() }, vec![2]),
            (ElsewhereQuery { labels: labels(&[("tier", "1")]), ..all() }, vec![1]),
            (ElsewhereQuery { labels: labels(&[("tier", "2")]), ..all() }, vec![]),
            (ElsewhereQuery { limit: 0, ..all() }, vec![]),
        ] {
            assert_eq!(ids(&b, query.clone()).await, wanted, "{query:?}");
        }
    })
    .await;
}
