//! What functions say of their asynchronous requests.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{AsyncConfigRecord, FunctionKey, StoreError, fault::unwritable};

const COLUMNS: &str = "project, package, name, body, created_ms, modified_ms";

pub(crate) fn put(db: &Connection, key: &FunctionKey, body: &str, now_ms: i64) -> Result<bool, StoreError> {
    let upsert = format!(
        "INSERT INTO async_configs ({COLUMNS})
         SELECT ?1, ?2, ?3, ?4, ?5, ?5
         WHERE EXISTS (SELECT 1 FROM functions WHERE project = ?1 AND package = ?2 AND name = ?3)
         ON CONFLICT (project, package, name)
         DO UPDATE SET body = excluded.body, modified_ms = excluded.modified_ms"
    );
    let values = params![key.project, key.package, key.name, body, now_ms];
    db.execute(&upsert, values).map(|rows| rows > 0).map_err(unwritable)
}

pub(crate) fn one(db: &Connection, key: &FunctionKey) -> rusqlite::Result<Option<AsyncConfigRecord>> {
    let select =
        format!("SELECT {COLUMNS} FROM async_configs WHERE project = ?1 AND package = ?2 AND name = ?3");
    db.prepare_cached(&select)?.query_row([&key.project, &key.package, &key.name], read).optional()
}

pub(crate) fn all(db: &Connection) -> rusqlite::Result<Vec<AsyncConfigRecord>> {
    let select = format!("SELECT {COLUMNS} FROM async_configs ORDER BY project, package, name");
    db.prepare_cached(&select)?.query_map([], read)?.collect()
}

pub(crate) fn delete(db: &Connection, key: &FunctionKey) -> Result<bool, StoreError> {
    let delete = "DELETE FROM async_configs WHERE project = ?1 AND package = ?2 AND name = ?3";
    let rows = db.execute(delete, [&key.project, &key.package, &key.name]).map_err(unwritable)?;
    Ok(rows > 0)
}

fn read(row: &Row<'_>) -> rusqlite::Result<AsyncConfigRecord> {
    Ok(AsyncConfigRecord {
        key: FunctionKey { project: row.get(0)?, package: row.get(1)?, name: row.get(2)? },
        body: row.get(3)?,
        created_ms: row.get(4)?,
        modified_ms: row.get(5)?,
    })
}
