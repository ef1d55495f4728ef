//! What can be looked at, as it goes out in JSON. Times are milliseconds since the Unix epoch.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use store::FunctionKey;
use utoipa::ToSchema;

/// One request in a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RequestRow {
    /// Its id.
    pub request_id: String,
    /// The request that made it.
    pub parent: Option<String>,
    /// Its distance from the root.
    pub depth: u16,
    /// The function it runs, `package:name`; empty if it has settled and that is not remembered.
    pub function: String,
    /// The version of it; empty as above.
    #[serde(default)]
    pub version: String,
    /// The alias it was invoked by.
    #[serde(default)]
    pub alias: Option<String>,
    /// What whoever invoked it says of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `queued`, `placed`, `running`, `draining` or `settled`.
    pub state: String,
    /// Whether nobody holds a connection for it; `null` if it has settled and that is not remembered.
    #[serde(default)]
    pub asynchronous: Option<bool>,
    /// How hard it is being stopped: `ask` or `kill`.
    pub stopping: Option<String>,
    /// The cancel that fenced it first.
    pub cancel_id: Option<String>,
    /// Its wire code if settled: 0 or the error code.
    pub code: Option<u16>,
    /// The instance it is on.
    pub instance: Option<String>,
    /// The main process of that instance.
    pub pid: Option<u32>,
    /// Deliveries so far.
    pub attempt: u32,
    /// When it arrived; `null` if it has settled and that is not remembered.
    #[serde(default)]
    pub created_ms: Option<i64>,
    /// When its last attempt was handed over.
    pub started_ms: Option<i64>,
    /// The node that has it, if that is another than the one that was asked; in a list over all nodes that one too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What it waits for beside room, where its function asks for labels of its node and no node has it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<WaitsFor>,
}

/// A node that a request waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitsFor {
    /// The labels it must have.
    pub node_labels: Vec<String>,
    /// How many live nodes have all of them; `null` where that cannot be read.
    pub live_nodes: Option<u32>,
}

/// A tree from its root, parents before children.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeView {
    /// The root's id.
    pub root: String,
    /// The project all of it belongs to.
    pub project: String,
    /// Its requests; at most a fixed number, see `truncated`.
    pub requests: Vec<RequestRow>,
    /// Whether there are more than are shown.
    pub truncated: bool,
}

/// A process of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProcessRow {
    /// Its number, as the node sees it.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its state letter, as in `/proc/PID/stat`.
    pub state: String,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceRow {
    /// Its id, never used again.
    pub instance: String,
    /// `package:name` of its function.
    pub function: String,
    /// The version of it.
    #[serde(default)]
    pub version: String,
    /// Its main process.
    pub pid: Option<u32>,
    /// `starting`, `ready`, `draining`, `ending` or `quarantined`.
    pub state: String,
    /// Requests it may hold at once.
    pub capacity: u32,
    /// Requests on it.
    pub requests: Vec<String>,
    /// Whether it listens for cancellations by request id.
    pub cooperates: bool,
    /// What contains it.
    pub containment: Option<String>,
    /// `forked`; or why it was executed although its function asks for a fork server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_server: Option<String>,
    /// Its processes.
    pub processes: Vec<ProcessRow>,
}

/// A process that forks the instances of one version of a function. It serves no requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForkServerRow {
    /// Its id, of the same row of numbers as those of instances.
    pub fork_server: String,
    /// `package:name` of its function.
    pub function: String,
    /// The version of it.
    pub version: String,
    /// Its main process.
    pub pid: Option<u32>,
    /// What contains it.
    pub containment: Option<String>,
    /// It could not be killed in time: which processes and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
}

/// One request of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanRow {
    /// Which.
    pub request_id: String,
    /// Its function, `package:name`.
    pub function: String,
    /// The version of it.
    #[serde(default)]
    pub version: String,
    /// `removed`, `asked`, `killed`, `stopping` or `draining`.
    pub how: String,
    /// Where it runs.
    pub instance: Option<String>,
    /// For `asked`: `kill` or `drain`, when its grace ends without effect.
    pub at_grace_end: Option<String>,
    /// When it arrived; 0 where a node of an earlier version does not say.
    #[serde(default)]
    pub created_ms: i64,
    /// The node that has it, if that is another than the one that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// What a cancel would do now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// The requests in scope.
    pub stops: Vec<PlanRow>,
    /// The instances that would die at once, with their processes.
    pub kills: Vec<InstanceRow>,
    /// Requests outside the scope that would end with 4208.
    pub collateral: Vec<String>,
    /// Requests outside the scope that would wait again.
    pub requeued: Vec<String>,
    /// Requests in scope that are on other nodes or wait for any: on what instance they are, and whom else a cancel touches
    /// there, is not known here.
    #[serde(default)]
    pub elsewhere: u32,
}

/// Everything that lives on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Live requests, oldest first; at most a fixed number, see `truncated`.
    pub requests: Vec<RequestRow>,
    /// Live instances.
    pub instances: Vec<InstanceRow>,
    /// Processes that fork instances.
    #[serde(default)]
    pub fork_servers: Vec<ForkServerRow>,
    /// The node's name, where several share its store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Live requests in all.
    pub live: u32,
    /// Whether there are more than are shown.
    pub truncated: bool,
    /// Whether the node takes no new requests.
    pub draining: bool,
    /// Results and records of cancels that the disk has refused so far; they are tried again.
    pub unwritten: u32,
    /// Lines that functions printed and that are in no log.
    #[serde(default)]
    pub log_lines_lost: u64,
    /// What contains runtimes on this machine, and what does not and why.
    pub containment: Vec<MeansRow>,
    /// What is limited for each instance, and how.
    pub limits: Vec<MeansRow>,
}

/// One means of the node, and whether it is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MeansRow {
    /// `L0` to `L6`, of a layer of containment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it is, or what is limited.
    pub name: String,
    /// Whether it is used here.
    pub active: bool,
    /// What it gives; or why it is not used, and what to do to get it.
    pub detail: String,
}

/// How many instances of a function live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceCount {
    /// Which function.
    pub function: FunctionKey,
    /// All that are there, of any revision, in any state.
    pub live: usize,
    /// Of these, those of its current revision that can take requests.
    pub ready: usize,
    /// So many are kept as reserved ones.
    pub reserved: usize,
}
