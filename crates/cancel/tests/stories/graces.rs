//! What asking comes to when the grace is over.

use cancel::{Event, Evidence, OnGrace, Outcome, Policy, Reply, Requeue, State, StopHow};

use crate::bench::*;

/// Request 1 was asked and its grace is over; innocent 2 lives on the same instance.
fn ghost() -> Bench {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1, 2], 1);
    bench.cancel(10, 1, Request, Ask);
    bench.recorded(10, 1);
    let draining = Reply::Draining(cancel(10));
    assert_eq!(
        bench.grace_over(1),
        [
            settle(1, Outcome::Canceled, Evidence::FencedOnly(instance(1))),
            told(10, draining),
            close(10, draining),
            drain(1)
        ]
    );
    bench
}

#[test]
fn with_an_innocent_co_tenant_the_instance_drains_and_dies_with_it() {
    let mut bench = ghost();
    assert_eq!(bench.engine.room(instance(1)), 0);
    assert_eq!(bench.answer(2, 1), [settle(2, Outcome::Returned, Evidence::Answered), kill(1)]);
    let gone = cancel::Effect::Gone { request: request(1), evidence: Evidence::Reaped(instance(1)) };
    assert_eq!(bench.reaped(1), [gone]);
    assert_eq!(bench.engine.sizes(), (0, 0, 0));
}

#[test]
fn a_ghost_that_answers_is_gone_and_its_instance_serves_the_innocent_on() {
    let mut bench = ghost();
    assert!(matches!(bench.answer(1, 1)[..], [cancel::Effect::Gone { .. }]));
    assert_eq!(bench.answer(1, 1), [], "once");
    assert_eq!(bench.engine.request(request(2)).map(|view| view.state), Some(State::Running));
    let already = Reply::AlreadyCanceled { cancel: cancel(10), draining: false };
    assert_eq!(bench.cancel(11, 1, Request, Kill), [told(11, already)]);
}

#[test]
fn a_ghost_is_not_gone_by_the_word_of_another_instance() {
    let mut bench = ghost();
    bench.start(2, 4);
    assert_eq!(bench.answer(1, 2), [], "I8: it runs on 1");
    assert!(matches!(bench.answer(1, 1)[..], [cancel::Effect::Gone { .. }]));
}

#[test]
fn an_ask_about_a_ghost_is_told_that_it_drains() {
    let mut bench = ghost();
    let already = Reply::AlreadyCanceled { cancel: cancel(10), draining: true };
    assert_eq!(bench.cancel(11, 1, Subtree, Ask), [told(11, already)]);
}

#[test]
fn a_kill_of_a_ghost_kills_its_instance_and_waits_for_the_reap() {
    let mut bench = ghost();
    assert_eq!(
        bench.cancel(11, 1, Request, Kill),
        [fence_again(1, 11), record(11, 1, Kill), kill(1)],
        "named in the receipt of the cancel that ends it"
    );
    bench.recorded(11, 1);
    assert_eq!(bench.answer(1, 1), [], "I5: the word of a dying instance proves nothing");
    let stopped = Reply::Stopped(cancel(11));
    let gone = cancel::Effect::Gone { request: request(1), evidence: Evidence::Reaped(instance(1)) };
    assert_eq!(bench.reaped(1), [died(2, 1), gone, told(11, stopped), close(11, stopped)]);
}

#[test]
fn a_plan_tells_a_draining_request_from_one_that_would_be_killed() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.start(2, 1);
    bench.arrive(3);
    bench.run(3, 2);
    bench.child(1, 3);
    bench.run(1, 1);
    bench.running(&[2], 1);
    bench.cancel(10, 1, Request, Ask);
    bench.recorded(10, 1);
    bench.grace_over(1);
    let how = |level| {
        let plan = bench.engine.plan(&Bench::ask(11, 3, Subtree, level)).expect("3 runs");
        plan.stops.iter().map(|stop| (stop.request, stop.how)).collect::<Vec<_>>()
    };
    let asked = StopHow::Asked { instance: instance(2), then: OnGrace::Kill };
    assert_eq!(how(Ask), [(request(3), asked), (request(1), StopHow::Draining(instance(1)))]);
    let killed = |id, on| (request(id), StopHow::Killed(instance(on)));
    assert_eq!(how(Kill), [killed(3, 2), killed(1, 1)]);
}

#[test]
fn without_an_innocent_co_tenant_the_instance_is_killed_and_what_was_placed_waits_again() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    bench.arrive(2);
    bench.place(2, 1);
    bench.cancel(10, 1, Request, Ask);
    assert_eq!(bench.grace_over(1), [kill(1), requeue(2, Requeue::Displaced)]);
    assert_eq!(bench.grace_over(1), [], "once");
    assert_eq!(bench.reaped(1), [died(1, 1)]);
}

#[test]
fn two_fenced_co_tenants_are_no_innocents_to_each_other() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1, 2], 1);
    bench.cancel(10, 1, Request, Ask);
    bench.cancel(11, 2, Request, Ask);
    assert_eq!(bench.grace_over(1), [kill(1)]);
}

#[test]
fn a_function_may_choose_that_its_grace_ends_in_a_kill() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.arrive_as(1, None, Policy { on_grace: OnGrace::Kill, ..SYNCHRONOUS });
    bench.run(1, 1);
    bench.running(&[2], 1);
    bench.cancel(10, 1, Request, Ask);
    assert_eq!(bench.grace_over(1), [kill(1)]);
    assert_eq!(bench.reaped(1), [died(2, 1), died(1, 1)]);
}

#[test]
fn a_grace_that_nobody_started_changes_nothing() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    assert_eq!(bench.grace_over(1), []);
    assert_eq!(bench.grace_over(99), []);
}

#[test]
fn a_runtime_of_one_that_does_not_cooperate_is_sent_the_soft_signal() {
    let mut bench = Bench::new();
    bench.start_silent(1, 1);
    bench.running(&[1], 1);
    let terminate = cancel::Effect::Terminate(instance(1));
    assert_eq!(
        bench.cancel(10, 1, Request, Ask),
        [fence(1, 10), record(10, 1, Ask), drain(1), terminate, grace(1)]
    );
    assert_eq!(bench.answer(1, 1), [kill(1)], "its answer is believed only once it is reaped");
    assert_eq!(bench.reaped(1), [died(1, 1)]);
}

#[test]
fn a_runtime_of_several_that_does_not_cooperate_is_only_waited_for() {
    let mut bench = Bench::new();
    bench.start_silent(1, 2);
    bench.running(&[1], 1);
    assert_eq!(bench.cancel(10, 1, Request, Ask), [fence(1, 10), record(10, 1, Ask), grace(1)]);
    assert_eq!(bench.answer(1, 1), [acknowledged(1, 1)]);
}

#[test]
fn a_delivery_that_failed_on_a_draining_instance_waits_again_and_frees_it() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    assert_eq!(bench.tell(Event::RetireAsked(instance(1))), [drain(1)]);
    let failed =
        Event::DeliveryFailed { request: request(1), instance: instance(1), attempt: cancel::Attempt(1) };
    assert_eq!(bench.tell(failed), [requeue(1, Requeue::Displaced), kill(1)]);
}
