//! What the clients were told, and what they saw: the promises that the node is held to.

use std::collections::{HashMap, HashSet};

use crate::plan::Mode;

/// A call that was answered 202.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Its request.
    pub request: String,
    /// Of which function.
    pub function: String,
    /// In which round.
    pub round: u64,
}

/// A cancel that was sent.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What was to be stopped.
    pub request: String,
    /// How.
    pub mode: Mode,
    /// In which round.
    pub round: u64,
    /// The 200, if it came. Without, the request may be stopped or not.
    pub answer: Option<Acknowledged>,
}

/// The 200 of a cancel.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// How long the ledger was when the answer was there: whatever stands behind was written later.
    pub at: u64,
    /// The youngest life of any node by then: what it stopped can run in no later one.
    pub life: u32,
    /// `X-Quell-Stop`.
    pub stop: String,
    /// `X-Quell-Cancel-Id`.
    pub cancel: String,
}

/// What a receipt says at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What the askers were told.
    pub result: String,
    /// Whether it is in its last form.
    pub closed: bool,
    /// Whether it says when it was durable.
    pub recorded: bool,
    /// Whether what drained is proven gone.
    pub stopped_later: bool,
    /// What became of its parts on other nodes.
    pub parts: Vec<String>,
}

/// A cancel that a node said it could not record.
#[derive(Clone, Debug)]
pub struct Unrecorded {
    /// The life that said so.
    pub life: u32,
    /// The request.
    pub request: String,
    /// In its words.
    pub what: String,
}

/// A request as the node lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub request: String,
    /// WAIT, RUNNING, SUCCESS, FAIL or DISCARD.
    pub status: String,
    /// 0 is success.
    pub code: i64,
    /// The error's.
    pub message: String,
}

impl Row {
    /// Whether it has ended.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self.status.as_str(), "WAIT" | "RUNNING")
    }

    /// In a few words.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{} {} {:?}", self.status, self.code, self.message)
    }
}

/// A final status and when it was seen first.
#[derive(Clone, Debug)]
pub struct Ended {
    /// As it was listed.
    pub row: Row,
    /// How long the ledger was by then.
    pub at: u64,
    /// The youngest life of any node by then.
    pub life: u32,
}

/// What a cancel that came too late was told about how its request had ended.
#[derive(Clone, Debug)]
pub struct Told {
    /// The status.
    pub status: String,
    /// How long the ledger was by then.
    pub at: u64,
}

/// A process of an earlier life that was found alive.
#[derive(Clone, Debug)]
pub struct Survivor {
    /// When it was looked for.
    pub round: u64,
    /// Which life it is of, who and what it is.
    pub what: String,
}

/// An answer that the API's page does not allow here.
#[derive(Clone, Debug)]
pub struct Surprise {
    /// In which round.
    pub round: u64,
    /// About which request, if it is about one.
    pub request: String,
    /// What was asked, what was answered.
    pub what: String,
    /// Whether the node did not know what it had accepted.
    pub unknown: bool,
}

/// A final status that became another.
#[derive(Clone, Debug)]
pub struct Change {
    /// In which round it was seen.
    pub round: u64,
    /// What was seen first, and then.
    pub rows: [Row; 2],
}

/// Everything that was told and seen.
#[derive(Debug, Default)]
pub struct Book {
    /// Several nodes share a store: lives of different nodes go on beside each other.
    pub many: bool,
    /// Lives in which syncs were made to fail, or whose database was killed and is not back yet: what they did and
    /// could not write down may be done again.
    pub failing: HashSet<u32>,
    /// Calls that were answered 202.
    pub accepted: Vec<Accepted>,
    /// Cancels that were sent.
    pub asked: Vec<Asked>,
    /// What was seen to have ended.
    pub ended: HashMap<String, Ended>,
    /// What late cancels were told.
    pub told_finished: HashMap<String, Told>,
    /// Ends that did not last.
    pub changes: Vec<Change>,
    /// Processes that should be gone.
    pub survivors: Vec<Survivor>,
    /// Answers that should not be.
    pub surprises: Vec<Surprise>,
    /// Cancels of this round that were not recorded, where that may be because a lease was lost.
    pub unrecorded: Vec<Unrecorded>,
    /// The receipts of all cancels that were answered 200, read at the end.
    pub receipts: HashMap<String, Receipt>,
    /// Answers to calls and cancels, of any kind.
    pub answers: u64,
}

impl Book {
    /// Notes rows of the node's listing, read when the ledger was this long.
    pub fn saw(&mut self, rows: &[Row], at: u64, life: u32, round: u64) {
        for row in rows {
            match self.ended.get(&row.request) {
                Some(first) if first.row == *row => {}
                Some(first) => {
                    self.changes.push(Change { round, rows: [first.row.clone(), row.clone()] });
                }
                None if row.is_final() => {
                    self.ended.insert(row.request.clone(), Ended { row: row.clone(), at, life });
                }
                None => {}
            }
        }
    }

    /// Calls accepted, cancels sent, cancels acknowledged.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let acknowledged = self.asked.iter().filter(|asked| asked.answer.is_some()).count();
        [self.accepted.len(), self.asked.len(), acknowledged]
    }

    /// Cancels of this kind that were acknowledged.
    #[must_use]
    pub fn acknowledged(&self, mode: Mode) -> usize {
        self.asked.iter().filter(|asked| asked.mode == mode && asked.answer.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_does_not_last_is_noted_and_one_that_lasts_is_not() {
        let row = |status: &str, code| Row {
            request: "a".to_owned(),
            status: status.to_owned(),
            code,
            message: String::new(),
        };
        let mut book = Book::default();
        for seen in [row("WAIT", 0), row("RUNNING", 0), row("WAIT", 0), row("FAIL", 4208), row("FAIL", 4208)]
        {
            book.saw(&[seen], 0, 1, 1);
        }
        assert!(book.changes.is_empty());
        book.saw(&[row("RUNNING", 0)], 0, 1, 2);
        book.saw(&[row("SUCCESS", 0)], 0, 1, 2);
        assert_eq!(book.changes.len(), 2);
    }
}
