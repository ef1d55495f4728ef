//! The engine alone: what a cancel costs per request of its scope, from a hundred to a million, and how long
//! somebody else's event waits behind it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use cancel::{Answer, Attempt, Bounds, CancelId, Effect, Engine, Event, InstanceId, Policy, RequestId};

use super::{
    figure::{At, Figure, Found, Target, Title},
    measure::Effort,
    progress,
    values::Unit,
};
use crate::ask::whole_tree;

/// Requests below the one that is cancelled, itself included.
const SIZES: [u128; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];

/// The parent of each request; the first has none.
fn parent(shape: &str, id: u128) -> Option<u128> {
    (id > 0).then(|| match shape {
        "wide" => 0,
        // As deep as a tree may be, and then beside it.
        "deep" if id % 64 == 1 => 0,
        "deep" => id - 1,
        _ => (id - 1) / 4,
    })
}

/// An engine with an instance for somebody else, and a place for effects that has grown to what a slice needs,
/// as a shell has them.
fn begun(size: u128) -> (Engine, Vec<Effect>) {
    let most = u32::try_from(size + 2).unwrap_or(u32::MAX);
    let bounds = Bounds { max_below_root: most, max_live: most, ..Bounds::default() };
    let mut engine = Engine::new(bounds);
    let mut out = vec![Effect::Drain(STRANGER_ON); 8 * SLICE];
    engine.step(Event::InstanceStarted { instance: STRANGER_ON, capacity: 1 }, &mut out);
    engine.step(Event::InstanceReady(STRANGER_ON), &mut out);
    (engine, out)
}

/// Plants such a tree, all of it waiting, with ids from `first` on.
fn plant(engine: &mut Engine, out: &mut Vec<Effect>, shape: &str, size: u128, first: u128) {
    for id in 0..size {
        out.clear();
        let (request, parent) = (RequestId(first + id), parent(shape, id));
        let parent = parent.map(|parent| RequestId(first + parent));
        engine.step(Event::Arrived { request, parent, detached: false, policy: Policy::default() }, out);
        assert!(matches!(out[..], [Effect::Accept { .. }]), "{out:?}");
    }
    out.clear();
}

/// Effects of one slice come to a few times as many.
const SLICE: usize = 512;

const STRANGER_ON: InstanceId = InstanceId(1);
/// Ids of the requests of others, above all of the tree.
const STRANGERS: u128 = 1 << 100;

/// One invocation of somebody else, from its arrival to its result: four events.
fn stranger(engine: &mut Engine, number: u128, out: &mut Vec<Effect>) {
    let (request, instance) = (RequestId(number), STRANGER_ON);
    engine.step(Event::Arrived { request, parent: None, detached: false, policy: Policy::default() }, out);
    engine.step(Event::Placed { request, instance }, out);
    engine.step(Event::Taken { request, instance }, out);
    let (attempt, answer) = (Attempt(1), Answer::Returned);
    engine.step(Event::Answered { request, instance, attempt, answer }, out);
}

/// Cancels the whole tree from `first` on. The effects are dropped slice by slice, as a shell that carries them
/// out does.
fn cancel(engine: &mut Engine, out: &mut Vec<Effect>, size: u128, first: u128) -> Duration {
    let mut settled = 0;
    let begin = Instant::now();
    let mut event = Event::CancelAsked(whole_tree(first));
    loop {
        engine.step(event, out);
        settled += out.iter().filter(|effect| matches!(effect, Effect::Settle { .. })).count() as u128;
        out.clear();
        if !engine.unfinished() {
            break;
        }
        event = Event::WalkOn;
    }
    let took = begin.elapsed();
    assert_eq!(settled, size, "every request is settled");
    recorded(engine, out, first);
    took
}

