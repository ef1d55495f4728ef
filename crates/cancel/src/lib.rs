//! The request tree and the engine that decides every stop.
//!
//! Pure: `no_std` + `alloc`, no clock, no system call, no async, no lock. Facts go in as [`Event`]s,
//! one at a time in the order they arrived; wishes come out as [`Effect`]s, in the order they are to
//! be carried out. Whatever holds here holds at every interleaving of the shell around it, because
//! the shell has one inbox and one task that owns the [`Engine`].
//!
//! Invariants, cited by number in code and tests (the full list is in `ARCHITECTURE.md`):
//!
//! * **I1** every request settles exactly once; what its runtime says after a fence changes nothing.
//! * **I2** under a fenced subtree nothing starts: neither the known, nor the queued, nor the unborn.
//! * **I3** a level only rises.
//! * **I4** `Ask` ends no instance that serves an innocent request (unless the function chose so);
//!   `Kill` ends exactly the instances that serve the scope.
//! * **I5** no `Stopped`, and no 4208 of a killed instance, before that instance was reaped.
//! * **I8** a fact belongs to an instance and an attempt; a late one changes nothing.
//! * **I9** once the graces, records and exits it waits for were told, every cancel is answered.
//! * **I10** nodes, tombstones and askers are bounded.
//!
//! Deliberately absent: time (it arrives as `GraceOver`, `KillTimedOut`, a `Deadline` cancel), PIDs
//! (an [`InstanceId`] is all it knows of a process), payloads and results (it decides what counts,
//! not what was said), placement policy (the pool proposes, the engine accepts or refuses).
//!
//! The transition table is `docs/transitions.md`; a test generates it from this code and compares.
#![no_std]
extern crate alloc;

mod bounds;
mod effect;
mod engine;
mod event;
mod id;
mod instance;
mod outcome;
mod plan;
mod rest;
mod scope;
mod settle;
mod stop;
mod tombstones;
mod tree;
mod view;
mod walk;

pub use bounds::Bounds;
pub use effect::{Effect, Requeue};
pub use engine::Engine;
pub use event::{Answer, CancelAsk, Event, OnCollateral, OnGrace, Policy};
pub use id::{Attempt, CancelId, InstanceId, RequestId, Ticket};
pub use outcome::{CODE_CANCELED, CODE_CRASHED, CODE_TIMED_OUT, Evidence, Outcome, Refusal, Reply};
pub use plan::{Plan, PlannedStop, StopHow};
pub use scope::{Cause, Level, Scope};
pub use view::{InstanceView, RequestView, State};
