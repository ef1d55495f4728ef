//! What became of the requests of each function, minute by minute: counted where a request settles, kept in
//! memory since the start of the node, bounded in functions and in minutes (I10).

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use cancel::{CODE_CANCELED, Outcome};
use store::FunctionKey;

use crate::codes;

/// Minutes that are kept of a function: a day, which is as far back as the reports of the API are mostly
/// asked for. 72 bytes each.
pub const MINUTES_KEPT: usize = 1_440;
/// Functions that are counted at once: as many as an account of the API has (`functiongraph.md` 3). One more
/// takes the place of the one that has been quiet longest. With all their minutes full they take under 60 MiB.
const FUNCTIONS_COUNTED: usize = 400;
const MINUTE_MS: i64 = 60_000;

/// Of one function, or several added up, in one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that settled.
    pub count: u32,
    /// Of these, those that did not return a result, the cancelled ones included.
    pub failed: u32,
    /// Of the failed, those by the function's own doing: its code, its limits, its start.
    pub function_errors: u32,
    /// Of the failed, those by the node's doing: no instance was free in time, it stopped, too old.
    pub system_errors: u32,
    /// Requests that were refused: disabled, too many, too deep, the node is stopping. They are in no other figure.
    pub rejected: u32,
    /// Those of the settled that had been handed to a runtime, which have a duration.
    pub timed: u32,
    /// All their durations together in microseconds, from the hand-over to the result.
    pub duration_us: u64,
    /// The longest of them.
    pub longest_us: u64,
    /// The shortest of them.
    pub shortest_us: u64,
    /// The most requests that ran at once.
    pub running: u32,
    /// The most instances there were at once, without the reserved ones.
    pub instances: u32,
    /// The most reserved instances there were at once.
    pub reserved: u32,
}

/// The figures of one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    /// Its first millisecond, since the Unix epoch.
    pub start_ms: i64,
    /// What happened in it.
    pub counts: Counts,
}

/// Whose figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// One function's.
    Function(FunctionKey),
    /// Those of all functions of a project, added up.
    Project(String),
}

/// The figures of each function.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    functions: HashMap<FunctionKey, Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    /// Oldest first; minutes in which nothing happened are not there.
    minutes: VecDeque<Minute>,
    /// Requests that run now.
    running: u32,
}

impl Ring {
    /// The minute of this moment. A clock that was set back adds to the last minute: order is kept.
    fn now(&mut self, now_ms: i64) -> &mut Counts {
        let start_ms = now_ms - now_ms.rem_euclid(MINUTE_MS);
        let newer = self.minutes.back().is_none_or(|last| last.start_ms < start_ms);
        if newer {
            if self.minutes.len() >= MINUTES_KEPT {
                self.minutes.pop_front();
            }
            let counts = Counts { running: self.running, ..Counts::default() };
            self.minutes.push_back(Minute { start_ms, counts });
        }
        let at = self.minutes.len() - 1;
        &mut self.minutes[at].counts
    }
}

impl Counters {
    /// Does something to the figures of a function, which are made if there are none.
    fn with(&mut self, key: &FunctionKey, change: impl FnOnce(&mut Ring)) {
        if let Some(ring) = self.functions.get_mut(key) {
            return change(ring); // each request comes here twice: nothing is copied
        }
        if self.functions.len() >= FUNCTIONS_COUNTED {
            let last = |ring: &Ring| ring.minutes.back().map(|minute| minute.start_ms);
            let quiet = self.functions.iter().min_by_key(|(_, ring)| (ring.running > 0, last(ring)));
            if let Some(key) = quiet.map(|(key, _)| key.clone()) {
                self.functions.remove(&key);
            }
        }
        change(self.functions.entry(key.clone()).or_default());
    }

    /// A request was handed to a runtime.
    pub(crate) fn began(&mut self, key: &FunctionKey, now_ms: i64) {
        self.with(key, |ring| {
            ring.running = ring.running.saturating_add(1);
            let running = ring.running;
            let counts = ring.now(now_ms);
            counts.running = counts.running.max(running);
        });
    }

    /// It runs no more: it settled, or waits again.
    pub(crate) fn ended(&mut self, key: &FunctionKey) {
        if let Some(ring) = self.functions.get_mut(key) {
            ring.running = ring.running.saturating_sub(1);
        }
    }

