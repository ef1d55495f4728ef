//! What an instance prints: always read, never waited for, kept within a bound.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    process::{ChildStderr, ChildStdout},
    sync::{Arc, Mutex, PoisonError},
};

use cancel::InstanceId;
use tokio::{io::AsyncReadExt as _, net::unix::pipe};
use tokio_util::sync::CancellationToken;

/// Bytes of output kept of one instance: the last screenfuls, which is what a person looks at.
const KEPT: usize = 64 * 1024;
/// Read at once; the size of a Linux pipe.
const CHUNK: usize = 64 * 1024;
/// Read after the end of an instance at most: what was in the pipes, not what an escaped process adds.
const LAST_WORDS: usize = 2 * CHUNK;
/// A line that is passed on to the log is cut here.
const LOGGED_LINE: usize = 4 * 1024;

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

/// The last of what an instance printed. Cheap to clone.
#[derive(Clone)]
pub struct OutputRing {
    kept: Arc<Mutex<VecDeque<u8>>>,
    end: CancellationToken,
}

impl OutputRing {
    /// Reads the pipes from now on, in a task of its own: a runtime never blocks on them, and they
    /// never fill memory.
    pub fn start(instance: InstanceId, output: Output) -> Self {
        let ring = Self { kept: Arc::default(), end: CancellationToken::new() };
        let Output { stdout, stderr } = output;
        tokio::spawn(ring.clone().drain(instance, stdout));
        tokio::spawn(ring.clone().drain(instance, stderr));
        ring
    }

    /// The last `lines` lines, in the order they were read; bytes that are not UTF-8 are shown as such.
    pub fn tail(&self, lines: usize) -> String {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(kept.make_contiguous()).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The instance is gone: take what is in the pipes now and stop. A pipe may be held open by a
    /// process elsewhere; its end is not waited for.
    pub fn finish(&self) {
        self.end.cancel();
    }

    async fn drain(self, instance: InstanceId, mut pipe: pipe::Receiver) {
        let mut buffer = vec![0; CHUNK];
        loop {
            tokio::select! {
                biased; // a stranger that floods the pipe must not keep the end from being seen
                () = self.end.cancelled() => break,
                read = pipe.read(&mut buffer) => match read {
                    Ok(0) => return,
                    Ok(read) => self.keep(instance, &buffer[..read]),
                    Err(error) => return tracing::warn!(%instance, %error, "output cannot be read"),
                },
            }
        }
        let mut taken = 0;
        while taken < LAST_WORDS {
            match pipe.try_read(&mut buffer) {
                Ok(read) if read > 0 => {
                    taken += read;
                    self.keep(instance, &buffer[..read]);
                }
                _ => return, // its end, or nothing more for now
            }
        }
    }

    fn keep(&self, instance: InstanceId, bytes: &[u8]) {
        if tracing::enabled!(tracing::Level::DEBUG) {
            for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let line = &line[..line.len().min(LOGGED_LINE)];
                tracing::debug!(%instance, "{}", String::from_utf8_lossy(line));
            }
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let over = (kept.len() + bytes.len()).saturating_sub(KEPT).min(kept.len());
        kept.drain(..over);
        kept.extend(&bytes[bytes.len().saturating_sub(KEPT)..]);
    }
}
