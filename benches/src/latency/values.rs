//! Distributions: times, and other things that are counted.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// What takes longer is a failure.
const LONGEST: Duration = Duration::from_secs(60);
/// Thousandths of a unit up to which a value is recorded: a minute in nanoseconds, and more than a machine
/// has of anything else that is counted here.
const MOST: u64 = 1 << 44;
/// Significant digits.
const DIGITS: u8 = 3;

/// What values are counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Microseconds.
    #[default]
    Micros,
    /// Nanoseconds.
    Nanos,
    PerSecond,
    Mebibytes,
    Bytes,
    /// A number of things.
    Count,
}

impl Unit {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Micros => "us",
            Self::Nanos => "ns",
            Self::PerSecond => "/s",
            Self::Mebibytes => "MiB",
            Self::Bytes => "B",
            Self::Count => "",
        }
    }
}

/// A distribution, in thousandths of its unit.
#[derive(Clone, Debug)]
pub(crate) struct Values(Histogram<u64>);

impl Values {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, MOST, DIGITS)?))
    }

    /// A time, in microseconds.
    pub(crate) fn add_time(&mut self, time: Duration) -> anyhow::Result<()> {
        anyhow::ensure!(time <= LONGEST, "a sample took {time:?}");
        self.add(time.as_secs_f64() * 1e6)
    }

    /// Anything; what is below a thousandth, or negative, counts as one.
    pub(crate) fn add(&mut self, value: f64) -> anyhow::Result<()> {
        let thousandths = (value * 1e3).round();
        anyhow::ensure!(thousandths < MOST as f64, "{value} is not believed");
        Ok(self.0.record((thousandths as u64).max(1))?)
    }

    pub(crate) fn merge(&mut self, other: &Self) -> anyhow::Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    /// 0 of nothing.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(quantile) as f64 / 1e3 }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Points of the cumulative distribution: (value, share).
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let quantiles = (0..=100).map(|percent| f64::from(percent) / 100.0);
        quantiles.map(|quantile| (self.quantile(quantile), quantile)).collect()
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "n": self.count(),
            "min": self.quantile(0.0),
            "p50": self.quantile(0.5),
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "max": self.quantile(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_than_a_minute_is_refused_and_not_cut() {
        let mut values = Values::new().unwrap();
        assert!(values.add_time(Duration::from_secs(61)).is_err());
        values.add_time(Duration::from_secs(60)).unwrap();
        assert!((values.quantile(1.0) / 60e6 - 1.0).abs() < 0.001, "{}", values.quantile(1.0));
    }

    #[test]
    fn rates_and_sizes_keep_three_digits_and_nothing_is_below_a_thousandth() {
        let mut values = Values::new().unwrap();
        for value in [-4.0, 12.5, 123_456.0] {
            values.add(value).unwrap();
        }
        assert!((values.quantile(0.0) - 0.001).abs() < 1e-9, "{}", values.quantile(0.0));
        assert!((values.quantile(0.5) - 12.5).abs() < 0.01);
        assert!((values.quantile(1.0) / 123_456.0 - 1.0).abs() < 0.001);
        assert!(values.add(1e12).is_err());
    }
}
