//! Several cancels about the same requests.

use cancel::{CancelAsk, Cause, Event, Evidence, Outcome, Reply};

use crate::bench::*;

#[test]
fn a_second_ask_joins_and_both_are_answered_when_it_is_over() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    assert_eq!(bench.cancel(10, 1, Request, Ask), [fence(1, 10), record(10, 1, Ask), ask_of(1, 1), grace(1)]);
    assert_eq!(bench.cancel(11, 1, Request, Ask), []);
    assert_eq!(bench.recorded(10, 1), []);
    let stopped = Reply::Stopped(cancel(10));
    assert_eq!(
        bench.answer(1, 1),
        [acknowledged(1, 1), told(10, stopped), told(11, stopped), close(10, stopped)]
    );
}

#[test]
fn a_harder_ask_escalates_the_running_cancel_and_needs_a_new_record() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    bench.cancel(10, 1, Request, Ask);
    assert_eq!(bench.cancel(11, 1, Request, Kill), [fence_again(1, 10), record(10, 2, Kill), kill(1)]);
    assert_eq!(bench.recorded(10, 1), [], "the first record is not the last word");
    assert_eq!(bench.answer(1, 1), [], "I5: its word counts no more");
    assert_eq!(bench.reaped(1), [died(1, 1)]);
    let stopped = Reply::Stopped(cancel(10));
    assert_eq!(bench.recorded(10, 2), [told(10, stopped), told(11, stopped), close(10, stopped)]);
}

#[test]
fn a_wider_ask_takes_in_the_children() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    bench.child(2, 1);
    bench.cancel(10, 1, Request, Ask);
    assert_eq!(
        bench.cancel(11, 1, Subtree, Ask),
        [fence_again(1, 10), fence(2, 10), record(10, 2, Ask), removed(2)]
    );
    bench.recorded(10, 2);
    let stopped = Reply::Stopped(cancel(10));
    assert_eq!(bench.answer(1, 1)[1..], [told(10, stopped), told(11, stopped), close(10, stopped)]);
}

#[test]
fn one_ask_may_be_wider_and_another_harder_and_the_cancel_is_both() {
    let mut bench = Bench::new();
    bench.start(1, 1);
    bench.start(2, 1);
    bench.running(&[1], 1);
    bench.child(2, 1);
    bench.run(2, 2);
    bench.cancel(10, 1, Request, Kill);
    let ask = Bench::ask(11, 1, Subtree, Ask);
    let plan = bench.engine.plan(&ask).expect("there is something to stop");
    assert_eq!(plan.kills, [instance(2)], "the plan knows what the ask comes to");
    assert_eq!(
        bench.tell(Event::CancelAsked(ask)),
        [fence_again(1, 10), fence(2, 10), record(10, 2, Kill), kill(2)]
    );
}

#[test]
fn a_softer_or_narrower_ask_changes_nothing() {
    let mut bench = Bench::new();
    bench.start(1, 1);
    bench.running(&[1], 1);
    bench.child(2, 1);
    bench.cancel(10, 1, Subtree, Kill);
    assert_eq!(bench.cancel(11, 1, Request, Ask), []);
}

#[test]
fn a_child_cancelled_first_keeps_its_cancel_and_the_parent_waits_for_it() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    bench.child(2, 1);
    bench.run(2, 1);
    bench.cancel(10, 2, Request, Ask);
    assert_eq!(
        bench.cancel(11, 1, Subtree, Ask),
        [fence(1, 11), fence_again(2, 11), record(11, 1, Ask), ask_of(1, 1), grace(1)]
    );
    bench.recorded(10, 1);
    bench.recorded(11, 1);
    assert_eq!(bench.answer(1, 1), [acknowledged(1, 1)]);
    let (child, parent) = (Reply::Stopped(cancel(10)), Reply::Stopped(cancel(11)));
    assert_eq!(
        bench.answer(2, 1),
        [acknowledged(2, 1), told(10, child), close(10, child), told(11, parent), close(11, parent)]
    );
}

#[test]
fn a_child_killed_while_its_parents_subtree_is_asked_dies_and_the_parent_is_still_asked() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.start(2, 4);
    bench.running(&[1], 1);
    bench.child(2, 1);
    bench.run(2, 2);
    bench.cancel(10, 1, Subtree, Ask);
    assert_eq!(bench.cancel(11, 2, Request, Kill), [fence_again(2, 11), record(11, 1, Kill), kill(2)]);
    bench.recorded(10, 1);
    bench.recorded(11, 1);
    let (parent, child) = (Reply::Stopped(cancel(10)), Reply::Stopped(cancel(11)));
    assert_eq!(bench.reaped(2), [died(2, 2), told(11, child), close(11, child)]);
    assert_eq!(bench.answer(1, 1), [acknowledged(1, 1), told(10, parent), close(10, parent)]);
}

