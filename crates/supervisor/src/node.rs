//! A node put together: the shell's task, the Runtime API, and what an earlier life left to do.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, RwLock},
    time::Duration,
};

use bytes::Bytes;
use cancel::{Outcome, RequestId};
use store::{FunctionKey, InvocationRecord, Settlement, Status, Store, StoreError};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    bulk::{self, Bulks},
    codes,
    credentials::AttemptCredentials,
    doors::Doors,
    group::Spawner,
    handle::{Handle, Invocation, NodeLimits},
    http::{self, Serving},
    logs::Logs,
    message::{Arrival, Kept, Message, Mode},
    metrics::Metrics,
    nodes::Nodes,
    perform::wire_status,
    receipt, runtime_api,
    settings::{INBOX, Settings},
    shell::{Parts, Shell, now_ms},
    spec::FunctionSpec,
};

/// Connections of runtimes at once; some clients hold one per worker and reconnect in bursts.
const RUNTIME_CONNECTIONS: usize = 8_192;
/// Rows read from the store at a time while recovering.
const RECOVERY_PAGE: u32 = 500;
/// Requests that are over and remembered as being above one: as deep as trees may be.
const MAX_ABOVE: usize = 64;
/// Deliveries an asynchronous request may have over all lives of a node before a crash of the node
/// during one more is taken for its own doing.
const MAX_LIVES: u32 = 3;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The Runtime API could not be opened.
    #[error("cannot listen for runtimes: {0}")]
    Listen(#[from] io::Error),
    /// What functions print has no place to go.
    #[error("the folder of the logs cannot be used: {0}")]
    Logs(io::Error),
    /// What an earlier life left could not be read or settled.
    #[error("cannot take over from the last life: {0}")]
    Store(#[from] StoreError),
}

/// A running node.
pub struct Node {
    /// What to ask it.
    pub handle: Handle,
    shell: JoinHandle<()>,
    runtime_api: JoinHandle<()>,
    end: CancellationToken,
}

/// What was done with the requests of an earlier life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// They wait again.
    pub requeued: u64,
    /// They had been cancelled, and are settled as such now.
    pub settled_canceled: u64,
    /// They were running when the node died too often.
    pub settled_failed: u64,
    /// Their function is gone.
    pub discarded: u64,
}

impl Node {
    /// Starts the shell and the Runtime API. `nodes`: the others, where several share the store.
    ///
    /// # Errors
    /// When the Runtime API cannot listen, or the folder of the logs cannot be used.
    pub fn start(
        settings: Settings,
        store: Arc<dyn Store>,
        nodes: Option<Arc<Nodes>>,
        spawner: Arc<Spawner>,
    ) -> Result<Self, StartError> {
        let listener = runtime_api::bind()?;
        let runtime_port = listener.local_addr()?.port();
        let (inbox, messages) = mpsc::channel(INBOX);
        let credentials = Arc::new(AttemptCredentials::default());
        let limits =
            NodeLimits { max_instances: settings.max_instances, idle_release: settings.idle_release };
        let logs = settings.logs.clone().map(Logs::open).transpose().map_err(StartError::Logs)?;
        let metrics = Arc::new(Metrics::default());
        let handle = Handle {
            inbox: inbox.clone(),
            credentials: Arc::clone(&credentials),
            store: Arc::clone(&store),
            limits: Arc::new(RwLock::new(limits)),
            logs: logs.clone(),
            metrics: Arc::clone(&metrics),
            bulks: Bulks::default(),
            nodes: nodes.clone(),
            node_labels: settings.node_labels.clone(),
        };
        let end = CancellationToken::new();
        let serving = Serving {
            // The rest is for callers, the store and the kill path.
            max_connections: http::share_of_descriptors(2, RUNTIME_CONNECTIONS),
            end_limit: Duration::ZERO,
            strangers: None,
        };
        let doors = Doors::new();
        let router = runtime_api::router(inbox.clone(), doors.clone());
        let admit = {
            let doors = doors.clone();
            move |ends| doors.admit(ends)
        };
        let runtime_api = tokio::spawn(http::serve(listener, router.clone(), serving, admit, end.clone()));
        let parts = Parts {
            store,
            nodes,
            spawner,
            credentials,
            doors,
            logs,
            metrics,
            inbox,
            runtime_port,
            runtime_api: router,
        };
        let shell = tokio::spawn(Shell::new(settings, parts).run(messages));
        Ok(Self { handle, shell, runtime_api, end })
    }

