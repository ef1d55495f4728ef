//! The tables, and how several nodes that start at once bring them up to date.
//!
//! A step raises the version by one. It also says which is the oldest program (by the version it knows) that still
//! works with the tables after it: that is how nodes of two versions, one apart, run beside each other while they are
//! exchanged one by one. A step that such a program could not work with says its own number.

use super::connection::{Db, row};
use crate::{StoreError, postgres::fault::Fault};

/// One step.
struct Step {
    tables: &'static str,
    /// The lowest version a program must know to work with the tables after this step.
    oldest_program: i32,
}

/// What takes a database from version n, its place here, to n + 1. Never edit one that was released.
const STEPS: [Step; 3] = [
    Step { tables: TABLES, oldest_program: 1 },
    Step { tables: PLACES, oldest_program: 1 },
    Step { tables: PLACEMENT, oldest_program: 1 },
];
/// The newest version this program knows.
const KNOWN: i32 = STEPS.len() as i32;
/// The lock under which the tables are changed, and under which a store is copied in.
pub(crate) const LOCK: i64 = 0x5175_656c_6c00; // "Quell"

/// Keys are compared by bytes whatever the database's language is: the order of lists is part of what is promised.
/// The narrow tables that each group writes leave room in their pages, so that a change needs no new index entry.
const TABLES: &str = r#"
CREATE TABLE nodes (
    node TEXT COLLATE "C" PRIMARY KEY, epoch BIGINT NOT NULL, state SMALLINT NOT NULL,
    endpoint TEXT NOT NULL, version TEXT NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL, lease_ms BIGINT NOT NULL, joined_ms BIGINT NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE groups (node TEXT COLLATE "C" PRIMARY KEY, number BIGINT NOT NULL) WITH (fillfactor = 20);
CREATE TABLE changes (name TEXT COLLATE "C" PRIMARY KEY, n BIGINT NOT NULL) WITH (fillfactor = 50);

CREATE TABLE functions (
    project TEXT COLLATE "C" NOT NULL, package TEXT COLLATE "C" NOT NULL, name TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL, revision BIGINT NOT NULL, config TEXT NOT NULL,
    code_digest TEXT COLLATE "C" NOT NULL, code_size BIGINT NOT NULL,
    created_ms BIGINT NOT NULL, modified_ms BIGINT NOT NULL,
    PRIMARY KEY (project, package, name, version)
);
CREATE INDEX functions_by_code ON functions (code_digest);
CREATE TABLE code (digest TEXT COLLATE "C" PRIMARY KEY, bytes BYTEA NOT NULL);
CREATE TABLE aliases (
    project TEXT COLLATE "C" NOT NULL, package TEXT COLLATE "C" NOT NULL, name TEXT COLLATE "C" NOT NULL,
    alias TEXT COLLATE "C" NOT NULL, version TEXT COLLATE "C" NOT NULL,
    additional_version TEXT, additional_percent SMALLINT, description TEXT NOT NULL,
    created_ms BIGINT NOT NULL, modified_ms BIGINT NOT NULL,
    PRIMARY KEY (project, package, name, alias)
);
CREATE TABLE async_configs (
    project TEXT COLLATE "C" NOT NULL, package TEXT COLLATE "C" NOT NULL, name TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, created_ms BIGINT NOT NULL, modified_ms BIGINT NOT NULL,
    PRIMARY KEY (project, package, name, version)
);

CREATE TABLE invocations (
    seq BIGSERIAL PRIMARY KEY, request UUID NOT NULL UNIQUE,
    project TEXT COLLATE "C" NOT NULL, package TEXT COLLATE "C" NOT NULL, name TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL, alias TEXT, parent UUID, root UUID, owner TEXT COLLATE "C",
    payload BYTEA NOT NULL, labels JSONB,
    status SMALLINT NOT NULL, error_code INTEGER NOT NULL DEFAULT 0, error_message TEXT NOT NULL DEFAULT '',
    attempts BIGINT NOT NULL DEFAULT 0, failures BIGINT NOT NULL DEFAULT 0, not_before_ms BIGINT NOT NULL DEFAULT 0,
    hops BIGINT NOT NULL, created_ms BIGINT NOT NULL, started_ms BIGINT, ended_ms BIGINT, fenced_by UUID,
    fenced_here BOOLEAN NOT NULL DEFAULT false,
    tail BOOLEAN NOT NULL DEFAULT false
) WITH (fillfactor = 85);
CREATE INDEX invocations_by_function ON invocations (project, package, name, created_ms, seq);
CREATE INDEX invocations_owned ON invocations (owner, seq) WHERE status IN (0, 1);
CREATE INDEX invocations_free ON invocations (project, package, name, version, seq)
    WHERE owner IS NULL AND status = 0;
CREATE INDEX invocations_by_end ON invocations (ended_ms, seq) WHERE ended_ms IS NOT NULL;
CREATE TABLE above (request UUID NOT NULL, above UUID NOT NULL, PRIMARY KEY (request, above));
CREATE INDEX above_by_above ON above (above, request);

CREATE TABLE receipts (
    seq BIGSERIAL PRIMARY KEY, cancel UUID NOT NULL UNIQUE, target UUID NOT NULL,
    project TEXT COLLATE "C" NOT NULL, package TEXT COLLATE "C" NOT NULL, name TEXT COLLATE "C" NOT NULL,
    version TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, created_ms BIGINT NOT NULL,
    open BOOLEAN NOT NULL, node TEXT COLLATE "C" NOT NULL
);
CREATE INDEX receipts_open ON receipts (node, seq) WHERE open;
CREATE INDEX receipts_by_function ON receipts (project, package, name, created_ms, seq);
CREATE INDEX receipts_by_project ON receipts (project, created_ms, seq);
CREATE INDEX receipts_by_time ON receipts (created_ms, seq);
CREATE TABLE fences (
    seq BIGSERIAL PRIMARY KEY, request UUID NOT NULL, cancel UUID NOT NULL, subtree BOOLEAN NOT NULL,
    UNIQUE (request, cancel)
);
CREATE INDEX fences_by_cancel ON fences (cancel);
CREATE TABLE parts (
    part BIGSERIAL PRIMARY KEY, cancel UUID NOT NULL, node TEXT COLLATE "C" NOT NULL, epoch BIGINT NOT NULL,
    request UUID NOT NULL, asker TEXT COLLATE "C" NOT NULL, asker_project TEXT NOT NULL,
    project TEXT, package TEXT, name TEXT, version TEXT,
    scope SMALLINT NOT NULL, level SMALLINT NOT NULL, actor TEXT NOT NULL,
    state SMALLINT NOT NULL, detail TEXT NOT NULL DEFAULT '', made_ms BIGINT NOT NULL
);
CREATE INDEX parts_open ON parts (node, part) WHERE state = 0;
CREATE INDEX parts_by_cancel ON parts (cancel);
CREATE INDEX parts_by_request ON parts (request) WHERE state = 0;
CREATE INDEX parts_by_time ON parts (made_ms);
CREATE TABLE waits (
    cancel UUID NOT NULL, part BIGINT NOT NULL REFERENCES parts ON DELETE CASCADE, PRIMARY KEY (cancel, part)
);
CREATE INDEX waits_by_part ON waits (part);

CREATE TABLE bulks (
    seq BIGSERIAL PRIMARY KEY, project TEXT COLLATE "C" NOT NULL, key TEXT COLLATE "C" NOT NULL,
    body TEXT NOT NULL, requests TEXT, node TEXT COLLATE "C" NOT NULL, UNIQUE (project, key)
);
CREATE TABLE credentials (
    key_id TEXT COLLATE "C" PRIMARY KEY, secret_hash BYTEA NOT NULL, project TEXT COLLATE "C" NOT NULL,
    note TEXT NOT NULL, created_ms BIGINT NOT NULL, scopes SMALLINT NOT NULL, login TEXT COLLATE "C" UNIQUE,
    password TEXT, expires_ms BIGINT, generation BIGINT NOT NULL
);
CREATE TABLE facts (name TEXT COLLATE "C" PRIMARY KEY, value TEXT NOT NULL);
"#;

/// Where the data folder of each node is: a copy of it is another place. Empty: a program joined that does not say.
const PLACES: &str = "ALTER TABLE nodes ADD COLUMN place TEXT NOT NULL DEFAULT '';";

/// Labels of nodes, those that functions ask for, and bulk cancels that are called off on a node which has not begun them. A program
/// of the version before names its columns: a node of it has no labels, and claims whatever function it is of.
const PLACEMENT: &str = r#"
ALTER TABLE nodes ADD COLUMN labels TEXT[] NOT NULL DEFAULT '{}';
ALTER TABLE functions ADD COLUMN node_labels TEXT[] NOT NULL DEFAULT '{}';
ALTER TABLE bulks ADD COLUMN called_off BOOLEAN NOT NULL DEFAULT false;
CREATE INDEX bulks_called_off ON bulks (node) WHERE called_off;
CREATE INDEX bulks_running ON bulks (node) WHERE requests IS NOT NULL;
"#;

/// Brings the tables up to date. Whoever is first does it; the others wait for its lock and find it done.
pub(crate) async fn migrate(db: &Db) -> Result<(), Fault> {
    db.batch_execute("BEGIN").await?;
    let done = migrate_within(db).await;
    db.batch_execute(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    done
}

async fn migrate_within(db: &Db) -> Result<(), Fault> {
    // A large step, here or on the node that holds the lock, may take its time.
    db.batch_execute("SET LOCAL statement_timeout = 0").await?;
    db.execute("SELECT pg_advisory_xact_lock($1::bigint)", &[&LOCK]).await?;
    let here = db.query_one("SELECT to_regclass('quell_schema') IS NOT NULL", &[]).await?.try_get(0)?;
    let version = if here { known(db).await? } else { first(db).await? };
    for (number, step) in (1..=KNOWN).zip(&STEPS).skip(usize::try_from(version).unwrap_or_default()) {
        db.batch_execute(step.tables).await?;
        let update = "UPDATE quell_schema SET version = $1, oldest_program = $2";
        db.execute(update, &[&number, &step.oldest_program]).await?;
    }
    Ok(())
}

/// The version that is there, if this program works with it.
async fn known(db: &Db) -> Result<i32, Fault> {
    let found = row(db, "SELECT version, oldest_program FROM quell_schema", &[]).await?;
    let Some(found) = found else {
        return Err(StoreError::Unopenable("its table quell_schema is empty".into()).into());
    };
    let (version, oldest): (i32, i32) = (found.try_get(0)?, found.try_get(1)?);
    if oldest > KNOWN {
        let why = format!(
            "the database has version {version}, for programs that know {oldest} at least; this one knows {KNOWN}: \
             use the newer program"
        );
        return Err(StoreError::Unopenable(why).into());
    }
    Ok(version)
}

/// Marks an empty database as ours.
async fn first(db: &Db) -> Result<i32, Fault> {
    let foreign = db
        .query_one(
            "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')",
            &[],
        )
        .await?;
    if foreign.try_get::<_, i64>(0)? > 0 {
        let why =
            "the database has tables that are not quell's: give it one of its own, or a schema (search_path)";
        return Err(StoreError::Unopenable(why.into()).into());
    }
    db.batch_execute(
        "CREATE TABLE quell_schema (version INTEGER NOT NULL, oldest_program INTEGER NOT NULL);
         INSERT INTO quell_schema VALUES (0, 0)",
    )
    .await?;
    Ok(0)
}
