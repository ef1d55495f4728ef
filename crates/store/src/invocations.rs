//! Asynchronous requests, from their acceptance to their final state.

use bytes::Bytes;
use cancel::{CancelId, RequestId};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params, types::FromSqlError};

use crate::{
    FunctionFilter, FunctionKey, InvocationPage, InvocationQuery, InvocationRecord, Labels, NewInvocation,
    Settlement, Status, StoreError,
    fault::{uninsertable, unwritable},
};

const COLUMNS: &str = "request, project, package, name, parent, status, error_code, error_message, attempts, \
                       created_ms, started_ms, ended_ms, fenced_by, failures, not_before_ms, hops, \
                       length(payload), version, alias, labels";

pub(crate) fn accept(db: &Connection, invocation: &NewInvocation) -> Result<(), StoreError> {
    let FunctionKey { project, package, name, version } = invocation.function.as_ref();
    let mut insert = db
        .prepare_cached(
            "INSERT INTO invocations (request, project, package, name, parent, payload, status, created_ms, hops,
                                      version, alias, labels)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )
        .map_err(unwritable)?;
    let values = params![
        blob(invocation.request.0),
        project,
        package,
        name,
        invocation.parent.map(|parent| blob(parent.0)),
        invocation.payload.as_ref(),
        number(Status::Wait),
        invocation.created_ms,
        invocation.hops,
        version,
        invocation.alias.as_deref(),
        invocation.labels.text()
    ];
    insert.execute(values).map(drop).map_err(uninsertable)
}

pub(crate) fn mark_running(
    db: &Connection,
    request: RequestId,
    attempts: u32,
    started_ms: i64,
) -> Result<(), StoreError> {
    // Fenced or not: if it was handed over before the fence fell, it ran, and its end must say so.
    let mark = "UPDATE invocations SET status = 1, attempts = ?2, started_ms = ?3
                WHERE request = ?1 AND status IN (0, 1)";
    execute(db, mark, params![blob(request.0), attempts, started_ms]).map(drop)
}

pub(crate) fn mark_waiting(
    db: &Connection,
    request: RequestId,
    failures: u32,
    not_before_ms: i64,
) -> Result<(), StoreError> {
    let mark = "UPDATE invocations SET status = 0, failures = ?2, not_before_ms = ?3
                WHERE request = ?1 AND status IN (0, 1)";
    execute(db, mark, params![blob(request.0), failures, not_before_ms]).map(drop)
}

/// Whether it was not final before. What its result goes to is accepted with it.
pub(crate) fn settle(db: &Connection, settlement: &Settlement) -> Result<bool, StoreError> {
    if matches!(settlement.status, Status::Wait | Status::Running) {
        let why = format!("{:?} is no final status", settlement.status);
        return Err(StoreError::Unwritable(why));
    }
    let settle = "UPDATE invocations SET status = ?2, error_code = ?3, error_message = ?4, ended_ms = ?5
                  WHERE request = ?1 AND status IN (0, 1)";
    let values = params![
        blob(settlement.request.0),
        number(settlement.status),
        settlement.error_code,
        settlement.error_message,
        settlement.ended_ms
    ];
    if execute(db, settle, values)? == 0 {
        return Ok(false);
    }
    if let Some(next) = &settlement.next {
        accept(db, next)?;
    }
    Ok(true)
}

pub(crate) fn one(db: &Connection, request: RequestId) -> rusqlite::Result<Option<InvocationRecord>> {
    let select = format!("SELECT {COLUMNS}, payload FROM invocations WHERE request = ?1");
    let whole =
        |row: &Row<'_>| Ok(InvocationRecord { payload: row.get::<_, Vec<u8>>(20)?.into(), ..read(row)? });
    db.prepare_cached(&select)?.query_row([blob(request.0)], whole).optional()
}

pub(crate) fn unsettled(
    db: &Connection,
    after: Option<RequestId>,
    limit: u32,
) -> rusqlite::Result<Vec<InvocationRecord>> {
    // A new row's number is above that of every row there is, so it is the order of acceptance.
    let select = format!(
        "SELECT {COLUMNS} FROM invocations INDEXED BY invocations_unsettled
         WHERE status IN (0, 1)
           AND seq > COALESCE((SELECT seq FROM invocations WHERE request = ?1), 0)
         ORDER BY seq LIMIT ?2"
    );
    let after = after.map(|after| blob(after.0));
    db.prepare_cached(&select)?.query_map(params![after, limit], read)?.collect()
}

/// Whole requests after this row number, in the order of their acceptance.
pub(crate) fn after(db: &Connection, seq: i64, limit: u32) -> rusqlite::Result<Vec<(i64, InvocationRecord)>> {
    let select =
        format!("SELECT {COLUMNS}, payload, seq FROM invocations WHERE seq > ?1 ORDER BY seq LIMIT ?2");
    let whole = |row: &Row<'_>| {
        let payload = row.get::<_, Vec<u8>>(20)?.into();
        Ok((row.get(21)?, InvocationRecord { payload, ..read(row)? }))
    };
    db.prepare_cached(&select)?.query_map(params![seq, limit], whole)?.collect()
}

