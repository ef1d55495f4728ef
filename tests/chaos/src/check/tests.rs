//! A check that cannot fail is worth nothing: each law is broken here once, and must be found broken.

use super::*;
use crate::{
    book::{Accepted, Change, Receipt, Surprise, Survivor, Told},
    plan::Mode,
};

/// A ledger, a book and a listing, all in order until a test plants something.
#[derive(Default)]
struct Run {
    entries: Vec<Entry>,
    book: Book,
    listing: Vec<Row>,
}

impl Run {
    fn write(&mut self, life: u32, request: &str, attempt: &str, mark: Mark) -> &mut Self {
        let at = self.entries.len() as u64 * 10;
        let line = format!("{mark:?} by {request}");
        let (function, request, attempt) = ("tree".to_owned(), request.to_owned(), attempt.to_owned());
        self.entries.push(Entry { at, life, function, request, attempt, mark, line });
        self
    }

    fn start(&mut self, life: u32, request: &str, attempt: &str) -> &mut Self {
        self.write(life, request, attempt, Mark::Start { how: "root".to_owned(), parent: None })
    }

    fn start_below(&mut self, life: u32, request: &str, attempt: &str, parent: &str) -> &mut Self {
        let mark = Mark::Start { how: "child".to_owned(), parent: Some(parent.to_owned()) };
        self.write(life, request, attempt, mark)
    }

    fn finish(&mut self, life: u32, request: &str, attempt: &str) -> &mut Self {
        self.write(life, request, attempt, Mark::Finish)
    }

    fn accept(&mut self, request: &str) -> &mut Self {
        let accepted = Accepted { request: request.to_owned(), function: "tree".to_owned(), round: 3 };
        self.book.accepted.push(accepted);
        self
    }

    /// A cancel that is answered now.
    fn cancel(&mut self, life: u32, request: &str, mode: Mode, stop: &str) -> &mut Self {
        let cancel = format!("cancel {}", self.book.asked.len());
        let answer = Acknowledged { at: self.now(), life, stop: stop.to_owned(), cancel: cancel.clone() };
        self.book.receipts.insert(cancel, receipt(stop));
        self.book.asked.push(Asked { request: request.to_owned(), mode, round: 4, answer: Some(answer) });
        self
    }

    fn list(&mut self, request: &str, status: &str, code: i64) -> &mut Self {
        self.listing.push(row(request, status, code, ""));
        self
    }

    fn now(&self) -> u64 {
        self.entries.len() as u64 * 10
    }

    #[track_caller]
    fn breaks(&self, laws: &[Law]) {
        let found = at_the_end(&self.book, &self.entries, &self.listing);
        let broken: Vec<Law> = found.iter().map(|violation| violation.law).collect();
        assert_eq!(broken, laws, "{found:#?}");
    }
}

/// Of a cancel that was answered so.
fn receipt(stop: &str) -> Receipt {
    let result = if stop == "fenced" { "draining" } else { stop }.to_owned();
    Receipt { result, closed: true, recorded: true, stopped_later: false, parts: vec!["stopped".to_owned()] }
}

fn row(request: &str, status: &str, code: i64, message: &str) -> Row {
    let (request, status, message) = (request.to_owned(), status.to_owned(), message.to_owned());
    Row { request, status, code, message }
}

/// A root that succeeded, one that was cancelled with its child, one that failed as it should.
fn good() -> Run {
    let mut run = Run::default();
    run.accept("a").start(1, "a", "a1").start(2, "a", "a2").finish(2, "a", "a2").list("a", "SUCCESS", 0);
    run.accept("b").start(2, "b", "b1").start_below(2, "c", "c1", "b");
    run.cancel(2, "b", Mode::Recursive, "stopped").list("b", "FAIL", 4208).list("c", "FAIL", 4208);
    run.accept("d").start(3, "d", "d1").write(3, "d", "d1", Mark::Fail).list("d", "FAIL", 4002);
    run.accept("e").listing.push(row("e", "FAIL", 4204, "the node ended while this was running"));
    run
}

#[test]
fn a_run_that_kept_every_promise_breaks_no_law() {
    good().breaks(&[]);
}

#[test]
fn an_accepted_request_that_is_nowhere_is_lost() {
    good().accept("x").breaks(&[Law::Lost]);
}

#[test]
fn a_child_that_was_promised_to_a_function_is_lost_as_well() {
    let promised = Mark::Child { request: "x".to_owned(), detached: true };
    good().write(2, "a", "a2", promised).breaks(&[Law::Lost]);
    good().start(3, "started though nobody saw its 202", "x1").breaks(&[Law::Lost]);
}

