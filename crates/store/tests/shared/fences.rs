//! Fences over trees that are on several nodes, and the parts that come of them.

use cancel::{CancelId, Level, RequestId, Scope};
use store::{
    Fence, Fenced, Lineage, NewInvocation, NewReceipt, News, Part, PartState, Placement, Reach, Settlement,
    Shared, Status, Store, StoreError,
};

use crate::{lives::FenceOf, samples::*, subject::*};

/// A request below others of the tree `root`.
pub(crate) fn child(id: u128, root: u128, above: &[u128]) -> NewInvocation {
    let above: Vec<_> = above.iter().copied().map(RequestId).collect();
    NewInvocation {
        parent: above.first().copied(),
        lineage: Lineage { root: Some(RequestId(root)), above },
        ..invocation(id)
    }
}

fn anywhere(new: NewInvocation) -> NewInvocation {
    NewInvocation { placement: Placement::Anywhere, ..new }
}

pub(crate) fn reaching(id: u128, fenced: &[u128], root: u128, level: Level) -> NewReceipt {
    let reach = Reach { root: RequestId(root), level, actor: "{}".into() };
    NewReceipt { reach: Some(reach), ..receipt(id, fenced) }
}

fn requests(parts: &[Part]) -> Vec<(u128, String)> {
    parts.iter().map(|part| (part.request.0, part.node.clone())).collect()
}

