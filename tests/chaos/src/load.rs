//! The clients of a round: they call and cancel as planned, and write into the book what they are told.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{sync::Notify, task::JoinSet, time::Instant};

use crate::{
    book::{Accepted, Acknowledged, Asked, Book, Row, Surprise, Unrecorded},
    client::{Api, Called, Canceled},
    fault::whom,
    ledger::Ledger,
    places::{Place, Places},
    plan::{Call, Cancel, Mode, OlderCancel, Round, Target},
};

/// How often the listing is looked at.
const SAMPLE: Duration = Duration::from_millis(100);
/// Of several nodes, one that has not answered by then is left alone until its next turn.
const SAMPLE_LIMIT: Duration = Duration::from_secs(1);

/// What all clients of a run share.
#[derive(Debug)]
pub struct Shared {
    book: Mutex<Book>,
    ledger: Mutex<Ledger>,
    /// An answer came.
    answered: Notify,
    /// The youngest life of any node.
    life: AtomicU32,
}

impl Shared {
    /// Nothing told yet.
    #[must_use]
    pub fn new(ledger: Ledger) -> Arc<Self> {
        let (book, ledger) = (Mutex::new(Book::default()), Mutex::new(ledger));
        Arc::new(Self { book, ledger, answered: Notify::new(), life: AtomicU32::new(0) })
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

    /// A life begins; lives begin one after the other.
    pub fn begun(&self, life: u32) {
        self.life.store(life, Ordering::SeqCst);
    }

    /// The youngest life of any node.
    #[must_use]
    pub fn life(&self) -> u32 {
        self.life.load(Ordering::SeqCst)
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

/// The nodes as the clients of a round know them.
#[derive(Clone, Debug)]
pub struct Served {
    /// How to reach them.
    pub places: Arc<Places>,
    /// What all share.
    pub shared: Arc<Shared>,
    /// Which round it is.
    pub round: u64,
    /// By which each client picks the node that it asks.
    pub seed: u64,
}

/// Numbers of the clients of a round: each call with those who cancel it, each cancel of what is older.
const CLIENTS_OF_A_CALL: u64 = 1_000;

/// Starts the clients of a round. Each ends by itself: when the node is gone, so is its connection.
pub fn begin(served: &Served, round: &Round) -> JoinSet<anyhow::Result<()>> {
    let (mut clients, start) = (JoinSet::new(), Instant::now());
    for (client, call) in (0..).step_by(CLIENTS_OF_A_CALL as usize).zip(round.calls.clone()) {
        let served = served.clone();
        clients.spawn(async move { served.call(client, call, start).await });
    }
    for (client, older) in (1..).map(|nth: u64| u64::MAX - nth).zip(round.older.clone()) {
        let served = served.clone();
        clients.spawn(async move { served.cancel_older(client, older, start).await });
    }
    clients
}

impl Served {
    /// Looks at the listing of one node again and again, until it is gone.
    pub async fn sample(self, node: Api) {
        while let Ok(rows) = node.youngest().await {
            if self.saw(&rows).is_none() {
                return;
            }
            tokio::time::sleep(SAMPLE).await;
        }
    }

    /// Looks at the listing of one of several nodes after the other, and never ends by itself. One after the other: no
    /// answer is older than what was seen before it was asked for.
    pub async fn sample_all(self, nodes: usize) {
        for turn in 0.. {
            let Some(place) = self.places.pick(turn % nodes.max(1) as u64) else { return };
            // A node that sleeps does not answer, and one that is gone cannot.
            if let Ok(Ok(rows)) = tokio::time::timeout(SAMPLE_LIMIT, place.api.youngest()).await
                && self.saw(&rows).is_none()
            {
                return;
            }
            tokio::time::sleep(SAMPLE).await;
        }
    }

    fn saw(&self, rows: &[Row]) -> Option<()> {
        let at = self.shared.length().ok()?;
        self.shared.book().saw(rows, at, self.shared.life(), self.round);
        Some(())
    }

    /// The node that this client asks.
    fn whom(&self, client: u64) -> anyhow::Result<Place> {
        self.places.pick(whom(self.seed, self.round, client)).context("there is no node to ask")
    }

    async fn call(self, client: u64, call: Call, start: Instant) -> anyhow::Result<()> {
        tokio::time::sleep_until(start + call.at).await;
        let called = self.whom(client)?.api.invoke(call.function, &call.event).await;
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
        for (client, Cancel { after, target, mode }) in (client + 1..).zip(call.cancels) {
            let (served, request, function) = (self.clone(), request.clone(), call.function.to_owned());
            askers.spawn(async move {
                tokio::time::sleep(after).await;
                served.cancel(client, request, function, target, mode).await
            });
        }
        while let Some(asker) = askers.join_next().await {
            asker??;
        }
        Ok(())
    }

    async fn cancel_older(self, client: u64, older: OlderCancel, start: Instant) -> anyhow::Result<()> {
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
        self.cancel(client, request, function, older.target, older.mode).await
    }

    async fn cancel(
        &self,
        client: u64,
        root: String,
        function: String,
        target: Target,
        mode: Mode,
    ) -> anyhow::Result<()> {
        let (request, function) = self.pick(root, function, target)?;
        let asked = Asked { request: request.clone(), mode, round: self.round, answer: None };
        // Before it is sent: what happens to it from now on may be this cancel's doing.
        let place = {
            let mut book = self.shared.book();
            book.asked.push(asked);
            book.asked.len() - 1
        };
        let Place { api, life } = self.whom(client)?;
        let answer = api.cancel(&function, &request, mode).await;
        let at = self.shared.length()?;
        match answer {
            Canceled::Done(stop, cancel) => {
                let answer = Acknowledged { at, life: self.shared.life(), stop, cancel };
                self.shared.book().asked[place].answer = Some(answer);
            }
            Canceled::Finished(status) => self.finished(request, status, at, life),
            Canceled::Unknown => {
                self.surprised(&request, format!("cancel {function} {request}: unknown"), true)
            }
            Canceled::Nothing => return Ok(()),
            Canceled::Unrecorded(_) if self.shared.book().failing.contains(&life) => return Ok(()),
            Canceled::Unrecorded(what) if self.shared.book().many => {
                self.shared.book().unrecorded.push(Unrecorded { life, request, what });
            }
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
    fn finished(&self, request: String, status: String, at: u64, life: u32) {
        let mut book = self.shared.book();
        if book.failing.contains(&life) {
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

    /// Where several nodes share a store, one whose lease is over may not write any more, and says so. Any other writes.
    pub fn judge_unrecorded(&self, lost_its_lease: impl Fn(u32) -> bool) {
        let unrecorded = std::mem::take(&mut self.shared.book().unrecorded);
        for Unrecorded { life, request, what } in unrecorded {
            if !lost_its_lease(life) {
                self.surprised(&request, what, false);
            }
        }
    }

    fn surprised(&self, request: &str, what: String, unknown: bool) {
        let surprise = Surprise { round: self.round, request: request.to_owned(), what, unknown };
        self.shared.book().surprises.push(surprise);
    }
}
