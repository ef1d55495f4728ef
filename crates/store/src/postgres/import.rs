//! Rows of another store, written as they are.

use std::sync::Arc;

use cancel::{CancelId, RequestId};
use futures_util::future::try_join_all;

use super::{
    Postgres,
    connection::{Db, execute, row},
    credentials,
    fault::Fault,
    functions,
    group::id,
    invocations::{kept, label_text, number},
    receipts::name_of,
    schema,
};
use crate::{
    AliasRecord, AsyncConfigRecord, BulkRecord, CredentialRecord, FunctionKey, FunctionRecord,
    InvocationRecord, ReceiptRecord, Status, StoreError,
};

/// An open transaction on a connection of its own. Dropped without [`Import::commit`] it is taken back.
pub(crate) struct Import {
    db: Db,
    node: Arc<str>,
}

impl Postgres {
    /// Begins to write another store's rows into this one, which must be empty.
    pub(crate) async fn import(&self) -> Result<Import, StoreError> {
        let (connector, node) = (self.connector.clone(), Arc::clone(&self.node));
        let opened = self.handle.spawn(async move { connector.open().await });
        let db = opened.await.map_err(|_| StoreError::Closed)?.map_err(Fault::unwritable)?;
        let import = Import { db, node };
        import.begin().await.map_err(Fault::unwritable)?;
        Ok(import)
    }
}

impl Import {
    async fn begin(&self) -> Result<(), Fault> {
        // Large tables take their time, and so does whoever reads them to us.
        self.db
            .batch_execute(
                "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0",
            )
            .await?;
        self.db.execute("SELECT pg_advisory_xact_lock($1::bigint)", &[&schema::LOCK]).await?;
        let there = "SELECT EXISTS (SELECT 1 FROM functions) OR EXISTS (SELECT 1 FROM invocations)";
        let there = row(&self.db, there, &[]).await?.map(|row| row.try_get(0)).transpose()?;
        if there == Some(false) { Ok(()) } else { Err(StoreError::Exists.into()) }
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        self.db.batch_execute("COMMIT").await.map_err(|error| Fault::from(error).unwritable())
    }

    pub(crate) async fn function(&self, record: &FunctionRecord, code: &[u8]) -> Result<(), StoreError> {
        functions::create(&self.db, record, code).await.map_err(Fault::unwritable)
    }

    pub(crate) async fn alias(&self, alias: &AliasRecord) -> Result<(), StoreError> {
        functions::put_alias(&self.db, alias).await.map(drop).map_err(Fault::unwritable)
    }

    pub(crate) async fn async_config(&self, config: &AsyncConfigRecord) -> Result<(), StoreError> {
        let AsyncConfigRecord { key, body, created_ms, modified_ms } = config;
        let FunctionKey { project, package, name, version } = key;
        let insert =
            "INSERT INTO async_configs (project, package, name, version, body, created_ms, modified_ms)
                      VALUES ($1, $2, $3, $4, $5, $6, $7)";
        execute(&self.db, insert, &[project, package, name, version, &kept(body), created_ms, modified_ms])
            .await
            .map(drop)
            .map_err(Fault::unwritable)
    }

    pub(crate) async fn credential(&self, credential: &CredentialRecord) -> Result<(), StoreError> {
        credentials::put(&self.db, credential).await.map_err(Fault::unwritable)
    }

    pub(crate) async fn fact(&self, name: &str, value: &str) -> Result<(), StoreError> {
        credentials::put_fact(&self.db, name, value).await.map_err(Fault::unwritable)
    }

    pub(crate) async fn bulk(&self, bulk: &BulkRecord) -> Result<(), StoreError> {
        super::bulks::begin(&self.db, &self.node, bulk).await.map_err(Fault::unwritable)
    }

    /// In the order given.
    pub(crate) async fn invocations(&self, page: &[InvocationRecord]) -> Result<(), StoreError> {
        for request in page {
            self.invocation(request).await.map_err(Fault::unwritable)?;
        }
        Ok(())
    }