#[test]
fn an_early_asker_is_answered_at_the_record_and_not_before() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    bench.cancel_early(10, 1, Request, Ask);
    let fenced = Reply::Fenced(cancel(10));
    assert_eq!(bench.recorded(10, 1), [told(10, fenced)]);
    assert_eq!(bench.cancel_early(11, 1, Request, Ask), [told(11, fenced)], "it is recorded by now");
    let stopped = Reply::Stopped(cancel(10));
    assert_eq!(bench.answer(1, 1), [acknowledged(1, 1), close(10, stopped)]);
}

#[test]
fn who_was_cancelled_before_is_told_so_only_once_that_is_durable() {
    let mut bench = Bench::new();
    bench.arrive(1);
    bench.cancel(10, 1, Request, Ask);
    assert_eq!(bench.cancel(11, 1, Request, Ask), [], "I6: stopped, and not recorded yet");
    let (stopped, already) =
        (Reply::Stopped(cancel(10)), Reply::AlreadyCanceled { cancel: cancel(10), draining: false });
    assert_eq!(bench.recorded(10, 1), [told(11, already), told(10, stopped), close(10, stopped)]);
    assert_eq!(bench.cancel(12, 1, Subtree, Kill), [told(12, already)]);
}

#[test]
fn who_was_cancelled_without_a_record_is_never_told_that_it_is_recorded() {
    let mut bench = Bench::new();
    bench.arrive(1);
    bench.child(2, 1);
    bench.arrive(3);
    bench.cancel(9, 3, Request, Ask);
    bench.recorded(9, 1);
    bench.cancel(10, 1, Request, Ask);
    let lost = Reply::NotRecorded(cancel(10));
    assert_eq!(bench.record_failed(10, 1), [told(10, lost), close(10, lost)]);
    assert_eq!(bench.cancel(11, 1, Request, Ask), [told(11, lost)], "kept for its child");
    bench.tell(Event::Expired { request: request(2), code: 4213 });
    assert_eq!(bench.cancel(12, 1, Request, Ask), [told(12, lost)], "buried");
    let already = Reply::AlreadyCanceled { cancel: cancel(9), draining: false };
    assert_eq!(bench.cancel(13, 3, Request, Ask), [told(13, already)], "another cancel's record is there");
}

#[test]
fn a_record_that_failed_is_made_good_by_the_next_one() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    bench.cancel(10, 1, Request, Ask);
    bench.cancel(11, 1, Request, Kill);
    assert_eq!(bench.record_failed(10, 1), []);
    assert_eq!(bench.recorded(10, 2), []);
    assert_eq!(bench.recorded(10, 3), [], "nobody asked for a third");
    assert_eq!(bench.record_failed(10, 1), [], "the first one again");
    let stopped = Reply::Stopped(cancel(10));
    assert_eq!(bench.reaped(1)[1..], [told(10, stopped), told(11, stopped), close(10, stopped)]);
}

#[test]
fn a_timer_of_ours_adds_nothing_to_somebodys_cancel_but_a_ticket_is_always_answered() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    bench.child(2, 1);
    bench.run(2, 1);
    bench.cancel(10, 1, Subtree, Ask);
    let deadline = CancelAsk { cause: Cause::Deadline, ticket: None, ..Bench::ask(11, 2, Request, Ask) };
    assert_eq!(bench.tell(Event::CancelAsked(deadline)), []);
    let gone = CancelAsk { cause: Cause::Disconnect, ..Bench::ask(12, 2, Request, Ask) };
    assert_eq!(bench.tell(Event::CancelAsked(gone)), [fence_again(2, 12), record(12, 1, Ask)]);
    bench.recorded(12, 1);
    let stopped = Reply::Stopped(cancel(12));
    assert_eq!(bench.answer(2, 1), [acknowledged(2, 1), told(12, stopped), close(12, stopped)]);
}

#[test]
fn a_deadline_settles_as_timed_out_and_the_cause_of_the_first_fence_stays() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1, 2], 1);
    let deadline =
        |id, about| CancelAsk { cause: Cause::Deadline, ticket: None, ..Bench::ask(id, about, Request, Ask) };
    bench.tell(Event::CancelAsked(deadline(10, 1)));
    bench.cancel(11, 1, Request, Kill);
    assert_eq!(
        bench.reaped(1)[..2],
        [died(2, 1), settle(1, Outcome::TimedOut, Evidence::Reaped(instance(1)))]
    );
    assert_eq!(Outcome::TimedOut.code(), 4010);
    assert_eq!(bench.cancel(12, 1, Request, Ask), [told(12, Reply::Finished(Outcome::TimedOut))]);
}

#[test]
fn a_disconnect_settles_as_canceled() {
    let mut bench = Bench::new();
    bench.start(1, 4);
    bench.running(&[1], 1);
    let gone = CancelAsk { cause: Cause::Disconnect, ticket: None, ..Bench::ask(10, 1, Request, Ask) };
    bench.tell(Event::CancelAsked(gone));
    assert_eq!(bench.answer(1, 1), [acknowledged(1, 1)]);
}
