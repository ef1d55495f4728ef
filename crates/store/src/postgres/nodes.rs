//! Who is alive, by the database's clock, and what becomes of the work of who is not.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio_postgres::Row;

use super::{
    bulks,
    connection::{Db, execute, row, rows},
    fault::Fault,
    group::TELL_QUEUE,
    parts::{self, tell_reported},
    writer::may_be_large,
};
use crate::{Beat, Joining, Namesake, NodeLabels, NodeRow, NodeState, PartState, StoreError};

/// Whether a life may begin at this place ($2) and endpoint ($3) under a name that is known: nobody holds its lease, or an
/// older life of that place does, which is over. Where a program of the last version joined, or a machine does not say when
/// it was started, the endpoint has to do.
const MAY_JOIN: &str = "(nodes.state NOT IN (0, 1) OR nodes.lease_until < clock_timestamp()
    OR CASE WHEN '' IN (nodes.place, $2::text) THEN nodes.endpoint = $3::text ELSE nodes.place = $2::text END)";

/// Begins a life: the epoch rises, and a transaction of an older life that is open is waited for.
pub(crate) async fn join(db: &Db, node: &str, place: &str, joining: &Joining) -> Result<i64, Fault> {
    row(db, "SELECT 1 FROM nodes WHERE node = $1 FOR UPDATE", &[&node]).await?;
    let upsert = format!(
        "INSERT INTO nodes (node, epoch, state, place, endpoint, version, lease_ms, joined_ms, lease_until, labels)
         VALUES ($1, 1, 0, $2, $3, $4, $5, $6, clock_timestamp() + $5::bigint * interval '1 millisecond', $7)
         ON CONFLICT (node) DO UPDATE
         SET epoch = nodes.epoch + 1, state = 0, place = excluded.place, endpoint = excluded.endpoint,
             version = excluded.version, lease_ms = excluded.lease_ms, joined_ms = excluded.joined_ms,
             lease_until = excluded.lease_until, labels = excluded.labels
         WHERE {MAY_JOIN} RETURNING epoch"
    );
    let Joining { endpoint, version, lease_ms, labels } = joining;
    let labels = labels.to_vec();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    let lease_ms = i64::from(*lease_ms);
    let joined = row(db, &upsert, &[&node, &place, endpoint, version, &lease_ms, &now, &labels]).await?;
    let Some(joined) = joined else {
        return Err(match namesake(db, node, place, endpoint).await? {
            Some(other) => StoreError::Namesake(other).into(),
            // Its lease has ended between the two looks: asked for again it is given.
            None => Fault::Gone("the lease of another node with this name has just ended".into()),
        });
    };
    let group =
        "INSERT INTO groups (node, number) VALUES ($1, 0) ON CONFLICT (node) DO UPDATE SET number = 0";
    execute(db, group, &[&node]).await?;
    Ok(joined.try_get(0)?)
}

/// Whoever keeps a node of this name from joining at this place.
pub(crate) async fn namesake(
    db: &Db,
    node: &str,
    place: &str,
    endpoint: &str,
) -> Result<Option<Namesake>, Fault> {
    let select = format!(
        "SELECT endpoint, (extract(epoch FROM lease_until - clock_timestamp()) * 1000)::bigint,
                (extract(epoch FROM lease_until) * 1000000)::bigint
         FROM nodes WHERE node = $1 AND NOT {MAY_JOIN}"
    );
    let Some(row) = row(db, &select, &[&node, &place, &endpoint]).await? else { return Ok(None) };
    Ok(Some(Namesake { endpoint: row.try_get(0)?, left_ms: row.try_get(1)?, until_us: row.try_get(2)? }))
}

