//! Fences over trees that may be on many nodes.
//!
//! One transaction holds the lock of the tree alone, walks down from what is fenced, over requests that are over too (a
//! tree goes on below those), marks all of it, settles what no node has and makes a part for each request that a node
//! has: one for each, though the owner of a parent may hold its child as well. That is as many as the tree has requests that
//! are not over, and spares a decision about what another node's memory holds.

use cancel::{CancelId, RequestId, Scope};
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    connection::{Db, prepare, row, rows},
    fault::Fault,
    group::{Opening, TREES, commit, id, open},
    invocations, parts, receipts,
    writer::{may_be_large, prepare_large},
};
use crate::{Fence, Fenced, FunctionFilter, FunctionKey, LATEST, NewReceipt, Reach, Status};

// What one statement found decides what those behind it do, which are sent with it: it is kept in a setting of the
// transaction. Empty: there is nothing to hold.
const ROOT: &str = "
SELECT set_config('quell.root', COALESCE((SELECT COALESCE(root, request)::text FROM invocations WHERE request = $1), ''), true)";
const ROOT_UNLESS_ASKED: &str = "SELECT set_config('quell.root', CASE WHEN current_setting('quell.asked') = 'true' THEN '' ELSE $1 END, true)";
const CLOSE: &str = "
SELECT pg_advisory_xact_lock($1::int4,
    ('x' || substr(root, 1, 8))::bit(32)::int4 # ('x' || substr(root, 10, 4) || substr(root, 15, 4))::bit(32)::int4
    # ('x' || substr(root, 20, 4) || substr(root, 25, 4))::bit(32)::int4 # ('x' || substr(root, 29, 8))::bit(32)::int4)
FROM current_setting('quell.root') AS root WHERE root <> ''";
// Counting takes them all, and with that their locks; a request that has changed meanwhile is looked at again.
const HOLD: &str = "
WITH RECURSIVE reached (request) AS (
    SELECT unnest($1::uuid[]) WHERE current_setting('quell.root') <> ''
    UNION SELECT a.request FROM reached r JOIN above a ON a.above = r.request WHERE $2),
held AS (
    SELECT 1 FROM invocations i WHERE i.request = ANY (ARRAY(SELECT request FROM reached))
    AND (i.status < 2 OR i.tail AND EXISTS (SELECT 1 FROM nodes n WHERE n.node = i.owner AND n.state IN (0, 1)))
    ORDER BY i.request FOR UPDATE OF i)
SELECT ARRAY(SELECT request FROM reached), (SELECT count(*) FROM held)";

/// What is fenced now, and nobody changes until the transaction ends.
struct Held {
    /// What was named and, of a whole tree, all that hangs below, each once.
    reached: Vec<Uuid>,
    /// Whether any of them is not over, or has left something that its node alone knows.
    alive: bool,
}

/// Takes the tree that was named before for itself, so that nothing is accepted below another request of it until the
/// transaction ends; and then all that is in scope. Nothing where none was named.
async fn hold(db: &Db, tops: &[Uuid], scope: Scope) -> Result<Held, Fault> {
    let below = scope == Scope::Subtree;
    let (_, held) = tokio::try_join!(biased;
        async { row(db, CLOSE, &[&TREES]).await },
        async { row(db, HOLD, &[&tops, &below]).await },
    )?;
    let held = held.ok_or_else(|| Fault::Gone("a look at a tree made no row".into()))?;
    Ok(Held { reached: held.try_get(0)?, alive: held.try_get::<_, i64>(1)? > 0 })
}

/// Names a tree for [`hold`].
async fn name_root(db: &Db, statement: &str, root: &(dyn ToSql + Sync)) -> Result<bool, Fault> {
    let named = row(db, statement, &[root]).await?;
    Ok(named.map(|row| row.try_get::<_, String>(0)).transpose()?.is_some_and(|root| !root.is_empty()))
}

const SETTLE_FREE: &str = "
UPDATE invocations
SET status = CASE WHEN attempts = 0 THEN 4 ELSE 3 END, error_code = 4208,
    error_message = 'function invocation canceled', ended_ms = $2
WHERE request = ANY($1) AND owner IS NULL AND status < 2
RETURNING request, project, package, name, version";

/// All that is asked side by side below: what is sent first is carried out first.
async fn ready(db: &Db) -> Result<(), Fault> {
    prepare_large(db).await?;
    prepare(db, &[CLOSE, HOLD, SETTLE_FREE, ROOT, ROOT_UNLESS_ASKED]).await?;
    invocations::prepare_one(db).await?;
    prepare(db, &receipts::PUTS).await?;
    prepare(db, &parts::MAKES).await?;
    prepare(db, &parts::WAITS_BELOW).await?;
    parts::prepare_asked(db).await?;
    parts::prepare_of(db).await
}

/// Records a cancel of this node that reaches over its tree, on other nodes too: a transaction from BEGIN to COMMIT.
pub(crate) async fn record(
    db: &Db,
    opening: Opening<'_>,
    receipt: &NewReceipt,
    reach: &Reach,
) -> Result<(), Fault> {
    ready(db).await?;
    let node = opening.node;
    let tops: Vec<Uuid> = receipt.fenced.iter().copied().map(id).collect();
    let root = id(reach.root).to_string();
    let ((), (), (), is_ours, Held { reached, .. }) = tokio::try_join!(biased;
        open(db, opening),
        may_be_large(db),
        parts::asked(db, node, receipt.target, &tops, reach.level),
        name_root(db, ROOT_UNLESS_ASKED, &root),
        hold(db, &tops, Scope::Subtree),
    )?;
    if !is_ours {
        return record_part(db, node, receipt, &tops, reach).await;
    }
    let ask = parts::Ask {
        cancel: receipt.cancel,
        node,
        project: &receipt.function.project,
        scope: Scope::Subtree,
        level: reach.level,
        actor: &reach.actor,
    };
    // The fences first of what the caller named, in its order.
    let fenced = tops.iter().chain(&reached).copied();
    tokio::try_join!(biased;
        receipts::put(db, node, receipt),
        receipts::fence(db, receipt.cancel, fenced, true, &tops),
        settle_free(db, &reached, receipt.created_ms),
        // What hangs below by way of other nodes and came back to this one is for it to stop as well.
        parts::make(db, &ask, &reached, &tops),
        commit(db),
    )
    .map(drop)
    .map_err(Fault::at_commit)
}

/// The same where another node's cancel asks this one for it: its fence is over the whole tree, durably, and what hangs below
/// on other nodes has parts. So the tree's lock, which all these nodes would wait for in turn, is not needed: nothing is
/// accepted behind that fence. Whoever joins this cancel still waits for those parts.
async fn record_part(
    db: &Db,
    node: &str,
    receipt: &NewReceipt,
    tops: &[Uuid],
    reach: &Reach,
) -> Result<(), Fault> {
    tokio::try_join!(biased;
        receipts::put(db, node, receipt),
        receipts::fence(db, receipt.cancel, tops.iter().copied(), true, tops),
        parts::wait_below(db, node, receipt.cancel, tops, reach.level),
        commit(db),
    )
    .map(drop)
    .map_err(Fault::at_commit)
}

/// Fences a request and what is in scope with it, wherever it is. It begins the transaction.
pub(crate) async fn fence(db: &Db, opening: Opening<'_>, fence: &Fence) -> Result<Fenced, Fault> {
    ready(db).await?;
    let target = id(fence.target);
    let named = [target];
    let ((), (), found, Held { reached, alive }, row) = tokio::try_join!(biased;
        open(db, opening),
        may_be_large(db),
        name_root(db, ROOT, &target),
        hold(db, &named, fence.scope),
        // Only behind the lock: until it was locked it may have ended, or have been forgotten.
        invocations::one(db, fence.target),
    )?;
    if !found {
        return fence_below(db, opening, fence).await;
    }
    let Some(row) = row.filter(|row| fence.function.fits(&row.function)) else {
        return Ok(Fenced::Unknown);
    };
    // What a request that ended otherwise has left is not it: that is a matter of its tree.
    let stopped = [cancel::CODE_CANCELED, cancel::CODE_TIMED_OUT].map(i32::from).contains(&row.error_code);
    let over = !matches!(row.status, Status::Wait | Status::Running);
    if over && !stopped && fence.scope == Scope::Request {
        return Ok(Fenced::Finished(row.status));
    }
    if !alive {
        return Ok(match row.fenced_by {
            Some(cancel) => Fenced::Canceled(cancel),
            None => Fenced::Finished(row.status),
        });
    }
    fenced(db, opening.node, fence, row.function, &reached).await
}

/// Fences what a request has left that the store does not know itself: a synchronous one, by what it made. Only whoever
/// names a whole tree means that.
async fn fence_below(db: &Db, opening: Opening<'_>, fence: &Fence) -> Result<Fenced, Fault> {
    let Opening { node, epoch, .. } = opening;
    let target = id(fence.target);
    let made =
        "SELECT COALESCE(i.root, i.request)::text FROM above a JOIN invocations i ON i.request = a.request
                WHERE a.above = $1 AND i.project = $2 AND (i.status < 2 OR i.tail) LIMIT 1";
    let root = match fence.scope {
        Scope::Request => None,
        Scope::Subtree => row(db, made, &[&target, &fence.function.project]).await?,
    };
    let Some(root) = root else { return Ok(Fenced::Unknown) };
    parts::hold_nodes(db, node, epoch).await?;
    row(db, "SELECT set_config('quell.root', $1, true)", &[&root.try_get::<_, String>(0)?]).await?;
    let Held { reached, alive } = hold(db, &[target], Scope::Subtree).await?;
    if !alive {
        return Ok(Fenced::Unknown);
    }
    let FunctionFilter { project, package, name, versions } = fence.function.clone();
    let version = versions.into_iter().next().unwrap_or_else(|| LATEST.to_owned());
    let done = fenced(db, node, fence, FunctionKey { project, package, name, version }, &reached).await?;
    // Itself it may still run, on a node that alone knows it.
    let around = parts::of_everybody(db, node, fence).await?;
    Ok(match done {
        Fenced::Stopping { settled, mut parts } => {
            parts.extend(around);
            Fenced::Stopping { settled, parts }
        }
        done => done,
    })
}

/// Writes down a fence over these, settles what no node has, and makes parts of the rest.
async fn fenced(
    db: &Db,
    node: &str,
    fence: &Fence,
    function: FunctionKey,
    reached: &[Uuid],
) -> Result<Fenced, Fault> {
    let receipt = NewReceipt {
        cancel: fence.cancel,
        target: fence.target,
        function,
        fenced: Vec::new(),
        reach: None,
        body: fence.body.clone(),
        created_ms: fence.now_ms,
    };
    let ask = parts::Ask {
        cancel: fence.cancel,
        node,
        project: &fence.function.project,
        scope: fence.scope,
        level: fence.level,
        actor: &fence.actor,
    };
    let subtree = fence.scope == Scope::Subtree;
    let ((), (), settled, (), parts) = tokio::try_join!(biased;
        receipts::put(db, node, &receipt),
        receipts::fence(db, fence.cancel, reached.iter().copied(), subtree, &[]),
        settle_free(db, reached, fence.now_ms),
        parts::make(db, &ask, reached, &[]),
        parts::of(db, fence.cancel),
    )?;
    Ok(Fenced::Stopping { settled, parts })
}

/// Settles those that no node has.
async fn settle_free(
    db: &Db,
    requests: &[Uuid],
    now_ms: i64,
) -> Result<Vec<(RequestId, FunctionKey)>, Fault> {
    let read = |row: &Row| {
        let function = FunctionKey {
            project: row.try_get(1)?,
            package: row.try_get(2)?,
            name: row.try_get(3)?,
            version: row.try_get(4)?,
        };
        Ok((RequestId(row.try_get::<_, Uuid>(0)?.as_u128()), function))
    };
    rows(db, SETTLE_FREE, &[&requests, &now_ms]).await?.iter().map(read).collect()
}

/// Whether it has fenced all that hangs below this request.
pub(crate) async fn reaches(db: &Db, cancel: CancelId, request: RequestId) -> Result<bool, Fault> {
    let look = "SELECT 1 FROM fences WHERE request = $1 AND cancel = $2 AND subtree";
    Ok(row(db, look, &[&id(request), &receipts::name_of(cancel)]).await?.is_some())
}
