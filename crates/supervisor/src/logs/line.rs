//! One line of a log: as it is printed, as it is kept, and which request it is of.

use bytes::Bytes;
use cancel::{Attempt, RequestId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Words at the begin of a line among which its mark is looked for: a logger writes a time and a level before it.
const MARK_WORDS: usize = 3;
/// Letters of a request id.
const ID_LENGTH: usize = 36;

/// Where a line came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// The node says it: that lines are missing here.
    Node,
}

/// A line on its way to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Printed {
    /// Counted from 1 for each instance: a number that is missing is a line that is.
    pub(crate) n: u64,
    pub(crate) stream: Stream,
    /// The request it is of, if that is known.
    pub(crate) held: Option<(RequestId, Attempt)>,
    pub(crate) text: Bytes,
}

/// A line as it is on the disk and goes out: one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When it was read, in milliseconds since the Unix epoch.
    pub ms: i64,
    /// The instance that printed it.
    pub instance: String,
    /// Its number among the lines of that instance, from 1.
    pub n: u64,
    /// The request it is of; null: of the instance, as far as is known.
    pub request: Option<String>,
    /// Which delivery of that request.
    pub attempt: Option<u32>,
    /// Where it came out.
    pub stream: Stream,
    /// What was printed. Bytes that are not UTF-8 are U+FFFD.
    pub text: String,
    /// So many lines, from number `n` on, are missing here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl LogLine {
    pub(super) fn of(printed: &Printed, instance: &str, ms: i64) -> Self {
        Self {
            ms,
            instance: instance.to_owned(),
            n: printed.n,
            request: printed.held.map(|(request, _)| request.to_string()),
            attempt: printed.held.map(|(_, attempt)| attempt.0),
            stream: printed.stream,
            text: String::from_utf8_lossy(&printed.text).into_owned(),
            lost: 0,
        }
    }

    /// The mark of lines that are missing.
    pub(super) fn lost(instance: &str, ms: i64, from: u64, lost: u64, request: Option<RequestId>) -> Self {
        let plural = if lost == 1 { "" } else { "s" };
        Self {
            ms,
            instance: instance.to_owned(),
            n: from,
            request: request.map(|request| request.to_string()),
            attempt: None,
            stream: Stream::Node,
            text: format!("[{lost} line{plural} lost]"),
            lost,
        }
    }

    pub(super) fn write(&self, into: &mut Vec<u8>) {
        // Text and numbers, into memory: there is nothing that could fail.
        if serde_json::to_writer(&mut *into, self).is_ok() {
            into.push(b'\n');
        }
    }
}

/// The request ids among the first words of a line: its marks, if it holds those requests.
pub(crate) fn marked(text: &[u8]) -> impl Iterator<Item = RequestId> {
    let words = text.split(|byte| *byte == b' ').take(MARK_WORDS);
    let ids = words.filter(|word| word.len() == ID_LENGTH);
    ids.filter_map(|word| std::str::from_utf8(word).ok().and_then(RequestId::parse))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_json_object_whatever_was_printed() {
        let text = Bytes::from_static(b"\x1b[2J\"quoted\"\\ \xff\r");
        let held = Some((RequestId(7), Attempt(2)));
        let line = LogLine::of(&Printed { n: 9, stream: Stream::Stderr, held, text }, "i4", 1_000);
        let mut bytes = Vec::new();
        line.write(&mut bytes);
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(
            bytes.iter().all(|byte| *byte >= b' ' || *byte == b'\n'),
            "no control character is on the disk"
        );
        assert_eq!(serde_json::from_slice::<LogLine>(&bytes).unwrap(), line);
        assert_eq!(line.text, "\u{1b}[2J\"quoted\"\\ \u{fffd}\r");
        let lost = LogLine::lost("i4", 0, 10, 5, None);
        assert_eq!((lost.n, lost.lost, lost.text.as_str()), (10, 5, "[5 lines lost]"));
    }
}
