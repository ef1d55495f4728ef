//! [`Store`] for [`Postgres`]: each call starts its work here and now.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use cancel::{CancelId, RequestId};

use super::{
    Postgres, bulks, cancels, credentials, functions, invocations,
    queue::{Change, Needs, Until},
    receipts,
};
use crate::{Store, StoreError, StoreFuture, StoreMetrics, Told, record::*};

/// The fact that is this node's name.
const NODE: &str = "node";

/// Reads in a task of the store.
macro_rules! read {
    ($store:ident, $db:ident => $work:expr) => {
        $store.read(move |$db| Box::pin(async move { $work.await }))
    };
}

/// Writes in a transaction of its own.
macro_rules! alone {
    ($store:ident, $needs:expr, $db:ident => $work:expr) => {
        $store.alone($needs, move |$db, _| Box::pin(async move { $work.await }))
    };
}

pub(super) fn dropped(answer: StoreFuture<bool>) -> StoreFuture<()> {
    Box::pin(async { answer.await.map(drop) })
}

impl Store for Postgres {
    fn metrics(&self) -> Arc<StoreMetrics> {
        Arc::clone(&self.metrics)
    }

    fn create_function(&self, record: FunctionRecord, code: Bytes) -> StoreFuture<()> {
        let bytes = Some(code.len());
        self.queue.alone(
            Needs::Nothing,
            bytes,
            move |db, _| Box::pin(async move { functions::create(db, &record, &code).await }),
            |()| (),
        )
    }

    fn update_function(&self, record: FunctionRecord, code: Option<Bytes>) -> StoreFuture<bool> {
        let bytes = Some(code.as_ref().map_or(0, Bytes::len));
        self.queue.alone(
            Needs::Nothing,
            bytes,
            move |db, _| Box::pin(async move { functions::update(db, &record, code.as_deref()).await }),
            |_| (),
        )
    }

    fn publish_version(&self, record: FunctionRecord) -> StoreFuture<bool> {
        let bytes = Some(record.config.len());
        self.queue.alone(
            Needs::Nothing,
            bytes,
            move |db, _| Box::pin(async move { functions::publish(db, &record).await }),
            |_| (),
        )
    }

    fn delete_function(&self, key: FunctionKey) -> StoreFuture<bool> {
        alone!(self, Needs::Nothing, db => functions::delete(db, &key))
    }

    fn delete_version(&self, key: FunctionKey) -> StoreFuture<bool> {
        alone!(self, Needs::Nothing, db => functions::delete_version(db, &key))
    }

    fn function(&self, key: FunctionKey) -> StoreFuture<Option<FunctionRecord>> {
        read!(self, db => functions::one(db, &key))
    }

    fn versions(&self, key: FunctionKey) -> StoreFuture<Vec<FunctionRecord>> {
        read!(self, db => functions::versions(db, &key))
    }

    fn functions(&self, project: Option<String>) -> StoreFuture<Vec<FunctionRecord>> {
        read!(self, db => functions::all(db, project.as_deref()))
    }

    fn code(&self, digest: String) -> StoreFuture<Option<Bytes>> {
        read!(self, db => functions::code(db, &digest))
    }

    fn put_alias(&self, alias: AliasRecord) -> StoreFuture<bool> {
        alone!(self, Needs::Nothing, db => functions::put_alias(db, &alias))
    }

    fn delete_alias(&self, key: FunctionKey, alias: String) -> StoreFuture<bool> {
        alone!(self, Needs::Nothing, db => functions::delete_alias(db, &key, &alias))
    }

    fn aliases(&self) -> StoreFuture<Vec<AliasRecord>> {
        read!(self, db => functions::aliases(db))
    }

    fn accept(&self, invocation: NewInvocation) -> StoreFuture<()> {
        let bytes = Some(invocation.payload.len());
        dropped(self.change(Change::Accept(invocation), bytes))
    }

    fn accept_then(&self, invocation: NewInvocation, told: Told) {
        let bytes = Some(invocation.payload.len());
        self.queue.change(Change::Accept(invocation), bytes, move |outcome| told(outcome.map(drop)));
    }

