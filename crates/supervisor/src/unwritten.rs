//! Writes that the disk refused and that must not be lost: tried again, in order, until they are kept.
//!
//! A cancel that could not be recorded has stopped what it says, and its asker was told that there is no
//! record; without one the next life would run the request again. The same holds for results.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use cancel::CancelId;
use store::{NewReceipt, Settlement, Store, StoreError, StoreFuture};

use crate::{
    message::Message,
    shell::{Shell, Timer},
};

/// Writes that wait. More would be hours on a full disk; the newest are given up then, and said to be.
const MAX_WAITING: usize = 100_000;
/// Tried at once: fewer than the writer's queue holds beside everything else.
const BATCH: usize = 512;
/// The pause before the first try; doubled after each that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One write.
#[derive(Clone)]
pub(crate) enum Write {
    Settle(Box<Settlement>),
    /// With everything its receipt says when it is tried.
    Cancel(CancelId),
}

/// Those that wait, oldest first.
#[derive(Default)]
pub(crate) struct Unwritten {
    waiting: VecDeque<Write>,
    pause: Duration,
    /// A timer or a try is under way.
    busy: bool,
}

impl Unwritten {
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

impl Shell {
    pub(crate) fn unwritten(&mut self, write: Write, error: &StoreError) {
        if matches!(error, StoreError::Closed | StoreError::Lapsed) {
            return; // the node has ended
        }
        if self.unwritten.waiting.len() >= MAX_WAITING {
            return tracing::error!("too many writes wait for the disk; one is given up");
        }
        self.unwritten.waiting.push_back(write);
        if !self.unwritten.busy {
            self.unwritten.busy = true;
            self.unwritten.pause = FIRST_PAUSE;
            self.set_timer(Timer::Rewrite, FIRST_PAUSE);
        }
    }

    /// Tries the oldest again.
    pub(crate) fn rewrite(&mut self) {
        let count = self.unwritten.waiting.len().min(BATCH);
        let batch: Vec<Write> = self.unwritten.waiting.drain(..count).collect();
        let mut writes = Vec::new();
        for write in batch {
            let again = match &write {
                Write::Settle(settlement) => Again::Settle(settlement.clone()),
                Write::Cancel(cancel) => match self.drafts.record_again(*cancel) {
                    Some(receipt) => Again::Cancel(Box::new(receipt)),
                    None => continue, // it was forgotten meanwhile
                },
            };
            writes.push((write, again));
        }
        let (store, inbox) = (Arc::clone(&self.store), self.inbox.clone());
        tokio::spawn(async move {
            let (mut done, mut left) = (Vec::new(), Vec::new());
            let started: Vec<_> =
                writes.into_iter().map(|(write, again)| (write, again.start(&*store))).collect();
            for (write, started) in started {
                match (started.await, write) {
                    (Ok(_), Write::Cancel(cancel)) => done.push(cancel),
                    (Ok(true), Write::Settle(settlement)) => {
                        if let Some(next) = settlement.next {
                            drop(inbox.send(Message::HandedOn(next)).await); // closed: the node has ended
                        }
                    }
                    (Ok(false), Write::Settle(_)) => {}
                    (Err(_), write) => left.push(write),
                }
            }
            drop(inbox.send(Message::Rewritten { done, left }).await); // closed: the node has ended
        });
    }

    pub(crate) fn rewritten(&mut self, done: Vec<CancelId>, left: Vec<Write>) {
        let failed = !left.is_empty();
        for cancel in done {
            tracing::info!(%cancel, "recorded late");
            self.drafts.recorded(cancel, &Ok(()));
            if self.drafts.is_closed(cancel) {
                self.keep_receipt(cancel);
            }
        }
        for write in left.into_iter().rev() {
            self.unwritten.waiting.push_front(write);
        }
        self.unwritten.busy = !self.unwritten.waiting.is_empty();
        if self.unwritten.busy {
            let doubled = (self.unwritten.pause * 2).min(LONGEST_PAUSE);
            self.unwritten.pause = if failed { doubled } else { FIRST_PAUSE };
            let pause = if failed { self.unwritten.pause } else { Duration::ZERO };
            self.set_timer(Timer::Rewrite, pause);
        }
    }
}

enum Again {
    Settle(Box<Settlement>),
    Cancel(Box<NewReceipt>),
}

impl Again {
    /// Asked for now, so that the store writes them in order.
    fn start(self, store: &dyn Store) -> StoreFuture<bool> {
        match self {
            Self::Settle(settlement) => store.settle(*settlement),
            Self::Cancel(receipt) => {
                let recorded = store.record_cancel(*receipt);
                Box::pin(async move { recorded.await.map(|()| true) })
            }
        }
    }
}
