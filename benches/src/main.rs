//! The cancellation-latency harness: every figure beside its floor, measured in the same run.
//!
//! `cargo run --release -p quell-bench -- latency` measures over HTTP and writes a report: docs/performance.md.
//!
//! Without that word it measures parts alone, for whoever changes them: `engine`, `group`, `accept`, `queue` or
//! `cold-start` (the last two only if they are named); `--quick` takes a tenth of the samples. Ratios travel
//! between machines, times do not.
#![allow(clippy::print_stdout, clippy::print_stderr)] // its output is its purpose

mod accept;
#[path = "../benches/trees/ask.rs"]
mod ask;
mod cold_start;
mod engine;
mod group;
mod latency;
mod node;
mod own;
mod queue;
mod samples;

use std::{io::Write as _, process::ExitCode};

use samples::Samples;

/// Samples of each figure.
const FULL: usize = 300;
const QUICK: usize = 30;
/// Requests that wait.
const QUEUED: u64 = 1_000_000;

/// One thread: what sends is not to take more of the machine than it must.
fn load_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

const USAGE: &str = "\
quell-bench: every figure beside its floor, measured in the same run

  quell-bench latency [--quick] [--out DIR] [--peer-start CMD --peer-cancel CMD] [PART...]
      over HTTP, with the quell that it builds, and a report in DIR (target/latency): see docs/performance.md
      parts: {parts} [default: all]
  quell-bench [--quick] [engine | group | accept | queue | cold-start]
      parts of it alone; without a word: engine, group and accept

--quick takes fewer samples. Ratios travel between machines, times do not.";

/// Exit code of what could not be measured, or was not understood.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| ["--help", "-h"].contains(&word.as_str())) {
        // A reader that has seen enough (`| head`) is no error.
        let usage = USAGE.replace("{parts}", &latency::PARTS.join(" "));
        drop(writeln!(std::io::stdout(), "{usage}"));
        return ExitCode::SUCCESS;
    }
    match measure(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quell-bench: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn measure(words: Vec<String>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let [word, dir] = &words[..]
        && word == "floor-server"
    {
        return runtime.block_on(accept::serve_floor(dir.as_ref()));
    }
    match words.first().map(String::as_str) {
        Some("load") => return load_runtime()?.block_on(latency::serve_load()),
        Some("pass-through") => return runtime.block_on(latency::serve_pass_through()),
        Some("latency") => return runtime.block_on(latency::run(&words[1..])),
        _ => {}
    }
    let (mut quick, mut part) = (false, None);
    for word in words {
        match word.as_str() {
            "--quick" => quick = true,
            "engine" | "group" | "accept" | "queue" | "cold-start" => part = Some(word),
            _ => anyhow::bail!(
                "{word:?} is not understood; there are latency, --quick, engine, group, accept, queue and cold-start, and --help"
            ),
        }
    }
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    let count = if quick { QUICK } else { FULL };
    if part.as_deref() == Some("queue") {
        return runtime.block_on(queue::measure(if quick { QUEUED / 10 } else { QUEUED }));
    }
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
    if part.as_deref() == Some("cold-start") {
        return runtime.block_on(cold_start::measure(count.min(cold_start::MOST), &mut show));
    }
    if wanted("engine") {
        engine::measure(count, &mut show);
    }
    if wanted("group") {
        runtime.block_on(group::measure(count, &mut show))?;
    }
    if wanted("accept") {
        runtime.block_on(accept::measure(count))?;
    }
    Ok(())
}
