//! The tables, their versions, and how a database is opened.
//!
//! Ids are 16-byte blobs with a UNIQUE index over rowid tables: measured twice as fast with bodies of a
//! kilobyte as WITHOUT ROWID tables. Where the order of writing matters the row number has a name, `seq`:
//! only then does it survive a VACUUM or a dump.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags};

use crate::{StoreError, fault::unopenable};

/// Written into the database's header: another program's file is refused, never given our tables.
const APPLICATION: i64 = 0x5175_656c; // "Quel"
/// Readers wait this long for a checkpoint that is in their way.
const BUSY: Duration = Duration::from_secs(5);
/// Pages in the log before a commit also checkpoints it: 16 MiB. At the default of 4 MiB the
/// checkpoints are the 99th percentile of a commit.
const CHECKPOINT_PAGES: i64 = 4_096;
/// Prepared statements kept per connection: more than this crate has.
const STATEMENTS: usize = 48;

/// What takes a database from version n, its place here, to n + 1. Never edit one that was released.
const STEPS: [&str; 6] = [TABLES, ASYNCHRONOUS, CREDENTIALS, VERSIONS, LABELS, BULKS];
/// The newest version this program knows.
const KNOWN: usize = STEPS.len();

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
    seq INTEGER PRIMARY KEY,
    request BLOB NOT NULL UNIQUE,
    project TEXT NOT NULL, package TEXT NOT NULL, name TEXT NOT NULL,
    parent BLOB, payload BLOB NOT NULL,
    status INTEGER NOT NULL, error_code INTEGER NOT NULL DEFAULT 0, error_message TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL, started_ms INTEGER, ended_ms INTEGER, fenced_by BLOB
);
CREATE INDEX invocations_by_function ON invocations (project, package, name, created_ms);
CREATE INDEX invocations_unsettled ON invocations (seq) WHERE status IN (0, 1);
CREATE INDEX invocations_by_end ON invocations (ended_ms) WHERE ended_ms IS NOT NULL;
CREATE TABLE receipts (
    seq INTEGER PRIMARY KEY,
    cancel BLOB NOT NULL UNIQUE, target BLOB NOT NULL,
    project TEXT NOT NULL, package TEXT NOT NULL, name TEXT NOT NULL,
    body TEXT NOT NULL, created_ms INTEGER NOT NULL, open INTEGER NOT NULL
);
CREATE INDEX receipts_open ON receipts (seq) WHERE open = 1;
CREATE INDEX receipts_by_function ON receipts (project, package, name, created_ms);
CREATE INDEX receipts_by_project ON receipts (project, created_ms);
CREATE INDEX receipts_by_time ON receipts (created_ms);
CREATE TABLE fences (
    seq INTEGER PRIMARY KEY, request BLOB NOT NULL, cancel BLOB NOT NULL, UNIQUE (request, cancel)
);
CREATE INDEX fences_by_cancel ON fences (cancel);
CREATE TABLE credentials (
    key_id TEXT NOT NULL UNIQUE, secret_hash BLOB NOT NULL, project TEXT NOT NULL,
    note TEXT NOT NULL, created_ms INTEGER NOT NULL
);
CREATE TABLE facts (name TEXT NOT NULL UNIQUE, value TEXT NOT NULL);
";

const ASYNCHRONOUS: &str = "
ALTER TABLE invocations ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE invocations ADD COLUMN not_before_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE invocations ADD COLUMN hops INTEGER NOT NULL DEFAULT 0;
CREATE TABLE async_configs (
    project TEXT NOT NULL, package TEXT NOT NULL, name TEXT NOT NULL,
    body TEXT NOT NULL, created_ms INTEGER NOT NULL, modified_ms INTEGER NOT NULL,
    UNIQUE (project, package, name)
);
";

/// Who had a credential before there were scopes could do everything.
const CREDENTIALS: &str = "
ALTER TABLE credentials ADD COLUMN scopes INTEGER NOT NULL DEFAULT 31;
ALTER TABLE credentials ADD COLUMN login TEXT;
ALTER TABLE credentials ADD COLUMN password TEXT;
ALTER TABLE credentials ADD COLUMN expires_ms INTEGER;
ALTER TABLE credentials ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX credentials_by_login ON credentials (login) WHERE login IS NOT NULL;
";

