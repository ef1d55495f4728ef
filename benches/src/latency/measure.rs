//! One figure: what Quell takes beside the least that anything could, sampled in turn.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Times are recorded in nanoseconds up to this; what takes longer than a minute is a failure.
const LONGEST_NS: u64 = 60_000_000_000;
/// Significant digits of a histogram.
const DIGITS: u8 = 3;

/// What one sample took, and how much of it went where.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    pub(crate) took: Duration,
    /// Parts of it, by their name, in order.
    pub(crate) phases: Vec<(&'static str, Duration)>,
}

impl From<Duration> for Sample {
    fn from(took: Duration) -> Self {
        Self { took, phases: Vec::new() }
    }
}

/// Something to measure and its floor: each call is one sample, set up and cleaned up by itself.
pub(crate) trait Scenario {
    async fn floor(&mut self) -> anyhow::Result<Duration>;
    async fn ours(&mut self) -> anyhow::Result<Sample>;
}

/// What a figure is called, and what it should be.
#[derive(Clone, Debug)]
pub(crate) struct Title {
    /// Stable, for programs: `force.python`.
    pub(crate) id: String,
    pub(crate) what: String,
    pub(crate) floor: String,
    /// Medians: ours over floor, at most.
    pub(crate) target: Option<f64>,
    /// The same of the 99th percentiles.
    pub(crate) target_p99: Option<f64>,
}

/// A distribution, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Times {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, LONGEST_NS, DIGITS)?))
    }

    pub(crate) fn add(&mut self, time: Duration) -> anyhow::Result<()> {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        anyhow::ensure!(nanos <= LONGEST_NS, "a sample took {time:?}");
        Ok(self.0.record(nanos.max(1))?)
    }

    fn merge(&mut self, other: &Self) -> anyhow::Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    /// In microseconds; 0 of nothing.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(quantile) as f64 / 1e3 }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Points of the cumulative distribution: (microseconds, share).
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let quantiles = (0..=100).map(|percent| f64::from(percent) / 100.0);
        quantiles.map(|quantile| (self.quantile(quantile), quantile)).collect()
    }

    fn json(&self) -> Value {
        json!({
            "n": self.count(),
            "min_us": self.quantile(0.0),
            "p50_us": self.quantile(0.5),
            "p90_us": self.quantile(0.9),
            "p99_us": self.quantile(0.99),
            "max_us": self.quantile(1.0),
        })
    }
}

/// A measured scenario.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) title: Title,
    pub(crate) ours: Times,
    pub(crate) floor: Times,
    /// Ratios of the medians of each round.
    pub(crate) rounds: Vec<f64>,
    /// Mean microseconds of each phase.
    pub(crate) phases: Vec<(&'static str, f64)>,
}

impl Figure {
    pub(crate) fn ratio(&self, quantile: f64) -> f64 {
        self.ours.quantile(quantile) / self.floor.quantile(quantile)
    }

    /// The lowest and the highest ratio of a round.
    pub(crate) fn spread(&self) -> (f64, f64) {
        let low = self.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        (low, self.rounds.iter().copied().fold(0.0, f64::max))
    }

    /// Whether it is what it should be; `None` if there is no target.
    pub(crate) fn meets(&self) -> Option<bool> {
        let within = |target: Option<f64>, quantile| target.is_none_or(|most| self.ratio(quantile) <= most);
        let any = self.title.target.or(self.title.target_p99).is_some();
        any.then(|| within(self.title.target, 0.5) && within(self.title.target_p99, 0.99))
    }

    pub(crate) fn json(&self) -> Value {
        let phases: BTreeMap<_, _> = self.phases.iter().copied().collect();
        json!({
            "id": self.title.id,
            "what": self.title.what,
            "floor": self.title.floor,
            "ours": self.ours.json(),
            "of_floor": self.floor.json(),
            "ratio_p50": self.ratio(0.5),
            "ratio_p99": self.ratio(0.99),
            "ratio_rounds": self.rounds,
            "target_p50": self.title.target,
            "target_p99": self.title.target_p99,
            "meets": self.meets(),
            "phases_us": phases,
        })
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Ours and the floor in turn so many times: what the machine does meanwhile meets both.
    pub(crate) rounds: usize,
    /// Samples of each in each round.
    pub(crate) samples: usize,
}

impl Effort {
    /// The same in so many times fewer samples, for what takes long.
    pub(crate) fn divided(self, by: usize) -> Self {
        Self { rounds: self.rounds, samples: (self.samples / by).max(1) }
    }
}

pub(crate) async fn figure<S: Scenario>(
    title: Title,
    effort: Effort,
    scenario: &mut S,
) -> anyhow::Result<Figure> {
    let (mut ours, mut floor) = (Times::new()?, Times::new()?);
    let mut phases: Vec<(&'static str, f64)> = Vec::new();
    let mut rounds = Vec::new();
    // Neither the first connection nor the first fault of a page is what is asked for.
    scenario.floor().await?;
    scenario.ours().await?;
    for _ in 0..effort.rounds {
        let (mut our_round, mut floor_round) = (Times::new()?, Times::new()?);
        for _ in 0..effort.samples {
            floor_round.add(scenario.floor().await?)?;
        }
        for _ in 0..effort.samples {
            let sample = scenario.ours().await?;
            our_round.add(sample.took)?;
            for (name, took) in sample.phases {
                let micros = took.as_secs_f64() * 1e6;
                match phases.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, sum)) => *sum += micros,
                    None => phases.push((name, micros)),
                }
            }
        }
        rounds.push(our_round.quantile(0.5) / floor_round.quantile(0.5));
        ours.merge(&our_round)?;
        floor.merge(&floor_round)?;
    }
    let samples = ours.count() as f64;
    for (_, sum) in &mut phases {
        *sum /= samples;
    }
    Ok(Figure { title, ours, floor, rounds, phases })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Duration, Duration);

    impl Scenario for Fixed {
        async fn floor(&mut self) -> anyhow::Result<Duration> {
            Ok(self.0)
        }

        async fn ours(&mut self) -> anyhow::Result<Sample> {
            let half = self.1 / 2;
            Ok(Sample { took: self.1, phases: vec![("kill", half), ("record", half)] })
        }
    }

    #[tokio::test]
    async fn a_figure_is_the_ratio_of_what_was_sampled_in_turn_and_knows_its_phases() {
        let title = |target| Title {
            id: "x".to_owned(),
            what: String::new(),
            floor: String::new(),
            target: Some(target),
            target_p99: None,
        };
        let effort = Effort { rounds: 3, samples: 4 };
        let mut scenario = Fixed(Duration::from_micros(100), Duration::from_micros(250));
        let figure = figure(title(2.6), effort, &mut scenario).await.unwrap();
        assert_eq!((figure.ours.count(), figure.floor.count(), figure.rounds.len()), (12, 12, 3));
        assert!((figure.ratio(0.5) - 2.5).abs() < 0.01, "{}", figure.ratio(0.5));
        assert_eq!(figure.meets(), Some(true));
        assert_eq!(Figure { title: title(2.4), ..figure.clone() }.meets(), Some(false));
        let (name, micros) = figure.phases[1];
        assert!(name == "record" && (micros - 125.0).abs() < 0.1, "{:?}", figure.phases);
    }

    #[test]
    fn what_takes_longer_than_a_minute_is_refused_and_not_cut() {
        assert!(Times::new().unwrap().add(Duration::from_secs(61)).is_err());
    }
}
