//! What an instance prints: always read, never waited for, kept in whole lines within a bound.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    process::{ChildStderr, ChildStdout},
    sync::{Arc, Mutex, PoisonError},
};

use cancel::InstanceId;
use tokio::net::unix::pipe;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Read at once.
const CHUNK: usize = 16 * 1024;
/// Read after the end of an instance at most, and by one look: what a pipe holds, and not what an
/// escaped process adds meanwhile.
const LAST_WORDS: usize = 128 * 1024;
/// A line is cut here.
const MAX_LINE: usize = 4 * 1024;

/// The reading ends of an instance's stdout and stderr.
pub struct Output {
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

impl Output {
    pub(super) fn of(stdout: ChildStdout, stderr: ChildStderr) -> io::Result<Self> {
        let stdout = pipe::Receiver::from_owned_fd(OwnedFd::from(stdout))?;
        Ok(Self { stdout, stderr: pipe::Receiver::from_owned_fd(OwnedFd::from(stderr))? })
    }
}

/// The last of what an instance printed. Cheap to clone; the pipes are closed with the last clone.
#[derive(Clone)]
pub struct OutputRing {
    shared: Arc<Shared>,
    end: CancellationToken,
    readers: TaskTracker,
}

struct Shared {
    instance: InstanceId,
    pipes: [pipe::Receiver; 2],
    /// Held while a pipe is read, so that its bytes are kept in their order whoever reads.
    kept: Mutex<Kept>,
}

impl OutputRing {
    /// Bytes of output kept of one instance: the last screenfuls, which is what a person looks at.
    pub const KEPT_BYTES: usize = 64 * 1024;
    /// Ends a line that was cut.
    pub const CUT: &str = " [cut]";

    /// Reads the pipes from now on, in tasks of its own: a runtime never blocks on them, and they
    /// never fill memory.
    pub fn start(instance: InstanceId, output: Output) -> Self {
        let pipes = [output.stdout, output.stderr];
        let shared = Arc::new(Shared { instance, pipes, kept: Mutex::default() });
        let ring = Self { shared, end: CancellationToken::new(), readers: TaskTracker::new() };
        for pipe in 0..ring.shared.pipes.len() {
            ring.readers.spawn(drain(Arc::clone(&ring.shared), pipe, ring.end.clone()));
        }
        ring.readers.close();
        ring
    }

    /// The last `lines` lines, in the order they were read, with what is in the pipes at this moment:
    /// all that a process printed before it was seen to have ended. Bytes that are not UTF-8 are shown
    /// as such.
    pub fn tail(&self, lines: usize) -> String {
        self.shared.take_what_is_there();
        let kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let open = kept.open.iter().filter(|open| !open.bytes.is_empty()).map(|open| open.bytes.as_slice());
        let all = kept.lines.iter().map(Vec::as_slice).chain(open);
        let count = all.clone().count();
        let last: Vec<_> = all.skip(count.saturating_sub(lines)).map(String::from_utf8_lossy).collect();
        last.join("\n")
    }

    /// How many whole lines were read so far, with what is in the pipes at this moment.
    pub fn printed(&self) -> u64 {
        self.shared.take_what_is_there();
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).pushed
    }

    /// What was printed after `printed` whole lines, as far as it is kept: the last lines of it that fit into
    /// so many bytes; of a single line that does not fit, its end.
    pub fn since(&self, printed: u64, bytes: usize) -> String {
        self.shared.take_what_is_there();
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).since(printed, bytes)
    }

    /// The instance is gone: take what is in the pipes now and stop. A pipe may be held open by a
    /// process elsewhere; its end is not waited for.
    pub fn finish(&self) {
        self.shared.take_what_is_there();
        self.end.cancel();
    }

    /// Resolves when nothing is read any more: after [`OutputRing::finish`], or at the end of both
    /// pipes. Cancellation-safe.
    pub async fn finished(&self) {
        self.readers.wait().await;
    }
}

/// Reads one pipe until its end or ours.
async fn drain(shared: Arc<Shared>, pipe: usize, end: CancellationToken) {
    loop {
        let readable = tokio::select! {
            biased; // a stranger that floods the pipe must not keep the end from being seen
            () = end.cancelled() => return,
            readable = shared.pipes[pipe].readable() => readable,
        };
        let read = readable.and_then(|()| shared.read(pipe, |receiver, chunk| receiver.try_read(chunk)));
        match read {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                return tracing::warn!(instance = %shared.instance, %error, "output cannot be read");
            }
        }
    }
}

impl Shared {
    fn read(
        &self,
        pipe: usize,
        read: impl FnOnce(&pipe::Receiver, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut chunk = [0; CHUNK];
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let read = read(&self.pipes[pipe], &mut chunk)?;
        kept.add(pipe, &chunk[..read], self.instance);
        Ok(read)
    }

    /// Straight from the kernel: the reactor may not have been told yet of what was printed last.
    fn take_what_is_there(&self) {
        for pipe in 0..self.pipes.len() {
            let mut taken = 0;
            while taken < LAST_WORDS {
                match self.read(pipe, |receiver, chunk| Ok(rustix::io::read(receiver, chunk)?)) {
                    Ok(read) if read > 0 => taken += read,
                    // Its end, or nothing more for now; an error is the reader's to tell.
                    Ok(_) | Err(_) => break,
                }
            }
        }
    }
}

/// A line of which the end was not read yet.
#[derive(Default)]
struct Open {
    bytes: Vec<u8>,
    /// It is too long: the rest of it is skipped.
    cut: bool,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<Vec<u8>>,
    /// Of all lines, with a line feed for each.
    bytes: usize,
    /// Lines that were ever there.
    pushed: u64,
    open: [Open; 2],
}

impl Kept {
    fn add(&mut self, pipe: usize, bytes: &[u8], instance: InstanceId) {
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
                let line = std::mem::take(open).bytes;
                tracing::debug!(%instance, "{}", String::from_utf8_lossy(&line));
                self.push(line);
            }
        }
    }

    fn since(&self, printed: u64, bytes: usize) -> String {
        let new = usize::try_from(self.pushed.saturating_sub(printed)).unwrap_or(usize::MAX);
        let open = self.open.iter().rev().map(|open| open.bytes.as_slice()).filter(|open| !open.is_empty());
        let newest_first = open.chain(self.lines.iter().rev().take(new).map(Vec::as_slice));
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

    fn push(&mut self, line: Vec<u8>) {
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
        assert_eq!(kept.lines[2], b"z");
    }
}
