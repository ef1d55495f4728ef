//! The cancellation-latency harness: every figure beside its floor, measured in the same run.
//!
//! `cargo build --release --workspace && target/release/quell-bench` measures on this machine; the
//! word `--quick` takes a tenth of the samples, `engine`, `group` or `http` measures that part alone. Ratios travel between machines, times do not.
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
    let (mut quick, mut part) = (false, None);
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--quick" => quick = true,
            "engine" | "group" | "http" => part = Some(word),
            _ => anyhow::bail!("{word:?} is not understood; there are --quick, engine, group and http"),
        }
    }
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
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
    if wanted("engine") {
        engine::measure(count, &mut show);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if wanted("group") {
        runtime.block_on(group::measure(count, &mut show))?;
    }
    if wanted("http") {
        runtime.block_on(http::measure(count, &mut show))?;
    }
    Ok(())
}
