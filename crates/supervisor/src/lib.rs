//! The shell around the cancel engine: spawns, contains, signals and reaps runtimes.
//!
//! One task owns the engine and one ordered inbox (`shell`); everything that takes time is a task of
//! its own that reports back as a message. `group` is the only place with PIDs and signals, and the
//! only crate of the workspace that may hold `unsafe`. What others hold is the [`Handle`].

mod admission;
mod answers;
mod asks;
mod bulk;
mod census;
mod codes;
mod counters;
mod credentials;
mod doors;
mod drafts;
mod environment;
mod fork_server;
mod forked;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
pub mod group;
mod handle;
pub mod http;
mod http_function;
mod instance;
mod lifecycle;
mod live;
mod logged;
mod logs;
mod look;
mod measure;
mod message;
mod metrics;
mod node;
mod nodes;
mod notices;
mod own_network;
mod payloads;
mod peer;
mod perform;
mod placement;
mod pool;
mod ports;
mod pre_stop;
mod receipt;
mod remembered;
mod request;
mod reserve;
mod results;
mod retries;
mod runtime_api;
mod runtimes;
mod seen;
mod selection;
mod settings;
mod shell;
mod spans;
mod spec;
mod starting;
mod trace;
mod unwritten;
mod view;
mod watch;
mod workers;

pub use bulk::{Bulk, BulkDraining, BulkFailure, BulkOrder, BulkPlan, BulkRefusal, FirstIds, MAX_BULK_RATE};
pub use census::{Census, FunctionCensus, INSTANCE_STATES};
pub use codes::message as code_message;
pub use counters::{Counts, MINUTES_KEPT, Minute, Of};
pub use credentials::{AttemptCredentials, AttemptIdentity, AttemptSecrets, AttemptSigner, is_attempt_token};
pub use handle::{
    Actor, CancelAnswer, CancelOrder, Completion, Handle, Invocation, InvokeError, NodeLimits, RunLog, Stop,
};
pub use logs::{Follower, LogError, LogLine, LogOf, LogQuery, LogSettings, Logs, Stream};
pub use metrics::{CancelTimes, Each, Each4, MODES, Metrics, OUTCOMES, Requests};
pub use node::{Node, Recovered, StartError};
pub use nodes::{Lease, LeaseSettings, Lost, Nodes, NodesMetrics, Working};
pub use receipt::{AskedBy, NodePart, Receipt, TouchedInstance, TouchedRequest};
pub use selection::{AsOf, ListedPage, NotSelected, Selection, Standing};
pub use settings::{MAX_RESPONSE_BYTES, Settings, Tunable};
pub use spans::{Span, Spans};
pub use spec::{AsyncPolicy, FunctionSpec, Network, OnDisconnect, PreStop, RuntimeImage};
pub use trace::TraceContext;
pub use view::{
    ForkServerRow, InstanceCount, InstanceRow, NodeView, PlanRow, PlanView, ProcessRow, RequestRow, TreeView,
    WaitsFor,
};
pub use watch::{Changes, MAX_PROJECT_WATCHERS, MAX_WATCHERS, WATCH_HEARTBEAT, WatchError, Watcher};
