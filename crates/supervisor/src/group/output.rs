//! What an instance prints: always read, never waited for, kept in whole lines within a bound.

use std::{
    io,
    os::fd::OwnedFd,
    process::{ChildStderr, ChildStdout},
    sync::{Arc, Mutex, PoisonError},
};

use cancel::{Attempt, InstanceId, RequestId};
use tokio::net::unix::pipe;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::kept::Kept;
use crate::logs::InstanceLog;

/// Read at once.
const CHUNK: usize = 16 * 1024;
/// Read after the end of an instance at most, and by one look: what a pipe holds, and not what an
/// escaped process adds meanwhile.
const LAST_WORDS: usize = 128 * 1024;

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
    /// Where its lines go besides: on the disk, if there is room.
    log: Option<InstanceLog>,
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
        Self::of(instance, output, Kept::default(), None)
    }

    /// The same, and puts every line into a log. `alone`: it serves one request at a time, so that what it prints
    /// meanwhile is of that request.
    pub(crate) fn start_logged(instance: InstanceId, output: Output, log: InstanceLog, alone: bool) -> Self {
        Self::of(instance, output, Kept::logged(alone), Some(log))
    }

    fn of(instance: InstanceId, output: Output, kept: Kept, log: Option<InstanceLog>) -> Self {
        let pipes = [output.stdout, output.stderr];
        let shared = Arc::new(Shared { instance, pipes, log, kept: Mutex::new(kept) });
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
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).tail(lines)
    }

    /// From now on the instance holds this request; what it printed before is not of it.
    pub(crate) fn begin(&self, request: RequestId, attempt: Attempt) {
        self.shared.take_what_is_there();
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).begin(request, attempt);
    }

    /// It does not hold it any more; what it printed until now may be of it.
    pub(crate) fn end(&self, request: RequestId) {
        self.shared.take_what_is_there();
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.end(request);
        self.shared.hand_on(&mut kept);
    }

    /// How many whole lines were read so far.
    pub(crate) fn read(&self) -> u64 {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner).pushed
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
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.close();
        self.shared.hand_on(&mut kept);
        drop(kept);
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
        self.hand_on(&mut kept);
        Ok(read)
    }

    /// Under the lock, so that the log has them in the order they were kept in. It never waits.
    fn hand_on(&self, kept: &mut Kept) {
        if let Some(log) = &self.log {
            log.put(kept.take_printed());
        }
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
