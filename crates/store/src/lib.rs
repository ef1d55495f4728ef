//! Durable functions, invocations, receipts and credentials behind one trait.
//!
//! The trait is [`Store`]; the embedded form is [`Embedded`] (SQLite in WAL mode with
//! `synchronous=FULL` and one writer thread that commits in groups). This crate depends on nothing
//! of Quell but the plain ids of `cancel`, and knows nothing of HTTP or processes: what a function's
//! configuration or a receipt's body says is text to it.

mod credentials;
mod embedded;
mod functions;
mod invocations;
mod receipts;
mod record;
mod schema;
mod store;
mod threads;

pub use embedded::Embedded;
pub use record::*;
pub use store::{Store, StoreError, StoreFuture};
