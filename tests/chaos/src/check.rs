//! The laws: what was promised, held against what was written down and what the node lists.

use std::collections::{HashMap, HashSet};

use crate::{
    book::{Acknowledged, Asked, Book, Row},
    ledger::{Entry, Mark, Tree},
};

mod outcomes;
#[cfg(test)]
mod tests;

pub use outcomes::at_the_end;

/// The code of a cancelled request.
const CANCELED: i64 = 4208;
/// Lines of the ledger that a violation shows.
const SHOWN: usize = 24;

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Law {
    /// What was accepted ends, and the node says how, and why if not well.
    Lost,
    /// What was cancelled runs no more.
    RanAgain,
    /// The same, of what is below a request that is below the cancelled one and had ended in an earlier life:
    /// the tree must hold together over it.
    Beyond,
    /// What was cancelled ends as cancelled.
    Delivered,
    /// What an earlier life started is dead.
    Survivor,
    /// Every request ends once, every attempt at it at most once.
    Twice,
    /// No two attempts at a request run at the same time, on whatever nodes.
    Together,
    /// Whoever was not cancelled does not end as cancelled.
    Innocent,
    /// Every answer is one that the API's page allows, and comes.
    Answer,
    /// The receipt of a cancel says what was told, and what is so.
    Receipt,
}

impl Law {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 10] = [
        Self::Lost,
        Self::RanAgain,
        Self::Beyond,
        Self::Delivered,
        Self::Survivor,
        Self::Twice,
        Self::Together,
        Self::Innocent,
        Self::Answer,
        Self::Receipt,
    ];

    /// In the line of figures.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::RanAgain => "ran again",
            Self::Beyond => "ran again beyond an ended one",
            Self::Delivered => "delivered",
            Self::Survivor => "survivors",
            Self::Twice => "duplicates",
            Self::Together => "at the same time",
            Self::Innocent => "innocents",
            Self::Answer => "wrong answers",
            Self::Receipt => "receipts",
        }
    }
}

/// One broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub law: Law,
    /// In which round it was given, or seen to be broken; none where nobody knows.
    pub round: Option<u64>,
    /// What happened.
    pub what: String,
    /// What the ledger says of the request.
    pub lines: Vec<String>,
}

/// Everything the laws look at, put in order once.
pub(crate) struct Case<'a> {
    book: &'a Book,
    entries: &'a [Entry],
    of: HashMap<&'a str, Vec<&'a Entry>>,
    tree: Tree<'a>,
    found: Vec<Violation>,
}

/// What can be said while the run goes on.
#[must_use]
pub fn so_far(book: &Book, entries: &[Entry]) -> Vec<Violation> {
    let mut case = Case::of(book, entries);
    case.judge_so_far();
    case.found
}

impl<'a> Case<'a> {
    fn of(book: &'a Book, entries: &'a [Entry]) -> Self {
        let mut of: HashMap<&str, Vec<&Entry>> = HashMap::new();
        for entry in entries {
            of.entry(&entry.request).or_default().push(entry);
        }
        Self { book, entries, of, tree: Tree::of(entries), found: Vec::new() }
    }

    fn judge_so_far(&mut self) {
        self.answers();
        self.survivors();
        self.ends_that_did_not_last();
        self.attempts();
        self.attempts_at_the_same_time();
        self.runs_after_the_end();
        self.runs_after_the_cancel();
    }

    fn lines(&self, request: &str) -> &[&'a Entry] {
        self.of.get(request).map_or(&[], Vec::as_slice)
    }

    fn break_law(&mut self, law: Law, round: Option<u64>, request: &str, what: String) {
        let mentions = |entry: &&Entry| {
            let child = matches!(&entry.mark, Mark::Child { request: child, .. } if child == request);
            entry.request == request || child
        };
        let told =
            self.entries.iter().filter(mentions).map(|entry| format!("at {}: {}", entry.at, entry.line));
        let mut lines: Vec<String> = told.collect();
        let left_out = lines.len().saturating_sub(SHOWN);
        lines.drain(..left_out);
        self.found.push(Violation { law, round, what, lines });
    }

