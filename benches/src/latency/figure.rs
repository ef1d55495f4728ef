//! One figure: what was measured, what it is compared with, and what it should be.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::values::{Unit, Values};

/// What something should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("<= {most}"),
            Self::AtLeast(least) => format!(">= {least}"),
        }
    }
}

/// Of which part of a distribution a target speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Median,
    P99,
    Max,
}

impl At {
    pub(crate) fn quantile(self) -> f64 {
        match self {
            Self::Median => 0.5,
            Self::P99 => 0.99,
            Self::Max => 1.0,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Median => "p50",
            Self::P99 => "p99",
            Self::Max => "max",
        }
    }
}

/// A target of a figure: of its ratio to its floor, or of itself if it has no floor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Goal {
    pub(crate) at: At,
    pub(crate) target: Target,
}

/// Where a figure stands in a plot of cost against size.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// What the size is of, as it stands below the plot.
    pub(crate) size_of: &'static str,
    pub(crate) line: String,
    pub(crate) size: f64,
}

/// What a figure is called, and what it should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Title {
    /// Stable, for programs: `force.python`.
    pub(crate) id: String,
    pub(crate) what: String,
    /// Empty where nothing is compared.
    pub(crate) floor: String,
    pub(crate) unit: Unit,
    pub(crate) goals: Vec<Goal>,
    pub(crate) place: Option<Place>,
    /// What a reader must know of it.
    pub(crate) note: Option<String>,
}

impl Title {
    /// Times without a floor or a target.
    pub(crate) fn new(id: impl Into<String>, what: impl Into<String>) -> Self {
        Self { id: id.into(), what: what.into(), ..Self::default() }
    }

    pub(crate) fn over(self, floor: impl Into<String>) -> Self {
        Self { floor: floor.into(), ..self }
    }

    pub(crate) fn counted_in(self, unit: Unit) -> Self {
        Self { unit, ..self }
    }

    pub(crate) fn goal(mut self, at: At, target: Target) -> Self {
        self.goals.push(Goal { at, target });
        self
    }

    pub(crate) fn placed(self, size_of: &'static str, line: impl Into<String>, size: f64) -> Self {
        Self { place: Some(Place { size_of, line: line.into(), size }), ..self }
    }

