//! What waits for the writer, and who hears of it.
//!
//! The bounds are those of the embedded store's writer: a caller cannot tell the two apart.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use cancel::{CancelId, RequestId};
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::{connection::Db, fault::Fault, group::Opening};
use crate::{NewInvocation, NewReceipt, PartState, Settlement, StoreError, StoreFuture};

/// Writes that wait for the writer: a second or so of work.
const WRITES: usize = 4_096;
/// Places that new work may not take: a flood of accepts must not refuse cancels and settlements.
const RESERVED: usize = 1_024;
/// Bytes of events and code that wait for the writer. One bigger than all of it goes alone.
const WAITING_BYTES: u32 = 128 << 20;

/// A write that shares its transaction with others. Plain data: a group that failed can be tried again one by one.
#[derive(Debug)]
pub(crate) enum Change {
    /// A new request.
    Accept(NewInvocation),
    /// It was handed to a runtime: attempts so far, and when.
    Running(RequestId, u32, i64),
    /// It waits for its next attempt: failures so far, and until when.
    Waiting(RequestId, u32, Until),
    /// It is over.
    Settle(Settlement),
    /// A cancel that reaches no further than this node.
    Cancel(NewReceipt),
    /// A cancel is over.
    Over(CancelId, String),
    /// What became of a part of a cancel.
    Report(i64, PartState, String),
}

/// A time that nodes wait for by the server's clock, and that one of them has named by its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    /// By the clock of who named it, in milliseconds.
    pub(crate) at: i64,
    /// What was left of it then; less than 0: it was over.
    pub(crate) left: i64,
}

impl Until {
    pub(crate) fn named(at: i64) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let left = at.saturating_sub(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        // For ever is for ever by any clock; added to one it must not be too large.
        Self { at, left: left.min(i64::MAX / 2) }
    }
}

/// One of them, with who hears of it.
pub(crate) struct Waiting {
    pub(crate) change: Change,
    pub(crate) told: Hearer,
    /// Given back once it is written.
    pub(crate) _weight: Option<OwnedSemaphorePermit>,
}

/// Whose transaction it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Only a node that has joined and holds its lease may do it.
    Life,
    /// Any node may, unless it joined and lost its lease.
    Nothing,
    /// It sees to the node's row itself.
    NoCheck,
    /// As [`Life`](Self::Life), but it begins the transaction itself, beside its first statement.
    Begins,
    /// The same, and it ends it beside its last one. There must be nothing to know of it but whether it is durable.
    Whole,
}

/// Work with a transaction of its own, and who asked for it.
pub(crate) trait Job: Send {
    /// Does it within the open transaction, or the one that it is to open; `Err` takes it back.
    fn run<'a>(&'a mut self, db: &'a Db, opening: Opening<'a>) -> BoxFuture<'a, Result<(), Fault>>;
    /// Tells who asked what became of the transaction.
    fn tell(self: Box<Self>, fate: Result<(), StoreError>);
}

struct Asked<T, Work, Then> {
    work: Option<Work>,
    done: Option<T>,
    then: Then,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, Work, Then> Job for Asked<T, Work, Then>
where
    T: Send + 'static,
    Work: for<'a> FnOnce(&'a Db, Opening<'a>) -> BoxFuture<'a, Result<T, Fault>> + Send,
    Then: FnOnce(&T) + Send,
{
    fn run<'a>(&'a mut self, db: &'a Db, opening: Opening<'a>) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            if let Some(work) = self.work.take() {
                self.done = Some(work(db, opening).await?);
            }
            Ok(())
        })
    }

    fn tell(self: Box<Self>, fate: Result<(), StoreError>) {
        let Self { done, then, answer, .. } = *self;
        let outcome = fate.and_then(|()| done.ok_or(StoreError::Closed));
        if let Ok(done) = &outcome {
            then(done);
        }
        answer.send(outcome).ok(); // whoever asked may have gone; the write stands
    }
}

