//! Renewals that fail one after the other: told of, with their count, but not each of them. While the store is away
//! there are several in a second.

use std::time::Duration;

/// Between two lines of the log.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// How many failed, and when that was told last.
#[derive(Debug, Default)]
pub(super) struct Failing {
    failed: u64,
    told: Option<Duration>,
    /// Those that are counted now were told of.
    is_told: bool,
}

impl Failing {
    /// One more failed at this time: how many in a row, if that is to be told now.
    pub(super) fn again(&mut self, now: Duration) -> Option<u64> {
        self.failed += 1;
        if self.told.is_some_and(|told| now < told + TELL_AGAIN) {
            return None;
        }
        (self.told, self.is_told) = (Some(now), true);
        Some(self.failed)
    }

    /// One succeeded: how many had failed, if somebody was told of them.
    pub(super) fn over(&mut self) -> Option<u64> {
        let failed = std::mem::take(&mut self.failed);
        std::mem::take(&mut self.is_told).then_some(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_four_times_a_second_is_told_at_once_and_then_each_five_seconds_with_its_count() {
        let mut failing = Failing::default();
        let told: Vec<_> = (0..48).filter_map(|n| failing.again(Duration::from_millis(n * 250))).collect();
        assert_eq!(told, [1, 21, 41]);
        assert_eq!((failing.over(), failing.over()), (Some(48), None));
    }

    #[test]
    fn failures_between_successes_are_told_no_more_often() {
        let mut failing = Failing::default();
        let mut told = 0;
        for n in 0..40 {
            told += failing.again(Duration::from_millis(n * 250)).iter().count();
            failing.over();
        }
        assert_eq!(told, 2);
    }
}
