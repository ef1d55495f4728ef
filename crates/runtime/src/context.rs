//! What a handler knows of its request.

use std::{sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    InvokeError, Task,
    active::Stopping,
    children,
    node::{Delivery, INVOCATION_ID, Node},
    tasks::Tasks,
};

/// Why a request is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Somebody cancelled it.
    Cancel,
    /// It ran longer than its function may.
    Deadline,
    /// Its caller went away.
    Disconnect,
    /// Something that this crate does not know yet.
    Other,
}

impl Reason {
    pub(crate) fn named(word: &str) -> Self {
        match word {
            "cancel" => Self::Cancel,
            "deadline" => Self::Deadline,
            "disconnect" => Self::Disconnect,
            _ => Self::Other,
        }
    }
}

/// One request. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Node,
    request: String,
    invocation: String,
    token: String,
    function_urn: String,
    alias: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    asynchronous: bool,
    deadline_ms: i64,
    stopping: Stopping,
    tasks: Tasks,
}

impl Context {
    pub(crate) fn new(node: Node, delivery: &Delivery, stopping: Stopping) -> Self {
        let header = |name: &str| delivery.header(name).to_owned();
        Self(Arc::new(Inner {
            node,
            request: header("x-cff-request-id"),
            invocation: header(INVOCATION_ID),
            token: header("x-cff-auth-token"),
            function_urn: header("x-quell-function-urn"),
            alias: Some(header("x-quell-alias")).filter(|alias| !alias.is_empty()),
            traceparent: Some(header("traceparent")).filter(|trace| !trace.is_empty()),
            tracestate: Some(header("tracestate")).filter(|state| !state.is_empty()),
            asynchronous: delivery.header("x-cff-invoke-type") == "async",
            deadline_ms: delivery.header("x-quell-deadline-ms").parse().unwrap_or(i64::MAX),
            stopping,
            tasks: Tasks::new(),
        }))
    }

    /// The request id, as callers know it.
    pub fn request_id(&self) -> &str {
        &self.0.request
    }

    /// The id of this attempt of the request.
    pub fn invocation_id(&self) -> &str {
        &self.0.invocation
    }

    /// The URN of the function, with its version.
    pub fn function_urn(&self) -> &str {
        &self.0.function_urn
    }

    /// The alias by which it was invoked.
    pub fn alias(&self) -> Option<&str> {
        self.0.alias.as_deref()
    }

    /// The W3C trace context of this request, if it is in a trace: what is begun in it is below that.
    pub fn traceparent(&self) -> Option<&str> {
        self.0.traceparent.as_deref()
    }

    /// The tracestate that goes with it.
    pub fn tracestate(&self) -> Option<&str> {
        self.0.tracestate.as_deref()
    }

    /// Whether nobody waits for the result.
    pub fn is_asynchronous(&self) -> bool {
        self.0.asynchronous
    }

    /// When this attempt has run too long, in Unix milliseconds.
    pub fn deadline_ms(&self) -> i64 {
        self.0.deadline_ms
    }

    /// What is left until then; zero if it is over.
    pub fn remaining(&self) -> Duration {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Duration::from_millis(u64::try_from(self.0.deadline_ms).unwrap_or(0)).saturating_sub(now)
    }

    /// The credential of this request (`X-Auth-Token` of the node's API): what is invoked with it is a child
    /// of this request. Revoked when the request ends or is cancelled.
    pub fn auth_token(&self) -> &str {
        &self.0.token
    }

    /// Cancelled when this request is to stop.
    pub fn token(&self) -> &CancellationToken {
        &self.0.stopping.token
    }

    /// Why; `None` as long as it is not to stop.
    pub fn reason(&self) -> Option<Reason> {
        self.0.stopping.stop.borrow().map(|stop| stop.reason)
    }

    /// When the handler's future and its tasks are dropped; `None` as long as it is not to stop.
    pub fn drop_at(&self) -> Option<Instant> {
        self.0.stopping.stop.borrow().map(|stop| stop.drop_at)
    }

    /// Starts a task that belongs to this request: it is dropped when the handler has returned, and a
    /// cancellation is acknowledged only when it has ended.
    pub fn spawn<F>(&self, work: F) -> Task<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.0.tasks.spawn(work)
    }

    /// Invokes a function (name or URN) as a child of this request and waits for its result.
    ///
    /// # Errors
    /// When it fails, is refused, cannot be understood, or this request is cancelled meanwhile.
    pub async fn invoke<R: DeserializeOwned>(
        &self,
        function: &str,
        event: &(impl Serialize + Sync),
    ) -> Result<R, InvokeError> {
        children::invoke(self, function, event).await
    }

    /// The same without its result: returns the request id once the node has kept it on disk.
    ///
    /// # Errors
    /// When it is refused, or this request is cancelled meanwhile.
    pub async fn invoke_async(
        &self,
        function: &str,
        event: &(impl Serialize + Sync),
    ) -> Result<String, InvokeError> {
        children::invoke_async(self, function, event).await
    }

    pub(crate) fn node(&self) -> &Node {
        &self.0.node
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    pub(crate) async fn stopped(&self) {
        self.0.stopping.token.cancelled().await;
    }
}
