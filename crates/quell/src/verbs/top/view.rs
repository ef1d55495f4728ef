//! What `quell top` shows and what its keys mean: plain state, no terminal.

use std::collections::{HashMap, HashSet};

use supervisor::{NodeView, PlanView, RequestRow};

use crate::{
    output,
    terminal::escaped,
    verbs::{
        bulk::elsewhere,
        look::{age, state},
        plan::processes,
    },
};

/// Lines that are not of the list: two above, two below.
const AROUND: usize = 4;
const KEYS: &str = "up/down: choose  p: plan  c: cancel  r: recursive  f: force  ?: keys  q: quit";
/// The same where there is less room than that.
const BACK: &str = "q: quit   any other key: back";
const FEW_KEYS: &str = "?: keys  q: quit";
/// The least columns and lines that the keys are shown in; there are none so small.
const LEAST_KEYS: (usize, usize) = (30, 2);
/// Where what a key does stands.
const DOES: usize = 21;
/// Columns of a request id, and of one in a tree.
const ID: usize = 36;
/// Columns between two.
const GAP: usize = 1;
/// Columns that a name or a state needs to be told from another.
const LEAST: usize = 8;
/// What `?` shows.
const ALL_KEYS: [&str; 10] = [
    "Keys",
    "  up, down, k, j     choose a request",
    "  page up, page down go further",
    "  p, enter           plan: what a cancel of it would stop, and who else would be touched",
    "  c                  plan, and ask; only y is a yes",
    "  r                  recursive: what is planned and cancelled is the request and all below it",
    "  f                  force: runtimes are killed at once",
    "  ?                  these keys",
    "  q, Ctrl-C          end; nothing is cancelled by that",
    "The list is looked at again each second.",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Plan,
    Cancel,
    Recursive,
    Force,
    Yes,
    No,
    Help,
    /// Any that means nothing.
    Other,
    Quit,
}

/// What a key asks of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Look,
    Plan(Aim),
    Cancel(Aim),
    Quit,
}

/// A cancel that is meant: of which request, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aim {
    pub(super) request: String,
    pub(super) function: String,
    pub(super) recursive: bool,
    pub(super) force: bool,
    /// It is not only planned.
    pub(super) meant: bool,
}

/// One line of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) marked: bool,
}

/// What is in front.
enum Pane {
    List,
    /// The keys, from that line on.
    Keys(usize),
    /// A plan; of one that is meant a yes carries it out.
    Plan {
        aim: Aim,
        text: Vec<String>,
    },
}

pub(super) struct View {
    node: NodeView,
    /// Places of `node.requests`: parents before their children, each with its depth here.
    order: Vec<(usize, usize)>,
    /// The request that is chosen stays so while the list changes around it.
    chosen: Option<String>,
    first_shown: usize,
    /// Rows of the list that fit.
    page: usize,
    /// Where the keys go on that do not fit; where they begin, if all do.
    keys_end: usize,
    recursive: bool,
    force: bool,
    pane: Pane,
    /// The last thing to be told.
    said: String,
}

impl View {
    pub(super) fn new(node: NodeView) -> Self {
        let mut view = Self {
            order: ordered(&node.requests),
            node,
            chosen: None,
            first_shown: 0,
            page: 1,
            keys_end: 0,
            recursive: false,
            force: false,
            pane: Pane::List,
            said: String::new(),
        };
        view.choose(0);
        view
    }

    fn row(&self, at: usize) -> Option<&RequestRow> {
        self.order.get(at).and_then(|(place, _)| self.node.requests.get(*place))
    }

    fn place(&self) -> usize {
        let is_chosen = |(place, _): &(usize, usize)| {
            self.node.requests.get(*place).map(|row| &row.request_id) == self.chosen.as_ref()
        };
        self.order.iter().position(is_chosen).unwrap_or(0)
    }

    fn choose(&mut self, at: usize) {
        let at = at.min(self.order.len().saturating_sub(1));
        self.chosen = self.row(at).map(|row| row.request_id.clone());
    }

