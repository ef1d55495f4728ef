//! The plots of the page, as SVG: their colours are the page's, so that they are read in the dark as well.

use std::fmt::Write as _;

use super::{
    figure::Figure,
    page::{escape, number},
    values::Values,
};

/// Colours that the page has; more lines or phases begin again.
const COLOURS: usize = 6;

/// One distribution and its floor.
const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 190.0;
/// Room for the numbers of the axes.
const LEFT: f64 = 44.0;
const BELOW: f64 = 24.0;
const ABOVE: f64 = 8.0;
const RIGHT: f64 = 12.0;

fn x_of(share: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * share.clamp(0.0, 1.0)
}

fn y_of(share: f64) -> f64 {
    HEIGHT - BELOW - (HEIGHT - BELOW - ABOVE) * share.clamp(0.0, 1.0)
}

/// A line across at a height, with its number.
fn across(share: f64, text: &str) -> String {
    let y = y_of(share);
    format!(
        "<path class=\"axis\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
        WIDTH - RIGHT,
        LEFT - 5.0,
        y + 4.0
    )
}

fn below(share: f64, text: &str) -> String {
    let anchor = if share > 0.99 {
        "end"
    } else if share < 0.01 {
        "start"
    } else {
        "middle"
    };
    format!("<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"{anchor}\">{text}</text>", x_of(share), HEIGHT - 6.0)
}

/// The cumulative distributions of a figure and of its floor.
pub(crate) fn curves(figure: &Figure) -> anyhow::Result<String> {
    let floors = figure.floor.as_ref().map_or(0.0, |floor| floor.quantile(0.99));
    let most = figure.ours.quantile(0.99).max(floors) * 1.05;
    let line = |values: &Values, class: &str| -> anyhow::Result<String> {
        let mut points = String::new();
        for (micros, share) in values.curve() {
            write!(points, "{:.1},{:.1} ", x_of(micros / most), y_of(share))?;
        }
        Ok(format!("<polyline class=\"{class}\" points=\"{points}\"/>"))
    };
    let mut plot = String::new();
    for (share, text) in [(0.0, "0"), (0.5, "50 %"), (1.0, "100 %")] {
        plot.push_str(&across(share, text));
    }
    for (share, text) in
        [(0.0, "0".to_owned()), (0.5, number(most / 2.0)), (1.0, format!("{} us", number(most)))]
    {
        plot.push_str(&below(share, &text));
    }
    if let Some(floor) = &figure.floor {
        plot.push_str(&line(floor, "floor")?);
    }
    plot.push_str(&line(&figure.ours, "ours")?);
    let what = escape(&figure.title.what);
    let ratio = figure.ratio(0.5).map_or(String::new(), |ratio| format!(", ratio {ratio:.2}"));
    Ok(format!(
        "<figure><figcaption><b>{what}</b><small>p50 {} us{ratio}</small></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"distribution of: {what}\">{plot}</svg></figure>",
        number(figure.ours.quantile(0.5))
    ))
}

/// A bar of phases, and the room beside it.
const BAR: f64 = 18.0;
const GAP: f64 = 8.0;
const NAMES: f64 = 270.0;
const BARS: f64 = 1_100.0;
/// For the sum at the end of a bar.
const SUM: f64 = 80.0;
/// A bar that takes less of its frame than this cannot be read: it belongs into another frame.
const READABLE: f64 = 0.08;

/// Figures with phases, those of about the same size together.
fn frames(figures: &[Figure]) -> Vec<(f64, Vec<&Figure>)> {
    let total = |figure: &Figure| figure.phases.iter().map(|(_, micros)| micros).sum::<f64>();
    let mut all: Vec<(f64, &Figure)> = figures.iter().map(|figure| (total(figure), figure)).collect();
    all.retain(|(total, _)| *total > 0.0);
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut frames: Vec<(f64, Vec<&Figure>)> = Vec::new();
    for (total, figure) in all {
        match frames.last_mut() {
            Some((most, members)) if total >= *most * READABLE => members.push(figure),
            _ => frames.push((total, vec![figure])),
        }
    }
    frames.reverse();
    frames
}

/// Where the time went on average, all figures that know it beside each other.
pub(crate) fn phases(figures: &[Figure]) -> anyhow::Result<String> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in figures.iter().flat_map(|figure| &figure.phases) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Ok(String::new());
    }
    let colour = |name: &str| names.iter().position(|known| *known == name).unwrap_or(0) % COLOURS;
    let mut all = String::from("<div class=\"legend\">");
    for name in &names {
        write!(all, "<span><i class=\"k{}\"></i>{}</span>", colour(name), escape(name))?;
    }
    all.push_str("</div>");
    for (most, members) in frames(figures) {
        let height = members.len() as f64 * (BAR + GAP);
        write!(
            all,
            "<svg class=\"frame\" viewBox=\"0 0 {BARS} {height}\" role=\"img\" aria-label=\"phases\">"
        )?;
        for (row, figure) in members.iter().enumerate() {
            let y = row as f64 * (BAR + GAP);
            let mut x = NAMES;
            write!(
                all,
                "<text class=\"name\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
                NAMES - 8.0,
                y + 13.0,
                escape(&figure.title.what)
            )?;
            for (name, micros) in &figure.phases {
                let width = (BARS - NAMES - SUM) * micros / most;
                write!(
                    all,
                    "<rect class=\"k{}\" x=\"{x:.1}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{BAR}\">\
                     <title>{}: {} us</title></rect>",
                    colour(name),
                    escape(name),
                    number(*micros)
                )?;
                x += width;
            }
            let sum: f64 = figure.phases.iter().map(|(_, micros)| micros).sum();
            write!(all, "<text x=\"{:.1}\" y=\"{:.0}\">{} us</text>", x + 6.0, y + 13.0, number(sum))?;
        }
        all.push_str("</svg>");
    }
    Ok(all)
}

