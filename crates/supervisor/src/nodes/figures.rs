//! What a node counts of its part among the others, for whoever watches them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use meter::Counter;
use store::PartState;

use super::{Nodes, lease};
use crate::metrics::Each;

const RESULTS: [&str; 5] = ["stopped", "draining", "unkillable", "finished", "not_here"];

/// Counted since the start of this life.
#[derive(Debug)]
pub struct NodesMetrics {
    /// Parts of cancels that reach over nodes which were carried out here and reported, by what came of them.
    pub parts: Each<Counter, 5>,
    /// Requests that were taken out of the shared queue; one that was given back and taken again counts twice.
    pub claimed: Counter,
    /// Requests that found no place here within a second of their claim or acceptance, and were given back.
    pub given_back: Counter,
    /// Nodes whose lease was over, and whose work this one took away.
    pub takeovers: Counter,
    /// Functions of which requests wait for labels that no live node has, when that was looked at last.
    unplaceable: AtomicU64,
    /// Until when what runs here may go on without another renewal, in microseconds of the clock that goes on in sleep.
    run_until_us: AtomicU64,
}

impl NodesMetrics {
    pub(super) fn new() -> Self {
        Self {
            parts: Each::new(RESULTS),
            claimed: Counter::default(),
            given_back: Counter::default(),
            takeovers: Counter::default(),
            unplaceable: AtomicU64::new(0),
            run_until_us: AtomicU64::new(0),
        }
    }

    pub(super) fn part(&self, state: PartState) {
        let word = match state {
            PartState::Stopped => "stopped",
            PartState::Draining => "draining",
            PartState::Unkillable => "unkillable",
            PartState::Finished => "finished",
            PartState::NotHere => "not_here",
            // Neither is reported by whoever carries it out.
            PartState::Open | PartState::NodeLost => return,
        };
        self.parts.of(word).count();
    }

    pub(super) fn unplaceable(&self, functions: usize) {
        self.unplaceable.store(functions as u64, Ordering::Relaxed);
    }

    /// Functions of which requests wait for labels that no live node has, a hundred at most; looked at every 15 s.
    pub fn unplaceable_functions(&self) -> u64 {
        self.unplaceable.load(Ordering::Relaxed)
    }

    pub(super) fn may_run_until(&self, moment: Duration) {
        let us = u64::try_from(moment.as_micros()).unwrap_or(u64::MAX);
        self.run_until_us.store(us, Ordering::Relaxed);
    }
}

impl Nodes {
    /// What has been counted.
    pub fn metrics(&self) -> &NodesMetrics {
        &self.metrics
    }

    /// How long what runs here may go on without another renewal of the lease; zero: not at all, or there is no lease yet.
    pub fn lease_left(&self) -> Duration {
        let until = Duration::from_micros(self.metrics.run_until_us.load(Ordering::Relaxed));
        until.saturating_sub(lease::now())
    }
}
