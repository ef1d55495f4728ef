//! The cancel that the engine is measured by.

use cancel::{CancelAsk, CancelId, Cause, Level, RequestId, Scope, Ticket};

/// A cancel of everything below a request, by force, by somebody who waits for its answer. Each request has one of
/// its own.
pub(crate) fn whole_tree(first: u128) -> CancelAsk {
    CancelAsk {
        cancel: CancelId(first + 1),
        request: RequestId(first),
        scope: Scope::Subtree,
        level: Level::Kill,
        cause: Cause::Asked,
        ticket: Some(Ticket(1)),
        early: false,
    }
}
