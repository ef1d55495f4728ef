//! The one trait of durability, and what can go wrong.

use std::{future::Future, path::PathBuf, pin::Pin, sync::Arc};

use bytes::Bytes;
use cancel::{CancelId, RequestId};

use crate::{record::*, shared::Namesake, writer::StoreMetrics};

/// The future of a store call. Dropping it abandons the wait, not the write: what was asked for is
/// still carried out, in the order of the asking.
pub type StoreFuture<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'static>>;

/// Hears the outcome of a write, once.
pub type Told = Box<dyn FnOnce(Result<(), StoreError>) + Send + 'static>;

/// Why the store could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Too much waits already; nothing was written.
    #[error("store is busy: too much waits for it")]
    Busy,
    /// A row with this key is there already; nothing was written.
    #[error("already exists")]
    Exists,
    /// The database cannot be written (disk full, read-only, damaged); nothing was written.
    #[error("store cannot write: {0}")]
    Unwritable(String),
    /// The database could not be read.
    #[error("store cannot read: {0}")]
    Unreadable(String),
    /// The database could not be opened or understood.
    #[error("store cannot be opened: {0}")]
    Unopenable(String),
    /// Another process holds this data folder.
    #[error(
        "data folder {0} is in use by another quell, which runs: a second node needs a folder of its own"
    )]
    Locked(String),
    /// Something above it is cancelled; it was not accepted.
    #[error("a request above it is cancelled")]
    Banned,
    /// This node's lease was taken away: nothing was written, and nothing of this life will be.
    #[error("this node's lease is over")]
    Lapsed,
    /// Another node has this node's name and holds its lease: this one did not join.
    #[error("{0}")]
    Namesake(Namesake),
    /// This form of the store does not do that; who does instead.
    #[error("{0}")]
    Unsupported(String),
    /// The store has been closed.
    #[error("store is closed")]
    Closed,
}

