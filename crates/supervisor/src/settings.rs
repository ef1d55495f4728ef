//! What can be set of a node, and the fixed bounds with their reasons (I10).

use std::time::Duration;

use cancel::Bounds;
use store::NodeLabels;

use crate::{logs::LogSettings, spans::Spans};

/// Messages the inbox holds. At about 10 us a message this is 40 ms of work: enough to ride out a
/// burst, short enough that a cancel in it is not late. When it is full, new invocations are refused
/// as busy; everything else waits for room.
pub(crate) const INBOX: usize = 4_096;

/// Polls for work one instance may have open. A runtime that opens more gets 503 for the rest.
pub(crate) const MAX_POLLS: usize = 1_024;

/// Requests shown of one tree or of the node.
pub(crate) const MAX_SHOWN: usize = 5_000;

/// Requests that one selection may have: a bulk cancel keeps its ids, 24 bytes each in memory and 45 in the store.
pub(crate) const MAX_SELECTED: usize = 100_000;

/// Askers named in one receipt; later ones are answered and not named.
pub(crate) const MAX_NAMED_ASKERS: usize = 64;

/// Largest response of a function (`functiongraph.md` 3: 6 MiB, "plus or minus 100 bytes").
pub const MAX_RESPONSE_BYTES: usize = 6_291_456 + 100;

/// Settled requests of which the node remembers the function, so that a late cancel can be answered
/// without the store.
pub(crate) const MAX_REMEMBERED: usize = 100_000;

/// What of the settings may change while a node runs. Each is looked at when it is needed, so a change holds for what
/// begins after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunable {
    /// See [`Settings::kill_timeout`].
    pub kill_timeout: Duration,
    /// See [`Settings::idle_release`].
    pub idle_release: Duration,
    /// See [`Settings::queue_timeout`].
    pub queue_timeout: Duration,
    /// See [`Settings::max_instances`]. What runs beyond a lower one goes on.
    pub max_instances: usize,
    /// See [`Settings::max_processes`].
    pub max_processes: u32,
    /// See [`Settings::tmp_bytes`].
    pub tmp_bytes: u64,
    /// See [`Settings::retry_backoff`].
    pub retry_backoff: Duration,
    /// See [`Settings::retention`].
    pub retention: Duration,
}

/// Settings of the shell.
#[derive(Clone, Debug)]
pub struct Settings {
    /// After this a killed instance that is not proven dead is reported as unkillable.
    pub kill_timeout: Duration,
    /// An instance with nothing to do for this long is released.
    pub idle_release: Duration,
    /// A synchronous request waits this long for a place.
    pub queue_timeout: Duration,
    /// Instances on the node.
    pub max_instances: usize,
    /// Instances starting at once: more would only make each slower.
    pub max_starting: usize,
    /// Processes and threads of one instance at once.
    pub max_processes: u32,
    /// Bytes of the `/tmp` of one instance, where it has its own. They count as its memory.
    pub tmp_bytes: u64,
    /// Bytes of events in memory: what is on its way into the store, or out of it to a runtime.
    pub max_waiting_bytes: usize,
    /// Beyond this much of it, what is in the store is dropped from memory and read when its turn comes.
    pub kept_bytes: usize,
    /// The pause before the second attempt of an asynchronous request; doubled before each further one.
    pub retry_backoff: Duration,
    /// What is over is forgotten after this: requests, and receipts of cancels.
    pub retention: Duration,
    /// Where what functions print is kept; `None`: it is not.
    pub logs: Option<LogSettings>,
    /// Where spans of requests and cancels go; `None`: nobody collects them.
    pub spans: Option<Spans>,
    /// Bounds of the request tree.
    pub bounds: Bounds,
    /// What functions may ask of their nodes, and this one has.
    pub node_labels: NodeLabels,
    /// Where runtimes reach the node's own API, `http://host:port`.
    pub api_endpoint: String,
}

impl Settings {
    /// Takes these over.
    pub fn tune(&mut self, to: Tunable) {
        self.kill_timeout = to.kill_timeout;
        self.idle_release = to.idle_release;
        self.queue_timeout = to.queue_timeout;
        self.max_instances = to.max_instances;
        self.max_processes = to.max_processes;
        self.tmp_bytes = to.tmp_bytes;
        self.retry_backoff = to.retry_backoff;
        self.retention = to.retention;
    }
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            kill_timeout: Duration::from_secs(10),
            idle_release: Duration::from_secs(60),
            queue_timeout: Duration::from_secs(60),
            max_instances: 512,
            max_starting: (2 * cores).max(4),
            max_processes: 1_024,
            tmp_bytes: 512 << 20,
            max_waiting_bytes: 256 << 20,
            kept_bytes: 64 << 20,
            retry_backoff: Duration::from_secs(1),
            retention: Duration::from_secs(7 * 24 * 3_600),
            logs: None,
            spans: None,
            bounds: Bounds::default(),
            node_labels: NodeLabels::default(),
            api_endpoint: String::new(),
        }
    }
}
