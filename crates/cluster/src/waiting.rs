//! A cancel that reaches over nodes, as the node sees it that was asked: what it still waits for, and what it may answer.

use std::collections::{BTreeMap, BTreeSet};

use cancel::RequestId;

/// How the parts came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A fence found the request, and who owns what of it.
    Owners,
    /// The store did not know the request: every other node is asked whether it has it.
    Around,
}

/// What became of a part. The order is how far it got: of two tellings of one part the later one here counts, whichever
/// came first. For each is true from when it was told on but for those that a later one overtakes: what was unkillable
/// may die, what was draining ends, and what ended stays ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartState {
    /// Not reported yet.
    Open,
    /// It could not be killed within the limit.
    Unkillable,
    /// Settled and fenced; code may still run on a draining instance.
    Draining,
    /// The node does not hold the request.
    NotHere,
    /// The node is fenced and its lease over: it stopped what it ran within its lease, or is dead.
    NodeLost,
    /// It had ended by itself.
    Finished,
    /// Proven: nothing of it runs.
    Stopped,
}

/// One part, as a row of the database says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartNews {
    /// The part's number.
    pub part: i64,
    /// Whose part it is.
    pub node: String,
    /// What is to be stopped there.
    pub request: RequestId,
    /// What became of it.
    pub state: PartState,
}

/// How a cancel ended, the worst of its parts. The order is from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// No node has it, and none was lost that could have had it.
    Unknown,
    /// It had ended by itself before anybody could stop it.
    Finished,
    /// Nothing of it runs anywhere.
    Stopped,
    /// Everything is fenced; code still runs on draining instances.
    Draining,
    /// Something could not be killed.
    Unkillable,
}

/// What the asker may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The worst of all parts.
    pub outcome: Outcome,
    /// Nodes whose part is stopped because their lease is over, not because they said so: the receipt names them.
    pub lost: Vec<String>,
}

/// A cancel whose parts are with other nodes. Holds one entry for each part.
#[derive(Clone, Debug)]
pub struct Waiting {
    asked: Asked,
    parts: BTreeMap<i64, (String, PartState)>,
}

impl Waiting {
    /// A cancel with the parts that its fence, or its asking around, made. With none it is done at once.
    pub fn new(asked: Asked, parts: impl IntoIterator<Item = PartNews>) -> Self {
        let mut waiting = Self { asked, parts: BTreeMap::new() };
        parts.into_iter().for_each(|news| waiting.hear(news));
        waiting
    }

    /// Takes in a row. The same row again, and an older one after a newer one, change nothing; a part not heard of
    /// before is waited for as well.
    pub fn hear(&mut self, news: PartNews) {
        let (_, state) = self.parts.entry(news.part).or_insert((news.node, PartState::Open));
        *state = news.state.max(*state);
    }

    /// Which nodes have not reported all their parts.
    pub fn waits_for(&self) -> BTreeSet<&str> {
        let open = self.parts.values().filter(|(_, state)| *state == PartState::Open);
        open.map(|(node, _)| node.as_str()).collect()
    }

    /// What may be answered; `None` while a part is open.
    pub fn done(&self) -> Option<Done> {
        let states = || self.parts.values().map(|(_, state)| *state);
        if states().any(|state| state == PartState::Open) {
            return None;
        }
        // Asked around, the best that any node says of it is that it is not there. Of what a fence found it is that
        // nothing runs: the fence had seen it not over, and whatever has become of it since, it is over now.
        let least = match self.asked {
            Asked::Owners => Outcome::Stopped,
            Asked::Around => Outcome::Unknown,
        };
        let outcome = states().map(Outcome::of).max().unwrap_or(least).max(least);
        let lost = self.parts.values().filter(|(_, state)| *state == PartState::NodeLost);
        let lost: BTreeSet<&String> = lost.map(|(node, _)| node).collect();
        Some(Done { outcome, lost: lost.into_iter().cloned().collect() })
    }
}

