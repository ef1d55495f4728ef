//! The embedded store: one SQLite file, one writer, nothing to install.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use bytes::Bytes;
use cancel::{CancelId, RequestId};
use rustix::fs::{FlockOperation, flock};

use crate::{
    Store, StoreError, StoreFuture, credentials, functions, invocations, receipts, record::*, schema,
    threads::Threads,
};

const DATABASE: &str = "quell.db";
const LOCK: &str = "lock";

/// A store in a data folder, owned by this process alone.
pub struct Embedded {
    threads: Threads,
    /// Held for life: a second process on the same folder would run what this one cancelled.
    _lock: File,
}

impl Embedded {
    /// Opens or makes the store of a data folder. Blocking: it checks the whole database.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has the folder; [`StoreError::Unopenable`] if it is
    /// damaged, of a newer version, or cannot be written. Nothing in it is changed then.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let failed = |what: &str, error: std::io::Error| {
            StoreError::Unopenable(format!("{}: {what}: {error}", dir.display()))
        };
        if !dir.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed("make", e))?;
        }
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(dir.join(LOCK)).map_err(|error| failed(LOCK, error))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            if error == rustix::io::Errno::WOULDBLOCK {
                StoreError::Locked(dir.display().to_string())
            } else {
                failed(LOCK, error.into())
            }
        })?;
        let path = dir.join(DATABASE);
        // Made here so that it is never readable by others, not even for a moment.
        drop(options.open(&path).map_err(|error| failed(DATABASE, error))?);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(|error| failed(DATABASE, error))?;
        let writer = schema::open_writer(&path)?;
        let readers =
            (0..Threads::readers()).map(|_| schema::open_reader(&path)).collect::<Result<_, _>>()?;
        let threads = Threads::start(writer, readers).map_err(|error| failed("threads", error))?;
        Ok(Self { threads, _lock: lock })
    }
}

impl Store for Embedded {
    fn create_function(&self, record: FunctionRecord, code: Bytes) -> StoreFuture<()> {
        self.threads.write(move |db| functions::create(db, &record, &code))
    }

    fn update_function(&self, record: FunctionRecord, code: Option<Bytes>) -> StoreFuture<bool> {
        self.threads.write(move |db| functions::update(db, &record, code.as_deref()))
    }

    fn delete_function(&self, key: FunctionKey) -> StoreFuture<bool> {
        self.threads.write(move |db| functions::delete(db, &key))
    }

    fn function(&self, key: FunctionKey) -> StoreFuture<Option<FunctionRecord>> {
        self.threads.read(move |db| functions::one(db, &key))
    }

    fn functions(&self, project: Option<String>) -> StoreFuture<Vec<FunctionRecord>> {
        self.threads.read(move |db| functions::all(db, project.as_deref()))
    }

    fn code(&self, digest: String) -> StoreFuture<Option<Bytes>> {
        self.threads.read(move |db| functions::code(db, &digest))
    }

    fn accept(&self, invocation: NewInvocation) -> StoreFuture<()> {
        self.threads.write(move |db| invocations::accept(db, &invocation))
    }

    fn mark_running(&self, request: RequestId, attempts: u32, started_ms: i64) -> StoreFuture<()> {
        self.threads.write(move |db| invocations::mark_running(db, request, attempts, started_ms))
    }

    fn mark_waiting(&self, request: RequestId) -> StoreFuture<()> {
        self.threads.write(move |db| invocations::mark_waiting(db, request))
    }

    fn settle(&self, settlement: Settlement) -> StoreFuture<()> {
        self.threads.write(move |db| invocations::settle(db, &settlement))
    }

    fn invocation(&self, request: RequestId) -> StoreFuture<Option<InvocationRecord>> {
        self.threads.read(move |db| invocations::one(db, request))
    }

    fn invocations(&self, query: InvocationQuery) -> StoreFuture<InvocationPage> {
        self.threads.read(move |db| invocations::page(db, &query))
    }

    fn unsettled(&self, after: Option<RequestId>, limit: u32) -> StoreFuture<Vec<InvocationRecord>> {
        self.threads.read(move |db| invocations::unsettled(db, after, limit))
    }

    fn prune(&self, before_ms: i64, limit: u32) -> StoreFuture<u64> {
        self.threads.write(move |db| {
            Ok(invocations::prune(db, before_ms, limit)? + receipts::prune(db, before_ms, limit)?)
        })
    }

    fn record_cancel(&self, receipt: NewReceipt) -> StoreFuture<()> {
        self.threads.write(move |db| receipts::record(db, &receipt))
    }

    fn update_receipt(&self, cancel: CancelId, body: String) -> StoreFuture<()> {
        self.threads.write(move |db| receipts::update(db, cancel, &body))
    }

    fn receipt(&self, cancel: CancelId) -> StoreFuture<Option<ReceiptRecord>> {
        self.threads.read(move |db| receipts::one(db, cancel))
    }

    fn receipt_of(&self, request: RequestId) -> StoreFuture<Option<ReceiptRecord>> {
        self.threads.read(move |db| receipts::of(db, request))
    }

    fn receipts(
        &self,
        project: String,
        function: Option<FunctionKey>,
        offset: u64,
        limit: u32,
    ) -> StoreFuture<Vec<ReceiptRecord>> {
        self.threads.read(move |db| receipts::page(db, &project, function.as_ref(), offset, limit))
    }

    fn put_credential(&self, credential: CredentialRecord) -> StoreFuture<()> {
        self.threads.write(move |db| credentials::put(db, &credential))
    }

    fn credential(&self, key_id: String) -> StoreFuture<Option<CredentialRecord>> {
        self.threads.read(move |db| credentials::one(db, &key_id))
    }

    fn credentials(&self, project: Option<String>) -> StoreFuture<Vec<CredentialRecord>> {
        self.threads.read(move |db| credentials::all(db, project.as_deref()))
    }

    fn fact(&self, name: &'static str) -> StoreFuture<Option<String>> {
        self.threads.read(move |db| credentials::fact(db, name))
    }

    fn put_fact(&self, name: &'static str, value: String) -> StoreFuture<()> {
        self.threads.write(move |db| credentials::put_fact(db, name, &value))
    }

    fn barrier(&self) -> StoreFuture<()> {
        self.threads.write(|_| Ok(()))
    }

    fn close(&self) -> StoreFuture<()> {
        let all = self.barrier();
        self.threads.close();
        all
    }
}
