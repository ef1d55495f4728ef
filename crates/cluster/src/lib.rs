//! A node among many: when it may run what it owns, and when a cancel that reaches over nodes is answered.
//!
//! Pure: no I/O, no clock, no async. Times go in as [`Duration`](std::time::Duration)s of the node's own clock since
//! some start of its own; facts go in as calls; wishes come out as plain values. What does the renewing, the killing
//! and the asking is a task of the node that holds a [`Membership`], and for each cancel a [`Waiting`].
//!
//! # What it stands on
//!
//! - The clock is one that goes on while the machine sleeps (`CLOCK_BOOTTIME`), and its rate is off by at most
//!   [`RATE_ERROR_PERCENT`] against the database's.
//! - The database gives a lease from the moment at which it serves the renewal on, so never less than counted from the
//!   moment before the renewal was sent. Its clock does not jump forward by more than what the margin leaves.
//! - A kill that begins at [`Membership::run_until`] is through before the margin is over.
//!
//! The protocol as a whole, and how it is simulated: `docs/scale.md`.

mod membership;
mod timing;
mod waiting;

pub use membership::{Act, Ask, Failure, Membership, Why};
pub use timing::{BadTiming, RATE_ERROR_PERCENT, RETRY_DIVISOR, STOP_ALLOWANCE, Timing};
pub use waiting::{Asked, Done, Outcome, PartNews, PartState, Waiting};
