//! Logs for whoever asks: one answer, or one line after another until whoever prints them has ended.
//!
//! A follower holds a place in files and not lines: one that is slow finds them deleted, and a mark says how many.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::{
    Logs,
    read::{LogOf, LogQuery, Named, Reader},
};
use crate::{handle::Handle, message::Message};

/// Between two looks at what was written: a flood is followed in pieces, and not line by line.
const PAUSE: Duration = Duration::from_millis(50);
/// And so many times as long as the last look took: a follower of thousands of files is a small part of the load.
const PAUSE_SHARE: u32 = 10;

/// Why there is no log to be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// This node keeps none.
    #[error("this node keeps no logs")]
    None,
    /// Nobody of that name was seen.
    #[error("it is not there")]
    Unknown,
    /// Too many follow already.
    #[error("too many follow logs already")]
    Busy,
    /// They cannot be read.
    #[error("the logs cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// What the shell knows of what a log is of.
pub(crate) struct Live {
    pub(crate) named: Named,
    /// Closed when it has ended; `None` if it has, or never was.
    pub(crate) ended: Option<oneshot::Receiver<()>>,
}

impl Handle {
    async fn logged(&self, of: LogOf, project: String) -> Option<Live> {
        let (respond, answer) = oneshot::channel();
        self.inbox.send(Message::LogAsked { of, project, respond }).await.ok()?;
        answer.await.ok()
    }

    /// Lines of a log, each a JSON object and a line feed. [`LogError::Unknown`] if nothing of it was ever kept and
    /// it is not live.
    ///
    /// # Errors
    /// See [`LogError`].
    pub async fn log(&self, of: LogOf, project: String, query: LogQuery) -> Result<Bytes, LogError> {
        let logs = self.logs.clone().ok_or(LogError::None)?;
        let live = self.logged(of, project).await.ok_or(LogError::Unknown)?;
        logs.flush().await;
        let is_live = live.ended.is_some();
        let reader = Reader::new(&logs.shared.dir, live.named, query.since_ms);
        let (_, (lines, found)) = logs.read(reader, move |reader| reader.page(query)).await?;
        if found || is_live { Ok(lines.into()) } else { Err(LogError::Unknown) }
    }

    /// The same, and what is printed from then on, until what it is of has ended.
    ///
    /// # Errors
    /// See [`LogError`].
    pub async fn follow_log(
        &self,
        of: LogOf,
        project: String,
        query: LogQuery,
    ) -> Result<Follower, LogError> {
        let logs = self.logs.clone().ok_or(LogError::None)?;
        let place = logs.shared.followers.clone().try_acquire_owned().map_err(|_| LogError::Busy)?;
        let live = self.logged(of, project).await.ok_or(LogError::Unknown)?;
        logs.flush().await;
        let mut written = logs.shared.written.clone();
        written.mark_unchanged();
        let is_live = live.ended.is_some();
        let reader = Reader::new(&logs.shared.dir, live.named, query.since_ms);
        let (reader, (lines, found)) = logs.read(reader, move |reader| reader.page(query)).await?;
        if !found && !is_live {
            return Err(LogError::Unknown);
        }
        let first = Some(lines).filter(|lines| !lines.is_empty());
        Ok(Follower { logs, reader: Some(reader), first, ended: live.ended, written, _place: place })
    }
}

impl Logs {
    /// Reads files where that may block.
    async fn read<T: Send + 'static>(
        &self,
        mut reader: Reader,
        read: impl FnOnce(&mut Reader) -> T + Send + 'static,
    ) -> io::Result<(Reader, T)> {
        // Never closed.
        let turn = self.shared.readers.clone().acquire_owned().await.map_err(io::Error::other)?;
        let done = tokio::task::spawn_blocking(move || {
            let done = read(&mut reader);
            drop(turn);
            (reader, done)
        });
        done.await.map_err(io::Error::other)
    }
}

/// Follows a log. It reads no further than it is asked to.
pub struct Follower {
    logs: Logs,
    /// Lost only if reading it panicked.
    reader: Option<Reader>,
    first: Option<Vec<u8>>,
    ended: Option<oneshot::Receiver<()>>,
    written: watch::Receiver<u64>,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// The next lines; `None` after the last. Not cancellation-safe: what a dropped call had read is gone.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first.into());
        }
        loop {
            self.written.mark_unchanged();
            // Before the look: what was printed until its end is on the disk then, or lost.
            let over = match &mut self.ended {
                None => true,
                Some(ended) => ended.try_recv() == Err(oneshot::error::TryRecvError::Closed),
            };
            if over && self.ended.take().is_some() {
                self.logs.flush().await;
            }
            let begun = Instant::now();
            let (reader, (lines, more)) = self.logs.read(self.reader.take()?, Reader::news).await.ok()?;
            self.reader = Some(reader);
            let took = begun.elapsed();
            if !lines.is_empty() {
                return Some(lines.into());
            }
            if more {
                continue;
            }
            let ended = self.ended.as_mut()?;
            tokio::select! {
                _ = ended => {
                    self.ended = None;
                    self.logs.flush().await;
                }
                changed = self.written.changed() => {
                    if changed.is_err() {
                        self.ended = None; // the writer has ended
                    }
                    tokio::time::sleep(PAUSE.max(took * PAUSE_SHARE)).await;
                }
            }
        }
    }
}
