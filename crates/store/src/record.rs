//! What is kept, as plain data. Times are milliseconds since the Unix epoch, UTC.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use cancel::{CancelId, RequestId};

use crate::Labels;

/// The version that changes; every other one is as it was published.
pub const LATEST: &str = "latest";

/// Names one version of a function: `urn:fss:<region>:<project>:function:<package>:<name>:<version>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionKey {
    /// The project the function belongs to.
    pub project: String,
    /// The package (group) within the project, usually `default`.
    pub package: String,
    /// The function's own name.
    pub name: String,
    /// [`LATEST`], or the name it was published under.
    pub version: String,
}

/// As a command takes it: `project:package:name:version`.
impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { project, package, name, version } = self;
        write!(f, "{project}:{package}:{name}:{version}")
    }
}

impl FunctionKey {
    /// Another version of the same function.
    pub fn at(&self, version: &str) -> Self {
        Self { version: version.to_owned(), ..self.clone() }
    }

    /// Whether it is the version that changes.
    pub fn is_latest(&self) -> bool {
        self.version == LATEST
    }
}

/// Which requests are meant where a function is named: those of all its versions, or of some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionFilter {
    /// The project the function belongs to.
    pub project: String,
    /// The package within the project.
    pub package: String,
    /// The function's own name.
    pub name: String,
    /// Only these versions (empty: all).
    pub versions: Vec<String>,
}

impl FunctionFilter {
    /// All versions of the function of this key, those that are deleted too.
    pub fn whole(key: FunctionKey) -> Self {
        let FunctionKey { project, package, name, .. } = key;
        Self { project, package, name, versions: Vec::new() }
    }

    /// This version alone.
    pub fn exactly(key: FunctionKey) -> Self {
        let FunctionKey { project, package, name, version } = key;
        Self { project, package, name, versions: vec![version] }
    }

    /// Whether it means this version of this function.
    pub fn fits(&self, key: &FunctionKey) -> bool {
        let FunctionKey { project, package, name, version } = key;
        (&self.project, &self.package, &self.name) == (project, package, name) && self.names(version)
    }

    /// Whether it means this version, if it is of this function.
    pub fn names(&self, version: &str) -> bool {
        self.versions.is_empty() || self.versions.iter().any(|named| named == version)
    }
}

/// A version of a deployed function: its configuration as the API's JSON text, and which code it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionRecord {
    /// Whose configuration this is.
    pub key: FunctionKey,
    /// Rises with every change of configuration or code; an instance runs exactly one revision.
    pub revision: u64,
    /// The configuration, JSON, owned by the API crate.
    pub config: String,
    /// SHA-512 of the code package, lower-case hex: the key of [`Store::code`](crate::Store::code).
    pub code_digest: String,
    /// Size of the code package in bytes.
    pub code_size: u64,
    /// When it was created.
    pub created_ms: i64,
    /// When configuration or code last changed.
    pub modified_ms: i64,
}

/// The five states of a request on the wire (`functiongraph.md` 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Accepted and durable, not running.
    Wait,
    /// A runtime holds it.
    Running,
    /// The function returned.
    Success,
    /// It ran and did not end well; `error_code` says how.
    Fail,
    /// It never ran and never will.
    Discard,
}

/// An asynchronous request as it is accepted, before anything of it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewInvocation {
    /// Its id.
    pub request: RequestId,
    /// What it invokes. Shared with who runs it: a copy for each accept would be four strings.
    pub function: Arc<FunctionKey>,
    /// The alias it was invoked by, if it was.
    pub alias: Option<Arc<str>>,
    /// The request that made it, where one did.
    pub parent: Option<RequestId>,
    /// The event.
    pub payload: Bytes,
    /// When it was accepted.
    pub created_ms: i64,
    /// How many results were handed on, one to the next function, to come to this one.
    pub hops: u32,
    /// What whoever invoked it says of it.
    pub labels: Labels,
    /// Where it hangs in its tree. Only a store of several nodes keeps it.
    pub lineage: Lineage,
    /// Who is to run it. A store of one node has no choice.
    pub placement: Placement,
}

/// Where a request hangs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The top of its tree; `None`: it is a top itself.
    pub root: Option<RequestId>,
    /// Everything between it and the nearest asynchronous request above, that one included, the nearest first; up to
    /// the top if there is none. A fence over any of them keeps it from being accepted.
    pub above: Vec<RequestId>,
}

/// Who runs a request that was accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The node that accepted it.
    #[default]
    Here,
    /// Whichever node has room first.
    Anywhere,
}

/// An asynchronous request as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvocationRecord {
    /// Its id.
    pub request: RequestId,
    /// What it invokes: the version that was chosen when it was accepted.
    pub function: FunctionKey,
    /// The alias it was invoked by, if it was.
    pub alias: Option<String>,
    /// The request that made it, where one did.
    pub parent: Option<RequestId>,
    /// The event; empty where a list is asked for.
    pub payload: Bytes,
    /// How many bytes the event has.
    pub payload_len: u64,
    /// Where it stands.
    pub status: Status,
    /// 0, or why it did not succeed (4208, 4010, ...).
    pub error_code: i32,
    /// The same in words; empty on success.
    pub error_message: String,
    /// Deliveries so far.
    pub attempts: u32,
    /// Attempts that failed and count against its retries.
    pub failures: u32,
    /// It waits for its next attempt until then, by the store's clock; 0 in a claimed one, which is due.
    pub not_before_ms: i64,
    /// How many results were handed on to come to this one.
    pub hops: u32,
    /// What whoever invoked it says of it.
    pub labels: Labels,
    /// When it was accepted.
    pub created_ms: i64,
    /// When its last attempt was handed to a runtime.
    pub started_ms: Option<i64>,
    /// When it settled.
    pub ended_ms: Option<i64>,
    /// The cancel that fenced it: it never runs again, whatever the status still says.
    pub fenced_by: Option<CancelId>,
    /// The top of its tree, where a store of several nodes knows it.
    pub root: Option<RequestId>,
}

