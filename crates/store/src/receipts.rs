//! Receipts of cancels, and which requests they fenced.

use cancel::{CancelId, RequestId};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::{
    FunctionFilter, FunctionKey, NewReceipt, ReceiptRecord, StoreError,
    fault::unwritable,
    invocations::{self, blob, clamped, json_array},
};

const COLUMNS: &str = "cancel, target, project, package, name, version, body, created_ms";

pub(crate) fn record(db: &Connection, receipt: &NewReceipt) -> Result<(), StoreError> {
    let FunctionKey { project, package, name, version } = &receipt.function;
    let upsert = format!(
        "INSERT INTO receipts ({COLUMNS}, open) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 1)
         ON CONFLICT (cancel) DO UPDATE SET body = excluded.body, open = 1"
    );
    db.prepare_cached(&upsert)
        .and_then(|mut upsert| {
            upsert.execute(params![
                blob(receipt.cancel.0),
                blob(receipt.target.0),
                project,
                package,
                name,
                version,
                receipt.body,
                receipt.created_ms
            ])
        })
        .map_err(unwritable)?;
    let mut fence = db
        .prepare_cached("INSERT INTO fences (request, cancel) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        .map_err(unwritable)?;
    for request in &receipt.fenced {
        fence.execute(params![blob(request.0), blob(receipt.cancel.0)]).map_err(unwritable)?;
        invocations::fence(db, *request, receipt.cancel)?;
    }
    Ok(())
}

/// Replaces the body with its last form.
pub(crate) fn update(db: &Connection, cancel: CancelId, body: &str) -> Result<(), StoreError> {
    let update = "UPDATE receipts SET body = ?2, open = 0 WHERE cancel = ?1";
    db.execute(update, params![blob(cancel.0), body]).map(drop).map_err(unwritable)
}

pub(crate) fn one(db: &Connection, cancel: CancelId) -> rusqlite::Result<Option<ReceiptRecord>> {
    let select = format!("SELECT {COLUMNS} FROM receipts WHERE cancel = ?1");
    db.prepare_cached(&select)?.query_row([blob(cancel.0)], read).optional()
}

pub(crate) fn open(db: &Connection, limit: u32) -> rusqlite::Result<Vec<ReceiptRecord>> {
    let select = format!(
        "SELECT {COLUMNS} FROM receipts INDEXED BY receipts_open WHERE open = 1 ORDER BY seq LIMIT ?1"
    );
    db.prepare_cached(&select)?.query_map([limit], read)?.collect()
}

pub(crate) fn of(db: &Connection, request: RequestId) -> rusqlite::Result<Option<ReceiptRecord>> {
    let first = "SELECT cancel FROM fences WHERE request = ?1 ORDER BY seq LIMIT 1";
    let cancel: Option<[u8; 16]> =
        db.prepare_cached(first)?.query_row([blob(request.0)], |row| row.get(0)).optional()?;
    match cancel {
        Some(cancel) => one(db, CancelId(u128::from_be_bytes(cancel))),
        None => Ok(None),
    }
}

pub(crate) fn page(
    db: &Connection,
    project: &str,
    function: Option<&FunctionFilter>,
    (from_ms, until_ms): (i64, i64),
    offset: u64,
    limit: u32,
) -> rusqlite::Result<Vec<ReceiptRecord>> {
    // A statement for each, with an index that has the order; one with an OR would have neither.
    let of_function = match function {
        None => "AND ?8 = '[]'",
        Some(function) if function.versions.is_empty() => "AND package = ?2 AND name = ?3 AND ?8 = '[]'",
        Some(_) => "AND package = ?2 AND name = ?3 AND version IN (SELECT value FROM json_each(?8))",
    };
    let versions = json_array(function.map_or(&[], |function| &function.versions));
    let select = format!(
        "SELECT {COLUMNS} FROM receipts WHERE project = ?1 {of_function} AND created_ms BETWEEN ?6 AND ?7
         ORDER BY created_ms DESC, seq DESC LIMIT ?4 OFFSET ?5"
    );
    let (package, name) = function.map(|key| (&key.package, &key.name)).unzip();
    let values = params![project, package, name, limit, clamped(offset), from_ms, until_ms, versions];
    db.prepare_cached(&select)?.query_map(values, read)?.collect()
}

/// A row with its number.
type Numbered<T> = (i64, T);

/// Receipts after this row number in the order of writing, and whether each is open.
pub(crate) fn after(
    db: &Connection,
    seq: i64,
    limit: u32,
) -> rusqlite::Result<Vec<Numbered<(ReceiptRecord, bool)>>> {
    let select = format!("SELECT {COLUMNS}, open, seq FROM receipts WHERE seq > ?1 ORDER BY seq LIMIT ?2");
    let each = |row: &Row<'_>| Ok((row.get(9)?, (read(row)?, row.get(8)?)));
    db.prepare_cached(&select)?.query_map(params![seq, limit], each)?.collect()
}

/// Fences after this row number in the order of writing.
pub(crate) fn fences_after(
    db: &Connection,
    seq: i64,
    limit: u32,
) -> rusqlite::Result<Vec<Numbered<(RequestId, CancelId)>>> {
    let select = "SELECT request, cancel, seq FROM fences WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    let id = |row: &Row<'_>, place| row.get(place).map(u128::from_be_bytes);
    let each = |row: &Row<'_>| Ok((row.get(2)?, (RequestId(id(row, 0)?), CancelId(id(row, 1)?))));
    db.prepare_cached(select)?.query_map(params![seq, limit], each)?.collect()
}

pub(crate) fn prune(db: &Connection, before_ms: i64, limit: u32) -> Result<u64, StoreError> {
    // The same rows both times: nothing changes `receipts` in between.
    let old = "SELECT cancel FROM receipts WHERE created_ms < ?1 ORDER BY created_ms, seq LIMIT ?2";
    let fences = format!("DELETE FROM fences WHERE cancel IN ({old})");
    db.execute(&fences, params![before_ms, limit]).map_err(unwritable)?;
    let receipts = format!("DELETE FROM receipts WHERE cancel IN ({old})");
    db.execute(&receipts, params![before_ms, limit]).map(|rows| rows as u64).map_err(unwritable)
}

fn read(row: &Row<'_>) -> rusqlite::Result<ReceiptRecord> {
    Ok(ReceiptRecord {
        cancel: CancelId(u128::from_be_bytes(row.get(0)?)),
        target: RequestId(u128::from_be_bytes(row.get(1)?)),
        function: FunctionKey {
            project: row.get(2)?,
            package: row.get(3)?,
            name: row.get(4)?,
            version: row.get(5)?,
        },
        body: row.get(6)?,
        created_ms: row.get(7)?,
    })
}
