//! What happens to several nodes and their database in one round, drawn from the seed and nothing else.

use std::time::Duration;

use crate::draw::Draw;

/// Of each node. Short, so that rounds are; long enough that a busy machine does not lose it every other round.
pub const LEASE: Duration = Duration::from_secs(3);
/// What happens begins within this time from the beginning of the calls.
const WITHIN_MS: u64 = 1_100;
/// An answer that is waited for is the first, or the second, ... or at most this one.
const AT_MOST_AT_ANSWER: u64 = 24;
/// Longer than a lease by this: other nodes have found it over by then, or find it over while this ends.
const BEYOND_LEASE_MS: (u64, u64) = (500, 2_000);
/// What is over before anybody's lease is.
const SHORT_MS: u64 = 400;
/// A node that is killed while it starts again lives at most this long.
const STILLBORN_WITHIN_MS: u64 = 250;
/// Streams of the same seed that have nothing to do with each other: this one is not that of [`crate::plan`].
const STREAM: u64 = 0x6E6F_6465_735F_3033;
/// Calls and their cancels are spread out so much where something lasts longer than a lease: some come before it, some
/// meanwhile, some when others take over.
const SPREAD: u32 = 6;

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long after the calls began.
    After(Duration),
    /// Right after the answer of this number, or at the latest then.
    AtAnswer(u64, Duration),
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of these nodes at once, and their start.
    Kill {
        /// Which.
        nodes: Vec<usize>,
        /// How long they are gone.
        gone: Duration,
        /// The first life after that is killed so long after its start.
        stillborn: Option<Duration>,
    },
    /// SIGSTOP, for longer than its lease, and SIGCONT.
    Sleep(usize, Duration),
    /// SIGTERM, and a start so long after its end.
    Leave(usize, Duration),
    /// The database server loses what it had in memory, as by a loss of power, and is started again.
    Database(Duration),
}

/// One round's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// What.
    pub fault: Fault,
    /// When.
    pub moment: Moment,
    /// The round ends when nothing waits or runs any more: without such rounds more and more would be left over.
    pub until_idle: bool,
}

impl Trial {
    /// That of the round of this number under this seed, for so many nodes.
    #[must_use]
    pub fn draw(seed: u64, round: u64, nodes: usize) -> Self {
        let mut draw = Draw::of(seed ^ STREAM, round);
        let any = |draw: &mut Draw| draw.below(nodes);
        let fault = match draw.between(1, 100) {
            1..=45 => {
                let kills = draw.weighted(&[(50, 1), (30, 2.min(nodes)), (20, nodes)]);
                let first = any(&mut draw);
                let nodes = (0..kills).map(|next| (first + next) % nodes).collect();
                let stillborn = draw.percent(20).then(|| draw.ms(0, STILLBORN_WITHIN_MS));
                Fault::Kill { nodes, gone: lasting(&mut draw, 60), stillborn }
            }
            46..=66 => Fault::Sleep(any(&mut draw), lasting(&mut draw, 0)),
            67..=78 => Fault::Leave(any(&mut draw), lasting(&mut draw, 80)),
            _ => Fault::Database(lasting(&mut draw, 65)),
        };
        let moment = match draw.percent(40) {
            true => Moment::AtAnswer(draw.between(1, AT_MOST_AT_ANSWER), draw.ms(400, WITHIN_MS)),
            false => Moment::After(draw.ms(0, WITHIN_MS)),
        };
        Self { fault, moment, until_idle: draw.percent(15) }
    }

    /// How much longer than with one node calls and their cancels take to come.
    #[must_use]
    pub fn spread(&self) -> u32 {
        let (Fault::Kill { gone: lasts, .. }
        | Fault::Sleep(_, lasts)
        | Fault::Leave(_, lasts)
        | Fault::Database(lasts)) = self.fault;
        if lasts > LEASE { SPREAD } else { 1 }
    }
}

/// Over before a lease is, so many times in a hundred; else longer than one.
fn lasting(draw: &mut Draw, short: u64) -> Duration {
    match draw.percent(short) {
        true => draw.ms(0, SHORT_MS),
        false => LEASE + draw.ms(BEYOND_LEASE_MS.0, BEYOND_LEASE_MS.1),
    }
}

/// The number by which a client picks the node that it asks.
#[must_use]
pub fn whom(seed: u64, round: u64, client: u64) -> u64 {
    Draw::of(seed ^ STREAM.rotate_left(1) ^ client.wrapping_mul(STREAM), round).number()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_a_function_of_the_seed_and_of_every_kind() {
        let trials: Vec<Trial> = (0..200).map(|round| Trial::draw(1, round, 3)).collect();
        assert_eq!(trials, (0..200).map(|round| Trial::draw(1, round, 3)).collect::<Vec<_>>());
        assert_ne!(trials[0], Trial::draw(2, 0, 3));
        let some = |which: &dyn Fn(&Trial) -> bool| trials.iter().any(which);
        for count in 1..=3 {
            assert!(some(&|trial| matches!(&trial.fault, Fault::Kill { nodes, .. } if nodes.len() == count)));
        }
        assert!(some(&|trial| matches!(trial.fault, Fault::Kill { stillborn: Some(_), .. })));
        assert!(some(&|trial| matches!(trial.fault, Fault::Leave(..))));
        for long in [true, false] {
            assert!(some(&|trial| matches!(trial.fault, Fault::Database(gone) if (gone > LEASE) == long)));
        }
        for node in 0..3 {
            assert!(some(&|trial| matches!(trial.fault, Fault::Sleep(which, _) if which == node)));
        }
        assert!(some(&|trial| trial.until_idle));
        assert!(trials.iter().all(|trial| match &trial.fault {
            Fault::Sleep(_, lasts) => *lasts > LEASE && trial.spread() > 1,
            Fault::Kill { nodes, .. } => nodes.iter().all(|node| *node < 3),
            Fault::Leave(node, _) => *node < 3,
            Fault::Database(_) => true,
        }));
    }

    #[test]
    fn clients_are_spread_over_all_nodes() {
        let picked: std::collections::HashSet<u64> = (0..40).map(|client| whom(1, 1, client) % 3).collect();
        assert_eq!(picked.len(), 3);
        assert_eq!(whom(1, 1, 1), whom(1, 1, 1));
    }
}
