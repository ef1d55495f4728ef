//! Integer error codes of the wire (`functiongraph.md` 5.2) and what they say.

use cancel::Outcome;

/// The function's own code failed.
pub(crate) const FUNCTION_FAILED: u16 = 4002;
/// The result is larger than the platform allows.
pub(crate) const RESPONSE_TOO_LARGE: u16 = 4004;
/// The function is gone.
pub(crate) const NO_FUNCTION: u16 = 4024;
/// Import, handler or initializer failed.
pub(crate) const INIT_FAILED: u16 = 4201;
/// The package has no bootstrap.
pub(crate) const NO_BOOTSTRAP: u16 = 4202;
/// The kernel ended it at its limit of memory.
pub(crate) const OUT_OF_MEMORY: u16 = 4205;
/// The runtime did not become ready in time.
pub(crate) const INIT_TIMED_OUT: u16 = 4211;
/// No place on an instance was free in time (engine: "acquire timeout").
pub(crate) const NO_INSTANCE: u16 = 6038;
/// It waited longer than its function lets it. No code of the wire means that; the nearest is the engine's
/// "acquire timeout", 6038, and this is beside it.
pub(crate) const TOO_OLD: u16 = 6039;
/// The node stopped before the request could run (engine: "instance exiting").
pub(crate) const NODE_STOPPING: u16 = 6033;

/// Whether a request failed with this by the node's doing: no code of a function had a part in it.
pub(crate) fn is_of_the_node(code: u16) -> bool {
    matches!(code, NO_INSTANCE | TOO_OLD | NODE_STOPPING | NO_FUNCTION)
}

/// What a code says where nobody knows better.
pub fn message(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Returned => "",
        Outcome::Canceled => "function invocation canceled",
        Outcome::TimedOut => "call invoke timeout",
        Outcome::Crashed => "runtime process is exited",
        Outcome::Failed(FUNCTION_FAILED) => "function invocation exception",
        Outcome::Failed(RESPONSE_TOO_LARGE) => "response body size exceeds the limit of 6291456",
        Outcome::Failed(NO_FUNCTION) => "function metadata is not found",
        Outcome::Failed(INIT_FAILED) => "function initialization failed",
        Outcome::Failed(NO_BOOTSTRAP) => "bootstrap file is not found",
        Outcome::Failed(OUT_OF_MEMORY) => "runtime memory limit exceeded",
        Outcome::Failed(INIT_TIMED_OUT) => "runtime initialization timed out",
        Outcome::Failed(NO_INSTANCE) => "no instance was free in time",
        Outcome::Failed(TOO_OLD) => "the event is older than max_async_event_age_in_seconds",
        Outcome::Failed(NODE_STOPPING) => "the node is stopping",
        Outcome::Failed(_) => "function invocation failed",
    }
}
