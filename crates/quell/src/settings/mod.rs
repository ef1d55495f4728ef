//! What a node is started with: each setting once, in one table, from which come the flags, the variables, the keys
//! of `quell.toml`, the checks and `docs/configuration.md`.
//!
//! [`table`] lists them, [`field`] reads and shows a value, [`file`](mod@file) reads a `quell.toml`, [`given`] puts flags,
//! environment, file and defaults together, [`checks`] looks at what only all of them together say.

mod checks;
mod field;
mod file;
mod given;
mod mistakes;
mod shown;
mod table;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::ValueEnum;
use store::NodeLabels;
use supervisor::LogSettings;

#[cfg(feature = "otlp")]
pub(crate) use self::field::Endpoint;
#[cfg(not(feature = "otlp"))]
use self::field::Endpoint;
pub(crate) use self::field::StoreUrl;
pub(crate) use self::{
    checks::server,
    field::{Filter, LogFormat, found, meant},
    file::{line_of, position, syntax},
    given::{Given, Loaded},
    mistakes::Mistakes,
    shown::{check, example, show},
    table::{Reload, SETTINGS, Setting},
};
use self::{file::File, given::NAME};
use crate::runtime_user::RuntimeUser;

/// How a node runs. What each field means, its unit and its reason: [`table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSettings {
    pub(crate) data: PathBuf,
    pub(crate) store: Option<StoreUrl>,
    pub(crate) store_password_file: Option<PathBuf>,
    pub(crate) store_ca: Option<PathBuf>,
    pub(crate) lease: Duration,
    pub(crate) node_labels: NodeLabels,
    pub(crate) images: Vec<PathBuf>,
    pub(crate) listen: SocketAddr,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) peer_connections: u32,
    pub(crate) body_timeout: Duration,
    pub(crate) project: String,
    pub(crate) region: String,
    pub(crate) isolation: IsolationArg,
    pub(crate) runtime_user: RuntimeUser,
    pub(crate) max_processes: u32,
    pub(crate) tmp_mib: u64,
    pub(crate) retry_backoff: Duration,
    pub(crate) otlp_endpoint: Option<Endpoint>,
    pub(crate) log: Filter,
    pub(crate) log_format: LogFormat,
    pub(crate) log_instance_mib: u64,
    pub(crate) log_function_mib: u64,
    pub(crate) log_total_mib: u64,
    pub(crate) keep_days: u64,
    pub(crate) drain: Duration,
    pub(crate) kill_timeout: Duration,
    pub(crate) idle: Duration,
    pub(crate) queue_timeout: Duration,
    pub(crate) max_instances: usize,
    pub(crate) rate_limit: u32,
    pub(crate) function_rate_limit: u32,
    pub(crate) refusal_limit: u32,
}

impl Default for NodeSettings {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self {
            data: PathBuf::from("quell-data"),
            store: None,
            store_password_file: None,
            store_ca: None,
            lease: Duration::from_secs(10),
            node_labels: NodeLabels::default(),
            images: Vec::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7171)),
            metrics_listen: None,
            tls_cert: None,
            tls_key: None,
            peer_connections: 256,
            body_timeout: minute,
            project: "default".to_owned(),
            region: "local".to_owned(),
            isolation: IsolationArg::Auto,
            runtime_user: RuntimeUser::Auto,
            max_processes: 1_024,
            tmp_mib: 512,
            retry_backoff: Duration::from_secs(1),
            otlp_endpoint: None,
            log: Filter::default(),
            log_format: LogFormat::Text,
            log_instance_mib: LogSettings::INSTANCE_BYTES >> 20,
            log_function_mib: LogSettings::FUNCTION_BYTES >> 20,
            log_total_mib: LogSettings::TOTAL_BYTES >> 20,
            keep_days: 7,
            drain: Duration::from_secs(30),
            kill_timeout: Duration::from_secs(10),
            idle: minute,
            queue_timeout: minute,
            max_instances: 512,
            rate_limit: 0,
            function_rate_limit: 1_000,
            refusal_limit: 100,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsolationArg {
    /// The strongest that works here.
    Auto,
    /// A cgroup per instance and no namespace, or refuse to start.
    Cgroup,
    /// A child subreaper per instance: no privilege needed.
    Subreaper,
    /// Process groups only: what leaves the group is not seen.
    ProcessGroup,
}
