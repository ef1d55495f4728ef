//! What arrives in the one ordered inbox. Order of arrival is the order of the world.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use cancel::{Attempt, CancelId, InstanceId, Level, Plan, RequestId, Scope};
use store::{FunctionKey, InvocationRecord, NewInvocation, StoreError};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::{
    census::Census,
    counters::{Counts, Minute, Of},
    credentials::AttemptSecrets,
    fork_server::News,
    group::{Exit, Group, NotProven, OutOfMemory, Proof},
    handle::{CancelAnswer, CancelOrder, Completion, Invocation, InvokeError},
    logs::{Live, LogOf},
    nodes::Room,
    receipt::Receipt,
    runtime_api::Carried,
    seen::Glimpse,
    selection::{ListedPage, NotSelected, Selected, Selection},
    settings::Tunable,
    spec::FunctionSpec,
    trace::TraceContext,
    unwritten::Write,
    view::{InstanceCount, InstanceRow, NodeView, PlanView, RequestRow, TreeView},
    watch::{Place, WatchError},
};

pub(crate) struct Arrival {
    pub(crate) invocation: Invocation,
    pub(crate) mode: Mode,
}

/// Who waits for what.
pub(crate) enum Mode {
    /// The caller holds the line for the result.
    Sync(oneshot::Sender<Result<Completion, InvokeError>>),
    /// The caller waits for the commit.
    Async(oneshot::Sender<Result<(), InvokeError>>),
    /// It is in the store already: an earlier life accepted it, or it came to be with a result.
    Kept(Kept),
}

/// What the store knows of a request that is taken up from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// Attempts it had.
    pub(crate) attempts: u32,
    /// Those of them that failed.
    pub(crate) failures: u32,
    /// It is not to be tried before then.
    pub(crate) not_before_ms: i64,
    /// How many results were handed on to come to it.
    pub(crate) hops: u32,
    /// When it was accepted.
    pub(crate) created_ms: i64,
    /// The requests above it that are over, the nearest first.
    pub(crate) over: Vec<RequestId>,
    /// Nodes have ended under it too often: it fails, and its result goes where results go.
    pub(crate) given_up: bool,
    /// The top of its tree, where several nodes share the store.
    pub(crate) root: Option<RequestId>,
}

/// What a runtime's poll for work is answered with.
#[derive(Clone)]
pub(crate) struct Delivery {
    pub(crate) request: RequestId,
    pub(crate) attempt: Attempt,
    pub(crate) payload: Bytes,
    pub(crate) secrets: AttemptSecrets,
    pub(crate) asynchronous: bool,
    pub(crate) deadline_ms: i64,
    pub(crate) function_urn: String,
    /// The alias it was invoked by.
    pub(crate) alias: Option<Arc<str>>,
    /// The trace that what it begins belongs to.
    pub(crate) trace: Option<TraceContext>,
    /// Cancelled when the request is fenced: the last look before the wire.
    pub(crate) fence: CancellationToken,
}

/// What a runtime is told of a request that is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) request: RequestId,
    pub(crate) attempt: Attempt,
    pub(crate) reason: &'static str,
    pub(crate) grace: Duration,
    /// When that grace is over, in Unix milliseconds.
    pub(crate) grace_ends_ms: i64,
}

/// A runtime's poll for cancellations.
pub(crate) struct Listener {
    /// It wants to hear of this invocation and no other.
    pub(crate) named: Option<(RequestId, Attempt)>,
    /// Its runtime says when the code of a request has ended. One that only listens is not believed.
    pub(crate) acknowledges: bool,
    pub(crate) poll: oneshot::Sender<Heard>,
}

/// What a poll for cancellations is answered with.
pub(crate) enum Heard {
    /// A request is to stop.
    Notice(Carried),
    /// The invocation it named is not under way here, or not any more: nothing will come.
    Over,
}

/// What a runtime reports of an attempt.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) request: RequestId,
    /// The delivery it answers; `None` if the client does not echo it.
    pub(crate) attempt: Option<Attempt>,
    pub(crate) body: Bytes,
    pub(crate) kind: ReportKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportKind {
    Response,
    Error,
    /// The response was larger than the platform allows; it was not kept.
    TooLarge,
    /// The connection ended in the middle of it: half a result is none. Or its process did before it; then the body
    /// says so.
    BrokenOff,
    /// There was none: the exchange with an HTTP server broke off. Its body says how.
    Broken,
}

