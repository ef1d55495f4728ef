//! Names that are given to versions of functions.

use rusqlite::{Connection, Row, params};

use crate::{AliasRecord, FunctionKey, Share, StoreError, fault::unwritable};

const COLUMNS: &str = "project, package, name, version, alias, additional_version, additional_percent, \
                       description, created_ms, modified_ms";

/// Makes one, or replaces what it says. False, and nothing is done, if a version it names is not there.
pub(crate) fn put(db: &Connection, alias: &AliasRecord) -> Result<bool, StoreError> {
    let upsert = format!(
        "INSERT INTO aliases ({COLUMNS})
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10
         WHERE (SELECT count(*) FROM functions
                WHERE project = ?1 AND package = ?2 AND name = ?3 AND version IN (?4, ?6))
             = 1 + (?6 IS NOT NULL)
         ON CONFLICT (project, package, name, alias)
         DO UPDATE SET version = excluded.version, additional_version = excluded.additional_version,
                       additional_percent = excluded.additional_percent,
                       description = excluded.description, modified_ms = excluded.modified_ms"
    );
    let FunctionKey { project, package, name, version } = &alias.function;
    let (additional, percent) =
        alias.additional.as_ref().map(|share| (&share.version, share.percent)).unzip();
    let values = params![
        project,
        package,
        name,
        version,
        alias.name,
        additional,
        percent,
        alias.description,
        alias.created_ms,
        alias.modified_ms
    ];
    db.execute(&upsert, values).map(|rows| rows > 0).map_err(unwritable)
}

pub(crate) fn all(db: &Connection) -> rusqlite::Result<Vec<AliasRecord>> {
    let select = format!("SELECT {COLUMNS} FROM aliases ORDER BY project, package, name, alias");
    db.prepare_cached(&select)?.query_map([], read)?.collect()
}

pub(crate) fn delete(db: &Connection, key: &FunctionKey, alias: &str) -> Result<bool, StoreError> {
    let delete = "DELETE FROM aliases WHERE project = ?1 AND package = ?2 AND name = ?3 AND alias = ?4";
    let values = params![key.project, key.package, key.name, alias];
    db.execute(delete, values).map(|rows| rows > 0).map_err(unwritable)
}

/// Those of a function.
pub(crate) fn delete_all(db: &Connection, key: &FunctionKey) -> Result<(), StoreError> {
    let delete = "DELETE FROM aliases WHERE project = ?1 AND package = ?2 AND name = ?3";
    db.execute(delete, [&key.project, &key.package, &key.name]).map(drop).map_err(unwritable)
}

fn read(row: &Row<'_>) -> rusqlite::Result<AliasRecord> {
    let (additional, percent): (Option<String>, Option<u8>) = (row.get(5)?, row.get(6)?);
    Ok(AliasRecord {
        function: FunctionKey {
            project: row.get(0)?,
            package: row.get(1)?,
            name: row.get(2)?,
            version: row.get(3)?,
        },
        name: row.get(4)?,
        additional: additional.zip(percent).map(|(version, percent)| Share { version, percent }),
        description: row.get(7)?,
        created_ms: row.get(8)?,
        modified_ms: row.get(9)?,
    })
}
