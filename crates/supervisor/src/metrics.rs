//! What the shell counts, for whoever watches many nodes. Each is one atomic addition where it happens.

use std::time::Duration;

use cancel::{Outcome, Refusal};
use meter::{Counter, Histogram};

use crate::{
    codes,
    handle::{CancelAnswer, InvokeError, Stop},
    receipt::Receipt,
    request::Request,
};

/// One counter or histogram for each of `N` words.
#[derive(Debug)]
pub struct Each<T, const N: usize> {
    words: [&'static str; N],
    values: [T; N],
}

impl<T: Default, const N: usize> Each<T, N> {
    pub(crate) fn new(words: [&'static str; N]) -> Self {
        Self { words, values: std::array::from_fn(|_| T::default()) }
    }

    /// The one of this word; the last for one that is not listed, so that nothing is lost.
    pub(crate) fn of(&self, word: &str) -> &T {
        let at = self.words.iter().position(|known| *known == word);
        &self.values[at.unwrap_or(N - 1)]
    }

    /// All of them with their words.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        self.words.iter().copied().zip(&self.values)
    }
}

/// What a request ended as.
pub const OUTCOMES: [&str; 6] =
    ["returned", "function_failed", "node_failed", "canceled", "timed_out", "crashed"];
const ANSWERS: [&str; 9] = [
    "stopped",
    "draining",
    "fenced",
    "unkillable",
    "not_recorded",
    "finished",
    "unknown",
    "too_many_askers",
    "node_ended",
];
const REFUSALS: [&str; 10] = [
    "stopping",
    "disabled",
    "parent_canceled",
    "parent_gone",
    "too_deep",
    "too_many",
    "not_stored",
    "no_lease",
    "lacks_labels",
    "other",
];
const RESULTS: [&str; 4] = ["stopped", "draining", "unkillable", "not_recorded"];
const CAUSES: [&str; 3] = ["asked", "deadline", "disconnect"];

/// From the fence to the answer, and on the way there.
#[derive(Debug, Default)]
pub struct CancelTimes {
    /// Until the fence was durable.
    pub recorded: Histogram,
    /// Of each killed instance: from the first strike until its main process had ended.
    pub exited: Histogram,
    /// Of each: until nobody was left alive.
    pub emptied: Histogram,
    /// Of each: until that was proven.
    pub proven: Histogram,
    /// Until the answer was ready.
    pub answered: Histogram,
}

/// What happened to requests of one kind.
#[derive(Debug)]
pub struct Requests {
    /// They were taken on.
    pub accepted: Counter,
    /// They settled, by [`OUTCOMES`].
    pub settled: Each<Counter, 6>,
    /// From the acceptance (or being taken up) to the hand-over, of those that settled by the attempt that was handed over last.
    pub queued: Histogram,
    /// From that hand-over to the result.
    pub ran: Histogram,
}

impl Requests {
    fn new() -> Self {
        Self {
            accepted: Counter::default(),
            settled: Each::new(OUTCOMES),
            queued: Histogram::default(),
            ran: Histogram::default(),
        }
    }
}

/// All of it.
#[derive(Debug)]
pub struct Metrics {
    /// Whose caller holds the line.
    pub synchronous: Requests,
    /// Whose does not.
    pub asynchronous: Requests,
    /// Requests that were taken up from an earlier life. They are in no other count of what was accepted.
    pub taken_up: Counter,
    /// Invocations that were refused, by why.
    pub refused: Each<Counter, 10>,
    /// Attempts that failed or lost their instance, and whose request waits again.
    pub requeued: Counter,
    /// What askers of cancels were told.
    pub answers: Each<Counter, 9>,
    /// Cancels that are over, by what stopped them (`asked`, `deadline`, `disconnect`).
    pub cancels: Each<Each4, 3>,
    /// How long cancels took: asked for one request, for a subtree; killed, and killed with the subtree.
    pub times: [CancelTimes; 4],
    /// Requests that ended or waited again since they shared an instance with one that was stopped by force.
    pub co_tenants: Counter,
    /// Instances of which a process was asked for.
    pub starts: Counter,
    /// Instances that did not come to be ready, those included that no process was asked for.
    pub failed_starts: Counter,
    /// From the order to the first poll.
    pub start: Histogram,
    /// Instances that were proven gone.
    pub reaped: Counter,
    /// Instances that could not be proven gone in time.
    pub stuck: Counter,
    /// Spans that found the way to the collector full.
    pub spans_lost: Counter,
    /// Messages that the core has worked off.
    pub messages: Counter,
}

/// By what came of a cancel.
#[derive(Debug)]
pub struct Each4(pub Each<Counter, 4>);

impl Default for Each4 {
    fn default() -> Self {
        Self(Each::new(RESULTS))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            synchronous: Requests::new(),
            asynchronous: Requests::new(),
            taken_up: Counter::default(),
            refused: Each::new(REFUSALS),
            requeued: Counter::default(),
            answers: Each::new(ANSWERS),
            cancels: Each::new(CAUSES),
            times: Default::default(),
            co_tenants: Counter::default(),
            starts: Counter::default(),
            failed_starts: Counter::default(),
            start: Histogram::default(),
            reaped: Counter::default(),
            stuck: Counter::default(),
            spans_lost: Counter::default(),
            messages: Counter::default(),
        }
    }
}

