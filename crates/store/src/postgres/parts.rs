//! What cancels want of nodes, and what the nodes said.

use cancel::{CancelId, Level, RequestId, Scope};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    connection::{Db, execute, rows},
    fault::Fault,
    group::id,
    receipts::name_of,
};
use crate::{Fence, FunctionKey, Part, PartState, StoreError};

/// Parts that a node is given at once, the oldest first: those after them come when these are reported.
const AT_ONCE: i64 = 1_024;

const COLUMNS: &str = "p.part, p.cancel, p.node, p.epoch, p.request, p.project, p.package, p.name, p.version, \
                       p.asker_project, p.scope, p.level, p.actor, p.state, p.detail";

/// What is asked of nodes, and by whom.
pub(crate) struct Ask<'a> {
    pub(crate) cancel: CancelId,
    pub(crate) node: &'a str,
    pub(crate) project: &'a str,
    pub(crate) scope: Scope,
    pub(crate) level: Level,
    pub(crate) actor: &'a str,
}

const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Makes a part for each of these requests but those that whoever asks has and stops by itself. Where a part over the same request that asks as
/// much is open, that one is waited for instead. The requests must be locked.
pub(crate) async fn make(db: &Db, ask: &Ask<'_>, requests: &[Uuid], but: &[Uuid]) -> Result<(), Fault> {
    let (cancel, scope, level) = (name_of(ask.cancel), scope_number(ask.scope), level_number(ask.level));
    let wait = "INSERT INTO waits (cancel, part)
                SELECT $2::uuid, p.part FROM parts p JOIN invocations i ON i.request = p.request AND i.owner = p.node
                WHERE p.request = ANY($1::uuid[]) AND p.state = 0 AND p.level >= $3::int2 AND p.scope >= $4::int2 AND p.cancel <> $2
                  AND i.status < 2 AND NOT (i.request = ANY ($5::uuid[]) AND i.owner = $6::text)
                ON CONFLICT DO NOTHING";
    execute(db, wait, &[&requests, &cancel, &level, &scope, &but, &ask.node]).await?;
    let make = format!(
        "INSERT INTO parts (cancel, node, epoch, request, asker, asker_project, project, package, name, version,
                            scope, level, actor, state, made_ms)
         SELECT $2::uuid, i.owner, n.epoch, i.request, $6::text, $7::text, i.project, i.package, i.name, i.version,
                $4::int2, $3::int2, $8::text, 0, {NOW}
         FROM invocations i JOIN nodes n ON n.node = i.owner
         WHERE i.request = ANY($1) AND i.status < 2 AND NOT (i.request = ANY ($5::uuid[]) AND i.owner = $6::text)
           AND NOT EXISTS (SELECT 1 FROM parts p WHERE p.request = i.request AND p.node = i.owner AND p.state = 0
                           AND p.level >= $3::int2 AND p.scope >= $4::int2)
         ORDER BY i.seq
         RETURNING node"
    );
    let made = rows(
        db,
        &make,
        &[&requests, &cancel, &level, &scope, &but, &ask.node, &ask.project, &kept(ask.actor)],
    )
    .await?;
    tell_parts(db, &made).await
}

/// Makes a part for every other live node, for a request that the store does not know.
pub(crate) async fn ask_around(db: &Db, node: &str, epoch: i64, fence: &Fence) -> Result<Vec<Part>, Fault> {
    hold_nodes(db, node, epoch).await?;
    of_everybody(db, node, fence).await
}

/// Keeps every node from being taken over until the transaction ends: whoever takes one of them over then answers the parts
/// that are made here too, or it is not live any more. Before anything else is locked.
pub(crate) async fn hold_nodes(db: &Db, node: &str, epoch: i64) -> Result<(), Fault> {
    let hold = "SELECT node = $1::text AND epoch = $2::bigint AND state IN (0, 1) FROM nodes ORDER BY node FOR KEY SHARE";
    let held = rows(db, hold, &[&node, &epoch]).await?;
    let held: Vec<bool> = held.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    if !held.contains(&true) {
        return Err(StoreError::Lapsed.into());
    }
    Ok(())
}

/// A part for every other live node; they are held.
pub(crate) async fn of_everybody(db: &Db, node: &str, fence: &Fence) -> Result<Vec<Part>, Fault> {
    let make = format!(
        "INSERT INTO parts AS p (cancel, node, epoch, request, asker, asker_project, scope, level, actor, state, made_ms)
         SELECT $1::uuid, n.node, n.epoch, $2::uuid, $3::text, $4::text, $5::int2, $6::int2, $7::text, 0, {NOW} FROM nodes n
         WHERE n.node <> $3 AND n.state IN (0, 1) ORDER BY n.node
         RETURNING {COLUMNS}"
    );
    let (scope, level) = (scope_number(fence.scope), level_number(fence.level));
    let project = &fence.function.project;
    let (cancel, target) = (name_of(fence.cancel), id(fence.target));
    let values: super::connection::Params<'_> =
        &[&cancel, &target, &node, project, &scope, &level, &kept(&fence.actor)];
    let made = rows(db, &make, values).await?;
    let parts = made.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let mut nodes: Vec<&str> = parts.iter().map(|part| part.node.as_str()).collect();
    nodes.dedup();
    notify(db, "quell_parts", &nodes).await?;
    Ok(parts)
}

