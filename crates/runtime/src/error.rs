//! What ends a request, and what ends the runtime.

/// What a handler fails with. Its text is the error message of the request.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Why [`run`](crate::run) came to an end. Return it from `main`: the node sees the process end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A variable of the environment that the node sets is missing or cannot be used.
    #[error("{0} is not as a node sets it")]
    Environment(&'static str),
    /// The node cannot be reached, or hung up: the instance is over.
    #[error("the node is gone: {0}")]
    NodeGone(String),
    /// The initialisation failed; the node was told.
    #[error("initialisation failed: {0}")]
    Init(Error),
}
