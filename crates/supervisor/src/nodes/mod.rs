//! One node among several that share a store: what it claims, what it stops for others, whom it asks.
//!
//! The shell stays what it is on a lone node, and knows of the others only three things: an accepted request may be
//! left to whoever has room ([`store::Placement::Anywhere`]), a cancel of a tree is recorded with its reach over nodes
//! ([`store::Reach`]), and a request that it does not hold may be held elsewhere ([`CancelAnswer::Elsewhere`]). The rest is
//! here, in tasks of its own: `cancels` asks the others, `parts` does what they ask, `claims` takes requests out of the
//! shared queue, `work` does both in turn, `lease` keeps the node among the living, and says when it is not any more.

mod cancels;
mod claims;
mod elsewhere;
mod failing;
mod figures;
mod lease;
mod orphans;
mod owned;
mod parts;
mod trees;
mod unplaceable;
mod work;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cancel::{CancelId, RequestId};
use serde::{Deserialize, Serialize};
use store::{FunctionFilter, NodeRow, Shared, StoreError};
use tokio::sync::{Notify, watch};

pub(crate) use claims::Room;
pub use figures::NodesMetrics;
pub use lease::{Lease, LeaseSettings, Lost};
pub(crate) use owned::Banned;
pub use work::Working;

use crate::{
    handle::{Actor, CancelAnswer},
    receipt::{NodePart, Receipt},
};

/// What a node knows of the others, and how it reaches them: through the store alone.
pub struct Nodes {
    shared: Arc<dyn Shared>,
    /// It holds its lease and reaches the store: new requests are taken.
    accepts: AtomicBool,
    /// Its lease is over: what it ran is ended, and its next life begins when the store answers.
    lapsed: AtomicBool,
    /// Something waits in the shared queue, as far as is known.
    waiting: AtomicBool,
    /// Room came free, or something is waiting for it.
    work: Notify,
    /// Functions were read again: what could not run here a moment ago may now.
    read_again: AtomicBool,
    /// Requests that the shell has let go of, on their way back into the shared queue. As many as it had at most.
    left: Mutex<Vec<RequestId>>,
    /// The lease is to be renewed at once.
    hurry: Notify,
    /// Rises when another node may have changed a function, an alias or an asynchronous configuration.
    functions: watch::Sender<u64>,
    /// Held while requests pass from the shared queue into this shell, and while both are looked through together: what
    /// was the store's a moment ago and is not the shell's yet would be seen in neither.
    passing: tokio::sync::Mutex<()>,
    metrics: NodesMetrics,
    /// How long a cancel waits for other nodes beyond what their functions' graces take.
    patience: Duration,
    /// Receipts whose last form is on its way to the store.
    closing: Mutex<HashMap<CancelId, Receipt>>,
}

/// Beyond a kill that takes its whole limit and a lease that runs out: what the store and the way to it may take.
const STORE_TAKES: Duration = Duration::from_secs(10);
/// The longest grace that a function may have.
const LONGEST_GRACE: Duration = Duration::from_secs(900);

impl Nodes {
    /// A node of this store, that holds no lease yet.
    pub fn new(shared: Arc<dyn Shared>, kill_timeout: Duration, lease: Duration) -> Arc<Self> {
        Arc::new(Self {
            shared,
            accepts: AtomicBool::new(false),
            lapsed: AtomicBool::new(false),
            waiting: AtomicBool::new(true),
            work: Notify::new(),
            read_again: AtomicBool::new(false),
            left: Mutex::default(),
            hurry: Notify::new(),
            functions: watch::Sender::new(0),
            passing: tokio::sync::Mutex::new(()),
            metrics: NodesMetrics::new(),
            patience: LONGEST_GRACE + kill_timeout + lease + STORE_TAKES,
            closing: Mutex::default(),
        })
    }

    /// The store.
    pub fn shared(&self) -> &Arc<dyn Shared> {
        &self.shared
    }

    /// Whether new requests are taken: it holds its lease, and the store answered when it was asked last.
    pub fn accepts(&self) -> bool {
        self.accepts.load(Ordering::Relaxed)
    }

    /// Whether this life's lease is over: the next one begins by itself when the store answers.
    pub fn lapsed(&self) -> bool {
        self.lapsed.load(Ordering::Relaxed)
    }

    /// Rises when another node may have changed what functions there are: they are to be read again.
    pub fn function_changes(&self) -> watch::Receiver<u64> {
        self.functions.subscribe()
    }

