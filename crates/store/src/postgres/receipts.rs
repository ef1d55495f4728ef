//! Receipts of cancels, which requests they fenced, and cancels of many.

use cancel::{CancelId, RequestId};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    connection::{Db, execute, prepare, row, rows},
    fault::Fault,
    group::id,
    invocations::{clamped, kept},
};
use crate::{FunctionFilter, FunctionKey, NewReceipt, ReceiptRecord};

const COLUMNS: &str = "cancel, target, project, package, name, version, body, created_ms";

const PUT: &str = "
INSERT INTO receipts (cancel, target, project, package, name, version, body, created_ms, open, node)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, true, $9)
ON CONFLICT (cancel) DO UPDATE SET body = excluded.body, open = true";
const FENCE: &str = "
INSERT INTO fences (request, cancel, subtree)
SELECT u.request, $2::uuid, $3::bool FROM unnest($1::uuid[]) WITH ORDINALITY AS u(request, place) ORDER BY u.place
ON CONFLICT (request, cancel) DO UPDATE SET subtree = true WHERE excluded.subtree";
const MARK: &str = "
UPDATE invocations SET fenced_by = $2, fenced_here = request = ANY($3::uuid[]) WHERE request = ANY($1) AND fenced_by IS NULL AND status < 2";
const OVER: &str = "
UPDATE receipts r SET body = u.body, open = false FROM unnest($1::uuid[], $2::text[]) AS u(cancel, body)
WHERE r.cancel = u.cancel";
/// What [`put`] and [`fence`] ask.
pub(crate) const PUTS: [&str; 3] = [PUT, FENCE, MARK];

/// The receipt itself, as of this node.
pub(crate) async fn put(db: &Db, node: &str, receipt: &NewReceipt) -> Result<(), Fault> {
    let FunctionKey { project, package, name, version } = &receipt.function;
    let (cancel, target) = (name_of(receipt.cancel), id(receipt.target));
    let (body, created_ms) = (kept(&receipt.body), &receipt.created_ms);
    execute(db, PUT, &[&cancel, &target, project, package, name, version, &body, created_ms, &node])
        .await
        .map(drop)
}

/// Fences these requests and no others, in this order. `here`: of those that their owner has fenced itself.
pub(crate) async fn fence(
    db: &Db,
    cancel: CancelId,
    fenced: impl IntoIterator<Item = Uuid>,
    subtree: bool,
    here: &[Uuid],
) -> Result<(), Fault> {
    let cancel = name_of(cancel);
    // The same one twice in a list would be one too many for that statement.
    let mut seen = std::collections::HashSet::new();
    let each: Vec<Uuid> = fenced.into_iter().filter(|request| seen.insert(*request)).collect();
    tokio::try_join!(biased; async { execute(db, FENCE, &[&each, &cancel, &subtree]).await }, async {
        execute(db, MARK, &[&each, &cancel, &here]).await
    },)
    .map(drop)
}

/// A cancel that reaches no further than this node.
pub(crate) async fn record(db: &Db, node: &str, receipt: &NewReceipt) -> Result<(), Fault> {
    prepare(db, &PUTS).await?;
    let fenced: Vec<Uuid> = receipt.fenced.iter().copied().map(id).collect();
    let each = fenced.iter().copied();
    tokio::try_join!(biased; put(db, node, receipt), fence(db, receipt.cancel, each, false, &fenced))
        .map(drop)
}

/// Replaces bodies with their last forms, each cancel once.
pub(crate) async fn update(db: &Db, over: &[(CancelId, &str)]) -> Result<(), Fault> {
    if over.is_empty() {
        return Ok(());
    }
    let cancels: Vec<Uuid> = over.iter().map(|(cancel, _)| name_of(*cancel)).collect();
    let bodies: Vec<_> = over.iter().map(|(_, body)| kept(body)).collect();
    execute(db, OVER, &[&cancels, &bodies]).await.map(drop)
}

/// Before [`update`] is asked beside others.
pub(crate) async fn prepare_update(db: &Db) -> Result<(), Fault> {
    prepare(db, &[OVER]).await
}

pub(crate) async fn one(db: &Db, cancel: CancelId) -> Result<Option<ReceiptRecord>, Fault> {
    let select = format!("SELECT {COLUMNS} FROM receipts WHERE cancel = $1");
    row(db, &select, &[&name_of(cancel)]).await?.as_ref().map(read).transpose()
}

pub(crate) async fn open(db: &Db, node: &str, limit: u32) -> Result<Vec<ReceiptRecord>, Fault> {
    let select = format!("SELECT {COLUMNS} FROM receipts WHERE open AND node = $1 ORDER BY seq LIMIT $2");
    rows(db, &select, &[&node, &i64::from(limit)]).await?.iter().map(read).collect()
}

