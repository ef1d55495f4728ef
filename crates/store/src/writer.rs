//! The one thread that writes, and commits in groups.
//!
//! A write is a closure over the open transaction. The writer takes what is waiting, up to a bound,
//! runs each in a savepoint of its own so that one that fails takes no other with it, commits once,
//! and only then tells anybody (I6).

use std::{
    io,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use meter::{Counter, Histogram};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{StoreError, StoreFuture, fault::unwritable};

#[cfg(test)]
mod tests;

/// Writes that wait for the writer. At 6,000 commits a second, groups not counted, less than a
/// second of work; more would be a disk that cannot keep up, and callers should know.
const WRITES: usize = 4_096;
/// Places that new work may not take: a flood of accepts must not refuse the cancels and the
/// settlements of what is already running.
const RESERVED: usize = 1_024;
/// Bytes of events and code that wait for the writer. One bigger than all of it goes alone.
const WAITING_BYTES: u32 = 128 << 20;
/// Writes in one commit: enough to make the sync cheap for each, few enough to keep it short.
const GROUP: usize = 256;

/// Runs in a group; returns what to do once the group's fate is known.
type Write = Box<dyn FnOnce(&mut Group<'_>) -> Tell + Send>;
/// Gets the fate of the group.
type Tell = Box<dyn FnOnce(&Result<(), StoreError>) + Send>;

/// What the writer counts.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Commits, those that failed too: from the first write of a group until the disk has it.
    pub commits: Histogram,
    /// Writes that were in them.
    pub writes: Counter,
    /// Commits that failed, and took their writes back.
    pub failed: Counter,
}

/// The queue of writes and the thread behind it. Dropping it waits until all that was queued is
/// written: nothing writes behind the back of who opens the folder next.
pub(crate) struct Writer {
    queue: Mutex<Option<Queue>>,
    bytes: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
    metrics: Arc<StoreMetrics>,
}

struct Queue {
    writes: mpsc::Sender<Write>,
    /// Answered when the database is closed and what was held with it let go.
    ended: oneshot::Receiver<()>,
}

impl Writer {
    /// Starts the thread; `held` is dropped once its connection is closed.
    pub(crate) fn start(connection: Connection, held: impl Send + 'static) -> io::Result<Self> {
        let (writes, inbox) = mpsc::channel(WRITES);
        let (over, ended) = oneshot::channel();
        let metrics = Arc::new(StoreMetrics::default());
        let counted = Arc::clone(&metrics);
        let thread = thread::Builder::new().name("store-writer".into()).spawn(move || {
            write_all(connection, inbox, &counted);
            drop(held);
            over.send(()).ok(); // nobody may wait for it
        })?;
        Ok(Self {
            queue: Mutex::new(Some(Queue { writes, ended })),
            bytes: Arc::new(Semaphore::new(WAITING_BYTES as usize)),
            thread: Some(thread),
            metrics,
        })
    }

    /// What it has counted so far.
    pub(crate) fn metrics(&self) -> Arc<StoreMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Queues a write now, in order; resolves once it is committed.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<T> {
        let (told, outcome) = awaited();
        self.queue(0, work, told);
        outcome
    }

    /// The same, with something to do once it is committed and before anybody is told.
    pub(crate) fn write_then<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> StoreFuture<T> {
        let (told, outcome) = awaited();
        let told = move |done: Result<T, StoreError>| {
            if let Ok(done) = &done {
                then(done);
            }
            told(done);
        };
        self.queue(0, work, told);
        outcome
    }

    /// The same for work that is new and brings `bytes` with it: it may not take the places kept for
    /// what is running already.
    pub(crate) fn admit<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<T> {
        let (told, outcome) = awaited();
        self.admit_then(bytes, work, told);
        outcome
    }

    /// The same, and `told` is called with the outcome: from the writer's thread, or here and now if it
    /// is refused.
    pub(crate) fn admit_then<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        told: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) {
        let bytes = u32::try_from(bytes).unwrap_or(WAITING_BYTES).min(WAITING_BYTES);
        let Ok(weight) = Arc::clone(&self.bytes).try_acquire_many_owned(bytes) else {
            return told(Err(StoreError::Busy));
        };
        let work = move |connection: &Connection| {
            let done = work(connection);
            drop(weight); // the event is SQLite's now
            done
        };
        self.queue(RESERVED, work, told);
    }

    fn queue<T: Send + 'static>(
        &self,
        reserved: usize,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        told: impl FnOnce(Result<T, StoreError>) + Send + 'static,
    ) {
        let told = Hearer(Some(told), PhantomData);
        let refusal = match self.open().as_ref() {
            None => StoreError::Closed,
            // Under the lock nobody else takes a place between the look and the sending.
            Some(queue) if queue.writes.capacity() <= reserved => StoreError::Busy,
            Some(queue) => match queue.writes.try_reserve() {
                Ok(place) => return place.send(in_group(work, told)),
                Err(error) => refused(error),
            },
        };
        told.tell(Err(refusal));
    }

    /// Takes no more; resolves when all that was queued is written or was reported as failed, and
    /// the database is closed.
    pub(crate) fn close(&self) -> StoreFuture<()> {
        let queue = self.open().take();
        Box::pin(async move {
            let Queue { writes, ended } = queue.ok_or(StoreError::Closed)?;
            drop(writes);
            ended.await.map_err(|_| StoreError::Unwritable("the writer's thread ended badly".into()))
        })
    }

    fn open(&self) -> MutexGuard<'_, Option<Queue>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.open().take();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the store's writer ended badly");
        }
    }
}