    async fn invocation(&self, new: &InvocationRecord) -> Result<(), Fault> {
        let insert = "INSERT INTO invocations (request, project, package, name, version, alias, parent, owner, payload,
                          labels, status, error_code, error_message, attempts, failures, not_before_ms, hops,
                          created_ms, started_ms, ended_ms, fenced_by)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb, $11, $12, $13, $14, $15, $16, $17,
                          $18, $19, $20, $21)";
        let FunctionKey { project, package, name, version } = &new.function;
        let is_over = !matches!(new.status, Status::Wait | Status::Running);
        let (request, parent, payload) = (id(new.request), new.parent.map(id), new.payload.as_ref());
        let owner = (!is_over).then_some(&*self.node);
        let (labels, status, message) =
            (label_text(&new.labels), number(new.status), kept(&new.error_message));
        let (attempts, failures, hops) =
            (i64::from(new.attempts), i64::from(new.failures), i64::from(new.hops));
        let fenced_by = new.fenced_by.map(name_of);
        let values: super::connection::Params<'_> = &[
            &request,
            project,
            package,
            name,
            version,
            &new.alias,
            &parent,
            &owner,
            &payload,
            &labels,
            &status,
            &new.error_code,
            &message,
            &attempts,
            &failures,
            &new.not_before_ms,
            &hops,
            &new.created_ms,
            &new.started_ms,
            &new.ended_ms,
            &fenced_by,
        ];
        execute(&self.db, insert, values).await.map(drop)
    }

    /// Hangs every request below the one that made it, and those that are not over into their trees.
    pub(crate) async fn hang_up(&self) -> Result<(), StoreError> {
        let lines = "INSERT INTO above (request, above)
                     SELECT request, parent FROM invocations WHERE parent IS NOT NULL";
        execute(&self.db, lines, &[]).await.map_err(Fault::unwritable)?;
        // UNION: two that made each other, which cannot be, would be walked once.
        let roots = "WITH RECURSIVE up (request, above) AS (
                         SELECT request, parent FROM invocations WHERE parent IS NOT NULL
                         UNION SELECT up.request, i.parent FROM up JOIN invocations i ON i.request = up.above
                         WHERE i.parent IS NOT NULL
                     ), tops AS (
                         SELECT up.request, up.above FROM up
                         WHERE NOT EXISTS (SELECT 1 FROM invocations i
                                           WHERE i.request = up.above AND i.parent IS NOT NULL)
                     )
                     UPDATE invocations i SET root = tops.above FROM tops
                     WHERE tops.request = i.request AND i.status IN (0, 1)";
        execute(&self.db, roots, &[]).await.map(drop).map_err(Fault::unwritable)
    }

    /// In the order given.
    pub(crate) async fn receipts(&self, page: &[(ReceiptRecord, bool)]) -> Result<(), StoreError> {
        let insert =
            "INSERT INTO receipts (cancel, target, project, package, name, version, body, created_ms, open,
                                            node)
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        for (receipt, open) in page {
            let FunctionKey { project, package, name, version } = &receipt.function;
            let (cancel, target, body) = (name_of(receipt.cancel), id(receipt.target), kept(&receipt.body));
            let values: super::connection::Params<'_> = &[
                &cancel,
                &target,
                project,
                package,
                name,
                version,
                &body,
                &receipt.created_ms,
                open,
                &&*self.node,
            ];
            execute(&self.db, insert, values).await.map_err(Fault::unwritable)?;
        }
        Ok(())
    }

    /// In the order given.
    pub(crate) async fn fences(&self, page: &[(RequestId, CancelId)]) -> Result<(), StoreError> {
        let insert = "INSERT INTO fences (request, cancel, subtree) VALUES ($1, $2, false)";
        self.db.prepare_cached(insert).await.map_err(|error| Fault::from(error).unwritable())?;
        let rows: Vec<_> = page.iter().map(|(request, cancel)| (id(*request), name_of(*cancel))).collect();
        // Sent one after the other without waiting for answers.
        let all =
            rows.iter().map(async |(request, cancel)| execute(&self.db, insert, &[request, cancel]).await);
        try_join_all(all).await.map(drop).map_err(Fault::unwritable)
    }
}