/// A UNIQUE constraint cannot be changed: two small tables are made anew, with `version` in their keys. The
/// large ones get columns with a default, which rewrites none of their rows.
const VERSIONS: &str = "
CREATE TABLE functions_with_versions (
    project TEXT NOT NULL, package TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
    revision INTEGER NOT NULL, config TEXT NOT NULL,
    code_digest TEXT NOT NULL, code_size INTEGER NOT NULL,
    created_ms INTEGER NOT NULL, modified_ms INTEGER NOT NULL,
    UNIQUE (project, package, name, version)
);
INSERT INTO functions_with_versions
    SELECT project, package, name, 'latest', revision, config, code_digest, code_size, created_ms, modified_ms
    FROM functions;
DROP TABLE functions;
ALTER TABLE functions_with_versions RENAME TO functions;
CREATE INDEX functions_by_code ON functions (code_digest);
CREATE TABLE async_configs_with_versions (
    project TEXT NOT NULL, package TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
    body TEXT NOT NULL, created_ms INTEGER NOT NULL, modified_ms INTEGER NOT NULL,
    UNIQUE (project, package, name, version)
);
INSERT INTO async_configs_with_versions
    SELECT project, package, name, 'latest', body, created_ms, modified_ms FROM async_configs;
DROP TABLE async_configs;
ALTER TABLE async_configs_with_versions RENAME TO async_configs;
CREATE TABLE aliases (
    project TEXT NOT NULL, package TEXT NOT NULL, name TEXT NOT NULL, alias TEXT NOT NULL,
    version TEXT NOT NULL, additional_version TEXT, additional_percent INTEGER,
    description TEXT NOT NULL, created_ms INTEGER NOT NULL, modified_ms INTEGER NOT NULL,
    UNIQUE (project, package, name, alias)
);
ALTER TABLE invocations ADD COLUMN version TEXT NOT NULL DEFAULT 'latest';
ALTER TABLE invocations ADD COLUMN alias TEXT;
ALTER TABLE receipts ADD COLUMN version TEXT NOT NULL DEFAULT 'latest';
";

/// An object of texts by name; nothing where a request has none.
const LABELS: &str = "ALTER TABLE invocations ADD COLUMN labels TEXT;";

/// `requests` is what is left to do, and nothing once it is done.
const BULKS: &str = "
CREATE TABLE bulks (
    seq INTEGER PRIMARY KEY, project TEXT NOT NULL, key TEXT NOT NULL,
    body TEXT NOT NULL, requests TEXT, UNIQUE (project, key)
);
";

/// Opens the database for writing: checks that it is ours and whole, and brings its tables up to date.
/// One that is refused is left as it is.
pub(crate) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error| unopenable(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let version = version(&connection, path)?;
    let sound: String =
        connection.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(failed)?;
    if sound != "ok" {
        return Err(unopenable(path, format!("it is damaged: {sound}")));
    }
    let journal: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).map_err(failed)?;
    if journal != "wal" {
        // Readers would then block the writer, and the writer them.
        return Err(unopenable(path, "its file system cannot keep a write-ahead log"));
    }
    // With NORMAL a commit is not on the disk when it returns, and a 202 would lie.
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(failed)?;
    for (step, tables) in STEPS.iter().enumerate().skip(version) {
        let next = step + 1;
        connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE; {tables}
                 PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {next}; COMMIT;"
            ))
            .map_err(failed)?;
    }
    Ok(connection)
}

/// How many of the steps the database has been through; 0 for an empty one.
fn version(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    let failed = |error| unopenable(path, error);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(failed)?;
    if (application, version, tables) == (0, 0, 0) {
        return Ok(0);
    }
    if application != APPLICATION {
        return Err(unopenable(path, "it is not a database of quell"));
    }
    match usize::try_from(version) {
        Ok(known @ 1..=KNOWN) => Ok(known),
        _ => Err(unopenable(
            path,
            format!("it has version {version}, this program knows up to {KNOWN}: use the newer program"),
        )),
    }
}

