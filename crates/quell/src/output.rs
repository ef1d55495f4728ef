//! What people see: lines on stdout, logs and errors on stderr.
#![allow(clippy::print_stdout, clippy::print_stderr)] // the one module whose job it is

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write},
    process::ExitCode,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::json;
use tracing_subscriber::{EnvFilter, reload};

use crate::{
    client::ClientError,
    settings::{LogFormat, Mistakes},
    terminal,
};

/// Exit codes, as `--help` documents them.
pub(crate) const REFUSED: u8 = 1;
pub(crate) const USAGE: u8 = 2;
pub(crate) const UNREACHABLE: u8 = 3;
pub(crate) const UNAUTHORISED: u8 = 4;
pub(crate) const NOT_FOUND: u8 = 5;
pub(crate) const DRAINING: u8 = 6;
pub(crate) const UNKILLABLE: u8 = 7;
pub(crate) const FUNCTION_FAILED: u8 = 8;
/// Ctrl-C, as a shell says it of a program that it ended.
pub(crate) const INTERRUPTED: u8 = 130;

/// What was typed cannot be meant; in words that say what can.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Prints one line for people or programs. A reader that has seen enough (`| head`) is no error; a disk that is full is
/// one, see [`was_lost`].
pub(crate) fn line(text: impl std::fmt::Display) {
    wanted_line(text);
}

/// The same; whether anybody still reads.
pub(crate) fn wanted_line(text: impl std::fmt::Display) -> bool {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) => {
            lost(&error);
            error.kind() != std::io::ErrorKind::BrokenPipe
        }
        Ok(()) => true,
    }
}

/// Whether something of stdout came to nothing, and not because nobody wanted more of it.
static LOST: AtomicBool = AtomicBool::new(false);

pub(crate) fn was_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// Says so once: a full disk does not get better line by line.
fn lost(error: &std::io::Error) {
    if error.kind() != std::io::ErrorKind::BrokenPipe && !LOST.swap(true, Ordering::Relaxed) {
        note(format_args!("quell: the output cannot be written: {error}"));
    }
}

/// Whether lines of the log are JSON: then all that goes to stderr is.
static JSON: AtomicBool = AtomicBool::new(false);

/// Prints a text of many lines as it is.
pub(crate) fn text(text: &str) {
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    drop(written.inspect_err(lost));
}

/// Prints one line beside the result. Nobody can be told that stderr is gone; the node goes on.
pub(crate) fn note(text: impl std::fmt::Display) {
    if !JSON.load(Ordering::Relaxed) {
        return drop(writeln!(std::io::stderr(), "{text}"));
    }
    let timestamp = jiff::Timestamp::now().to_string();
    let line =
        json!({ "timestamp": timestamp, "level": "INFO", "message": text.to_string(), "target": "quell" });
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// stderr that is never full and never gone: a log that cannot be written must not take a node with it
/// (the formatter's own answer to a failed write is a print to stderr, which panics).
struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        drop(std::io::stderr().write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Exchanges what is logged.
type ChangeFilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

static CHANGE_FILTER: OnceLock<ChangeFilter> = OnceLock::new();

/// Logs to stderr what `filter` lets through.
pub(crate) fn start_logging(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|error| {
        note(format_args!("quell: --log is not understood ({error}); logging warnings"));
        EnvFilter::new("warn")
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Log)
        .log_internal_errors(false)
        .with_ansi(terminal::colours_of_stderr())
        .with_target(false);
    let change: ChangeFilter = match format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| handle.reload(filter))
        }
        LogFormat::Json => {
            JSON.store(true, Ordering::Relaxed);
            let builder = builder.json().flatten_event(true).with_target(true).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| handle.reload(filter))
        }
    };
    drop(CHANGE_FILTER.set(change)); // Err: logging was started twice, and `init` has said so
}

