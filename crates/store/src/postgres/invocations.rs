//! Asynchronous requests, from their acceptance to their final state.

use std::collections::BTreeMap;

use cancel::{CancelId, RequestId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    connection::{Db, execute, row, rows},
    fault::Fault,
    group::id,
    queue::Until,
};
use crate::{
    FunctionFilter, FunctionKey, InvocationPage, InvocationQuery, InvocationRecord, Labels, NewInvocation,
    Placement, Settlement, Status, StoreError,
};

/// A request without its payload; `i` is its table.
pub(crate) const COLUMNS: &str = "i.request, i.project, i.package, i.name, i.version, i.alias, i.parent, i.status, \
     i.error_code, i.error_message, i.attempts, i.failures, i.not_before_ms, i.hops, i.labels::text, i.created_ms, \
     i.started_ms, i.ended_ms, i.fenced_by, i.root, length(i.payload)::bigint";
/// How many these are.
pub(crate) const WIDTH: usize = 21;

/// Those that are fenced above are not accepted, nor are those that are there.
const ACCEPT: &str = "
WITH banned AS (
    SELECT DISTINCT u.request FROM unnest($14::uuid[], $15::uuid[], $16::bool[]) AS u(request, above, parent)
    WHERE EXISTS (SELECT 1 FROM fences f WHERE f.request = u.above AND (f.subtree OR u.parent))
       OR u.parent AND EXISTS (SELECT 1 FROM invocations i WHERE i.request = u.above AND i.fenced_by IS NOT NULL)
       OR EXISTS (SELECT 1 FROM fences f WHERE f.request = u.request)
), accepted AS (
    INSERT INTO invocations (request, project, package, name, version, alias, parent, payload, labels, owner, root,
                             created_ms, hops, status)
    SELECT u.request, u.project, u.package, u.name, u.version, u.alias, u.parent, u.payload, u.labels::jsonb, u.owner,
           u.root, u.created_ms, u.hops, 0
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::bytea[],
                $9::text[], $10::text[], $11::uuid[], $12::int8[], $13::int8[]) WITH ORDINALITY
         AS u(request, project, package, name, version, alias, parent, payload, labels, owner, root, created_ms, hops, place)
    WHERE u.request NOT IN (SELECT request FROM banned)
    ORDER BY u.place
    ON CONFLICT (request) DO NOTHING
    RETURNING request
), lines AS (
    INSERT INTO above (request, above)
    SELECT u.request, u.above FROM unnest($14::uuid[], $15::uuid[]) AS u(request, above) JOIN accepted USING (request)
    ON CONFLICT DO NOTHING
)
SELECT request, true FROM accepted UNION ALL SELECT request, false FROM banned";

// Here and wherever requests are named, "not over" is `status < 2`: the server then cannot think of the partial indexes, which are
// of `status IN (0, 1)` and small when it makes its plans, and of a whole backlog when it uses them.
const RUNNING: &str = "
UPDATE invocations i SET status = 1, attempts = u.n, started_ms = u.at
FROM unnest($2::uuid[], $3::int8[], $4::int8[]) AS u(request, n, at)
WHERE i.request = u.request AND i.owner = $1 AND i.status < 2";
const WAITING: &str = "
UPDATE invocations i SET status = 0, failures = u.n, not_before_ms =
    CASE WHEN u.rest > 0 THEN (extract(epoch FROM clock_timestamp()) * 1000)::bigint + u.rest ELSE u.at END
FROM unnest($2::uuid[], $3::int8[], $4::int8[], $5::int8[]) AS u(request, n, at, rest)
WHERE i.request = u.request AND i.owner = $1 AND i.status < 2";
// What another node fenced before this is written ends as cancelled, whatever its owner thinks: whoever asked there was told
// so, or will be. A fence of its own the owner has reckoned with. Which it was is said in the row: a statement that waited for
// that sees its last form, and nothing else that came with it.
const SETTLE: &str = "
UPDATE invocations i
SET (status, error_code, error_message, ended_ms, tail) = (
    SELECT CASE WHEN f.lost THEN 3::int2 ELSE u.status END, CASE WHEN f.lost THEN 4208 ELSE u.code END,
           CASE WHEN f.lost THEN 'function invocation canceled' ELSE u.message END, u.at, u.tail
    FROM (SELECT u.code <> 4208 AND i.fenced_by IS NOT NULL AND NOT i.fenced_here) AS f(lost))
