//! The changes of one transaction, many in one statement.
//!
//! Changes of different requests commute, and those of one request have an order of their own: accepted, running,
//! waiting, settled. So a run of changes is taken together, each kind in one statement, as long as no request would be
//! changed against that order; then another run begins.

use std::collections::{BTreeMap, HashMap};

use cancel::{CancelId, RequestId};
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::{
    connection::{Db, prepare, row, rows},
    fault::Fault,
    invocations, parts,
    queue::{Change, Until},
    receipts,
};
use crate::{Lineage, NewInvocation, PartState, Placement, Settlement, Status, StoreError};

/// The first half of the numbers of our advisory locks on trees; the second is made of the root's id.
pub(crate) const TREES: i32 = 0x5175_6574;
/// Tells the nodes that requests came into the shared queue.
pub(crate) const TELL_QUEUE: &str = "SELECT pg_notify('quell_queue', '')";

/// Which transaction it is, and of which life of which node.
#[derive(Clone, Copy)]
pub(crate) struct Opening<'a> {
    pub(crate) node: &'a str,
    pub(crate) epoch: i64,
    pub(crate) number: i64,
}

// Fails where the life is over, and with it all that was sent behind it: even COMMIT, which takes back then.
const OWN: &str = "
WITH me AS (SELECT 1 FROM nodes WHERE node = $1 AND epoch = $2 AND state IN (0, 1) FOR KEY SHARE),
mine AS (UPDATE groups SET number = $3 WHERE node = $1 AND EXISTS (SELECT 1 FROM me) RETURNING 1)
SELECT 1 / count(*) FROM mine";
const QUEUED: &str = "
SELECT set_config('quell.queued', EXISTS (SELECT 1 FROM invocations WHERE owner IS NULL AND status = 0)::text, true)";
const OWN_IF_QUEUED: &str = "
WITH me AS (SELECT 1 FROM nodes WHERE node = $1 AND epoch = $2 AND state IN (0, 1)
            AND current_setting('quell.queued') = 'true' FOR KEY SHARE),
mine AS (UPDATE groups SET number = $3 WHERE node = $1 AND EXISTS (SELECT 1 FROM me) RETURNING 1)
SELECT CASE current_setting('quell.queued') WHEN 'true' THEN 1 / count(*) END FROM mine";
const LOCK_TREES: &str = "SELECT pg_advisory_xact_lock_shared($1::int4, k) FROM unnest($2::int4[]) AS k";
const LOCK_ROWS: &str = "
SELECT 1 FROM invocations WHERE request = ANY($1) AND status < 2 ORDER BY request FOR NO KEY UPDATE";

/// Before [`open`] is asked beside others.
pub(crate) async fn prepare_open(db: &Db) -> Result<(), Fault> {
    prepare(db, &[OWN, LOCK_TREES, LOCK_ROWS]).await
}

/// Begins a transaction of this life.
pub(crate) async fn open(db: &Db, opening: Opening<'_>) -> Result<(), Fault> {
    tokio::try_join!(biased; async { Ok(db.batch_execute("BEGIN").await?) }, own(db, OWN, opening)).map(drop)
}

/// Begins one which is of this life only if something waits in the queue: otherwise it writes nothing, and its COMMIT waits for
/// no disk. What comes behind it must look at `quell.queued`.
pub(crate) async fn open_if_queued(db: &Db, opening: Opening<'_>) -> Result<(), Fault> {
    tokio::try_join!(biased;
        async { Ok(db.batch_execute("BEGIN").await?) },
        async { row(db, QUEUED, &[]).await },
        own(db, OWN_IF_QUEUED, opening),
    )
    .map(drop)
}

/// Before [`open_if_queued`] is asked beside others.
pub(crate) async fn prepare_if_queued(db: &Db) -> Result<(), Fault> {
    prepare(db, &[QUEUED, OWN_IF_QUEUED]).await
}

async fn own(db: &Db, statement: &str, opening: Opening<'_>) -> Result<(), Fault> {
    let Opening { node, epoch, number } = opening;
    match row(db, statement, &[&node, &epoch, &number]).await {
        Err(Fault::Sql(error)) if error.code() == Some(&SqlState::DIVISION_BY_ZERO) => {
            Err(StoreError::Lapsed.into())
        }
        other => other.map(drop),
    }
}

/// Begins one, and takes the locks that its changes need.
pub(crate) async fn begin(db: &Db, opening: Opening<'_>, changes: &[Change]) -> Result<(), Fault> {
    let (trees, requests) = locks(changes);
    tokio::try_join!(biased;
        open(db, opening),
        async { if trees.is_empty() { Ok(Vec::new()) } else { rows(db, LOCK_TREES, &[&TREES, &trees]).await } },
        async { if requests.len() < 2 { Ok(Vec::new()) } else { rows(db, LOCK_ROWS, &[&requests]).await } },
    )
    .map(drop)
}

/// Ends the open transaction.
pub(crate) async fn commit(db: &Db) -> Result<(), Fault> {
    Ok(db.batch_execute("COMMIT").await?)
}