/// Takes open receipts of nodes that are gone. Their rows are held, so that none of them joins meanwhile; whatever is held by somebody
/// else is left to the next time, as nothing here may wait.
pub(crate) async fn adopt(db: &Db, node: &str, limit: u32) -> Result<Vec<ReceiptRecord>, Fault> {
    let adopt = format!(
        "WITH gone AS MATERIALIZED (
             SELECT n.node FROM nodes n
             WHERE n.state IN (2, 3) AND EXISTS (SELECT 1 FROM receipts r WHERE r.open AND r.node = n.node)
             FOR KEY SHARE SKIP LOCKED
         ), oldest AS MATERIALIZED (
             SELECT r.seq FROM receipts r JOIN gone ON gone.node = r.node WHERE r.open
             ORDER BY r.seq LIMIT $2 FOR UPDATE OF r SKIP LOCKED
         )
         UPDATE receipts r SET node = $1 FROM oldest WHERE r.seq = oldest.seq RETURNING {COLUMNS}"
    );
    rows(db, &adopt, &[&node, &i64::from(limit)]).await?.iter().map(read).collect()
}

pub(crate) async fn of(db: &Db, request: RequestId) -> Result<Option<ReceiptRecord>, Fault> {
    let first = "SELECT cancel FROM fences WHERE request = $1 ORDER BY seq LIMIT 1";
    match row(db, first, &[&id(request)]).await? {
        Some(row) => one(db, CancelId(row.try_get::<_, Uuid>(0)?.as_u128())).await,
        None => Ok(None),
    }
}

pub(crate) async fn page(
    db: &Db,
    project: &str,
    function: Option<&FunctionFilter>,
    (from_ms, until_ms): (i64, i64),
    offset: u64,
    limit: u32,
) -> Result<Vec<ReceiptRecord>, Fault> {
    let of_function = match function {
        None => "AND $2::text IS NULL AND $3::text IS NULL AND cardinality($8::text[]) = 0",
        Some(function) if function.versions.is_empty() => {
            "AND package = $2 AND name = $3 AND cardinality($8::text[]) = 0"
        }
        Some(_) => "AND package = $2 AND name = $3 AND version = ANY($8::text[])",
    };
    let select = format!(
        "SELECT {COLUMNS} FROM receipts WHERE project = $1 {of_function} AND created_ms BETWEEN $4 AND $5
         ORDER BY created_ms DESC, seq DESC LIMIT $6 OFFSET $7"
    );
    let (package, name) = function.map(|of| (of.package.as_str(), of.name.as_str())).unzip();
    let versions: &[String] = function.map_or(&[], |of| &of.versions);
    let (limit, offset) = (i64::from(limit), clamped(offset));
    rows(db, &select, &[&project, &package, &name, &from_ms, &until_ms, &limit, &offset, &versions])
        .await?
        .iter()
        .map(read)
        .collect()
}

/// Forgets old ones, with their fences and parts.
pub(crate) async fn prune(db: &Db, before_ms: i64, limit: u32) -> Result<u64, Fault> {
    let old = "DELETE FROM receipts WHERE seq IN (
                   SELECT seq FROM receipts WHERE created_ms < $1 ORDER BY created_ms, seq LIMIT $2
                   FOR UPDATE SKIP LOCKED)
               RETURNING cancel";
    let limit = i64::from(limit);
    let gone = rows(db, old, &[&before_ms, &limit]).await?;
    let gone: Vec<Uuid> = gone.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    execute(db, "DELETE FROM fences WHERE cancel = ANY($1)", &[&gone]).await?;
    execute(db, "DELETE FROM parts WHERE cancel = ANY($1) AND state <> 0", &[&gone]).await?;
    execute(db, "DELETE FROM waits WHERE cancel = ANY($1)", &[&gone]).await?;
    // Parts of cancels that made no receipt: whoever was asked had nothing.
    let parts = "DELETE FROM parts WHERE part IN (
                     SELECT p.part FROM parts p
                     WHERE p.made_ms < $1 AND p.state <> 0
                       AND NOT EXISTS (SELECT 1 FROM receipts r WHERE r.cancel = p.cancel)
                     ORDER BY p.made_ms LIMIT $2 FOR UPDATE SKIP LOCKED)";
    execute(db, parts, &[&before_ms, &limit]).await?;
    Ok(gone.len() as u64)
}

pub(crate) fn name_of(cancel: CancelId) -> Uuid {
    Uuid::from_u128(cancel.0)
}

fn read(row: &Row) -> Result<ReceiptRecord, Fault> {
    Ok(ReceiptRecord {
        cancel: CancelId(row.try_get::<_, Uuid>(0)?.as_u128()),
        target: RequestId(row.try_get::<_, Uuid>(1)?.as_u128()),
        function: FunctionKey {
            project: row.try_get(2)?,
            package: row.try_get(3)?,
            name: row.try_get(4)?,
            version: row.try_get(5)?,
        },
        body: row.try_get(6)?,
        created_ms: row.try_get(7)?,
    })
}
