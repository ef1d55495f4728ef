//! `cargo run --release -p quell-chaos -- --rounds 300`: see the library.
#![allow(clippy::print_stdout, clippy::print_stderr)] // its output is its purpose

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use clap::Parser;
use quell_chaos::{
    program,
    run::{self, Order, Report},
};
use tokio::signal::unix::{SignalKind, signal};

/// Kills the node at random moments and checks that it kept every promise it had given.
#[derive(Debug, Parser)]
struct Options {
    /// One is killed and started over and over. Several share a PostgreSQL server of the run's own, and are killed, put to
    /// sleep and ended, one or all, and the server is as well.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Rounds: in each the node is started, used and killed.
    #[arg(long, default_value_t = 30)]
    rounds: u64,
    /// Begin no round after so many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// Names the schedule: what is called and cancelled, and when the node is killed. Default: the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// The built `quell`. Default: the one beside this program; under cargo it is built first.
    #[arg(long)]
    node: Option<PathBuf>,
    /// Where the run makes its folder, which is kept when something was broken. Not below /tmp.
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            done = chaos(options) => done,
            // What is dropped by these kills the node that it holds.
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
            _ = terminated.recv() => anyhow::bail!("terminated"),
        }
    })
}

async fn chaos(options: Options) -> anyhow::Result<ExitCode> {
    let program = match options.node {
        Some(node) => node.canonicalize().with_context(|| node.display().to_string())?,
        None => program::node()?,
    };
    let folder = match options.folder {
        Some(folder) => folder,
        None => program::folder()?,
    };
    let seed = match options.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    println!("seed {seed}");
    let at_most = options.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let order = Order { program, folder, seed, nodes: options.nodes, rounds: options.rounds, at_most };
    let Report { figures, violations, kept } = run::run(&order, &mut |line| println!("{line}")).await?;
    for violation in &violations {
        let round = violation.round.map_or_else(|| "?".to_owned(), |round| round.to_string());
        eprintln!("\nseed {seed}, round {round}, {}: {}", violation.law.word(), violation.what);
        for line in &violation.lines {
            eprintln!("    {line}");
        }
    }
    println!("{figures}");
    if kept.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let kept: Vec<String> = kept.iter().map(|place| place.display().to_string()).collect();
    eprintln!("broken promises: {}; seed {seed}; everything is in {}", violations.len(), kept.join(" and "));
    Ok(ExitCode::FAILURE)
}
