//! What one round does: calls, cancels and the end of the life, drawn from the seed and nothing else.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{draw::Draw, weather::Turn};

/// Calls of one round.
const CALLS: (u64, u64) = (6, 14);
/// Calls are spread over this time from the moment the node listens.
const CALLS_WITHIN_MS: u64 = 600;
/// Cancels come this long after the 202 of what they cancel.
const CANCEL_WITHIN_MS: u64 = 350;
/// Cancels of requests of earlier rounds, which the node took over from a life that was killed.
const OLDER_CANCELS: u64 = 6;
/// So many acknowledged calls back at most; further back all has ended.
const OLDER_BACK: u64 = 8;
/// The node is killed within this time from the moment it listens.
const KILL_WITHIN_MS: u64 = 1_100;
/// A kill on an answer waits for the first, or the second, ... or at most this one.
const KILL_AT_MOST_AT_ANSWER: u64 = 24;
/// A node that is killed while it starts lives at most this long.
const STILLBORN_WITHIN_MS: u64 = 120;
/// Levels of a call tree below its root, and children of one request.
const MAX_DEPTH: u32 = 3;
const MAX_WIDTH: u64 = 3;
/// Requests of one call tree.
const MAX_TREE: usize = 8;

/// One round.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// Before the life that serves: lives that are killed this long after their start.
    pub stillborn: Vec<Duration>,
    /// What is invoked.
    pub calls: Vec<Call>,
    /// Cancels of requests of earlier rounds.
    pub older: Vec<OlderCancel>,
    /// How the life ends.
    pub end: End,
    /// What disk and clock do meanwhile.
    pub weather: Option<Turn>,
}

/// One asynchronous invocation, and who cancels it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// When, from the moment the node listens.
    pub at: Duration,
    /// Which of [`FUNCTIONS`].
    pub function: &'static str,
    /// See `function.py`.
    pub event: Value,
    /// Each from a client of its own.
    pub cancels: Vec<Cancel>,
}

/// One cancel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cancel {
    /// When, from the 202 of the call.
    pub after: Duration,
    /// What.
    pub target: Target,
    /// How.
    pub mode: Mode,
}

/// A cancel of what an earlier life accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OlderCancel {
    /// When, from the moment the node listens.
    pub at: Duration,
    /// Which: this many acknowledged calls back.
    pub back: u64,
    /// Only calls of trees are counted.
    pub trees: bool,
    /// What.
    pub target: Target,
    /// How.
    pub mode: Mode,
}

/// What of a call tree is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Its root.
    Root,
    /// One of those known below it by then; the number picks.
    Below(u64),
}

/// The ways to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// No type.
    Plain,
    /// The whole subtree.
    Recursive,
    /// By force.
    Force,
    /// The whole subtree by force.
    Both,
    /// No type, and answered as soon as it is fenced and recorded.
    Early,
}

impl Mode {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Recursive, Self::Force, Self::Both, Self::Early];

    /// Whether everything below is meant too.
    #[must_use]
    pub fn is_recursive(self) -> bool {
        matches!(self, Self::Recursive | Self::Both)
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// SIGKILL at a moment.
    Kill(Duration),
    /// SIGKILL right after the answer of this number to a call or a cancel, or at the latest then: what
    /// was just promised is the youngest thing on the disk.
    KillAtAnswer(u64, Duration),
    /// SIGKILL when nothing waits or runs any more, and not before this time. Without such lives more and
    /// more would be left over, and in the end a life would do nothing but start what others had begun.
    KillIdle(Duration),
    /// SIGTERM at a moment, and a second one never.
    Term(Duration),
}

/// The functions, and how each is deployed: requests of an instance, most instances.
pub const FUNCTIONS: [(&str, u32, u32); 3] = [("solo", 1, 4), ("shared", 3, 2), ("tree", 1, 12)];

impl Round {
    /// The round of this number under this seed.
    #[must_use]
    pub fn draw(seed: u64, round: u64) -> Self {
        let mut draw = Draw::of(seed, round);
        let stillborn = match draw.between(1, 100) {
            1..=78 => 0,
            79..=94 => 1,
            _ => 2,
        };
        let stillborn = (0..stillborn).map(|_| draw.ms(0, STILLBORN_WITHIN_MS)).collect();
        let calls = (0..draw.between(CALLS.0, CALLS.1)).map(|_| call(&mut draw)).collect();
        let older = (0..draw.between(0, OLDER_CANCELS))
            .map(|_| OlderCancel {
                at: draw.ms(0, KILL_WITHIN_MS / 2),
                back: draw.between(0, OLDER_BACK),
                trees: draw.percent(50),
                target: target(&mut draw),
                mode: mode(&mut draw),
            })
            .collect();
        let end = match draw.between(1, 100) {
            1..=12 => End::KillIdle(Duration::from_millis(KILL_WITHIN_MS)),
            13..=54 => End::Kill(draw.ms(0, KILL_WITHIN_MS)),
            55..=88 => {
                End::KillAtAnswer(draw.between(1, KILL_AT_MOST_AT_ANSWER), draw.ms(400, KILL_WITHIN_MS))
            }
            _ => End::Term(draw.ms(50, KILL_WITHIN_MS)),
        };
        let weather = Turn::draw(&mut draw, CALLS_WITHIN_MS).filter(|_| round > 0); // it is set up in the first
        Self { stillborn, calls, older, end, weather }
    }
}

