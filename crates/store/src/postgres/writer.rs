//! The one task that writes: one connection, in the order of the calls, in groups.
//!
//! # A transaction
//!
//! Each begins with the node's own row: with its epoch and `FOR KEY SHARE`, so that whoever takes the node's work away
//! waits for the transaction or makes it fail with [`StoreError::Lapsed`], never half of each. What else it locks, it
//! locks in one order, which all nodes keep: rows of nodes, then the locks of trees by number, then requests by id.
//! So no two of them can wait for each other; if the server says they did, the group is tried again one by one.
//!
//! # When the connection breaks
//!
//! Before COMMIT was sent nothing is written. After it, the writer does not know; it connects again and looks at the
//! number of its last transaction, which is a row that each of them writes (`groups`), and that look waits for what is left
//! of the old connection. Only if the server cannot be reached within [`FATE`] everybody in the transaction is
//! told [`StoreError::Unwritable`], and then what was asked for **may** be there: asking the same again is answered as it is
//! (`Exists`, or false of a settlement).

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;

use super::{
    connection::{CONNECT, Connector, Db, execute, prepare, rows, within},
    fault::Fault,
    group::{self, Opening},
    queue::{Change, Job, Needs, Waiting, Write},
};
use crate::{StoreError, StoreMetrics};

/// Writes in one transaction: enough to make the sync cheap for each, few enough to keep it short.
const GROUP: usize = 256;
/// One transaction, all of it.
const TRANSACTION: Duration = Duration::from_secs(20);
/// One that takes over or fences many.
const LARGE: Duration = Duration::from_secs(60);
/// How long the writer tries to learn what became of a COMMIT that was not answered.
const FATE: Duration = Duration::from_secs(10);
/// Between two attempts to learn it.
const PAUSE: Duration = Duration::from_millis(250);

/// The epoch of this node's life; 0 before it joined.
pub(crate) type Epoch = Arc<AtomicI64>;

/// The task's own.
pub(crate) struct Writer {
    pub(crate) connector: Connector,
    pub(crate) node: Arc<str>,
    pub(crate) epoch: Epoch,
    pub(crate) metrics: Arc<StoreMetrics>,
    db: Option<Db>,
    /// Of the last transaction; no other one of this node ever had it.
    number: i64,
    /// No connection is tried before then, and why: for as long as the last attempt took, so that writes that wait for one
    /// that takes long do not wait for it in turn.
    down: Option<(Instant, String)>,
}

/// What became of a transaction.
enum Fate {
    Committed,
    /// Nothing of it is there.
    Undone(Fault),
    /// COMMIT was sent and not answered.
    Unknown(Fault),
}

