//! Fences over trees that may be on many nodes.
//!
//! One transaction holds the lock of the tree alone, walks down from what is fenced, over requests that are over too (a
//! tree goes on below those), marks all of it, settles what no node has and makes a part for each request that a node
//! has: one for each, though the owner of a parent may hold its child as well. That is as many as the tree has requests that
//! are not over, and spares a decision about what another node's memory holds.

use cancel::{RequestId, Scope};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    connection::{Db, row, rows},
    fault::Fault,
    group::{TREES, id, tree},
    invocations, parts, receipts,
    writer::may_be_large,
};
use crate::{Fence, Fenced, FunctionFilter, FunctionKey, LATEST, NewReceipt, Reach};

/// Takes a tree for itself: nothing is accepted below another request of it until the transaction ends.
async fn close(db: &Db, root: RequestId) -> Result<(), Fault> {
    may_be_large(db).await?;
    row(db, "SELECT pg_advisory_xact_lock($1::int4, $2::int4)", &[&TREES, &tree(root)]).await.map(drop)
}

/// Records a cancel of this node that reaches over its tree, on other nodes too.
pub(crate) async fn record(db: &Db, node: &str, receipt: &NewReceipt, reach: &Reach) -> Result<(), Fault> {
    close(db, reach.root).await?;
    let tops: Vec<Uuid> = receipt.fenced.iter().copied().map(id).collect();
    let reached = walk(db, &tops).await?;
    lock(db, &reached).await?;
    receipts::put(db, node, receipt).await?;
    // The fences first of what the caller named, in its order.
    receipts::fence(db, receipt.cancel, &tops, true).await?;
    receipts::fence(db, receipt.cancel, &reached, true).await?;
    settle_free(db, &reached, receipt.created_ms).await?;
    let ask = parts::Ask {
        cancel: receipt.cancel,
        node,
        project: &receipt.function.project,
        scope: Scope::Subtree,
        level: reach.level,
        actor: &reach.actor,
    };
    // What hangs below by way of other nodes and came back to this one is for it to stop as well.
    parts::make(db, &ask, &reached, &tops).await
}

/// Fences a request and what is in scope with it, wherever it is.
pub(crate) async fn fence(db: &Db, node: &str, epoch: i64, fence: &Fence) -> Result<Fenced, Fault> {
    let target = id(fence.target);
    let found =
        row(db, "SELECT COALESCE(root, request) FROM invocations WHERE request = $1", &[&target]).await?;
    let Some(found) = found else { return fence_below(db, node, epoch, fence).await };
    close(db, RequestId(found.try_get::<_, Uuid>(0)?.as_u128())).await?;
    let reached = match fence.scope {
        Scope::Request => vec![target],
        Scope::Subtree => walk(db, &[target]).await?,
    };
    let alive = lock(db, &reached).await?;
    // Only now: until it was locked it may have ended, or have been forgotten.
    let Some(row) =
        invocations::one(db, fence.target).await?.filter(|row| fence.function.fits(&row.function))
    else {
        return Ok(Fenced::Unknown);
    };
    if !alive {
        return Ok(match row.fenced_by {
            Some(cancel) => Fenced::Canceled(cancel),
            None => Fenced::Finished(row.status),
        });
    }
    fenced(db, node, fence, row.function, &reached).await
}

/// Fences what a request has left that the store does not know itself: a synchronous one, by what it made. Only whoever
/// names a whole tree means that.
async fn fence_below(db: &Db, node: &str, epoch: i64, fence: &Fence) -> Result<Fenced, Fault> {
    let target = id(fence.target);
    let made = "SELECT COALESCE(i.root, i.request) FROM above a JOIN invocations i ON i.request = a.request
                WHERE a.above = $1 AND i.project = $2 AND i.status < 2 LIMIT 1";
    let root = match fence.scope {
        Scope::Request => None,
        Scope::Subtree => row(db, made, &[&target, &fence.function.project]).await?,
    };
    let Some(root) = root else { return Ok(Fenced::Unknown) };
    parts::hold_nodes(db, node, epoch).await?;
    close(db, RequestId(root.try_get::<_, Uuid>(0)?.as_u128())).await?;
    let reached = walk(db, &[target]).await?;
    if !lock(db, &reached).await? {
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
    receipts::put(db, node, &receipt).await?;
    receipts::fence(db, fence.cancel, reached, fence.scope == Scope::Subtree).await?;
    let settled = settle_free(db, reached, fence.now_ms).await?;
    let ask = parts::Ask {
        cancel: fence.cancel,
        node,
        project: &fence.function.project,
        scope: fence.scope,
        level: fence.level,
        actor: &fence.actor,
    };
    parts::make(db, &ask, reached, &[]).await?;
    Ok(Fenced::Stopping { settled, parts: parts::of(db, fence.cancel).await? })
}

/// These and all that hangs below them, each once.
async fn walk(db: &Db, tops: &[Uuid]) -> Result<Vec<Uuid>, Fault> {
    let walk = "WITH RECURSIVE reached (request) AS (
                    SELECT unnest($1::uuid[])
                    UNION SELECT a.request FROM reached r JOIN above a ON a.above = r.request)
                SELECT request FROM reached";
    rows(db, walk, &[&tops]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Whether any of them is not over. Nobody changes them until the transaction ends.
async fn lock(db: &Db, requests: &[Uuid]) -> Result<bool, Fault> {
    let lock = "SELECT 1 FROM invocations WHERE request = ANY($1) AND status < 2 ORDER BY request FOR UPDATE";
    Ok(!rows(db, lock, &[&requests]).await?.is_empty())
}

/// Settles those that no node has.
async fn settle_free(
    db: &Db,
    requests: &[Uuid],
    now_ms: i64,
) -> Result<Vec<(RequestId, FunctionKey)>, Fault> {
    let settle = "UPDATE invocations
                  SET status = CASE WHEN attempts = 0 THEN 4 ELSE 3 END, error_code = 4208,
                      error_message = 'function invocation canceled', ended_ms = $2
                  WHERE request = ANY($1) AND owner IS NULL AND status < 2
                  RETURNING request, project, package, name, version";
    let read = |row: &Row| {
        let function = FunctionKey {
            project: row.try_get(1)?,
            package: row.try_get(2)?,
            name: row.try_get(3)?,
            version: row.try_get(4)?,
        };
        Ok((RequestId(row.try_get::<_, Uuid>(0)?.as_u128()), function))
    };
    rows(db, settle, &[&requests, &now_ms]).await?.iter().map(read).collect()
}
