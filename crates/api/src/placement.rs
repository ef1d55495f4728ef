//! Labels of nodes: what is told of functions that ask for some which this node does not have.

use std::sync::PoisonError;

use store::{FunctionKey, NodeLabels, NodeState, StoreError};
use supervisor::{RequestRow, WaitsFor};

use crate::{
    error::ApiError,
    registry::Api,
    spec::{FunctionConfig, bad},
};

/// Nodes that are named where one of them would do.
const NAMED: usize = 5;

impl Api {
    /// Refuses a function that comes to ask for labels which the only node there is does not have. Of several nodes one that
    /// has them may come yet.
    pub(crate) fn must_be_placeable(
        &self,
        config: &FunctionConfig,
        before: Option<&FunctionConfig>,
    ) -> Result<(), ApiError> {
        let asked = config.node_labels();
        let missing = self.handle.node_labels().missing(&asked);
        let known = before.is_some_and(|before| before.node_labels() == asked);
        if missing.is_empty() || known || self.handle.nodes().is_some() {
            return Ok(());
        }
        let why = format!(
            "quell.node_labels: this node does not have {missing}, and shares its store with no other: start it with the setting \
             node_labels, or leave them out"
        );
        Err(bad("FSS.0400", why))
    }

    /// Why an invocation is refused that asks for other labels than this node's, and who has them.
    pub(crate) async fn placed_elsewhere(&self, asked: &NodeLabels, missing: &NodeLabels) -> ApiError {
        let whose = match self.live_nodes_with(asked).await {
            None => "start it with the setting node_labels".to_owned(),
            Some(Err(error)) => format!("which nodes have them cannot be read: {error}"),
            Some(Ok(nodes)) if nodes.is_empty() => "no live node has them".to_owned(),
            Some(Ok(nodes)) => {
                let more = if nodes.len() > NAMED { ", and others" } else { "" };
                let named = nodes.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                format!("ask a node that does, or asynchronously: {named}{more}")
            }
        };
        ApiError::unavailable(format!(
            "function asks for a node with the labels {asked}; this one does not have {missing}; {whose}"
        ))
    }

    /// Says of requests of this project that wait for a node with labels for what they wait.
    pub(crate) async fn explain_waiting(&self, project: &str, rows: &mut [RequestRow]) {
        let mut nodes = None; // read once, and only where somebody waits for one
        for row in rows.iter_mut().filter(|row| row.state == "queued" && row.stopping.is_none()) {
            let Some(asked) = self.asked_by(project, row).filter(|asked| !asked.is_empty()) else { continue };
            if nodes.is_none() {
                nodes = Some(self.labels_of_live_nodes().await);
            }
            let having = |all: &Vec<(String, NodeLabels)>| {
                u32::try_from(all.iter().filter(|(_, labels)| labels.include(&asked)).count())
                    .unwrap_or(u32::MAX)
            };
            let live_nodes = match &nodes {
                Some(Some(Ok(all))) => Some(having(all)),
                Some(None) => Some(u32::from(self.handle.node_labels().include(&asked))),
                _ => None,
            };
            row.waits_for = Some(WaitsFor { node_labels: asked.to_vec(), live_nodes });
        }
    }

    fn asked_by(&self, project: &str, row: &RequestRow) -> Option<NodeLabels> {
        let (package, name) = row.function.split_once(':')?;
        let [project, package, name] = [project, package, name].map(str::to_owned);
        let key = FunctionKey { project, package, name, version: row.version.clone() };
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.get(&key).map(|function| function.node_labels.clone())
    }

    /// Names of live nodes that have all of these; `None`: this node shares its store with no other.
    async fn live_nodes_with(&self, asked: &NodeLabels) -> Option<Result<Vec<String>, StoreError>> {
        let having = |all: Vec<(String, NodeLabels)>| {
            all.into_iter().filter(|(_, labels)| labels.include(asked)).map(|(node, _)| node).collect()
        };
        Some(self.labels_of_live_nodes().await?.map(having))
    }

    async fn labels_of_live_nodes(&self) -> Option<Result<Vec<(String, NodeLabels)>, StoreError>> {
        let all = self.handle.nodes()?.all().await;
        let live = |row: &store::NodeRow| row.state == NodeState::Live && row.lease_left_ms > 0;
        Some(all.map(|all| all.into_iter().filter(live).map(|row| (row.node, row.labels)).collect()))
    }
}
