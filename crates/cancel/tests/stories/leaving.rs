//! Requests that come and go, and facts that come too late.

use cancel::{Answer, Attempt, Effect, Event, Evidence, Outcome, Policy, Refusal, Reply, Requeue};

use crate::bench::*;

#[test]
fn a_fence_between_placing_and_taking_leaves_no_window() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.arrive(1);
    bench.place(1, 1);
    assert_eq!(bench.cancel(10, 1, Request, Kill), [fence(1, 10), record(10, 1, Kill), removed(1)]);
    assert_eq!(bench.take(1, 1), []);
    assert_eq!(bench.engine.room(instance(1)), 4, "its place is free again");
}

#[test]
fn a_fence_between_taking_and_a_failed_delivery_settles_it_as_never_started() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    bench.cancel(10, 1, Request, Ask);
    let failed = Event::DeliveryFailed { request: request(1), instance: instance(1), attempt: Attempt(1) };
    assert_eq!(bench.tell(failed), [removed(1)], "it never ran");
}

#[test]
fn a_request_whose_first_delivery_failed_has_run_once_the_second_arrived() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    let failed = Event::DeliveryFailed { request: request(1), instance: instance(1), attempt: Attempt(1) };
    assert_eq!(bench.tell(failed), [], "it keeps its place");
    let deliver = Effect::Deliver { request: request(1), instance: instance(1), attempt: Attempt(2) };
    assert_eq!(bench.take(1, 1), [deliver]);
    bench.cancel(10, 1, Request, Kill);
    assert_eq!(bench.reaped(1), [died(1, 1)]);
}

#[test]
fn answers_of_another_attempt_or_instance_change_nothing() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.start(2, 4);
    bench.arrive_as(1, None, Policy { retries: 1, ..SYNCHRONOUS });
    bench.run(1, 1);
    let answered = |on, attempt| Event::Answered {
        request: request(1),
        instance: instance(on),
        attempt: Attempt(attempt),
        answer: Answer::Failed { code: 4211, retry: true },
    };
    assert_eq!(bench.tell(answered(2, 1)), []);
    assert_eq!(bench.tell(answered(1, 2)), []);
    assert_eq!(bench.tell(answered(1, 1)), [requeue(1, Requeue::Retry)]);
    assert_eq!(bench.tell(answered(1, 1)), [], "twice");
    bench.run(1, 1);
    assert_eq!(bench.tell(answered(1, 1)), [], "I8: late, of the first attempt");
    assert_eq!(bench.tell(answered(1, 2)), [settle(1, Outcome::Failed(4211), Evidence::Answered)]);
}

#[test]
fn a_crash_is_a_failed_attempt_and_the_policy_decides() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.arrive_as(1, None, Policy { retries: 1, ..SYNCHRONOUS });
    bench.run(1, 1);
    bench.running(&[2], 1);
    assert_eq!(bench.tell(Event::Exited(instance(1))), [kill(1)]);
    let crashed = settle(2, Outcome::Crashed, Evidence::Reaped(instance(1)));
    assert_eq!(bench.reaped(1), [requeue(1, Requeue::Retry), crashed]);
}

#[test]
fn the_end_of_the_node_keeps_asynchronous_requests_for_the_next_life() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.arrive_as(1, None, RETRIED_AS_COLLATERAL);
    bench.run(1, 1);
    bench.running(&[2], 1);
    assert_eq!(bench.tell(Event::EndAsked(instance(1))), [kill(1)]);
    let crashed = settle(2, Outcome::Crashed, Evidence::Reaped(instance(1)));
    assert_eq!(bench.reaped(1), [requeue(1, Requeue::Displaced), crashed]);
}

#[test]
fn a_place_may_be_changed_until_it_is_taken() {
    let mut bench = Bench::new();
    bench.start(1, 1);
    bench.start(2, 1);
    bench.arrive(1);
    bench.place(1, 1);
    assert_eq!(bench.place(1, 2), []);
    assert_eq!((bench.engine.room(instance(1)), bench.engine.room(instance(2))), (1, 0));
    assert_eq!(bench.take(1, 1), []);
    bench.arrive(2);
    assert_eq!(bench.place(2, 2), [requeue(2, Requeue::Displaced)], "no room");
    assert_eq!(bench.place(2, 9), [requeue(2, Requeue::Displaced)], "no such instance");
    assert_eq!(bench.take(1, 2).len(), 1);
    assert_eq!(bench.place(1, 1), [], "it runs");
}

#[test]
fn a_withdrawn_request_never_was() {
    let mut bench = Bench::new();
    bench.arrive(1);
    bench.child(2, 1);
    assert_eq!(bench.tell(Event::Withdrawn(request(1))), []);
    assert!(bench.engine.request(request(1)).is_some(), "it has a child");
    assert_eq!(bench.tell(Event::Withdrawn(request(2))), []);
    assert_eq!(bench.cancel(10, 2, Request, Ask), [told(10, Reply::Unknown)]);
    assert_eq!(bench.child(2, 1).len(), 1, "and may come again");
}

#[test]
fn a_request_that_waited_too_long_settles_with_its_code() {
    let mut bench = Bench::new();
    bench.start(1, 1);
    bench.arrive(1);
    bench.place(1, 1);
    let settled = Effect::Settle {
        request: request(1),
        outcome: Outcome::Failed(4213),
        ran: false,
        evidence: Evidence::NeverStarted,
    };
    assert_eq!(bench.tell(Event::Expired { request: request(1), code: 4213 }), [settled]);
    assert_eq!(bench.engine.room(instance(1)), 1);
    assert_eq!(bench.cancel(10, 1, Request, Ask), [told(10, Reply::Finished(Outcome::Failed(4213)))]);
    let again = Effect::Refuse { request: request(1), why: Refusal::Duplicate };
    assert_eq!(bench.arrive(1), [again]);
}

#[test]
fn every_outcome_has_the_code_of_the_wire() {
    let codes = [
        (Outcome::Returned, 0),
        (Outcome::Failed(4211), 4211),
        (Outcome::Canceled, cancel::CODE_CANCELED),
        (Outcome::TimedOut, cancel::CODE_TIMED_OUT),
        (Outcome::Crashed, cancel::CODE_CRASHED),
    ];
    for (outcome, code) in codes {
        assert_eq!(outcome.code(), code, "{outcome:?}");
    }
    assert_eq!((cancel::CODE_CANCELED, cancel::CODE_TIMED_OUT, cancel::CODE_CRASHED), (4208, 4010, 4204));
}