fn call(draw: &mut Draw) -> Call {
    let mut at = draw.ms(0, CALLS_WITHIN_MS);
    let (function, deed) = draw.weighted(&[
        (26, ("solo", "work")),
        (6, ("solo", "fail")),
        (6, ("solo", "setsid")),
        (5, ("solo", "stubborn")),
        (20, ("shared", "work")),
        (4, ("shared", "setsid")),
        (3, ("shared", "stubborn")),
        (30, ("tree", "work")),
    ]);
    let event = match function {
        "tree" => {
            let shape = draw.weighted(&[(50, Shape::Any), (50, Shape::Lopsided)]);
            if shape == Shape::Lopsided {
                at /= 8; // it takes its time to get lopsided
            }
            tree(draw, shape, MAX_DEPTH, &mut (MAX_TREE - 1))
        }
        _ => json!({ "do": deed, "ms": lasting(draw) }),
    };
    let mut cancels = Vec::new();
    if draw.percent(60) {
        cancels.push(cancel(draw));
        // Several ask at about the same time: they join, or raise what is under way.
        while draw.percent(20) {
            cancels.push(cancel(draw));
        }
    }
    Call { at, function, event, cancels }
}

/// Who of a tree works for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Anybody for any time.
    Any,
    /// Root and leaves over more than one life, those between hardly at all: when the node is killed, what
    /// held the tree together has ended and its ends have not.
    Lopsided,
}

/// How long something works: mostly short, some of it over more than one life.
fn lasting(draw: &mut Draw) -> u64 {
    let (low, high) = draw.weighted(&[(45, (5, 60)), (38, (100, 600)), (17, (800, 2_000))]);
    draw.between(low, high)
}

/// A request of a tree with what it invokes; `left` is how many more the tree may have.
fn tree(draw: &mut Draw, shape: Shape, depth: u32, left: &mut usize) -> Value {
    let mut children = Vec::new();
    let width = if depth == 0 { 0 } else { draw.between(u64::from(depth == MAX_DEPTH), MAX_WIDTH) };
    for _ in 0..width {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let how = draw.weighted(&[(75, "child"), (17, "sync"), (8, "detached")]);
        let function = draw.weighted(&[(80, "tree"), (10, "solo"), (10, "shared")]);
        let event = tree(draw, shape, depth - 1, left);
        children.push(json!({ "how": how, "function": function, "event": event }));
    }
    let ms = match shape {
        Shape::Any => lasting(draw),
        Shape::Lopsided if depth == MAX_DEPTH || children.is_empty() => draw.between(800, 2_000),
        Shape::Lopsided => draw.between(0, 20),
    };
    json!({ "do": "work", "ms": ms, "children": children })
}

fn cancel(draw: &mut Draw) -> Cancel {
    Cancel { after: draw.ms(0, CANCEL_WITHIN_MS), target: target(draw), mode: mode(draw) }
}

fn target(draw: &mut Draw) -> Target {
    let number = draw.number();
    if draw.percent(35) { Target::Below(number) } else { Target::Root }
}

fn mode(draw: &mut Draw) -> Mode {
    draw.weighted(&[
        (25, Mode::Plain),
        (30, Mode::Recursive),
        (20, Mode::Force),
        (17, Mode::Both),
        (8, Mode::Early),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weather::Change;

    #[test]
    fn the_schedule_is_a_function_of_the_seed() {
        for round in 0..50 {
            assert_eq!(Round::draw(7, round), Round::draw(7, round));
        }
        assert_ne!(Round::draw(7, 0), Round::draw(8, 0));
        assert_ne!(Round::draw(7, 0), Round::draw(7, 1));
    }

    #[test]
    fn every_kind_of_thing_is_drawn() {
        let rounds: Vec<Round> = (0..200).map(|round| Round::draw(1, round)).collect();
        let ends = |which: fn(&End) -> bool| rounds.iter().any(|round| which(&round.end));
        assert!(ends(|end| matches!(end, End::Kill(_))));
        assert!(ends(|end| matches!(end, End::KillAtAnswer(..))));
        assert!(ends(|end| matches!(end, End::KillIdle(_))));
        assert!(ends(|end| matches!(end, End::Term(_))));
        assert!(rounds.iter().any(|round| round.stillborn.len() == 2));
        let turns = |which: fn(&Change) -> bool| {
            rounds.iter().filter_map(|round| round.weather).any(|turn| which(&turn.change))
        };
        assert!(turns(|change| matches!(change, Change::Failing(_))));
        assert!(turns(|change| matches!(change, Change::Slow(..))));
        assert!(turns(|change| matches!(change, Change::Clock(_))));
        let calls: Vec<&Call> = rounds.iter().flat_map(|round| &round.calls).collect();
        for mode in Mode::ALL {
            assert!(calls.iter().flat_map(|call| &call.cancels).any(|cancel| cancel.mode == mode));
        }
        let events: String = calls.iter().map(|call| call.event.to_string()).collect();
        for word in ["work", "fail", "setsid", "stubborn", "child", "sync", "detached"] {
            assert!(events.contains(&format!("\"{word}\"")), "{word}");
        }
    }
}
