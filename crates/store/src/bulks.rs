//! Cancels of many requests at once: what was asked under which key, and what is left to do of it.

use rusqlite::{Connection, Row, params};

use crate::{
    BulkRecord, StoreError,
    fault::{uninsertable, unwritable},
};

pub(crate) fn begin(db: &Connection, bulk: &BulkRecord) -> Result<(), StoreError> {
    let insert = "INSERT INTO bulks (project, key, body, requests) VALUES (?1, ?2, ?3, ?4)";
    db.prepare_cached(insert)
        .and_then(|mut insert| insert.execute(params![bulk.project, bulk.key, bulk.body, bulk.requests]))
        .map(drop)
        .map_err(uninsertable)
}

/// Keeps its last form; what there was to do is done.
pub(crate) fn end(db: &Connection, project: &str, key: &str, body: &str) -> Result<(), StoreError> {
    let update = "UPDATE bulks SET body = ?3, requests = NULL WHERE project = ?1 AND key = ?2";
    db.execute(update, params![project, key, body]).map(drop).map_err(unwritable)
}

pub(crate) fn forget(db: &Connection, project: &str, key: &str) -> Result<bool, StoreError> {
    let delete = "DELETE FROM bulks WHERE project = ?1 AND key = ?2";
    db.execute(delete, params![project, key]).map(|rows| rows > 0).map_err(unwritable)
}

pub(crate) fn all(db: &Connection) -> rusqlite::Result<Vec<BulkRecord>> {
    let select = "SELECT project, key, body, requests FROM bulks ORDER BY seq";
    db.prepare_cached(select)?.query_map([], read)?.collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<BulkRecord> {
    Ok(BulkRecord { project: row.get(0)?, key: row.get(1)?, body: row.get(2)?, requests: row.get(3)? })
}