    fn mark_running(&self, request: RequestId, attempts: u32, started_ms: i64) -> StoreFuture<()> {
        dropped(self.change(Change::Running(request, attempts, started_ms), None))
    }

    fn mark_waiting(&self, request: RequestId, failures: u32, not_before_ms: i64) -> StoreFuture<()> {
        dropped(self.change(Change::Waiting(request, failures, Until::named(not_before_ms)), None))
    }

    fn settle(&self, settlement: Settlement) -> StoreFuture<bool> {
        self.change(Change::Settle(settlement), None)
    }

    fn put_async_config(&self, key: FunctionKey, body: String, now_ms: i64) -> StoreFuture<bool> {
        alone!(self, Needs::Nothing, db => functions::put_config(db, &key, &body, now_ms))
    }

    fn async_config(&self, key: FunctionKey) -> StoreFuture<Option<AsyncConfigRecord>> {
        read!(self, db => functions::config(db, &key))
    }

    fn async_configs(&self, function: FunctionFilter) -> StoreFuture<Vec<AsyncConfigRecord>> {
        read!(self, db => functions::configs(db, &function))
    }

    fn delete_async_config(&self, key: FunctionKey) -> StoreFuture<bool> {
        alone!(self, Needs::Nothing, db => functions::delete_config(db, &key))
    }

    fn invocation(&self, request: RequestId) -> StoreFuture<Option<InvocationRecord>> {
        read!(self, db => invocations::one(db, request))
    }

    fn invocations(&self, query: InvocationQuery) -> StoreFuture<InvocationPage> {
        read!(self, db => invocations::page(db, &query))
    }

    fn unsettled(&self, after: Option<RequestId>, limit: u32) -> StoreFuture<Vec<InvocationRecord>> {
        let node = Arc::clone(&self.node);
        read!(self, db => invocations::unsettled(db, &node, after, limit))
    }

    fn prune(&self, before_ms: i64, limit: u32) -> StoreFuture<u64> {
        self.alone(Needs::Life, move |db, _| {
            Box::pin(async move {
                let requests = invocations::prune(db, before_ms, limit).await?;
                Ok(requests + receipts::prune(db, before_ms, limit).await?)
            })
        })
    }

    fn record_cancel(&self, receipt: NewReceipt) -> StoreFuture<()> {
        let Some(reach) = receipt.reach.clone() else {
            return dropped(self.change(Change::Cancel(receipt), None));
        };
        self.queue.whole(move |db, opening| {
            Box::pin(async move { cancels::record(db, opening, &receipt, &reach).await })
        })
    }

    fn update_receipt(&self, cancel: CancelId, body: String) -> StoreFuture<()> {
        dropped(self.change(Change::Over(cancel, body), None))
    }

    fn receipt(&self, cancel: CancelId) -> StoreFuture<Option<ReceiptRecord>> {
        read!(self, db => receipts::one(db, cancel))
    }

    fn open_receipts(&self, limit: u32) -> StoreFuture<Vec<ReceiptRecord>> {
        let node = Arc::clone(&self.node);
        read!(self, db => receipts::open(db, &node, limit))
    }

    fn receipt_of(&self, request: RequestId) -> StoreFuture<Option<ReceiptRecord>> {
        read!(self, db => receipts::of(db, request))
    }

    fn receipts(
        &self,
        project: String,
        function: Option<FunctionFilter>,
        window: (i64, i64),
        offset: u64,
        limit: u32,
    ) -> StoreFuture<Vec<ReceiptRecord>> {
        read!(self, db => receipts::page(db, &project, function.as_ref(), window, offset, limit))
    }

    fn begin_bulk(&self, bulk: BulkRecord) -> StoreFuture<()> {
        let node = Arc::clone(&self.node);
        alone!(self, Needs::Life, db => bulks::begin(db, &node, &bulk))
    }

