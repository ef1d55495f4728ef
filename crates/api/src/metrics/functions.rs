//! Which functions have series of their own, and what is in them.

use std::collections::BTreeSet;

use store::FunctionKey;
use supervisor::{Census, FunctionCensus, INSTANCE_STATES, OUTCOMES};

use super::MAX_FUNCTIONS;

/// The functions that have series: those that were there first, so that no series comes and goes with what else runs.
#[derive(Debug, Default)]
pub(crate) struct Named(BTreeSet<FunctionKey>);

/// One version of a function, or all that have no series of their own.
#[derive(Debug)]
pub(super) struct Row {
    project: String,
    function: String,
    version: String,
    seen: FunctionCensus,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    /// How many are in the last row together.
    pub(super) beyond: u64,
}

type Series<'a> = (Vec<(&'static str, &'a str)>, u64);

impl Named {
    /// The rows of this moment.
    pub(super) fn rows(&mut self, census: &Census) -> Rows {
        let there: BTreeSet<&FunctionKey> = census.functions.iter().map(|seen| &seen.function).collect();
        self.0.retain(|key| there.contains(key));
        let mut rows = Rows::default();
        let mut others: Option<FunctionCensus> = None;
        for seen in &census.functions {
            if !self.0.contains(&seen.function) && self.0.len() < MAX_FUNCTIONS {
                self.0.insert(seen.function.clone());
            }
            if self.0.contains(&seen.function) {
                let FunctionKey { project, package, name, version } = seen.function.clone();
                rows.rows.push(Row {
                    project,
                    function: format!("{package}:{name}"),
                    version,
                    seen: seen.clone(),
                });
                continue;
            }
            rows.beyond += 1;
            match &mut others {
                None => others = Some(seen.clone()),
                Some(others) => add(others, seen),
            }
        }
        if let Some(seen) = others {
            let [project, function, version] = ["", "others", ""].map(str::to_owned);
            rows.rows.push(Row { project, function, version, seen });
        }
        rows
    }
}

fn add(to: &mut FunctionCensus, more: &FunctionCensus) {
    to.running += more.running;
    to.waiting += more.waiting;
    for (to, more) in to.instances.iter_mut().zip(more.instances) {
        *to += more;
    }
    for (to, more) in to.settled.iter_mut().zip(more.settled) {
        *to += more;
    }
}

impl Row {
    fn labels<'a>(&'a self, more: (&'static str, &'a str)) -> Vec<(&'static str, &'a str)> {
        let Self { project, function, version, .. } = self;
        vec![("project", project), ("function", function), ("version", version), more]
    }
}

impl Rows {
    /// Instances by state.
    pub(super) fn instances(&self) -> impl Iterator<Item = Series<'_>> {
        self.rows.iter().flat_map(|row| {
            INSTANCE_STATES
                .iter()
                .zip(row.seen.instances)
                .map(|(state, count)| (row.labels(("state", state)), count))
        })
    }

    /// Requests that run and that wait.
    pub(super) fn requests(&self) -> impl Iterator<Item = Series<'_>> {
        self.rows.iter().flat_map(|row| {
            [("running", row.seen.running), ("waiting", row.seen.waiting)]
                .map(|(state, count)| (row.labels(("state", state)), count))
        })
    }

    /// Requests that settled, by outcome.
    pub(super) fn settled(&self) -> impl Iterator<Item = Series<'_>> {
        self.rows.iter().flat_map(|row| {
            OUTCOMES
                .iter()
                .zip(row.seen.settled)
                .map(|(outcome, count)| (row.labels(("outcome", outcome)), count))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(names: impl Iterator<Item = usize>) -> Census {
        let function = |number: usize| FunctionCensus {
            function: FunctionKey {
                project: "p".into(),
                package: "default".into(),
                name: format!("f{number:04}"),
                version: store::LATEST.into(),
            },
            instances: [1; 5],
            running: 2,
            waiting: 3,
            settled: [1; 6],
        };
        Census {
            functions: names.map(function).collect(),
            live: 0,
            draining: false,
            unwritten: 0,
            event_bytes: 0,
            max_event_bytes: 0,
            max_instances: 0,
            quarantined: 0,
            log_lines_lost: 0,
            leafless: false,
            at_ms: 0,
        }
    }

    #[test]
    fn the_first_functions_keep_their_series_and_the_rest_is_counted_together() {
        let mut named = Named::default();
        let all = named.rows(&census(1..1 + MAX_FUNCTIONS));
        assert_eq!((all.rows.len(), all.beyond), (MAX_FUNCTIONS, 0));
        // Two more, one of which comes before the others in the order of names.
        let more = named.rows(&census(0..2 + MAX_FUNCTIONS));
        assert_eq!((more.rows.len(), more.beyond), (MAX_FUNCTIONS + 1, 2));
        assert_eq!(more.rows[0].function, "default:f0001", "whoever was there first stays");
        let others = more.rows.last().unwrap();
        assert_eq!(
            (others.function.as_str(), others.seen.running, others.seen.instances[0]),
            ("others", 4, 2)
        );
        let fewer = named.rows(&census(1 + MAX_FUNCTIONS..2 + MAX_FUNCTIONS));
        assert_eq!((fewer.rows.len(), fewer.beyond), (1, 0), "what is gone makes room");
        assert_eq!(fewer.instances().count() + fewer.requests().count() + fewer.settled().count(), 13);
    }
}