    /// Another look at the node, or why there was none.
    pub(super) fn look(&mut self, node: anyhow::Result<NodeView>) {
        match node {
            Ok(node) => {
                let before = self.place();
                self.order = ordered(&node.requests);
                self.node = node;
                let there =
                    self.node.requests.iter().any(|row| Some(&row.request_id) == self.chosen.as_ref());
                if !there {
                    self.choose(before); // it is over: whoever stands in its place
                }
            }
            Err(error) => self.said = format!("{error:#}"),
        }
    }

    pub(super) fn plan(&mut self, aim: Aim, plan: anyhow::Result<PlanView>) -> Wish {
        match plan {
            Ok(plan) => self.pane = Pane::Plan { text: plan_text(&aim, &plan), aim },
            Err(error) => self.said = format!("{error:#}"),
        }
        Wish::Nothing
    }

    pub(super) fn cancelled(&mut self, said: anyhow::Result<String>) -> Wish {
        self.said = said.unwrap_or_else(|error| format!("{error:#}"));
        Wish::Look
    }

    pub(super) fn key(&mut self, key: Key) -> Wish {
        if let Pane::Plan { aim, .. } = &self.pane {
            let aim = aim.clone();
            return match key {
                Key::Quit => Wish::Quit,
                Key::Yes if aim.meant => {
                    self.pane = Pane::List;
                    self.said = format!("stopping {} ...", aim.request);
                    Wish::Cancel(aim)
                }
                // Only a yes is a yes.
                _ => {
                    self.pane = Pane::List;
                    Wish::Nothing
                }
            };
        }
        if let Pane::Keys(next) = self.pane
            && key != Key::Quit
        {
            self.pane = if self.keys_end > next { Pane::Keys(self.keys_end) } else { Pane::List };
            return Wish::Nothing;
        }
        match key {
            Key::Quit => return Wish::Quit,
            Key::Help => self.pane = Pane::Keys(0),
            Key::Up => self.choose(self.place().saturating_sub(1)),
            Key::Down => self.choose(self.place() + 1),
            Key::PageUp => self.choose(self.place().saturating_sub(self.page)),
            Key::PageDown => self.choose(self.place() + self.page),
            Key::Recursive => self.recursive = !self.recursive,
            Key::Force => self.force = !self.force,
            Key::Plan | Key::Cancel => return self.aim(key == Key::Cancel).map_or(Wish::Nothing, Wish::Plan),
            Key::Yes | Key::No | Key::Other => {}
        }
        Wish::Nothing
    }

    fn aim(&self, meant: bool) -> Option<Aim> {
        let row = self.row(self.place())?;
        let (request, function) = (row.request_id.clone(), row.function.clone());
        Some(Aim { request, function, recursive: self.recursive, force: self.force, meant })
    }

    /// The whole screen, no line longer than it is wide.
    pub(super) fn lines(&mut self, width: usize, height: usize) -> Vec<Line> {
        let mut lines = match &self.pane {
            Pane::List => self.list_lines(width, height),
            Pane::Keys(from) => {
                let (lines, next) = key_lines(*from, width, height);
                self.keys_end = next;
                lines
            }
            Pane::Plan { aim, text } => {
                let mut lines: Vec<Line> = text.iter().take(height.saturating_sub(2)).map(plain).collect();
                lines.push(plain(""));
                let ask = if aim.meant { "Cancel? y: yes   any other key: no" } else { BACK };
                lines.push(Line { text: ask.to_owned(), marked: true });
                lines
            }
        };
        for line in &mut lines {
            line.text = escaped(&line.text).chars().take(width).collect();
        }
        lines
    }