    pub(crate) fn noted(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}

/// A measured scenario.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) title: Title,
    pub(crate) ours: Values,
    /// The least that it could be, in the same unit.
    pub(crate) floor: Option<Values>,
    /// Another that it is compared with, without a target.
    pub(crate) beside: Option<(&'static str, Values)>,
    /// Ratios of the medians of each round.
    pub(crate) rounds: Vec<f64>,
    /// Mean microseconds of each phase.
    pub(crate) phases: Vec<(&'static str, f64)>,
}

impl Figure {
    /// Something read, and compared with nothing.
    pub(crate) fn read(title: Title, readings: &[f64]) -> anyhow::Result<Self> {
        let mut ours = Values::new()?;
        readings.iter().try_for_each(|reading| ours.add(*reading))?;
        Ok(Self { title, ours, floor: None, beside: None, rounds: Vec::new(), phases: Vec::new() })
    }

    /// Ours and the floor, one of each a round.
    pub(crate) fn pairs(title: Title, pairs: &[(f64, f64)]) -> anyhow::Result<Self> {
        let ours: Vec<f64> = pairs.iter().map(|pair| pair.0).collect();
        let mut floor = Values::new()?;
        pairs.iter().try_for_each(|pair| floor.add(pair.1))?;
        let rounds = pairs.iter().map(|(ours, floor)| ours / floor).collect();
        Ok(Self { floor: Some(floor), rounds, ..Self::read(title, &ours)? })
    }

    /// Ours over floor; `None` without a floor.
    pub(crate) fn ratio(&self, quantile: f64) -> Option<f64> {
        let floor = self.floor.as_ref()?.quantile(quantile);
        (floor > 0.0).then(|| self.ours.quantile(quantile) / floor)
    }

    /// The ratio of the medians to what else it is compared with.
    pub(crate) fn ratio_beside(&self) -> Option<f64> {
        let beside = self.beside.as_ref()?.1.quantile(0.5);
        (beside > 0.0).then(|| self.ours.quantile(0.5) / beside)
    }

    /// The lowest and the highest ratio of a round.
    pub(crate) fn spread(&self) -> Option<(f64, f64)> {
        let low = self.rounds.iter().copied().reduce(f64::min)?;
        Some((low, self.rounds.iter().copied().reduce(f64::max)?))
    }

    /// What a goal speaks of: the ratio, or the value itself where there is no floor.
    pub(crate) fn value_at(&self, at: At) -> f64 {
        self.ratio(at.quantile()).unwrap_or_else(|| self.ours.quantile(at.quantile()))
    }

    /// Whether it is what it should be; `None` if there is no target.
    pub(crate) fn meets(&self) -> Option<bool> {
        let goals = &self.title.goals;
        let holds = |goal: &Goal| goal.target.holds(self.value_at(goal.at));
        (!goals.is_empty()).then(|| goals.iter().all(holds))
    }

    /// Its targets in words; each that is not the median's says so.
    pub(crate) fn goals(&self) -> String {
        let goal = |goal: &Goal| match goal.at {
            At::Median => goal.target.text(),
            At::P99 | At::Max => format!("{} {}", goal.at.name(), goal.target.text()),
        };
        self.title.goals.iter().map(goal).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn json(&self) -> Value {
        let phases: BTreeMap<_, _> = self.phases.iter().copied().collect();
        let goals = self.title.goals.iter().map(|goal| {
            let (word, bound) = match goal.target {
                Target::AtMost(most) => ("at_most", most),
                Target::AtLeast(least) => ("at_least", least),
            };
            json!({ "of": goal.at.name(), word: bound, "is": self.value_at(goal.at) })
        });
        let beside = self.beside.as_ref().map(|(what, values)| {
            json!({ "what": what, "values": values.json(), "ratio_p50": self.ratio_beside() })
        });
        json!({
            "id": self.title.id,
            "what": self.title.what,
            "unit": self.title.unit.name(),
            "note": self.title.note,
            "ours": self.ours.json(),
            "floor": self.floor.as_ref().map(|floor| {
                json!({ "what": self.title.floor, "values": floor.json() })
            }),
            "ratio_p50": self.ratio(0.5),
            "ratio_p99": self.ratio(0.99),
            "ratio_rounds": self.rounds,
            "beside": beside,
            "goals": goals.collect::<Vec<_>>(),
            "meets": self.meets(),
            "phases_us": phases,
        })
    }
}

/// A scenario without a figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absent {
    pub(crate) what: String,
    pub(crate) why: String,
    /// It should have been here: the run does not count as a good one.
    pub(crate) failed: bool,
}

/// What a run has come to so far.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) figures: Vec<Figure>,
    pub(crate) absent: Vec<Absent>,
}

impl Found {
    pub(crate) fn push(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// What this machine cannot run is named, with the reason.
    pub(crate) fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.absent.push(Absent { what: what.into(), why: why.into(), failed: false });
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.absent.push(Absent { what: what.into(), why: why.into(), failed: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_to_be_high_and_a_time_is_to_be_low() {
        let title = |target| Title::new("x", "").over("y").goal(At::Median, target);
        let figure = |target| Figure::pairs(title(target), &[(80.0, 100.0), (90.0, 100.0), (85.0, 100.0)]);
        assert_eq!(figure(Target::AtLeast(0.8)).unwrap().meets(), Some(true));
        assert_eq!(figure(Target::AtLeast(0.9)).unwrap().meets(), Some(false));
        assert_eq!(figure(Target::AtMost(0.9)).unwrap().meets(), Some(true));
        assert_eq!(figure(Target::AtMost(0.8)).unwrap().meets(), Some(false));
        let (low, high) = figure(Target::AtMost(1.0)).unwrap().spread().unwrap();
        assert!((low - 0.8).abs() < 1e-9 && (high - 0.9).abs() < 1e-9, "{low} {high}");
    }

    #[test]
    fn without_a_floor_the_target_is_of_the_value_itself() {
        let title = Title::new("rss", "").counted_in(Unit::Mebibytes).goal(At::Max, Target::AtMost(20.0));
        assert_eq!(Figure::read(title.clone(), &[12.0, 19.5]).unwrap().meets(), Some(true));
        let over = Figure::read(title, &[12.0, 21.0]).unwrap();
        assert_eq!((over.meets(), over.ratio(0.5), over.spread()), (Some(false), None, None));
        assert_eq!(over.goals(), "max <= 20");
        assert_eq!(over.json()["goals"][0]["at_most"], 20.0);
    }

    #[test]
    fn every_goal_must_hold_and_none_means_no_verdict() {
        let title = Title::new("x", "");
        assert_eq!(Figure::read(title.clone(), &[1.0]).unwrap().meets(), None);
        let both = title.goal(At::Median, Target::AtMost(2.0)).goal(At::P99, Target::AtMost(3.0));
        assert_eq!(Figure::read(both.clone(), &[1.0, 1.0, 4.0]).unwrap().meets(), Some(false));
        assert_eq!(Figure::read(both, &[1.0, 1.0, 2.9]).unwrap().meets(), Some(true));
    }

    #[test]
    fn what_is_skipped_is_no_failure_and_both_have_their_reason() {
        let mut found = Found::default();
        found.skip("Node.js", "there is no node here");
        found.fail("memory", "the node did not start");
        let failed: Vec<(&str, bool)> =
            found.absent.iter().map(|absent| (absent.why.as_str(), absent.failed)).collect();
        assert_eq!(failed, [("there is no node here", false), ("the node did not start", true)]);
    }
}