/// How a request settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Which request.
    pub request: RequestId,
    /// `Success`, `Fail` or `Discard`.
    pub status: Status,
    /// 0, or why it did not succeed.
    pub error_code: i32,
    /// The same in words.
    pub error_message: String,
    /// When.
    pub ended_ms: i64,
    /// Code may still run that its node alone knows of: its own on a draining instance, or a synchronous request below it.
    /// A store of several nodes has that node asked where the request, or a tree that it is in, is to be stopped later.
    pub tail: bool,
    /// The request that its result goes to, accepted in the same commit.
    pub next: Option<Box<NewInvocation>>,
}

/// What a function says of its asynchronous requests, as the API's JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsyncConfigRecord {
    /// Of which function.
    pub key: FunctionKey,
    /// JSON, owned by the API crate.
    pub body: String,
    /// When it was first set.
    pub created_ms: i64,
    /// When it was last set.
    pub modified_ms: i64,
}

/// A name for a version of a function that may be given to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasRecord {
    /// The function, in the version that the alias names.
    pub function: FunctionKey,
    /// The alias, without the `!` it has in URNs.
    pub name: String,
    /// Another version that gets a share of the invocations.
    pub additional: Option<Share>,
    /// In the words of its owner.
    pub description: String,
    /// When it was made.
    pub created_ms: i64,
    /// When it was last changed.
    pub modified_ms: i64,
}

/// A version and its part of the invocations by an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Which version.
    pub version: String,
    /// Of a hundred invocations so many, 0 to 100.
    pub percent: u8,
}

/// A cancel at the moment of its fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReceipt {
    /// Its id.
    pub cancel: CancelId,
    /// The request that was asked to be stopped.
    pub target: RequestId,
    /// The function of that request.
    pub function: FunctionKey,
    /// Every request fenced, the target included.
    pub fenced: Vec<RequestId>,
    /// How far it reaches beyond this node; `None`: not at all.
    pub reach: Option<Reach>,
    /// The receipt so far, JSON, owned by the supervisor crate.
    pub body: String,
    /// When the fence fell.
    pub created_ms: i64,
}

/// A cancel of a whole tree, to a store of several nodes: what hangs below the fenced requests is fenced in the same
/// transaction, and becomes parts for the nodes that have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The top of the target's tree.
    pub root: RequestId,
    /// How hard.
    pub level: cancel::Level,
    /// Who asks and why, JSON, for the nodes.
    pub actor: String,
}

/// A receipt as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRecord {
    /// Its id.
    pub cancel: CancelId,
    /// The request that was asked to be stopped.
    pub target: RequestId,
    /// The function of that request.
    pub function: FunctionKey,
    /// The receipt, JSON.
    pub body: String,
    /// When the fence fell.
    pub created_ms: i64,
}

/// A cancel of many requests at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkRecord {
    /// Whose.
    pub project: String,
    /// The name its asker gave it: there is one of a name.
    pub key: String,
    /// What was asked, and what came of it, JSON, owned by the supervisor crate.
    pub body: String,
    /// Which requests it is about, JSON; nothing once it is done.
    pub requests: Option<String>,
}

/// Which asynchronous requests to list; every given field narrows.
#[derive(Clone, Debug)]
pub struct InvocationQuery {
    /// Of this function.
    pub function: FunctionFilter,
    /// Only these ids (empty: all).
    pub requests: Vec<RequestId>,
    /// Only this status.
    pub status: Option<Status>,
    /// Only what is not final.
    pub unsettled: bool,
    /// Only what has these (none: all).
    pub labels: Labels,
    /// Accepted at or after.
    pub from_ms: i64,
    /// Accepted at or before.
    pub until_ms: i64,
    /// Rows to skip.
    pub offset: u64,
    /// Rows to return at most.
    pub limit: u32,
}

/// One page of a list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InvocationPage {
    /// The rows, without payloads (`payload` is empty).
    pub rows: Vec<InvocationRecord>,
    /// How many rows match in all.
    pub total: u64,
}

/// A credential: the secret itself is never kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialRecord {
    /// The public half, by which it is found.
    pub key_id: String,
    /// SHA-256 of the secret half.
    pub secret_hash: [u8; 32],
    /// The one project it opens.
    pub project: String,
    /// What it is for, in words.
    pub note: String,
    /// When it was made.
    pub created_ms: i64,
    /// What it may do there: bits, owned by the API crate.
    pub scopes: u8,
    /// The name to log in with, of no other credential.
    pub login: Option<String>,
    /// The password's argon2 hash, in its own text form.
    pub password: Option<String>,
    /// From then on it opens nothing.
    pub expires_ms: Option<i64>,
    /// Rises when its secrets are exchanged: what was derived from the old ones is void.
    pub generation: u32,
}
