//! The pure core: one recursive cancel of a whole tree, from the ask to its last effect.

use std::{hint::black_box, time::Instant};

use cancel::{Bounds, Engine, Event, OnCollateral, OnGrace, Policy, RequestId};

use crate::{
    ask::whole_tree,
    samples::{Samples, Show},
};

const REQUESTS: u128 = 10_000;
/// Children of each request.
const WIDTH: u128 = 4;

/// The parent of each request in a tree of this width; the first has none.
fn parent(id: u128) -> Option<u128> {
    (id > 0).then(|| (id - 1) / WIDTH)
}

pub(crate) fn measure(count: usize, show: &mut Show<'_>) {
    let (mut floor, mut fence) = (Samples::default(), Samples::default());
    for _ in 0..count {
        floor.add(walk());
        fence.add(cancel());
    }
    show("floor: walk 10,000 nodes linked by index, depth first", &floor, true);
    show("engine: recursive cancel of 10,000 queued requests", &fence, false);
}

/// A plain depth-first walk that writes one 64-byte effect a node: what no engine can undercut.
fn walk() -> std::time::Duration {
    let mut children: Vec<Vec<u32>> = vec![Vec::new(); REQUESTS as usize];
    for id in 1..REQUESTS {
        if let (Some(parent), Ok(id)) = (parent(id), u32::try_from(id)) {
            children[parent as usize].push(id);
        }
    }
    let mut out: Vec<[u64; 8]> = Vec::new();
    let start = Instant::now();
    let mut open = vec![0_u32];
    while let Some(id) = open.pop() {
        open.extend_from_slice(&children[id as usize]);
        out.push([u64::from(id); 8]);
    }
    let took = start.elapsed();
    black_box(out);
    took
}

fn cancel() -> std::time::Duration {
    let mut engine = Engine::new(Bounds::default());
    let mut out = Vec::new();
    let policy = Policy {
        on_grace: OnGrace::Drain,
        on_collateral: OnCollateral::Fail,
        asynchronous: true,
        retries: 0,
    };
    for id in 0..REQUESTS {
        let parent = parent(id).map(RequestId);
        engine.step(Event::Arrived { request: RequestId(id), parent, detached: false, policy }, &mut out);
    }
    out.clear();
    let start = Instant::now();
    engine.step(Event::CancelAsked(whole_tree(0)), &mut out);
    while engine.unfinished() {
        engine.step(Event::WalkOn, &mut out);
    }
    let took = start.elapsed();
    assert!(out.len() as u128 > 2 * REQUESTS, "every request is fenced and settled");
    black_box(out);
    took
}
