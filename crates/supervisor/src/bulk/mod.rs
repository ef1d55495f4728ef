//! Cancels of many requests at once: a selection that is taken once, and then a cancel of each as anybody
//! could ask for it, at a bounded rate. There is no second way to stop anything.
//!
//! Each has a key that its asker chose: asking again under it tells how it stands, and never selects anew. What
//! there is to do is in the store before the asker is told that it begins, so that a new life of the node goes
//! on with it. Where several nodes share the store, `abroad` has the rest.

mod abroad;
mod plan;
mod registry;
mod run;
mod state;

pub(crate) use plan::FIRST;
pub use plan::{BulkPlan, FirstIds};
pub use registry::BulkRefusal;
pub(crate) use registry::{Bulks, resume};
pub use state::{Bulk, BulkDraining, BulkFailure};

use cancel::{Level, Scope};

use crate::{handle::Actor, selection::Selection};

/// Cancels a second, at most, that one bulk may ask for. A node decides and records tens of thousands a
/// second; what is left is for everybody else.
pub const MAX_BULK_RATE: u32 = 10_000;

/// One ask to cancel many.
#[derive(Clone, Debug)]
pub struct BulkOrder {
    /// The name its asker gave it, of his project alone.
    pub key: String,
    /// Which.
    pub selection: Selection,
    /// The same in the words of its asker: what is told of it later, and what tells one ask from another.
    pub described: String,
    /// How wide.
    pub scope: Scope,
    /// How hard.
    pub level: Level,
    /// Cancels a second: 1 to [`MAX_BULK_RATE`].
    pub rate: u32,
    /// Who.
    pub actor: Actor,
}