    /// The requests that the node has acknowledged: to a client, to a function, or by starting one that it
    /// starts only when it is on the disk.
    fn acknowledged(&self) -> HashMap<&'a str, Option<u64>> {
        let mut known: HashMap<&str, Option<u64>> = HashMap::new();
        for entry in self.entries {
            let request = match &entry.mark {
                Mark::Child { request, .. } => request,
                Mark::Start { how, .. } if how != "sync" => &entry.request,
                Mark::Start { .. } | Mark::Fail | Mark::Finish => continue,
            };
            known.insert(request, None);
        }
        let told = self.book.accepted.iter();
        known.extend(told.map(|accepted| (accepted.request.as_str(), Some(accepted.round))));
        known
    }

    fn answers(&mut self) {
        let known = self.acknowledged();
        for surprise in &self.book.surprises {
            let law = match surprise.unknown {
                true if known.contains_key(surprise.request.as_str()) => Law::Lost,
                true => continue, // a synchronous one, which ended with its life
                false => Law::Answer,
            };
            self.break_law(law, Some(surprise.round), &surprise.request, surprise.what.clone());
        }
    }

    fn survivors(&mut self) {
        for survivor in &self.book.survivors {
            self.break_law(Law::Survivor, Some(survivor.round), "", survivor.what.clone());
        }
    }

    fn ends_that_did_not_last(&mut self) {
        for change in &self.book.changes {
            let [first, then] = &change.rows;
            let what = format!("{} was {}, then {}", first.request, first.shown(), then.shown());
            self.break_law(Law::Twice, Some(change.round), &first.request, what);
        }
    }

    /// An attempt starts once and is done once.
    fn attempts(&mut self) {
        let mut seen = HashMap::new();
        for entry in self.entries {
            let what = match &entry.mark {
                Mark::Start { .. } => "started",
                Mark::Finish | Mark::Fail => "was done",
                Mark::Child { .. } => continue,
            };
            let before = seen.insert((&entry.request, &entry.attempt, what), entry.life);
            if before.is_some_and(|life| life == entry.life || !self.book.failing.contains(&life)) {
                let what = format!("{}: attempt {} {what} twice", entry.request, entry.attempt);
                self.break_law(Law::Twice, None, &entry.request, what);
            }
        }
    }

    /// A later attempt begins when nothing of an earlier one runs any more: that writes no line behind its first.
    fn attempts_at_the_same_time(&mut self) {
        let (mut over, mut last) = (HashSet::new(), HashMap::new());
        let mut together = Vec::new();
        for entry in self.entries {
            let (request, attempt) = (entry.request.as_str(), entry.attempt.as_str());
            if !matches!(entry.mark, Mark::Start { .. }) {
                if over.contains(&(request, attempt)) {
                    together.push(entry);
                }
                continue;
            }
            over.remove(&(request, attempt)); // one that starts twice breaks another law
            if let Some(before) = last.insert(request, attempt).filter(|before| *before != attempt) {
                over.insert((request, before));
            }
        }
        for entry in together {
            let what =
                format!("{}: another attempt had begun, and this one went on: {}", entry.request, entry.line);
            self.break_law(Law::Together, None, &entry.request, what);
        }
    }

    /// What was seen to have ended writes no more; only what was cancelled may still drain in that life, or, where
    /// lives of several nodes go on beside each other, in one of those.
    fn runs_after_the_end(&mut self) {
        let (mut late, many) = (Vec::new(), self.book.many);
        for (request, ended) in &self.book.ended {
            let of_then = |life: u32| if many { life <= ended.life } else { life == ended.life };
            let drains = |entry: &Entry| ended.row.code == CANCELED && of_then(entry.life);
            let entries = self.lines(request).iter();
            if let Some(entry) = entries.into_iter().find(|entry| entry.at >= ended.at && !drains(entry)) {
                late.push((request, format!("{} ({})", entry.line, ended.row.shown()), ended.at));
            }
        }
        for (request, told) in &self.book.told_finished {
            let mut entries = self.lines(request).iter();
            let drains = |entry: &Entry| told.status == "FAIL" && self.is_canceled(&entry.request);
            if let Some(entry) = entries.find(|entry| entry.at >= told.at && !drains(entry)) {
                late.push((request, format!("{} ({})", entry.line, told.status), told.at));
            }
        }
        for (request, line, at) in late {
            let what = format!("{request} had ended when the ledger was {at} long, and then wrote: {line}");
            self.break_law(Law::Twice, None, request, what);
        }
    }

    fn is_canceled(&self, request: &str) -> bool {
        self.book.ended.get(request).is_some_and(|ended| ended.row.code == CANCELED)
    }

    fn runs_after_the_cancel(&mut self) {
        let book = self.book;
        for asked in &book.asked {
            let Some(answer) = &asked.answer else { continue };
            let leads_on = |request: &str| !self.had_ended(request, answer.life);
            let reached = self.tree.below_through(&asked.request, leads_on);
            let mut covered = self.covered(asked);
            covered.sort_unstable(); // the same failure is told the same way each time
            for request in covered {
                let late = self.late(request, answer);
                let Some(late) = late else { continue };
                let what = format!(
                    "{:?} cancel of {} was answered 200 {} in life {} when the ledger was {} long; \
                     then {request} wrote: {}",
                    asked.mode, asked.request, answer.stop, answer.life, answer.at, late.line
                );
                let beyond = request != asked.request && !reached.contains(request);
                let law = if beyond { Law::Beyond } else { Law::RanAgain };
                self.break_law(law, Some(asked.round), request, what);
            }
        }
    }

    /// A line that was written by code that the answer says is gone, or that may not begin any more.
    fn late(&self, request: &str, answer: &Acknowledged) -> Option<&'a Entry> {
        let lines = self.lines(request);
        let late = lines.iter().find(|entry| is_late(entry, answer));
        if late.is_some() || !self.book.many {
            return late.copied();
        }
        // Lives of other nodes go on, and one that lost its lease goes on under its number: but what drains is one attempt.
        let mut behind = lines.iter().filter(|entry| entry.at >= answer.at);
        let draining = behind.next()?;
        behind.find(|entry| entry.attempt != draining.attempt).copied()
    }

    /// Whether an asynchronous request had ended before this life. One that had not would run again.
    fn had_ended(&self, request: &str, life: u32) -> bool {
        let lines = self.lines(request);
        let synchronous = |entry: &&Entry| matches!(&entry.mark, Mark::Start { how, .. } if how == "sync");
        let Some(last) = lines.last().filter(|_| !lines.iter().any(synchronous)) else { return false };
        let done = matches!(last.mark, Mark::Finish | Mark::Fail);
        let canceled = self.book.asked.iter().any(|asked| asked.request == request);
        last.life < life && (done || canceled || self.book.ended.contains_key(request))
    }

    /// What a cancel is about.
    fn covered<'b>(&self, asked: &'b Asked) -> Vec<&'b str>
    where
        'a: 'b,
    {
        let mut covered = vec![asked.request.as_str()];
        if asked.mode.is_recursive() {
            covered.extend(self.tree.below(&asked.request));
        }
        covered
    }
}

/// Whether this was written by code that the answer says is gone. Where it says that code may run on for
/// a while, that while ends with the life; with those lives that there were, where there were several.
fn is_late(entry: &Entry, answer: &Acknowledged) -> bool {
    entry.at >= answer.at && (answer.stop == "stopped" || entry.life > answer.life)
}

/// Rows of a listing by request.
fn by_request(listing: &[Row]) -> HashMap<&str, &Row> {
    listing.iter().map(|row| (row.request.as_str(), row)).collect()
}
