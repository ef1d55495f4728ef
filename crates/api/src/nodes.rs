//! The nodes that share a store.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use store::{NodeRow, NodeState};
use utoipa::ToSchema;

use crate::{
    auth::{Head, Right},
    error::ApiError,
    openapi::Refusals,
    registry::Api,
};

/// All nodes of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodesView {
    /// The node that was asked.
    pub this: String,
    /// All there are, by name; those that left or were fenced too.
    pub nodes: Vec<SharedNode>,
}

/// A node of a store that several share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharedNode {
    /// Its name: 32 hexadecimal digits, kept in its data folder.
    pub node: String,
    /// Rises with each of its lives, and when it is fenced.
    pub epoch: i64,
    /// `live`, `draining`, `fenced` (its lease ran out, its work was taken over) or `left`.
    pub state: String,
    /// Where its API is, as it said itself.
    pub endpoint: String,
    /// Its program's version.
    pub version: String,
    /// How long its lease is still, by the database's clock, in milliseconds; negative: over.
    pub lease_left_ms: i64,
    /// How long its lease is from each renewal on, in milliseconds: all nodes should have the same (`lease_s`).
    #[serde(default)]
    pub lease_ms: u32,
    /// Requests that it has and that are not over.
    pub owns: u64,
    /// When its present life began.
    pub joined_ms: i64,
    /// What functions may ask of their nodes, and it has; empty where a node of an earlier version does not say.
    #[serde(default)]
    pub labels: Vec<String>,
}

impl From<NodeRow> for SharedNode {
    fn from(row: NodeRow) -> Self {
        let state = match row.state {
            NodeState::Live => "live",
            NodeState::Draining => "draining",
            NodeState::Fenced => "fenced",
            NodeState::Left => "left",
        };
        Self {
            node: row.node,
            epoch: row.epoch,
            state: state.to_owned(),
            endpoint: row.endpoint,
            version: row.version,
            lease_left_ms: row.lease_left_ms,
            lease_ms: row.lease_ms,
            owns: row.owns,
            joined_ms: row.joined_ms,
            labels: row.labels.to_vec(),
        }
    }
}

/// The nodes that share this node's store, of all projects: for a credential with the scope `operator`.
///
/// 404 on a node that has a store of its own.
#[utoipa::path(get, path = "/quell/v1/nodes", tag = "node", responses((status = 200, body = NodesView), Refusals))]
pub(crate) async fn nodes(State(api): State<Arc<Api>>, head: Head) -> Result<Json<NodesView>, ApiError> {
    api.any_caller(&head, Right::Operate)?;
    let alone = "this node is alone: its store is its own, and no other node shares it";
    let nodes = api.handle.nodes();
    let nodes = nodes.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "FSS.0404", alone))?;
    let rows = nodes.all().await?;
    let this = nodes.shared().node();
    Ok(Json(NodesView { this, nodes: rows.into_iter().map(SharedNode::from).collect() }))
}