/// Extends the lease, and looks around. On a connection of the readers: it must not wait behind writes.
pub(crate) async fn renew(db: &Db, node: &str, epoch: i64) -> Result<Beat, Fault> {
    let renew = "UPDATE nodes SET lease_until = clock_timestamp() + lease_ms * interval '1 millisecond'
                 WHERE node = $1 AND epoch = $2 AND state IN (0, 1)";
    if execute(db, renew, &[&node, &epoch]).await? == 0 {
        return Err(StoreError::Lapsed.into());
    }
    let lapsed = "SELECT node FROM nodes
                  WHERE node <> $1 AND state IN (0, 1) AND lease_until < clock_timestamp() ORDER BY node";
    let lapsed = rows(db, lapsed, &[&node]).await?;
    let changed = rows(db, "SELECT name, n FROM changes", &[]).await?;
    let (waiting, orphans) = left_over(db).await?;
    let mut beat = Beat {
        lapsed: lapsed.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
        parts: parts::open(db, node).await?,
        waiting,
        orphans,
        called_off: bulks::called_off(db, node).await?,
        abandoned: bulks::are_abandoned(db).await?,
        ..Beat::default()
    };
    for row in &changed {
        match row.try_get(0)? {
            "functions" => beat.functions = row.try_get(1)?,
            "credentials" => beat.credentials = row.try_get(1)?,
            _ => {}
        }
    }
    Ok(beat)
}

/// Whether requests wait that nobody has, and whether receipts are open that nobody closes.
async fn left_over(db: &Db) -> Result<(bool, bool), Fault> {
    let left = "SELECT EXISTS (SELECT 1 FROM invocations WHERE owner IS NULL AND status = 0
                    AND not_before_ms <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint),
                EXISTS (SELECT 1 FROM receipts r JOIN nodes n ON n.node = r.node WHERE r.open AND n.state IN (2, 3))";
    let Some(found) = row(db, left, &[]).await? else { return Ok((false, false)) };
    Ok((found.try_get(0)?, found.try_get(1)?))
}

/// Says that this node takes nothing new.
pub(crate) async fn drain(db: &Db, node: &str) -> Result<(), Fault> {
    execute(db, "UPDATE nodes SET state = 1 WHERE node = $1", &[&node]).await.map(drop)
}

/// Ends this life in order.
pub(crate) async fn leave(db: &Db, node: &str, epoch: i64) -> Result<u64, Fault> {
    hold(db, node, epoch).await?;
    let gone = give_back(db, node).await?;
    close_parts(db, node, PartState::Stopped, "nothing of it ran when the node left").await?;
    execute(db, "UPDATE nodes SET state = 3, epoch = epoch + 1 WHERE node = $1", &[&node]).await?;
    Ok(gone)
}

/// Takes the work of a node away whose lease is over.
pub(crate) async fn take_over(db: &Db, me: &str, epoch: i64, node: &str) -> Result<bool, Fault> {
    if !seize(db, me, epoch, node).await? {
        return Ok(false);
    }
    let over = "UPDATE nodes SET state = 2, epoch = epoch + 1
                WHERE node = $1 AND node <> $2 AND state IN (0, 1) AND lease_until < clock_timestamp()";
    if execute(db, over, &[&node, &me]).await? == 0 {
        return Ok(false);
    }
    give_back(db, node).await?;
    // After the requests: whoever fenced one of them before has made its part by now.
    close_parts(db, node, PartState::NodeLost, "its node's lease ended").await?;
    Ok(true)
}

/// Holds a node's own row alone, if it is in this life: its transactions are over then.
async fn hold(db: &Db, node: &str, epoch: i64) -> Result<(), Fault> {
    may_be_large(db).await?;
    let hold = "SELECT 1 FROM nodes WHERE node = $1 AND epoch = $2 AND state IN (0, 1) FOR UPDATE";
    row(db, hold, &[&node, &epoch]).await?.map(drop).ok_or_else(|| StoreError::Lapsed.into())
}

