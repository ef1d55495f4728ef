//! Credentials, and small facts about the node.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{CredentialRecord, StoreError, fault::unwritable};

const COLUMNS: &str = "key_id, secret_hash, project, note, created_ms";

pub(crate) fn put(db: &Connection, credential: &CredentialRecord) -> Result<(), StoreError> {
    let insert = format!("INSERT OR REPLACE INTO credentials ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5)");
    let CredentialRecord { key_id, secret_hash, project, note, created_ms } = credential;
    db.execute(&insert, params![key_id, secret_hash, project, note, created_ms]).map(drop).map_err(unwritable)
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
    })
}
