//! The lines of an instance: put together from what its pipes give, kept within a bound, and each with the
//! request it is of, as far as that can be known.

use std::collections::VecDeque;

use bytes::Bytes;
use cancel::{Attempt, InstanceId, RequestId};

use super::output::OutputRing;
use crate::logs::{Printed, Stream, marked};

/// A line is cut here.
const MAX_LINE: usize = 4 * 1024;

/// A line of which the end was not read yet.
#[derive(Default)]
struct Open {
    bytes: Vec<u8>,
    /// It is too long: the rest of it is skipped.
    cut: bool,
    /// So much of it is in the log already: the request that began it was over.
    logged: usize,
}

#[derive(Default)]
pub(super) struct Kept {
    lines: VecDeque<Bytes>,
    /// Of all lines, with a line feed for each.
    bytes: usize,
    /// Lines that were ever there.
    pub(super) pushed: u64,
    open: [Open; 2],
    /// Somebody takes what was printed to the log.
    logging: bool,
    /// Lines that were ever on their way to the log.
    logged: u64,
    printed: Vec<Printed>,
    /// One request at a time: what is printed meanwhile is of it.
    alone: bool,
    /// The requests that the instance holds. As many as it may have at once.
    held: Vec<(RequestId, Attempt)>,
}

impl Kept {
    pub(super) fn logged(alone: bool) -> Self {
        Self { logging: true, alone, ..Self::default() }
    }

    pub(super) fn begin(&mut self, request: RequestId, attempt: Attempt) {
        self.held.retain(|(held, _)| *held != request);
        self.held.push((request, attempt));
    }

    /// Whoever serves one request at a time has printed what is there of a line for this one.
    pub(super) fn end(&mut self, request: RequestId) {
        if self.alone && self.held.iter().any(|(held, _)| *held == request) {
            self.log_open();
        }
        self.held.retain(|(held, _)| *held != request);
    }

    /// Nothing more comes.
    pub(super) fn close(&mut self) {
        self.log_open();
    }

    /// What is to be put into the log since it was last asked.
    pub(super) fn take_printed(&mut self) -> Vec<Printed> {
        std::mem::take(&mut self.printed)
    }

    pub(super) fn tail(&self, lines: usize) -> String {
        let open = self.open.iter().filter(|open| !open.bytes.is_empty()).map(|open| open.bytes.as_slice());
        let all = self.lines.iter().map(|line| &line[..]).chain(open);
        let count = all.clone().count();
        let last: Vec<_> = all.skip(count.saturating_sub(lines)).map(String::from_utf8_lossy).collect();
        last.join("\n")
    }