impl Outcome {
    /// What one part that is reported says.
    fn of(state: PartState) -> Self {
        match state {
            PartState::NotHere => Self::Unknown,
            PartState::Finished => Self::Finished,
            PartState::Stopped | PartState::NodeLost => Self::Stopped,
            PartState::Draining => Self::Draining,
            PartState::Open | PartState::Unkillable => Self::Unkillable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PartState::*;
    use proptest::prelude::*;

    fn news(part: i64, state: PartState) -> PartNews {
        PartNews { part, node: format!("node{}", part % 3), request: RequestId(1), state }
    }

    fn outcome(asked: Asked, states: &[PartState]) -> Option<Outcome> {
        let parts = (0..).zip(states).map(|(part, state)| news(part, *state));
        Waiting::new(asked, parts).done().map(|done| done.outcome)
    }

    #[test]
    fn a_cancel_ends_as_the_worst_of_its_parts() {
        for (asked, states, expected) in [
            (Asked::Owners, &[][..], Some(Outcome::Stopped)),
            (Asked::Owners, &[Open], None),
            (Asked::Owners, &[Stopped, Open], None),
            (Asked::Owners, &[Unkillable, Open], None),
            (Asked::Owners, &[Stopped, Stopped], Some(Outcome::Stopped)),
            (Asked::Owners, &[Stopped, NodeLost], Some(Outcome::Stopped)),
            (Asked::Owners, &[Stopped, Draining], Some(Outcome::Draining)),
            (Asked::Owners, &[Draining, Unkillable, Stopped], Some(Outcome::Unkillable)),
            (Asked::Owners, &[NotHere], Some(Outcome::Stopped)),
            (Asked::Owners, &[Finished], Some(Outcome::Stopped)),
            (Asked::Around, &[], Some(Outcome::Unknown)),
            (Asked::Around, &[NotHere, NotHere], Some(Outcome::Unknown)),
            (Asked::Around, &[NotHere, Open], None),
            (Asked::Around, &[NotHere, Finished], Some(Outcome::Finished)),
            (Asked::Around, &[NotHere, Stopped], Some(Outcome::Stopped)),
            (Asked::Around, &[Finished, Stopped], Some(Outcome::Stopped)),
            (Asked::Around, &[NotHere, NodeLost], Some(Outcome::Stopped)),
            (Asked::Around, &[NotHere, Draining], Some(Outcome::Draining)),
        ] {
            assert_eq!(outcome(asked, states), expected, "{asked:?} {states:?}");
        }
    }

    #[test]
    fn who_is_waited_for_and_who_was_lost_is_named_once() {
        let mut waiting = Waiting::new(Asked::Owners, (0..6).map(|part| news(part, Open)));
        assert_eq!(waiting.waits_for(), BTreeSet::from(["node0", "node1", "node2"]));
        for part in [0, 1, 4] {
            waiting.hear(news(part, NodeLost));
        }
        assert_eq!(waiting.waits_for(), BTreeSet::from(["node0", "node2"]));
        for part in [2, 3, 5] {
            waiting.hear(news(part, Stopped));
        }
        let lost = vec!["node0".to_owned(), "node1".to_owned()];
        assert_eq!(waiting.done(), Some(Done { outcome: Outcome::Stopped, lost }));
    }

    #[test]
    fn a_part_that_is_heard_of_late_is_waited_for() {
        let mut waiting = Waiting::new(Asked::Owners, [news(1, Stopped)]);
        assert!(waiting.done().is_some());
        waiting.hear(news(2, Open));
        assert_eq!(waiting.done(), None);
        assert_eq!(waiting.waits_for(), BTreeSet::from(["node2"]));
    }

    fn any_state() -> impl Strategy<Value = PartState> {
        prop::sample::select(vec![Open, Unkillable, Draining, NotHere, NodeLost, Finished, Stopped])
    }

    proptest! {
        #[test]
        fn neither_the_order_nor_the_repetition_of_news_changes_the_result(
            told in prop::collection::vec((0_i64..8, any_state()), 0..40),
            shuffle in prop::collection::vec(any::<prop::sample::Index>(), 40),
            around: bool,
        ) {
            let asked = if around { Asked::Around } else { Asked::Owners };
            let in_order = Waiting::new(asked, told.iter().map(|(part, state)| news(*part, *state)));
            let mut other = Waiting::new(asked, []);
            let mut left = told.clone();
            for at in shuffle.iter().take(told.len()) {
                let (part, state) = left.swap_remove(at.index(left.len()));
                other.hear(news(part, state));
                let (part, state) = told[at.index(told.len())];
                other.hear(news(part, state));
            }
            prop_assert_eq!(in_order.done(), other.done());
            prop_assert_eq!(in_order.waits_for(), other.waits_for());
            prop_assert_eq!(in_order.done().is_none(), !in_order.waits_for().is_empty());
        }
    }
}