    /// Takes over the asynchronous requests an earlier life accepted and did not settle: what was
    /// fenced is settled as cancelled and never runs again; the rest waits again. `swept`: everything
    /// the earlier life ran is proven gone.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn recover(
        &self,
        functions: &HashMap<FunctionKey, Arc<FunctionSpec>>,
        swept: bool,
    ) -> Result<Recovered, StartError> {
        receipt::close_interrupted(self.handle.store.as_ref(), self.handle.nodes.as_ref(), swept).await?;
        let store = &self.handle.store;
        let (mut recovered, mut after) = (Recovered::default(), None);
        let mut up = HashSet::new();
        loop {
            let page = store.unsettled(after, RECOVERY_PAGE).await?;
            let Some(last) = page.last() else {
                // Behind all that they are about.
                bulk::resume(&self.handle).await?;
                return Ok(recovered);
            };
            after = Some(last.request);
            for row in page {
                let request = row.request;
                if row.fenced_by.is_some() {
                    store.settle(never_here(&row, Outcome::Canceled)).await?;
                    recovered.settled_canceled += 1;
                } else if let Some(function) = functions.get(&row.function) {
                    let given_up = is_given_up(&row);
                    let (parent, over) = above(store.as_ref(), row.parent, &up).await?;
                    if !given_up {
                        up.insert(request); // what is given up is over for what hangs below it
                    }
                    if row.status == Status::Running && !given_up {
                        store.mark_waiting(request, row.failures, row.not_before_ms).await?;
                    }
                    let message = Message::Arrived(taken_up(row, Arc::clone(function), parent, over));
                    drop(self.handle.inbox.send(message).await); // closed: the node is ending already
                    match given_up {
                        true => recovered.settled_failed += 1,
                        false => recovered.requeued += 1,
                    }
                } else {
                    store.settle(never_here(&row, Outcome::Failed(codes::NO_FUNCTION))).await?;
                    recovered.discarded += 1;
                }
            }
        }
    }

    /// Resolves if the shell's task is over although nobody asked for a drain: it panicked, and nothing
    /// decides any more. The process should end then, and its supervisor start another.
    pub async fn failed(&mut self) -> String {
        match (&mut self.shell).await {
            Ok(()) => "the shell's task has ended".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// Waits until a drain is over (see [`Handle::drain`]), then closes the Runtime API.
    pub async fn ended(self) {
        if let Err(error) = self.shell.await {
            tracing::error!(%error, "the shell's task ended badly");
        }
        if let Some(logs) = &self.handle.logs {
            logs.flush().await; // the last words of what ran
        }
        self.end.cancel();
        if let Err(error) = self.runtime_api.await {
            tracing::error!(%error, "the Runtime API's task ended badly");
        }
    }
}

/// Whether nodes have ended under it too often.
fn is_given_up(row: &InvocationRecord) -> bool {
    row.attempts.saturating_sub(row.failures) >= MAX_LIVES
}

/// A request of the store as it comes to the shell: below `parent`, and left by those that are `over`.
pub(crate) fn taken_up(
    row: InvocationRecord,
    function: Arc<FunctionSpec>,
    parent: Option<RequestId>,
    over: Vec<RequestId>,
) -> Arrival {
    let kept = Kept {
        attempts: row.attempts,
        failures: row.failures,
        not_before_ms: row.not_before_ms,
        hops: row.hops,
        created_ms: row.created_ms,
        over,
        given_up: is_given_up(&row),
        root: row.root,
    };
    let invocation = Invocation {
        request: row.request,
        function,
        alias: row.alias.map(Arc::from),
        payload: Bytes::new(), // read when its turn comes
        parent,
        detached: false,
        labels: row.labels,
        log: false,
        trace: None,
    };
    Arrival { invocation, mode: Mode::Kept(kept) }
}

/// The last form of a row that ends without ever having come to the engine of this life: it was cancelled, or its function is gone.
pub(crate) fn never_here(row: &InvocationRecord, outcome: Outcome) -> Settlement {
    Settlement {
        request: row.request,
        status: wire_status(outcome, row.attempts > 0).1,
        error_code: i32::from(outcome.code()),
        error_message: codes::message(outcome).to_owned(),
        ended_ms: now_ms(),
        tail: false,
        next: None,
    }
}

/// The nearest request above that is taken up, and those on the way to it that are over: a tree holds
/// together over what has ended in its middle.
async fn above(
    store: &dyn Store,
    parent: Option<RequestId>,
    taken_up: &HashSet<RequestId>,
) -> Result<(Option<RequestId>, Vec<RequestId>), StoreError> {
    let (mut at, mut over) = (parent, Vec::new());
    while let Some(id) = at.filter(|id| !taken_up.contains(id) && over.len() < MAX_ABOVE) {
        over.push(id);
        at = store.invocation(id).await?.and_then(|row| row.parent);
    }
    Ok((at, over))
}
