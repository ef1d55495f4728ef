//! Receipts that nobody closes: their nodes died and did not come back, or left before other nodes had done their parts.

use std::sync::Arc;

use store::{ReceiptRecord, StoreError};

use super::{Nodes, lease::LOOK_AGAIN};
use crate::receipt::{Gone, close_one};

/// Receipts that are adopted at a time. More are there at the next renewal still.
const AT_ONCE: u32 = 500;

impl Nodes {
    /// Makes receipts of nodes that are gone this node's own, and closes them: at once, or when the nodes are through that
    /// have parts of them. Should this node die in turn, its next life closes them, or whoever adopts them then.
    pub(super) async fn adopt(self: Arc<Self>) {
        match self.shared.adopt(AT_ONCE).await {
            Ok(records) => {
                for record in &records {
                    self.close_adopted(record).await;
                }
            }
            Err(error) => tracing::warn!(%error, "receipts of nodes that are gone cannot be closed yet"),
        }
    }

    async fn close_adopted(self: &Arc<Self>, record: &ReceiptRecord) {
        loop {
            match close_one(self.shared.as_ref(), Some(self), record, Gone::LeaseOver).await {
                Ok(_) => {
                    break tracing::info!(cancel = %record.cancel, "closes the receipt of a node that is gone");
                }
                Err(error @ (StoreError::Lapsed | StoreError::Closed)) => {
                    break tracing::warn!(cancel = %record.cancel, %error, "the next life closes its receipt");
                }
                Err(error) => {
                    tracing::warn!(cancel = %record.cancel, %error, "a receipt cannot be closed yet");
                    tokio::time::sleep(LOOK_AGAIN).await; // nothing tells when a database is back
                }
            }
        }
    }
}