/// The trees that must not be fenced meanwhile, and the requests that are there and change.
fn locks(changes: &[Change]) -> (Vec<i32>, Vec<Uuid>) {
    let (mut trees, mut requests) = (Vec::new(), Vec::new());
    for change in changes {
        match change {
            Change::Accept(new) => trees.extend(tree_of(&new.lineage)),
            Change::Running(request, ..) | Change::Waiting(request, ..) => requests.push(id(*request)),
            Change::Settle(end) => {
                requests.push(id(end.request));
                trees.extend(end.next.as_ref().and_then(|next| tree_of(&next.lineage)));
            }
            Change::Cancel(receipt) => requests.extend(receipt.fenced.iter().copied().map(id)),
            Change::Over(..) | Change::Report(..) => {}
        }
    }
    trees.sort_unstable();
    trees.dedup();
    requests.sort_unstable();
    requests.dedup();
    (trees, requests)
}

/// The lock of the tree that it hangs in; none if it is a top.
fn tree_of(lineage: &Lineage) -> Option<i32> {
    lineage.root.or(lineage.above.last().copied()).map(tree)
}

/// The number of a tree's lock. Two trees may share one: then they only wait for each other.
pub(crate) fn tree(root: RequestId) -> i32 {
    let bits = root.0 ^ (root.0 >> 64);
    ((bits ^ (bits >> 32)) as u32).cast_signed()
}

pub(crate) fn id(request: RequestId) -> Uuid {
    Uuid::from_u128(request.0)
}