/// Hears the outcome of one write, exactly once: a write that is lost with the writer was not made.
struct Hearer<T, F: FnOnce(Result<T, StoreError>)>(Option<F>, PhantomData<fn(T)>);

impl<T, F: FnOnce(Result<T, StoreError>)> Hearer<T, F> {
    fn tell(mut self, outcome: Result<T, StoreError>) {
        if let Some(told) = self.0.take() {
            told(outcome);
        }
    }
}

impl<T, F: FnOnce(Result<T, StoreError>)> Drop for Hearer<T, F> {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told(Err(StoreError::Closed));
        }
    }
}

/// A write as the writer's thread takes it.
fn in_group<T: Send + 'static, F: FnOnce(Result<T, StoreError>) + Send + 'static>(
    work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    told: Hearer<T, F>,
) -> Write {
    Box::new(move |group| {
        let done = group.run(work);
        Box::new(move |fate| told.tell(fate.clone().and(done)))
    })
}

/// What hears an outcome, and a future of it.
fn awaited<T: Send + 'static>() -> (impl FnOnce(Result<T, StoreError>) + Send + 'static, StoreFuture<T>) {
    let (answer, answered) = oneshot::channel();
    // Whoever asked may have stopped waiting; the write stands.
    let told = move |outcome| drop(answer.send(outcome));
    (told, Box::pin(async { answered.await.unwrap_or(Err(StoreError::Closed)) }))
}

/// One transaction, and what broke it.
struct Group<'a> {
    transaction: Option<Transaction<'a>>,
    lost: Option<StoreError>,
}

impl<'a> Group<'a> {
    fn begin(connection: &'a mut Connection) -> Self {
        // Immediate: if the database cannot be written to, that shows once and before anything ran.
        match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => Self { transaction: Some(transaction), lost: None },
            Err(error) => Self { transaction: None, lost: Some(unwritable(error)) },
        }
    }

    /// Runs one write in a savepoint: if it fails, only it is undone.
    fn run<T>(&mut self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let Some(transaction) = self.transaction.as_mut().filter(|_| self.lost.is_none()) else {
            return Err(self.lost.clone().unwrap_or(StoreError::Closed));
        };
        let savepoint = transaction.savepoint().map_err(unwritable)?;
        let (done, whole) = match work(&savepoint) {
            Ok(done) => (Ok(done), savepoint.commit()),
            Err(error) => (Err(error), savepoint.finish()), // which takes it back
        };
        // On a full disk SQLite gives up the whole transaction by itself: what ran after that would
        // commit on its own, and yet be reported as failed.
        if transaction.is_autocommit() || whole.is_err() {
            let why = done.as_ref().err().cloned().or(whole.err().map(unwritable));
            self.lost = Some(why.unwrap_or(StoreError::Unwritable("it was rolled back".into())));
        }
        done
    }

    fn commit(self) -> Result<(), StoreError> {
        match (self.transaction, self.lost) {
            (Some(transaction), None) => transaction.commit().map_err(unwritable),
            // Dropping the transaction takes back what is left of it.
            (_, lost) => Err(lost.unwrap_or(StoreError::Closed)),
        }
    }
}

fn write_all(mut connection: Connection, mut inbox: mpsc::Receiver<Write>, metrics: &StoreMetrics) {
    let mut waiting = Vec::with_capacity(GROUP);
    while inbox.blocking_recv_many(&mut waiting, GROUP) > 0 {
        let (begin, writes) = (Instant::now(), waiting.len());
        let written = commit(&mut connection, &mut waiting);
        metrics.commits.took(begin.elapsed());
        metrics.writes.add(writes as u64);
        if !written {
            metrics.failed.count();
        }
    }
    // Leaves a database of one file behind; if it cannot, the next opening does it.
    if let Err(error) = connection.pragma_update(None, "wal_checkpoint", "TRUNCATE") {
        tracing::debug!(%error, "the last checkpoint was not done");
    }
}

/// Whether the disk has it.
fn commit(connection: &mut Connection, waiting: &mut Vec<Write>) -> bool {
    let mut group = Group::begin(connection);
    let told: Vec<Tell> = waiting.drain(..).map(|write| write(&mut group)).collect();
    let fate = group.commit();
    if let Err(error) = &fate {
        tracing::error!(%error, writes = told.len(), "a group of writes failed");
    }
    for tell in told {
        tell(&fate);
    }
    fate.is_ok()
}

/// What a sender's refusal means.
pub(crate) fn refused<T>(error: mpsc::error::TrySendError<T>) -> StoreError {
    match error {
        mpsc::error::TrySendError::Full(_) => StoreError::Busy,
        mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
    }
}
