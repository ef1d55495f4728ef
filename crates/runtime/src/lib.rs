//! A runtime for functions in Rust, and a model for runtimes in other languages: the protocol is in
//! `docs/runtime-protocol.md` of Quell.
//!
//! ```no_run
//! use quell_runtime::{Context, Error};
//! use serde_json::{Value, json};
//!
//! async fn handler(event: Value, context: Context) -> Result<Value, Error> {
//!     tokio::select! {
//!         done = work(event) => done,
//!         () = context.token().cancelled() => {
//!             // Clean up: there is time until `context.drop_at()`.
//!             Err("stopped".into())
//!         }
//!     }
//! }
//! # async fn work(event: Value) -> Result<Value, Error> { Ok(json!({ "echo": event })) }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), quell_runtime::RunError> {
//!     quell_runtime::run(handler).await
//! }
//! ```
//!
//! # What a cancellation does
//!
//! The request's [`Context::token`] is cancelled at once. The handler may go on to clean up until shortly
//! before its grace is over; then its future is dropped, which ends its code at the `.await` where it is.
//! When the handler has returned or was dropped, what it started by [`Context::spawn`] and did not wait for is
//! dropped as well. When all that has ended, the request is acknowledged, and not before: the node then says
//! "stopped", and the process goes on with its other requests.
//!
//! Code that does not come to an `.await` cannot be dropped, so nothing is acknowledged, and the node ends the
//! instance in its own way.
//! **Not known to this crate are `tokio::spawn`, `spawn_blocking` and threads**: what they run
//! may outlive an acknowledgement. A handler that uses them waits for their end before it returns, or
//! uses [`Context::spawn`].
//!
//! On a runtime of one thread a handler that blocks keeps notices from being heard as well; use the one of
//! several threads.

mod active;
mod children;
mod context;
mod error;
mod node;
mod report;
mod serve;
mod settings;
mod tasks;

pub use children::InvokeError;
pub use context::{Context, Reason};
pub use error::{Error, RunError};
pub use serve::{run, run_with};
pub use tasks::Task;
pub use tokio_util::sync::CancellationToken;
