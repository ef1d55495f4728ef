//! The cancellation-latency harness: every figure beside its floor, measured in the same run.
//!
//! `cargo build --release --workspace && target/release/quell-bench` measures on this machine; the
//! second word `--quick` takes a tenth of the samples. Ratios travel between machines, times do not.
#![allow(clippy::print_stdout)] // its output is its purpose

mod engine;
mod group;
mod http;
mod samples;

use samples::Samples;

/// Samples of each figure.
const FULL: usize = 300;
const QUICK: usize = 30;

fn main() -> anyhow::Result<()> {
    let quick = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--quick") => true,
        Some(other) => anyhow::bail!("{other:?} is not understood; the one option is --quick"),
    };
    let count = if quick { QUICK } else { FULL };
    println!("{:<58} {:>10} {:>10} {:>8}", format!("{count} samples, times in us"), "median", "p99", "ratio");
    let mut last_floor = None;
    let mut show = |name: &str, samples: &Samples, is_floor: bool| {
        let median = samples.percentile(50);
        if is_floor {
            last_floor = Some(median);
        }
        let ratio = last_floor.map_or(f64::NAN, |floor| median / floor);
        println!("{name:<58} {median:>10.1} {:>10.1} {ratio:>8.2}", samples.percentile(99));
    };
    engine::measure(count, &mut show);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(group::measure(count, &mut show))?;
    runtime.block_on(http::measure(count, &mut show))
}