    pub(super) fn add(&mut self, pipe: usize, bytes: &[u8], instance: InstanceId) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let open = &mut self.open[pipe];
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = MAX_LINE - open.bytes.len().min(MAX_LINE);
            if !open.cut {
                open.bytes.extend_from_slice(&text[..text.len().min(room)]);
                if text.len() > room {
                    open.bytes.extend_from_slice(OutputRing::CUT.as_bytes());
                    open.cut = true;
                }
            }
            if part.len() > text.len() {
                let Open { bytes, logged, .. } = std::mem::take(open);
                let line = Bytes::from(bytes);
                tracing::debug!(%instance, "{}", String::from_utf8_lossy(&line));
                if logged == 0 || logged < line.len() {
                    self.log(pipe, line.slice(logged..));
                }
                self.push(line);
            }
        }
    }

    fn log(&mut self, pipe: usize, text: Bytes) {
        if !self.logging {
            return;
        }
        let held = match self.alone {
            true => self.held.first().copied(),
            // Only of a request that it holds: a mark is whatever somebody prints.
            false => marked(&text).find_map(|id| self.held.iter().find(|(held, _)| *held == id).copied()),
        };
        let stream = if pipe == 0 { Stream::Stdout } else { Stream::Stderr };
        self.logged += 1;
        self.printed.push(Printed { n: self.logged, stream, held, text });
    }

    /// What is there of lines that have not ended goes into the log as it is.
    fn log_open(&mut self) {
        for pipe in 0..self.open.len() {
            let open = &mut self.open[pipe];
            if open.logged < open.bytes.len() {
                let text = Bytes::copy_from_slice(&open.bytes[open.logged..]);
                open.logged = open.bytes.len();
                self.log(pipe, text);
            }
        }
    }

    pub(super) fn since(&self, printed: u64, bytes: usize) -> String {
        let new = usize::try_from(self.pushed.saturating_sub(printed)).unwrap_or(usize::MAX);
        let open = self.open.iter().rev().map(|open| open.bytes.as_slice()).filter(|open| !open.is_empty());
        let newest_first = open.chain(self.lines.iter().rev().take(new).map(|line| &line[..]));
        let (mut lines, mut room) = (Vec::new(), bytes);
        for line in newest_first {
            let line = String::from_utf8_lossy(line);
            if line.len() < room {
                room -= line.len() + 1;
                lines.push(line.into_owned());
                continue;
            }
            if lines.is_empty() {
                lines.push(line[line.ceil_char_boundary(line.len() - room.min(line.len()))..].to_owned());
            }
            break;
        }
        lines.reverse();
        lines.join("\n")
    }

    fn push(&mut self, line: Bytes) {
        self.bytes += line.len() + 1;
        self.pushed += 1;
        self.lines.push_back(line);
        // Room for two open lines too, so that what is shown keeps the bound.
        let bound = OutputRing::KEPT_BYTES - 2 * (MAX_LINE + OutputRing::CUT.len() + 1);
        while self.bytes > bound
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.len() + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_together_from_pieces_and_stay_within_the_bound() {
        let mut kept = Kept::default();
        for piece in [&b"one\ntw"[..], b"o", b"\n\n", b"three"] {
            kept.add(0, piece, InstanceId(1));
        }
        assert_eq!(kept.lines, [&b"one"[..], b"two", b""]);
        assert_eq!(kept.open[0].bytes, b"three");
        for _ in 0..1_000 {
            kept.add(1, b"\n", InstanceId(1));
            kept.add(1, &[b'x'; MAX_LINE * 2], InstanceId(1));
        }
        let held: usize = kept.lines.iter().map(|line| line.len() + 1).sum();
        assert_eq!(held, kept.bytes);
        assert!(
            held + kept.open.iter().map(|open| open.bytes.len()).sum::<usize>() <= OutputRing::KEPT_BYTES
        );
    }

    #[test]
    fn what_was_printed_since_a_moment_is_whole_lines_from_the_end() {
        let mut kept = Kept::default();
        kept.add(0, b"old\nalso old\nbegun", InstanceId(1));
        let before = kept.pushed;
        assert_eq!(kept.since(before, 100), "begun", "a line that is not over may still become one");
        kept.add(0, b" before\nnew\n", InstanceId(1));
        kept.add(1, b"to stderr", InstanceId(1));
        assert_eq!(kept.since(before, 100), "begun before\nnew\nto stderr");
        assert_eq!(kept.since(before, 14), "new\nto stderr");
        assert_eq!(kept.since(before, 4), "derr");
        assert_eq!(kept.since(before, 0), "");
        kept.add(1, "\n\u{e9}\u{e9}\n".as_bytes(), InstanceId(1));
        assert_eq!(kept.since(before + 3, 3), "\u{e9}", "no half of a character");
    }

    #[test]
    fn a_line_of_just_the_limit_is_not_cut() {
        let mut kept = Kept::default();
        kept.add(0, &[b'x'; MAX_LINE], InstanceId(1));
        kept.add(0, b"\n", InstanceId(1));
        kept.add(0, &[b'x'; MAX_LINE], InstanceId(1));
        kept.add(0, b"y\nz\n", InstanceId(1));
        assert_eq!(kept.lines[0].len(), MAX_LINE);
        assert!(kept.lines[1].ends_with(OutputRing::CUT.as_bytes()));
        assert_eq!(kept.lines[2], &b"z"[..]);
    }

    const ONE: RequestId = RequestId(1);
    const TWO: RequestId = RequestId(2);

    /// What goes to the log: each line with the request it is of.
    fn logged(kept: &mut Kept) -> Vec<(u64, Option<RequestId>, String)> {
        let shown = |line: Printed| {
            (line.n, line.held.map(|(id, _)| id), String::from_utf8_lossy(&line.text).into_owned())
        };
        kept.take_printed().into_iter().map(shown).collect()
    }

    #[test]
    fn whoever_serves_one_request_at_a_time_prints_for_that_one() {
        let mut kept = Kept::logged(true);
        kept.add(0, b"starts\n", InstanceId(1));
        kept.begin(ONE, Attempt(1));
        kept.add(0, b"first\nhalf", InstanceId(1));
        kept.end(ONE);
        kept.begin(TWO, Attempt(3));
        kept.add(0, b" and half\n", InstanceId(1));
        kept.add(1, format!("INFO {ONE} not mine\n").as_bytes(), InstanceId(1));
        kept.end(TWO);
        kept.add(0, b"after", InstanceId(1));
        kept.close();
        kept.add(0, b"\n", InstanceId(1));
        let lines = [
            (1, None, "starts".to_owned()),
            (2, Some(ONE), "first".to_owned()),
            (3, Some(ONE), "half".to_owned()),
            (4, Some(TWO), " and half".to_owned()),
            (5, Some(TWO), format!("INFO {ONE} not mine")),
            (6, None, "after".to_owned()),
        ];
        assert_eq!(logged(&mut kept), lines);
        assert_eq!(kept.lines[2], &b"half and half"[..], "the ring has whole lines");
    }

    #[test]
    fn whoever_serves_several_marks_lines_and_only_those_of_requests_it_holds_count() {
        let mut kept = Kept::logged(false);
        kept.begin(ONE, Attempt(1));
        let said =
            format!("plain\nT INFO {ONE} one\n{ONE} also\nT INFO {TWO} not held\na b c {ONE} too late\n");
        kept.add(0, said.as_bytes(), InstanceId(1));
        kept.end(ONE);
        kept.add(0, format!("{ONE} over\n\n").as_bytes(), InstanceId(1));
        let owners: Vec<_> = logged(&mut kept).into_iter().map(|(_, owner, _)| owner).collect();
        assert_eq!(owners, [None, Some(ONE), Some(ONE), None, None, None, None]);
    }
}
