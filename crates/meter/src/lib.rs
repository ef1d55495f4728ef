//! Counters and histograms that cost an atomic addition or three, without locks and without knowing how they are shown.
//!
//! What counts has fields of these types, one for each combination of labels there can be: so the number of series is
//! fixed when the code is written (I10), and nothing is looked up where something is counted.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper ends of the buckets of a histogram, in microseconds. A stop takes from a tenth of a millisecond to the
/// seconds of a grace, a function up to its time limit of hours: a step of 2 to 2.5 in between, coarse at the end.
pub const BOUNDS_US: [u64; 20] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    900_000_000,
];

/// The bounds, and what is longer than the last.
const BUCKETS: usize = BOUNDS_US.len() + 1;

/// How often something has happened.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Once more.
    pub fn count(&self) {
        self.add(1);
    }

    /// So many times more.
    pub fn add(&self, times: u64) {
        self.0.fetch_add(times, Ordering::Relaxed);
    }

    /// How often so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

/// What a histogram has seen. Of what is counted meanwhile it may have a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// How many were no longer than the bound at the same place, and longer than the one before; the last: longer
    /// than all bounds.
    pub buckets: [u64; BUCKETS],
    /// All together, in microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// It took so long.
    pub fn took(&self, time: Duration) {
        self.took_us(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The same in microseconds.
    pub fn took_us(&self, us: u64) {
        let at = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What it has seen so far.
    pub fn get(&self) -> Distribution {
        let buckets = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        Distribution { buckets, sum_us: self.sum_us.load(Ordering::Relaxed) }
    }
}

impl Distribution {
    /// How many.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        for us in [0, 100, 101, 1_000, 900_000_000, 900_000_001] {
            histogram.took_us(us);
        }
        histogram.took(Duration::from_millis(1));
        let seen = histogram.get();
        assert_eq!((seen.buckets[0], seen.buckets[1], seen.buckets[3]), (2, 1, 2));
        assert_eq!((seen.buckets[BUCKETS - 2], seen.buckets[BUCKETS - 1]), (1, 1));
        assert_eq!((seen.count(), seen.sum_us), (7, 1_800_002_202));
        assert!(BOUNDS_US.is_sorted());
    }
}