#[test]
fn what_never_ends_or_ends_without_a_reason_is_lost() {
    for (status, code) in [("WAIT", 0), ("RUNNING", 0), ("FAIL", 0), ("FAIL", 4002), ("DISCARD", 4204)] {
        good().accept("x").start(3, "x", "x1").list("x", status, code).breaks(&[Law::Lost]);
    }
    let mut run = good();
    run.accept("x").listing.push(row("x", "FAIL", 4204, "the runtime went away"));
    run.breaks(&[Law::Lost]);
}

#[test]
fn a_success_of_work_that_was_not_done_is_lost() {
    good().accept("x").start(3, "x", "x1").list("x", "SUCCESS", 0).breaks(&[Law::Lost]);
}

#[test]
fn a_node_that_does_not_know_what_it_accepted_has_lost_it() {
    let unknown = |request: &str| Surprise {
        round: 1,
        request: request.to_owned(),
        what: "unknown".to_owned(),
        unknown: true,
    };
    let mut run = good();
    run.book.surprises.push(unknown("a synchronous one of an earlier life"));
    run.breaks(&[]);
    run.book.surprises.push(unknown("a"));
    run.breaks(&[Law::Lost]);
}

#[test]
fn a_cancelled_request_that_starts_again_is_found() {
    good().start(2, "b", "b2").breaks(&[Law::RanAgain]);
    good().start(3, "b", "b2").breaks(&[Law::RanAgain]);
}

#[test]
fn a_line_of_work_done_after_the_cancel_is_found() {
    good().finish(2, "b", "b1").breaks(&[Law::RanAgain]);
}

#[test]
fn what_is_below_a_recursive_cancel_is_covered_and_what_is_below_another_is_not() {
    good().start_below(3, "c", "c2", "b").breaks(&[Law::RanAgain]);
    // Two below, and known only by what the one between was told.
    let told = Mark::Child { request: "f".to_owned(), detached: false };
    let mut run = good();
    run.entries.insert(0, Entry { mark: told, ..run.entries[4].clone() });
    run.start(3, "f", "f1").list("f", "FAIL", 4208).breaks(&[Law::RanAgain]);
    for mode in [Mode::Plain, Mode::Force, Mode::Early] {
        let mut run = Run::default();
        run.accept("b").start(1, "b", "b1").start_below(1, "c", "c1", "b").cancel(1, "b", mode, "stopped");
        run.list("b", "FAIL", 4208).start_below(2, "c", "c2", "b").finish(2, "c", "c2");
        run.list("c", "SUCCESS", 0).breaks(&[]);
    }
}

#[test]
fn what_is_beyond_an_ended_request_is_told_apart_only_where_a_life_lies_between() {
    let planted = |cancel_in: u32, done: bool| {
        let mut run = Run::default();
        run.accept("r").start(1, "r", "r1").start_below(1, "m", "m1", "r").start_below(1, "x", "x1", "m");
        if done {
            run.finish(1, "m", "m1").list("m", "SUCCESS", 0);
        } else {
            run.list("m", "FAIL", 4208);
        }
        run.start(cancel_in, "r", "r2").cancel(cancel_in, "r", Mode::Recursive, "stopped");
        run.finish(cancel_in, "x", "x1").list("r", "FAIL", 4208).list("x", "SUCCESS", 0);
        run
    };
    planted(2, true).breaks(&[Law::Beyond]);
    planted(1, true).breaks(&[Law::RanAgain]);
    planted(2, false).breaks(&[Law::RanAgain]);
}

#[test]
fn what_drains_may_end_in_its_life_and_never_runs_in_another() {
    for stop in ["draining", "fenced"] {
        let mut run = Run::default();
        run.accept("b").start(1, "b", "b1").cancel(1, "b", Mode::Plain, stop).finish(1, "b", "b1");
        run.list("b", "FAIL", 4208).breaks(&[]);
        run.start(2, "b", "b2").breaks(&[Law::RanAgain]);
    }
}

#[test]
fn a_cancel_that_was_not_answered_promises_nothing() {
    let mut run = Run::default();
    let asked = Asked { request: "b".to_owned(), mode: Mode::Plain, round: 1, answer: None };
    run.book.asked.push(asked);
    run.accept("b").start(1, "b", "b1").finish(1, "b", "b1").list("b", "SUCCESS", 0).breaks(&[]);
    run.listing[0] = row("b", "FAIL", 4208, "");
    run.breaks(&[]);
}