FROM unnest($2::uuid[], $3::int2[], $4::int4[], $5::text[], $6::int8[], $7::bool[])
AS u(request, status, code, message, at, tail)
WHERE i.request = u.request AND i.owner = $1 AND i.status < 2
RETURNING i.request, i.error_code = u.code";

/// Has the server know these statements: only then they can be sent in an order without waiting in between.
pub(crate) async fn prepare(db: &Db) -> Result<(), Fault> {
    for statement in [ACCEPT, RUNNING, WAITING, SETTLE] {
        db.prepare_cached(statement).await?;
    }
    Ok(())
}

/// Accepts requests in this order. Whether each was accepted (true) or is banned (false); one that was there before
/// is not named.
pub(crate) async fn accept(
    db: &Db,
    node: &str,
    new: &[&NewInvocation],
) -> Result<BTreeMap<Uuid, bool>, Fault> {
    if new.is_empty() {
        return Ok(BTreeMap::new());
    }
    let requests: Vec<Uuid> = new.iter().map(|new| id(new.request)).collect();
    let key = |part: fn(&FunctionKey) -> &str| new.iter().map(|new| part(&new.function)).collect::<Vec<_>>();
    let (projects, packages) = (key(|key| &key.project), key(|key| &key.package));
    let (names, versions) = (key(|key| &key.name), key(|key| &key.version));
    let aliases: Vec<Option<&str>> = new.iter().map(|new| new.alias.as_deref()).collect();
    let parents: Vec<Option<Uuid>> = new.iter().map(|new| new.parent.map(id)).collect();
    let payloads: Vec<&[u8]> = new.iter().map(|new| new.payload.as_ref()).collect();
    let labels: Vec<Option<String>> = new.iter().map(|new| label_text(&new.labels)).collect();
    let owner = |new: &&NewInvocation| (new.placement == Placement::Here).then_some(node);
    let owners: Vec<Option<&str>> = new.iter().map(owner).collect();
    let roots: Vec<Option<Uuid>> = new.iter().map(|new| new.lineage.root.map(id)).collect();
    let created: Vec<i64> = new.iter().map(|new| new.created_ms).collect();
    let hops: Vec<i64> = new.iter().map(|new| i64::from(new.hops)).collect();
    let lines =
        new.iter().flat_map(|new| new.lineage.above.iter().map(|above| (id(new.request), id(*above))));
    let (below, above): (Vec<Uuid>, Vec<Uuid>) = lines.unzip();
    // A fence of one request alone keeps its own children from starting, and nobody else's.
    let near: Vec<bool> = new.iter().flat_map(|new| (0..new.lineage.above.len()).map(|at| at == 0)).collect();
    let values: super::connection::Params<'_> = &[
        &requests, &projects, &packages, &names, &versions, &aliases, &parents, &payloads, &labels, &owners,
        &roots, &created, &hops, &below, &above, &near,
    ];
    let answered = rows(db, ACCEPT, values).await?;
    answered.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

pub(crate) async fn mark_running(db: &Db, node: &str, marks: &[(RequestId, u32, i64)]) -> Result<(), Fault> {
    if marks.is_empty() {
        return Ok(());
    }
    let requests: Vec<Uuid> = marks.iter().map(|(request, ..)| id(*request)).collect();
    let attempts: Vec<i64> = marks.iter().map(|(_, attempts, _)| i64::from(*attempts)).collect();
    let times: Vec<i64> = marks.iter().map(|(.., at)| *at).collect();
    // Fenced or not: if it was handed over before the fence fell, it ran, and its end must say so.
    execute(db, RUNNING, &[&node, &requests, &attempts, &times]).await.map(drop)
}

/// Until when is what was left of it when it was named, by the server's clock: any node may take it up then, and theirs differ.
pub(crate) async fn mark_waiting(
    db: &Db,
    node: &str,
    marks: &[(RequestId, u32, Until)],
) -> Result<(), Fault> {
    if marks.is_empty() {
        return Ok(());
    }
    let requests: Vec<Uuid> = marks.iter().map(|(request, ..)| id(*request)).collect();
    let failures: Vec<i64> = marks.iter().map(|(_, failures, _)| i64::from(*failures)).collect();
    let (times, rests): (Vec<i64>, Vec<i64>) = marks.iter().map(|(.., until)| (until.at, until.left)).unzip();
    execute(db, WAITING, &[&node, &requests, &failures, &times, &rests]).await.map(drop)
}

