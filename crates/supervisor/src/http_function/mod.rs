//! HTTP functions: the runtime is a server, and the node its client (`functiongraph.md` 7.2).
//!
//! One task drives each instance. To the shell it is a runtime like any other: it polls as soon as the
//! server accepts connections, once for each request the instance may hold, delivers what it gets as an
//! HTTP request on a connection of its own, and reports the answer. The connection ends when the request
//! is fenced; what the server does then is up to it, and to the ladder.

mod answer;
mod driver;
mod event;
mod exchange;
mod way;

pub(crate) use driver::Driver;
pub(crate) use way::Way;