    fn end_bulk(&self, project: String, key: String, body: String) -> StoreFuture<()> {
        let node = Arc::clone(&self.node);
        alone!(self, Needs::Life, db => bulks::end(db, &node, &project, &key, &body))
    }

    fn forget_bulk(&self, project: String, key: String) -> StoreFuture<bool> {
        alone!(self, Needs::Life, db => bulks::forget(db, &project, &key))
    }

    fn bulks(&self) -> StoreFuture<Vec<BulkRecord>> {
        let node = Arc::clone(&self.node);
        read!(self, db => bulks::of_node(db, &node))
    }

    fn put_credential(&self, credential: CredentialRecord) -> StoreFuture<()> {
        let known = Arc::clone(&self.known);
        self.queue.alone(
            Needs::Nothing,
            None,
            move |db, _| Box::pin(async move { credentials::put(db, &credential).await }),
            move |()| known.forget(),
        )
    }

    fn delete_credential(&self, key_id: String) -> StoreFuture<bool> {
        let known = Arc::clone(&self.known);
        self.queue.alone(
            Needs::Nothing,
            None,
            move |db, _| Box::pin(async move { credentials::delete(db, &key_id).await }),
            move |_| known.forget(),
        )
    }

    fn credential(&self, key_id: &str) -> StoreFuture<Option<Arc<CredentialRecord>>> {
        let round = match self.known.look(key_id) {
            Ok(_) if self.queue.is_closed() => return Box::pin(std::future::ready(Err(StoreError::Closed))),
            Ok(known) => return Box::pin(std::future::ready(Ok(known))),
            Err(round) => round,
        };
        let (known, key_id, at) = (Arc::clone(&self.known), key_id.to_owned(), Instant::now());
        self.read(move |db| {
            Box::pin(async move {
                let found = credentials::one(db, &key_id).await?.map(Arc::new);
                known.remember(round, at, key_id, found.clone());
                Ok(found)
            })
        })
    }

    fn credential_of(&self, login: &str) -> StoreFuture<Option<Arc<CredentialRecord>>> {
        let login = login.to_owned();
        self.read(move |db| {
            Box::pin(async move { Ok(credentials::of_login(db, &login).await?.map(Arc::new)) })
        })
    }

    fn credentials(&self, project: Option<String>) -> StoreFuture<Vec<CredentialRecord>> {
        read!(self, db => credentials::all(db, project.as_deref()))
    }

    fn fact(&self, name: &'static str) -> StoreFuture<Option<String>> {
        if name == NODE {
            let node = self.node.to_string();
            return Box::pin(std::future::ready(Ok(Some(node))));
        }
        read!(self, db => credentials::fact(db, name))
    }

    fn keep_fact(&self, name: &'static str, value: String) -> StoreFuture<String> {
        if name == NODE {
            let node = self.node.to_string();
            return Box::pin(std::future::ready(Ok(node)));
        }
        alone!(self, Needs::Nothing, db => credentials::keep_fact(db, name, &value))
    }

    fn put_fact(&self, name: &'static str, value: String) -> StoreFuture<()> {
        if name == NODE {
            let same = value == *self.node;
            let refused = || StoreError::Unsupported("a node's name is in its data folder".into());
            return Box::pin(std::future::ready(if same { Ok(()) } else { Err(refused()) }));
        }
        alone!(self, Needs::Nothing, db => credentials::put_fact(db, name, &value))
    }

    fn backup(&self, _to: PathBuf) -> StoreFuture<u64> {
        let why = "a store in PostgreSQL is backed up by the server's own tools (pg_dump, pg_basebackup)";
        Box::pin(std::future::ready(Err(StoreError::Unsupported(why.into()))))
    }

    fn barrier(&self) -> StoreFuture<()> {
        self.queue.barrier()
    }

    fn close(&self) -> StoreFuture<()> {
        let first = self.queue.close();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async move {
            let ended = ended.filter(|_| first).ok_or(StoreError::Closed)?;
            ended.await.map_err(|_| StoreError::Unwritable("the writer ended badly".into()))
        })
    }
}
