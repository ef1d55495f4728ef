//! The engine alone: what a cancel costs per request of its scope, from a hundred to a million, and how long
//! somebody else's event waits behind it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use cancel::{
    Answer, Attempt, Bounds, CancelAsk, CancelId, Cause, Effect, Engine, Event, InstanceId, Level, Policy,
    RequestId, Scope, Ticket,
};

/// Requests below the one that is cancelled, itself included.
pub(super) const SIZES: [u128; 5] = [100, 1_000, 10_000, 100_000, 1_000_000];

/// What one recursive cancel took.
pub(super) struct Taken {
    /// From the ask to its last slice, nothing else between.
    pub(super) whole: Duration,
    /// The longest step: so long an event that arrives meanwhile waits at most, before its own.
    pub(super) longest: Duration,
    /// The longest that an unrelated event took from its arrival to its effects, one of them after each slice.
    pub(super) unrelated: Duration,
}

/// The parent of each request; the first has none.
fn parent(shape: &str, id: u128) -> Option<u128> {
    (id > 0).then(|| match shape {
        "wide" => 0,
        // As deep as a tree may be, and then beside it.
        "deep" if id % 64 == 0 => 0,
        "deep" => id - 1,
        _ => (id - 1) / 4,
    })
}

/// An engine with such a tree, all of it waiting, and one unrelated request that runs on an instance.
fn planted(shape: &str, size: u128) -> Engine {
    let most = u32::try_from(size + 2).unwrap_or(u32::MAX);
    let bounds = Bounds { max_below_root: most, max_live: most, ..Bounds::default() };
    let (mut engine, mut out) = (Engine::new(bounds), Vec::new());
    for id in 0..size {
        let (request, parent) = (RequestId(id), parent(shape, id).map(RequestId));
        engine.step(Event::Arrived { request, parent, detached: false, policy: Policy::default() }, &mut out);
        assert!(matches!(out[..], [Effect::Accept { .. }]), "{out:?}");
        out.clear();
    }
    engine.step(Event::InstanceStarted { instance: STRANGER_ON, capacity: 1 }, &mut out);
    engine.step(Event::InstanceReady(STRANGER_ON), &mut out);
    engine
}

const STRANGER_ON: InstanceId = InstanceId(1);
/// Ids of the requests of others, above all of the tree.
const STRANGERS: u128 = 1 << 100;

/// One invocation of somebody else, from its arrival to its result: four events.
fn stranger(engine: &mut Engine, number: u128, out: &mut Vec<Effect>) {
    let (request, instance) = (RequestId(STRANGERS + number), STRANGER_ON);
    engine.step(Event::Arrived { request, parent: None, detached: false, policy: Policy::default() }, out);
    engine.step(Event::Placed { request, instance }, out);
    engine.step(Event::Taken { request, instance }, out);
    let (attempt, answer) = (Attempt(1), Answer::Returned);
    engine.step(Event::Answered { request, instance, attempt, answer }, out);
}

fn ask() -> Event {
    Event::CancelAsked(CancelAsk {
        cancel: CancelId(1),
        request: RequestId(0),
        scope: Scope::Subtree,
        level: Level::Kill,
        cause: Cause::Asked,
        ticket: Some(Ticket(1)),
        early: false,
    })
}

/// Cancels a whole tree. The effects are dropped slice by slice, as a shell that carries them out does.
pub(super) fn cancel(shape: &str, size: u128) -> Taken {
    let mut engine = planted(shape, size);
    let (mut out, mut settled) = (Vec::new(), 0);
    let mut longest = Duration::ZERO;
    let begin = Instant::now();
    let mut event = ask();
    loop {
        let step = Instant::now();
        engine.step(event, &mut out);
        longest = longest.max(step.elapsed());
        settled += out.iter().filter(|effect| matches!(effect, Effect::Settle { .. })).count() as u128;
        out.clear();
        if !engine.unfinished() {
            break;
        }
        event = Event::WalkOn;
    }
    let whole = begin.elapsed();
    assert_eq!(settled, size, "every request is settled");
    drop(black_box(engine));

    let mut engine = planted(shape, size);
    let (mut unrelated, mut number) = (Duration::ZERO, 0);
    let mut event = ask();
    loop {
        // It arrives as the slice begins, and its turn is after it.
        let arrived = Instant::now();
        engine.step(event, &mut out);
        stranger(&mut engine, number, &mut out);
        unrelated = unrelated.max(arrived.elapsed());
        number += 1;
        out.clear();
        if !engine.unfinished() {
            break;
        }
        event = Event::WalkOn;
    }
    Taken { whole, longest, unrelated }
}

pub(crate) fn probe() {
    for shape in ["wide", "deep", "mixed"] {
        for size in SIZES {
            let times: Vec<Taken> = (0..5).map(|_| cancel(shape, size)).collect();
            let least = times.iter().map(|taken| taken.whole).min().unwrap_or_default();
            let longest = times.iter().map(|taken| taken.longest).min().unwrap_or_default();
            let unrelated = times.iter().map(|taken| taken.unrelated).min().unwrap_or_default();
            println!("{shape:>6} {size:>8} {:>8.1} ns/request; longest {longest:?}, unrelated {unrelated:?}", least.as_nanos() as f64 / size as f64);
        }
    }
}
