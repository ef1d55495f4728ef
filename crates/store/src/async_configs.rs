//! What functions say of their asynchronous requests, each version for itself.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{
    AsyncConfigRecord, FunctionFilter, FunctionKey, StoreError, fault::unwritable, functions::named,
};

const COLUMNS: &str = "project, package, name, version, body, created_ms, modified_ms";
/// One version of one function.
const ONE: &str = "project = ?1 AND package = ?2 AND name = ?3 AND version = ?4";

pub(crate) fn put(db: &Connection, key: &FunctionKey, body: &str, now_ms: i64) -> Result<bool, StoreError> {
    let upsert = format!(
        "INSERT INTO async_configs ({COLUMNS})
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?6
         WHERE EXISTS (SELECT 1 FROM functions WHERE {ONE})
         ON CONFLICT (project, package, name, version)
         DO UPDATE SET body = excluded.body, modified_ms = excluded.modified_ms"
    );
    let values = params![key.project, key.package, key.name, key.version, body, now_ms];
    db.execute(&upsert, values).map(|rows| rows > 0).map_err(unwritable)
}

/// Gives another version of the function what this one says, if it says anything.
pub(crate) fn copy(db: &Connection, from: &FunctionKey, to: &str, now_ms: i64) -> Result<(), StoreError> {
    let copy = format!(
        "INSERT INTO async_configs ({COLUMNS})
         SELECT project, package, name, ?5, body, ?6, ?6 FROM async_configs WHERE {ONE}"
    );
    let values = params![from.project, from.package, from.name, from.version, to, now_ms];
    db.execute(&copy, values).map(drop).map_err(unwritable)
}

pub(crate) fn one(db: &Connection, key: &FunctionKey) -> rusqlite::Result<Option<AsyncConfigRecord>> {
    let select = format!("SELECT {COLUMNS} FROM async_configs WHERE {ONE}");
    db.prepare_cached(&select)?.query_row(named(key), read).optional()
}

pub(crate) fn all(db: &Connection, function: &FunctionFilter) -> rusqlite::Result<Vec<AsyncConfigRecord>> {
    let select = format!(
        "SELECT {COLUMNS} FROM async_configs WHERE project = ?1 AND package = ?2 AND name = ?3
         ORDER BY version"
    );
    let of = [&function.project, &function.package, &function.name];
    let mut rows: Vec<AsyncConfigRecord> =
        db.prepare_cached(&select)?.query_map(of, read)?.collect::<Result<_, _>>()?;
    rows.retain(|row| function.fits(&row.key));
    Ok(rows)
}

pub(crate) fn delete(db: &Connection, key: &FunctionKey) -> Result<bool, StoreError> {
    let delete = format!("DELETE FROM async_configs WHERE {ONE}");
    db.execute(&delete, named(key)).map(|rows| rows > 0).map_err(unwritable)
}

/// Those of all versions.
pub(crate) fn delete_all(db: &Connection, key: &FunctionKey) -> Result<(), StoreError> {
    let delete = "DELETE FROM async_configs WHERE project = ?1 AND package = ?2 AND name = ?3";
    db.execute(delete, [&key.project, &key.package, &key.name]).map(drop).map_err(unwritable)
}

fn read(row: &Row<'_>) -> rusqlite::Result<AsyncConfigRecord> {
    Ok(AsyncConfigRecord {
        key: FunctionKey {
            project: row.get(0)?,
            package: row.get(1)?,
            name: row.get(2)?,
            version: row.get(3)?,
        },
        body: row.get(4)?,
        created_ms: row.get(5)?,
        modified_ms: row.get(6)?,
    })
}
