//! Kills, and what is said when they do not succeed.

use cancel::{Effect, Event, Evidence, Outcome, Policy, Reply, Requeue, StopHow};

use crate::bench::*;

#[test]
fn the_co_tenants_of_a_killed_instance_settle_or_wait_again_as_their_functions_chose() {
    let mut bench = Bench::new();
    bench.start(1, 8);
    bench.running(&[1, 2], 1);
    bench.arrive_as(3, None, RETRIED_AS_COLLATERAL);
    bench.run(3, 1);
    bench.arrive_as(4, None, Policy { asynchronous: false, ..RETRIED_AS_COLLATERAL });
    bench.run(4, 1);
    bench.arrive(5);
    bench.place(5, 1);
    let plan = bench.engine.plan(&Bench::ask(10, 1, Request, Kill)).expect("there is something to stop");
    assert_eq!(plan.kills, [instance(1)]);
    assert_eq!(plan.collateral, [request(2), request(4)]);
    assert_eq!(plan.requeued, [request(3), request(5)]);
    assert_eq!(
        bench.cancel(10, 1, Request, Kill),
        [fence(1, 10), record(10, 1, Kill), kill(1), requeue(5, Requeue::Displaced)]
    );
    bench.recorded(10, 1);
    let stopped = Reply::Stopped(cancel(10));
    assert_eq!(
        bench.reaped(1),
        [
            died(2, 1),
            requeue(3, Requeue::Collateral),
            died(4, 1),
            died(1, 1),
            told(10, stopped),
            close(10, stopped)
        ],
        "who was touched besides is known when the asker is told"
    );
    assert_eq!(bench.reaped(1), [], "once");
}

#[test]
fn a_kill_is_not_answered_before_the_reap_nor_before_the_record() {
    let mut bench = Bench::new();
    bench.start(1, 1);
    bench.running(&[1], 1);
    bench.cancel(10, 1, Request, Kill);
    assert_eq!(bench.recorded(10, 1), []);
    assert_eq!(bench.tell(Event::Exited(instance(1))), [], "I5: an exit is not yet an empty containment");
    let stopped = Reply::Stopped(cancel(10));
    assert_eq!(bench.reaped(1), [died(1, 1), told(10, stopped), close(10, stopped)]);
}

#[test]
fn what_cannot_be_killed_is_said_to_be_unkillable_and_the_late_proof_settles_it() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1, 2], 1);
    bench.cancel(10, 1, Request, Kill);
    bench.recorded(10, 1);
    let unkillable = Reply::Unkillable(cancel(10));
    let timed_out = Event::KillTimedOut(instance(1));
    assert_eq!(
        bench.tell(timed_out),
        [
            Effect::Quarantine(instance(1)),
            Effect::Stuck(request(2)),
            Effect::Stuck(request(1)),
            told(10, unkillable),
            close(10, unkillable)
        ]
    );
    assert_eq!(bench.tell(timed_out), [], "once");
    assert_eq!(bench.cancel(11, 1, Request, Kill), [fence_again(1, 11), record(11, 1, Kill)]);
    let unkillable = Reply::Unkillable(cancel(11));
    assert_eq!(bench.recorded(11, 1), [told(11, unkillable), close(11, unkillable)]);
    assert_eq!(bench.reaped(1), [died(2, 1), died(1, 1)]);
    let already = Reply::AlreadyCanceled { cancel: cancel(10), draining: false };
    assert_eq!(bench.cancel(12, 1, Request, Kill), [told(12, already)]);
}

#[test]
fn a_retry_after_a_stuck_instance_is_not_stuck_itself() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.start(2, 4);
    bench.running(&[1], 1);
    bench.arrive_as(2, None, RETRIED_AS_COLLATERAL);
    bench.run(2, 1);
    bench.cancel(10, 1, Request, Kill);
    bench.tell(Event::KillTimedOut(instance(1)));
    bench.reaped(1);
    bench.run(2, 2);
    bench.cancel(11, 2, Request, Kill);
    assert_eq!(bench.recorded(11, 1), [], "it waits for the reap of the second");
    let stopped = Reply::Stopped(cancel(11));
    assert_eq!(bench.reaped(2), [died(2, 2), told(11, stopped), close(11, stopped)]);
}

#[test]
fn who_waited_for_a_start_that_failed_is_told_even_if_the_remains_cannot_be_killed() {
    let mut bench = Bench::new();
    bench.tell(Event::InstanceStarted { instance: instance(1), capacity: 4 });
    bench.arrive(1);
    bench.arrive_as(2, None, Policy { retries: 1, ..SYNCHRONOUS });
    bench.place(1, 1);
    bench.place(2, 1);
    assert_eq!(bench.tell(Event::StartFailed { instance: instance(1), code: 4201 }), [kill(1)]);
    assert_eq!(
        bench.tell(Event::KillTimedOut(instance(1))),
        [
            Effect::Quarantine(instance(1)),
            Effect::Settle {
                request: request(1),
                outcome: Outcome::Failed(4201),
                ran: false,
                evidence: Evidence::NeverStarted
            },
            requeue(2, Requeue::Retry)
        ]
    );
    assert_eq!(bench.reaped(1), []);
}

#[test]
fn a_kill_timeout_of_an_instance_nobody_kills_says_nothing() {
    let mut bench = Bench::new();
    bench.start(1, 1);
    assert_eq!(bench.tell(Event::KillTimedOut(instance(1))), []);
    assert_eq!(bench.tell(Event::KillTimedOut(instance(9))), []);
}

#[test]
fn a_kill_of_a_request_whose_instance_still_starts_ends_the_start() {
    let mut bench = Bench::new();
    bench.tell(Event::InstanceStarted { instance: instance(1), capacity: 2 });
    bench.arrive(1);
    bench.arrive(2);
    bench.place(1, 1);
    bench.place(2, 1);
    let plan = bench.engine.plan(&Bench::ask(10, 1, Request, Kill)).expect("there is something to stop");
    assert_eq!((plan.kills, plan.requeued), (vec![instance(1)], vec![request(2)]));
    assert_eq!(
        bench.cancel(10, 1, Request, Kill),
        [fence(1, 10), record(10, 1, Kill), kill(1), requeue(2, Requeue::Displaced)]
    );
    assert_eq!(bench.take(1, 1), [], "no window: it is fenced");
    assert_eq!(bench.reaped(1).len(), 1);
}

#[test]
fn a_plan_names_what_is_dying_already_as_killed_and_kills_nothing_twice() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1, 2], 1);
    bench.tell(Event::Exited(instance(1)));
    let plan = bench.engine.plan(&Bench::ask(10, 1, Request, Ask)).expect("there is something to stop");
    assert_eq!(plan.stops[0].how, StopHow::Killed(instance(1)));
    assert!(plan.kills.is_empty() && plan.collateral.is_empty() && plan.requeued.is_empty());
}
