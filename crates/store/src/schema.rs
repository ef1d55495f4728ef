//! The tables, and how a database is opened.
//!
//! Ids are 16-byte blobs with a UNIQUE index over rowid tables: measured twice as fast with bodies of a
//! kilobyte as WITHOUT ROWID tables.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};

use crate::StoreError;

/// The version of the tables below. A database of a newer one is refused, never guessed at.
const VERSION: i64 = 1;
/// Readers wait this long for a checkpoint that is in their way.
const BUSY: Duration = Duration::from_secs(5);
/// Pages in the log before a commit also checkpoints it: 16 MiB. At the default of 4 MiB the
/// checkpoints are the 99th percentile of a commit.
const CHECKPOINT_PAGES: i64 = 4_096;

const TABLES: &str = "
CREATE TABLE functions (
    project TEXT NOT NULL, package TEXT NOT NULL, name TEXT NOT NULL,
    revision INTEGER NOT NULL, config TEXT NOT NULL,
    code_digest TEXT NOT NULL, code_size INTEGER NOT NULL,
    created_ms INTEGER NOT NULL, modified_ms INTEGER NOT NULL,
    UNIQUE (project, package, name)
);
CREATE INDEX functions_by_code ON functions (code_digest);
CREATE TABLE code (digest TEXT NOT NULL UNIQUE, bytes BLOB NOT NULL);
CREATE TABLE invocations (
    request BLOB NOT NULL UNIQUE,
    project TEXT NOT NULL, package TEXT NOT NULL, name TEXT NOT NULL,
    parent BLOB, payload BLOB NOT NULL,
    status INTEGER NOT NULL, error_code INTEGER NOT NULL DEFAULT 0, error_message TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL, started_ms INTEGER, ended_ms INTEGER, fenced_by BLOB
);
CREATE INDEX invocations_by_function ON invocations (project, package, name, created_ms);
CREATE INDEX invocations_unsettled ON invocations (status) WHERE status IN (0, 1);
CREATE INDEX invocations_by_end ON invocations (ended_ms) WHERE ended_ms IS NOT NULL;
CREATE TABLE receipts (
    cancel BLOB NOT NULL UNIQUE, target BLOB NOT NULL,
    project TEXT NOT NULL, package TEXT NOT NULL, name TEXT NOT NULL,
    body TEXT NOT NULL, created_ms INTEGER NOT NULL
);
CREATE INDEX receipts_by_function ON receipts (project, package, name, created_ms);
CREATE INDEX receipts_by_time ON receipts (created_ms);
CREATE TABLE fences (request BLOB NOT NULL, cancel BLOB NOT NULL, UNIQUE (request, cancel));
CREATE INDEX fences_by_cancel ON fences (cancel);
CREATE TABLE credentials (
    key_id TEXT NOT NULL UNIQUE, secret_hash BLOB NOT NULL, project TEXT NOT NULL,
    note TEXT NOT NULL, created_ms INTEGER NOT NULL
);
CREATE TABLE facts (name TEXT NOT NULL UNIQUE, value TEXT NOT NULL);
";

/// Opens the database for writing, and makes or checks its tables.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path).map_err(unopenable)?;
    prepare(&connection).map_err(unopenable)?;
    let version: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(unopenable)?;
    match version {
        0 => {
            let tables = format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;");
            connection.execute_batch(&tables).map_err(unopenable)?;
        }
        VERSION => {}
        newer => {
            return Err(StoreError::Unopenable(format!(
                "{} is of version {newer}, this program knows {VERSION}: use the program that wrote it, or a newer one",
                path.display()
            )));
        }
    }
    let sound: String =
        connection.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(unopenable)?;
    if sound != "ok" {
        return Err(StoreError::Unopenable(format!("{} is damaged: {sound}", path.display())));
    }
    Ok(connection)
}

/// Opens it for reading only.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(unopenable)?;
    connection.busy_timeout(BUSY).map_err(unopenable)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // With NORMAL a commit is not on the disk when it returns, and a 202 would lie.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
}

fn unopenable(error: rusqlite::Error) -> StoreError {
    StoreError::Unopenable(error.to_string())
}
