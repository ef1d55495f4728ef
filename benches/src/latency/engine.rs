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

/// An engine with such a tree, all of it waiting, and an instance for somebody else. And a place for effects
/// that has grown to what a slice needs, as a shell has it.
fn planted(shape: &str, size: u128) -> (Engine, Vec<Effect>) {
    let most = u32::try_from(size + 2).unwrap_or(u32::MAX);
    let bounds = Bounds { max_below_root: most, max_live: most, ..Bounds::default() };
    let (mut engine, mut out) = (Engine::new(bounds), vec![Effect::Drain(STRANGER_ON); 8 * SLICE]);
    out.clear();
    for id in 0..size {
        let (request, parent) = (RequestId(id), parent(shape, id).map(RequestId));
        engine.step(Event::Arrived { request, parent, detached: false, policy: Policy::default() }, &mut out);
        assert!(matches!(out[..], [Effect::Accept { .. }]), "{out:?}");
        out.clear();
    }
    engine.step(Event::InstanceStarted { instance: STRANGER_ON, capacity: 1 }, &mut out);
    engine.step(Event::InstanceReady(STRANGER_ON), &mut out);
    out.clear();
    (engine, out)
}

/// Effects of one slice come to a few times as many.
const SLICE: usize = 512;

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
    let (mut engine, mut out) = planted(shape, size);
    let mut settled = 0;
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

    let (mut engine, mut out) = planted(shape, size);
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
            println!(
                "{shape:>6} {size:>8} {:>8.1} ns/request; longest {longest:?}, unrelated {unrelated:?}",
                least.as_nanos() as f64 / size as f64
            );
        }
    }
}

pub(crate) async fn http_probe() -> anyhow::Result<()> {
    use reqwest::Method;
    use serde_json::json;
    let (node, bare) = (crate::node::BenchNode::start()?, super::floors::BareServer::start()?);
    let source = "import time\ndef handler(event, context):\n    time.sleep(300)\n";
    node.deploy("busy", source, json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } }))
        .await?;
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); 6];
    for _ in 0..400 {
        let mut add = |at: usize, took: Duration| times[at].push(took.as_secs_f64() * 1e6);
        add(0, bare.round_trip().await?);
        let path = "/v2/default/fgs/functions/busy/cancel";
        let begin = Instant::now();
        node.send(Method::GET, "/quell/v1/health", None).await?.bytes().await?;
        add(1, begin.elapsed());
        let begin = Instant::now();
        node.send(Method::POST, path, Some(json!({ "request_id": "x", "type": "force" })))
            .await?
            .bytes()
            .await?;
        add(2, begin.elapsed());
        let begin = Instant::now();
        node.send(Method::GET, "/quell/v1/requests/00000000-0000-4000-8000-000000000000", None)
            .await?
            .bytes()
            .await?;
        add(3, begin.elapsed());
        let begin = Instant::now();
        node.send(Method::POST, path, Some(json!({ "request_id": "00000000-0000-4000-8000-000000000000" })))
            .await?
            .bytes()
            .await?;
        add(4, begin.elapsed());
        add(5, bare.commit().await?);
    }
    for (name, times) in
        ["bare", "health", "bad id", "look", "cancel unknown", "bare commit"].iter().zip(&mut times)
    {
        times.sort_by(f64::total_cmp);
        println!("{name:>16} p10 {:.0} p50 {:.0} p90 {:.0}", times[40], times[200], times[360]);
    }
    Ok(())
}

pub(crate) async fn phase_probe(count: usize) -> anyhow::Result<()> {
    use reqwest::Method;
    use serde_json::json;
    let (node, bare) = (crate::node::BenchNode::start()?, super::floors::BareServer::start()?);
    let one = json!({ "strategy_config": { "concurrency": 4, "concurrent_num": 1 } });
    let source = "import time\ndef handler(event, context):\n    time.sleep(300)\n";
    node.deploy("sync", source, one.clone()).await?;
    let source = "import asyncio\nasync def handler(event, context):\n    await asyncio.sleep(300)\n";
    node.deploy("coroutine", source, one.clone()).await?;
    let (_dir, stub) = super::stops::stub()?;
    node.deploy_custom("stub", &std::fs::read(&stub)?, one.clone()).await?;
    for (function, kind) in [
        ("stub", json!({"type": "force"})),
        ("sync", json!({"type": "force"})),
        ("sync", json!({})),
        ("coroutine", json!({})),
    ] {
        let mut all: Vec<(&str, Vec<f64>)> = vec![
            ("took", Vec::new()),
            ("bare", Vec::new()),
            ("bare commit", Vec::new()),
            ("bad id", Vec::new()),
        ];
        for _ in 0..count {
            tokio::time::sleep(Duration::from_millis(30)).await;
            all[1].1.push(bare.round_trip().await?.as_secs_f64() * 1e6);
            tokio::time::sleep(Duration::from_millis(30)).await;
            all[2].1.push(bare.commit().await?.as_secs_f64() * 1e6);
            let id = node.running(function, &json!({})).await?;
            tokio::time::sleep(Duration::from_millis(30)).await;
            let begin = Instant::now();
            node.send(
                Method::POST,
                "/v2/default/fgs/functions/sync/cancel",
                Some(json!({ "request_id": "x", "type": "force" })),
            )
            .await?
            .bytes()
            .await?;
            all[3].1.push(begin.elapsed().as_secs_f64() * 1e6);
            tokio::time::sleep(Duration::from_millis(30)).await;
            let (took, cancel) = node.cancel(function, &id, &kind).await?;
            let receipt = node.send(Method::GET, &format!("/quell/v1/receipts/{cancel}"), None).await?;
            all[0].1.push(took.as_secs_f64() * 1e6);
            for (name, took) in super::stops::phases(took, &receipt.json().await?) {
                let took = took.as_secs_f64() * 1e6;
                match all.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, times)) => times.push(took),
                    None => all.push((name, vec![took])),
                }
            }
        }
        print!("{function} {kind}: ");
        for (name, times) in &mut all {
            times.sort_by(f64::total_cmp);
            print!("{name} {:.0}; ", times[times.len() / 2]);
        }
        println!();
    }
    Ok(())
}
