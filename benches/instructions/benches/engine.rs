//! Instructions of the engine, counted by valgrind: they do not move with what else a machine does.
//! `.ci/instructions` runs this and compares with `benches/baseline.txt`.
#![allow(missing_docs, clippy::exit)] // what the macros make

#[path = "../../benches/trees/mod.rs"]
mod trees;

use std::hint::black_box;

use cancel::RequestId;
use gungraun::{library_benchmark, library_benchmark_group, main};

use trees::{Bench, Shape};

#[library_benchmark]
#[bench::wide_100(Bench::queued(Shape::Wide, 100))]
#[bench::wide_1000(Bench::queued(Shape::Wide, 1_000))]
#[bench::wide_10000(Bench::queued(Shape::Wide, 10_000))]
#[bench::deep_1000(Bench::queued(Shape::Deep, 1_000))]
#[bench::deep_10000(Bench::queued(Shape::Deep, 10_000))]
#[bench::mixed_1000(Bench::queued(Shape::Mixed, 1_000))]
#[bench::mixed_10000(Bench::queued(Shape::Mixed, 10_000))]
#[bench::mixed_100000(Bench::queued(Shape::Mixed, 100_000))]
fn cancel_queued(mut bench: Bench) -> Bench {
    bench.cancel_all();
    black_box(bench)
}

#[library_benchmark]
#[bench::wide_1000(Bench::running(Shape::Wide, 1_000))]
#[bench::mixed_1000(Bench::running(Shape::Mixed, 1_000))]
fn cancel_running(mut bench: Bench) -> Bench {
    bench.cancel_and_reap(1_000);
    black_box(bench)
}

#[library_benchmark]
#[bench::of_1000(Bench::empty(1_000))]
fn arrive_and_settle(mut bench: Bench) -> Bench {
    bench.arrive_and_settle(1_000);
    black_box(bench)
}

#[library_benchmark]
#[bench::mixed_10000(Bench::running(Shape::Mixed, 10_000))]
fn plan(bench: Bench) -> Bench {
    black_box(bench.plan_all());
    black_box(bench)
}

#[library_benchmark]
#[bench::request("1167bf8c-87b0-43ab-8f5f-26b16c64f252")]
fn parse_id(text: &str) -> Option<RequestId> {
    RequestId::parse(black_box(text))
}

library_benchmark_group!(
    name = engine,
    benchmarks = [cancel_queued, cancel_running, arrive_and_settle, plan, parse_id]
);
main!(library_benchmark_groups = engine);