impl Writer {
    pub(crate) fn new(
        connector: Connector,
        db: Db,
        node: Arc<str>,
        epoch: Epoch,
        metrics: Arc<StoreMetrics>,
    ) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let number = i64::try_from(since.as_nanos()).unwrap_or_default();
        Self { connector, node, epoch, metrics, db: Some(db), number, down: None }
    }

    /// Writes until the queue is closed and empty.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Write>) {
        let mut taken = Vec::with_capacity(GROUP);
        let mut group = Vec::new();
        while inbox.recv_many(&mut taken, GROUP).await > 0 {
            for write in taken.drain(..) {
                match write {
                    Write::Shared(waiting) => group.push(*waiting),
                    Write::Alone { needs, job, _weight: weight } => {
                        self.together(std::mem::take(&mut group)).await;
                        self.alone(needs, job).await;
                        drop(weight);
                    }
                    Write::Nothing(answer) => {
                        self.together(std::mem::take(&mut group)).await;
                        answer.send(()).ok(); // whoever asked may have gone
                    }
                }
            }
            self.together(std::mem::take(&mut group)).await;
        }
    }

    async fn together(&mut self, group: Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        let (changes, told): (Vec<_>, Vec<_>) =
            group.into_iter().map(|Waiting { change, told, _weight }| (change, (told, _weight))).unzip();
        let outcomes = self.changes(&changes).await;
        for ((told, weight), outcome) in told.into_iter().zip(outcomes) {
            drop(weight);
            told.tell(outcome);
        }
    }

    /// All in one transaction; if the server refuses that for one of them, or for a collision, each in its own.
    async fn changes(&mut self, changes: &[Change]) -> Vec<Result<bool, StoreError>> {
        let all = |error: &StoreError| changes.iter().map(|_| Err(error.clone())).collect();
        match self.attempt(changes).await {
            Ok(outcomes) => outcomes,
            Err(Fault::Refused(error)) => all(&error),
            Err(fault) if fault.is_answer() && (changes.len() > 1 || fault.is_collision()) => {
                tracing::warn!(error = %fault.unwritable(), "a group of writes failed: they go one by one");
                let mut outcomes = Vec::with_capacity(changes.len());
                for change in changes {
                    let outcome = self.attempt(std::slice::from_ref(change)).await;
                    let one = outcome.map_err(Fault::unwritable);
                    outcomes.push(one.and_then(|mut one| one.pop().unwrap_or(Err(StoreError::Closed))));
                }
                outcomes
            }
            Err(fault) => all(&fault.unwritable()),
        }
    }

    async fn attempt(&mut self, changes: &[Change]) -> Result<Vec<Result<bool, StoreError>>, Fault> {
        let begin = Instant::now();
        let epoch = self.epoch.load(Ordering::Acquire);
        if epoch == 0 {
            return Err(StoreError::Lapsed.into());
        }
        self.number += 1;
        let (node, number) = (Arc::clone(&self.node), self.number);
        let db = self.connected().await?;
        let mut outcomes = None;
        let work = async {
            match group::carry_out(db, Opening { node: &node, epoch, number }, changes).await {
                Ok(done) => {
                    outcomes = Some(done);
                    commit(db).await
                }
                Err(fault) => undo(db, fault).await,
            }
        };
        // Where it stood if that took too long is not known: the number says.
        let fate = within(TRANSACTION, work).await.unwrap_or_else(Fate::Unknown);
        let fate = self.settled(fate, number, true).await;
        self.count(begin, changes.len() as u64, fate.is_ok());
        fate?;
        outcomes.ok_or_else(|| Fault::Gone("the transaction was cut off".into()))
    }

    async fn alone(&mut self, needs: Needs, mut job: Box<dyn Job>) {
        let begin = Instant::now();
        let epoch = self.epoch.load(Ordering::Acquire);
        let guarded = match needs {
            Needs::Life | Needs::Begins | Needs::Whole if epoch == 0 => {
                return job.tell(Err(StoreError::Lapsed));
            }
            Needs::Life | Needs::Begins | Needs::Whole => true,
            Needs::Nothing => epoch != 0,
            Needs::NoCheck => false,
        };
        self.number += 1;
        let (node, number) = (Arc::clone(&self.node), self.number);
        let db = match self.connected().await {
            Ok(db) => db,
            Err(fault) => return job.tell(Err(fault.unwritable())),
        };
        let transaction = transact(db, Opening { node: &node, epoch, number }, needs, guarded, &mut *job);
        let fate = within(LARGE, transaction).await.unwrap_or_else(Fate::Unknown);
        let fate = self.settled(fate, number, guarded).await;
        self.count(begin, 1, fate.is_ok());
        job.tell(fate.map_err(Fault::unwritable));
    }

    fn count(&self, begin: Instant, writes: u64, written: bool) {
        self.metrics.commits.took(begin.elapsed());
        self.metrics.writes.add(writes);
        if !written {
            self.metrics.failed.count();
        }
    }

    /// The connection, made anew where it is lost.
    async fn connected(&mut self) -> Result<&Db, Fault> {
        if self.db.as_ref().is_some_and(|db| db.is_closed()) {
            self.db = None;
        }
        if self.db.is_none() {
            if let Some((until, why)) = &self.down
                && Instant::now() < *until
            {
                return Err(Fault::Gone(why.clone()));
            }
            let begin = Instant::now();
            match within(CONNECT, self.connector.open()).await.and_then(|opened| opened) {
                Ok(db) => {
                    self.down = None;
                    self.db = Some(db);
                }
                Err(fault) => {
                    let why = match fault.unwritable() {
                        StoreError::Unwritable(why) => why,
                        other => other.to_string(),
                    };
                    self.down = Some((Instant::now() + begin.elapsed(), why.clone()));
                    return Err(Fault::Gone(why));
                }
            }
        }
        self.db.as_ref().ok_or_else(|| Fault::Gone("no connection to PostgreSQL".into()))
    }

    /// Finds out what is not known, as far as it can be.
    async fn settled(&mut self, fate: Fate, number: i64, numbered: bool) -> Result<(), Fault> {
        match fate {
            Fate::Committed => Ok(()),
            Fate::Undone(fault) => {
                if !fault.is_answer() {
                    self.db = None;
                }
                Err(fault)
            }
            Fate::Unknown(fault) => {
                self.db = None;
                let known = numbered && self.was_committed(number).await == Some(true);
                if known { Ok(()) } else { Err(fault) }
            }
        }
    }

    /// Whether the transaction of this number is there. `None`: the server could not be asked.
    async fn was_committed(&mut self, number: i64) -> Option<bool> {
        let begin = Instant::now();
        loop {
            let asked = async {
                let node = Arc::clone(&self.node);
                let db = self.connected().await?;
                // Waits for what is left of the old connection: until then it may still commit.
                let last = "SELECT number FROM groups WHERE node = $1 FOR UPDATE";
                let found = rows(db, last, &[&&*node]).await?;
                let found: Option<i64> = found.first().map(|row| row.try_get(0)).transpose()?;
                Ok::<_, Fault>(found == Some(number))
            };
            match within(FATE, asked).await.and_then(|asked| asked) {
                Ok(committed) => return Some(committed),
                Err(fault) if begin.elapsed() < FATE => {
                    tracing::debug!(error = %fault, "what became of a commit is not known yet");
                    self.db = self.db.take().filter(|db| !db.is_closed());
                    tokio::time::sleep(PAUSE).await; // nothing tells when a server is back
                }
                Err(fault) => {
                    tracing::error!(error = %fault, "what became of a commit is not known");
                    return None;
                }
            }
        }
    }
}

