//! What the shell keeps of a live request: everything the engine must not know.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cancel::{Attempt, CancelId, InstanceId, RequestId};
use store::Labels;
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, time::delay_queue};

use crate::{
    handle::{Completion, InvokeError},
    logged::Followers,
    message::ReportKind,
    spec::FunctionSpec,
    trace::TraceContext,
};

/// The event of a live request.
pub(crate) enum Payload {
    /// In memory.
    Here(Bytes),
    /// In the store alone: what waits by the hundred thousand must not fill the memory.
    Kept,
    /// Being read from the store, for a request that has a place.
    Loading,
}

impl Payload {
    /// Bytes of memory it takes.
    pub(crate) fn bytes_here(&self) -> usize {
        match self {
            Self::Here(bytes) => bytes.len(),
            Self::Kept | Self::Loading => 0,
        }
    }
}

/// A live request.
pub(crate) struct Request {
    pub(crate) function: Arc<FunctionSpec>,
    /// The alias it was invoked by.
    pub(crate) alias: Option<Arc<str>>,
    pub(crate) payload: Payload,
    pub(crate) parent: Option<RequestId>,
    /// Taken up from an earlier life: the requests above it that are over, the nearest first.
    pub(crate) orphan_of: Vec<RequestId>,
    /// What whoever invoked it says of it.
    pub(crate) labels: Labels,
    pub(crate) asynchronous: bool,
    /// The synchronous caller, until it is answered or gone.
    pub(crate) caller: Option<oneshot::Sender<Result<Completion, InvokeError>>>,
    /// The asynchronous caller, until the store is asked: it is answered with the commit.
    pub(crate) accepting: Option<oneshot::Sender<Result<(), InvokeError>>>,
    /// It is not durable yet.
    pub(crate) storing: bool,
    /// Once it is, any node of the store may run it, and this one lets it go.
    pub(crate) anywhere: bool,
    /// The top of its tree, as a store of several nodes told it.
    pub(crate) root: Option<RequestId>,
    /// Its place in the queue of its function; kept when it waits again, so that it is not put last.
    pub(crate) order: u64,
    /// It may be placed: durable, if it has to be.
    pub(crate) runnable: bool,
    pub(crate) created_ms: i64,
    /// When this life took it up, and how old it was then. Its age goes on by the monotonic clock: a clock
    /// that is set must not make a queue too old at once.
    pub(crate) taken_up: (Instant, Duration),
    /// Since when its present attempt waits.
    pub(crate) waits_since: Instant,
    /// When it was given its present place on an instance.
    pub(crate) placed_at: Option<Instant>,
    /// The trace it is in.
    pub(crate) trace: Option<Box<TraceContext>>,
    pub(crate) started: Option<(Instant, i64)>,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) attempt: Attempt,
    /// Deliveries in earlier lives of the node.
    pub(crate) earlier_attempts: u32,
    /// Deliveries that the node itself ended without a cancel of this request: they count for nothing.
    pub(crate) forgiven: u32,
    /// Attempts that failed and count against its retries, in earlier lives too.
    pub(crate) failures: u32,
    /// How many results were handed on to come to this request.
    pub(crate) hops: u32,
    /// Cancelled at the fence; the tasks of a request that was handed over watch it.
    pub(crate) fence: Option<CancellationToken>,
    /// What the runtime reported last, until the engine decides whether it counts.
    pub(crate) report: Option<(ReportKind, Bytes)>,
    /// Why it failed, where the shell knows better than the code alone.
    pub(crate) failure: Option<String>,
    /// The queue limit, deadline, back-off or grace that runs now.
    pub(crate) timer: Option<delay_queue::Key>,
    pub(crate) grace: Option<delay_queue::Key>,
    /// Cancels that cover it.
    pub(crate) covered_by: Vec<CancelId>,
    /// Cancels that killed its instance without covering it.
    pub(crate) bystander_of: Vec<CancelId>,
    /// It has settled as fenced only; its code may still run.
    pub(crate) draining: bool,
    /// Its caller wants to know what its instance prints meanwhile.
    pub(crate) log: bool,
    /// Whoever follows its log.
    pub(crate) followers: Followers,
    /// Where in its instance's output its last attempt began, if that is wanted.
    pub(crate) printed_before: u64,
}

impl Request {
    /// Deliveries that count, those of earlier lives included.
    pub(crate) fn deliveries(&self) -> u32 {
        self.attempt.0.saturating_add(self.earlier_attempts).saturating_sub(self.forgiven)
    }
}

/// `package:name`, as it is shown; the version is shown beside it.
pub(crate) fn shown(function: &FunctionSpec) -> String {
    format!("{}:{}", function.key.package, function.key.name)
}
