//! The handle: what the API and the daemon may ask of the shell. It hides the one inbox.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use cancel::{CancelId, Cause, Level, Outcome, RequestId, Scope};
use store::{FunctionFilter, FunctionKey, Labels, NodeLabels, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::{
    asks::Hearer,
    bulk::Bulks,
    census::Census,
    counters::{Counts, Minute, Of},
    credentials::{AttemptCredentials, AttemptIdentity, AttemptSigner},
    logs::Logs,
    message::{Arrival, Message, Mode, Question},
    metrics::Metrics,
    nodes::{self, Nodes},
    receipt::Receipt,
    selection::{ListedPage, NotSelected, Selection},
    settings::Tunable,
    spec::FunctionSpec,
    trace::TraceContext,
    view::{InstanceCount, NodeView, PlanView, TreeView},
};

/// One invocation to be run.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Its id, freshly minted by the caller.
    pub request: RequestId,
    /// What to run: the version is chosen, and stays for every attempt.
    pub function: Arc<FunctionSpec>,
    /// The alias it was invoked by, if it was.
    pub alias: Option<Arc<str>>,
    /// The event.
    pub payload: Bytes,
    /// The request that makes it, proven by that request's own credentials.
    pub parent: Option<RequestId>,
    /// It becomes a root though a request makes it.
    pub detached: bool,
    /// What whoever invokes it says of it. What it invokes in turn has labels of its own.
    pub labels: Labels,
    /// The caller wants to know what the instance printed meanwhile.
    pub log: bool,
    /// The trace that its caller is in, if it said so. Kept in memory alone: a later life knows none.
    pub trace: Option<TraceContext>,
}

/// What became of a synchronous invocation.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Its one result.
    pub outcome: Outcome,
    /// The function's result on success; the runtime's error body on a failure it reported; else empty.
    pub body: Bytes,
    /// Why it failed, in words; empty on success.
    pub message: String,
    /// From the hand-over to the result.
    pub duration: Duration,
    /// What was charged to its instance's limit of memory when it ended, in bytes: of everything on that
    /// instance, as nothing counts it for each request. `None` where nothing counts it at all, or where the
    /// instance was gone by then.
    pub memory_used: Option<u64>,
    /// What its instance printed meanwhile, if that was asked for and it had one.
    pub log: Option<RunLog>,
}

/// What an instance printed while it held a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLog {
    /// When the request was handed over, in milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// When it ended.
    pub ended_ms: i64,
    /// Whole lines, the last of them; of whatever ran on the instance, as its output cannot be told apart.
    pub output: String,
    /// Whether the instance may hold other requests at the same time.
    pub shared: bool,
}

/// Why an invocation was not accepted. Nothing of it remains.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// The request that makes it is cancelled: 4208.
    #[error("function invocation canceled")]
    ParentCanceled,
    /// The request that makes it has settled.
    #[error("the invoking request is over")]
    ParentGone,
    /// Too long a chain of requests.
    #[error("more than {0} requests deep")]
    TooDeep(u16),
    /// Too many live requests under one root, on the node, or too many bytes waiting.
    #[error("too many requests: {0}")]
    Busy(&'static str),
    /// The function asks for labels of its node that this one does not have.
    #[error("function asks for a node with the labels {asked}; this one does not have {missing}")]
    LacksLabels {
        /// What it asks for.
        asked: NodeLabels,
        /// What of that is not here.
        missing: NodeLabels,
    },
    /// The function takes no requests (its maximum of instances is 0).
    #[error("function is disabled")]
    Disabled,
    /// It could not be made durable.
    #[error("request could not be stored: {0}")]
    Store(#[from] StoreError),
    /// The node is stopping.
    #[error("node is stopping")]
    Stopping,
    /// It shares a store with others and does not reach it, or its lease is over.
    #[error("node does not reach the store that it shares with others")]
    NoLease,
    /// It is being cancelled, and its runtime could not be killed in time; it has no result yet.
    #[error("request is cancelled, and its runtime could not be killed: {0}")]
    Stuck(String),
}

/// Who asks to cancel something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// The id of the credential used, never its secret.
    pub credential: String,
    /// Where from.
    pub remote: Option<IpAddr>,
    /// Why, in the asker's words.
    pub reason: Option<String>,
    /// The key of the bulk cancel that this is a part of.
    pub bulk: Option<String>,
}