/// Holds the row of another node alone, if this one is in this life: its transactions are over then, or find another epoch.
/// False where one of them is open, which a node leaves that hangs or is cut off in the middle: whoever waited for that would
/// hold up everything this node writes, and a look is taken again at the next heartbeat. This node's own row is held as by any
/// transaction, so that its lease is extended meanwhile.
async fn seize(db: &Db, me: &str, epoch: i64, other: &str) -> Result<bool, Fault> {
    may_be_large(db).await?;
    let hold = "SELECT 1 FROM nodes WHERE node = $1 AND epoch = $2 AND state IN (0, 1) FOR KEY SHARE";
    if row(db, hold, &[&me, &epoch]).await?.is_none() {
        return Err(StoreError::Lapsed.into());
    }
    let seize = "SELECT 1 FROM nodes WHERE node = $1 FOR UPDATE SKIP LOCKED";
    Ok(row(db, seize, &[&other]).await?.is_some())
}

/// Puts what a node owned back into the shared queue; what was fenced is settled as cancelled. How many went.
async fn give_back(db: &Db, node: &str) -> Result<u64, Fault> {
    let locked =
        "SELECT 1 FROM invocations WHERE owner = $1 AND status IN (0, 1) ORDER BY request FOR UPDATE";
    rows(db, locked, &[&node]).await?;
    // Failed, not discarded: that one of them never ran, its node alone could say.
    let canceled = "UPDATE invocations
                    SET status = 3, error_code = 4208,
                        error_message = 'function invocation canceled',
                        ended_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint
                    WHERE owner = $1 AND status IN (0, 1) AND fenced_by IS NOT NULL";
    execute(db, canceled, &[&node]).await?;
    let back = "UPDATE invocations SET owner = NULL, status = 0 WHERE owner = $1 AND status IN (0, 1)";
    let gone = execute(db, back, &[&node]).await?;
    if gone > 0 {
        row(db, TELL_QUEUE, &[]).await?;
    }
    Ok(gone)
}

/// Answers the open parts of a node that answers no more. What it was only asked about it does not hold.
async fn close_parts(db: &Db, node: &str, state: PartState, why: &str) -> Result<(), Fault> {
    let close = "UPDATE parts
                 SET state = CASE WHEN project IS NULL AND $2::int2 = 1 THEN 5 ELSE $2::int2 END, detail = $3
                 WHERE node = $1 AND state = 0 RETURNING part";
    let closed = rows(db, close, &[&node, &parts::state_number(state), &why]).await?;
    let closed: Vec<i64> = closed.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    tell_reported(db, &closed).await
}

pub(crate) async fn all(db: &Db) -> Result<Vec<NodeRow>, Fault> {
    let select = "SELECT n.node, n.epoch, n.state, n.endpoint, n.version,
                         (extract(epoch FROM n.lease_until - clock_timestamp()) * 1000)::bigint,
                         (SELECT count(*) FROM invocations i WHERE i.owner = n.node AND i.status IN (0, 1)), n.joined_ms,
                         n.lease_ms, n.labels
                  FROM nodes n ORDER BY n.node";
    rows(db, select, &[]).await?.iter().map(read).collect()
}

fn read(row: &Row) -> Result<NodeRow, Fault> {
    Ok(NodeRow {
        node: row.try_get(0)?,
        epoch: row.try_get(1)?,
        state: match row.try_get::<_, i16>(2)? {
            0 => NodeState::Live,
            1 => NodeState::Draining,
            2 => NodeState::Fenced,
            3 => NodeState::Left,
            other => return Err(StoreError::Unreadable(format!("{other} is no state of a node")).into()),
        },
        endpoint: row.try_get(3)?,
        version: row.try_get(4)?,
        lease_left_ms: row.try_get(5)?,
        owns: row.try_get::<_, i64>(6)?.cast_unsigned(),
        joined_ms: row.try_get(7)?,
        lease_ms: u32::try_from(row.try_get::<_, i64>(8)?).unwrap_or(u32::MAX),
        labels: NodeLabels::kept(row.try_get(9)?),
    })
}
