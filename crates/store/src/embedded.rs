//! The embedded store: one SQLite file, one writer, nothing to install.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
};

use bytes::Bytes;
use cancel::{CancelId, RequestId};

use crate::{
    Store, StoreError, StoreFuture, Told, aliases, async_configs,
    backup::Backups,
    bulks, credentials,
    fault::unopenable,
    folder, functions, invocations,
    reader::Readers,
    receipts,
    record::*,
    schema,
    writer::{StoreMetrics, Writer},
};

/// A store in a data folder, owned by this process alone.
///
/// Dropping it without [`Store::close`] blocks until all that was asked for is written.
pub struct Embedded {
    writer: Writer,
    readers: Readers,
    backups: Backups,
    /// Every credential there is: each call of the API asks for one, and nobody else writes them.
    credentials: Arc<Known>,
}

impl Embedded {
    /// Opens or makes the store of a data folder. Blocking: it reads the whole database to check it,
    /// about a second per gigabyte or two.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has the folder; [`StoreError::Unopenable`] if the
    /// database is damaged, of a newer version, another program's, or cannot be written. It is not
    /// changed then.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let folder::Folder { database, lock } = folder::take(dir)?;
        let failed = |error| unopenable(&database, error);
        let connection = schema::open_writer(&database)?;
        let credentials =
            credentials::all(&connection, None).map_err(|error| unopenable(&database, error))?;
        let by_key = credentials.into_iter().map(|kept| (kept.key_id.clone(), Arc::new(kept))).collect();
        let readers = Readers::start(|| schema::open_reader(&database), failed)?;
        // The writer holds the lock: a second process that had the folder while this one still writes
        // would run what it cancels.
        let writer = Writer::start(connection, lock).map_err(failed)?;
        let backups = Backups::of(database);
        Ok(Self { writer, readers, backups, credentials: Arc::new(RwLock::new(by_key)) })
    }

    /// Reads what the trait has no word for: a copy into another form of the store takes rows as they are.
    pub(crate) fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        self.readers.read(work)
    }
}

impl Store for Embedded {
    fn metrics(&self) -> Arc<StoreMetrics> {
        self.writer.metrics()
    }

    fn create_function(&self, record: FunctionRecord, code: Bytes) -> StoreFuture<()> {
        self.writer.admit(code.len(), move |db| functions::create(db, &record, &code))
    }

    fn update_function(&self, record: FunctionRecord, code: Option<Bytes>) -> StoreFuture<bool> {
        let bytes = code.as_ref().map_or(0, Bytes::len);
        self.writer.admit(bytes, move |db| functions::update(db, &record, code.as_deref()))
    }

    fn publish_version(&self, record: FunctionRecord) -> StoreFuture<bool> {
        self.writer.admit(record.config.len(), move |db| functions::publish(db, &record))
    }

    fn delete_function(&self, key: FunctionKey) -> StoreFuture<bool> {
        self.writer.write(move |db| functions::delete(db, &key))
    }

    fn delete_version(&self, key: FunctionKey) -> StoreFuture<bool> {
        self.writer.write(move |db| functions::delete_version(db, &key))
    }

    fn function(&self, key: FunctionKey) -> StoreFuture<Option<FunctionRecord>> {
        self.readers.read(move |db| functions::one(db, &key))
    }

    fn versions(&self, key: FunctionKey) -> StoreFuture<Vec<FunctionRecord>> {
        self.readers.read(move |db| functions::versions(db, &key))
    }

    fn functions(&self, project: Option<String>) -> StoreFuture<Vec<FunctionRecord>> {
        self.readers.read(move |db| functions::all(db, project.as_deref()))
    }

    fn code(&self, digest: String) -> StoreFuture<Option<Bytes>> {
        self.readers.read(move |db| functions::code(db, &digest))
    }

    fn put_alias(&self, alias: AliasRecord) -> StoreFuture<bool> {
        self.writer.admit(alias.description.len(), move |db| aliases::put(db, &alias))
    }

    fn delete_alias(&self, key: FunctionKey, alias: String) -> StoreFuture<bool> {
        self.writer.write(move |db| aliases::delete(db, &key, &alias))
    }

    fn aliases(&self) -> StoreFuture<Vec<AliasRecord>> {
        self.readers.read(aliases::all)
    }

    fn accept(&self, invocation: NewInvocation) -> StoreFuture<()> {
        self.writer.admit(invocation.payload.len(), move |db| invocations::accept(db, &invocation))
    }

    fn accept_then(&self, invocation: NewInvocation, told: Told) {
        self.writer.admit_then(
            invocation.payload.len(),
            move |db| invocations::accept(db, &invocation),
            told,
        );
    }

    fn mark_running(&self, request: RequestId, attempts: u32, started_ms: i64) -> StoreFuture<()> {
        self.writer.write(move |db| invocations::mark_running(db, request, attempts, started_ms))
    }

    fn mark_waiting(&self, request: RequestId, failures: u32, not_before_ms: i64) -> StoreFuture<()> {
        self.writer.write(move |db| invocations::mark_waiting(db, request, failures, not_before_ms))
    }

    fn put_async_config(&self, key: FunctionKey, body: String, now_ms: i64) -> StoreFuture<bool> {
        self.writer.admit(body.len(), move |db| async_configs::put(db, &key, &body, now_ms))
    }

    fn async_config(&self, key: FunctionKey) -> StoreFuture<Option<AsyncConfigRecord>> {
        self.readers.read(move |db| async_configs::one(db, &key))
    }