/// Work that is a transaction from BEGIN to COMMIT, and tells nothing but that it is durable.
struct Whole<Work> {
    work: Option<Work>,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

impl<Work> Job for Whole<Work>
where
    Work: for<'a> FnOnce(&'a Db, Opening<'a>) -> BoxFuture<'a, Result<(), Fault>> + Send,
{
    fn run<'a>(&'a mut self, db: &'a Db, opening: Opening<'a>) -> BoxFuture<'a, Result<(), Fault>> {
        match self.work.take() {
            Some(work) => work(db, opening),
            None => Box::pin(std::future::ready(Err(StoreError::Closed.into()))),
        }
    }

    fn tell(self: Box<Self>, fate: Result<(), StoreError>) {
        self.answer.send(fate).ok(); // whoever asked may have gone; the write stands
    }
}

/// What the writer takes.
pub(crate) enum Write {
    /// Shares a transaction.
    Shared(Box<Waiting>),
    /// Has a transaction of its own.
    Alone { needs: Needs, job: Box<dyn Job>, _weight: Option<OwnedSemaphorePermit> },
    /// Nothing: it is told once all before it is done.
    Nothing(oneshot::Sender<()>),
}

/// The queue of writes.
pub(crate) struct Queue {
    writes: Mutex<Option<mpsc::Sender<Write>>>,
    bytes: Arc<Semaphore>,
}

impl Queue {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Write>) {
        let (writes, inbox) = mpsc::channel(WRITES);
        let bytes = Arc::new(Semaphore::new(WAITING_BYTES as usize));
        (Self { writes: Mutex::new(Some(writes)), bytes }, inbox)
    }

    /// Queues a change now, in order. `told` hears of it from the writer, or here and now if it is refused. New work
    /// brings its `bytes`, and may not take the places kept for what is running already.
    pub(crate) fn change(
        &self,
        change: Change,
        bytes: Option<usize>,
        told: impl FnOnce(Result<bool, StoreError>) + Send + 'static,
    ) {
        let told = Hearer(Some(Box::new(told)));
        let (weight, reserved) = match bytes.map(|bytes| self.weigh(bytes)) {
            None => (None, 0),
            Some(Some(weight)) => (Some(weight), RESERVED),
            Some(None) => return told.tell(Err(StoreError::Busy)),
        };
        let write = Write::Shared(Box::new(Waiting { change, told, _weight: weight }));
        if let Err((Write::Shared(waiting), why)) = self.send(write, reserved) {
            waiting.told.tell(Err(why));
        }
    }

    /// Queues work with a transaction of its own.
    pub(crate) fn alone<T: Send + 'static>(
        &self,
        needs: Needs,
        bytes: Option<usize>,
        work: impl for<'a> FnOnce(&'a Db, Opening<'a>) -> BoxFuture<'a, Result<T, Fault>> + Send + 'static,
        then: impl FnOnce(&T) + Send + 'static,
    ) -> StoreFuture<T> {
        let (answer, answered) = oneshot::channel();
        let (weight, reserved) = match bytes.map(|bytes| self.weigh(bytes)) {
            None => (None, 0),
            Some(Some(weight)) => (Some(weight), RESERVED),
            Some(None) => return Box::pin(std::future::ready(Err(StoreError::Busy))),
        };
        let job = Box::new(Asked { work: Some(work), done: None, then, answer });
        match self.send(Write::Alone { needs, job, _weight: weight }, reserved) {
            Ok(()) => Box::pin(async { answered.await.unwrap_or(Err(StoreError::Closed)) }),
            Err((_, why)) => Box::pin(std::future::ready(Err(why))),
        }
    }

    /// Queues work that is a transaction itself.
    pub(crate) fn whole(
        &self,
        work: impl for<'a> FnOnce(&'a Db, Opening<'a>) -> BoxFuture<'a, Result<(), Fault>> + Send + 'static,
    ) -> StoreFuture<()> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(Whole { work: Some(work), answer });
        match self.send(Write::Alone { needs: Needs::Whole, job, _weight: None }, 0) {
            Ok(()) => Box::pin(async { answered.await.unwrap_or(Err(StoreError::Closed)) }),
            Err((_, why)) => Box::pin(std::future::ready(Err(why))),
        }
    }

    /// Resolves once everything queued before is done.
    pub(crate) fn barrier(&self) -> StoreFuture<()> {
        let (answer, answered) = oneshot::channel();
        match self.send(Write::Nothing(answer), 0) {
            Ok(()) => Box::pin(async { answered.await.map_err(|_| StoreError::Closed) }),
            Err((_, why)) => Box::pin(std::future::ready(Err(why))),
        }
    }

    /// Takes no more. False if it was closed before.
    pub(crate) fn close(&self) -> bool {
        self.open().take().is_some()
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.open().is_none()
    }

    fn weigh(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(WAITING_BYTES).min(WAITING_BYTES);
        Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()
    }

    fn send(&self, write: Write, reserved: usize) -> Result<(), (Write, StoreError)> {
        match self.open().as_ref() {
            None => Err((write, StoreError::Closed)),
            // Under the lock nobody else takes a place between the look and the sending.
            Some(queue) if queue.capacity() <= reserved => Err((write, StoreError::Busy)),
            Some(queue) => queue.try_send(write).map_err(|error| match error {
                mpsc::error::TrySendError::Full(write) => (write, StoreError::Busy),
                mpsc::error::TrySendError::Closed(write) => (write, StoreError::Closed),
            }),
        }
    }

    fn open(&self) -> MutexGuard<'_, Option<mpsc::Sender<Write>>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What hears an outcome, as a boxed call.