/// From now on logs what this filter lets through.
pub(crate) fn change_filter(filter: &str) {
    let changed = EnvFilter::try_new(filter).map_err(|error| error.to_string()).and_then(|filter| {
        let change = CHANGE_FILTER.get().ok_or_else(|| "nothing is logged".to_owned())?;
        change(filter).map_err(|error| error.to_string())
    });
    if let Err(error) = changed {
        tracing::error!(error, filter, "what is logged stays what it was");
    }
}

/// Prints an error with its causes, and picks the exit code that says what kind it was.
pub(crate) fn failed(error: &anyhow::Error) -> ExitCode {
    note(format_args!("quell: {error:#}"));
    if error.is::<Mistakes>() || error.is::<Usage>() {
        return ExitCode::from(USAGE);
    }
    let refused = error.downcast_ref::<ClientError>();
    if let Some(advice) = refused.and_then(ClientError::advice) {
        note(format_args!("quell: {advice}"));
    }
    let code = match refused {
        Some(
            ClientError::Unreachable { .. }
            | ClientError::Distrusted { .. }
            | ClientError::NoTls { .. }
            | ClientError::NoHttp { .. },
        ) => UNREACHABLE,
        Some(ClientError::Refused { status: 401 | 403, .. }) => UNAUTHORISED,
        Some(ClientError::Refused { status: 404, .. }) => NOT_FOUND,
        Some(ClientError::Refused { .. } | ClientError::Garbled(_)) | None => REFUSED,
    };
    ExitCode::from(code)
}

/// A function in a table: without its version where that is `latest`, or not known.
pub(crate) fn function(function: &str, version: &str) -> String {
    if version.is_empty() || version == "latest" {
        return function.to_owned();
    }
    format!("{function}:{version}")
}

/// The clock of this machine, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// How long ago something was, in the largest unit of which there are two or more (`90s`, `15m`, `2h`, `3d`). By the
/// clock of whoever looks: what a node elsewhere says is yet to come is 0s old.
pub(crate) fn age(since_ms: i64, now_ms: i64) -> String {
    let seconds = now_ms.saturating_sub(since_ms).max(0) / 1_000;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// What a function or a caller said: a terminal gets no control characters of it.
pub(crate) fn for_people(text: &str) -> String {
    if std::io::stdout().is_terminal() { terminal::escaped(text) } else { text.to_owned() }
}

/// Labels in a table.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// Prints rows under a header.
pub(crate) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) {
    table_lines(header, rows).into_iter().for_each(line);
}

/// Rows under a header, columns as wide as they need to be; in colours where stdout takes them.
pub(crate) fn table_lines<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> Vec<String> {
    let colours = terminal::colours();
    // What a caller said must not reach into a terminal; a file or a program gets it as it is.
    let rows: Vec<[String; N]> = rows
        .iter()
        .map(|row| if colours { row.each_ref().map(|cell| terminal::escaped(cell)) } else { row.clone() })
        .collect();
    let mut widths = header.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let render = |cells: [&str; N], paint: fn(&str) -> String| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            line.push_str(&if colours { paint(cell) } else { (*cell).to_owned() });
            let pad = width.saturating_sub(cell.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', pad));
        }
        line.trim_end().to_owned()
    };
    let mut lines = vec![render(header, terminal::bold)];
    lines.extend(rows.iter().map(|row| render(row.each_ref().map(String::as_str), terminal::tinted)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_short_and_never_negative() {
        for (ms, shown) in [
            (-5_000, "0s"),
            (999, "0s"),
            (119_999, "119s"),
            (120_000, "2m"),
            (7_199_999, "119m"),
            (7_200_000, "2h"),
            (172_799_999, "47h"),
            (172_800_000, "2d"),
        ] {
            assert_eq!(age(1_000_000, 1_000_000 + ms), shown, "{ms}");
        }
        assert_eq!(age(i64::MIN, i64::MAX), format!("{}d", i64::MAX / 86_400_000));
    }
}
