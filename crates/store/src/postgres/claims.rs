//! The shared queue: requests that wait and that no node has.

use cancel::RequestId;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    connection::{Db, prepare, row, rows},
    fault::Fault,
    group::{Opening, TELL_QUEUE, id, open_if_queued, prepare_if_queued},
    invocations::{COLUMNS, read},
};
use crate::{Claim, FunctionKey, InvocationRecord, NodeLabels};

/// Functions looked at for one claim: more than this many wait for the next one, whose oldest come first.
const FUNCTIONS: i64 = 1_024;

/// Functions that have requests in the queue. Walks from one to the next by the index, so that a long queue of one costs the
/// others nothing. None where the transaction has seen before that there are none.
const FREE: &str = "free AS (
             (SELECT project, package, name, version FROM invocations
              WHERE owner IS NULL AND status = 0 AND current_setting('quell.queued', true) IS DISTINCT FROM 'false'
              ORDER BY project, package, name, version LIMIT 1)
             UNION ALL
             SELECT next.* FROM free, LATERAL (
                 SELECT i.project, i.package, i.name, i.version FROM invocations i
                 WHERE i.owner IS NULL AND i.status = 0
                   AND (i.project, i.package, i.name, i.version)
                     > (free.project, free.package, free.name, free.version)
                 ORDER BY i.project, i.package, i.name, i.version LIMIT 1) next
         )";

/// Takes requests out of the shared queue: none of a function that asks for labels which the node does not have; of each the
/// oldest, and of those the first of every function before the second of any. It begins the transaction.
pub(crate) async fn claim(
    db: &Db,
    opening: Opening<'_>,
    claim: &Claim,
) -> Result<Vec<InvocationRecord>, Fault> {
    let sql = format!(
        "WITH RECURSIVE {FREE}, wanted AS (
             SELECT free.*, head.seq FROM free, LATERAL (
                 SELECT i.seq FROM invocations i WHERE i.owner IS NULL AND i.status = 0
                   AND (i.project, i.package, i.name, i.version)
                     = (free.project, free.package, free.name, free.version)
                 ORDER BY i.seq LIMIT 1) head
             WHERE (free.project, free.package, free.name, free.version) NOT IN (
                 SELECT * FROM unnest($4::text[], $5::text[], $6::text[], $7::text[]))
               AND NOT EXISTS (
                 SELECT 1 FROM functions f, nodes n
                 WHERE (f.project, f.package, f.name, f.version)
                     = (free.project, free.package, free.name, free.version)
                   AND n.node = $1 AND NOT f.node_labels <@ n.labels)
             ORDER BY head.seq LIMIT {FUNCTIONS}
         ), locked AS MATERIALIZED (
             SELECT w.project, w.package, w.name, w.version, oldest.seq FROM wanted w, LATERAL (
                 SELECT i.seq FROM invocations i
                 WHERE i.owner IS NULL AND i.status = 0 AND i.fenced_by IS NULL
                   AND (i.project, i.package, i.name, i.version) = (w.project, w.package, w.name, w.version)
                   AND i.not_before_ms <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint
                 ORDER BY i.seq LIMIT $3 FOR UPDATE SKIP LOCKED) oldest
         ), ranked AS (
             SELECT seq, row_number() OVER (PARTITION BY project, package, name, version ORDER BY seq) AS rank
             FROM locked
         ), taken AS (
             SELECT seq FROM ranked ORDER BY rank, seq LIMIT $2
         ), claimed AS (
             UPDATE invocations i SET owner = $1 FROM taken WHERE i.seq = taken.seq RETURNING i.*
         )
         SELECT {COLUMNS} FROM claimed i ORDER BY i.seq"
    );
    let (limit, each) = (i64::from(claim.limit), i64::from(claim.each.min(claim.limit)));
    let part = |part: fn(&FunctionKey) -> &str| claim.not.iter().map(part).collect::<Vec<_>>();
    let (projects, packages) = (part(|key| &key.project), part(|key| &key.package));
    let (names, versions) = (part(|key| &key.name), part(|key| &key.version));
    prepare_if_queued(db).await?;
    prepare(db, &[&sql]).await?;
    let values: super::connection::Params<'_> =
        &[&opening.node, &limit, &each, &projects, &packages, &names, &versions];
    let ((), claimed) = tokio::try_join!(biased; open_if_queued(db, opening), rows(db, &sql, values))?;
    // All of them are due by the server's clock, whatever this node's says.
    claimed.iter().map(|row| Ok(InvocationRecord { not_before_ms: 0, ..read(row)? })).collect()
}

/// Functions that have requests in the queue and ask for labels which no live node has.
pub(crate) async fn unplaceable(db: &Db, limit: u32) -> Result<Vec<(FunctionKey, NodeLabels)>, Fault> {
    let select = format!(
        "WITH RECURSIVE {FREE}
         SELECT f.project, f.package, f.name, f.version, f.node_labels
         FROM free JOIN functions f USING (project, package, name, version)
         WHERE NOT EXISTS (SELECT 1 FROM nodes n WHERE n.state = 0 AND n.lease_until > clock_timestamp()
                             AND f.node_labels <@ n.labels)
           AND f.node_labels <> '{{}}'
         ORDER BY 1, 2, 3, 4 LIMIT $1"
    );
    let read = |row: &Row| {
        let (project, package) = (row.try_get(0)?, row.try_get(1)?);
        let key = FunctionKey { project, package, name: row.try_get(2)?, version: row.try_get(3)? };
        Ok((key, NodeLabels::kept(row.try_get(4)?)))
    };
    rows(db, &select, &[&i64::from(limit)]).await?.iter().map(read).collect()
}

/// Gives requests back that never ran in this node's hands.
pub(crate) async fn release(db: &Db, node: &str, requests: &[RequestId]) -> Result<Vec<RequestId>, Fault> {
    let requests: Vec<Uuid> = requests.iter().copied().map(id).collect();
    let locked =
        "SELECT 1 FROM invocations WHERE request = ANY($1) AND owner = $2 ORDER BY request FOR UPDATE";
    rows(db, locked, &[&requests, &node]).await?;
    let release = "UPDATE invocations SET owner = NULL
                   WHERE request = ANY($1) AND owner = $2 AND status < 1 AND fenced_by IS NULL RETURNING request";
    let gone = rows(db, release, &[&requests, &node]).await?;
    if !gone.is_empty() {
        row(db, TELL_QUEUE, &[]).await?;
    }
    let read = |row: &Row| Ok(RequestId(row.try_get::<_, Uuid>(0)?.as_u128()));
    gone.iter().map(read).collect()
}

/// A request and those below it that are not over, with their owners. Through what is over in the middle of a tree too.
pub(crate) async fn below(
    db: &Db,
    request: RequestId,
    limit: u32,
) -> Result<Vec<(InvocationRecord, Option<String>)>, Fault> {
    let select = format!(
        "WITH RECURSIVE reached (request) AS (
             SELECT $1::uuid UNION SELECT a.request FROM reached r JOIN above a ON a.above = r.request)
         SELECT {COLUMNS}, i.owner FROM reached r JOIN invocations i USING (request)
         WHERE i.status IN (0, 1) OR i.request = $1 ORDER BY i.seq LIMIT $2"
    );
    let found = rows(db, &select, &[&id(request), &i64::from(limit)]).await?;
    found.iter().map(|row| Ok((read(row)?, row.try_get(super::invocations::WIDTH)?))).collect()
}