    fn list_lines(&mut self, width: usize, height: usize) -> Vec<Line> {
        self.page = height.saturating_sub(AROUND).max(1);
        let place = self.place();
        if place < self.first_shown {
            self.first_shown = place;
        } else if place >= self.first_shown + self.page {
            self.first_shown = place + 1 - self.page;
        }
        let of = |flag: bool| if flag { "on" } else { "off" };
        let draining = if self.node.draining { ", draining" } else { "" };
        let head = format!(
            "{} live requests, {} instances{draining}   recursive: {}   force: {}",
            self.node.live,
            self.node.instances.len(),
            of(self.recursive),
            of(self.force)
        );
        let now = output::now_ms();
        let header = ["REQUEST", "FUNCTION", "STATE", "AGE", "INSTANCE", "LABELS"].map(str::to_owned);
        let shown: Vec<(bool, [String; 6])> = self
            .order
            .iter()
            .enumerate()
            .skip(self.first_shown)
            .take(self.page)
            .filter_map(|(at, (index, depth))| {
                let row = self.node.requests.get(*index)?;
                Some((at == place, cells(row, *depth, now)))
            })
            .collect();
        let widths = widths(std::iter::once(&header).chain(shown.iter().map(|(_, row)| row)), width);
        let mut lines = vec![plain(&head), plain(row_text(&header, &widths))];
        lines
            .extend(shown.iter().map(|(marked, row)| Line { text: row_text(row, &widths), marked: *marked }));
        lines.push(plain(&self.said));
        lines.push(plain(if KEYS.len() <= width { KEYS } else { FEW_KEYS }));
        lines
    }
}

fn cells(row: &RequestRow, depth: usize, now_ms: i64) -> [String; 6] {
    [
        format!("{}{}", "  ".repeat(depth), row.request_id),
        output::function(&row.function, &row.version),
        state(row),
        age(row, now_ms),
        row.instance.clone().unwrap_or_default(),
        output::labels(&row.labels),
    ]
}

/// The keys, from a line on, whole in any terminal: what is too wide goes on below, and what is too much after the next
/// key. And from which line on, or 0 if that is all.
fn key_lines(from: usize, width: usize, height: usize) -> (Vec<Line>, usize) {
    let width = width.max(LEAST_KEYS.0);
    let all: Vec<String> = ALL_KEYS.iter().flat_map(|text| wrapped(text, width)).collect();
    let room = height.max(LEAST_KEYS.1).saturating_sub(1);
    let mut lines: Vec<Line> = all.iter().skip(from).take(room).map(plain).collect();
    let next = from + lines.len();
    let more = next < all.len();
    let ask = if more { "q: quit   any other key: more" } else { BACK };
    lines.push(Line { text: ask.to_owned(), marked: true });
    (lines, if more { next } else { 0 })
}

/// A text in lines that are no wider; the second and later ones stand below what a key does, where there is room for that.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let indent = if width >= 2 * DOES { DOES } else { 4 };
    let mut lines = Vec::new();
    let mut line = String::new();
    for (at, word) in text.split(' ').enumerate() {
        if at > 0 && line.len() + 1 + word.len() > width && !line.trim().is_empty() {
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
        } else if at > 0 {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// How wide each column is, so that a line fits: as its widest cell; where that is too much, labels give way first,
/// then the function, the state, and in the end the request.
fn widths<'a>(rows: impl Iterator<Item = &'a [String; 6]>, width: usize) -> [usize; 6] {
    let mut widths = [0; 6];
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(cell.chars().count());
        }
    }
    let (request, function, state, labels) = (0, 1, 2, 5);
    for (column, least) in [(labels, 0), (function, LEAST), (state, LEAST), (request, ID), (request, LEAST)] {
        let whole = widths.iter().sum::<usize>() + GAP * (widths.len() - 1);
        let over = whole.saturating_sub(width);
        widths[column] = widths[column].saturating_sub(over).max(least.min(widths[column]));
    }
    widths
}

fn row_text(row: &[String; 6], widths: &[usize; 6]) -> String {
    let mut text = String::new();
    for (cell, width) in row.iter().zip(widths) {
        let shown = if cell.chars().count() <= *width {
            cell.clone()
        } else {
            // What is cut says so.
            let mut cut: String = cell.chars().take(width.saturating_sub(1)).collect();
            cut.extend((*width > 0).then_some('~'));
            cut
        };
        text.push_str(&format!("{shown:<width$}{:GAP$}", ""));
    }
    text.trim_end().to_owned()
}

fn plain(text: impl AsRef<str>) -> Line {
    Line { text: text.as_ref().to_owned(), marked: false }
}

