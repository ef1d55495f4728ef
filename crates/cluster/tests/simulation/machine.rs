//! A machine: its clock, what holds it up, and the switch that strikes by its clock.

use std::time::Duration;

use crate::database::Time;
use crate::random::Random;

pub(crate) struct Machine {
    /// How much its clock is ahead, and how wrong its rate is, in millionths.
    ahead: Time,
    drift: i64,
    /// Rises with each life of the daemon, so that nothing meant for an older one reaches a newer one.
    pub(crate) life: u32,
    /// The last number that an ask had.
    pub(crate) numbers: u64,
    /// The daemon stands still; the runtimes go on.
    pub(crate) paused_until: Time,
    /// Everything stands still; the clock goes on.
    pub(crate) frozen_until: Time,
    /// Nothing comes through between it and the database.
    pub(crate) cut_until: Time,
    /// Until when its runtimes may run, by its clock.
    pub(crate) switch: Duration,
    pub(crate) tick_at: Time,
    /// The daemon waits for the end of everything.
    pub(crate) ending: bool,
    /// It does not come back.
    pub(crate) dead: bool,
}

impl Machine {
    pub(crate) fn new(random: &mut Random) -> Self {
        // At the bound in half of the machines: one in a hundred, either way.
        let drift = match random.below(4) {
            0 => -10_000,
            1 => 10_000,
            _ => i64::try_from(random.between(0, 20_000)).expect("small") - 10_000,
        };
        Self {
            ahead: random.between(0, 1 << 40),
            drift,
            life: 0,
            numbers: 0,
            paused_until: 0,
            frozen_until: 0,
            cut_until: 0,
            switch: Duration::ZERO,
            tick_at: 0,
            ending: false,
            dead: false,
        }
    }

    pub(crate) fn daemon_paused_until(&self) -> Time {
        self.paused_until.max(self.frozen_until)
    }

    pub(crate) fn local(&self, real: Time) -> Duration {
        let wrong = i128::from(real) * i128::from(self.drift) / 1_000_000;
        let local = i128::from(real) + wrong + i128::from(self.ahead);
        Duration::from_micros(u64::try_from(local).expect("the clock is ahead"))
    }

    /// When its clock will show this.
    pub(crate) fn real(&self, local: Duration) -> Time {
        let local = u64::try_from(local.as_micros()).unwrap_or(u64::MAX).saturating_sub(self.ahead);
        let real = i128::from(local) * 1_000_000 / (1_000_000 + i128::from(self.drift));
        // Rounded up: a clock that is looked at a moment too early shows less.
        u64::try_from(real + 2).unwrap_or(u64::MAX)
    }
}