#[tokio::test]
async fn a_fence_finds_a_tree_on_every_node_and_in_the_queue() {
    let home = home();
    let (a, b, c) = (home.node(0), home.node(1), home.node(2));
    soon(async {
        // 1 on a; 2 on b; 3 below 2 with something synchronous (77) between, on a; 4 below 3 in the queue; 5 a stranger.
        a.accept(invocation(1)).await.unwrap();
        b.accept(child(2, 1, &[1])).await.unwrap();
        a.accept(child(3, 1, &[77, 2])).await.unwrap();
        a.accept(anywhere(child(4, 1, &[3]))).await.unwrap();
        a.accept(anywhere(invocation(5))).await.unwrap();
        a.accept(invocation(6)).await.unwrap();
        // What is over in the middle hides nothing.
        b.settle(settlement(2, Status::Success, 20)).await.unwrap();
        let (mut at_a, mut at_b) = (a.news(), b.news());
        let fenced = c.fence(FenceOf { cancel: 9, target: 1 }.ask()).await.unwrap();
        let Fenced::Stopping { settled, parts } = fenced else { panic!("{fenced:?}") };
        assert_eq!(settled, [(RequestId(4), key("f"))]);
        assert_eq!(requests(&parts), [(1, name(0)), (3, name(0))]);
        let part = &parts[0];
        assert_eq!(
            (part.function.clone(), part.scope, part.level),
            (Some(key("f")), Scope::Subtree, Level::Ask)
        );
        assert_eq!((part.project.as_str(), part.actor.as_str(), part.epoch), ("p", "{\"who\":1}", 1));
        while at_a.recv().await.unwrap() != News::Parts {} // some may still tell of the queue
        let row = async |id| a.invocation(RequestId(id)).await.unwrap().unwrap();
        assert_eq!((row(4).await.status, row(4).await.error_code), (Status::Discard, 4208));
        assert_eq!(
            (row(4).await.ended_ms, row(4).await.error_message.as_str()),
            (Some(50), "function invocation canceled")
        );
        assert_eq!((row(3).await.fenced_by, row(5).await.fenced_by), (Some(CancelId(9)), None));
        assert_eq!(c.receipt(CancelId(9)).await.unwrap().unwrap().target, RequestId(1));
        for (id, above) in [(10, 1), (11, 3), (12, 77), (13, 4)] {
            let accepted = b.accept(child(id, 1, &[above])).await;
            // 77 is synchronous: its owner knows that it is fenced, the store does not.
            assert_eq!(accepted, if above == 77 { Ok(()) } else { Err(StoreError::Banned) }, "{above}");
        }
        b.accept(child(14, 6, &[6])).await.unwrap();
        assert!(a.claim(store::Claim { limit: 9, each: 9, not: vec![] }).await.unwrap().len() == 1);
        // The owner reports.
        assert_eq!(requests(&a.parts().await.unwrap()), [(1, name(0)), (3, name(0))]);
        assert_eq!(b.parts().await.unwrap(), []);
        a.report(parts[0].part, PartState::Stopped, "proof".into()).await.unwrap();
        a.report(parts[0].part, PartState::Draining, "late".into()).await.unwrap();
        loop {
            match at_b.recv().await.unwrap() {
                News::Reported(cancel) => break assert_eq!(cancel, CancelId(9)),
                News::Queue => {}
                other => panic!("{other:?}"),
            }
        }
        let parts = c.parts_of(CancelId(9)).await.unwrap();
        assert_eq!((parts[0].state, parts[0].detail.as_str()), (PartState::Stopped, "proof"));
        assert_eq!(parts[1].state, PartState::Open);
        assert_eq!(a.renew().await.unwrap().parts.len(), 1);
        // Somebody else's part is not ours to report.
        c.report(parts[1].part, PartState::Stopped, String::new()).await.unwrap();
        assert_eq!(a.parts().await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn what_is_unknown_or_over_is_said_to_be() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        a.accept(invocation(1)).await.unwrap();
        a.accept(anywhere(invocation(2))).await.unwrap();
        a.settle(settlement(1, Status::Success, 3)).await.unwrap();
        let fence = async |of: Fence| b.fence(of).await.unwrap();
        assert_eq!(fence(FenceOf { cancel: 9, target: 77 }.ask()).await, Fenced::Unknown);
        let of_g = Fence {
            function: store::FunctionFilter::whole(key("g")),
            ..FenceOf { cancel: 9, target: 2 }.ask()
        };
        assert_eq!(fence(of_g).await, Fenced::Unknown);
        assert_eq!(a.invocation(RequestId(2)).await.unwrap().unwrap().fenced_by, None);
        assert_eq!(fence(FenceOf { cancel: 9, target: 1 }.ask()).await, Fenced::Finished(Status::Success));
        assert_eq!(b.receipt(CancelId(9)).await, Ok(None));
        let fenced = fence(FenceOf { cancel: 8, target: 2 }.ask()).await;
        assert_eq!(fenced, Fenced::Stopping { settled: vec![(RequestId(2), key("f"))], parts: vec![] });
        assert_eq!(fence(FenceOf { cancel: 9, target: 2 }.ask()).await, Fenced::Canceled(CancelId(8)));
        // Over, but not what hangs below it.
        a.accept(child(3, 1, &[1])).await.unwrap();
        let Fenced::Stopping { parts, .. } = fence(FenceOf { cancel: 7, target: 1 }.ask()).await else {
            panic!()
        };
        assert_eq!(requests(&parts), [(3, name(0))]);
    })
    .await;
}

#[tokio::test]
async fn a_request_alone_leaves_its_children_and_lets_no_new_one_come() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        a.accept(invocation(1)).await.unwrap();
        b.accept(child(2, 1, &[1])).await.unwrap();
        let alone = Fence { scope: Scope::Request, ..FenceOf { cancel: 9, target: 1 }.ask() };
        let Fenced::Stopping { parts, .. } = b.fence(alone).await.unwrap() else { panic!() };
        assert_eq!(requests(&parts), [(1, name(0))]);
        assert_eq!(a.invocation(RequestId(2)).await.unwrap().unwrap().fenced_by, None);
        assert_eq!(a.accept(child(3, 1, &[1])).await, Err(StoreError::Banned));
        b.accept(child(4, 1, &[2])).await.unwrap();
        // A part for the request alone does not do for its subtree.
        let Fenced::Stopping { parts, .. } = b.fence(FenceOf { cancel: 10, target: 1 }.ask()).await.unwrap()
        else {
            panic!()
        };
        assert_eq!(requests(&parts), [(1, name(0)), (2, name(1)), (4, name(1))]);
        assert_eq!(b.accept(child(5, 1, &[4])).await, Err(StoreError::Banned));
    })
    .await;
}

