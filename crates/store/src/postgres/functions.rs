//! Functions in their versions, their code packages, and what is said of them.

use bytes::Bytes;
use tokio_postgres::Row;

use super::{
    connection::{Db, execute, row, rows},
    fault::Fault,
    invocations::kept,
};
use crate::{
    AliasRecord, AsyncConfigRecord, FunctionFilter, FunctionKey, FunctionRecord, LATEST, NodeLabels, Share,
    StoreError,
};

const COLUMNS: &str =
    "project, package, name, version, revision, config, code_digest, code_size, created_ms, modified_ms";
const ALIAS: &str = "project, package, name, version, alias, additional_version, additional_percent, \
                     description, created_ms, modified_ms";
const CONFIG: &str = "project, package, name, version, body, created_ms, modified_ms";
/// One version of one function.
const ONE: &str = "project = $1 AND package = $2 AND name = $3 AND version = $4";
/// All versions of one function.
const WHOLE: &str = "project = $1 AND package = $2 AND name = $3";

/// Counts a change of this kind, and tells the nodes. Called before anything else of a change: they all take this one
/// row first, so that they cannot wait for each other over the others.
pub(crate) async fn changes(db: &Db, kind: &'static str) -> Result<(), Fault> {
    let count =
        "INSERT INTO changes (name, n) VALUES ($1, 1) ON CONFLICT (name) DO UPDATE SET n = changes.n + 1";
    execute(db, count, &[&kind]).await?;
    row(db, "SELECT pg_notify('quell_' || $1::text, '')", &[&kind]).await.map(drop)
}

/// While a large package crosses a slow wire the server hears nothing that is whole.
async fn may_be_long_on_its_way(db: &Db) -> Result<(), Fault> {
    db.batch_execute("SET LOCAL idle_in_transaction_session_timeout = '60s'").await?;
    Ok(())
}

pub(crate) async fn create(db: &Db, record: &FunctionRecord, code: &[u8]) -> Result<(), Fault> {
    may_be_long_on_its_way(db).await?;
    changes(db, "functions").await?;
    keep_code(db, &record.code_digest, code).await?;
    insert(db, record).await
}

/// False if the function is not there. What `latest` says of its asynchronous requests is copied too.
pub(crate) async fn publish(db: &Db, record: &FunctionRecord) -> Result<bool, Fault> {
    changes(db, "functions").await?;
    let FunctionKey { project, package, name, version } = &record.key;
    if one(db, &record.key.at(LATEST)).await?.is_none() {
        return Ok(false);
    }
    insert(db, record).await?;
    let copy = format!(
        "INSERT INTO async_configs ({CONFIG})
         SELECT project, package, name, $5::text, body, $6::bigint, $6 FROM async_configs WHERE {ONE}"
    );
    execute(db, &copy, &[project, package, name, &LATEST, version, &record.created_ms]).await?;
    Ok(true)
}

async fn insert(db: &Db, record: &FunctionRecord) -> Result<(), Fault> {
    let insert = format!(
        "INSERT INTO functions ({COLUMNS}, node_labels)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING"
    );
    let FunctionKey { project, package, name, version } = &record.key;
    let (revision, size) = (record.revision.cast_signed(), record.code_size.cast_signed());
    let config = kept(&record.config);
    let inserted = execute(
        db,
        &insert,
        &[
            project,
            package,
            name,
            version,
            &revision,
            &config,
            &record.code_digest,
            &size,
            &record.created_ms,
            &record.modified_ms,
            &NodeLabels::asked_by(&record.config).to_vec(),
        ],
    )
    .await?;
    if inserted == 0 { Err(StoreError::Exists.into()) } else { Ok(()) }
}

pub(crate) async fn update(db: &Db, record: &FunctionRecord, code: Option<&[u8]>) -> Result<bool, Fault> {
    may_be_long_on_its_way(db).await?;
    changes(db, "functions").await?;
    let Some(before) = one(db, &record.key).await? else { return Ok(false) };
    if let Some(code) = code {
        keep_code(db, &record.code_digest, code).await?;
    }
    let update = format!(
        "UPDATE functions
         SET revision = $5, config = $6, code_digest = $7, code_size = $8, modified_ms = $9, node_labels = $10
         WHERE {ONE}"
    );
    let FunctionKey { project, package, name, version } = &record.key;
    let (revision, size) = (record.revision.cast_signed(), record.code_size.cast_signed());
    let (config, digest) = (kept(&record.config), &record.code_digest);
    let (modified, labels) = (&record.modified_ms, NodeLabels::asked_by(&record.config).to_vec());
    let values: super::connection::Params<'_> =
        &[project, package, name, version, &revision, &config, digest, &size, modified, &labels];
    execute(db, &update, values).await?;
    drop_unused(db, &[before.code_digest]).await?;
    Ok(true)
}