/// A look at the state; changes nothing.
pub(crate) enum Question {
    Plan {
        order: CancelOrder,
        respond: oneshot::Sender<Result<PlanView, CancelAnswer>>,
    },
    Tree {
        request: RequestId,
        respond: oneshot::Sender<Option<TreeView>>,
    },
    Node {
        project: Option<String>,
        respond: oneshot::Sender<NodeView>,
    },
    Receipt {
        cancel: CancelId,
        respond: oneshot::Sender<Option<Receipt>>,
    },
    Select {
        selection: Selection,
        respond: oneshot::Sender<Result<Selected, NotSelected>>,
    },
    /// Rows of what is selected, after this order of arrival, and no more than so many.
    List {
        selection: Selection,
        after: u64,
        limit: usize,
        respond: oneshot::Sender<Result<ListedPage, NotSelected>>,
    },
    /// What cancels of these would do, each by itself; nothing for what is over.
    PlanEach {
        requests: Vec<RequestId>,
        scope: Scope,
        level: Level,
        respond: oneshot::Sender<Vec<Option<Plan>>>,
    },
    /// The rows of these, of those that live.
    Rows {
        requests: Vec<RequestId>,
        instances: Vec<InstanceId>,
        respond: oneshot::Sender<(Vec<RequestRow>, Vec<InstanceRow>)>,
    },
    Output {
        instance: String,
        project: String,
        respond: oneshot::Sender<Option<String>>,
    },
    Minutes {
        of: Of,
        from_ms: i64,
        respond: oneshot::Sender<Vec<Minute>>,
    },
    Totals {
        project: String,
        from_ms: i64,
        until_ms: i64,
        respond: oneshot::Sender<Vec<(FunctionKey, Counts)>>,
    },
    Glimpse {
        project: String,
        respond: oneshot::Sender<Glimpse>,
    },
    Census {
        respond: oneshot::Sender<Census>,
    },
    /// Which of these it neither has nor had; `None` while ends wait for the store, as nobody can tell then.
    Strangers {
        requests: Vec<RequestId>,
        respond: oneshot::Sender<Option<Vec<RequestId>>>,
    },
    /// What more it would run now.
    Room {
        respond: oneshot::Sender<Room>,
    },
    Counted {
        project: String,
        respond: oneshot::Sender<Vec<InstanceCount>>,
    },
}

pub(crate) enum Message {
    Arrived(Arrival),
    /// The store answered an accept.
    Stored(RequestId, Result<(), StoreError>),
    Cancel {
        order: CancelOrder,
        respond: oneshot::Sender<CancelAnswer>,
    },
    /// The store answered a record of a cancel.
    Recorded {
        cancel: CancelId,
        record: u32,
        result: Result<(), StoreError>,
    },
    /// A closed receipt's last form is durable (or will not be).
    ReceiptKept(CancelId, Result<(), StoreError>),
    CallerGone(RequestId),
    /// A runtime asks for work at its own address.
    Polled {
        at: Ipv4Addr,
        poll: oneshot::Sender<Delivery>,
    },
    /// A poll that had been given a delivery went away before it took it.
    DeliveryDropped {
        at: Ipv4Addr,
        request: RequestId,
        attempt: Attempt,
    },
    Reported {
        at: Ipv4Addr,
        report: Report,
    },
    InitFailed {
        at: Ipv4Addr,
        body: Bytes,
    },
    /// A runtime listens for cancellations.
    Listening {
        at: Ipv4Addr,
        listener: Listener,
    },
    /// A poll that had been given a cancellation went away before it took it.
    NoticeDropped {
        at: Ipv4Addr,
        notice: Notice,
    },
    /// A runtime says that no code of a cancelled invocation runs any more.
    Acknowledged {
        at: Ipv4Addr,
        request: RequestId,
        attempt: Attempt,
    },
    /// A process of an instance of several is gone, with the connection by which it was known.
    WorkerGone {
        at: Ipv4Addr,
        /// The invocation that it named last.
        serves: Option<(RequestId, Attempt)>,
    },
    Spawned {
        instance: InstanceId,
        group: Arc<Group>,
        /// Why it was executed although a fork server was asked for.
        not_forked: Option<String>,
    },
    SpawnFailed {
        instance: InstanceId,
        why: String,
    },
    /// What became of a fork server.
    ForkServer(InstanceId, News),
    Exited {
        instance: InstanceId,
        exit: Option<Exit>,
        out_of_memory: Option<OutOfMemory>,
    },
    Reaped {
        instance: InstanceId,
        proof: Option<Proof>,
    },
    NotReaped {
        instance: InstanceId,
        why: NotProven,
    },
    FunctionChanged(Arc<FunctionSpec>),
    FunctionDeleted(FunctionKey),
    /// The event of a request that has a place was read, or could not be.
    Loaded(RequestId, Result<Bytes, String>),
    /// A request settled durably, and its result made another, as durable.
    HandedOn(Box<NewInvocation>),
    /// The disk refused a write that must not be lost.
    Unwritten(Write, StoreError),
    /// Such writes were tried again, in order; these are left.
    Rewritten {
        done: Vec<CancelId>,
        left: Vec<Write>,
    },
    /// Requests out of the queue that several nodes share; those of functions that are not here are given back.
    Claimed {
        rows: Vec<InvocationRecord>,
        respond: oneshot::Sender<Vec<InvocationRecord>>,
    },
    /// Lets go what has waited here for a place for long, for other nodes to run; what that is.
    GiveBack {
        respond: oneshot::Sender<Vec<RequestId>>,
    },
    /// Refuses a request from now on, unless it is here already; whether it is refused.
    Ban {
        request: RequestId,
        respond: oneshot::Sender<bool>,
    },
    Ask(Question),
    /// Where a log is, and when what it is of has ended.
    LogAsked {
        of: LogOf,
        project: String,
        respond: oneshot::Sender<Live>,
    },
    /// Somebody wants to hear when something may have changed.
    Watch {
        project: String,
        respond: oneshot::Sender<Result<Place, WatchError>>,
    },
    /// These settings hold from now on.
    Tuned(Tunable),
    Drain {
        limit: Duration,
        respond: oneshot::Sender<usize>,
    },
}

impl Message {
    /// It changes nothing that can be watched.
    pub(crate) fn only_looks(&self) -> bool {
        matches!(self, Self::Ask(_) | Self::LogAsked { .. } | Self::Watch { .. })
    }
}