/// Those that were not final before, and are this node's; whether they ended as it says.
pub(crate) async fn settle(db: &Db, node: &str, ends: &[&Settlement]) -> Result<BTreeMap<Uuid, bool>, Fault> {
    if ends.is_empty() {
        return Ok(BTreeMap::new());
    }
    let requests: Vec<Uuid> = ends.iter().map(|end| id(end.request)).collect();
    let statuses: Vec<i16> = ends.iter().map(|end| number(end.status)).collect();
    let codes: Vec<i32> = ends.iter().map(|end| end.error_code).collect();
    let messages: Vec<_> = ends.iter().map(|end| kept(&end.error_message)).collect();
    let times: Vec<i64> = ends.iter().map(|end| end.ended_ms).collect();
    let tails: Vec<bool> = ends.iter().map(|end| end.tail).collect();
    let ended = rows(db, SETTLE, &[&node, &requests, &statuses, &codes, &messages, &times, &tails]).await?;
    ended.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn of_request() -> String {
    format!("SELECT {COLUMNS}, i.payload FROM invocations i WHERE i.request = $1")
}

/// Before [`one`] is asked beside others.
pub(crate) async fn prepare_one(db: &Db) -> Result<(), Fault> {
    super::connection::prepare(db, &[&of_request()]).await
}

pub(crate) async fn one(db: &Db, request: RequestId) -> Result<Option<InvocationRecord>, Fault> {
    let Some(row) = row(db, &of_request(), &[&id(request)]).await? else { return Ok(None) };
    let payload: &[u8] = row.try_get(WIDTH)?;
    Ok(Some(InvocationRecord { payload: payload.to_vec().into(), ..read(&row)? }))
}

pub(crate) async fn unsettled(
    db: &Db,
    node: &str,
    after: Option<RequestId>,
    limit: u32,
) -> Result<Vec<InvocationRecord>, Fault> {
    let select = format!(
        "SELECT {COLUMNS} FROM invocations i WHERE i.owner = $1 AND i.status IN (0, 1)
           AND i.seq > COALESCE((SELECT seq FROM invocations WHERE request = $2), 0)
         ORDER BY i.seq LIMIT $3"
    );
    let found = rows(db, &select, &[&node, &after.map(id), &i64::from(limit)]).await?;
    found.iter().map(read).collect()
}

pub(crate) async fn page(db: &Db, query: &InvocationQuery) -> Result<InvocationPage, Fault> {
    let FunctionFilter { project, package, name, versions } = &query.function;
    let requests: Vec<Uuid> = query.requests.iter().copied().map(id).collect();
    let (status, labels) = (query.status.map(number), label_text(&query.labels));
    // A statement for each form: one with every OR in it would have no index.
    let among =
        if requests.is_empty() { "cardinality($7::uuid[]) = 0" } else { "i.request = ANY($7::uuid[])" };
    let of_version =
        if versions.is_empty() { "cardinality($8::text[]) = 0" } else { "i.version = ANY($8::text[])" };
    let labelled = if labels.is_none() { "$9::text IS NULL" } else { "i.labels @> $9::text::jsonb" };
    let open = if query.unsettled { "AND i.status IN (0, 1)" } else { "" };
    let terms = format!(
        "FROM invocations i WHERE i.project = $1 AND i.package = $2 AND i.name = $3
         AND i.created_ms BETWEEN $4 AND $5 AND ($6::int2 IS NULL OR i.status = $6) {open}
         AND {among} AND {of_version} AND {labelled}"
    );
    let (from, until) = (query.from_ms, query.until_ms);
    let (limit, offset) = (i64::from(query.limit), clamped(query.offset));
    let select =
        format!("SELECT {COLUMNS} {terms} ORDER BY i.created_ms DESC, i.seq DESC LIMIT $10 OFFSET $11");
    // One look: rows and total are of the same moment. A statement that fails closes it with its connection.
    db.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let counted = format!("SELECT count(*) {terms}");
    let looked = async {
        let total = row(
            db,
            &counted,
            &[project, package, name, &from, &until, &status, &requests, versions, &labels],
        )
        .await?;
        let found = rows(
            db,
            &select,
            &[project, package, name, &from, &until, &status, &requests, versions, &labels, &limit, &offset],
        )
        .await?;
        Ok::<_, Fault>((total, found))
    };
    let looked = looked.await;
    db.batch_execute("ROLLBACK").await?;
    let (total, found) = looked?;
    let total: i64 = total.map(|row| row.try_get(0)).transpose()?.unwrap_or_default();
    let rows = found.iter().map(read).collect::<Result<_, _>>()?;
    Ok(InvocationPage { rows, total: total.cast_unsigned() })
}

/// Forgets those that ended long ago. What hangs below them hangs below what they hung below from then on: a fence
/// still finds it.
pub(crate) async fn prune(db: &Db, before_ms: i64, limit: u32) -> Result<u64, Fault> {
    let old = "DELETE FROM invocations WHERE seq IN (
                   SELECT seq FROM invocations WHERE ended_ms IS NOT NULL AND ended_ms < $1
                   ORDER BY ended_ms, seq LIMIT $2 FOR UPDATE SKIP LOCKED)
               RETURNING request";
    let gone = rows(db, old, &[&before_ms, &i64::from(limit)]).await?;
    let gone: Vec<Uuid> = gone.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let over = "SELECT DISTINCT above FROM above WHERE above = ANY($1)";
    // One after the other: what two of them leave between them is handed down twice.
    for row in rows(db, over, &[&gone]).await? {
        let request: Uuid = row.try_get(0)?;
        let inherit = "INSERT INTO above (request, above)
                       SELECT below.request, up.above FROM above below JOIN above up ON up.request = below.above
                       WHERE below.above = $1 ON CONFLICT DO NOTHING";
        execute(db, inherit, &[&request]).await?;
        execute(db, "DELETE FROM above WHERE above = $1", &[&request]).await?;
    }
    execute(db, "DELETE FROM above WHERE request = ANY($1)", &[&gone]).await?;
    Ok(gone.len() as u64)
}

