//! What a run did, counted, in one line.

use std::{collections::HashMap, fmt, time::Duration};

use crate::{
    check::{Law, Violation},
    ledger::Mark,
    load::Shared,
    plan::Mode,
};

/// The figures of a run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Nodes that were there.
    pub nodes: usize,
    /// Rounds that were run.
    pub rounds: u64,
    /// SIGKILLs of a life that served.
    pub kills: u64,
    /// SIGKILLs of a life that was starting, or recovering.
    pub kills_at_start: u64,
    /// Nodes that were stopped for longer than their lease.
    pub sleeps: u64,
    /// Kills of the database server.
    pub database_kills: u64,
    /// SIGTERMs.
    pub clean_ends: u64,
    /// Calls that were answered 202.
    pub accepted: usize,
    /// Requests in the node's listing, those that functions invoked included.
    pub listed: usize,
    /// Attempts that began.
    pub started: usize,
    /// Attempts that did their work.
    pub finished: usize,
    /// Cancels that were answered 200.
    pub canceled: HashMap<Mode, usize>,
    /// Syncs that were made to fail, and to take longer.
    pub syncs: [u64; 2],
    /// Lines that a kill tore in two.
    pub torn: u64,
    /// Broken promises by law.
    pub broken: HashMap<Law, usize>,
    /// How long it took.
    pub took: Duration,
}

impl Figures {
    /// Takes what is counted at the end.
    pub(super) fn take(&mut self, shared: &Shared, violations: &[Violation], took: Duration) {
        let (book, ledger) = (shared.book(), shared.ledger());
        let count = |is: fn(&Mark) -> bool| ledger.entries.iter().filter(|entry| is(&entry.mark)).count();
        self.accepted = book.accepted.len();
        self.started = count(|mark| matches!(mark, Mark::Start { .. }));
        self.finished = count(|mark| matches!(mark, Mark::Finish));
        self.torn = ledger.torn;
        self.canceled = Mode::ALL.into_iter().map(|mode| (mode, book.acknowledged(mode))).collect();
        for violation in violations {
            *self.broken.entry(violation.law).or_default() += 1;
        }
        self.took = took;
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            to,
            "rounds {}, kills {} and {} more at the start, clean ends {}, ",
            self.rounds, self.kills, self.kills_at_start, self.clean_ends
        )?;
        if self.nodes > 1 {
            let Self { nodes, sleeps, database_kills, .. } = self;
            write!(to, "nodes {nodes}, sleeps {sleeps}, kills of the database {database_kills}, ")?;
        }
        write!(
            to,
            "accepted {}, listed {}, attempts {} of which finished {}, cancels",
            self.accepted, self.listed, self.started, self.finished
        )?;
        for mode in Mode::ALL {
            let word = format!("{mode:?}").to_lowercase();
            write!(to, " {word} {}", self.canceled.get(&mode).unwrap_or(&0))?;
        }
        write!(to, ", syncs failed {} and delayed {}", self.syncs[0], self.syncs[1])?;
        for law in Law::ALL {
            write!(to, ", {} {}", law.word(), self.broken.get(&law).unwrap_or(&0))?;
        }
        write!(to, ", torn lines {}, {:.0} s", self.torn, self.took.as_secs_f32())
    }
}
