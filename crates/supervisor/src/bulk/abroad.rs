//! Bulk cancels over the nodes of a store. One is carried out by one node at a time; its row is what all others know of it:
//! they find it there by its key, and say there that it is called off. Its node writes how it stands, at most once a second, and
//! hears of a call-off by the renewal of its lease, which a notification hastens. What a node leaves undone, in order or not, is
//! adopted by one of those that live, and gone through again as by a next life of its own.

use std::{sync::Arc, time::Duration};

use cancel::{Level, Scope};
use store::{BulkRecord, Shared, SharedBulk, StoreError};

use super::{Bulk, registry::Kept, run::How, state::ToDo};
use crate::{
    handle::{Actor, Handle},
    nodes::Nodes,
};

/// How often at most it is written how a bulk cancel stands: other nodes are asked that by people.
const NOTED_EVERY: Duration = Duration::from_secs(1);

/// What a row says; of one that nobody can read its key stays taken.
pub(super) fn read(found: SharedBulk) -> Result<Bulk, StoreError> {
    let SharedBulk { record, node } = found;
    let bulk = serde_json::from_str::<Bulk>(&record.body);
    let bulk =
        bulk.map_err(|error| StoreError::Unreadable(format!("bulk cancel {:?}: {error}", record.key)))?;
    Ok(Bulk { node: Some(node), ..bulk })
}

/// How one stands that another node of the store has.
pub(super) async fn find(shared: &dyn Shared, project: &str, key: &str) -> Result<Option<Bulk>, StoreError> {
    shared.bulk(project.to_owned(), key.to_owned()).await?.map(read).transpose()
}

/// Calls one off that another node has.
pub(super) async fn call_off(
    shared: &dyn Shared,
    project: &str,
    key: &str,
) -> Result<Option<Bulk>, StoreError> {
    let Some(bulk) = find(shared, project, key).await?.filter(|bulk| !bulk.is_over()) else {
        return find(shared, project, key).await;
    };
    let mut so_far = bulk;
    so_far.end(true);
    let body = serde_json::to_string(&so_far).unwrap_or_default(); // plain data: cannot fail
    // If its node has ended it meanwhile, the row says how.
    shared.call_off_bulk(project.to_owned(), key.to_owned(), body).await?;
    find(shared, project, key).await
}

/// Writes how one stands whenever that has changed, until it is over.
pub(super) async fn keep_noted(nodes: Arc<Nodes>, kept: Arc<Kept>) {
    loop {
        kept.changed().await;
        if kept.is_over() {
            return;
        }
        let Bulk { project, key, .. } = kept.state();
        let body = serde_json::to_string(&kept.state()).unwrap_or_default(); // plain data: cannot fail
        match nodes.shared().note_bulk(project, key, body).await {
            Ok(()) => {}
            Err(StoreError::Closed | StoreError::Lapsed) => return, // this life is over
            Err(error) => tracing::debug!(%error, "how a bulk cancel stands could not be noted"),
        }
        tokio::time::sleep(NOTED_EVERY).await; // others change meanwhile, and are written together
    }
}

impl Handle {
    /// Whatever of these was called off on another node.
    pub(crate) async fn called_off_elsewhere(&self, bulks: Vec<(String, String)>) {
        for (project, key) in bulks {
            if let Err(error) = self.hear_called_off(&project, &key).await {
                tracing::warn!(key, %error, "a bulk cancel that is called off could not be ended yet");
            }
        }
    }

    /// Takes up what nodes have left undone that are gone.
    pub(crate) async fn adopt_bulks(&self, nodes: &Nodes) {
        match nodes.shared().adopt_bulks().await {
            Ok(adopted) => adopted.into_iter().for_each(|record| self.take_up_bulk(record)),
            Err(error) => tracing::warn!(%error, "what other nodes left of bulk cancels is taken up later"),
        }
    }

    /// Remembers one that is done, and goes on with one that is not.
    pub(super) fn take_up_bulk(&self, record: BulkRecord) {
        let BulkRecord { project, key, body, requests } = record;
        let read = serde_json::from_str::<Bulk>(&body);
        let left = requests.map(|left| serde_json::from_str::<ToDo>(&left)).transpose();
        let (bulk, todo) = match (read, left) {
            (Ok(bulk), Ok(Some(todo))) => (bulk, todo),
            (Ok(bulk), Ok(None)) => return drop(self.keep_bulk(bulk)),
            (Err(error), _) | (_, Err(error)) => {
                // Its key stays taken: the store knows it.
                return tracing::error!(key, project, %error, "a bulk cancel cannot be read; it stays as it is");
            }
        };
        tracing::info!(key, project, selected = bulk.selected, "a bulk cancel goes on");
        let how = How {
            scope: if bulk.scope == "subtree" { Scope::Subtree } else { Scope::Request },
            level: if bulk.level == "kill" { Level::Kill } else { Level::Ask },
            rate: bulk.rate,
            actor: Actor {
                credential: bulk.asked_by.clone(),
                remote: bulk.remote.as_deref().and_then(|remote| remote.parse().ok()),
                reason: bulk.reason.clone(),
                bulk: Some(key),
            },
        };
        let node = self.nodes().map(|nodes| nodes.shared().node());
        self.go_on(Bulk { node, ..bulk.again() }, todo.requests(&project), how);
    }
}