    /// A request settled; `ran` is for how long its last attempt ran, if it had one.
    pub(crate) fn settled(
        &mut self,
        key: &FunctionKey,
        outcome: Outcome,
        ran: Option<Duration>,
        now_ms: i64,
    ) {
        let mut one = Counts { count: 1, ..Counts::default() };
        let blame = blame(outcome);
        one.failed = u32::from(blame != Blame::Nobody);
        one.function_errors = u32::from(blame == Blame::Function);
        one.system_errors = u32::from(blame == Blame::System);
        if let Some(ran) = ran {
            let us = u64::try_from(ran.as_micros()).unwrap_or(u64::MAX);
            one = Counts { timed: 1, duration_us: us, longest_us: us, shortest_us: us, ..one };
        }
        self.with(key, |ring| ring.now(now_ms).add(&one));
    }

    /// A request was refused.
    pub(crate) fn rejected(&mut self, key: &FunctionKey, now_ms: i64) {
        let one = Counts { rejected: 1, ..Counts::default() };
        self.with(key, |ring| ring.now(now_ms).add(&one));
    }

    /// So many instances there are now, of which so many are kept as reserved ones.
    pub(crate) fn instances(&mut self, key: &FunctionKey, all: usize, reserved: usize, now_ms: i64) {
        let counted = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let kept = all.min(reserved);
        self.with(key, |ring| {
            let counts = ring.now(now_ms);
            counts.instances = counts.instances.max(counted(all - kept));
            counts.reserved = counts.reserved.max(counted(kept));
        });
    }

    /// The function is gone, and so are its figures.
    pub(crate) fn forget(&mut self, key: &FunctionKey) {
        self.functions.remove(key);
    }

    /// The minutes from `from_ms` on in which something happened, oldest first.
    pub(crate) fn minutes(&self, of: &Of, from_ms: i64) -> Vec<Minute> {
        let recent = |ring: &Ring| {
            let first = ring.minutes.partition_point(|minute| minute.start_ms < from_ms);
            ring.minutes.range(first..).copied().collect::<Vec<_>>()
        };
        match of {
            Of::Function(key) => self.functions.get(key).map(recent).unwrap_or_default(),
            Of::Project(project) => {
                let mut all: HashMap<i64, Counts> = HashMap::new();
                for (_, ring) in self.functions.iter().filter(|(key, _)| key.project == *project) {
                    for minute in recent(ring) {
                        all.entry(minute.start_ms).or_default().add(&minute.counts);
                    }
                }
                let minute = |(start_ms, counts)| Minute { start_ms, counts };
                let mut all: Vec<Minute> = all.into_iter().map(minute).collect();
                all.sort_unstable_by_key(|minute| minute.start_ms);
                all
            }
        }
    }