/// A point of a line: (size, ours, floor).
type Point = (f64, f64, Option<f64>);
type Line<'a> = (&'a str, Vec<Point>);
/// What the size is of, what the cost is counted in, and the lines.
type Plot<'a> = (&'a str, &'a str, Vec<Line<'a>>);

/// Cost against size: one plot for each kind of size.
pub(crate) fn sizes(figures: &[Figure]) -> anyhow::Result<String> {
    let mut plots: Vec<Plot<'_>> = Vec::new();
    for figure in figures {
        let Some(place) = &figure.title.place else { continue };
        let floor = figure.floor.as_ref().map(|floor| floor.quantile(0.5));
        let point = (place.size, figure.ours.quantile(0.5), floor);
        let at = plots.iter().position(|plot| plot.0 == place.size_of).unwrap_or_else(|| {
            plots.push((place.size_of, figure.title.unit.name(), Vec::new()));
            plots.len() - 1
        });
        let lines = &mut plots[at].2;
        match lines.iter_mut().find(|line| line.0 == place.line) {
            Some(line) => line.1.push(point),
            None => lines.push((&place.line, vec![point])),
        }
    }
    plots.iter().map(|(size_of, unit, lines)| size_plot(size_of, unit, lines)).collect()
}

/// The powers of ten around these.
fn decades(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let low = values.clone().fold(f64::INFINITY, f64::min).max(1e-3).log10().floor();
    let high = values.fold(f64::NEG_INFINITY, f64::max).max(1e-3).log10().ceil();
    (low, if high > low { high } else { low + 1.0 })
}

fn size_plot(size_of: &str, unit: &str, lines: &[Line<'_>]) -> anyhow::Result<String> {
    let points = || lines.iter().flat_map(|line| &line.1);
    let (left, right) = decades(points().map(|point| point.0));
    let (bottom, top) = decades(points().flat_map(|point| [Some(point.1), point.2]).flatten());
    let share = |value: f64, low: f64, high: f64| (value.max(1e-3).log10() - low) / (high - low);
    let mut plot = String::new();
    for power in bottom as i32..=top as i32 {
        let value = 10_f64.powi(power);
        plot.push_str(&across(share(value, bottom, top), &short(value)));
    }
    for power in left as i32..=right as i32 {
        let value = 10_f64.powi(power);
        plot.push_str(&below(share(value, left, right), &short(value)));
    }
    let mut legend = String::new();
    for (number, (name, points)) in lines.iter().enumerate() {
        let colour = number % COLOURS;
        write!(legend, "<span><i class=\"k{colour}\"></i>{}</span>", escape(name))?;
        let of = |pick: fn(&Point) -> Option<f64>| {
            let at = |point: &Point| {
                let y = y_of(share(pick(point)?, bottom, top));
                Some(format!("{:.1},{y:.1} ", x_of(share(point.0, left, right))))
            };
            points.iter().filter_map(at).collect::<String>()
        };
        write!(
            plot,
            "<polyline class=\"k{colour} dashed\" opacity=\".7\" points=\"{}\"/><polyline class=\"k{colour}\" points=\"{}\"/>",
            of(|point| point.2),
            of(|point| Some(point.1))
        )?;
    }
    Ok(format!(
        "<figure><figcaption><b>{} against {}</b></figcaption><div class=\"legend\">{legend}</div>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"cost against {}\">{plot}</svg></figure>",
        escape(unit),
        escape(size_of),
        escape(size_of)
    ))
}

/// 1000 as "1k".
fn short(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{}M", value / 1e6),
        _ if value >= 1e3 => format!("{}k", value / 1e3),
        _ => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::figure::Title;

    fn of(total: f64) -> Figure {
        let figure = Figure::read(Title::new("x", "x"), &[total]).unwrap();
        Figure { phases: vec![("all", total)], ..figure }
    }

    #[test]
    fn what_cannot_be_read_beside_the_largest_has_a_frame_of_its_own() {
        let all = [of(90_000.0), of(1_000.0), of(600.0), of(80_000.0), of(0.0)];
        let sizes: Vec<Vec<f64>> = frames(&all)
            .iter()
            .map(|(_, members)| members.iter().map(|member| member.phases[0].1).collect())
            .collect();
        assert_eq!(sizes, [vec![1_000.0, 600.0], vec![90_000.0, 80_000.0]]);
    }

    #[test]
    fn axes_are_whole_powers_of_ten_around_what_is_shown() {
        assert_eq!(decades([12.0, 900.0].into_iter()), (1.0, 3.0));
        assert_eq!(decades([10.0].into_iter()), (1.0, 2.0));
        assert_eq!([1.0, 1e3, 1e6].map(short), ["1", "1k", "1M"]);
    }
}