/// `Metrics::times` by scope and level, as they are in a receipt.
pub const MODES: [(&str, &str); 4] =
    [("request", "ask"), ("subtree", "ask"), ("request", "kill"), ("subtree", "kill")];

impl Metrics {
    pub(crate) fn of(&self, asynchronous: bool) -> &Requests {
        if asynchronous { &self.asynchronous } else { &self.synchronous }
    }

    /// A request settled; returns the place of its outcome in [`OUTCOMES`].
    pub(crate) fn settled(&self, request: &Request, outcome: Outcome) -> usize {
        let of = self.of(request.asynchronous);
        let word = outcome_word(outcome);
        of.settled.of(word).count();
        if let Some((started, _)) = request.started {
            of.queued.took(started.saturating_duration_since(request.taken_up.0));
            of.ran.took(started.elapsed());
        }
        OUTCOMES.iter().position(|known| *known == word).unwrap_or(0)
    }

    /// The engine refused a request.
    pub(crate) fn not_admitted(&self, why: Refusal) {
        let word = match why {
            Refusal::ParentCanceled => "parent_canceled",
            Refusal::ParentGone => "parent_gone",
            Refusal::TooDeep => "too_deep",
            Refusal::TooManyBelowRoot | Refusal::TooMany => "too_many",
            Refusal::Duplicate => "other",
        };
        self.refused.of(word).count();
    }

    pub(crate) fn refused(&self, why: &InvokeError) {
        let word = match why {
            InvokeError::ParentCanceled => "parent_canceled",
            InvokeError::ParentGone => "parent_gone",
            InvokeError::TooDeep(_) => "too_deep",
            InvokeError::Busy(_) => "too_many",
            InvokeError::Disabled => "disabled",
            InvokeError::LacksLabels { .. } => "lacks_labels",
            InvokeError::Store(_) => "not_stored",
            InvokeError::Stopping => "stopping",
            InvokeError::NoLease => "no_lease",
            InvokeError::Stuck(_) => "other",
        };
        self.refused.of(word).count();
    }

    pub(crate) fn answered(&self, answer: &CancelAnswer) {
        let word = match answer {
            CancelAnswer::Done { stop: Stop::Stopped, .. } => "stopped",
            CancelAnswer::Done { stop: Stop::Draining, .. } => "draining",
            CancelAnswer::Done { stop: Stop::Fenced, .. } => "fenced",
            CancelAnswer::Unkillable { .. } => "unkillable",
            CancelAnswer::NotRecorded { .. } => "not_recorded",
            CancelAnswer::Finished(_) => "finished",
            CancelAnswer::Unknown => "unknown",
            CancelAnswer::TooManyAskers => "too_many_askers",
            CancelAnswer::Gone => "node_ended",
            CancelAnswer::Elsewhere => "unknown", // asked of no other node: nobody is told this
        };
        self.answers.of(word).count();
    }

    /// A cancel is over. `recorded`: how long its fence took to become durable, if it did.
    pub(crate) fn closed(&self, receipt: &Receipt, recorded: Option<Duration>) {
        self.cancels.of(&receipt.cause).0.of(&receipt.result).count();
        self.co_tenants.add(receipt.co_tenants.len() as u64);
        let mode = MODES.iter().position(|mode| *mode == (receipt.scope.as_str(), receipt.level.as_str()));
        let times = &self.times[mode.unwrap_or(0)];
        if let Some(recorded) = recorded {
            times.recorded.took(recorded);
        }
        if let Some(us) = receipt.took_us {
            times.answered.took_us(us);
        }
        for instance in &receipt.instances {
            let phases = [
                (&times.exited, instance.exited_us),
                (&times.emptied, instance.emptied_us),
                (&times.proven, instance.proven_us),
            ];
            for (histogram, us) in phases {
                us.inspect(|us| histogram.took_us(*us));
            }
        }
    }
}

pub(crate) fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Returned => "returned",
        Outcome::Canceled => "canceled",
        Outcome::TimedOut => "timed_out",
        Outcome::Crashed => "crashed",
        Outcome::Failed(code) if codes::is_of_the_node(code) => "node_failed",
        Outcome::Failed(_) => "function_failed",
    }
}