/// A run of changes that are carried out together, by their places.
#[derive(Default)]
struct Run<'a> {
    accepts: Vec<(usize, &'a NewInvocation)>,
    running: Vec<(RequestId, u32, i64)>,
    waiting: Vec<(RequestId, u32, Until)>,
    settled: Vec<(usize, &'a Settlement)>,
    over: Vec<(CancelId, &'a str)>,
    reports: Vec<(i64, PartState, &'a str)>,
    /// The last kind of change of each request.
    touched: HashMap<RequestId, u8>,
}

impl<'a> Run<'a> {
    /// False if it must wait for the next run.
    fn takes(&mut self, place: usize, change: &'a Change) -> bool {
        // These are of other rows: after all of the run, as nothing in it waits for them.
        match change {
            Change::Over(cancel, body) => {
                let free = self.over.iter().all(|(other, _)| other != cancel);
                return free.then(|| self.over.push((*cancel, body))).is_some();
            }
            Change::Report(part, state, detail) => {
                let free = self.reports.iter().all(|(other, ..)| other != part);
                return free.then(|| self.reports.push((*part, *state, detail))).is_some();
            }
            _ => {}
        }
        let (request, kind) = match change {
            Change::Accept(new) => (new.request, 1),
            Change::Running(request, ..) => (*request, 2),
            Change::Waiting(request, ..) => (*request, 3),
            Change::Settle(end) if end.next.is_none() && is_final(end.status) => (end.request, 4),
            Change::Settle(_) | Change::Cancel(_) | Change::Over(..) | Change::Report(..) => return false,
        };
        let last = self.touched.entry(request).or_default();
        if *last >= kind {
            return false;
        }
        *last = kind;
        match change {
            Change::Accept(new) => self.accepts.push((place, new)),
            Change::Running(request, attempts, at) => self.running.push((*request, *attempts, *at)),
            Change::Waiting(request, failures, until) => self.waiting.push((*request, *failures, *until)),
            Change::Settle(end) => self.settled.push((place, end)),
            Change::Cancel(_) | Change::Over(..) | Change::Report(..) => {}
        }
        true
    }

    /// All of these changes, if they can be carried out together.
    fn of_all(changes: &'a [Change]) -> Option<Self> {
        let mut run = Self::default();
        changes.iter().enumerate().all(|(place, change)| run.takes(place, change)).then_some(run)
    }

    /// Its statements are sent one after the other without waiting for answers: the server keeps their order.
    async fn carry_out(&self, db: &Db, node: &str) -> Result<Ends, Fault> {
        let accepts: Vec<_> = self.accepts.iter().map(|(_, new)| *new).collect();
        let settled: Vec<_> = self.settled.iter().map(|(_, end)| *end).collect();
        let (accepted, (), (), settled, (), ()) = tokio::try_join!(biased;
            invocations::accept(db, node, &accepts),
            invocations::mark_running(db, node, &self.running),
            invocations::mark_waiting(db, node, &self.waiting),
            invocations::settle(db, node, &settled),
            receipts::update(db, &self.over),
            parts::report(db, node, &self.reports),
        )?;
        Ok(Ends { accepted, settled })
    }

    /// Puts what became of each in its place.
    fn tell(self, ends: &Ends, outcomes: &mut [Result<bool, StoreError>]) {
        let accepts: Vec<_> = self.accepts.iter().map(|(_, new)| *new).collect();
        for ((place, new), outcome) in self.accepts.iter().zip(outcomes_of(&accepts, &ends.accepted)) {
            tracing::trace!(request = ?new.request, ?outcome, "accepted");
            set(outcomes, *place, outcome);
        }
        for (place, end) in &self.settled {
            set(outcomes, *place, Ok(ends.settled.contains_key(&id(end.request))));
        }
    }
}

/// What became of the changes of a run that may come to nothing.
struct Ends {
    accepted: BTreeMap<Uuid, bool>,
    settled: BTreeMap<Uuid, bool>,
}

fn set(outcomes: &mut [Result<bool, StoreError>], place: usize, outcome: Result<bool, StoreError>) {
    if let Some(there) = outcomes.get_mut(place) {
        *there = outcome;
    }
}

/// What became of each: those that are not among the answers were there before.
fn outcomes_of(accepts: &[&NewInvocation], accepted: &BTreeMap<Uuid, bool>) -> Vec<Result<bool, StoreError>> {
    let outcome = |new: &&NewInvocation| match accepted.get(&id(new.request)) {
        Some(true) => Ok(true),
        Some(false) => Err(StoreError::Banned),
        None => Err(StoreError::Exists),
    };
    accepts.iter().map(outcome).collect()
}

fn is_final(status: Status) -> bool {
    !matches!(status, Status::Wait | Status::Running)
}

/// Begins a transaction and carries out all of them in it; COMMIT is for the caller, who then knows what it would make
/// durable. An outcome of its own has what the store refuses of one; anything else fails all. One way there and back, where
/// all of them can go together.
pub(crate) async fn carry_out(
    db: &Db,
    opening: Opening<'_>,
    changes: &[Change],
) -> Result<Vec<Result<bool, StoreError>>, Fault> {
    prepare_open(db).await?;
    invocations::prepare(db).await?;
    receipts::prepare_update(db).await?;
    parts::prepare_report(db).await?;
    prepare(db, &[TELL_QUEUE]).await?;
    let mut outcomes: Vec<Result<bool, StoreError>> = changes.iter().map(|_| Ok(true)).collect();
    if let Some(run) = Run::of_all(changes) {
        let queued = changes.iter().any(is_for_all);
        let ((), ends, ()) = tokio::try_join!(biased;
            begin(db, opening, changes),
            run.carry_out(db, opening.node),
            async { if queued { tell_queue(db).await } else { Ok(()) } },
        )?;
        run.tell(&ends, &mut outcomes);
        return Ok(outcomes);
    }
    begin(db, opening, changes).await?;
    in_runs(db, opening.node, changes, &mut outcomes).await?;
    if changes.iter().zip(&outcomes).any(|(change, outcome)| outcome.is_ok() && is_for_all(change)) {
        tell_queue(db).await?;
    }
    Ok(outcomes)
}

/// Carries out run after run, and between them what goes alone.
async fn in_runs(
    db: &Db,
    node: &str,
    changes: &[Change],
    outcomes: &mut [Result<bool, StoreError>],
) -> Result<(), Fault> {
    let mut run = Run::default();
    for (place, change) in changes.iter().enumerate() {
        if run.takes(place, change) {
            continue;
        }
        let before = std::mem::take(&mut run);
        before.carry_out(db, node).await.map(|ends| before.tell(&ends, outcomes))?;
        if run.takes(place, change) {
            continue;
        }
        let outcome = match change {
            Change::Settle(end) => hand_on(db, node, end).await?,
            Change::Cancel(receipt) => receipts::record(db, node, receipt).await.map(|()| Ok(true))?,
            // A new run takes them.
            Change::Accept(_)
            | Change::Running(..)
            | Change::Waiting(..)
            | Change::Over(..)
            | Change::Report(..) => Ok(true),
        };
        set(outcomes, place, outcome);
    }
    run.carry_out(db, node).await.map(|ends| run.tell(&ends, outcomes))
}

/// Tells the nodes that something came into the queue, or may have.
async fn tell_queue(db: &Db) -> Result<(), Fault> {
    row(db, TELL_QUEUE, &[]).await.map(drop)
}

fn is_for_all(change: &Change) -> bool {
    let new = match change {
        Change::Accept(new) => Some(new),
        Change::Settle(end) => end.next.as_deref(),
        _ => None,
    };
    new.is_some_and(|new| new.placement == Placement::Anywhere)
}

/// Settles a request and accepts what its result goes to, or neither.
async fn hand_on(db: &Db, node: &str, end: &Settlement) -> Result<Result<bool, StoreError>, Fault> {
    if !is_final(end.status) {
        return Ok(Err(StoreError::Unwritable(format!("{:?} is no final status", end.status))));
    }
    let Some(next) = end.next.as_deref() else { return Ok(Ok(true)) };
    db.batch_execute("SAVEPOINT handing_on").await?;
    // Not its own end: then it hands nothing on.
    if invocations::settle(db, node, &[end]).await?.get(&id(end.request)) != Some(&true) {
        return Ok(Ok(false));
    }
    let accepted = invocations::accept(db, node, &[next]).await?;
    let outcome = outcomes_of(&[next], &accepted).pop().unwrap_or(Err(StoreError::Exists));
    if outcome.is_err() {
        db.batch_execute("ROLLBACK TO SAVEPOINT handing_on").await?;
    }
    Ok(outcome)
}
