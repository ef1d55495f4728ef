//! Times of the pure parts: `cargo bench -p quell-bench --bench pure`. What must not grow is counted by
//! `benches/instructions`, which a busy machine does not disturb.
#![allow(missing_docs)] // the macros' functions

mod trees;

use std::hint::black_box;

use cancel::RequestId;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use trees::{Bench, Shape};

const SHAPES: [Shape; 3] = [Shape::Wide, Shape::Deep, Shape::Mixed];
const SIZES: [u128; 4] = [100, 1_000, 10_000, 100_000];

fn cancels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cancel of a subtree that waits");
    group.sample_size(10);
    for shape in SHAPES {
        for size in SIZES {
            group.throughput(Throughput::Elements(size as u64));
            group.bench_with_input(BenchmarkId::new(format!("{shape:?}"), size), &size, |bencher, size| {
                let tree = || Bench::queued(shape, *size);
                bencher.iter_batched_ref(tree, |bench| bench.cancel_all(), BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

fn others(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group.sample_size(10);
    group.bench_function("1,000 requests arrive, run and settle", |bencher| {
        bencher.iter_batched_ref(
            || Bench::empty(1_000),
            |bench| bench.arrive_and_settle(1_000),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("1,000 that run are killed and reaped", |bencher| {
        bencher.iter_batched_ref(
            || Bench::running(Shape::Mixed, 1_000),
            |bench| bench.cancel_and_reap(1_000),
            BatchSize::PerIteration,
        );
    });
    let tree = Bench::running(Shape::Mixed, 10_000);
    group.bench_function("the plan of a cancel of 10,000", |bencher| {
        bencher.iter(|| black_box(tree.plan_all()))
    });
    group.bench_function("an id is read", |bencher| {
        bencher.iter(|| RequestId::parse(black_box("1167bf8c-87b0-43ab-8f5f-26b16c64f252")));
    });
    group.finish();
}

criterion_group!(benches, cancels, others);
criterion_main!(benches);