/// Deletes all versions, and what is said of them.
pub(crate) async fn delete(db: &Db, key: &FunctionKey) -> Result<bool, Fault> {
    changes(db, "functions").await?;
    let FunctionKey { project, package, name, .. } = key;
    let delete = format!("DELETE FROM functions WHERE {WHOLE} RETURNING code_digest");
    let codes = rows(db, &delete, &[project, package, name]).await?;
    for table in ["async_configs", "aliases"] {
        execute(db, &format!("DELETE FROM {table} WHERE {WHOLE}"), &[project, package, name]).await?;
    }
    let codes: Vec<String> = codes.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    drop_unused(db, &codes).await?;
    Ok(!codes.is_empty())
}

pub(crate) async fn delete_version(db: &Db, key: &FunctionKey) -> Result<bool, Fault> {
    changes(db, "functions").await?;
    let FunctionKey { project, package, name, version } = key;
    let delete = format!("DELETE FROM functions WHERE {ONE} RETURNING code_digest");
    let Some(code) = row(db, &delete, &[project, package, name, version]).await? else { return Ok(false) };
    let configs = format!("DELETE FROM async_configs WHERE {ONE}");
    execute(db, &configs, &[project, package, name, version]).await?;
    drop_unused(db, &[code.try_get(0)?]).await?;
    Ok(true)
}

pub(crate) async fn one(db: &Db, key: &FunctionKey) -> Result<Option<FunctionRecord>, Fault> {
    let select = format!("SELECT {COLUMNS} FROM functions WHERE {ONE}");
    let FunctionKey { project, package, name, version } = key;
    row(db, &select, &[project, package, name, version]).await?.as_ref().map(read).transpose()
}

pub(crate) async fn all(db: &Db, project: Option<&str>) -> Result<Vec<FunctionRecord>, Fault> {
    let select = format!(
        "SELECT {COLUMNS} FROM functions WHERE $1::text IS NULL OR project = $1
         ORDER BY project, package, name, version"
    );
    rows(db, &select, &[&project]).await?.iter().map(read).collect()
}

/// Newest first, and `latest` before them. By revision: a clock may be set back.
pub(crate) async fn versions(db: &Db, key: &FunctionKey) -> Result<Vec<FunctionRecord>, Fault> {
    let select = format!(
        "SELECT {COLUMNS} FROM functions WHERE {WHOLE} ORDER BY version <> '{LATEST}', revision DESC"
    );
    rows(db, &select, &[&key.project, &key.package, &key.name]).await?.iter().map(read).collect()
}

pub(crate) async fn code(db: &Db, digest: &str) -> Result<Option<Bytes>, Fault> {
    let found = row(db, "SELECT bytes FROM code WHERE digest = $1", &[&digest]).await?;
    Ok(found.map(|row| row.try_get::<_, Vec<u8>>(0)).transpose()?.map(Bytes::from))
}

async fn keep_code(db: &Db, digest: &str, code: &[u8]) -> Result<(), Fault> {
    let insert = "INSERT INTO code (digest, bytes) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING";
    execute(db, insert, &[&digest, &code]).await.map(drop)
}

async fn drop_unused(db: &Db, digests: &[String]) -> Result<(), Fault> {
    let unused = "DELETE FROM code c WHERE c.digest = ANY($1)
                  AND NOT EXISTS (SELECT 1 FROM functions f WHERE f.code_digest = c.digest)";
    execute(db, unused, &[&digests]).await.map(drop)
}

fn key(row: &Row) -> Result<FunctionKey, Fault> {
    Ok(FunctionKey {
        project: row.try_get(0)?,
        package: row.try_get(1)?,
        name: row.try_get(2)?,
        version: row.try_get(3)?,
    })
}

fn read(row: &Row) -> Result<FunctionRecord, Fault> {
    Ok(FunctionRecord {
        key: key(row)?,
        revision: row.try_get::<_, i64>(4)?.cast_unsigned(),
        config: row.try_get(5)?,
        code_digest: row.try_get(6)?,
        code_size: row.try_get::<_, i64>(7)?.cast_unsigned(),
        created_ms: row.try_get(8)?,
        modified_ms: row.try_get(9)?,
    })
}