/// Durable state. Every method starts its work when it is called, not when its future is first
/// polled, and writes are committed in the order of the calls; a future resolves once its write is
/// on the disk (I6).
pub trait Store: Send + Sync + 'static {
    /// What it has counted since it was opened.
    fn metrics(&self) -> Arc<StoreMetrics>;

    /// Creates a function; [`StoreError::Exists`] if the key is taken. `code` is kept under
    /// `record.code_digest` in the same commit.
    fn create_function(&self, record: FunctionRecord, code: Bytes) -> StoreFuture<()>;
    /// Replaces a function's record, and its code where given. False if there is no such function.
    fn update_function(&self, record: FunctionRecord, code: Option<Bytes>) -> StoreFuture<bool>;
    /// Adds a version to a function, with the code that `latest` has and what it says of its asynchronous
    /// requests; [`StoreError::Exists`] if the version is there. False if there is no such function.
    fn publish_version(&self, record: FunctionRecord) -> StoreFuture<bool>;
    /// Removes all versions of a function with its aliases, and its code if nobody else uses it. False if
    /// there was none.
    fn delete_function(&self, key: FunctionKey) -> StoreFuture<bool>;
    /// Removes one version. False if there was none.
    fn delete_version(&self, key: FunctionKey) -> StoreFuture<bool>;
    /// One version of a function.
    fn function(&self, key: FunctionKey) -> StoreFuture<Option<FunctionRecord>>;
    /// All versions of a function: `latest`, then the newest first.
    fn versions(&self, key: FunctionKey) -> StoreFuture<Vec<FunctionRecord>>;
    /// All versions of all functions of a project (of all projects if `None`), ordered by key.
    fn functions(&self, project: Option<String>) -> StoreFuture<Vec<FunctionRecord>>;
    /// A code package by its digest.
    fn code(&self, digest: String) -> StoreFuture<Option<Bytes>>;
    /// Makes an alias, or replaces what it says. False, and nothing is done, if a version it names is not
    /// there. Deleted with its function.
    fn put_alias(&self, alias: AliasRecord) -> StoreFuture<bool>;
    /// Forgets an alias of a function. False if there was none.
    fn delete_alias(&self, key: FunctionKey, alias: String) -> StoreFuture<bool>;
    /// All aliases of all projects, ordered by function and name.
    fn aliases(&self) -> StoreFuture<Vec<AliasRecord>>;

    /// Accepts an asynchronous request: once this resolves it survives power loss.
    fn accept(&self, invocation: NewInvocation) -> StoreFuture<()>;
    /// The same for the hot path, without a task that waits: `told` hears the outcome exactly once, on a
    /// thread of the store's, or here if the store takes no more. It must not block for long.
    fn accept_then(&self, invocation: NewInvocation, told: Told);
    /// Notes that an attempt was handed to a runtime.
    fn mark_running(&self, request: RequestId, attempts: u32, started_ms: i64) -> StoreFuture<()>;
    /// Notes that a request waits again, after so many failed attempts, and not to be tried before then.
    fn mark_waiting(&self, request: RequestId, failures: u32, not_before_ms: i64) -> StoreFuture<()>;
    /// Writes a request's final state, and in the same commit accepts what its result goes to. A request that is final already keeps what it has, and one the store never
    /// accepted (a synchronous one) is ignored: false, and nothing else is done.
    fn settle(&self, settlement: Settlement) -> StoreFuture<bool>;
    /// Sets what a version of a function says of its asynchronous requests; `now_ms` is when. False, and nothing is
    /// set, if there is no such function. Deleted with its version.
    fn put_async_config(&self, key: FunctionKey, body: String, now_ms: i64) -> StoreFuture<bool>;
    /// What a version of a function says of its asynchronous requests, if it says anything.
    fn async_config(&self, key: FunctionKey) -> StoreFuture<Option<AsyncConfigRecord>>;
    /// Those of the versions that are meant, ordered by version.
    fn async_configs(&self, function: FunctionFilter) -> StoreFuture<Vec<AsyncConfigRecord>>;
    /// Forgets it. False if there was none.
    fn delete_async_config(&self, key: FunctionKey) -> StoreFuture<bool>;
    /// One request, payload included.
    fn invocation(&self, request: RequestId) -> StoreFuture<Option<InvocationRecord>>;
    /// A page of requests, newest first.
    fn invocations(&self, query: InvocationQuery) -> StoreFuture<InvocationPage>;
    /// Requests that are not final, oldest first, without payloads: at most `limit` of those
    /// accepted after the request `after`.
    fn unsettled(&self, after: Option<RequestId>, limit: u32) -> StoreFuture<Vec<InvocationRecord>>;
    /// Forgets requests that settled before, and receipts created before, `before_ms`; at most
    /// `limit` of each. Returns how many rows went.
    fn prune(&self, before_ms: i64, limit: u32) -> StoreFuture<u64>;

    /// Records a cancel: the receipt and `fenced_by` of every fenced request that is not final, in
    /// one commit. A second call with the same id adds `fenced` and replaces the body (escalation).
    fn record_cancel(&self, receipt: NewReceipt) -> StoreFuture<()>;
    /// Replaces a receipt's body with its last form: the cancel is over.
    fn update_receipt(&self, cancel: CancelId, body: String) -> StoreFuture<()>;
    /// One receipt.
    fn receipt(&self, cancel: CancelId) -> StoreFuture<Option<ReceiptRecord>>;
    /// Receipts of cancels that are not over, oldest first, at most `limit`.
    fn open_receipts(&self, limit: u32) -> StoreFuture<Vec<ReceiptRecord>>;
    /// The first cancel that fenced this request, if any did.
    fn receipt_of(&self, request: RequestId) -> StoreFuture<Option<ReceiptRecord>>;
    /// Receipts of a project in a window of time, both ends of it included, newest first; of one function
    /// if given.
    fn receipts(
        &self,
        project: String,
        function: Option<FunctionFilter>,
        window_ms: (i64, i64),
        offset: u64,
        limit: u32,
    ) -> StoreFuture<Vec<ReceiptRecord>>;

    /// Begins a cancel of many requests: [`StoreError::Exists`] if there is one of its key.
    fn begin_bulk(&self, bulk: BulkRecord) -> StoreFuture<()>;
    /// Keeps the last form of one that is done.
    fn end_bulk(&self, project: String, key: String, body: String) -> StoreFuture<()>;
    /// Forgets one. False if there was none.
    fn forget_bulk(&self, project: String, key: String) -> StoreFuture<bool>;
    /// All of them of all projects, in the order in which they began.
    fn bulks(&self) -> StoreFuture<Vec<BulkRecord>>;

    /// Adds or replaces a credential; [`StoreError::Exists`] if another one has its login.
    fn put_credential(&self, credential: CredentialRecord) -> StoreFuture<()>;
    /// Forgets a credential: once this resolves it opens nothing. False if there was none.
    fn delete_credential(&self, key_id: String) -> StoreFuture<bool>;
    /// One credential.
    fn credential(&self, key_id: &str) -> StoreFuture<Option<Arc<CredentialRecord>>>;
    /// The credential with this login.
    fn credential_of(&self, login: &str) -> StoreFuture<Option<Arc<CredentialRecord>>>;
    /// All credentials of a project (of all projects if `None`).
    fn credentials(&self, project: Option<String>) -> StoreFuture<Vec<CredentialRecord>>;

    /// A small fact about this node (its id, the counter of lives).
    fn fact(&self, name: &'static str) -> StoreFuture<Option<String>>;
    /// Keeps such a fact unless there is one of this name; resolves with the one that holds. Of several that do so at
    /// once all get the same.
    fn keep_fact(&self, name: &'static str, value: String) -> StoreFuture<String>;
    /// Keeps such a fact.
    fn put_fact(&self, name: &'static str, value: String) -> StoreFuture<()>;
    /// Writes a copy of everything, as of now, into a new file; returns its size in bytes. The store works
    /// on meanwhile.
    fn backup(&self, to: PathBuf) -> StoreFuture<u64>;
    /// Resolves once everything asked for before is on the disk, or was reported as failed: a read
    /// after it sees all of it.
    fn barrier(&self) -> StoreFuture<()>;
    /// Resolves once everything asked for before is on the disk (or was reported as failed), and
    /// closes the store: later calls get [`StoreError::Closed`].
    fn close(&self) -> StoreFuture<()>;
}