/// A transaction of a job.
async fn transact(db: &Db, opening: Opening<'_>, needs: Needs, guarded: bool, job: &mut dyn Job) -> Fate {
    let done = async {
        match needs {
            Needs::Begins | Needs::Whole => group::prepare_open(db).await?,
            _ if guarded => {
                group::prepare_open(db).await?;
                group::open(db, opening).await?;
            }
            _ => db.batch_execute("BEGIN").await?,
        }
        job.run(db, opening).await
    };
    match (done.await, needs) {
        (Ok(()), Needs::Whole) => Fate::Committed,
        (Err(fault @ Fault::Cut(_)), _) => Fate::Unknown(fault),
        (Ok(()), _) => commit(db).await,
        (Err(fault), _) => undo(db, fault).await,
    }
}

async fn commit(db: &Db) -> Fate {
    match group::commit(db).await {
        Ok(()) => Fate::Committed,
        Err(fault) if fault.is_answer() => Fate::Undone(fault),
        Err(fault) => Fate::Unknown(fault),
    }
}

/// Takes the transaction back. A connection on which that fails is lost, which takes it back as well.
async fn undo(db: &Db, fault: Fault) -> Fate {
    match db.batch_execute("ROLLBACK").await {
        Ok(()) => Fate::Undone(fault),
        Err(error) => Fate::Undone(if fault.is_answer() { fault } else { Fault::Sql(error) }),
    }
}

/// Raises what another transaction of this connection may take, for the one that is open.
pub(crate) async fn may_be_large(db: &Db) -> Result<(), Fault> {
    execute(db, RAISE, &[&LARGE.as_millis().to_string()]).await.map(drop)
}

/// Before [`may_be_large`] is asked beside others.
pub(crate) async fn prepare_large(db: &Db) -> Result<(), Fault> {
    prepare(db, &[RAISE]).await
}

const RAISE: &str = "SELECT set_config('statement_timeout', $1, true)";
