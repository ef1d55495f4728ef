//! Cancels of many requests: each is one node's at a time, and every node finds it by its key.

use tokio_postgres::Row;

use super::{
    connection::{Db, execute, row, rows},
    fault::Fault,
    invocations::kept,
};
use crate::{BulkRecord, SharedBulk, StoreError};

const COLUMNS: &str = "project, key, body, requests, node";
/// One of a project.
const ONE: &str = "project = $1 AND key = $2";

/// Begins a cancel of many.
pub(crate) async fn begin(db: &Db, node: &str, bulk: &BulkRecord) -> Result<(), Fault> {
    let insert = "INSERT INTO bulks (project, key, body, requests, node) VALUES ($1, $2, $3, $4, $5)
                  ON CONFLICT (project, key) DO NOTHING";
    let BulkRecord { project, key, body, requests } = bulk;
    match execute(db, insert, &[project, key, &kept(body), requests, &node]).await? {
        0 => Err(StoreError::Exists.into()),
        _ => Ok(()),
    }
}

/// Keeps how it stands, while there is something to do of it.
pub(crate) async fn note(db: &Db, node: &str, project: &str, key: &str, body: &str) -> Result<(), Fault> {
    let update = format!(
        "UPDATE bulks SET body = $3 WHERE {ONE} AND node = $4 AND requests IS NOT NULL AND NOT called_off"
    );
    execute(db, &update, &[&project, &key, &kept(body), &node]).await.map(drop)
}

/// Keeps its last form; what there was to do is done. One that another node has taken up is that node's to end.
pub(crate) async fn end(db: &Db, node: &str, project: &str, key: &str, body: &str) -> Result<(), Fault> {
    let update =
        format!("UPDATE bulks SET body = $3, requests = NULL, called_off = false WHERE {ONE} AND node = $4");
    execute(db, &update, &[&project, &key, &kept(body), &node]).await.map(drop)
}

/// Leaves nothing to do of it, for this life of its node and whoever comes after it, and tells that node. False if nothing
/// was left, or it is not there.
pub(crate) async fn call_off(db: &Db, project: &str, key: &str, body: &str) -> Result<bool, Fault> {
    let update = format!(
        "UPDATE bulks SET body = $3, requests = NULL, called_off = true
         WHERE {ONE} AND requests IS NOT NULL RETURNING pg_notify('quell_bulks', node)"
    );
    Ok(row(db, &update, &[&project, &key, &kept(body)]).await?.is_some())
}

pub(crate) async fn forget(db: &Db, project: &str, key: &str) -> Result<bool, Fault> {
    let delete = format!("DELETE FROM bulks WHERE {ONE}");
    Ok(execute(db, &delete, &[&project, &key]).await? > 0)
}

/// Those of this node.
pub(crate) async fn of_node(db: &Db, node: &str) -> Result<Vec<BulkRecord>, Fault> {
    let select = format!("SELECT {COLUMNS} FROM bulks WHERE node = $1 ORDER BY seq");
    rows(db, &select, &[&node]).await?.iter().map(record).collect()
}

pub(crate) async fn one(db: &Db, project: &str, key: &str) -> Result<Option<SharedBulk>, Fault> {
    let select = format!("SELECT {COLUMNS} FROM bulks WHERE {ONE}");
    row(db, &select, &[&project, &key]).await?.as_ref().map(shared).transpose()
}

/// Those of a project, of all nodes; the newest first.
pub(crate) async fn of_project(db: &Db, project: &str, limit: u32) -> Result<Vec<SharedBulk>, Fault> {
    let select = format!("SELECT {COLUMNS} FROM bulks WHERE project = $1 ORDER BY seq DESC LIMIT $2");
    rows(db, &select, &[&project, &i64::from(limit)]).await?.iter().map(shared).collect()
}

/// Those of this node that were called off on another, and that it has not ended since.
pub(crate) async fn called_off(db: &Db, node: &str) -> Result<Vec<(String, String)>, Fault> {
    let select = "SELECT project, key FROM bulks WHERE node = $1 AND called_off ORDER BY seq";
    let found = rows(db, select, &[&node]).await?;
    found.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Whether there is something to do of one whose node is gone.
pub(crate) async fn are_abandoned(db: &Db) -> Result<bool, Fault> {
    let select = "SELECT EXISTS (SELECT 1 FROM bulks b JOIN nodes n USING (node)
                                 WHERE b.requests IS NOT NULL AND n.state IN (2, 3))";
    let found = row(db, select, &[]).await?;
    Ok(found.map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
}

/// Takes those up whose nodes are gone, if this one takes anything new. A node that joins again meanwhile keeps its own: its row is
/// locked here, or there.
pub(crate) async fn adopt(db: &Db, node: &str) -> Result<Vec<BulkRecord>, Fault> {
    let adopt = format!(
        "WITH gone AS (SELECT node FROM nodes WHERE state IN (2, 3) ORDER BY node FOR SHARE SKIP LOCKED),
              taken AS (
                  UPDATE bulks b SET node = $1 FROM gone
                  WHERE b.node = gone.node AND b.requests IS NOT NULL
                    AND EXISTS (SELECT 1 FROM nodes WHERE node = $1 AND state = 0)
                  RETURNING b.*)
         SELECT {COLUMNS} FROM taken ORDER BY seq"
    );
    rows(db, &adopt, &[&node]).await?.iter().map(record).collect()
}

fn record(row: &Row) -> Result<BulkRecord, Fault> {
    let (project, key) = (row.try_get(0)?, row.try_get(1)?);
    Ok(BulkRecord { project, key, body: row.try_get(2)?, requests: row.try_get(3)? })
}

fn shared(row: &Row) -> Result<SharedBulk, Fault> {
    Ok(SharedBulk { record: record(row)?, node: row.try_get(4)? })
}