#[test]
fn a_cancelled_request_that_succeeds_was_delivered() {
    let mut run = Run::default();
    run.accept("b").start(1, "b", "b1").finish(1, "b", "b1").cancel(1, "b", Mode::Force, "stopped");
    run.list("b", "SUCCESS", 0).breaks(&[Law::Delivered]);
    // Only a recursive one, and only of what had ended in an earlier life, may be answered so.
    run.book.asked[0].mode = Mode::Both;
    run.breaks(&[Law::Delivered]);
    if let Some(answer) = &mut run.book.asked[0].answer {
        answer.life = 2;
    }
    run.breaks(&[]);
}

#[test]
fn a_living_process_of_an_earlier_life_is_found() {
    let mut run = good();
    run.book.survivors.push(Survivor { round: 9, what: "life 3: 77 sleep 300".to_owned() });
    run.breaks(&[Law::Survivor]);
}

#[test]
fn an_end_that_changes_is_found() {
    let mut run = good();
    let rows = [row("a", "FAIL", 4204, ""), row("a", "SUCCESS", 0, "")];
    run.book.changes.push(Change { round: 5, rows });
    run.breaks(&[Law::Twice]);
    let mut run = good();
    run.book.saw(&[row("a", "FAIL", 4204, "")], run.now(), 2, 5);
    run.breaks(&[Law::Twice]);
    let mut run = good();
    let at = run.now();
    run.book.told_finished.insert("a".to_owned(), Told { status: "FAIL".to_owned(), at });
    run.breaks(&[Law::Twice]);
    good().list("a", "SUCCESS", 0).breaks(&[Law::Twice]);
}

#[test]
fn what_runs_after_it_was_seen_to_have_ended_is_found() {
    let mut run = good();
    run.book.saw(&[row("a", "SUCCESS", 0, "")], run.now(), 3, 5);
    run.breaks(&[]);
    run.start(3, "a", "a3").breaks(&[Law::Twice]);
    let mut run = good();
    let at = run.now();
    run.book.told_finished.insert("a".to_owned(), Told { status: "SUCCESS".to_owned(), at });
    run.start(3, "a", "a3").breaks(&[Law::Twice]);
}

#[test]
fn an_attempt_of_a_life_that_could_not_write_it_down_may_be_made_again_by_a_later_one() {
    let mut run = good();
    run.book.failing.insert(1);
    run.start(2, "a", "a1").breaks(&[]);
    let mut run = good();
    run.book.failing.insert(1);
    run.start(1, "a", "a1").breaks(&[Law::Twice]);
}

#[test]
fn an_attempt_that_starts_or_is_done_twice_is_found() {
    good().start(1, "a", "a1").breaks(&[Law::Twice]);
    good().finish(2, "a", "a2").breaks(&[Law::Twice]);
}

#[test]
fn whoever_ends_as_cancelled_without_a_cancel_is_found() {
    good().accept("x").start(1, "x", "x1").list("x", "FAIL", 4208).breaks(&[Law::Innocent]);
    // A child that nobody heard of may be below anybody.
    good().list("x", "DISCARD", 4208).breaks(&[]);
    // Below one that was cancelled alone.
    let mut run = Run::default();
    run.accept("b").start(1, "b", "b1").start_below(1, "c", "c1", "b");
    run.cancel(1, "b", Mode::Force, "stopped").list("b", "FAIL", 4208).list("c", "FAIL", 4208);
    run.breaks(&[Law::Innocent]);
}

#[test]
fn an_answer_that_the_api_does_not_allow_is_found() {
    let mut run = good();
    let what = "cancel: 500 unkillable".to_owned();
    run.book.surprises.push(Surprise { round: 1, request: "a".to_owned(), what, unknown: false });
    run.breaks(&[Law::Answer]);
    assert_eq!(so_far(&run.book, &run.entries).len(), 1, "and not only at the end");
}

#[test]
fn what_is_found_is_shown_with_its_round_and_its_lines() {
    let mut run = good();
    run.start(3, "b", "b2");
    let found = so_far(&run.book, &run.entries);
    assert_eq!((found.len(), found[0].round, found[0].lines.len()), (1, Some(4), 2), "{found:#?}");
    assert!(found[0].what.contains("then b wrote: Start"), "{found:#?}");
}

