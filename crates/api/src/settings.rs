//! Limits of the API, each with where it is from.

/// Event of a synchronous invocation (`functiongraph.md` 3).
pub(crate) const MAX_SYNC_EVENT: usize = 6 << 20;
/// Event of an asynchronous invocation (`functiongraph.md` 3).
pub(crate) const MAX_ASYNC_EVENT: usize = 256 << 10;
/// Body of a cancel: an id, a few words, and a reason.
pub(crate) const MAX_CANCEL_BODY: usize = 64 << 10;
/// Body that creates or changes a function: a package of 50 MB in base64, and its configuration.
pub(crate) const MAX_FUNCTION_BODY: usize = 72 << 20;
/// A code package (`functiongraph.md` 5.1, FSS.1071).
pub(crate) const MAX_PACKAGE: usize = 50 << 20;
/// A code package unpacked: the service's own limit is 1.5 GB for large ones; this is a node.
pub(crate) const MAX_UNPACKED: u64 = 512 << 20;
/// Files in a code package: a large dependency tree has tens of thousands.
pub(crate) const MAX_FILES: usize = 50_000;
/// Why somebody cancels, in words.
pub(crate) const MAX_REASON: usize = 1_024;
/// A request id in a body (`functiongraph.md` 1: the list API bounds it so).
pub(crate) const MAX_REQUEST_ID: usize = 64;
/// Rows of a list of requests.
pub(crate) const MAX_INVOCATIONS: u32 = 500;
/// Rows of a list of live requests.
pub(crate) const MAX_LISTED: usize = 500;
/// Rows of a list of functions.
pub(crate) const MAX_FUNCTIONS: usize = 400;
/// Published versions of a function (`functiongraph.md` 3: 20 of the service).
pub(crate) const MAX_VERSIONS: usize = 20;
/// Aliases of a function (`functiongraph.md` 3: 10 of the service).
pub(crate) const MAX_ALIASES: usize = 10;
/// A version's name; 42 is what the service takes too, and leaves room in a URN.
pub(crate) const MAX_VERSION_NAME: usize = 42;
/// An alias's name.
pub(crate) const MAX_ALIAS_NAME: usize = 63;
/// Description of a function, a version or an alias, in characters (`functiongraph.md` 5.1, FSS.1019).
pub(crate) const MAX_DESCRIPTION: usize = 512;
/// Body that publishes a version or sets an alias: a few names and a description.
pub(crate) const MAX_SMALL_BODY: usize = 64 << 10;
/// Rows of a list of receipts.
pub(crate) const MAX_RECEIPTS: u32 = 500;
/// Grace a function may ask for: an hour is an eternity for a stop.
pub(crate) const MAX_GRACE_MS: u64 = 3_600_000;
