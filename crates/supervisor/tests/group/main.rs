//! The process layer against real processes: what is started, ended, proven, and what is not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test ends by its panic, and says which half of it could not be made here"
)]

mod deaf_disk;
mod ends;
mod leases;
mod limits;
mod lives;
mod networks;
mod output;
mod starts;
mod stuck;
mod support;
mod tracer;