/// The same with an invocation of somebody else after each slice, which arrived as the slice began. The longest
/// that one of them took from its arrival to its result.
fn cancel_beside(engine: &mut Engine, out: &mut Vec<Effect>, first: u128, strangers: &mut u128) -> Duration {
    let mut longest = Duration::ZERO;
    let mut event = Event::CancelAsked(whole_tree(first));
    loop {
        let arrived = Instant::now();
        engine.step(event, out);
        stranger(engine, *strangers, out);
        longest = longest.max(arrived.elapsed());
        *strangers += 1;
        out.clear();
        if !engine.unfinished() {
            break;
        }
        event = Event::WalkOn;
    }
    recorded(engine, out, first);
    longest
}

fn recorded(engine: &mut Engine, out: &mut Vec<Effect>, first: u128) {
    engine.step(Event::Recorded { cancel: CancelId(first + 1), record: 1, ok: true }, out);
    assert!(out.iter().any(|effect| matches!(effect, Effect::Close { .. })), "it is over");
    out.clear();
}

pub(super) fn measure(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    for shape in ["wide", "deep", "mixed"] {
        for size in SIZES {
            let (mut engine, mut out) = begun(size);
            let (mut each, mut unrelated) = (Vec::new(), Vec::new());
            let (mut first, mut strangers) = (0, STRANGERS);
            // The first one finds nothing of the engine's memory in use yet.
            for round in 0..=effort.rounds {
                progress::show(&format!("engine, {size} requests, {shape}"), round, effort.rounds);
                plant(&mut engine, &mut out, shape, size, first);
                let took = cancel(&mut engine, &mut out, size, first);
                first += size + 2;
                plant(&mut engine, &mut out, shape, size, first);
                let waited = cancel_beside(&mut engine, &mut out, first, &mut strangers);
                first += size + 2;
                if round > 0 {
                    each.push(took.as_nanos() as f64 / size as f64);
                    unrelated.push(waited.as_secs_f64() * 1e6);
                }
            }
            black_box(engine);
            found.figures.push(Figure::read(each_title(shape, size), &each)?);
            if size == SIZES[SIZES.len() - 1] {
                let what = format!("somebody else's invocation meanwhile, {size} {shape}");
                let title = Title::new(format!("engine.unrelated.{shape}"), what)
                    .goal(At::Max, Target::AtMost(2_000.0))
                    .noted(
                        "from its arrival as a slice begins to its result: five events of the engine alone",
                    );
                found.figures.push(Figure::read(title, &unrelated)?);
            }
        }
    }
    Ok(())
}

/// Twice as much per request where there are more than the tables of the processor's caches hold.
fn each_title(shape: &str, size: u128) -> Title {
    let most = if size > 100_000 { 300.0 } else { 150.0 };
    Title::new(format!("engine.{shape}.{size}"), format!("the engine, each of {size} requests, {shape}"))
        .counted_in(Unit::Nanos)
        .goal(At::Median, Target::AtMost(most))
        .placed("requests in scope", shape, size as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_is_cancelled_whole_one_tree_after_the_other_in_one_engine() {
        for shape in ["wide", "deep", "mixed"] {
            let (mut engine, mut out) = begun(2_000);
            let mut strangers = STRANGERS;
            for first in [0, 2_002, 4_004] {
                plant(&mut engine, &mut out, shape, 2_000, first);
                assert_eq!(engine.live(), 2_000, "{shape}");
                if first == 2_002 {
                    cancel_beside(&mut engine, &mut out, first, &mut strangers);
                } else {
                    cancel(&mut engine, &mut out, 2_000, first);
                }
                assert_eq!((engine.live(), engine.sizes().2), (0, 0), "{shape}");
            }
            assert!(strangers > STRANGERS + 3, "it went in slices");
        }
    }

    #[test]
    fn a_deep_tree_is_as_deep_as_one_may_be() {
        let mut depths = vec![0_u32; 200];
        for id in 1..200 {
            depths[id as usize] = depths[parent("deep", id).unwrap() as usize] + 1;
        }
        assert_eq!(depths.iter().max(), Some(&64));
    }
}
