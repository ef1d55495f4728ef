//! The store in PostgreSQL: the tests of the trait, which the embedded one passes too, and what only nodes that share it
//! can meet. Each test has a database of its own on a server of this process.
#![allow(clippy::unwrap_used, reason = "what a test cannot do without ends it")]
#![allow(clippy::expect_used, reason = "what a test cannot do without ends it")]

mod abroad;
mod bans;
#[path = "../embedded/bulks.rs"]
mod bulks;
#[path = "../embedded/cancels.rs"]
mod cancels;
mod claims;
mod copies;
#[path = "../embedded/credentials.rs"]
mod credentials;
mod encrypted;
mod fences;
#[path = "../embedded/functions.rs"]
mod functions;
mod groups;
#[path = "../embedded/listings.rs"]
mod listings;
mod lives;
mod locks;
mod lost;
#[path = "../embedded/model.rs"]
mod model;
#[path = "../embedded/order.rs"]
mod order;
mod placement;
#[path = "../embedded/results.rs"]
mod results;
#[path = "../embedded/samples.rs"]
mod samples;
mod selects;
mod server;
mod subject;
mod upgrades;
#[path = "../embedded/versions.rs"]
mod versions;
