//! Credentials, and small facts about the node.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{CredentialRecord, StoreError, fault::unwritable};

const COLUMNS: &str =
    "key_id, secret_hash, project, note, created_ms, scopes, login, password, expires_ms, generation";

/// Adds a credential or replaces the one of its key. A login that another one has is refused.
pub(crate) fn put(db: &Connection, credential: &CredentialRecord) -> Result<(), StoreError> {
    let CredentialRecord { key_id, login, .. } = credential;
    let taken = "SELECT 1 FROM credentials WHERE login = ?1 AND key_id <> ?2";
    let taken = db.query_row(taken, params![login, key_id], |_| Ok(())).optional().map_err(unwritable)?;
    if taken.is_some() {
        return Err(StoreError::Exists);
    }
    let insert = format!(
        "INSERT OR REPLACE INTO credentials ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
    );
    let values = params![
        key_id,
        credential.secret_hash,
        credential.project,
        credential.note,
        credential.created_ms,
        credential.scopes,
        login,
        credential.password,
        credential.expires_ms,
        credential.generation
    ];
    db.execute(&insert, values).map(drop).map_err(unwritable)
}

/// False if there was none.
pub(crate) fn delete(db: &Connection, key_id: &str) -> Result<bool, StoreError> {
    let deleted = db.execute("DELETE FROM credentials WHERE key_id = ?1", [key_id]);
    deleted.map(|rows| rows > 0).map_err(unwritable)
}

pub(crate) fn all(db: &Connection, project: Option<&str>) -> rusqlite::Result<Vec<CredentialRecord>> {
    let select = format!(
        "SELECT {COLUMNS} FROM credentials WHERE ?1 IS NULL OR project = ?1 ORDER BY created_ms, key_id"
    );
    db.prepare_cached(&select)?.query_map([project], read)?.collect()
}

pub(crate) fn fact(db: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM facts WHERE name = ?1", [name], |row| row.get(0)).optional()
}

pub(crate) fn keep_fact(db: &Connection, name: &str, value: &str) -> Result<String, StoreError> {
    let insert = "INSERT INTO facts (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";
    db.execute(insert, params![name, value]).map_err(unwritable)?;
    let select = "SELECT value FROM facts WHERE name = ?1";
    db.query_row(select, [name], |row| row.get(0)).map_err(unwritable)
}

pub(crate) fn facts(db: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    let mut select = db.prepare_cached("SELECT name, value FROM facts ORDER BY name")?;
    select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

pub(crate) fn put_fact(db: &Connection, name: &str, value: &str) -> Result<(), StoreError> {
    let insert = "INSERT OR REPLACE INTO facts (name, value) VALUES (?1, ?2)";
    db.execute(insert, params![name, value]).map(drop).map_err(unwritable)
}

fn read(row: &Row<'_>) -> rusqlite::Result<CredentialRecord> {
    Ok(CredentialRecord {
        key_id: row.get(0)?,
        secret_hash: row.get(1)?,
        project: row.get(2)?,
        note: row.get(3)?,
        created_ms: row.get(4)?,
        scopes: row.get(5)?,
        login: row.get(6)?,
        password: row.get(7)?,
        expires_ms: row.get(8)?,
        generation: row.get(9)?,
    })
}