    fn async_configs(&self, function: FunctionFilter) -> StoreFuture<Vec<AsyncConfigRecord>> {
        self.readers.read(move |db| async_configs::all(db, &function))
    }

    fn delete_async_config(&self, key: FunctionKey) -> StoreFuture<bool> {
        self.writer.write(move |db| async_configs::delete(db, &key))
    }

    fn settle(&self, settlement: Settlement) -> StoreFuture<bool> {
        self.writer.write(move |db| invocations::settle(db, &settlement))
    }

    fn invocation(&self, request: RequestId) -> StoreFuture<Option<InvocationRecord>> {
        self.readers.read(move |db| invocations::one(db, request))
    }

    fn invocations(&self, query: InvocationQuery) -> StoreFuture<InvocationPage> {
        self.readers.read(move |db| invocations::page(db, &query))
    }

    fn unsettled(&self, after: Option<RequestId>, limit: u32) -> StoreFuture<Vec<InvocationRecord>> {
        self.readers.read(move |db| invocations::unsettled(db, after, limit))
    }

    fn prune(&self, before_ms: i64, limit: u32) -> StoreFuture<u64> {
        self.writer.write(move |db| {
            Ok(invocations::prune(db, before_ms, limit)? + receipts::prune(db, before_ms, limit)?)
        })
    }

    fn record_cancel(&self, receipt: NewReceipt) -> StoreFuture<()> {
        self.writer.write(move |db| receipts::record(db, &receipt))
    }

    fn update_receipt(&self, cancel: CancelId, body: String) -> StoreFuture<()> {
        self.writer.write(move |db| receipts::update(db, cancel, &body))
    }

    fn receipt(&self, cancel: CancelId) -> StoreFuture<Option<ReceiptRecord>> {
        self.readers.read(move |db| receipts::one(db, cancel))
    }

    fn open_receipts(&self, limit: u32) -> StoreFuture<Vec<ReceiptRecord>> {
        self.readers.read(move |db| receipts::open(db, limit))
    }

    fn receipt_of(&self, request: RequestId) -> StoreFuture<Option<ReceiptRecord>> {
        self.readers.read(move |db| receipts::of(db, request))
    }

    fn receipts(
        &self,
        project: String,
        function: Option<FunctionFilter>,
        window: (i64, i64),
        offset: u64,
        limit: u32,
    ) -> StoreFuture<Vec<ReceiptRecord>> {
        self.readers.read(move |db| receipts::page(db, &project, function.as_ref(), window, offset, limit))
    }

    fn begin_bulk(&self, bulk: BulkRecord) -> StoreFuture<()> {
        self.writer.write(move |db| bulks::begin(db, &bulk))
    }

    fn end_bulk(&self, project: String, key: String, body: String) -> StoreFuture<()> {
        self.writer.write(move |db| bulks::end(db, &project, &key, &body))
    }

    fn forget_bulk(&self, project: String, key: String) -> StoreFuture<bool> {
        self.writer.write(move |db| bulks::forget(db, &project, &key))
    }

    fn bulks(&self) -> StoreFuture<Vec<BulkRecord>> {
        self.readers.read(bulks::all)
    }

    fn put_credential(&self, credential: CredentialRecord) -> StoreFuture<()> {
        let (known, credential) = (Arc::clone(&self.credentials), Arc::new(credential));
        let row = Arc::clone(&credential);
        // Once it is on the disk, and before anybody is told.
        let then = move || drop(unlocked(&known).insert(credential.key_id.clone(), credential));
        self.writer.write_then(move |db| credentials::put(db, &row), move |()| then())
    }

    fn delete_credential(&self, key_id: String) -> StoreFuture<bool> {
        let (known, key) = (Arc::clone(&self.credentials), key_id.clone());
        let then = move |_: &bool| drop(unlocked(&known).remove(&key));
        self.writer.write_then(move |db| credentials::delete(db, &key_id), then)
    }

    fn credential(&self, key_id: &str) -> StoreFuture<Option<Arc<CredentialRecord>>> {
        let known = self.credentials.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(key_id).cloned();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn credential_of(&self, login: &str) -> StoreFuture<Option<Arc<CredentialRecord>>> {
        let known = self.credentials.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.values().find(|kept| kept.login.as_deref() == Some(login)).cloned();
        Box::pin(std::future::ready(Ok(found)))
    }

    fn credentials(&self, project: Option<String>) -> StoreFuture<Vec<CredentialRecord>> {
        self.readers.read(move |db| credentials::all(db, project.as_deref()))
    }

    fn fact(&self, name: &'static str) -> StoreFuture<Option<String>> {
        self.readers.read(move |db| credentials::fact(db, name))
    }

    fn keep_fact(&self, name: &'static str, value: String) -> StoreFuture<String> {
        self.writer.write(move |db| credentials::keep_fact(db, name, &value))
    }

    fn put_fact(&self, name: &'static str, value: String) -> StoreFuture<()> {
        self.writer.write(move |db| credentials::put_fact(db, name, &value))
    }

    fn backup(&self, to: PathBuf) -> StoreFuture<u64> {
        self.backups.copy(to, self.writer.write(|_| Ok(())))
    }

    fn barrier(&self) -> StoreFuture<()> {
        self.writer.write(|_| Ok(()))
    }

    fn close(&self) -> StoreFuture<()> {
        self.readers.close();
        self.writer.close()
    }
}

type Known = RwLock<HashMap<String, Arc<CredentialRecord>>>;

fn unlocked(known: &Known) -> RwLockWriteGuard<'_, HashMap<String, Arc<CredentialRecord>>> {
    known.write().unwrap_or_else(PoisonError::into_inner) // each change is one call: it is whole
}
