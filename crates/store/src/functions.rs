//! Functions in their versions, and their code packages.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{
    FunctionKey, FunctionRecord, LATEST, StoreError, aliases, async_configs,
    fault::{uninsertable, unwritable},
};

const COLUMNS: &str =
    "project, package, name, version, revision, config, code_digest, code_size, created_ms, modified_ms";
/// One version of one function.
const ONE: &str = "project = ?1 AND package = ?2 AND name = ?3 AND version = ?4";
/// All versions of one function.
const WHOLE: &str = "project = ?1 AND package = ?2 AND name = ?3";

pub(crate) fn create(db: &Connection, record: &FunctionRecord, code: &[u8]) -> Result<(), StoreError> {
    keep_code(db, &record.code_digest, code)?;
    insert(db, record)
}

/// False if the function is not there. What `latest` says of its asynchronous requests is copied too, so
/// that the version behaves as what was published.
pub(crate) fn publish(db: &Connection, record: &FunctionRecord) -> Result<bool, StoreError> {
    if one(db, &record.key.at(LATEST)).map_err(unwritable)?.is_none() {
        return Ok(false);
    }
    insert(db, record)?;
    async_configs::copy(db, &record.key.at(LATEST), &record.key.version, record.created_ms)?;
    Ok(true)
}

fn insert(db: &Connection, record: &FunctionRecord) -> Result<(), StoreError> {
    let insert =
        format!("INSERT INTO functions ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)");
    let FunctionKey { project, package, name, version } = &record.key;
    let values = params![
        project,
        package,
        name,
        version,
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
    let Some(before) = one(db, &record.key).map_err(unwritable)? else { return Ok(false) };
    if let Some(code) = code {
        keep_code(db, &record.code_digest, code)?;
    }
    let update = format!(
        "UPDATE functions
         SET revision = ?5, config = ?6, code_digest = ?7, code_size = ?8, modified_ms = ?9 WHERE {ONE}"
    );
    let FunctionKey { project, package, name, version } = &record.key;
    let values = params![
        project,
        package,
        name,
        version,
        integer(record.revision),
        record.config,
        record.code_digest,
        integer(record.code_size),
        record.modified_ms
    ];
    db.execute(&update, values).map_err(unwritable)?;
    drop_if_unused(db, &before.code_digest)?;
    Ok(true)
}

/// Deletes all versions, and what is said of them.
pub(crate) fn delete(db: &Connection, key: &FunctionKey) -> Result<bool, StoreError> {
    let of = [&key.project, &key.package, &key.name];
    let delete = format!("DELETE FROM functions WHERE {WHOLE} RETURNING code_digest");
    let codes: Vec<String> = db
        .prepare_cached(&delete)
        .and_then(|mut delete| delete.query_map(of, |row| row.get(0))?.collect())
        .map_err(unwritable)?;
    async_configs::delete_all(db, key)?;
    aliases::delete_all(db, key)?;
    for code in &codes {
        drop_if_unused(db, code)?;
    }
    Ok(!codes.is_empty())
}

pub(crate) fn delete_version(db: &Connection, key: &FunctionKey) -> Result<bool, StoreError> {
    let delete = format!("DELETE FROM functions WHERE {ONE} RETURNING code_digest");
    let code: Option<String> =
        db.query_row(&delete, named(key), |row| row.get(0)).optional().map_err(unwritable)?;
    let Some(code) = code else { return Ok(false) };
    async_configs::delete(db, key)?;
    drop_if_unused(db, &code)?;
    Ok(true)
}

pub(crate) fn one(db: &Connection, key: &FunctionKey) -> rusqlite::Result<Option<FunctionRecord>> {
    let select = format!("SELECT {COLUMNS} FROM functions WHERE {ONE}");
    db.prepare_cached(&select)?.query_row(named(key), read).optional()
}

pub(crate) fn all(db: &Connection, project: Option<&str>) -> rusqlite::Result<Vec<FunctionRecord>> {
    let select = format!(
        "SELECT {COLUMNS} FROM functions WHERE ?1 IS NULL OR project = ?1
         ORDER BY project, package, name, version"
    );
    db.prepare_cached(&select)?.query_map([project], read)?.collect()
}

/// Newest first, and `latest` before them. By revision: a clock may be set back.
pub(crate) fn versions(db: &Connection, key: &FunctionKey) -> rusqlite::Result<Vec<FunctionRecord>> {
    let select = format!(
        "SELECT {COLUMNS} FROM functions WHERE {WHOLE}
         ORDER BY version <> '{LATEST}', revision DESC"
    );
    let of = [&key.project, &key.package, &key.name];
    db.prepare_cached(&select)?.query_map(of, read)?.collect()
}

pub(crate) fn code(db: &Connection, digest: &str) -> rusqlite::Result<Option<Bytes>> {
    let mut select = db.prepare_cached("SELECT bytes FROM code WHERE digest = ?1")?;
    select.query_row([digest], |row| row.get::<_, Vec<u8>>(0)).optional().map(|code| code.map(Bytes::from))
}

/// A version of a function as the parameters 1 to 4.
pub(crate) fn named(key: &FunctionKey) -> [&String; 4] {
    [&key.project, &key.package, &key.name, &key.version]
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
        key: FunctionKey {
            project: row.get(0)?,
            package: row.get(1)?,
            name: row.get(2)?,
            version: row.get(3)?,
        },
        revision: row.get::<_, i64>(4)?.cast_unsigned(),
        config: row.get(5)?,
        code_digest: row.get(6)?,
        code_size: row.get::<_, i64>(7)?.cast_unsigned(),
        created_ms: row.get(8)?,
        modified_ms: row.get(9)?,
    })
}

/// SQLite's integers are signed; ours are counts that never come near the sign.
fn integer(count: u64) -> i64 {
    count.cast_signed()
}
