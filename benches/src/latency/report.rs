//! The figures as a table, as JSON, and as one page that needs nothing else.

use std::{fmt::Write as _, path::Path};

use anyhow::Context as _;
use serde_json::json;

use super::measure::{Figure, Times};

pub(crate) fn print_head() {
    println!(
        "{:<46} {:>5} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>11}  target",
        "times in us", "n", "min", "p50", "p90", "p99", "max", "ratio", "of rounds"
    );
}

pub(crate) fn print(figure: &Figure) {
    let row = |name: &str, times: &Times| {
        let at = |quantile| times.quantile(quantile);
        format!(
            "{name:<46} {:>5} {:>9.1} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
            times.count(),
            at(0.0),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        )
    };
    let (low, high) = figure.spread();
    let target = figure.title.target.map_or(String::new(), |most| format!("<= {most}"));
    let verdict = match figure.meets() {
        Some(true) => "met",
        Some(false) => "NOT met",
        None => "",
    };
    println!("{}", row(&format!("  floor: {}", figure.title.floor), &figure.floor));
    println!(
        "{} {:>6.2} {low:>5.2}-{high:<5.2}  {target} {verdict}",
        row(&figure.title.what, &figure.ours),
        figure.ratio(0.5)
    );
}

/// Writes `latency.json` and `latency.html`.
pub(crate) fn write(folder: &Path, figures: &[Figure]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let machine = machine();
    let all: Vec<_> = figures.iter().map(Figure::json).collect();
    let text = serde_json::to_string_pretty(&json!({ "machine": machine, "figures": all }))?;
    std::fs::write(folder.join("latency.json"), text)?;
    std::fs::write(folder.join("latency.html"), page(&machine, figures)?)?;
    println!("written: {0}/latency.html and {0}/latency.json", folder.display());
    Ok(())
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, Linux {}", kernel.trim())
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;width:100%}td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #8884}\
td:first-child,th:first-child{text-align:left}.no{color:#b00020}.yes{color:#1b6e2d}figure{margin:2rem 0}\
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:currentColor}\
@media(prefers-color-scheme:dark){body{background:#16181c;color:#e6e6e6}.no{color:#ff8a94}.yes{color:#7ddc93}}";

fn page(machine: &str, figures: &[Figure]) -> anyhow::Result<String> {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Quell: latency of cancels</title>\
         <style>{STYLE}</style><h1>What a stop takes, beside the least it could take</h1>\
         <p>Measured on {}. Each figure and its floor were sampled in turn; ratios travel between machines, \
         times do not.</p><table><tr><th>stop<th>p50 us<th>p99 us<th>floor p50<th>ratio<th>of rounds<th>target</tr>",
        escape(machine)
    );
    for figure in figures {
        let (low, high) = figure.spread();
        let (class, verdict) = match figure.meets() {
            Some(true) => ("yes", "met"),
            Some(false) => ("no", "not met"),
            None => ("", ""),
        };
        let target = figure.title.target.map_or(String::new(), |most| format!("&le; {most} "));
        write!(
            page,
            "<tr><td>{}<td>{:.0}<td>{:.0}<td>{:.0}<td>{:.2}<td>{low:.2}&ndash;{high:.2}<td class=\"{class}\">{target}{verdict}</tr>",
            escape(&figure.title.what),
            figure.ours.quantile(0.5),
            figure.ours.quantile(0.99),
            figure.floor.quantile(0.5),
            figure.ratio(0.5)
        )?;
    }
    page.push_str("</table>");
    for figure in figures {
        write!(
            page,
            "<figure><figcaption><b>{}</b>; dashed: {}</figcaption>{}{}</figure>",
            escape(&figure.title.what),
            escape(&figure.title.floor),
            curves(figure)?,
            bars(figure)?
        )?;
    }
    page.push_str("</html>\n");
    Ok(page)
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 160.0;
const LEFT: f64 = 40.0;

/// The cumulative distributions of a figure and of its floor.
fn curves(figure: &Figure) -> anyhow::Result<String> {
    let most = figure.ours.quantile(0.99).max(figure.floor.quantile(0.99)) * 1.05;
    let line = |times: &Times, dashed: &str| -> anyhow::Result<String> {
        let mut points = String::new();
        for (micros, share) in times.curve() {
            let x = LEFT + (WIDTH - LEFT) * (micros / most).min(1.0);
            write!(points, "{x:.1},{:.1} ", HEIGHT - 20.0 - (HEIGHT - 30.0) * share)?;
        }
        Ok(format!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"2\"{dashed}/>"
        ))
    };
    let label = |x: f64, text: String| format!("<text x=\"{x:.0}\" y=\"{:.0}\">{text}</text>", HEIGHT - 4.0);
    Ok(format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"distribution\">{}{}{}{}\
         <text x=\"0\" y=\"14\">100 %</text><text x=\"0\" y=\"{:.0}\">0</text></svg>",
        line(&figure.ours, "")?,
        line(&figure.floor, " stroke-dasharray=\"5 4\" opacity=\".6\"")?,
        label(LEFT, "0".to_owned()),
        label(WIDTH - 90.0, format!("{most:.0} us")),
        HEIGHT - 22.0
    ))
}

const COLOURS: [&str; 4] = ["#4c78a8", "#f58518", "#54a24b", "#b279a2"];

/// Where the time went on average, as one bar.
fn bars(figure: &Figure) -> anyhow::Result<String> {
    let total: f64 = figure.phases.iter().map(|(_, micros)| micros).sum();
    if total <= 0.0 {
        return Ok(String::new());
    }
    let (mut bar, mut x) = (String::new(), LEFT);
    for ((name, micros), colour) in figure.phases.iter().zip(COLOURS.iter().cycle()) {
        let width = (WIDTH - LEFT) * micros / total;
        write!(
            bar,
            "<rect x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"18\" fill=\"{colour}\"><title>{name}: {micros:.0} us</title></rect>\
             <text x=\"{x:.1}\" y=\"34\">{name} {micros:.0} us</text>"
        )?;
        x += width;
    }
    Ok(format!("<svg viewBox=\"0 0 {WIDTH} 40\" role=\"img\" aria-label=\"phases\">{bar}</svg>"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::latency::measure::Title;

    #[test]
    fn the_page_stands_alone_and_what_is_named_in_it_is_no_markup() {
        let mut times = Times::new().unwrap();
        times.add(Duration::from_micros(100)).unwrap();
        let title = Title {
            id: "x".into(),
            what: "a <b> & c".into(),
            floor: "nothing".into(),
            target: Some(0.5),
            target_p99: None,
        };
        let figure = Figure {
            title,
            ours: times.clone(),
            floor: times,
            rounds: vec![1.0],
            phases: vec![("kill", 40.0), ("record", 60.0)],
        };
        let page = page("2 cores", &[figure]).unwrap();
        assert!(page.contains("a &lt;b&gt; &amp; c") && !page.contains("<b> &"), "{page}");
        assert!(!page.contains("http://") && !page.contains("src="), "{page}");
        assert!(page.contains("not met") && page.contains("record 60 us"), "{page}");
    }
}
