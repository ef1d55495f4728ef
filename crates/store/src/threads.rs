//! The threads that own the connections: one writer that commits in groups, a few readers.
//!
//! A write is a closure over the open transaction. The writer takes what is waiting, up to a bound,
//! runs each in a savepoint of its own so that one that fails takes no other with it, commits once,
//! and only then tells anybody (I6).

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, Transaction};
use tokio::sync::{mpsc, oneshot};

use crate::{StoreError, StoreFuture};

/// Writes that wait for the writer. At 6,000 commits a second, groups not counted, less than a
/// second of work; more would be a disk that cannot keep up, and callers should know.
const WRITES: usize = 4_096;
/// Writes in one commit: enough to make the sync cheap for each, few enough to keep it short.
const GROUP: usize = 256;
/// Reads that wait for a reader.
const READS: usize = 1_024;
/// Reads side by side: lists and looks; the hot paths do not read.
const READERS: usize = 2;

/// Runs in the open transaction; returns what to do once it is committed, or could not be.
/// Gets the error instead where no transaction could be begun.
type Write = Box<dyn FnOnce(Result<&mut Transaction<'_>, StoreError>) -> Done + Send>;
type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The sending ends. Dropping them ends the threads once they are through.
pub(crate) struct Threads {
    writes: Mutex<Option<mpsc::Sender<Write>>>,
    reads: Mutex<Option<mpsc::Sender<Read>>>,
}

impl Threads {
    pub(crate) fn start(mut writer: Connection, readers: Vec<Connection>) -> std::io::Result<Self> {
        let (writes, inbox) = mpsc::channel(WRITES);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write_all(&mut writer, inbox))?;
        let (reads, inbox) = mpsc::channel(READS);
        let inbox = Arc::new(Mutex::new(inbox));
        for reader in readers {
            let inbox = Arc::clone(&inbox);
            std::thread::Builder::new()
                .name("store-reader".into())
                .spawn(move || read_all(&reader, &inbox))?;
        }
        Ok(Self { writes: Mutex::new(Some(writes)), reads: Mutex::new(Some(reads)) })
    }

    pub(crate) fn readers() -> usize {
        READERS
    }

    /// Queues a write now, in order; resolves once it is committed.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreFuture<T> {
        let (answer, answered) = oneshot::channel();
        let write: Write = Box::new(move |transaction| {
            let result = transaction.and_then(|transaction| in_savepoint(transaction, work));
            Box::new(move |committed| {
                // Whoever asked may have stopped waiting; the write stands.
                answer.send(committed.and(result)).ok();
            })
        });
        let queued = match self.writes.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            None => Err(StoreError::Closed),
            Some(writes) => writes.try_send(write).map_err(refused),
        };
        Box::pin(async move {
            queued?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    /// Queues a read now. It sees every write that was committed before it runs.
    pub(crate) fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let (answer, answered) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            let result = work(connection).map_err(|error| StoreError::Unreadable(error.to_string()));
            answer.send(result).ok(); // whoever asked may have stopped waiting
        });
        let queued = match self.reads.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            None => Err(StoreError::Closed),
            Some(reads) => reads.try_send(read).map_err(refused),
        };
        Box::pin(async move {
            queued?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    /// Takes no more; what is queued is still done.
    pub(crate) fn close(&self) {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn refused<T>(error: mpsc::error::TrySendError<T>) -> StoreError {
    match error {
        mpsc::error::TrySendError::Full(_) => StoreError::Busy,
        mpsc::error::TrySendError::Closed(_) => StoreError::Closed,
    }
}

fn in_savepoint<T>(
    transaction: &mut Transaction<'_>,
    work: impl FnOnce(&Connection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let savepoint = transaction.savepoint().map_err(unwritable)?;
    let done = work(&savepoint)?; // an error drops the savepoint, which rolls back to it
    savepoint.commit().map_err(unwritable)?;
    Ok(done)
}

fn write_all(connection: &mut Connection, mut inbox: mpsc::Receiver<Write>) {
    while let Some(first) = inbox.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP {
            match inbox.try_recv() {
                Ok(write) => group.push(write),
                Err(_) => break,
            }
        }
        commit(connection, group);
    }
    // Leaves a database of one file behind; if it cannot, the next opening does it.
    if let Err(error) = connection.pragma_update(None, "wal_checkpoint", "TRUNCATE") {
        tracing::debug!(%error, "the last checkpoint was not done");
    }
}

fn commit(connection: &mut Connection, group: Vec<Write>) {
    let mut transaction = match connection.transaction() {
        Ok(transaction) => transaction,
        Err(error) => {
            tracing::error!(%error, "no transaction could be begun");
            let error = unwritable(error);
            for write in group {
                write(Err(error.clone()))(Err(error.clone()));
            }
            return;
        }
    };
    let done: Vec<Done> = group.into_iter().map(|write| write(Ok(&mut transaction))).collect();
    let committed = transaction.commit().map_err(unwritable);
    if let Err(error) = &committed {
        tracing::error!(%error, writes = done.len(), "a commit failed");
    }
    for tell in done {
        tell(committed.clone());
    }
}

fn read_all(connection: &Connection, inbox: &Mutex<mpsc::Receiver<Read>>) {
    loop {
        // The lock is held while waiting: the other readers wait for it instead of for the channel.
        let next = inbox.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match next {
            Some(read) => read(connection),
            None => return,
        }
    }
}

pub(crate) fn unwritable(error: rusqlite::Error) -> StoreError {
    StoreError::Unwritable(error.to_string())
}
