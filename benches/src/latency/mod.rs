//! `quell-bench latency`: what a stop takes, phase by phase, beside the least that it could take.

mod bell;
mod binary;
mod cold;
mod engine;
mod figure;
mod floors;
mod load;
mod measure;
mod memory;
mod options;
mod ordinary;
mod page;
mod pass_through;
mod peer;
mod plots;
mod progress;
mod queued;
mod report;
mod stops;
mod trees;
mod under_load;
mod values;

use std::process::Command;

use anyhow::{bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use figure::Found;
pub(crate) use load::serve as serve_load;
use options::Options;
pub(crate) use options::PARTS;
pub(crate) use pass_through::serve_pass_through;

/// Runs the parts that are named, or all, and writes the reports. What it has started is ended before it
/// returns, whatever happens.
pub(crate) async fn run(words: &[String]) -> anyhow::Result<()> {
    let options = Options::parse(words)?;
    binary::ready()?;
    let (mut ended, mut asked) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        done = measured(&options) => done,
        // What is measured is dropped, and with it nodes, servers and folders.
        _ = ended.recv() => bail!("ended; nothing is written"),
        _ = asked.recv() => bail!("interrupted; nothing is written"),
    }
}

async fn measured(options: &Options) -> anyhow::Result<()> {
    let mut found = Found::default();
    report::print_head();
    let python = Command::new("python3").arg("--version").output();
    for part in options.parts() {
        let (figures, absent) = (found.figures.len(), found.absent.len());
        println!("-- {part}");
        if let Err(why) = &python {
            found.skip(part, format!("there is no `python3` on this machine: {why}"));
        } else if let Err(why) = measure(part, options, &mut found).await {
            // The others are worth having.
            found.fail(part, format!("{why:#}"));
        }
        progress::clear();
        found.figures[figures..].iter().for_each(report::print);
        found.absent[absent..].iter().for_each(report::print_absent);
    }
    report::write(&options.out, &found)?;
    let failed = found.absent.iter().filter(|absent| absent.failed).count();
    ensure!(failed == 0, "{failed} of {} parts failed", PARTS.len());
    Ok(())
}

async fn measure(part: &str, options: &Options, found: &mut Found) -> anyhow::Result<()> {
    let effort = options.effort;
    match part {
        "stops" => stops::measure(effort, options.peer.as_ref(), found).await,
        "queued" => queued::measure(effort, found).await,
        "engine" => engine::measure(effort, found),
        "trees" => trees::measure(effort, found).await,
        "load" => under_load::measure(effort, found).await,
        "memory" => memory::measure(effort, found).await,
        _ => ordinary::measure(effort, found).await,
    }
}