/// One ask to cancel.
#[derive(Clone, Debug)]
pub struct CancelOrder {
    /// What to stop.
    pub request: RequestId,
    /// The function it must belong to, and the versions if not any.
    pub function: FunctionFilter,
    /// How wide.
    pub scope: Scope,
    /// How hard.
    pub level: Level,
    /// Why.
    pub cause: Cause,
    /// Answer as soon as it is fenced and recorded.
    pub early: bool,
    /// Who.
    pub actor: Actor,
}

/// How much of a 200 is already true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Nothing of it runs.
    Stopped,
    /// Settled and fenced; code may still run on a draining instance.
    Draining,
    /// Fenced and recorded; the rest is under way.
    Fenced,
}

/// The answer to a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CancelAnswer {
    /// It is stopped, as far as `stop` says.
    Done {
        /// The receipt's id.
        cancel: CancelId,
        /// How far.
        stop: Stop,
    },
    /// It had settled by itself; the wire status (`SUCCESS`, `FAIL`, `DISCARD`).
    Finished(&'static str),
    /// No such request in this function.
    Unknown,
    /// It could not be killed within the limit; which processes and why.
    Unkillable {
        /// The receipt's id.
        cancel: CancelId,
        /// In words.
        detail: String,
    },
    /// It is stopped, but the store could not record it.
    NotRecorded {
        /// The receipt's id.
        cancel: CancelId,
        /// In words.
        detail: String,
    },
    /// Too many askers wait for this cancel.
    TooManyAskers,
    /// The node has ended.
    Gone,
    /// This node does not hold it; another of the same store may.
    Elsewhere,
}

/// What the API and the daemon hold of the shell. Cheap to clone.
///
/// Every method sends one message to the ordered inbox. Dropping a returned future abandons the
/// answer, not what was asked for; for [`Handle::invoke`] it means that the caller went away.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inbox: mpsc::Sender<Message>,
    pub(crate) credentials: Arc<AttemptCredentials>,
    pub(crate) store: Arc<dyn store::Store>,
    pub(crate) limits: Arc<RwLock<NodeLimits>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) logs: Option<Logs>,
    pub(crate) bulks: Bulks,
    pub(crate) nodes: Option<Arc<Nodes>>,
    pub(crate) node_labels: NodeLabels,
}

/// What a node has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// Instances of all functions together.
    pub max_instances: usize,
    /// An instance that has nothing to do for this long is released.
    pub idle_release: Duration,
}

impl Handle {
    /// Runs an invocation and waits for its result.
    ///
    /// # Errors
    /// See [`InvokeError`]. When the inbox is full the invocation is refused as busy rather than
    /// left to wait: cancels and answers must find room.
    pub async fn invoke(&self, invocation: Invocation) -> Result<Completion, InvokeError> {
        let (respond, answer) = oneshot::channel();
        let request = invocation.request;
        self.arrive(Arrival { invocation, mode: Mode::Sync(respond) })?;
        let mut caller = CallerGuard { inbox: self.inbox.clone(), request: Some(request) };
        let result = answer.await;
        caller.request = None;
        result.unwrap_or(Err(InvokeError::Stopping))
    }

    /// Accepts an asynchronous invocation: once this resolves it survives power loss (I6).
    ///
    /// # Errors
    /// See [`InvokeError`].
    pub async fn invoke_async(&self, invocation: Invocation) -> Result<(), InvokeError> {
        let (respond, answer) = oneshot::channel();
        self.arrive(Arrival { invocation, mode: Mode::Async(respond) })?;
        answer.await.unwrap_or(Err(InvokeError::Stopping))
    }

