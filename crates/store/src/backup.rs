//! A copy of everything while the store works on.
//!
//! `VACUUM INTO` reads one state of the database in one transaction: writes go on beside it and are not in
//! the copy. Until it is done the log cannot be shortened, so it grows by what is written meanwhile.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::sync::oneshot;

use crate::{StoreError, StoreFuture, fault::unreadable, schema};

/// Makes copies of one database, one at a time: two would only share the disk.
pub(crate) struct Backups {
    database: PathBuf,
    busy: Arc<AtomicBool>,
}

impl Backups {
    pub(crate) fn of(database: PathBuf) -> Self {
        Self { database, busy: Arc::default() }
    }

    /// Copies what is committed once `written` resolves into `to`, a new file of mode 0600, and syncs it.
    /// On a thread of its own: a large database takes minutes, and the readers have others to serve.
    pub(crate) fn copy(&self, to: PathBuf, written: StoreFuture<()>) -> StoreFuture<u64> {
        let (database, busy) = (self.database.clone(), Arc::clone(&self.busy));
        Box::pin(async move {
            written.await?;
            if busy.swap(true, Ordering::AcqRel) {
                return Err(StoreError::Busy);
            }
            let turn = Turn(busy);
            let (answer, answered) = oneshot::channel();
            let work = move || {
                let copied = copy(&database, &to);
                drop(turn);
                answer.send(copied).ok(); // whoever asked may have gone
            };
            let thread = thread::Builder::new().name("store-backup".into()).spawn(work);
            thread.map_err(|error| StoreError::Unreadable(format!("no thread for the copy: {error}")))?;
            answered.await.unwrap_or(Err(StoreError::Closed))
        })
    }
}

/// Lets the next one go on when it is dropped.
struct Turn(Arc<AtomicBool>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn copy(database: &Path, to: &Path) -> Result<u64, StoreError> {
    let failed = |error: io::Error| StoreError::Unwritable(format!("{}: {error}", to.display()));
    let name = to.to_str().ok_or_else(|| {
        StoreError::Unwritable(format!("{}: the path of a copy must be UTF-8", to.display()))
    })?;
    // Made here, empty: SQLite would give it the mode that the umask leaves, and it holds secrets.
    File::options().write(true).create_new(true).mode(0o600).open(to).map_err(failed)?;
    let copied = schema::open_reader(database)?
        .execute("VACUUM INTO ?1", [name])
        .map_err(unreadable)
        .and_then(|_| synced(to).map_err(failed));
    if copied.is_err() {
        drop(fs::remove_file(to)); // half a copy is worse than none
    }
    copied
}

/// SQLite leaves that to whoever wants the copy.
fn synced(to: &Path) -> io::Result<u64> {
    let file = File::open(to)?;
    file.sync_all()?;
    if let Some(folder) = to.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(file.metadata()?.len())
}
