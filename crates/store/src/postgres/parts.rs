//! What cancels want of nodes, and what the nodes said.

use cancel::{CancelId, Level, RequestId, Scope};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    connection::{Db, execute, prepare, row, rows},
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

// Who carries out a part that is asked of everybody may fence and wait in its turn: nobody waits for one of those but its asker.
const WAIT: &str = "
INSERT INTO waits (cancel, part)
SELECT $2::uuid, p.part FROM parts p JOIN invocations i ON i.request = p.request AND i.owner = p.node
WHERE p.request = ANY($1::uuid[]) AND p.state = 0 AND p.level >= $3::int2 AND p.scope >= $4::int2 AND p.cancel <> $2
  AND p.project IS NOT NULL AND (i.status < 2 OR i.tail) AND NOT (i.request = ANY ($5::uuid[]) AND i.owner = $6::text)
ON CONFLICT DO NOTHING";
const MAKE: &str = "
WITH made AS (
    INSERT INTO parts (cancel, node, epoch, request, asker, asker_project, project, package, name, version,
                       scope, level, actor, state, made_ms)
    SELECT $2::uuid, i.owner, n.epoch, i.request, $6::text, $7::text, i.project, i.package, i.name, i.version,
           $4::int2, $3::int2, $8::text, 0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    FROM invocations i JOIN nodes n ON n.node = i.owner
    WHERE i.request = ANY($1) AND (i.status < 2 OR i.tail AND n.state IN (0, 1)) AND NOT (i.request = ANY ($5::uuid[]) AND i.owner = $6::text)
      AND NOT EXISTS (SELECT 1 FROM parts p WHERE p.request = i.request AND p.node = i.owner AND p.state = 0
                      AND p.project IS NOT NULL AND p.level >= $3::int2 AND p.scope >= $4::int2)
    ORDER BY i.seq
    RETURNING node
)
SELECT pg_notify('quell_parts', node) FROM (SELECT DISTINCT node FROM made) AS woken";
/// What [`make`] asks.
pub(crate) const MAKES: [&str; 2] = [WAIT, MAKE];

/// Whether this node is asked by an open part to stop this request with all below it, at least as hard, and each of the
/// others is fenced with all below it.
const ASKED: &str = "
SELECT set_config('quell.asked', (
    EXISTS (SELECT 1 FROM parts
            WHERE request = $1 AND node = $2 AND state = 0 AND scope = 1 AND level >= $3 AND project IS NOT NULL)
    AND NOT EXISTS (SELECT 1 FROM unnest($4::uuid[]) AS top (request)
                    WHERE NOT EXISTS (SELECT 1 FROM fences f WHERE f.request = top.request AND f.subtree)))::text, true)";
const WAIT_BELOW: &str = "
WITH RECURSIVE reached (request) AS (
    SELECT unnest($1::uuid[])
    UNION SELECT a.request FROM reached r JOIN above a ON a.above = r.request)
INSERT INTO waits (cancel, part)
SELECT $2::uuid, p.part FROM reached r JOIN parts p ON p.request = r.request AND p.state = 0
WHERE NOT (r.request = ANY ($1::uuid[]) AND p.node = $4::text) AND p.level >= $3::int2 AND p.scope = 1 AND p.cancel <> $2
  AND p.project IS NOT NULL
ON CONFLICT DO NOTHING";
/// What [`wait_below`] asks.
pub(crate) const WAITS_BELOW: [&str; 1] = [WAIT_BELOW];

const REPORT: &str = "
WITH reported AS (
    UPDATE parts p SET state = u.state, detail = u.detail
    FROM unnest($2::int8[], $3::int2[], $4::text[]) AS u(part, state, detail)
    WHERE p.part = u.part AND p.node = $1 AND p.state = 0
    RETURNING p.part, p.cancel
), waiting AS (
    SELECT cancel FROM reported UNION SELECT w.cancel FROM reported JOIN waits w USING (part)
)
SELECT pg_notify('quell_reported', replace(cancel::text, '-', '')) FROM waiting";

fn of_cancel() -> String {
    format!(
        "SELECT {COLUMNS} FROM parts p
         WHERE p.part IN (SELECT part FROM parts WHERE cancel = $1 UNION SELECT part FROM waits WHERE cancel = $1)
         ORDER BY p.part"
    )
}

/// Before [`of`] is asked beside others.
pub(crate) async fn prepare_of(db: &Db) -> Result<(), Fault> {
    prepare(db, &[&of_cancel()]).await
}

/// Before [`report`] is asked beside others.
pub(crate) async fn prepare_report(db: &Db) -> Result<(), Fault> {
    prepare(db, &[REPORT]).await
}

/// Makes a part for each of these requests but those that whoever asks has and stops by itself, and wakes their nodes. Where a part
/// over the same request that asks as much is open, that one is waited for instead. The requests must be locked.
pub(crate) async fn make(db: &Db, ask: &Ask<'_>, requests: &[Uuid], but: &[Uuid]) -> Result<(), Fault> {
    let (cancel, scope, level) = (name_of(ask.cancel), scope_number(ask.scope), level_number(ask.level));
    let actor = kept(ask.actor);
    let values: super::connection::Params<'_> =
        &[&requests, &cancel, &level, &scope, &but, &ask.node, &ask.project, &actor];
    tokio::try_join!(biased;
        async { execute(db, WAIT, &[&requests, &cancel, &level, &scope, &but, &ask.node]).await },
        rows(db, MAKE, values),
    )
    .map(drop)
}

/// Finds out whether this node was asked for at least as much already, and keeps it in `quell.asked` for the statements behind
/// it: then the fence of whoever asked is durable over all that is below this request, and each of those that are not over has a
/// part of its own. Not where it stops a synchronous request with it, which that fence could not name.
pub(crate) async fn asked(
    db: &Db,
    node: &str,
    request: RequestId,
    tops: &[Uuid],
    level: Level,
) -> Result<(), Fault> {
    row(db, ASKED, &[&id(request), &node, &level_number(level), &tops]).await.map(drop)
}

/// Before [`asked`] is asked beside others.
pub(crate) async fn prepare_asked(db: &Db) -> Result<(), Fault> {
    prepare(db, &[ASKED]).await
}

/// Has a cancel wait for the parts of whoever asked before, over what hangs below these.
pub(crate) async fn wait_below(
    db: &Db,
    node: &str,
    cancel: CancelId,
    tops: &[Uuid],
    level: Level,
) -> Result<(), Fault> {
    execute(db, WAIT_BELOW, &[&tops, &name_of(cancel), &level_number(level), &node]).await.map(drop)
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
    rows(db, &of_cancel(), &[&name_of(cancel)]).await?.iter().map(read).collect()
}

/// What became of parts of this node, each once, and tells who waits for them. One that was answered stays as it was.
pub(crate) async fn report(db: &Db, node: &str, reports: &[(i64, PartState, &str)]) -> Result<(), Fault> {
    if reports.is_empty() {
        return Ok(());
    }
    let parts: Vec<i64> = reports.iter().map(|(part, ..)| *part).collect();
    let states: Vec<i16> = reports.iter().map(|(_, state, _)| state_number(*state)).collect();
    let details: Vec<_> = reports.iter().map(|(.., detail)| kept(detail)).collect();
    rows(db, REPORT, &[&node, &parts, &states, &details]).await.map(drop)
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