#[tokio::test]
async fn a_cancel_of_the_owner_reaches_over_other_nodes_and_not_over_its_own() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        a.accept(invocation(1)).await.unwrap();
        a.accept(child(2, 1, &[1])).await.unwrap();
        b.accept(child(3, 1, &[2])).await.unwrap();
        b.accept(child(4, 1, &[50])).await.unwrap();
        a.accept(anywhere(child(5, 1, &[3]))).await.unwrap();
        a.record_cancel(reaching(9, &[2, 50], 1, Level::Ask)).await.unwrap();
        assert_eq!(requests(&a.parts_of(CancelId(9)).await.unwrap()), [(3, name(1)), (4, name(1))]);
        assert_eq!(a.parts().await, Ok(vec![]));
        let row = async |id| b.invocation(RequestId(id)).await.unwrap().unwrap();
        assert_eq!(row(1).await.fenced_by, None, "it is above");
        for id in 2..=5 {
            assert_eq!(row(id).await.fenced_by, Some(CancelId(9)), "{id}");
        }
        assert_eq!(row(5).await.status, Status::Discard);
        assert_eq!(b.accept(child(6, 1, &[60, 50])).await, Err(StoreError::Banned));
        assert_eq!(b.receipt_of(RequestId(50)).await.unwrap().unwrap().cancel, CancelId(9));
        b.accept(child(7, 1, &[1])).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn harder_makes_parts_again_and_as_hard_waits_for_those_there_are() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        a.accept(invocation(1)).await.unwrap();
        b.accept(child(2, 1, &[1])).await.unwrap();
        a.record_cancel(reaching(9, &[1], 1, Level::Ask)).await.unwrap();
        // The same again, and another one as hard: the one part does.
        a.record_cancel(reaching(9, &[1], 1, Level::Ask)).await.unwrap();
        let Fenced::Stopping { parts, .. } = b.fence(FenceOf { cancel: 10, target: 2 }.ask()).await.unwrap()
        else {
            panic!()
        };
        assert_eq!(b.parts().await.unwrap().len(), 1);
        assert_eq!(parts, b.parts().await.unwrap(), "it waits for what is under way");
        assert_eq!(parts[0].cancel, CancelId(9));
        // Harder.
        a.record_cancel(reaching(9, &[1], 1, Level::Kill)).await.unwrap();
        let open = b.parts().await.unwrap();
        assert_eq!(open.iter().map(|part| part.level).collect::<Vec<_>>(), [Level::Ask, Level::Kill]);
        // Both cancels hear of the first part.
        let mut news = a.news();
        b.report(open[0].part, PartState::Stopped, String::new()).await.unwrap();
        let mut told = vec![news.recv().await.unwrap(), news.recv().await.unwrap()];
        told.sort_by_key(|news| format!("{news:?}"));
        assert_eq!(told.len(), 2);
        for cancel in [9, 10] {
            assert!(told.contains(&News::Reported(CancelId(cancel))), "{told:?}");
        }
        // One that was answered does not do for a new cancel.
        b.report(open[1].part, PartState::Finished, String::new()).await.unwrap();
        let Fenced::Stopping { parts, .. } = a.fence(FenceOf { cancel: 11, target: 2 }.ask()).await.unwrap()
        else {
            panic!()
        };
        assert_eq!((parts.len(), parts[0].cancel, parts[0].state), (1, CancelId(11), PartState::Open));
    })
    .await;
}

#[tokio::test]
async fn who_is_asked_around_answers_each_for_itself_and_a_lost_node_is_answered_for() {
    let home = home();
    let (a, b, c) = (home.node(0), home.open(1), home.node(2));
    soon(async {
        b.join(joining(0)).await.unwrap();
        let parts = a.ask_around(FenceOf { cancel: 9, target: 77 }.ask()).await.unwrap();
        assert_eq!(requests(&parts), [(77, name(1)), (77, name(2))]);
        assert!(parts.iter().all(|part| part.function.is_none() && part.state == PartState::Open));
        let asked = c.parts().await.unwrap();
        c.report(asked[0].part, PartState::NotHere, String::new()).await.unwrap();
        let mut news = c.news();
        assert_eq!(a.take_over(name(1)).await, Ok(true));
        let told = async {
            loop {
                if news.recv().await.unwrap() == News::Reported(CancelId(9)) {
                    break;
                }
            }
        };
        told.await;
        let states: Vec<_> = a.parts_of(CancelId(9)).await.unwrap().iter().map(|part| part.state).collect();
        assert_eq!(states, [PartState::NodeLost, PartState::NotHere]);
    })
    .await;
}

#[tokio::test]
async fn a_tree_is_shown_with_its_owners_and_through_what_was_forgotten() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        a.accept(invocation(1)).await.unwrap();
        b.accept(child(2, 1, &[1])).await.unwrap();
        b.accept(child(3, 1, &[2])).await.unwrap();
        a.accept(anywhere(child(4, 1, &[3]))).await.unwrap();
        b.settle(settlement(2, Status::Success, 5)).await.unwrap();
        b.settle(settlement(3, Status::Success, 500)).await.unwrap();
        assert_eq!(b.prune(100, 10).await, Ok(1));
        let below = async |id, limit| {
            let rows = a.below(RequestId(id), limit).await.unwrap();
            rows.into_iter().map(|(row, owner)| (row.request.0, row.root, owner)).collect::<Vec<_>>()
        };
        let root = Some(RequestId(1));
        assert_eq!(below(1, 10).await, [(1, None, Some(name(0))), (4, root, None)]);
        assert_eq!(below(1, 1).await.len(), 1);
        assert_eq!(below(3, 10).await.len(), 2, "what was asked for is shown, over or not");
        let Fenced::Stopping { settled, .. } = b.fence(FenceOf { cancel: 9, target: 1 }.ask()).await.unwrap()
        else {
            panic!()
        };
        assert_eq!(settled, [(RequestId(4), key("f"))]);
    })
    .await;
}

