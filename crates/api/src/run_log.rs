//! The log of one synchronous invocation: what its instance printed, between a line for its start and one for
//! its end, in the format of the API (`functiongraph.md` 2.1).

use axum::http::HeaderMap;
use base64::Engine as _;
use cancel::RequestId;
use jiff::Timestamp;
use supervisor::RunLog;

use crate::{error::ApiError, response::text_header};

/// Bytes of a log that are sent: its last (`functiongraph.md` 2.1).
const TAIL_BYTES: usize = 2_000;
const SHARED: &str = "[the instance serves several requests at once: lines of others may be among these]";

/// The figures of an invocation, as the summary has them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Milliseconds.
    pub(crate) duration: f64,
    /// Whole milliseconds, begun ones counted.
    pub(crate) billing: u128,
    /// Its function's memory, MB.
    pub(crate) memory: u32,
    /// What its instance used, MB.
    pub(crate) used: Option<f64>,
}

/// Whether `X-Cff-Log-Type` asks for the log.
pub(crate) fn is_asked(headers: &HeaderMap) -> Result<bool, ApiError> {
    match text_header(headers, "x-cff-log-type")? {
        "" => Ok(false),
        "tail" => Ok(true),
        other => Err(ApiError::invalid(format!("X-Cff-Log-Type {other:?} is neither empty nor \"tail\""))),
    }
}

/// The last bytes of the log, from the begin of a character.
pub(crate) fn tail(request: RequestId, version: &str, log: &RunLog, figures: &Figures) -> String {
    let Figures { duration, billing, memory, used } = figures;
    let (start, end) = (time(log.started_ms), time(log.ended_ms));
    let used = used.map(|used| format!(", memory used: {used:.3}MB")).unwrap_or_default();
    let mut text = format!("{start} Start invoke request '{request}', version: {version}\n");
    if log.shared {
        text.push_str(SHARED);
        text.push('\n');
    }
    if !log.output.is_empty() {
        text.push_str(&log.output);
        text.push('\n');
    }
    text.push_str(&format!(
        "{end} Finish invoke request '{request}', duration: {duration:.3}ms, billing duration: {billing}ms\
         {used}, billing memory: {memory}MB\n"
    ));
    let from = text.ceil_char_boundary(text.len().saturating_sub(TAIL_BYTES));
    text.split_off(from)
}

/// As it goes into a header.
pub(crate) fn encoded(log: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(log)
}

fn time(ms: i64) -> String {
    let at = Timestamp::from_millisecond(ms).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: Figures = Figures { duration: 65.828, billing: 66, memory: 128, used: Some(21.4734) };

    fn log(output: &str) -> RunLog {
        RunLog { started_ms: 0, ended_ms: 66, output: output.to_owned(), shared: false }
    }

    #[test]
    fn what_was_printed_is_between_start_and_finish() {
        let request = RequestId(1);
        let text = tail(request, "latest", &log("one\ntwo"), &FIGURES);
        let start = format!("1970-01-01T00:00:00.000Z Start invoke request '{request}', version: latest");
        let finish = format!(
            "1970-01-01T00:00:00.066Z Finish invoke request '{request}', duration: 65.828ms, billing duration: \
             66ms, memory used: 21.473MB, billing memory: 128MB"
        );
        assert_eq!(text.lines().collect::<Vec<_>>(), [start.as_str(), "one", "two", finish.as_str()]);
        let silent = tail(request, "latest", &log(""), &Figures { used: None, ..FIGURES });
        assert_eq!(silent.lines().count(), 2);
        assert!(!silent.contains("memory used"), "{silent}");
        let shared = tail(request, "latest", &RunLog { shared: true, ..log("x") }, &FIGURES);
        assert_eq!(shared.lines().nth(1), Some(SHARED));
    }

    #[test]
    fn only_the_last_bytes_are_sent_and_no_half_of_a_character() {
        let text = tail(RequestId(1), "latest", &log(&"\u{e9}".repeat(3_000)), &FIGURES);
        assert!((TAIL_BYTES - 1..=TAIL_BYTES).contains(&text.len()), "{}", text.len());
        assert!(text.starts_with('\u{e9}') && text.ends_with("128MB\n"));
    }
}
