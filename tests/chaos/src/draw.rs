//! Random numbers that are the same for the same seed, today and after any upgrade of a dependency.

use std::time::Duration;

/// SplitMix64: small, well mixed, and its whole state is one number that a failure can print.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// The numbers of one round: rounds do not share a stream, so each can be drawn alone.
    #[must_use]
    pub fn of(seed: u64, round: u64) -> Self {
        let mut draw = Self(seed ^ round.wrapping_mul(0xA076_1D64_78BD_642F));
        draw.number();
        draw
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, both included. The bias of the remainder is far below what a schedule shows.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.number() % (high - low + 1)
    }

    /// A place in a list of so many.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.number() % count.max(1) as u64).unwrap_or_default() // below a usize: it fits
    }

    /// True this many times in a hundred.
    pub fn percent(&mut self, times: u64) -> bool {
        self.between(1, 100) <= times
    }

    /// A time in milliseconds between both, drawn to the microsecond.
    pub fn ms(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.between(low * 1_000, high * 1_000))
    }

    /// One of them, as often as its weight says.
    pub fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let mut left = self.number() % choices.iter().map(|(weight, _)| weight).sum::<u64>();
        for (weight, choice) in choices {
            if left < *weight {
                return *choice;
            }
            left -= weight;
        }
        choices[0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_round_name_one_stream() {
        let numbers = |seed, round| {
            let mut draw = Draw::of(seed, round);
            [draw.number(), draw.number(), draw.number()]
        };
        assert_eq!(numbers(7, 3), numbers(7, 3));
        assert_ne!(numbers(7, 3), numbers(7, 4));
        assert_ne!(numbers(7, 3), numbers(8, 3));
    }

    #[test]
    fn bounds_are_kept_and_weights_of_nothing_are_never_drawn() {
        let mut draw = Draw::of(1, 1);
        for _ in 0..1_000 {
            assert!((3..=5).contains(&draw.between(3, 5)));
            assert_ne!(draw.weighted(&[(1, 'a'), (0, 'b'), (2, 'c')]), 'b');
        }
    }
}
