//! The figures as one page that needs nothing else.

use std::fmt::Write as _;

use super::{
    figure::{Absent, Figure, Found},
    plots,
    values::Unit,
};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(crate) fn page(machine: &str, found: &Found) -> anyhow::Result<String> {
    let figures = &found.figures;
    let verdicts: Vec<bool> = figures.iter().filter_map(Figure::meets).collect();
    let met = verdicts.iter().filter(|met| **met).count();
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>Quell: what a stop takes</title>\
         <style>{STYLE}</style><h1>What a stop takes, beside the least it could take</h1>\
         <p>Measured on {}. Each figure and its floor were sampled in turn; ratios travel between machines, \
         times do not. <b>{met} of {} targets are met.</b></p>",
        escape(machine),
        verdicts.len()
    );
    table(&mut page, figures)?;
    absent(&mut page, &found.absent)?;
    let phases = plots::phases(figures)?;
    if !phases.is_empty() {
        write!(
            page,
            "<h2>Where the time goes</h2><p>Means, by the receipts. Bars of one frame have one scale.</p>{phases}"
        )?;
    }
    let sizes = plots::sizes(figures)?;
    if !sizes.is_empty() {
        write!(
            page,
            "<h2>Cost against size</h2><p>Medians; both axes are logarithmic. Dashed: the floor.</p>\
             <div class=\"grid\">{sizes}</div>"
        )?;
    }
    page.push_str("<h2>Distributions</h2><p>The share of samples at or below a time. Dashed: the floor.</p><div class=\"grid\">");
    for figure in figures.iter().filter(|figure| figure.title.unit == Unit::Micros && figure.ours.count() > 5)
    {
        page.push_str(&plots::curves(figure)?);
    }
    page.push_str("</div></html>\n");
    Ok(page)
}

/// As many digits as tell something.
pub(crate) fn number(value: f64) -> String {
    match value {
        _ if value >= 100.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn table(page: &mut String, figures: &[Figure]) -> anyhow::Result<()> {
    page.push_str(
        "<div class=\"wide\"><table><thead><tr><th>what<th>n<th>min<th>p50<th>p90<th>p99<th>max<th class=\"l\">unit\
         <th>floor p50<th>ratio<th>of rounds<th>p99 ratio<th class=\"l\">target</thead><tbody>",
    );
    for figure in figures {
        let at = |quantile| number(figure.ours.quantile(quantile));
        let ratio = |quantile| figure.ratio(quantile).map_or(String::new(), |ratio| format!("{ratio:.2}"));
        let spread =
            figure.spread().map(|(low, high)| format!("{low:.2}&ndash;{high:.2}")).unwrap_or_default();
        let (class, verdict) = match figure.meets() {
            Some(true) => ("yes", "met"),
            Some(false) => ("no", "not met"),
            None => ("", ""),
        };
        write!(
            page,
            "<tr><td>{}{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td class=\"l\">{}<td>{}<td>{}<td>{spread}<td>{}\
             <td class=\"l {class}\">{} {verdict}",
            escape(&figure.title.what),
            remarks(figure),
            figure.ours.count(),
            at(0.0),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0),
            figure.title.unit.name(),
            figure.floor.as_ref().map_or(String::new(), |floor| number(floor.quantile(0.5))),
            ratio(0.5),
            ratio(0.99),
            escape(&figure.goals()),
        )?;
    }
    page.push_str("</tbody></table></div>");
    Ok(())
}

/// What a row says below its name.
fn remarks(figure: &Figure) -> String {
    let mut remarks = String::new();
    let mut add = |text: &str| {
        remarks.push_str("<small>");
        remarks.push_str(&escape(text));
        remarks.push_str("</small>");
    };
    if !figure.title.floor.is_empty() {
        add(&format!("floor: {}", figure.title.floor));
    }
    if let (Some((what, values)), Some(ratio)) = (&figure.beside, figure.ratio_beside()) {
        let median = number(values.quantile(0.5));
        add(&format!("{what}: p50 {median} {}, ratio {ratio:.2}", figure.title.unit.name()));
    }
    if let Some(note) = &figure.title.note {
        add(note);
    }
    remarks
}

fn absent(page: &mut String, absent: &[Absent]) -> anyhow::Result<()> {
    if absent.is_empty() {
        return Ok(());
    }
    page.push_str("<h2>Not measured</h2><table><thead><tr><th>what<th class=\"l\">why</thead><tbody>");
    for Absent { what, why, failed } in absent {
        let word = if *failed { "<b class=\"no\">failed</b>: " } else { "" };
        write!(page, "<tr><td>{}<td class=\"l\">{word}{}", escape(what), escape(why))?;
    }
    page.push_str("</tbody></table>");
    Ok(())
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::figure::{At, Target, Title};

    fn found() -> Found {
        let title = Title::new("x", "a <b> & c").over("nothing").goal(At::Median, Target::AtMost(0.5));
        let figure = Figure::pairs(title.placed("things", "wide", 10.0), &[(100.0, 100.0); 6]).unwrap();
        let mut found = Found::default();
        found.push(Figure { phases: vec![("kill", 40.0), ("record", 60.0)], ..figure });
        found
    }

    #[test]
    fn the_page_stands_alone_and_what_is_named_in_it_is_no_markup() {
        let page = page("2 cores", &found()).unwrap();
        assert!(page.contains("a &lt;b&gt; &amp; c") && !page.contains("<b> &"), "{page}");
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="), "{page}");
        assert!(page.contains("not met") && page.contains("0 of 1 targets are met"), "{page}");
        assert!(page.contains("record: 60.0 us") && page.contains("things"), "{page}");
    }

    #[test]
    fn what_is_not_measured_is_on_the_page_with_its_reason() {
        let mut found = found();
        assert!(!page("", &found).unwrap().contains("Not measured"));
        found.skip("force, Node.js", "there is no `node` on this machine");
        found.fail("memory", "it broke");
        let page = page("", &found).unwrap();
        assert!(page.contains("there is no `node`") && page.contains("failed</b>: it broke"), "{page}");
    }

    #[test]
    fn numbers_have_as_many_digits_as_tell_something() {
        let all = [0.123, 9.876, 12.34, 1234.5].map(number);
        assert_eq!(all, ["0.12", "9.88", "12.3", "1234"]);
    }
}
