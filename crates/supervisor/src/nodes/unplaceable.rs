//! Requests that wait for a node with labels that no live node has: told once, and counted, since nothing else shows them
//! failing.

use std::collections::HashSet;

use store::{FunctionKey, StoreError};

use super::Nodes;

/// Functions that are counted and told of.
const MOST: u32 = 100;

impl Nodes {
    /// Looks for them; tells of those that were not among them at the last look.
    pub(super) async fn look_for_unplaceable(
        &self,
        told: &mut HashSet<FunctionKey>,
    ) -> Result<(), StoreError> {
        let found = self.shared.unplaceable(MOST).await?;
        self.metrics.unplaceable(found.len());
        for (function, labels) in &found {
            if !told.contains(function) {
                tracing::warn!(%function, %labels, "requests of it wait: no live node has the labels it asks for");
            }
        }
        *told = found.into_iter().map(|(function, _)| function).collect();
        Ok(())
    }
}