    /// What happened to each function of a project from one moment to another, both included. What is the
    /// most of a minute (instances, requests at once) has no sum: those figures mean nothing here.
    pub(crate) fn totals(&self, project: &str, from_ms: i64, until_ms: i64) -> Vec<(FunctionKey, Counts)> {
        let total = |ring: &Ring| {
            let mut total = Counts::default();
            for minute in &ring.minutes {
                if minute.start_ms + MINUTE_MS > from_ms && minute.start_ms <= until_ms {
                    total.add(&minute.counts);
                }
            }
            total
        };
        let own = self.functions.iter().filter(|(key, _)| key.project == project);
        own.map(|(key, ring)| (key.clone(), total(ring))).collect()
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        if other.timed > 0 {
            let first = self.timed == 0;
            self.shortest_us =
                if first { other.shortest_us } else { self.shortest_us.min(other.shortest_us) };
            self.longest_us = self.longest_us.max(other.longest_us);
        }
        self.duration_us = self.duration_us.saturating_add(other.duration_us);
        for (sum, more) in [
            (&mut self.count, other.count),
            (&mut self.failed, other.failed),
            (&mut self.function_errors, other.function_errors),
            (&mut self.system_errors, other.system_errors),
            (&mut self.rejected, other.rejected),
            (&mut self.timed, other.timed),
            (&mut self.running, other.running),
            (&mut self.instances, other.instances),
            (&mut self.reserved, other.reserved),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blame {
    Nobody,
    Canceled,
    Function,
    System,
}

/// Whose doing an outcome is. A cancel is the doing of neither.
fn blame(outcome: Outcome) -> Blame {
    match outcome.code() {
        0 => Blame::Nobody,
        CODE_CANCELED => Blame::Canceled,
        code if codes::is_of_the_node(code) => Blame::System,
        _ => Blame::Function,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> FunctionKey {
        FunctionKey {
            project: "p".into(),
            package: "default".into(),
            name: name.into(),
            version: store::LATEST.into(),
        }
    }

    fn only(counters: &Counters, name: &str) -> Counts {
        let minutes = counters.minutes(&Of::Function(key(name)), 0);
        assert_eq!(minutes.len(), 1, "{minutes:?}");
        minutes[0].counts
    }

    #[test]
    fn each_end_is_counted_once_and_by_whose_doing_it_is() {
        let mut counters = Counters::default();
        let second = Duration::from_secs(1);
        for (outcome, ran) in [
            (Outcome::Returned, Some(second)),
            (Outcome::Returned, Some(3 * second)),
            (Outcome::Failed(codes::FUNCTION_FAILED), Some(2 * second)),
            (Outcome::Canceled, None),
            (Outcome::TimedOut, None),
            (Outcome::Crashed, None),
            (Outcome::Failed(codes::NO_INSTANCE), None),
        ] {
            counters.settled(&key("f"), outcome, ran, 61_000);
        }
        counters.rejected(&key("f"), 119_999);
        let counts = only(&counters, "f");
        assert_eq!((counts.count, counts.failed, counts.rejected), (7, 5, 1));
        assert_eq!((counts.function_errors, counts.system_errors), (3, 1));
        assert_eq!((counts.timed, counts.duration_us), (3, 6_000_000));
        assert_eq!((counts.shortest_us, counts.longest_us), (1_000_000, 3_000_000));
    }

    #[test]
    fn what_runs_over_the_end_of_a_minute_runs_in_the_next_one_too() {
        let mut counters = Counters::default();
        counters.began(&key("f"), 0);
        counters.began(&key("f"), 1);
        counters.ended(&key("f"));
        counters.settled(&key("f"), Outcome::Returned, None, 60_000);
        let running: Vec<u32> =
            counters.minutes(&Of::Function(key("f")), 0).iter().map(|m| m.counts.running).collect();
        assert_eq!(running, [2, 1]);
    }

    #[test]
    fn so_many_minutes_are_kept_of_so_many_functions_and_a_clock_set_back_breaks_no_order() {
        let mut counters = Counters::default();
        for minute in 0..=i64::try_from(MINUTES_KEPT).unwrap() {
            counters.rejected(&key("f"), minute * MINUTE_MS);
        }
        counters.rejected(&key("f"), 0);
        let minutes = counters.minutes(&Of::Function(key("f")), 0);
        assert_eq!((minutes.len(), minutes[0].start_ms), (MINUTES_KEPT, MINUTE_MS));
        assert_eq!(minutes.last().unwrap().counts.rejected, 2);
        assert!(minutes.is_sorted_by_key(|minute| minute.start_ms));
        for other in 0..FUNCTIONS_COUNTED {
            counters.rejected(&key(&format!("g{other}")), i64::from(u32::MAX) * MINUTE_MS);
        }
        assert_eq!(counters.functions.len(), FUNCTIONS_COUNTED);
        assert!(!counters.functions.contains_key(&key("f")), "the one that was quiet longest made room");
    }

    #[test]
    fn a_project_adds_up_its_functions_and_sees_no_other() {
        let mut counters = Counters::default();
        counters.rejected(&key("f"), 0);
        counters.rejected(&key("g"), 0);
        counters.rejected(&key("g"), 60_000);
        counters.rejected(&FunctionKey { project: "q".into(), ..key("f") }, 0);
        let all = counters.minutes(&Of::Project("p".into()), 0);
        let rejected: Vec<u32> = all.iter().map(|minute| minute.counts.rejected).collect();
        assert_eq!(rejected, [2, 1]);
        assert_eq!(counters.minutes(&Of::Project("p".into()), 60_000).len(), 1);
        let mut totals: Vec<u32> =
            counters.totals("p", 0, i64::MAX).iter().map(|(_, counts)| counts.rejected).collect();
        totals.sort_unstable();
        assert_eq!(totals, [1, 2]);
    }
}