async fn tell_parts(db: &Db, made: &[Row]) -> Result<(), Fault> {
    let mut nodes: Vec<&str> = made.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    nodes.sort_unstable();
    nodes.dedup();
    notify(db, "quell_parts", &nodes).await
}

/// Tells who waits for these parts.
pub(crate) async fn tell_reported(db: &Db, parts: &[i64]) -> Result<(), Fault> {
    let cancels = "SELECT cancel FROM parts WHERE part = ANY($1)
                   UNION SELECT cancel FROM waits WHERE part = ANY($1)";
    let cancels = rows(db, cancels, &[&parts]).await?;
    let cancels: Vec<Uuid> = cancels.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let cancels: Vec<String> = cancels.iter().map(|cancel| cancel.simple().to_string()).collect();
    notify(db, "quell_reported", &cancels.iter().map(String::as_str).collect::<Vec<_>>()).await
}

async fn notify(db: &Db, channel: &str, words: &[&str]) -> Result<(), Fault> {
    if words.is_empty() {
        return Ok(());
    }
    let tell = "SELECT pg_notify($1::text, word) FROM unnest($2::text[]) AS word";
    rows(db, tell, &[&channel, &words]).await.map(drop)
}

/// The open parts of a node.
pub(crate) async fn open(db: &Db, node: &str) -> Result<Vec<Part>, Fault> {
    let select =
        format!("SELECT {COLUMNS} FROM parts p WHERE p.node = $1 AND p.state = 0 ORDER BY p.part LIMIT $2");
    rows(db, &select, &[&node, &AT_ONCE]).await?.iter().map(read).collect()
}

/// Those a cancel waits for.
pub(crate) async fn of(db: &Db, cancel: CancelId) -> Result<Vec<Part>, Fault> {
    let select = format!(
        "SELECT {COLUMNS} FROM parts p
         WHERE p.part IN (SELECT part FROM parts WHERE cancel = $1 UNION SELECT part FROM waits WHERE cancel = $1)
         ORDER BY p.part"
    );
    rows(db, &select, &[&name_of(cancel)]).await?.iter().map(read).collect()
}

/// What became of a part of this node. One that was answered stays as it was.
pub(crate) async fn report(
    db: &Db,
    node: &str,
    part: i64,
    state: PartState,
    detail: &str,
) -> Result<(), Fault> {
    if state == PartState::Open {
        return Err(StoreError::Unwritable("a part that is open is not reported".into()).into());
    }
    let report = "UPDATE parts SET state = $3, detail = $4 WHERE part = $1 AND node = $2 AND state = 0";
    if execute(db, report, &[&part, &node, &state_number(state), &kept(detail)]).await? == 0 {
        return Ok(());
    }
    tell_reported(db, &[part]).await
}

fn kept(text: &str) -> std::borrow::Cow<'_, str> {
    super::invocations::kept(text)
}

/// The number of a state in the table; part of the format.
pub(crate) fn state_number(state: PartState) -> i16 {
    match state {
        PartState::Open => 0,
        PartState::Stopped => 1,
        PartState::Draining => 2,
        PartState::Unkillable => 3,
        PartState::Finished => 4,
        PartState::NotHere => 5,
        PartState::NodeLost => 6,
    }
}

fn state(number: i16) -> Result<PartState, StoreError> {
    Ok(match number {
        0 => PartState::Open,
        1 => PartState::Stopped,
        2 => PartState::Draining,
        3 => PartState::Unkillable,
        4 => PartState::Finished,
        5 => PartState::NotHere,
        6 => PartState::NodeLost,
        other => return Err(StoreError::Unreadable(format!("{other} is no state of a part"))),
    })
}

fn scope_number(scope: Scope) -> i16 {
    match scope {
        Scope::Request => 0,
        Scope::Subtree => 1,
    }
}

fn level_number(level: Level) -> i16 {
    match level {
        Level::Ask => 0,
        Level::Kill => 1,
    }
}

fn read(row: &Row) -> Result<Part, Fault> {
    let function = match row.try_get::<_, Option<String>>(5)? {
        Some(project) => Some(FunctionKey {
            project,
            package: row.try_get(6)?,
            name: row.try_get(7)?,
            version: row.try_get(8)?,
        }),
        None => None,
    };
    Ok(Part {
        part: row.try_get(0)?,
        cancel: CancelId(row.try_get::<_, Uuid>(1)?.as_u128()),
        node: row.try_get(2)?,
        epoch: row.try_get(3)?,
        request: RequestId(row.try_get::<_, Uuid>(4)?.as_u128()),
        function,
        project: row.try_get(9)?,
        scope: if row.try_get::<_, i16>(10)? == 0 { Scope::Request } else { Scope::Subtree },
        level: if row.try_get::<_, i16>(11)? == 0 { Level::Ask } else { Level::Kill },
        actor: row.try_get(12)?,
        state: state(row.try_get(13)?)?,
        detail: row.try_get(14)?,
    })
}