    fn arrive(&self, arrival: Arrival) -> Result<(), InvokeError> {
        if self.nodes.as_ref().is_some_and(|nodes| !nodes.accepts()) {
            self.metrics.refused(&InvokeError::NoLease);
            return Err(InvokeError::NoLease);
        }
        let refused = match self.inbox.try_send(Message::Arrived(arrival)) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => InvokeError::Busy("the inbox is full"),
            Err(mpsc::error::TrySendError::Closed(_)) => InvokeError::Stopping,
        };
        self.metrics.refused(&refused);
        Err(refused)
    }

    /// Cancels; resolves when it is stopped and recorded (or as `order.early` says).
    pub async fn cancel(&self, order: CancelOrder) -> CancelAnswer {
        let answer = match &self.nodes {
            None => self.cancel_here(order).await,
            Some(nodes) => nodes.cancel(self, order).await,
        };
        self.metrics.answered(&answer);
        answer
    }

    /// The same for what this node holds.
    pub(crate) async fn cancel_here(&self, order: CancelOrder) -> CancelAnswer {
        let (respond, answer) = oneshot::channel();
        match self.inbox.send(Message::Cancel { order, hearer: Hearer::Task(respond) }).await {
            Ok(()) => answer.await.unwrap_or(CancelAnswer::Gone),
            Err(_) => CancelAnswer::Gone,
        }
    }

    /// The other nodes, where several share the store.
    pub fn nodes(&self) -> Option<&Arc<Nodes>> {
        self.nodes.as_ref()
    }

    /// What functions may ask of their nodes, and this one has.
    pub fn node_labels(&self) -> &NodeLabels {
        &self.node_labels
    }

    /// What such a cancel would do now; `Err` is the answer it would get at once. Where several nodes share a store, of what
    /// is on other nodes too, as far as the store knows it; [`CancelAnswer::Gone`] also where that cannot be read.
    pub async fn plan(&self, order: CancelOrder) -> Result<PlanView, CancelAnswer> {
        match &self.nodes {
            None => self.plan_here(order).await,
            Some(nodes) => nodes.plan(self, order).await,
        }
    }

    /// The same for what this node holds.
    pub(crate) async fn plan_here(&self, order: CancelOrder) -> Result<PlanView, CancelAnswer> {
        self.ask(|respond| Question::Plan { order, respond }).await.unwrap_or(Err(CancelAnswer::Gone))
    }

    /// The tree a request is in, from its root; `None` if it is not live here.
    /// Where several nodes share a store, with what is on other nodes.
    pub async fn tree(&self, request: RequestId) -> Option<TreeView> {
        let here = self.ask(|respond| Question::Tree { request, respond }).await.flatten();
        let Some(nodes) = &self.nodes else { return here };
        match nodes.tree(request, here.clone()).await {
            Ok(tree) => tree,
            Err(error) => {
                tracing::warn!(%request, %error, "what other nodes have of a tree could not be read");
                here
            }
        }
    }

    /// Everything that lives on the node: roots, instances, queues. `project` narrows.
    pub async fn node(&self, project: Option<String>) -> Option<NodeView> {
        self.ask(|respond| Question::Node { project, respond }).await
    }

    /// What happened to requests since `from_ms`, minute by minute, oldest first; minutes without anything are
    /// left out. Since the start of the node, and for no more than [`crate::MINUTES_KEPT`] minutes with
    /// something in them. Empty when the node has ended.
    pub async fn minutes(&self, of: Of, from_ms: i64) -> Vec<Minute> {
        self.ask(|respond| Question::Minutes { of, from_ms, respond }).await.unwrap_or_default()
    }

    /// The same added up, for each function of a project. Of what is the most of a minute there is no sum.
    pub async fn totals(&self, project: String, from_ms: i64, until_ms: i64) -> Vec<(FunctionKey, Counts)> {
        let ask = |respond| Question::Totals { project, from_ms, until_ms, respond };
        self.ask(ask).await.unwrap_or_default()
    }

    /// The functions of a project that have instances now or are to keep some.
    pub async fn instance_counts(&self, project: String) -> Vec<InstanceCount> {
        self.ask(|respond| Question::Counted { project, respond }).await.unwrap_or_default()
    }

    /// Everything that lives on the node, counted. `None`: it has ended.
    pub async fn census(&self) -> Option<Census> {
        self.ask(|respond| Question::Census { respond }).await
    }

    /// What has been counted since the start.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Messages that wait for the core, of so many that may.
    pub fn inbox(&self) -> (usize, usize) {
        let most = self.inbox.max_capacity();
        (most - self.inbox.capacity(), most)
    }

    /// The bounds of the node that a caller may want to know.
    pub fn limits(&self) -> NodeLimits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has these settings hold for what begins from now on.
    pub async fn tune(&self, settings: Tunable) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) =
            NodeLimits { max_instances: settings.max_instances, idle_release: settings.idle_release };
        // A closed inbox means that the node has ended: nothing begins any more.
        drop(self.inbox.send(Message::Tuned(settings)).await);
    }

    /// The last of what a live instance of this project printed.
    pub async fn output(&self, instance: String, project: String) -> Option<String> {
        self.ask(|respond| Question::Output { instance, project, respond }).await.flatten()
    }

    /// A page of live requests, of those behind this marker of the page before. Where several nodes share a store, those of
    /// the others and those that wait for any come last.
    ///
    /// # Errors
    /// See [`NotSelected`].
    pub async fn list(
        &self,
        selection: Selection,
        after: u64,
        limit: usize,
    ) -> Result<ListedPage, NotSelected> {
        match &self.nodes {
            None => self.list_here(selection, after, limit).await,
            Some(nodes) => nodes.list(self, selection, after, limit).await,
        }
    }

    /// The same for what this node holds.
    pub(crate) async fn list_here(
        &self,
        selection: Selection,
        after: u64,
        limit: usize,
    ) -> Result<ListedPage, NotSelected> {
        let asked = |respond| Question::List { selection, after, limit, respond };
        self.ask(asked).await.unwrap_or(Err(NotSelected::Gone))
    }

    /// A receipt: from memory while it is being written, else from the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn receipt(&self, cancel: CancelId) -> Result<Option<Receipt>, StoreError> {
        let live = self.ask(|respond| Question::Receipt { cancel, respond }).await.flatten();
        let live = live.or_else(|| self.nodes.as_ref()?.being_closed(cancel));
        let receipt = match live {
            Some(receipt) => Some(receipt),
            None => {
                let kept = self.store.receipt(cancel).await?;
                kept.and_then(|record| serde_json::from_str::<Receipt>(&record.body).ok())
            }
        };
        let (Some(mut receipt), Some(nodes)) = (receipt.clone(), &self.nodes) else { return Ok(receipt) };
        if receipt.parts.is_empty() && receipt.scope == "subtree" {
            receipt.with_parts(nodes.shared().parts_of(cancel).await?.iter().map(nodes::shown).collect());
        }
        Ok(Some(receipt))
    }

    /// A function was created or changed: waiting requests run this revision, and instances of older
    /// ones end as their requests do.
    pub async fn function_changed(&self, function: Arc<FunctionSpec>) {
        // A closed inbox means that the node has ended, and with it every instance.
        drop(self.inbox.send(Message::FunctionChanged(function)).await);
    }

    /// A version of a function is gone: what waits for it is discarded, what runs may finish.
    pub async fn function_deleted(&self, key: FunctionKey) {
        drop(self.inbox.send(Message::FunctionDeleted(key)).await);
    }

    /// Whom an attempt token speaks for.
    pub fn identify(&self, token: &str) -> Option<AttemptIdentity> {
        self.credentials.identify(token)
    }

    /// Who signs with an attempt's access key.
    pub fn signer(&self, access_key: &str) -> Option<AttemptSigner> {
        self.credentials.signer(access_key)
    }

    /// Takes no new requests; resolves once everything is reaped, or can be killed no further: with how
    /// many instances are left behind. After `limit` what still runs is killed: asynchronous requests
    /// wait in the store for the next life.
    pub async fn drain(&self, limit: Duration) -> usize {
        let (respond, done) = oneshot::channel();
        match self.inbox.send(Message::Drain { limit, respond }).await {
            // An error means that the shell has ended, which is what was waited for.
            Ok(()) => done.await.unwrap_or(0),
            Err(_) => 0,
        }
    }

    pub(crate) async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (respond, answer) = oneshot::channel();
        self.inbox.send(Message::Ask(question(respond))).await.ok()?;
        answer.await.ok()
    }
}

/// Tells the shell when a synchronous caller's future is dropped before its answer.
struct CallerGuard {
    inbox: mpsc::Sender<Message>,
    request: Option<RequestId>,
}

impl Drop for CallerGuard {
    fn drop(&mut self) {
        let Some(request) = self.request else { return };
        let message = Message::CallerGone(request);
        if let Err(mpsc::error::TrySendError::Full(message)) = self.inbox.try_send(message) {
            // The inbox is full now; waiting for room must not happen in a drop.
            let inbox = self.inbox.clone();
            tokio::spawn(async move { drop(inbox.send(message).await) });
        }
    }
}