    /// All nodes of the store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn all(&self) -> Result<Vec<NodeRow>, StoreError> {
        self.shared.nodes().await
    }

    /// Something came into the shared queue.
    pub(crate) fn waits(&self) {
        self.waiting.store(true, Ordering::Relaxed);
        self.work.notify_one();
    }

    /// What other nodes changed of functions is here: what was given back as unknown is wanted again.
    pub fn functions_read(&self) {
        self.read_again.store(true, Ordering::Relaxed);
        self.waits();
    }

    /// These may not run here: for others.
    pub(crate) fn give_back_later(&self, requests: Vec<RequestId>) {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).extend(requests);
        self.work.notify_one();
    }

    /// Room may have come free: there may be something to claim.
    pub(crate) fn room(&self) {
        self.work.notify_one();
    }
}

/// Who asks for a cancel and of what, as it travels to the nodes that carry it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartActor {
    credential: String,
    remote: Option<std::net::IpAddr>,
    reason: Option<String>,
    bulk: Option<String>,
    project: String,
    package: String,
    name: String,
    versions: Vec<String>,
}

impl PartActor {
    pub(crate) fn new(actor: &Actor, function: &FunctionFilter) -> Self {
        let Actor { credential, remote, reason, bulk } = actor.clone();
        let FunctionFilter { project, package, name, versions } = function.clone();
        Self { credential, remote, reason, bulk, project, package, name, versions }
    }

    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() // plain strings: it cannot fail
    }

    fn split(self) -> (Actor, FunctionFilter) {
        let Self { credential, remote, reason, bulk, project, package, name, versions } = self;
        (Actor { credential, remote, reason, bulk }, FunctionFilter { project, package, name, versions })
    }
}

/// What is told of a part in a receipt.
pub(crate) fn shown(part: &store::Part) -> NodePart {
    let state = match part.state {
        store::PartState::Open => "open",
        store::PartState::Stopped => "stopped",
        store::PartState::Draining => "draining",
        store::PartState::Unkillable => "unkillable",
        store::PartState::Finished => "finished",
        store::PartState::NotHere => "not_here",
        store::PartState::NodeLost => "lease_over",
    };
    NodePart {
        node: part.node.clone(),
        request_id: part.request.to_string(),
        result: state.to_owned(),
        detail: part.detail.clone(),
    }
}

/// How a wait for other nodes ended.
pub(crate) enum Waited {
    /// Every part was reported.
    Done(Vec<store::Part>),
    /// Some of these were not reported in time.
    Silent(Vec<store::Part>),
    /// The store cannot be asked, or this node is ending: what the others did is not known.
    Unreadable(StoreError),
}

impl Waited {
    /// What is known of the parts.
    fn parts(&self) -> &[store::Part] {
        match self {
            Self::Done(parts) | Self::Silent(parts) => parts,
            Self::Unreadable(_) => &[],
        }
    }

    /// Says of an answer, that holds for this node, what holds for all.
    pub(crate) fn over(self, cancel: CancelId, here: CancelAnswer) -> CancelAnswer {
        use crate::handle::Stop;
        let unkillable = |detail: String| CancelAnswer::Unkillable { cancel, detail };
        let parts = match self {
            Self::Done(parts) => parts,
            Self::Silent(parts) => {
                let open = parts.iter().filter(|part| part.state == store::PartState::Open);
                let silent: std::collections::BTreeSet<&str> = open.map(|part| part.node.as_str()).collect();
                let silent: Vec<&str> = silent.into_iter().collect();
                return unkillable(format!("no word from {}", silent.join(", ")));
            }
            // Neither that it is stopped nor that it is not.
            Self::Unreadable(error) => {
                tracing::error!(%cancel, %error, "what other nodes did is not known");
                return CancelAnswer::Gone;
            }
        };
        let stuck: Vec<String> = parts
            .iter()
            .filter(|part| part.state == store::PartState::Unkillable)
            .map(|part| format!("on node {}: {}", part.node, part.detail))
            .collect();
        let drains = parts.iter().any(|part| part.state == store::PartState::Draining);
        match here {
            CancelAnswer::Done { .. } if !stuck.is_empty() => unkillable(stuck.join("; ")),
            CancelAnswer::Done { stop: Stop::Stopped, .. } if drains => {
                CancelAnswer::Done { cancel, stop: Stop::Draining }
            }
            here => here,
        }
    }
}
