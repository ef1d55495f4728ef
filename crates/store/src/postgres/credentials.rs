//! Credentials and facts, and what a node remembers of credentials for a moment.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio_postgres::Row;

use super::{
    connection::{Db, execute, row, rows},
    fault::Fault,
    functions::changes,
    invocations::kept,
};
use crate::{CredentialRecord, StoreError};

const COLUMNS: &str =
    "key_id, secret_hash, project, note, created_ms, scopes, login, password, expires_ms, generation";

/// Adds a credential or replaces the one of its key. A login that another one has is refused.
pub(crate) async fn put(db: &Db, credential: &CredentialRecord) -> Result<(), Fault> {
    changes(db, "credentials").await?;
    let CredentialRecord { key_id, login, .. } = credential;
    let taken = "SELECT 1 FROM credentials WHERE login = $1 AND key_id <> $2";
    if row(db, taken, &[login, key_id]).await?.is_some() {
        return Err(StoreError::Exists.into());
    }
    let upsert = format!(
        "INSERT INTO credentials ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (key_id) DO UPDATE SET secret_hash = excluded.secret_hash, project = excluded.project,
             note = excluded.note, created_ms = excluded.created_ms, scopes = excluded.scopes,
             login = excluded.login, password = excluded.password, expires_ms = excluded.expires_ms,
             generation = excluded.generation"
    );
    let hash: &[u8] = &credential.secret_hash;
    let (scopes, generation) = (i16::from(credential.scopes), i64::from(credential.generation));
    let note = kept(&credential.note);
    execute(
        db,
        &upsert,
        &[
            key_id,
            &hash,
            &credential.project,
            &note,
            &credential.created_ms,
            &scopes,
            login,
            &credential.password,
            &credential.expires_ms,
            &generation,
        ],
    )
    .await
    .map(drop)
}

/// False if there was none.
pub(crate) async fn delete(db: &Db, key_id: &str) -> Result<bool, Fault> {
    changes(db, "credentials").await?;
    Ok(execute(db, "DELETE FROM credentials WHERE key_id = $1", &[&key_id]).await? > 0)
}

pub(crate) async fn one(db: &Db, key_id: &str) -> Result<Option<CredentialRecord>, Fault> {
    let select = format!("SELECT {COLUMNS} FROM credentials WHERE key_id = $1");
    row(db, &select, &[&key_id]).await?.as_ref().map(read).transpose()
}

pub(crate) async fn of_login(db: &Db, login: &str) -> Result<Option<CredentialRecord>, Fault> {
    let select = format!("SELECT {COLUMNS} FROM credentials WHERE login = $1");
    row(db, &select, &[&login]).await?.as_ref().map(read).transpose()
}

pub(crate) async fn all(db: &Db, project: Option<&str>) -> Result<Vec<CredentialRecord>, Fault> {
    let select = format!(
        "SELECT {COLUMNS} FROM credentials WHERE $1::text IS NULL OR project = $1 ORDER BY created_ms, key_id"
    );
    rows(db, &select, &[&project]).await?.iter().map(read).collect()
}

pub(crate) async fn fact(db: &Db, name: &str) -> Result<Option<String>, Fault> {
    let found = row(db, "SELECT value FROM facts WHERE name = $1", &[&name]).await?;
    Ok(found.map(|row| row.try_get(0)).transpose()?)
}

pub(crate) async fn keep_fact(db: &Db, name: &str, value: &str) -> Result<String, Fault> {
    // Of several at once, each in a transaction of its own, the first one's stands: the others wait for it.
    let insert = "INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    execute(db, insert, &[&name, &kept(value)]).await?;
    let held = row(db, "SELECT value FROM facts WHERE name = $1", &[&name]).await?;
    held.map(|row| Ok(row.try_get(0)?)).unwrap_or_else(|| Ok(value.to_owned()))
}

pub(crate) async fn put_fact(db: &Db, name: &str, value: &str) -> Result<(), Fault> {
    let upsert = "INSERT INTO facts (name, value) VALUES ($1, $2)
                  ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    execute(db, upsert, &[&name, &kept(value)]).await.map(drop)
}

fn read(row: &Row) -> Result<CredentialRecord, Fault> {
    let hash: &[u8] = row.try_get(1)?;
    let unreadable = |what: &str| StoreError::Unreadable(format!("a credential's {what} is out of range"));
    Ok(CredentialRecord {
        key_id: row.try_get(0)?,
        secret_hash: hash.try_into().map_err(|_| unreadable("hash"))?,
        project: row.try_get(2)?,
        note: row.try_get(3)?,
        created_ms: row.try_get(4)?,
        scopes: u8::try_from(row.try_get::<_, i16>(5)?).map_err(|_| unreadable("scope"))?,
        login: row.try_get(6)?,
        password: row.try_get(7)?,
        expires_ms: row.try_get(8)?,
        generation: u32::try_from(row.try_get::<_, i64>(9)?).map_err(|_| unreadable("generation"))?,
    })
}

/// So long a credential that was looked up is believed. A node that misses a notification (its connection for them is
/// down) may let in what was revoked on another node for so long, and no longer.
const BELIEVED: Duration = Duration::from_secs(1);
/// Keys remembered, those that there are not too: whoever guesses keys fills this, and it is emptied.
const REMEMBERED: usize = 4_096;

/// Credentials by their keys, for a moment.
#[derive(Default)]
pub(crate) struct Known(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    by_key: HashMap<String, (Instant, Option<Arc<CredentialRecord>>)>,
    /// Rises whenever all is forgotten: an answer to an older question is not remembered.
    round: u64,
}

impl Known {
    /// What is remembered of this key, and the round in which to remember what is found out instead.
    pub(crate) fn look(&self, key_id: &str) -> Result<Option<Arc<CredentialRecord>>, u64> {
        let known = self.open();
        match known.by_key.get(key_id) {
            Some((at, credential)) if at.elapsed() < BELIEVED => Ok(credential.clone()),
            _ => Err(known.round),
        }
    }

    /// Remembers what was asked for `at` that time.
    pub(crate) fn remember(
        &self,
        round: u64,
        at: Instant,
        key_id: String,
        credential: Option<Arc<CredentialRecord>>,
    ) {
        let mut known = self.open();
        if known.round != round {
            return;
        }
        if known.by_key.len() >= REMEMBERED {
            known.by_key.clear();
        }
        known.by_key.insert(key_id, (at, credential));
    }

    /// Something changed.
    pub(crate) fn forget(&self) {
        let mut known = self.open();
        known.round += 1;
        known.by_key.clear();
    }

    fn open(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // each change is whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_up_is_believed_for_a_moment_and_not_after_a_change() {
        let known = Known::default();
        let now = Instant::now();
        let round = known.look("k").unwrap_err();
        known.remember(round, now, "k".into(), None);
        assert_eq!(known.look("k"), Ok(None));
        known.remember(round, now.checked_sub(BELIEVED).unwrap(), "old".into(), None);
        assert_eq!(known.look("old"), Err(round));
        known.forget();
        // An answer that was under way when something changed.
        known.remember(round, now, "k".into(), None);
        assert_eq!(known.look("k"), Err(round + 1));
    }

    #[test]
    fn whoever_guesses_keys_fills_no_memory() {
        let known = Known::default();
        for guess in 0..=REMEMBERED {
            known.remember(0, Instant::now(), guess.to_string(), None);
        }
        assert_eq!(known.open().by_key.len(), 1);
    }
}