#[test]
fn two_attempts_at_the_same_time_are_found() {
    for many in [false, true] {
        let mut run = good();
        run.book.many = many;
        run.breaks(&[]);
        // One that only begins again when the first is through, and one that does so before.
        run.accept("x").start(1, "x", "x1").start(2, "x", "x2").finish(2, "x", "x2").list("x", "SUCCESS", 0);
        run.breaks(&[]);
        run.accept("y").start(1, "y", "y1").start(2, "y", "y2").finish(1, "y", "y1").finish(2, "y", "y2");
        run.list("y", "SUCCESS", 0).breaks(&[Law::Together]);
    }
}

#[test]
fn of_several_nodes_what_drains_is_one_attempt_in_a_life_that_there_was() {
    for (answered, drains_in, again_in, laws) in [
        (5, 5, None, &[][..]),
        (5, 3, None, &[]),
        (5, 6, None, &[Law::RanAgain]),
        // A node that lost its lease and goes on under the same number.
        (5, 3, Some(3), &[Law::RanAgain]),
        (5, 3, Some(4), &[Law::RanAgain]),
    ] {
        let mut run = Run::default();
        run.book.many = true;
        run.accept("b").start(drains_in, "b", "b1").cancel(answered, "b", Mode::Plain, "draining");
        run.finish(drains_in, "b", "b1").list("b", "FAIL", 4208);
        if let Some(life) = again_in {
            run.start(life, "b", "b2");
        }
        run.breaks(laws);
    }
    // And of what is said to be stopped nothing, in no life.
    let mut run = Run::default();
    run.book.many = true;
    run.accept("b").start(3, "b", "b1").cancel(5, "b", Mode::Force, "stopped").finish(3, "b", "b1");
    run.list("b", "FAIL", 4208).breaks(&[Law::RanAgain]);
}

#[test]
fn of_several_nodes_what_ended_as_cancelled_drains_in_a_life_that_there_was_and_nothing_else_goes_on() {
    for (code, seen_in, laws) in [(4208, 5, &[][..]), (4208, 2, &[Law::Twice]), (0, 5, &[Law::Twice])] {
        let status = if code == 0 { "SUCCESS" } else { "FAIL" };
        let mut run = Run::default();
        run.book.many = true;
        run.accept("b").start(3, "b", "b1");
        run.book.asked.push(Asked { request: "b".to_owned(), mode: Mode::Plain, round: 1, answer: None });
        let at = run.now();
        run.book.saw(&[row("b", status, code, "")], at, seen_in, 1);
        run.finish(3, "b", "b1").list("b", status, code).breaks(laws);
    }
}

#[test]
fn of_several_nodes_a_recursive_cancel_of_what_was_done_reaches_what_is_below_and_of_what_was_not_stops_it() {
    for (mode, done_before, laws) in [
        (Mode::Recursive, true, &[][..]),
        (Mode::Force, true, &[Law::Delivered]),
        (Mode::Recursive, false, &[Law::Delivered]),
    ] {
        let mut run = Run::default();
        run.book.many = true;
        run.accept("b").start(1, "b", "b1");
        if done_before {
            run.finish(1, "b", "b1");
        }
        run.cancel(1, "b", mode, "draining");
        if !done_before {
            run.finish(1, "b", "b1");
        }
        run.list("b", "SUCCESS", 0).breaks(laws);
    }
}

#[test]
fn a_receipt_that_is_missing_open_or_says_less_than_was_told_is_found() {
    let changed = |change: &dyn Fn(&mut Receipt), laws: &[Law]| {
        let mut run = good();
        run.book.receipts.values_mut().for_each(change);
        run.breaks(laws);
    };
    changed(&|_| {}, &[]);
    changed(&|receipt| receipt.closed = false, &[Law::Receipt]);
    changed(&|receipt| receipt.result = "interrupted".to_owned(), &[Law::Receipt]);
    changed(&|receipt| receipt.parts.push("open".to_owned()), &[Law::Receipt]);
    changed(
        &|receipt| {
            receipt.result = "draining".to_owned();
            receipt.stopped_later = true;
        },
        &[],
    );
    changed(&|receipt| receipt.result = "not_recorded".to_owned(), &[]);
    changed(
        &|receipt| {
            receipt.result = "not_recorded".to_owned();
            receipt.recorded = false;
        },
        &[Law::Receipt],
    );
    let mut run = good();
    run.book.receipts.clear();
    run.breaks(&[Law::Receipt]);
}
