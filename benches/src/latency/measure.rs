//! Quell and the least that anything could take, sampled in turn.

use std::time::Duration;

use super::{
    figure::{Figure, Title},
    progress,
    values::Values,
};

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
    /// What else it is compared with, sampled by [`beside`](Self::beside).
    const BESIDE: Option<&'static str> = None;

    async fn floor(&mut self) -> anyhow::Result<Duration>;
    async fn ours(&mut self) -> anyhow::Result<Sample>;
    /// A sample of what [`BESIDE`](Self::BESIDE) names; `None` if this one has none.
    async fn beside(&mut self) -> anyhow::Result<Option<Duration>> {
        Ok(None)
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

/// Means of phases over samples.
#[derive(Debug, Default)]
pub(crate) struct Phases {
    sums: Vec<(&'static str, f64)>,
    samples: usize,
}

impl Phases {
    pub(crate) fn add(&mut self, phases: Vec<(&'static str, Duration)>) {
        self.samples += 1;
        for (name, took) in phases {
            let micros = took.as_secs_f64() * 1e6;
            match self.sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += micros,
                None => self.sums.push((name, micros)),
            }
        }
    }

    pub(crate) fn means(self) -> Vec<(&'static str, f64)> {
        let samples = self.samples.max(1) as f64;
        self.sums.into_iter().map(|(name, sum)| (name, sum / samples)).collect()
    }
}

pub(crate) async fn figure<S: Scenario>(
    title: Title,
    effort: Effort,
    scenario: &mut S,
) -> anyhow::Result<Figure> {
    let (mut ours, mut floor, mut beside) = (Values::new()?, Values::new()?, Values::new()?);
    let (mut phases, mut rounds) = (Phases::default(), Vec::new());
    progress::show(&title.what, 0, effort.rounds);
    // Neither the first connection nor the first fault of a page is what is asked for.
    scenario.floor().await?;
    scenario.beside().await?;
    scenario.ours().await?;
    for round in 1..=effort.rounds {
        let (mut our_round, mut floor_round) = (Values::new()?, Values::new()?);
        progress::show(&title.what, round, effort.rounds);
        for _ in 0..effort.samples {
            floor_round.add_time(scenario.floor().await?)?;
            if let Some(took) = scenario.beside().await? {
                beside.add_time(took)?;
            }
        }
        for _ in 0..effort.samples {
            let sample = scenario.ours().await?;
            our_round.add_time(sample.took)?;
            phases.add(sample.phases);
        }
        rounds.push(our_round.quantile(0.5) / floor_round.quantile(0.5));
        ours.merge(&our_round)?;
        floor.merge(&floor_round)?;
    }
    let beside = S::BESIDE.filter(|_| beside.count() > 0).map(|what| (what, beside));
    Ok(Figure { title, ours, floor: Some(floor), beside, rounds, phases: phases.means() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::figure::{At, Target};

    struct Fixed(Duration, Duration);

    impl Scenario for Fixed {
        const BESIDE: Option<&'static str> = Some("half of it");

        async fn floor(&mut self) -> anyhow::Result<Duration> {
            Ok(self.0)
        }

        async fn ours(&mut self) -> anyhow::Result<Sample> {
            let half = self.1 / 2;
            Ok(Sample { took: self.1, phases: vec![("kill", half), ("record", half)] })
        }

        async fn beside(&mut self) -> anyhow::Result<Option<Duration>> {
            Ok(Some(self.1 / 2))
        }
    }

    #[tokio::test]
    async fn a_figure_is_the_ratio_of_what_was_sampled_in_turn_and_knows_its_phases() {
        let title = |most| Title::new("x", "").goal(At::Median, Target::AtMost(most));
        let effort = Effort { rounds: 3, samples: 4 };
        let mut scenario = Fixed(Duration::from_micros(100), Duration::from_micros(250));
        let figure = figure(title(2.6), effort, &mut scenario).await.unwrap();
        let floors = figure.floor.as_ref().unwrap().count();
        assert_eq!((figure.ours.count(), floors, figure.rounds.len()), (12, 12, 3));
        let near = |value: Option<f64>, to: f64| (value.unwrap() - to).abs() < 0.01;
        assert!(near(figure.ratio(0.5), 2.5) && near(figure.ratio_beside(), 2.0), "{figure:?}");
        assert_eq!(figure.meets(), Some(true));
        assert_eq!(Figure { title: title(2.4), ..figure.clone() }.meets(), Some(false));
        let (name, micros) = figure.phases[1];
        assert!(name == "record" && (micros - 125.0).abs() < 0.1, "{:?}", figure.phases);
    }
}
