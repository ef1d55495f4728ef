//! Times of one figure.

use std::time::Duration;

/// Where a figure goes: its name, its samples, and whether what follows is compared with it.
pub(crate) type Show<'a> = dyn FnMut(&str, &Samples, bool) + 'a;

/// Measured times, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e6);
    }

    /// The nearest-rank percentile; NaN of nothing.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut samples = Samples::default();
        assert!(samples.percentile(50).is_nan());
        for micros in (1..=100).rev() {
            samples.add(Duration::from_micros(micros));
        }
        assert!((samples.percentile(50) - 50.0).abs() < 1e-6);
        assert!((samples.percentile(99) - 99.0).abs() < 1e-6);
        assert!((samples.percentile(100) - 100.0).abs() < 1e-6);
    }
}
