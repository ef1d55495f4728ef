//! What the node says in the environment.

use std::sync::Arc;

use crate::RunError;

/// Requests at once that are believed: a node takes no larger number for a function.
const MAX_CONCURRENCY: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Settings {
    /// `host:port` of the Runtime API.
    pub(crate) runtime_api: String,
    /// `http://host:port` of the node's own API.
    pub(crate) endpoint: String,
    pub(crate) project: String,
    /// Requests at once.
    pub(crate) concurrency: usize,
}

impl Settings {
    /// # Errors
    /// When what must be there is not.
    pub(crate) fn from_environment() -> Result<Arc<Self>, RunError> {
        let said = |name: &'static str| std::env::var(name).map_err(|_| RunError::Environment(name));
        let concurrency = said("QUELL_CONCURRENCY")?;
        let concurrency = concurrency.parse().ok().filter(|n| (1..=MAX_CONCURRENCY).contains(n));
        Ok(Arc::new(Self {
            runtime_api: said("RUNTIME_API_ADDR")?,
            endpoint: said("QUELL_API_ENDPOINT")?,
            project: said("RUNTIME_PROJECT_ID")?,
            concurrency: concurrency.ok_or(RunError::Environment("QUELL_CONCURRENCY"))?,
        }))
    }
}
