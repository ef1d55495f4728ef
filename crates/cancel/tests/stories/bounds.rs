//! I10: over a bound the new is refused, and nothing old is lost.

use cancel::{Bounds, Effect, Engine, Event, Refusal, Reply};

use crate::bench::*;

#[test]
fn the_node_holds_no_more_requests_than_it_may_and_takes_more_when_some_are_over() {
    let mut bench = Bench::bounded(Bounds { max_live: 2, ..Bounds::default() });
    bench.arrive(1);
    bench.arrive(2);
    assert_eq!(bench.arrive(3), [Effect::Refuse { request: request(3), why: Refusal::TooMany }]);
    bench.tell(Event::Expired { request: request(1), code: 4213 });
    assert_eq!(bench.arrive(3).len(), 1);
    assert_eq!(bench.engine.live(), 2);
}

#[test]
fn a_cancel_has_no_more_askers_than_it_may_and_goes_on_without_the_rest() {
    let mut bench = Bench::bounded(Bounds { max_askers: 1, ..Bounds::default() });
    bench.start(1, 1);
    bench.running(&[1], 1);
    bench.cancel(10, 1, Request, Ask);
    assert_eq!(bench.cancel(11, 1, Request, Ask), [told(11, Reply::TooManyAskers(cancel(10)))]);
    bench.recorded(10, 1);
    let stopped = Reply::Stopped(cancel(10));
    assert_eq!(bench.answer(1, 1)[1..], [told(10, stopped), close(10, stopped)]);
}

#[test]
fn the_oldest_tombstone_goes_first() {
    let mut bench = Bench::bounded(Bounds { max_tombstones: 1, ..Bounds::default() });
    bench.arrive(1);
    bench.arrive(2);
    bench.tell(Event::Expired { request: request(1), code: 4213 });
    assert!(bench.engine.outcome(request(1)).is_some());
    bench.tell(Event::Expired { request: request(2), code: 4213 });
    assert_eq!(bench.engine.outcome(request(1)), None);
    assert!(bench.engine.outcome(request(2)).is_some());
}

#[test]
fn an_instance_holds_at_least_one_request() {
    let mut bench = Bench::new();
    bench.start(1, 0);
    assert_eq!(bench.engine.room(instance(1)), 1);
    assert_eq!(bench.engine.room(instance(2)), 0);
    assert_eq!(bench.engine.instance(instance(2)), None);
}

#[test]
fn the_defaults_bound_the_memory_of_the_tree_to_320_megabytes() {
    let bytes = Bounds::default().max_live as usize * Engine::BYTES_PER_REQUEST;
    assert!(bytes <= 320_000_000, "{bytes}");
    assert_eq!((Bounds::default().max_depth, Bounds::default().max_below_root), (64, 100_000));
}
