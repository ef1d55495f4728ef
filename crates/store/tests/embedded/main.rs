//! The embedded store through its trait: one behaviour a test, and a model that knows nothing of SQL.
#![allow(clippy::unwrap_used, reason = "what a test cannot do without ends it")]
#![allow(clippy::print_stdout, reason = "the child of the SIGKILL test tells its parent so")]

mod backups;
mod bulks;
mod cancels;
mod credentials;
mod functions;
mod kill;
mod listings;
mod model;
mod opening;
mod order;
mod results;
mod samples;
mod subject;
mod versions;
