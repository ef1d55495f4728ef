//! Functions and their code packages.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{
    FunctionKey, FunctionRecord, StoreError, async_configs,
    fault::{uninsertable, unwritable},
};

const COLUMNS: &str =
    "project, package, name, revision, config, code_digest, code_size, created_ms, modified_ms";

pub(crate) fn create(db: &Connection, record: &FunctionRecord, code: &[u8]) -> Result<(), StoreError> {
    keep_code(db, &record.code_digest, code)?;
    let insert = format!("INSERT INTO functions ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)");
    let FunctionKey { project, package, name } = &record.key;
    let values = params![
        project,
        package,
        name,
        integer(record.revision),
        record.config,
        record.code_digest,
        integer(record.code_size),
        record.created_ms,
        record.modified_ms
    ];
    db.execute(&insert, values).map(drop).map_err(uninsertable)
}

pub(crate) fn update(
    db: &Connection,
    record: &FunctionRecord,
    code: Option<&[u8]>,
) -> Result<bool, StoreError> {
    let FunctionKey { project, package, name } = &record.key;
    let before = db
        .prepare_cached("SELECT code_digest FROM functions WHERE project = ?1 AND package = ?2 AND name = ?3")
        .and_then(|mut select| {
            select.query_row([project, package, name], |row| row.get::<_, String>(0)).optional()
        })
        .map_err(unwritable)?;
    let Some(before) = before else { return Ok(false) };
    if let Some(code) = code {
        keep_code(db, &record.code_digest, code)?;
    }
    let update = "UPDATE functions
                  SET revision = ?4, config = ?5, code_digest = ?6, code_size = ?7, modified_ms = ?8
                  WHERE project = ?1 AND package = ?2 AND name = ?3";
    let values = params![
        project,
        package,
        name,
        integer(record.revision),
        record.config,
        record.code_digest,
        integer(record.code_size),
        record.modified_ms
    ];
    db.execute(update, values).map_err(unwritable)?;
    drop_if_unused(db, &before)?;
    Ok(true)
}

pub(crate) fn delete(db: &Connection, key: &FunctionKey) -> Result<bool, StoreError> {
    let delete = "DELETE FROM functions WHERE project = ?1 AND package = ?2 AND name = ?3
                  RETURNING code_digest";
    let code: Option<String> = db
        .query_row(delete, [&key.project, &key.package, &key.name], |row| row.get(0))
        .optional()
        .map_err(unwritable)?;
    let Some(code) = code else { return Ok(false) };
    async_configs::delete(db, key)?;
    drop_if_unused(db, &code)?;
    Ok(true)
}

pub(crate) fn one(db: &Connection, key: &FunctionKey) -> rusqlite::Result<Option<FunctionRecord>> {
    let select = format!("SELECT {COLUMNS} FROM functions WHERE project = ?1 AND package = ?2 AND name = ?3");
    db.prepare_cached(&select)?.query_row(params![key.project, key.package, key.name], read).optional()
}

pub(crate) fn all(db: &Connection, project: Option<&str>) -> rusqlite::Result<Vec<FunctionRecord>> {
    let select = format!(
        "SELECT {COLUMNS} FROM functions WHERE ?1 IS NULL OR project = ?1 ORDER BY project, package, name"
    );
    db.prepare_cached(&select)?.query_map([project], read)?.collect()
}

pub(crate) fn code(db: &Connection, digest: &str) -> rusqlite::Result<Option<Bytes>> {
    let mut select = db.prepare_cached("SELECT bytes FROM code WHERE digest = ?1")?;
    select.query_row([digest], |row| row.get::<_, Vec<u8>>(0)).optional().map(|code| code.map(Bytes::from))
}

fn keep_code(db: &Connection, digest: &str, code: &[u8]) -> Result<(), StoreError> {
    let insert = "INSERT INTO code (digest, bytes) VALUES (?1, ?2) ON CONFLICT (digest) DO NOTHING";
    db.execute(insert, params![digest, code]).map(drop).map_err(unwritable)
}

fn drop_if_unused(db: &Connection, digest: &str) -> Result<(), StoreError> {
    let unused = "DELETE FROM code
                  WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM functions WHERE code_digest = ?1)";
    db.execute(unused, [digest]).map(drop).map_err(unwritable)
}

fn read(row: &Row<'_>) -> rusqlite::Result<FunctionRecord> {
    Ok(FunctionRecord {
        key: FunctionKey { project: row.get(0)?, package: row.get(1)?, name: row.get(2)? },
        revision: row.get::<_, i64>(3)?.cast_unsigned(),
        config: row.get(4)?,
        code_digest: row.get(5)?,
        code_size: row.get::<_, i64>(6)?.cast_unsigned(),
        created_ms: row.get(7)?,
        modified_ms: row.get(8)?,
    })
}

/// SQLite's integers are signed; ours are counts that never come near the sign.
fn integer(count: u64) -> i64 {
    count.cast_signed()
}
