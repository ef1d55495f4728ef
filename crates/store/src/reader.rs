//! The threads that read, each with a connection of its own that cannot write.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::{StoreError, StoreFuture, fault::unreadable, writer::refused};

/// Reads that wait for a reader. They are lists and looks, of a page each: more waiting than this is a
/// caller that asks faster than any human reads.
const READS: usize = 1_024;
/// Reads side by side; the hot paths do not read.
const READERS: usize = 2;

type Read = Box<dyn FnOnce(&Connection) + Send>;

/// The queue of reads. Dropping it ends the threads once they are through with it.
pub(crate) struct Readers {
    queue: Mutex<Option<mpsc::Sender<Read>>>,
}

impl Readers {
    /// Starts the readers, each with a connection from `open`.
    pub(crate) fn start(
        open: impl Fn() -> Result<Connection, StoreError>,
        failed: impl Fn(io::Error) -> StoreError,
    ) -> Result<Self, StoreError> {
        let (queue, inbox) = mpsc::channel(READS);
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..READERS {
            let (connection, inbox) = (open()?, Arc::clone(&inbox));
            thread::Builder::new()
                .name("store-reader".into())
                .spawn(move || read_all(&connection, &inbox))
                .map_err(&failed)?;
        }
        Ok(Self { queue: Mutex::new(Some(queue)) })
    }

    /// Queues a read now. It sees every write that was committed before it runs.
    pub(crate) fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let (answer, answered) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            answer.send(work(connection).map_err(unreadable)).ok(); // whoever asked may have gone
        });
        let queued = match self.queue.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            None => Err(StoreError::Closed),
            Some(queue) => queue.try_send(read).map_err(refused),
        };
        Box::pin(async move {
            queued?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    /// Takes no more; what is queued is still read.
    pub(crate) fn close(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
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
