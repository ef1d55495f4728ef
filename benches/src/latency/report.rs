//! The figures as a table and as JSON; the page is `page`.

use std::path::Path;

use anyhow::Context as _;
use serde_json::json;

use super::{
    figure::{Absent, Figure, Found},
    page,
    values::Values,
};

pub(crate) fn print_head() {
    println!(
        "{:<50} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9}     {:>6} {:>11}  target",
        "", "n", "min", "p50", "p90", "p99", "max", "ratio", "of rounds"
    );
}

pub(crate) fn print(figure: &Figure) {
    let unit = figure.title.unit.name();
    let row = |name: &str, values: &Values| {
        let at = |quantile| values.quantile(quantile);
        format!(
            "{name:<50} {:>6} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {unit:<3}",
            values.count(),
            at(0.0),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        )
    };
    if let Some(floor) = &figure.floor {
        println!("{} {}", row("  floor", floor), figure.title.floor);
    }
    let verdict = match figure.meets() {
        Some(true) => "met",
        Some(false) => "NOT met",
        None => "",
    };
    let ratio = figure.ratio(0.5).map_or(String::new(), |ratio| format!("{ratio:.2}"));
    let spread = figure.spread().map_or(String::new(), |(low, high)| format!("{low:.2}-{high:.2}"));
    let line =
        format!("{} {ratio:>6} {spread:>11}  {}", row(&figure.title.what, &figure.ours), figure.goals());
    println!("{} {verdict}", line.trim_end());
    if let (Some((what, values)), Some(ratio)) = (&figure.beside, figure.ratio_beside()) {
        println!("{} {ratio:>6.2} {what}", row("  beside", values));
    }
    if let Some(note) = &figure.title.note {
        println!("  {note}");
    }
}

pub(crate) fn print_absent(absent: &Absent) {
    let word = if absent.failed { "FAILED" } else { "skipped" };
    println!("{word}: {}: {}", absent.what, absent.why);
}

/// Writes `latency.json` and `latency.html`.
pub(crate) fn write(folder: &Path, found: &Found) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let machine = machine();
    let all: Vec<_> = found.figures.iter().map(Figure::json).collect();
    let absent = found
        .absent
        .iter()
        .map(|absent| json!({ "what": absent.what, "why": absent.why, "failed": absent.failed }));
    let absent: Vec<_> = absent.collect();
    let all = json!({ "machine": machine, "figures": all, "absent": absent });
    std::fs::write(folder.join("latency.json"), serde_json::to_string_pretty(&all)?)?;
    std::fs::write(folder.join("latency.html"), page::page(&machine, found)?)?;
    println!("written: {0}/latency.html and {0}/latency.json", folder.display());
    Ok(())
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let root = if nix::unistd::geteuid().is_root() { "root" } else { "no root" };
    format!("{cores} cores, Linux {}, a {build} build, {root}", kernel.trim())
}