type Heard = Box<dyn FnOnce(Result<bool, StoreError>) + Send>;

/// Hears the outcome of one change, exactly once: one that is lost with the writer was not made.
pub(crate) struct Hearer(Option<Heard>);

impl Hearer {
    pub(crate) fn tell(mut self, outcome: Result<bool, StoreError>) {
        if let Some(told) = self.0.take() {
            told(outcome);
        }
    }
}

impl Drop for Hearer {
    fn drop(&mut self) {
        if let Some(told) = self.0.take() {
            told(Err(StoreError::Closed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> Change {
        Change::Running(RequestId(1), 1, 1)
    }

    /// What it was refused with, if it was.
    fn refusal(queue: &Queue, bytes: Option<usize>) -> Option<StoreError> {
        let (told, heard) = std::sync::mpsc::channel();
        queue.change(change(), bytes, move |outcome| drop(told.send(outcome.err()))); // it may be told late
        heard.try_recv().ok().flatten()
    }

    #[test]
    fn new_work_is_refused_while_there_is_still_room_for_the_rest() {
        let (queue, _inbox) = Queue::new();
        for _ in 0..WRITES - RESERVED {
            assert_eq!(refusal(&queue, Some(0)), None);
        }
        assert_eq!(refusal(&queue, Some(0)), Some(StoreError::Busy));
        for _ in 0..RESERVED {
            assert_eq!(refusal(&queue, None), None);
        }
        assert_eq!(refusal(&queue, None), Some(StoreError::Busy));
    }

    #[test]
    fn events_that_wait_are_bounded_in_bytes_and_a_huge_one_goes_alone() {
        let (queue, mut inbox) = Queue::new();
        assert_eq!(refusal(&queue, Some(usize::MAX)), None);
        assert_eq!(refusal(&queue, Some(1)), Some(StoreError::Busy));
        assert_eq!(refusal(&queue, None), None);
        drop(inbox.try_recv().unwrap());
        assert_eq!(refusal(&queue, Some(1)), None);
        assert_eq!(refusal(&queue, Some(WAITING_BYTES as usize)), Some(StoreError::Busy));
    }

    #[test]
    fn what_is_lost_with_the_writer_is_told_and_a_closed_queue_takes_nothing() {
        let (queue, inbox) = Queue::new();
        let (told, heard) = std::sync::mpsc::channel();
        queue.change(change(), None, move |outcome| told.send(outcome).unwrap());
        drop(inbox);
        assert_eq!(heard.recv().unwrap(), Err(StoreError::Closed));
        assert!(queue.close() && !queue.close());
        assert_eq!(refusal(&queue, None), Some(StoreError::Closed));
    }
}