fn plan_text(aim: &Aim, plan: &PlanView) -> Vec<String> {
    let how = match (aim.recursive, aim.force) {
        (false, false) => "it alone, by asking",
        (true, false) => "it and all below it, by asking",
        (false, true) => "it alone, by force",
        (true, true) => "it and all below it, by force",
    };
    let mut text = vec![format!("A cancel of {} ({how}) would stop {}:", aim.request, plan.stops.len())];
    text.extend(plan.stops.iter().map(|stop| {
        let then = stop.at_grace_end.as_ref().map(|then| format!(", then {then}")).unwrap_or_default();
        let node = stop.node.as_ref().map(|node| format!("on node {node}"));
        let on = stop.instance.clone().or(node).unwrap_or_default();
        format!(
            "  {} {} {}{then} {on}",
            stop.request_id,
            output::function(&stop.function, &stop.version),
            stop.how
        )
    }));
    text.extend(plan.kills.iter().map(|row| format!("kills instance {}: {}", row.instance, processes(row))));
    text.extend(plan.collateral.iter().map(|id| format!("ends with 4208 as a co-tenant: {id}")));
    text.extend(plan.requeued.iter().map(|id| format!("waits again: {id}")));
    text.extend(elsewhere(plan.elsewhere));
    text
}

/// Each request behind the one that made it, with its depth; roots in the order of the node.
fn ordered(rows: &[RequestRow]) -> Vec<(usize, usize)> {
    let there: HashSet<&str> = rows.iter().map(|row| row.request_id.as_str()).collect();
    let mut below: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut open = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        match row.parent.as_deref().filter(|parent| there.contains(parent)) {
            Some(parent) => below.entry(parent).or_default().push(at),
            None => open.push((at, 0)),
        }
    }
    open.reverse();
    let mut order = Vec::with_capacity(rows.len());
    // Each request has one parent, so each is pushed once.
    while let Some((at, depth)) = open.pop() {
        order.push((at, depth));
        let children = below.remove(rows[at].request_id.as_str()).unwrap_or_default();
        open.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(requests: &[(&str, Option<&str>)]) -> NodeView {
        let rows: Vec<_> = requests
            .iter()
            .map(|(id, parent)| {
                json!({
                    "request_id": id, "parent": parent, "depth": 0, "function": "default:f", "state": "running",
                    "asynchronous": true, "attempt": 1, "created_ms": 0,
                })
            })
            .collect();
        let live = rows.len();
        let node = json!({
            "requests": rows, "instances": [], "live": live, "truncated": false, "draining": false, "unwritten": 0,
            "containment": [], "limits": [],
        });
        serde_json::from_value(node).unwrap()
    }

    fn marked(view: &mut View) -> String {
        let lines = view.lines(100, 20);
        lines.into_iter().find(|line| line.marked).map(|line| line.text).unwrap_or_default()
    }

    #[test]
    fn children_are_below_their_parents_and_orphans_are_roots() {
        let mut view = View::new(node(&[
            ("a", None),
            ("b", None),
            ("a1", Some("a")),
            ("x", Some("over")),
            ("a11", Some("a1")),
        ]));
        let text: Vec<_> = view.lines(100, 20).into_iter().map(|line| line.text).collect();
        let begins = ["a ", "  a1 ", "    a11 ", "b ", "x "];
        assert!(text[2..7].iter().zip(begins).all(|(line, begin)| line.starts_with(begin)), "{text:#?}");
    }

    #[test]
    fn the_chosen_request_stays_chosen_while_others_come_and_go() {
        let mut view = View::new(node(&[("a", None), ("b", None), ("c", None)]));
        view.key(Key::Down);
        assert!(marked(&mut view).starts_with("b "));
        view.look(Ok(node(&[("new", None), ("a", None), ("b", None), ("c", None)])));
        assert!(marked(&mut view).starts_with("b "));
        view.look(Ok(node(&[("a", None), ("c", None)])));
        assert!(marked(&mut view).starts_with("c "), "whoever stands in its place");
        view.look(Ok(node(&[])));
        assert_eq!((marked(&mut view), view.key(Key::Cancel)), (String::new(), Wish::Nothing));
    }

    #[test]
    fn a_cancel_is_planned_first_and_only_a_yes_carries_it_out() {
        let plan = || {
            Ok(serde_json::from_value(json!({
                "stops": [{ "request_id": "a", "function": "default:f", "how": "asked" }],
                "kills": [], "collateral": ["innocent"], "requeued": [],
            }))
            .unwrap())
        };
        let mut view = View::new(node(&[("a", None)]));
        view.key(Key::Recursive);
        let Wish::Plan(aim) = view.key(Key::Cancel) else { panic!("no plan") };
        assert!(aim.recursive && !aim.force && aim.meant);
        for (key, wish) in
            [(Key::No, Wish::Nothing), (Key::Cancel, Wish::Nothing), (Key::Yes, Wish::Cancel(aim.clone()))]
        {
            view.plan(aim.clone(), plan());
            let lines = view.lines(100, 20);
            assert!(lines.iter().any(|line| line.text.contains("innocent")), "{lines:?}");
            assert_eq!(view.key(key), wish);
        }
        // One that is only planned is carried out by nothing.
        let only = Aim { meant: false, ..aim };
        view.plan(only, plan());
        assert_eq!(view.key(Key::Yes), Wish::Nothing);
    }

    #[test]
    fn no_line_is_longer_than_the_screen_and_the_chosen_one_is_on_it() {
        let ids: Vec<String> = (0..100).map(|at| format!("r{at}")).collect();
        let rows: Vec<(&str, Option<&str>)> = ids.iter().map(|id| (id.as_str(), None)).collect();
        let mut view = View::new(node(&rows));
        for (width, height) in [(80, 24), (10, 5), (1, 1), (0, 0)] {
            for key in [Key::PageDown, Key::Down, Key::PageDown, Key::Up, Key::PageUp] {
                view.key(key);
                let lines = view.lines(width, height);
                assert!(lines.iter().all(|line| line.text.chars().count() <= width));
                assert!(lines.iter().any(|line| line.marked), "{width}x{height}");
            }
        }
    }

    #[test]
    fn a_narrow_terminal_shows_the_state_and_the_age_of_each_request() {
        let id = "1167bf8c-87b0-43ab-8f5f-26b16c64f252";
        let mut view = View::new(node(&[(id, None)]));
        let row = |view: &mut View, width| view.lines(width, 20)[2].text.clone();
        for width in [80, 100, 200] {
            let text = row(&mut view, width);
            assert!(
                text.contains(id) && text.contains("running async") && text.ends_with('d'),
                "{width}: {text}"
            );
        }
        let text = row(&mut view, 72);
        assert!(text.starts_with(id) && text.contains("~ running ~ "), "what is cut says so: {text}");
    }

    #[test]
    fn a_question_mark_shows_the_keys_and_any_other_key_goes_back() {
        let mut view = View::new(node(&[("a", None)]));
        assert_eq!(view.key(Key::Help), Wish::Nothing);
        let lines = view.lines(100, 20);
        assert!(lines.iter().any(|line| line.text.contains("only y is a yes")), "{lines:?}");
        for key in [Key::Cancel, Key::Other] {
            assert_eq!(view.key(key), Wish::Nothing, "it goes back, and does nothing else");
            assert!(marked(&mut view).starts_with("a "), "{key:?}");
            view.key(Key::Help);
            view.lines(100, 20);
        }
        assert_eq!(view.key(Key::Quit), Wish::Quit);
    }

    #[test]
    fn the_keys_are_whole_in_a_small_terminal() {
        for (width, height) in [(100, 20), (80, 24), (40, 10), (30, 5)] {
            let mut view = View::new(node(&[("a", None)]));
            view.key(Key::Help);
            let mut words = Vec::new();
            let mut pages = 0;
            loop {
                let lines = view.lines(width, height);
                assert!(lines.len() <= height, "{width}x{height}: {lines:?}");
                words.extend(lines.iter().filter(|line| !line.marked).map(|line| line.text.clone()));
                view.key(Key::Other);
                pages += 1;
                assert!(pages < 50, "{width}x{height}: it never ends");
                if matches!(view.pane, Pane::List) {
                    break;
                }
            }
            let shown = words.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
            let all = ALL_KEYS.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(shown, all, "{width}x{height}");
        }
    }

    #[test]
    fn nothing_that_a_caller_said_moves_the_cursor() {
        let mut view = View::new(node(&[("a", None)]));
        view.cancelled(Ok("\u{1b}[2J".to_owned()));
        assert!(view.lines(100, 20).iter().all(|line| !line.text.contains('\u{1b}')));
    }
}