/// Reads the [`COLUMNS`].
pub(crate) fn read(row: &Row) -> Result<InvocationRecord, Fault> {
    let request =
        |place| Ok::<_, Fault>(row.try_get::<_, Option<Uuid>>(place)?.map(|id| RequestId(id.as_u128())));
    Ok(InvocationRecord {
        request: RequestId(row.try_get::<_, Uuid>(0)?.as_u128()),
        function: FunctionKey {
            project: row.try_get(1)?,
            package: row.try_get(2)?,
            name: row.try_get(3)?,
            version: row.try_get(4)?,
        },
        alias: row.try_get(5)?,
        parent: request(6)?,
        payload: Default::default(),
        payload_len: row.try_get::<_, i64>(20)?.cast_unsigned(),
        status: status(row.try_get(7)?)?,
        error_code: row.try_get(8)?,
        error_message: row.try_get(9)?,
        attempts: count(row.try_get(10)?),
        failures: count(row.try_get(11)?),
        not_before_ms: row.try_get(12)?,
        hops: count(row.try_get(13)?),
        labels: Labels::read(row.try_get(14)?),
        created_ms: row.try_get(15)?,
        started_ms: row.try_get(16)?,
        ended_ms: row.try_get(17)?,
        fenced_by: row.try_get::<_, Option<Uuid>>(18)?.map(|id| CancelId(id.as_u128())),
        root: request(19)?,
    })
}

/// What was a `u32` when it was written.
fn count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// PostgreSQL's integers are signed; no table has as many rows as one can count to.
pub(crate) fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A text as PostgreSQL can keep it: it has no NUL in its texts, and U+FFFD stands for one.
pub(crate) fn kept(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// The same of labels.
pub(crate) fn label_text(labels: &Labels) -> Option<String> {
    if labels.iter().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
        let kept = labels.iter().map(|(name, value)| (kept(name).into_owned(), kept(value).into_owned()));
        return Labels::new(kept.collect()).text();
    }
    labels.text()
}

/// The number of a status in the table; part of the format.
pub(crate) fn number(status: Status) -> i16 {
    match status {
        Status::Wait => 0,
        Status::Running => 1,
        Status::Success => 2,
        Status::Fail => 3,
        Status::Discard => 4,
    }
}

fn status(number: i16) -> Result<Status, StoreError> {
    Ok(match number {
        0 => Status::Wait,
        1 => Status::Running,
        2 => Status::Success,
        3 => Status::Fail,
        4 => Status::Discard,
        other => return Err(StoreError::Unreadable(format!("{other} is no status"))),
    })
}
