//! Trees: who is below whom, however deep, wide, late or over.

use cancel::{Bounds, Effect, Event, Refusal, Reply};

use crate::bench::*;

fn refused(id: u128, why: Refusal) -> [Effect; 1] {
    [Effect::Refuse { request: request(id), why }]
}

#[test]
fn a_late_child_of_a_cancelled_request_is_refused_even_as_a_root() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    bench.child(2, 1);
    bench.cancel(10, 1, Subtree, Ask);
    assert_eq!(bench.child(3, 1), refused(3, Refusal::ParentCanceled));
    assert_eq!(bench.child(4, 2), refused(4, Refusal::ParentCanceled), "buried by now");
    let detached =
        Event::Arrived { request: request(5), parent: Some(request(1)), detached: true, policy: SYNCHRONOUS };
    assert_eq!(bench.tell(detached), refused(5, Refusal::ParentCanceled));
    bench.answer(1, 1);
    assert_eq!(bench.child(6, 1), refused(6, Refusal::ParentCanceled), "settled and buried");
    assert_eq!(bench.child(7, 99), refused(7, Refusal::ParentGone));
}

#[test]
fn a_request_scope_cancel_lets_the_children_go_on_and_none_be_born() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    bench.child(2, 1);
    bench.run(2, 1);
    bench.cancel(10, 1, Request, Ask);
    assert_eq!(bench.child(3, 1), refused(3, Refusal::ParentCanceled));
    assert_eq!(bench.child(4, 2).len(), 1, "its grandchildren may");
    bench.recorded(10, 1);
    assert_eq!(bench.answer(1, 1).len(), 3);
    let stops = bench.cancel(11, 1, Subtree, Ask);
    assert_eq!(stops[..3], [fence(2, 11), fence(4, 11), record(11, 1, Ask)], "below a settled one");
}

#[test]
fn a_detached_child_is_a_root_of_its_own() {
    let mut bench = Bench::new();
    bench.arrive(1);
    let detached =
        Event::Arrived { request: request(2), parent: Some(request(1)), detached: true, policy: SYNCHRONOUS };
    assert_eq!(bench.tell(detached), [Effect::Accept { request: request(2), root: request(2), depth: 0 }]);
    assert_eq!(bench.engine.root(request(2)), Some(request(2)));
    assert_eq!(bench.cancel(10, 1, Subtree, Ask), [fence(1, 10), record(10, 1, Ask), removed(1)]);
}

/// A chain of requests, each made by the one before; `depth` is that of the last.
fn chain(depth: u16) -> Bench {
    let mut bench = Bench::bounded(Bounds { max_depth: depth, ..Bounds::default() });
    let mut out = Vec::new();
    for id in 0..=u128::from(depth) {
        let parent = id.checked_sub(1).map(request);
        let event = Event::Arrived { request: request(id), parent, detached: false, policy: SYNCHRONOUS };
        bench.engine.step(event, &mut out);
    }
    assert_eq!(bench.child(99_999, u128::from(depth)), refused(99_999, Refusal::TooDeep));
    bench
}

#[test]
fn a_chain_of_the_greatest_depth_is_cancelled_whole_from_its_root() {
    let depth = Bounds::default().max_depth;
    let mut bench = chain(depth);
    let effects = bench.cancel(10, 0, Subtree, Kill);
    let settled = effects.iter().filter(|effect| matches!(effect, Effect::Settle { .. })).count();
    assert_eq!(settled, usize::from(depth) + 1);
    let stopped = Reply::Stopped(cancel(10));
    assert_eq!(bench.recorded(10, 1), [told(10, stopped), close(10, stopped)]);
    assert_eq!(bench.engine.sizes(), (0, 0, 0));
}

fn walk_on(bench: &mut Bench, out: &mut Vec<Effect>) {
    while bench.engine.unfinished() {
        bench.engine.step(Event::WalkOn, out);
    }
}

#[test]
fn walks_are_iterative_however_deep_a_bound_allows_the_tree_to_be() {
    let mut bench = chain(u16::MAX);
    assert!(!bench.engine.unfinished());
    assert_eq!(bench.engine.subtree(request(0), usize::MAX).len(), 65_536);
    // Not from the root: each one that settles walks up to it, which at this depth is quadratic.
    let mut out = Vec::new();
    bench.engine.step(Event::CancelAsked(Bench::ask(10, 65_000, Subtree, Kill)), &mut out);
    walk_on(&mut bench, &mut out);
    let settled = out.iter().filter(|effect| matches!(effect, Effect::Settle { .. })).count();
    assert_eq!((settled, bench.engine.live()), (536, 65_000));
}

#[test]
fn a_root_with_a_hundred_thousand_children_is_cancelled_whole() {
    let mut bench = Bench::bounded(Bounds { max_below_root: 100_001, ..Bounds::default() });
    let mut out = Vec::new();
    for id in 0..=100_000 {
        let parent = (id > 0).then_some(request(0));
        let event = Event::Arrived { request: request(id), parent, detached: false, policy: SYNCHRONOUS };
        bench.engine.step(event, &mut out);
    }
    assert_eq!(bench.child(200_000, 0), refused(200_000, Refusal::TooManyBelowRoot));
    out.clear();
    bench.engine.step(Event::CancelAsked(Bench::ask(200_001, 0, Subtree, Ask)), &mut out);
    // Nobody else's event waits for more than one slice.
    assert!(out.len() <= Bounds::default().slice as usize, "{} effects", out.len());
    walk_on(&mut bench, &mut out);
    let fences = out.iter().filter(|effect| matches!(effect, Effect::Fence { first: true, .. })).count();
    let settled = out.iter().filter(|effect| matches!(effect, Effect::Settle { .. })).count();
    assert_eq!((fences, settled, bench.engine.live()), (100_001, 100_001, 0));
    let stopped = Reply::Stopped(cancel(200_001));
    assert_eq!(bench.recorded(200_001, 1), [told(200_001, stopped), close(200_001, stopped)]);
    assert_eq!(bench.engine.sizes(), (0, 0, 0));
}

#[test]
fn the_subtree_view_shows_parents_first_and_no_more_than_asked_for() {
    let mut bench = Bench::new();
    bench.arrive(1);
    bench.child(2, 1);
    bench.child(3, 2);
    let ids: Vec<_> = bench.engine.subtree(request(1), 2).iter().map(|view| view.request).collect();
    assert_eq!(ids, [request(1), request(2)]);
    assert!(bench.engine.subtree(request(9), 2).is_empty());
    assert_eq!(bench.engine.root(request(3)), Some(request(1)));
    assert_eq!(bench.engine.root(request(9)), None);
}
