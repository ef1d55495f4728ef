//! What the shell must know of a function to run it: its configuration as plain values.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use cancel::{OnCollateral, OnGrace};
use store::{FunctionKey, NodeLabels};

/// How a kind of runtime is started; one folder under `runtime-images/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeImage {
    /// The image's name, e.g. `python`.
    pub name: String,
    /// The FunctionGraph runtime names it serves, e.g. `Python3.10`.
    pub runtimes: Vec<String>,
    /// Program and arguments. In them and in `env`, `{image}` and `{code}` stand for the folders of the image
    /// and of the function's code, `{handler}`, `{function}`, `{version}`, `{memory_mb}`, `{concurrency}` for
    /// what the function says, `{region}` for that of its URN, `{instance}` for the instance's id, `{runtime_api}`
    /// for the address of the Runtime API.
    pub command: Vec<String>,
    /// The same for a fork server; empty if the image has none. It gets a socket as its standard input
    /// (`docs/runtime-images.md`).
    pub fork_server: Vec<String>,
    /// Its own environment variables, over those every runtime gets.
    pub env: BTreeMap<String, String>,
    /// Those that an instance has besides which may hold several requests at once.
    pub env_shared: BTreeMap<String, String>,
    /// The program that must be there and is tried with `--version`, where that is not the first word of the
    /// command.
    pub interpreter: Option<String>,
    /// Where the image's files are.
    pub dir: PathBuf,
    /// A file that must be in the function's code, or the start fails with 4202.
    pub requires: Option<String>,
    /// The runtime does not poll: it is an HTTP server on this port, and the node its client.
    pub http_port: Option<u16>,
}

/// Which network an instance is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// One of its own for an HTTP server where that can be had, else the node's.
    #[default]
    Auto,
    /// One of its own: it reaches nothing but its node. Where that cannot be had it does not start.
    Own,
    /// The node's.
    Node,
}

/// What happens when a synchronous caller goes away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    /// The request goes on.
    #[default]
    Continue,
    /// It is cancelled with the cause `disconnect`.
    Cancel,
}

/// What becomes of the asynchronous requests of a function (`functiongraph.md` 2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsyncPolicy {
    /// One that was not handed to a runtime within this after its acceptance is given up; one whose
    /// attempt failed is not tried again after it.
    pub max_age: Duration,
    /// Further attempts after one that failed; a cancel or a time limit ends a request for good.
    pub retries: u8,
    /// Whether an attempt counts as failed that the function's own code failed (it raised, or its result
    /// cannot be used). Else only what is not its doing is tried again: a runtime that died, or did not start.
    pub retry_own_errors: bool,
    /// The function of the same project that is invoked with the result of a success.
    pub on_success: Option<FunctionKey>,
    /// The same for a failure.
    pub on_failure: Option<FunctionKey>,
}

impl Default for AsyncPolicy {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(3_600),
            retries: 1,
            retry_own_errors: false,
            on_success: None,
            on_failure: None,
        }
    }
}

/// A handler that an instance runs before it is retired; no cancel and no limit that is over waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreStop {
    /// `file.function`.
    pub handler: String,
    /// After this the instance is killed whether or not the handler is done.
    pub timeout: Duration,
}

/// One version of a function in one revision, ready to run.
#[derive(Clone, Debug)]
pub struct FunctionSpec {
    /// Which version of which function. Shared with the maps and rows that name it.
    pub key: Arc<FunctionKey>,
    /// Its full URN, with version.
    pub urn: String,
    /// Rises with each change of `latest`, and is fixed for a published version; an instance runs exactly one revision.
    pub revision: u64,
    /// How its runtime is started.
    pub image: Arc<RuntimeImage>,
    /// Where its unpacked code is.
    pub code_dir: PathBuf,
    /// `file.function`.
    pub handler: String,
    /// `file.function` that runs once per instance before any request.
    pub initializer: Option<String>,
    /// What an instance may do before it is ended that has nothing more to do.
    pub pre_stop: Option<PreStop>,
    /// The limit of one attempt.
    pub timeout: Duration,
    /// The limit of an instance's start, initializer included.
    pub start_timeout: Duration,
    /// MiB; told to the runtime, and the limit of all its processes together where there is a way.
    pub memory_mb: u32,
    /// Millicores; told to the runtime.
    pub cpu_millis: u32,
    /// A JSON object, told to the runtime.
    pub user_data: String,
    /// Requests an instance may hold at once.
    pub concurrency: u32,
    /// Instances at most; 0 means that the function is disabled.
    pub max_instances: u32,
    /// Instances that are kept whether or not there is work, up to `max_instances`. May change without a new
    /// revision.
    pub reserved: u32,
    /// Its instances are forked from a process that has imported its code, where that is possible.
    pub fork_server: bool,
    /// Time between Ask and what follows.
    pub grace: Duration,
    /// What follows, with co-tenants.
    pub on_grace: OnGrace,
    /// What becomes of co-tenants of a killed instance.
    pub on_collateral: OnCollateral,
    /// What happens when a synchronous caller goes away.
    pub on_disconnect: OnDisconnect,
    /// Which network its instances are in.
    pub network: Network,
    /// The labels that a node must have to run it.
    pub node_labels: NodeLabels,
    /// What becomes of its asynchronous requests. May change without a new revision.
    pub asynchronous: AsyncPolicy,
}