/// Opens it for reading only.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error| unopenable(path, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use cancel::{CancelId, RequestId};

    use super::*;
    use crate::{FunctionKey, FunctionRecord, LATEST, async_configs, functions, invocations, receipts};

    /// A row of each kind, as the first version could have written it.
    const FIRST_ROWS: &str = "
        INSERT INTO functions VALUES ('p', 'default', 'f', 3, '{}', 'd', 4, 1, 2);
        INSERT INTO code VALUES ('d', x'636f6465');
        INSERT INTO invocations (request, project, package, name, payload, status, attempts, created_ms)
            VALUES (x'00000000000000000000000000000007', 'p', 'default', 'f', x'7b7d', 1, 2, 5);
        INSERT INTO receipts (cancel, target, project, package, name, body, created_ms, open)
            VALUES (x'00000000000000000000000000000009', x'00000000000000000000000000000007',
                    'p', 'default', 'f', '{\"cancel\":9}', 6, 1);
        INSERT INTO credentials (key_id, secret_hash, project, note, created_ms)
            VALUES ('AK', zeroblob(32), 'p', 'first', 7);
        INSERT INTO facts VALUES ('node', 'n');";

    #[test]
    fn a_database_of_every_earlier_version_comes_up_to_date_with_all_it_has() {
        for earlier in 1..=KNOWN {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("quell.db");
            let old = Connection::open(&path).unwrap();
            for (step, tables) in STEPS.iter().enumerate().take(earlier) {
                old.execute_batch(tables).unwrap();
                if step == 0 {
                    old.execute_batch(FIRST_ROWS).unwrap();
                }
            }
            old.pragma_update(None, "application_id", APPLICATION).unwrap();
            old.pragma_update(None, "user_version", i64::try_from(earlier).unwrap()).unwrap();
            drop(old);
            let db = open_writer(&path).unwrap();
            assert_eq!(version(&db, &path).unwrap(), KNOWN, "from version {earlier}");
            let request = crate::invocations::unsettled(&db, None, 10).unwrap();
            assert_eq!((request.len(), request[0].attempts, request[0].failures), (1, 2, 0));
            assert_eq!(crate::functions::all(&db, None).unwrap()[0].revision, 3);
            assert_eq!(crate::functions::code(&db, "d").unwrap().as_deref(), Some(&b"code"[..]));
            assert_eq!(crate::receipts::open(&db, 10).unwrap().len(), 1);
            let credential = &crate::credentials::all(&db, None).unwrap()[0];
            assert_eq!(
                (credential.note.as_str(), credential.scopes, credential.generation),
                ("first", 31, 0)
            );
            assert_eq!(crate::credentials::fact(&db, "node").unwrap().as_deref(), Some("n"));
        }
    }

    #[test]
    fn a_commit_is_on_the_disk_when_it_returns_and_readers_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        std::fs::File::create(&path).unwrap();
        let writer = open_writer(&path).unwrap();
        let number = |name| writer.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("synchronous"), 2, "2 is FULL");
        assert_eq!(number("wal_autocheckpoint"), CHECKPOINT_PAGES);
        assert_eq!(number("user_version"), KNOWN as i64);
        let reader = open_reader(&path).unwrap();
        assert!(reader.execute("DELETE FROM facts", []).is_err());
    }

    #[test]
    fn what_was_there_before_versions_is_latest_after_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let before = STEPS.iter().position(|step| *step == VERSIONS).unwrap();
        let old = Connection::open(&path).unwrap();
        for tables in &STEPS[..before] {
            old.execute_batch(tables).unwrap();
        }
        old.execute_batch(&format!(
            "INSERT INTO functions VALUES ('p', 'k', 'f', 7, '{{}}', 'd', 4, 1, 2);
             INSERT INTO async_configs VALUES ('p', 'k', 'f', 'says', 3, 4);
             INSERT INTO invocations (request, project, package, name, payload, status, created_ms)
                 VALUES (x'{:032x}', 'p', 'k', 'f', x'', 0, 5);
             INSERT INTO receipts (cancel, target, project, package, name, body, created_ms, open)
                 VALUES (x'{:032x}', x'{:032x}', 'p', 'k', 'f', '{{}}', 6, 0);
             PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {before};",
            1, 2, 1
        ))
        .unwrap();
        drop(old);
        let db = open_writer(&path).unwrap();
        let key = FunctionKey {
            project: "p".into(),
            package: "k".into(),
            name: "f".into(),
            version: LATEST.into(),
        };
        let function = functions::one(&db, &key).unwrap().unwrap();
        assert_eq!((function.revision, function.code_size, function.modified_ms), (7, 4, 2));
        assert_eq!(async_configs::one(&db, &key).unwrap().unwrap().body, "says");
        let request = invocations::one(&db, RequestId(1)).unwrap().unwrap();
        assert_eq!((&request.function, request.alias), (&key, None));
        assert_eq!(receipts::one(&db, CancelId(2)).unwrap().unwrap().function, key);
        // The keys of the new tables hold a version.
        let published = FunctionRecord { key: key.at("v1"), ..function };
        assert!(functions::publish(&db, &published).unwrap());
        assert_eq!(functions::publish(&db, &published).unwrap_err(), StoreError::Exists);
    }
}
