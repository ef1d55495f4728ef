//! `quell-bench latency`: what a stop takes, phase by phase, beside the least that it could take.

mod bell;
mod engine;
mod floors;
mod measure;
mod pass_through;
mod queued;
mod report;
mod stops;
mod trees;
mod warm;

use std::path::PathBuf;

use anyhow::Context as _;

pub(crate) use engine::{http_probe, phase_probe, probe};
use measure::{Effort, Figure};
pub(crate) use pass_through::serve_pass_through;

/// What is measured in full takes less than ten minutes on two cores, and quickly less than two.
const FULL: Effort = Effort { rounds: 5, samples: 40 };
const QUICK: Effort = Effort { rounds: 3, samples: 6 };

/// The parts, by the word that names each.
const PARTS: [&str; 4] = ["stops", "queued", "trees", "warm"];

/// Runs the parts that are named, or all, and writes the reports.
pub(crate) async fn run(words: &[String]) -> anyhow::Result<()> {
    let (mut effort, mut out, mut parts) = (FULL, PathBuf::from("target/latency"), Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => effort = QUICK,
            "--out" => out = words.next().context("--out needs a folder")?.into(),
            part if PARTS.contains(&part) => parts.push(part),
            _ => anyhow::bail!("{word:?} is not understood; there are --quick, --out DIR and {PARTS:?}"),
        }
    }
    let wanted = |part: &str| parts.is_empty() || parts.contains(&part);
    let mut figures: Vec<Figure> = Vec::new();
    report::print_head();
    for part in PARTS.into_iter().filter(|part| wanted(part)) {
        let before = figures.len();
        println!("-- {part}");
        match part {
            "stops" => stops::measure(effort, &mut figures).await?,
            "queued" => queued::measure(effort, &mut figures).await?,
            "trees" => trees::measure(effort, &mut figures).await?,
            _ => warm::measure(effort, &mut figures).await?,
        }
        figures[before..].iter().for_each(report::print);
    }
    report::write(&out, &figures)
}
