//! The laws about how requests ended, once nothing waits or runs any more.

use std::collections::{HashMap, HashSet};

use super::{CANCELED, Case, Law, Violation, by_request};
use crate::{
    book::{Acknowledged, Asked, Book, Receipt, Row},
    ledger::{Entry, Mark},
};

/// The function failed, as its event said.
const HANDLER_FAILED: i64 = 4002;
/// Lives of the node were killed under it too often; then the message says so.
const CRASHED: i64 = 4204;
const CRASHED_BECAUSE: &str = "the node ended while this was running";

/// Everything, at the end of a run: `listing` is all that the node lists. Nothing is dropped from it
/// (the node keeps every record so far), so what is missing is lost.
#[must_use]
pub fn at_the_end(book: &Book, entries: &[Entry], listing: &[Row]) -> Vec<Violation> {
    let mut case = Case::of(book, entries);
    case.judge_so_far();
    let rows = by_request(listing);
    case.listed_twice(listing);
    case.listed_otherwise(&rows);
    case.lost(&rows);
    case.delivered(&rows);
    case.innocents(&rows);
    case.receipts();
    case.found
}

impl Case<'_> {
    fn listed_twice(&mut self, listing: &[Row]) {
        let mut seen = HashSet::new();
        for row in listing.iter().filter(|row| !seen.insert(row.request.as_str())) {
            self.break_law(Law::Twice, None, &row.request, format!("{} is listed twice", row.request));
        }
    }

    /// The last look at each is held against the first at which it had ended.
    fn listed_otherwise(&mut self, rows: &HashMap<&str, &Row>) {
        let book = self.book;
        for (request, row) in rows {
            let told = book.told_finished.get(*request).filter(|told| told.status != row.status);
            let ended = book.ended.get(*request).filter(|ended| ended.row != **row);
            let first = ended.map(|ended| ended.row.shown());
            if let Some(first) = first.or(told.map(|told| told.status.clone())) {
                let what = format!("{request} was {first}, and at the end {}", row.shown());
                self.break_law(Law::Twice, None, request, what);
            }
        }
    }

    fn lost(&mut self, rows: &HashMap<&str, &Row>) {
        for (request, round) in self.acknowledged() {
            let what = match rows.get(request) {
                None => "was accepted and is not listed".to_owned(),
                Some(row) => match self.trouble(row) {
                    Some(trouble) => format!("{trouble}: {}", row.shown()),
                    None => continue,
                },
            };
            self.break_law(Law::Lost, round, request, format!("{request} {what}"));
        }
    }

    /// What is wrong with the end of a request, as far as its own lines tell.
    fn trouble(&self, row: &Row) -> Option<&'static str> {
        let wrote = |mark: &Mark| self.lines(&row.request).iter().any(|entry| entry.mark == *mark);
        match (row.status.as_str(), row.code) {
            ("WAIT" | "RUNNING", _) => Some("has not ended"),
            ("SUCCESS", 0) if !wrote(&Mark::Finish) => Some("succeeded without having done its work"),
            ("SUCCESS", 0) | ("FAIL" | "DISCARD", CANCELED) => None,
            ("FAIL", HANDLER_FAILED) if wrote(&Mark::Fail) => None,
            ("FAIL", CRASHED) if row.message == CRASHED_BECAUSE => None,
            _ => Some("ended in a way that nothing in this run explains"),
        }
    }

    fn delivered(&mut self, rows: &HashMap<&str, &Row>) {
        let book = self.book;
        for asked in &book.asked {
            let Some(answer) = &asked.answer else { continue };
            let Some(row) = rows.get(asked.request.as_str()) else { continue };
            if row.code == CANCELED || self.had_ended_before(asked, answer, row) {
                continue;
            }
            let what = format!(
                "{:?} cancel of {} was answered 200 {} when the ledger was {} long, and it ended as {}",
                asked.mode,
                asked.request,
                answer.stop,
                answer.at,
                row.shown()
            );
            self.break_law(Law::Delivered, Some(asked.round), &asked.request, what);
        }
    }

    /// A recursive cancel of what had ended in an earlier life is a 200 too, if that left something below. Of several
    /// nodes it need not be earlier: it is so for whoever does not have the request, and it is over if it was done.
    fn had_ended_before(&self, asked: &Asked, answer: &Acknowledged, row: &Row) -> bool {
        if self.book.many {
            let done = |entry: &&&Entry| matches!(entry.mark, Mark::Finish | Mark::Fail);
            let was_done =
                self.lines(&asked.request).iter().find(done).is_some_and(|entry| entry.at < answer.at);
            return asked.mode.is_recursive() && (was_done || row.code == CRASHED);
        }
        let last = self.lines(&asked.request).last();
        asked.mode.is_recursive() && last.is_some_and(|entry| entry.life < answer.life)
    }

    /// Sent is enough: a cancel that was not answered may have done its work. Where nobody was told of a
    /// request (the function that invoked it was stopped before it heard of the 202) and it never started,
    /// nobody knows what it was below, and it is not judged.
    fn innocents(&mut self, rows: &HashMap<&str, &Row>) {
        let book = self.book;
        let known = self.acknowledged();
        let guilty: HashSet<&str> = book.asked.iter().flat_map(|asked| self.covered(asked)).collect();
        for (request, row) in rows {
            if row.code == CANCELED && known.contains_key(request) && !guilty.contains(request) {
                let what =
                    format!("{request} ended as cancelled, and nobody had cancelled it or what is above it");
                self.break_law(Law::Innocent, None, request, what);
            }
        }
    }

    /// What was answered 200 has a receipt, which by the end is in its last form and says no less.
    fn receipts(&mut self) {
        let book = self.book;
        for asked in &book.asked {
            let Some(answer) = &asked.answer else { continue };
            let trouble = match book.receipts.get(&answer.cancel) {
                None => "has no receipt".to_owned(),
                Some(receipt) => match untrue(receipt, &answer.stop) {
                    Some(trouble) => format!("{trouble}: {receipt:?}"),
                    None => continue,
                },
            };
            let what = format!(
                "{:?} cancel {} of {} was answered 200 {} in life {} and {trouble}",
                asked.mode, answer.cancel, asked.request, answer.stop, answer.life
            );
            self.break_law(Law::Receipt, Some(asked.round), &asked.request, what);
        }
    }
}

/// What is wrong with a receipt, at a time when nothing waits or runs any more.
fn untrue(receipt: &Receipt, told: &str) -> Option<&'static str> {
    // Whoever asked first was told that it is not recorded; it has been since, and who asks then is told so.
    let late = receipt.result == "not_recorded" && receipt.recorded;
    let stopped = receipt.result == "stopped" || receipt.stopped_later || late;
    if !receipt.closed {
        Some("its receipt was never closed")
    } else if told == "stopped" && !stopped {
        Some("its receipt does not say that it stopped")
    } else if receipt.parts.iter().any(|part| matches!(part.as_str(), "open" | "unkillable")) {
        Some("its receipt has parts that are not")
    } else {
        None
    }
}