/// Makes an alias, or replaces what it says. False, and nothing is done, if a version it names is not there.
pub(crate) async fn put_alias(db: &Db, alias: &AliasRecord) -> Result<bool, Fault> {
    changes(db, "functions").await?;
    let upsert = format!(
        "INSERT INTO aliases ({ALIAS})
         SELECT $1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::int2, $8::text, $9::bigint, $10::bigint
         WHERE (SELECT count(*) FROM functions
                WHERE project = $1 AND package = $2 AND name = $3 AND version IN ($4, $6::text))
             = CASE WHEN $6::text IS NULL THEN 1 ELSE 2 END
         ON CONFLICT (project, package, name, alias)
         DO UPDATE SET version = excluded.version, additional_version = excluded.additional_version,
                       additional_percent = excluded.additional_percent,
                       description = excluded.description, modified_ms = excluded.modified_ms"
    );
    let FunctionKey { project, package, name, version } = &alias.function;
    let share = alias.additional.as_ref();
    let (additional, percent) = share.map(|share| (&share.version, i16::from(share.percent))).unzip();
    let (description, created_ms) = (kept(&alias.description), &alias.created_ms);
    let put = execute(
        db,
        &upsert,
        &[
            project,
            package,
            name,
            version,
            &alias.name,
            &additional,
            &percent,
            &description,
            created_ms,
            &alias.modified_ms,
        ],
    )
    .await?;
    Ok(put > 0)
}

pub(crate) async fn aliases(db: &Db) -> Result<Vec<AliasRecord>, Fault> {
    let select = format!("SELECT {ALIAS} FROM aliases ORDER BY project, package, name, alias");
    let read = |row: &Row| {
        let (version, percent): (Option<String>, Option<i16>) = (row.try_get(5)?, row.try_get(6)?);
        let percent = percent.and_then(|percent| u8::try_from(percent).ok());
        Ok(AliasRecord {
            function: key(row)?,
            name: row.try_get(4)?,
            additional: version.zip(percent).map(|(version, percent)| Share { version, percent }),
            description: row.try_get(7)?,
            created_ms: row.try_get(8)?,
            modified_ms: row.try_get(9)?,
        })
    };
    rows(db, &select, &[]).await?.iter().map(read).collect()
}

pub(crate) async fn delete_alias(db: &Db, key: &FunctionKey, alias: &str) -> Result<bool, Fault> {
    changes(db, "functions").await?;
    let delete = format!("DELETE FROM aliases WHERE {WHOLE} AND alias = $4");
    Ok(execute(db, &delete, &[&key.project, &key.package, &key.name, &alias]).await? > 0)
}

pub(crate) async fn put_config(db: &Db, key: &FunctionKey, body: &str, now_ms: i64) -> Result<bool, Fault> {
    changes(db, "functions").await?;
    let upsert = format!(
        "INSERT INTO async_configs ({CONFIG})
         SELECT $1::text, $2::text, $3::text, $4::text, $5::text, $6::bigint, $6
         WHERE EXISTS (SELECT 1 FROM functions WHERE {ONE})
         ON CONFLICT (project, package, name, version)
         DO UPDATE SET body = excluded.body, modified_ms = excluded.modified_ms"
    );
    let FunctionKey { project, package, name, version } = key;
    Ok(execute(db, &upsert, &[project, package, name, version, &kept(body), &now_ms]).await? > 0)
}

pub(crate) async fn config(db: &Db, key: &FunctionKey) -> Result<Option<AsyncConfigRecord>, Fault> {
    let select = format!("SELECT {CONFIG} FROM async_configs WHERE {ONE}");
    let FunctionKey { project, package, name, version } = key;
    row(db, &select, &[project, package, name, version]).await?.as_ref().map(read_config).transpose()
}

pub(crate) async fn configs(db: &Db, of: &FunctionFilter) -> Result<Vec<AsyncConfigRecord>, Fault> {
    let select = format!("SELECT {CONFIG} FROM async_configs WHERE {WHOLE} ORDER BY version");
    let found = rows(db, &select, &[&of.project, &of.package, &of.name]).await?;
    let mut found = found.iter().map(read_config).collect::<Result<Vec<_>, _>>()?;
    found.retain(|config| of.fits(&config.key));
    Ok(found)
}

pub(crate) async fn delete_config(db: &Db, key: &FunctionKey) -> Result<bool, Fault> {
    changes(db, "functions").await?;
    let FunctionKey { project, package, name, version } = key;
    let delete = format!("DELETE FROM async_configs WHERE {ONE}");
    Ok(execute(db, &delete, &[project, package, name, version]).await? > 0)
}

fn read_config(row: &Row) -> Result<AsyncConfigRecord, Fault> {
    Ok(AsyncConfigRecord {
        key: key(row)?,
        body: row.try_get(4)?,
        created_ms: row.try_get(5)?,
        modified_ms: row.try_get(6)?,
    })
}
