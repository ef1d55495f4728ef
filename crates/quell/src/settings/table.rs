//! The settings, one row each.

use super::{
    NodeSettings,
    field::{Field, Range},
};

/// When a change of the file comes into effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// At SIGHUP.
    AtOnce,
    /// At SIGHUP, for what begins after it; the text says what.
    Next(&'static str),
    /// At the next start; the text says why.
    Restart(&'static str),
}

/// Of each of the bounds of logs.
const LOG_BOUNDS: Reload = Reload::Restart("the writer of the logs keeps its bounds");

/// One setting: a flag, a variable and a key.
#[derive(Debug)]
pub(crate) struct Setting {
    /// In `quell.toml`. In capitals and behind `QUELL_` it is the variable.
    pub(crate) key: &'static str,
    /// Of `quell serve`, without its dashes.
    pub(crate) flag: &'static str,
    /// What it is, one line for `--help`.
    pub(crate) help: &'static str,
    /// Why it is what it is when nobody says anything.
    pub(crate) why: &'static str,
    /// In what it counts; empty where it does not.
    pub(crate) unit: &'static str,
    /// Between what a number is.
    pub(crate) range: Range,
    pub(crate) reload: Reload,
    pub(crate) at: At,
}

/// Where its value is.
#[derive(Debug)]
pub(crate) struct At {
    pub(crate) field: fn(&mut NodeSettings) -> &mut dyn Field,
    copy: fn(&NodeSettings, &mut NodeSettings),
}

macro_rules! at {
    ($field:ident) => {
        At { field: |of| &mut of.$field, copy: |from, to| to.$field = from.$field.clone() }
    };
}

impl Setting {
    /// The variable.
    pub(crate) fn variable(&self) -> String {
        format!("QUELL_{}", self.key.to_uppercase())
    }

    /// The value as TOML; `None` where there is none.
    pub(crate) fn shown(&self, of: &NodeSettings) -> Option<String> {
        (self.at.field)(&mut of.clone()).shown()
    }

    /// What a value of it is, in words.
    pub(crate) fn kind(&self) -> String {
        (self.at.field)(&mut NodeSettings::default()).kind(self.range)
    }

    /// Gives `to` the value that `from` has.
    pub(crate) fn copy(&self, from: &NodeSettings, to: &mut NodeSettings) {
        (self.at.copy)(from, to);
    }
}

/// What is no number has no range.
const ANY: Range = (f64::MIN, f64::MAX);
const MEBIBYTES: Range = (1.0, 1_048_576.0);
/// A year: longer is no limit any more, and shorter than what a clock can count.
const SECONDS: Range = (0.0, 31_536_000.0);
const RATE: Range = (0.0, 4_294_967_295.0);

/// Whatever is bound or opened once.
const BOUND: Reload = Reload::Restart("a port is bound once, at the start");
const INSTANCES: Reload = Reload::Next("instances that start after it");

/// All of them, in the order of the documentation.
pub(crate) static SETTINGS: &[Setting] = &[
    Setting {
        key: "data",
        flag: "data",
        help: "The folder where the node keeps everything it must not forget",
        why: "a first try needs no preparation; a service names a folder of its own",
        unit: "",
        range: ANY,
        reload: Reload::Restart("the store is opened once"),
        at: at!(data),
    },
    Setting {
        key: "store",
        flag: "store",
        help: "A PostgreSQL database that this node shares with others, such as \
               \"postgres://quell@db1,db2/quell?target_session_attrs=read-write\". Without it the node keeps everything in \
               its data folder, alone",
        why: "one node needs no server",
        unit: "",
        range: ANY,
        reload: Reload::Restart("the store is opened once"),
        at: at!(store),
    },
    Setting {
        key: "store_password_file",
        flag: "store-password-file",
        help: "A file with the password of that database's user in its first line. Make it readable for nobody but the node",
        why: "no setting is a secret: settings are shown, and flags are seen by every user of the machine",
        unit: "",
        range: ANY,
        reload: Reload::Restart("the store is opened once"),
        at: at!(store_password_file),
    },
    Setting {
        key: "store_ca",
        flag: "store-ca",
        help: "A PEM file with the certificates that the database's own must be signed by, where its URL asks for TLS",
        why: "a database on another machine has a certificate of somebody you know",
        unit: "",
        range: ANY,
        reload: Reload::Restart("the store is opened once"),
        at: at!(store_ca),
    },
    Setting {
        key: "lease_s",
        flag: "lease",
        help: "Without a renewal for so long, other nodes of the same store take this one's work; it stops what it runs \
               well before. The same for all nodes of a store",
        why: "short enough to wait for, long enough that a busy database or a short pause stops nothing",
        unit: "seconds",
        range: (3.0, 3_600.0),
        reload: Reload::Restart("a node joins once"),
        at: at!(lease),
    },
    Setting {
        key: "node_labels",
        flag: "node-labels",
        help: "What this node has that others may not, such as [\"gpu\", \"zone=a\"]: functions that ask for labels \
               (quell.node_labels) run on nodes that have all of them. At most 16. The variable and the flag have commas \
               between them, and the flag may be given more than once",
        why: "a function that asks for nothing runs anywhere",
        unit: "",
        range: ANY,
        reload: Reload::Restart("a node joins once"),
        at: at!(node_labels),
    },
    Setting {
        key: "listen",
        flag: "listen",
        help: "The address of the API. Before you leave loopback: tls_cert and tls_key, or a TLS proxy in front",
        why: "nobody but this machine reaches a node that nobody has set up",
        unit: "",
        range: ANY,
        reload: BOUND,
        at: at!(listen),
    },
    Setting {
        key: "tls_cert",
        flag: "tls-cert",
        help: "Speak TLS: a PEM file with the certificate of this node and those that signed it, its own first. Read \
               again when it changes, and at SIGHUP",
        why: "on loopback nobody listens in, and a certificate has to be made for a name first",
        unit: "",
        range: ANY,
        reload: Reload::Restart("the path; what is in the file is read again"),
        at: at!(tls_cert),
    },
    Setting {
        key: "tls_key",
        flag: "tls-key",
        help: "A PEM file with the key of that certificate. Make it readable for nobody but the node",
        why: "as tls_cert; neither goes without the other",
        unit: "",
        range: ANY,
        reload: Reload::Restart("the path; what is in the file is read again"),
        at: at!(tls_key),
    },
    Setting {
        key: "peer_connections",
        flag: "peer-connections",
        help: "Connections to the API that one address (of IPv6: one /64) may have at once. This machine may have \
               three quarters of all there are",
        why: "a sixteenth of all: no single address keeps the others out",
        unit: "connections",
        range: (1.0, 1_000_000.0),
        reload: Reload::Restart("a listener keeps what it was opened with"),
        at: at!(peer_connections),
    },
    Setting {
        key: "body_timeout_s",
        flag: "body-timeout",
        help: "How long the body of a request may take to arrive; code has as long for each 6 MiB",
        why: "6 MiB over a line of 1 Mbit/s",
        unit: "seconds",
        range: (0.001, 86_400.0),
        reload: Reload::Restart("a listener keeps what it was opened with"),
        at: at!(body_timeout),
    },
    Setting {
        key: "project",
        flag: "project",
        help: "The project of the credential that the first start creates",
        why: "one team needs no name for itself",
        unit: "",
        range: ANY,
        reload: Reload::Restart("the credential is made at the start"),
        at: at!(project),
    },
    Setting {
        key: "region",
        flag: "region",
        help: "The region in URNs",
        why: "a node is in no cloud's region",
        unit: "",
        range: ANY,
        reload: Reload::Restart("functions that run have it in their URNs"),
        at: at!(region),
    },
    Setting {
        key: "images",
        flag: "images",
        help: "Folders of runtime images of your own, each with folders that have an image.toml \
               (docs/runtime-images.md). The flag may be given more than once, the variable has `:` between them",
        why: "the images that are part of the binary are always there",
        unit: "",
        range: ANY,
        reload: Reload::Restart("images are read once"),
        at: at!(images),
    },
    Setting {
        key: "isolation",
        flag: "isolation",
        help: "How runtimes are contained",
        why: "the strongest that works here; name one to be refused rather than to have less",
        unit: "",
        range: ANY,
        reload: Reload::Restart("what contains instances is probed and made at the start"),
        at: at!(isolation),
    },
    Setting {
        key: "runtime_user",
        flag: "runtime-user",
        help: "As whom runtimes run: the number of a user and group; `node`, as the node itself; `auto`, where the \
               node is root as user 61000 if that one can reach the data folder and the interpreters, else as the \
               node (`quell doctor` tells)",
        why: "somebody who can do nothing to the node, wherever that works",
        unit: "",
        range: ANY,
        reload: Reload::Restart("it is tried at the start"),
        at: at!(runtime_user),
    },
    Setting {
        key: "max_instances",
        flag: "max-instances",
        help: "Instances the node runs at once",
        why: "at 128 MB each they fill 64 GB: lower it on a smaller machine",
        unit: "instances",
        range: (0.0, 1_000_000.0),
        reload: Reload::AtOnce,
        at: at!(max_instances),
    },
    Setting {
        key: "max_processes",
        flag: "max-processes",
        help: "Processes and threads that one instance may have at once",
        why: "more than interpreters and their thread pools take, and a fork bomb that ends soon",
        unit: "processes",
        range: (8.0, 1_000_000.0),
        reload: INSTANCES,
        at: at!(max_processes),
    },
    Setting {
        key: "tmp_mib",
        flag: "tmp-size",
        help: "The size of the /tmp of one instance where it has its own. What is written there counts as memory of \
               the function",
        why: "what the service gives",
        unit: "MiB",
        range: MEBIBYTES,
        reload: INSTANCES,
        at: at!(tmp_mib),
    },
    Setting {
        key: "idle_s",
        flag: "idle",
        help: "An instance with nothing to do for this long is released",
        why: "a start takes a hundred milliseconds; memory that nobody uses for a minute is worth more",
        unit: "seconds",
        range: SECONDS,
        reload: Reload::Next("instances that become idle after it"),
        at: at!(idle),
    },
    Setting {
        key: "queue_timeout_s",
        flag: "queue-timeout",
        help: "How long a synchronous request waits for a free instance",
        why: "callers give up about then",
        unit: "seconds",
        range: SECONDS,
        reload: Reload::Next("requests that come after it"),
        at: at!(queue_timeout),
    },
    Setting {
        key: "retry_backoff_s",
        flag: "retry-backoff",
        help: "The pause before the second attempt of an asynchronous request, doubled before each further one",
        why: "long enough for what was in a hurry to pass, short enough that nobody waits",
        unit: "seconds",
        range: SECONDS,
        reload: Reload::Next("attempts that fail after it"),
        at: at!(retry_backoff),
    },
    Setting {
        key: "kill_timeout_s",
        flag: "kill-timeout",
        help: "After this a killed instance that is not proven dead is reported as unkillable",
        why: "killed processes are gone in milliseconds; ten seconds are a system call that does not return",
        unit: "seconds",
        range: SECONDS,
        reload: INSTANCES,
        at: at!(kill_timeout),
    },
    Setting {
        key: "drain_s",
        flag: "drain",
        help: "How long a drain may last before what still runs is killed",
        why: "most functions are through by then, and no init system has lost its patience (systemd: 90 s)",
        unit: "seconds",
        range: SECONDS,
        reload: Reload::AtOnce,
        at: at!(drain),
    },
    Setting {
        key: "keep_days",
        flag: "keep-days",
        help: "For how long the node remembers requests that are over, receipts of cancels and logs",
        why: "a week: whoever comes back from a weekend still finds out what happened",
        unit: "days",
        range: (1.0, 3_650.0),
        reload: Reload::Next("requests and receipts at once, logs at the next start"),
        at: at!(keep_days),
    },
    Setting {
        key: "rate_limit",
        flag: "rate-limit",
        help: "Requests a second that one credential may make, and one address; more are answered 429. 0: as many as \
               come",
        why: "whoever has a credential is trusted not to flood",
        unit: "requests a second",
        range: RATE,
        reload: Reload::AtOnce,
        at: at!(rate_limit),
    },
    Setting {
        key: "function_rate_limit",
        flag: "function-rate-limit",
        help: "The same for one running request with its own credentials: a function that calls in a loop",
        why: "code has mistakes: a loop shall not take the node with it",
        unit: "requests a second",
        range: RATE,
        reload: Reload::AtOnce,
        at: at!(function_rate_limit),
    },
    Setting {
        key: "refusal_limit",
        flag: "refusal-limit",
        help: "Wrong credentials a second that one address is told of; more are answered 429. 0: all of them",
        why: "more than mistakes make, less than guessing needs",
        unit: "requests a second",
        range: RATE,
        reload: Reload::AtOnce,
        at: at!(refusal_limit),
    },
    Setting {
        key: "metrics_listen",
        flag: "metrics-listen",
        help: "A second address, where `/metrics`, health and readiness are told to everybody who can reach it. Without \
               it `/metrics` is on the API, for a credential with the scope `operator`",
        why: "names of functions and how they are used are nobody's business",
        unit: "",
        range: ANY,
        reload: BOUND,
        at: at!(metrics_listen),
    },
    Setting {
        key: "otlp_endpoint",
        flag: "otlp-endpoint",
        help: "A collector of traces that takes OTLP over HTTP: spans of requests and cancels go to its `/v1/traces`. \
               Only in a binary with the feature `otlp`",
        why: "nobody is told what runs here unless somebody says whom to tell",
        unit: "",
        range: ANY,
        reload: Reload::Restart("the way to the collector is opened once"),
        at: at!(otlp_endpoint),
    },
    Setting {
        key: "log",
        flag: "log",
        help: "What the node logs on stderr: a level, or levels by crate",
        why: "each start, end, cancel and refusal; nothing for a request that just runs",
        unit: "",
        range: ANY,
        reload: Reload::AtOnce,
        at: at!(log),
    },
    Setting {
        key: "log_format",
        flag: "log-format",
        help: "How lines of the log look: `text` for people, `json` for programs",
        why: "people read it first",
        unit: "",
        range: ANY,
        reload: Reload::Restart("a log in two formats can be read by nothing"),
        at: at!(log_format),
    },
    Setting {
        key: "log_instance_mib",
        flag: "log-instance",
        help: "How much of what one instance prints is kept on the disk; the oldest goes first",
        why: "half a million lines",
        unit: "MiB",
        range: MEBIBYTES,
        reload: LOG_BOUNDS,
        at: at!(log_instance_mib),
    },
    Setting {
        key: "log_function_mib",
        flag: "log-function",
        help: "The same of all instances of a version of a function",
        why: "so that no function takes the room of the others",
        unit: "MiB",
        range: MEBIBYTES,
        reload: LOG_BOUNDS,
        at: at!(log_function_mib),
    },
    Setting {
        key: "log_total_mib",
        flag: "log-total",
        help: "The same of all there are",
        why: "a part of the smallest disk that nodes have",
        unit: "MiB",
        range: MEBIBYTES,
        reload: LOG_BOUNDS,
        at: at!(log_total_mib),
    },
];
