//! The clients of one life: they call and cancel as planned, and write into the book what they are told.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::JoinSet, time::Instant};

use crate::{
    book::{Accepted, Acknowledged, Asked, Book, Row, Surprise},
    client::{Api, Called, Canceled},
    ledger::Ledger,
    plan::{Call, Cancel, Mode, OlderCancel, Round, Target},
};

/// How often the listing is looked at.
const SAMPLE: Duration = Duration::from_millis(100);

/// What all clients of a run share.
#[derive(Debug)]
pub struct Shared {
    book: Mutex<Book>,
    ledger: Mutex<Ledger>,
    /// An answer came.
    answered: Notify,
}

impl Shared {
    /// Nothing told yet.
    #[must_use]
    pub fn new(ledger: Ledger) -> Arc<Self> {
        let (book, ledger) = (Mutex::new(Book::default()), Mutex::new(ledger));
        Arc::new(Self { book, ledger, answered: Notify::new() })
    }

    /// The book. A client that panicked cannot have left it half written: each note is one push.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the ledger is now.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn length(&self) -> anyhow::Result<u64> {
        Ok(std::fs::metadata(self.ledger().path())?.len())
    }

    /// Waits for so many more answers to calls and cancels.
    pub async fn answers(&self, count: u64) {
        let enough = self.book().answers + count;
        loop {
            let answered = self.answered.notified();
            if self.book().answers >= enough {
                return;
            }
            answered.await;
        }
    }

    fn count_answer(&self) {
        self.book().answers += 1;
        self.answered.notify_one();
    }
}

/// One life as its clients know it.
#[derive(Clone, Debug)]
pub struct Served {
    /// How to reach it.
    pub api: Api,
    /// What all share.
    pub shared: Arc<Shared>,
    /// Which round it is.
    pub round: u64,
    /// Which life.
    pub life: u32,
}

/// Starts the clients of a round. Each ends by itself: when the node is gone, so is its connection.
pub fn begin(served: &Served, round: &Round) -> JoinSet<anyhow::Result<()>> {
    let (mut clients, start) = (JoinSet::new(), Instant::now());
    for call in round.calls.clone() {
        let served = served.clone();
        clients.spawn(async move { served.call(call, start).await });
    }
    for older in round.older.clone() {
        let served = served.clone();
        clients.spawn(async move { served.cancel_older(older, start).await });
    }
    clients
}

impl Served {
    /// Looks at the listing again and again, until the node is gone.
    pub async fn sample(self) {
        while let Ok(rows) = self.api.youngest().await {
            let Ok(at) = self.shared.length() else { return };
            self.shared.book().saw(&rows, at, self.life, self.round);
            tokio::time::sleep(SAMPLE).await;
        }
    }

    async fn call(self, call: Call, start: Instant) -> anyhow::Result<()> {
        tokio::time::sleep_until(start + call.at).await;
        let called = self.api.invoke(call.function, &call.event).await;
        let request = match called {
            Called::Accepted(request) => request,
            Called::Nothing => return Ok(()),
            Called::Surprise(what) => {
                self.surprised("", what, false);
                return Ok(());
            }
        };
        let accepted =
            Accepted { request: request.clone(), function: call.function.to_owned(), round: self.round };
        self.shared.book().accepted.push(accepted);
        self.shared.count_answer();
        let mut askers = JoinSet::new();
        for Cancel { after, target, mode } in call.cancels {
            let (served, request, function) = (self.clone(), request.clone(), call.function.to_owned());
            askers.spawn(async move {
                tokio::time::sleep(after).await;
                served.cancel(request, function, target, mode).await
            });
        }
        while let Some(asker) = askers.join_next().await {
            asker??;
        }
        Ok(())
    }

    async fn cancel_older(self, older: OlderCancel, start: Instant) -> anyhow::Result<()> {
        tokio::time::sleep_until(start + older.at).await;
        let accepted = {
            let book = self.shared.book();
            let back = usize::try_from(older.back)?;
            let mut earlier = book.accepted.iter().rev().filter(|accepted| {
                accepted.round < self.round && (!older.trees || accepted.function == "tree")
            });
            earlier.nth(back).cloned()
        };
        let Some(Accepted { request, function, .. }) = accepted else { return Ok(()) };
        self.cancel(request, function, older.target, older.mode).await
    }

    async fn cancel(&self, root: String, function: String, target: Target, mode: Mode) -> anyhow::Result<()> {
        let (request, function) = self.pick(root, function, target)?;
        let asked = Asked { request: request.clone(), mode, round: self.round, answer: None };
        // Before it is sent: what happens to it from now on may be this cancel's doing.
        let place = {
            let mut book = self.shared.book();
            book.asked.push(asked);
            book.asked.len() - 1
        };
        let answer = self.api.cancel(&function, &request, mode).await;
        let at = self.shared.length()?;
        match answer {
            Canceled::Done(stop) => {
                self.shared.book().asked[place].answer = Some(Acknowledged { at, life: self.life, stop });
            }
            Canceled::Finished(status) => self.finished(request, status, at),
            Canceled::Unknown => {
                self.surprised(&request, format!("cancel {function} {request}: unknown"), true)
            }
            Canceled::Nothing => return Ok(()),
            Canceled::Unrecorded(_) if self.shared.book().failing.contains(&self.life) => return Ok(()),
            Canceled::Unrecorded(what) => self.surprised(&request, what, false),
            Canceled::Surprise(what) => self.surprised(&request, what, false),
        }
        self.shared.count_answer();
        Ok(())
    }

    /// The request itself, or one of those below it that are known by now.
    fn pick(&self, root: String, function: String, target: Target) -> anyhow::Result<(String, String)> {
        let Target::Below(number) = target else { return Ok((root, function)) };
        let mut ledger = self.shared.ledger();
        ledger.catch_up()?;
        let mut below = ledger.below(&root);
        if below.is_empty() {
            return Ok((root, function));
        }
        let at = number % below.len() as u64;
        Ok(below.swap_remove(usize::try_from(at)?))
    }

    /// A cancel came too late: the node told how the request had ended, and is held to that.
    fn finished(&self, request: String, status: String, at: u64) {
        let mut book = self.shared.book();
        if book.failing.contains(&self.life) {
            return; // it may know that and not have been able to write it down
        }
        let differs = book.ended.get(&request).filter(|ended| ended.row.status != status).cloned();
        if let Some(ended) = differs {
            let told = Row { request, status, code: -1, message: "told to a cancel".to_owned() };
            book.changes.push(crate::book::Change { round: self.round, rows: [ended.row, told] });
        } else {
            book.told_finished.entry(request).or_insert(crate::book::Told { status, at });
        }
    }

    fn surprised(&self, request: &str, what: String, unknown: bool) {
        let surprise = Surprise { round: self.round, request: request.to_owned(), what, unknown };
        self.shared.book().surprises.push(surprise);
    }
}
