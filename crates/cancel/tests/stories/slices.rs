//! Cancels that go through their scope in slices, and what comes between.

use cancel::{Bounds, Effect, Event, Outcome, Refusal, Reply, RequestId};

use crate::bench::*;

/// Slices of one request.
fn bench() -> Bench {
    Bench::bounded(Bounds { slice: 1, ..Bounds::default() })
}

/// A parent and so many children, all running on one instance.
fn family(bench: &mut Bench, children: u128) {
    bench.arrive(1);
    for child in 2..2 + children {
        bench.child(child, 1);
    }
    bench.start(1, 8);
    for id in 1..2 + children {
        bench.run(id, 1);
    }
}

fn fenced(effects: &[Effect]) -> Vec<RequestId> {
    let fence = |effect: &Effect| match effect {
        Effect::Fence { request, .. } => Some(*request),
        _ => None,
    };
    effects.iter().filter_map(fence).collect()
}

#[test]
fn everything_is_fenced_and_recorded_before_anything_is_acted_upon() {
    let mut bench = bench();
    family(&mut bench, 2);
    assert_eq!(fenced(&bench.cancel(10, 1, Subtree, Kill)), [request(1)]);
    assert_eq!(fenced(&bench.tell(Event::WalkOn)), [request(3)]);
    let last = bench.tell(Event::WalkOn);
    assert!(
        matches!(last[..], [Effect::Fence { .. }, Effect::Record { .. }, Effect::Kill(i)] if i == instance(1))
    );
    assert!(bench.engine.unfinished(), "two more to act upon");
    bench.tell(Event::WalkOn);
    bench.tell(Event::WalkOn);
    assert!(!bench.engine.unfinished());
    assert_eq!(bench.tell(Event::WalkOn), []);
    bench.recorded(10, 1);
    let end = bench.reaped(1);
    assert_eq!(
        end[end.len() - 2..],
        [told(10, Reply::Stopped(cancel(10))), close(10, Reply::Stopped(cancel(10)))]
    );
}

#[test]
fn nothing_is_born_below_what_the_walk_has_fenced_and_what_is_born_ahead_of_it_is_found() {
    let mut bench = bench();
    family(&mut bench, 2);
    bench.cancel(10, 1, Subtree, Kill);
    assert_eq!(bench.child(20, 1), [Effect::Refuse { request: request(20), why: Refusal::ParentCanceled }]);
    // The walk has not been to 2: its child is born, and fenced with it.
    assert!(matches!(bench.child(21, 2)[..], [Effect::Accept { .. }]));
    let (mut effects, mut steps) = (Vec::new(), 0);
    while bench.engine.unfinished() {
        effects.extend(bench.tell(Event::WalkOn));
        steps += 1;
    }
    assert_eq!(fenced(&effects), [request(3), request(2), request(21)]);
    assert!(steps <= 7, "{steps} steps");
}

#[test]
fn what_ends_ahead_of_the_walk_ends_as_it_did() {
    let mut bench = bench();
    family(&mut bench, 3);
    bench.cancel(10, 1, Subtree, Kill);
    // The very one that the walk comes to next, and one behind it.
    for id in [4, 2] {
        let ends = bench.answer(id, 1);
        assert!(matches!(ends[0], Effect::Settle { outcome: Outcome::Returned, .. }), "{ends:?}");
    }
    let mut effects = Vec::new();
    while bench.engine.unfinished() {
        effects.extend(bench.tell(Event::WalkOn));
    }
    assert_eq!(fenced(&effects), [request(3)]);
    bench.recorded(10, 1);
    let end = bench.reaped(1);
    assert!(end.contains(&told(10, Reply::Stopped(cancel(10)))), "{end:?}");
}

#[test]
fn a_harder_ask_sends_the_walk_out_anew_and_is_recorded_once() {
    let mut bench = bench();
    family(&mut bench, 2);
    bench.cancel(10, 1, Subtree, Ask);
    bench.tell(Event::WalkOn);
    bench.cancel(11, 1, Subtree, Kill);
    let mut effects = Vec::new();
    while bench.engine.unfinished() {
        effects.extend(bench.tell(Event::WalkOn));
    }
    let records = effects.iter().filter(|effect| matches!(effect, Effect::Record { .. })).count();
    assert_eq!((records, fenced(&effects)), (1, vec![request(3), request(2)]));
    assert_eq!(effects.iter().filter(|effect| **effect == kill(1)).count(), 1);
    assert_eq!(bench.recorded(10, 1), []);
    let end = bench.reaped(1);
    assert!(end.contains(&told(10, Reply::Stopped(cancel(10)))), "{end:?}");
    assert!(end.contains(&told(11, Reply::Stopped(cancel(10)))), "{end:?}");
}

#[test]
fn who_only_waits_for_the_fence_is_told_when_all_is_fenced() {
    let mut bench = bench();
    family(&mut bench, 1);
    bench.cancel_early(10, 1, Subtree, Kill);
    assert_eq!(bench.recorded(10, 1), [], "nothing was asked to be recorded yet");
    bench.tell(Event::WalkOn);
    assert_eq!(bench.recorded(10, 1), [told(10, Reply::Fenced(cancel(10)))]);
}

#[test]
fn one_more_walk_than_may_be_under_way_goes_its_way_at_once() {
    let mut bench = Bench::bounded(Bounds { slice: 1, max_walks: 1, ..Bounds::default() });
    for root in [1, 11] {
        bench.arrive(root);
        bench.child(root + 1, root);
        bench.child(root + 2, root);
    }
    assert_eq!(fenced(&bench.cancel(100, 1, Subtree, Kill)).len(), 1);
    let second = bench.cancel(101, 11, Subtree, Kill);
    assert_eq!(fenced(&second).len(), 3);
    let settled = second.iter().filter(|effect| matches!(effect, Effect::Settle { .. })).count();
    assert_eq!(settled, 3);
    assert!(bench.engine.unfinished(), "the first goes on in its own time");
}

#[test]
fn a_grace_that_is_over_before_its_request_was_acted_upon_leaves_its_instance_alone() {
    let mut bench = bench();
    family(&mut bench, 1);
    bench.cancel(10, 1, Subtree, Ask);
    // Not fenced yet: 2 is innocent, and what drains for its sake is not killed by the rest of the walk.
    assert!(bench.grace_over(1).contains(&drain(1)));
    let mut effects = Vec::new();
    while bench.engine.unfinished() {
        effects.extend(bench.tell(Event::WalkOn));
    }
    assert!(!effects.contains(&kill(1)), "{effects:?}");
}

#[test]
fn what_only_waited_at_an_instance_that_cannot_be_killed_is_stopped_by_whoever_asks() {
    let mut bench = bench();
    bench.start(1, 2);
    bench.running(&[1], 1);
    bench.child(2, 1);
    bench.place(2, 1);
    bench.cancel(10, 1, Subtree, Ask);
    assert_eq!(fenced(&bench.tell(Event::WalkOn)), [request(2)], "and nothing is done to it yet");
    bench.tell(Event::EndAsked(instance(1)));
    bench.tell(Event::KillTimedOut(instance(1)));
    // It never started: whatever becomes of the instance, it is over at once.
    bench.cancel(11, 2, Request, Kill);
    let stopped = Reply::Stopped(cancel(11));
    assert_eq!(bench.recorded(11, 1), [told(11, stopped), close(11, stopped)]);
}
