//! How long a lease is, how often it is renewed, and how early a node stops what it runs.

use std::time::Duration;

/// By how much, in percent, the rate of a node's clock may be off against the database's. Crystals are off by 0.01 %,
/// and time services slew by up to 0.05 %; guests of an overloaded hypervisor are what this is for.
pub const RATE_ERROR_PERCENT: u32 = 1;

/// What a margin has to leave for the helper to wake up and the kill to be through. A kill of a large instance takes
/// tens of milliseconds; a machine that swaps takes longer.
pub const STOP_ALLOWANCE: Duration = Duration::from_secs(1);

/// A renewal that failed is tried again after the heartbeat divided by this: several tries fit into what the lease
/// leaves, and a database that comes back is not stormed.
pub const RETRY_DIVISOR: u32 = 4;

/// The times of a node's lease. All nodes of a database should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long the database keeps this node's work for it after each renewal.
    pub lease: Duration,
    /// The pause between renewals.
    pub heartbeat: Duration,
    /// How long before the end of the lease everything is stopped: covers the error of the clock's rate, the time
    /// that a kill takes, and the wake-up of the helper that does it if the node cannot.
    pub margin: Duration,
}

/// Times that do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTiming {
    /// Without a pause there is no pace.
    #[error("the heartbeat must be longer than nothing")]
    NoHeartbeat,
    /// One lost renewal would stop the node.
    #[error("the lease ({lease:?}) must be longer than the margin and two heartbeats ({least:?})")]
    ShortLease {
        /// The lease.
        lease: Duration,
        /// What it must be longer than.
        least: Duration,
    },
    /// What it runs could outlive its lease.
    #[error("the margin ({margin:?}) must be at least {least:?} with this lease")]
    ShortMargin {
        /// The margin.
        margin: Duration,
        /// The least it may be.
        least: Duration,
    },
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            heartbeat: Duration::from_secs(1),
            margin: Duration::from_secs(3),
        }
    }
}

impl Timing {
    /// Checks that the times fit together.
    ///
    /// # Errors
    /// [`BadTiming`] says which does not.
    pub fn checked(self) -> Result<Self, BadTiming> {
        if self.heartbeat.is_zero() {
            return Err(BadTiming::NoHeartbeat);
        }
        let least = self.lease * RATE_ERROR_PERCENT / 100 + STOP_ALLOWANCE;
        if self.margin < least {
            return Err(BadTiming::ShortMargin { margin: self.margin, least });
        }
        let least = self.margin + 2 * self.heartbeat;
        if self.lease <= least {
            return Err(BadTiming::ShortLease { lease: self.lease, least });
        }
        Ok(self)
    }

    /// How long after the moment before a renewal was sent what this node started may run.
    pub fn run_for(self) -> Duration {
        self.lease.saturating_sub(self.margin)
    }

    /// How long after the last confirmed renewal was sent its successor counts as late.
    pub fn late_after(self) -> Duration {
        2 * self.heartbeat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(lease: u64, heartbeat: u64, margin: u64) -> Timing {
        let ms = Duration::from_millis;
        Timing { lease: ms(lease), heartbeat: ms(heartbeat), margin: ms(margin) }
    }

    #[test]
    fn the_defaults_fit_together() {
        assert!(Timing::default().checked().is_ok());
    }

    #[test]
    fn times_that_do_not_fit_are_refused_and_said() {
        assert_eq!(timing(10_000, 0, 3_000).checked(), Err(BadTiming::NoHeartbeat));
        assert!(matches!(timing(5_000, 1_000, 3_000).checked(), Err(BadTiming::ShortLease { .. })));
        assert!(timing(5_001, 1_000, 3_000).checked().is_ok());
        assert!(matches!(timing(10_000, 1_000, 1_099).checked(), Err(BadTiming::ShortMargin { .. })));
        assert!(timing(10_000, 1_000, 1_100).checked().is_ok());
        let words = timing(5_000, 1_000, 3_000).checked().unwrap_err().to_string();
        assert_eq!(words, "the lease (5s) must be longer than the margin and two heartbeats (5s)");
    }
}