#[tokio::test]
async fn a_result_is_not_handed_on_below_a_fence() {
    let home = home();
    let a = home.node(0);
    soon(async {
        a.accept(invocation(1)).await.unwrap();
        a.accept(child(2, 1, &[1])).await.unwrap();
        a.record_cancel(NewReceipt { ..reaching(9, &[1, 2], 1, Level::Ask) }).await.unwrap();
        let next = Some(Box::new(child(3, 1, &[2])));
        let end = store::Settlement { next, ..settlement(2, Status::Success, 50) };
        assert_eq!(a.settle(end).await, Err(StoreError::Banned));
        assert_eq!(a.invocation(RequestId(2)).await.unwrap().unwrap().status, Status::Wait);
        assert_eq!(a.invocation(RequestId(3)).await, Ok(None));
    })
    .await;
}

#[tokio::test]
async fn who_carries_out_a_part_waits_for_the_parts_below_and_makes_none_unless_something_synchronous_is_with_it()
 {
    let home = home();
    let (a, b, c) = (home.node(0), home.node(1), home.node(2));
    soon(async {
        // 1 on a, 2 on b, 3 on c; fenced from c.
        a.accept(invocation(1)).await.unwrap();
        b.accept(child(2, 1, &[1])).await.unwrap();
        c.accept(child(3, 1, &[2])).await.unwrap();
        c.fence(FenceOf { cancel: 9, target: 1 }.ask()).await.unwrap();
        let parts = async |cancel| requests(&a.parts_of(CancelId(cancel)).await.unwrap());
        assert_eq!(parts(9).await, [(1, name(0)), (2, name(1)), (3, name(2))]);
        b.record_cancel(reaching(10, &[2], 1, Level::Ask)).await.unwrap();
        assert_eq!(
            parts(10).await,
            [(3, name(2))],
            "what is above is not waited for, and nothing is asked twice"
        );
        assert_eq!(c.parts().await.unwrap().len(), 1);
        assert_eq!(b.accept(child(4, 1, &[2])).await, Err(StoreError::Banned));
        // With 77, which the store does not know, what hangs below that alone is found.
        c.accept(child(5, 1, &[77])).await.unwrap();
        a.record_cancel(reaching(11, &[1, 77], 1, Level::Ask)).await.unwrap();
        assert_eq!(parts(11).await, [(2, name(1)), (3, name(2)), (5, name(2))]);
        assert_eq!(c.accept(child(6, 1, &[77])).await, Err(StoreError::Banned));
        // Harder than it was asked for is asked of the others.
        b.record_cancel(reaching(12, &[2], 1, Level::Kill)).await.unwrap();
        assert_eq!(parts(12).await, [(3, name(2))]);
        assert_eq!(c.parts().await.unwrap().iter().filter(|part| part.request == RequestId(3)).count(), 2);
    })
    .await;
}

#[tokio::test]
async fn an_end_that_is_written_after_a_fence_of_another_node_is_a_cancelled_one_and_hands_nothing_on() {
    let home = home();
    let (a, b) = (home.node(0), home.node(1));
    soon(async {
        for id in 1..=4 {
            a.accept(invocation(id)).await.unwrap();
        }
        b.fence(FenceOf { cancel: 8, target: 1 }.ask()).await.unwrap();
        b.fence(FenceOf { cancel: 9, target: 2 }.ask()).await.unwrap();
        a.record_cancel(receipt(7, &[3])).await.unwrap();
        let handing_on = |id, next| Settlement {
            next: Some(Box::new(invocation(next))),
            ..settlement(id, Status::Success, 20)
        };
        assert_eq!(a.settle(handing_on(1, 11)).await, Ok(false));
        assert_eq!(a.settle(settlement(2, Status::Success, 20)).await, Ok(true));
        // Of a fence of its own it knows what came of it.
        assert_eq!(a.settle(settlement(3, Status::Success, 20)).await, Ok(true));
        assert_eq!(a.settle(handing_on(4, 14)).await, Ok(true));
        let row = async |id| a.invocation(RequestId(id)).await.unwrap();
        for (id, status, code) in [
            (1, Status::Fail, 4208),
            (2, Status::Fail, 4208),
            (3, Status::Success, 0),
            (4, Status::Success, 0),
        ] {
            let row = row(id).await.unwrap();
            assert_eq!((row.status, row.error_code, row.ended_ms), (status, code, Some(20)), "{id}");
        }
        assert_eq!((row(11).await, row(14).await.map(|row| row.status)), (None, Some(Status::Wait)));
    })
    .await;
}
