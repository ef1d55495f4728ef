//! What is only for people at a terminal: colours, a line that changes, a question. Everywhere else none of it
//! is printed.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;
use tokio::sync::oneshot;

use crate::{output, signals::EndSignals};

/// Whether stdout takes colours: a terminal that is none of a printer's, and nobody said `NO_COLOR`.
pub(crate) fn colours() -> bool {
    are_wanted() && std::io::stdout().is_terminal()
}

/// The same of stderr.
pub(crate) fn colours_of_stderr() -> bool {
    are_wanted() && std::io::stderr().is_terminal()
}

fn are_wanted() -> bool {
    let said = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !said && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

const BOLD: &str = "1";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const CYAN: &str = "36";

/// The colour of a cell by what it begins with: states and results, wherever they stand.
fn colour_of(cell: &str) -> Option<&'static str> {
    let word = cell.split([' ', ',']).next().unwrap_or_default();
    Some(match word {
        "running" | "ready" | "stopped" | "acknowledged" | "reaped" => GREEN,
        "queued" | "placed" | "starting" | "removed" => CYAN,
        _ if cell.contains("stopping") => YELLOW,
        "draining" | "ending" | "asked" | "interrupted" => YELLOW,
        "killed" | "unkillable" | "quarantined" | "not_recorded" | "stuck" => RED,
        _ => return None,
    })
}

/// A cell in its colour.
pub(crate) fn tinted(cell: &str) -> String {
    colour_of(cell).map_or_else(|| cell.to_owned(), |colour| format!("\x1b[{colour}m{cell}\x1b[0m"))
}

/// A header.
pub(crate) fn bold(text: &str) -> String {
    format!("\x1b[{BOLD}m{text}\x1b[0m")
}

/// Control characters, written out: nothing that a function or a caller said moves a cursor or sets a title.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\t' => out.push('\t'),
            letter if letter.is_control() || is_bidi(letter) => out.extend(letter.escape_default()),
            letter => out.push(letter),
        }
    }
    out
}

/// Characters that make a text look like another.
fn is_bidi(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line of stderr that says how far something is; nothing where stderr is no terminal. Gone with it.
pub(crate) struct Progress {
    shown: bool,
    last: String,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal(), last: String::new() }
    }

    pub(crate) fn say(&mut self, text: String) {
        if self.shown && text != self.last {
            // Nobody can be told that stderr is gone.
            drop(write!(std::io::stderr(), "\r\x1b[K{text}").and_then(|()| std::io::stderr().flush()));
            self.last = text;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.last.is_empty() {
            drop(write!(std::io::stderr(), "\r\x1b[K"));
        }
    }
}

/// Whether somebody can be asked.
pub(crate) fn somebody_is_there() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
    /// Ctrl-C or SIGTERM came in its place.
    Ended,
}

/// Asks; everything but a yes is a no, and whoever ends the program has said no as well.
pub(crate) async fn ask(question: &str, signals: &mut EndSignals) -> anyhow::Result<Answer> {
    drop(write!(std::io::stderr(), "{question} [y/N] ").and_then(|()| std::io::stderr().flush()));
    let (tell, told) = oneshot::channel();
    // A thread of its own, and none that the runtime would wait for at its end: nothing ends a read of a terminal.
    std::thread::spawn(move || {
        let mut answer = String::new();
        let read = std::io::stdin().read_line(&mut answer).map(|count| (count, answer));
        drop(tell.send(read)); // nobody waits for it after a signal
    });
    let (count, answer) = tokio::select! {
        read = told => read.context("the answer was not read")??,
        () = signals.next() => {
            output::note("");
            return Ok(Answer::Ended);
        }
    };
    if count == 0 {
        output::note("");
    }
    let yes = ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str());
    Ok(if yes { Answer::Yes } else { Answer::No })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_function_prints_reaches_into_a_terminal() {
        assert_eq!(escaped("plain \u{e9}\ttab"), "plain \u{e9}\ttab");
        assert_eq!(
            escaped("\u{1b}]0;title\u{7}\r\u{9b}2J\u{202e}"),
            "\\u{1b}]0;title\\u{7}\\r\\u{9b}2J\\u{202e}"
        );
    }

    #[test]
    fn states_have_colours_and_names_have_none() {
        assert_eq!(colour_of("running async"), Some(GREEN));
        assert_eq!(colour_of("queued async, stopping (ask)"), Some(CYAN));
        assert_eq!(colour_of("draining 4208"), Some(YELLOW));
        assert_eq!(colour_of("default:running-man"), None);
        assert_eq!(tinted("f"), "f");
    }
}