pub(crate) fn page(db: &Connection, query: &InvocationQuery) -> rusqlite::Result<InvocationPage> {
    let FunctionFilter { project, package, name, versions } = &query.function;
    let status = query.status.map(number);
    // The ids go as one value: however many there are, the statement stays the same.
    let ids: Vec<String> = query.requests.iter().map(|id| format!("\"{:032x}\"", id.0)).collect();
    let ids = format!("[{}]", ids.join(","));
    // The plus keeps SQLite from walking the function's rows where it can look up the ids instead.
    let (plus, among) = if query.requests.is_empty() {
        ("", "?7 = '[]'")
    } else {
        ("+", "request IN (SELECT unhex(value) FROM json_each(?7))")
    };
    let of_version =
        if versions.is_empty() { "?8 = '[]'" } else { "version IN (SELECT value FROM json_each(?8))" };
    let versions = json_array(versions);
    let open = if query.unsettled { "AND status IN (0, 1)" } else { "" };
    // No wanted label that the row has not, with the same value.
    let labelled = if query.labels.is_empty() {
        "?9 IS NULL"
    } else {
        "NOT EXISTS (SELECT 1 FROM json_each(?9) AS wanted WHERE NOT EXISTS (
             SELECT 1 FROM json_each(labels) AS mine WHERE mine.key = wanted.key AND mine.value = wanted.value))"
    };
    let labels = query.labels.text();
    let terms = format!(
        "FROM invocations WHERE {plus}project = ?1 AND package = ?2 AND name = ?3
         AND created_ms BETWEEN ?4 AND ?5 AND (?6 IS NULL OR status = ?6) {open} AND {among} AND {of_version} AND {labelled}"
    );
    let (from, until) = (query.from_ms, query.until_ms);
    let (limit, offset) = (query.limit, clamped(query.offset));
    // One look: rows and total are of the same moment.
    let look = db.unchecked_transaction()?;
    let total: i64 = look
        .prepare_cached(&format!("SELECT count(*) {terms}"))?
        .query_row(params![project, package, name, from, until, status, ids, versions, labels], |row| {
            row.get(0)
        })?;
    let select = format!("SELECT {COLUMNS} {terms} ORDER BY created_ms DESC, seq DESC LIMIT ?10 OFFSET ?11");
    let values = params![project, package, name, from, until, status, ids, versions, labels, limit, offset];
    let rows = look.prepare_cached(&select)?.query_map(values, read)?.collect::<Result<_, _>>()?;
    Ok(InvocationPage { rows, total: total.cast_unsigned() })
}

pub(crate) fn prune(db: &Connection, before_ms: i64, limit: u32) -> Result<u64, StoreError> {
    let prune = "DELETE FROM invocations WHERE seq IN (
                     SELECT seq FROM invocations WHERE ended_ms IS NOT NULL AND ended_ms < ?1
                     ORDER BY ended_ms, seq LIMIT ?2)";
    db.execute(prune, params![before_ms, limit]).map(|rows| rows as u64).map_err(unwritable)
}

/// Notes who fenced a request, unless it is final or somebody did before.
pub(crate) fn fence(db: &Connection, request: RequestId, cancel: CancelId) -> Result<(), StoreError> {
    let fence = "UPDATE invocations SET fenced_by = ?2
                 WHERE request = ?1 AND fenced_by IS NULL AND status IN (0, 1)";
    execute(db, fence, params![blob(request.0), blob(cancel.0)]).map(drop)
}

fn execute(db: &Connection, statement: &str, values: &[&dyn ToSql]) -> Result<usize, StoreError> {
    let mut statement = db.prepare_cached(statement).map_err(unwritable)?;
    statement.execute(values).map_err(unwritable)
}

fn read(row: &Row<'_>) -> rusqlite::Result<InvocationRecord> {
    Ok(InvocationRecord {
        request: RequestId(u128::from_be_bytes(row.get(0)?)),
        function: FunctionKey {
            project: row.get(1)?,
            package: row.get(2)?,
            name: row.get(3)?,
            version: row.get(17)?,
        },
        alias: row.get(18)?,
        labels: Labels::read(row.get::<_, Option<String>>(19)?.as_deref()),
        parent: row.get::<_, Option<[u8; 16]>>(4)?.map(|id| RequestId(u128::from_be_bytes(id))),
        payload: Bytes::new(),
        status: status(row.get(5)?)?,
        error_code: row.get(6)?,
        error_message: row.get(7)?,
        attempts: row.get(8)?,
        created_ms: row.get(9)?,
        started_ms: row.get(10)?,
        ended_ms: row.get(11)?,
        fenced_by: row.get::<_, Option<[u8; 16]>>(12)?.map(|id| CancelId(u128::from_be_bytes(id))),
        failures: row.get(13)?,
        not_before_ms: row.get(14)?,
        hops: row.get(15)?,
        payload_len: row.get::<_, i64>(16)?.cast_unsigned(),
        root: None,
    })
}

/// Texts as one value: however many there are, the statement stays the same.
pub(crate) fn json_array(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

pub(crate) fn blob(id: u128) -> [u8; 16] {
    id.to_be_bytes()
}

/// SQLite's integers are signed; no table has as many rows as one can count to.
pub(crate) fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The number of a status in the table; part of the format.
fn number(status: Status) -> i64 {
    match status {
        Status::Wait => 0,
        Status::Running => 1,
        Status::Success => 2,
        Status::Fail => 3,
        Status::Discard => 4,
    }
}

fn status(number: i64) -> rusqlite::Result<Status> {
    Ok(match number {
        0 => Status::Wait,
        1 => Status::Running,
        2 => Status::Success,
        3 => Status::Fail,
        4 => Status::Discard,
        other => return Err(FromSqlError::OutOfRange(other).into()),
    })
}
