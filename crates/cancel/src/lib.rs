//! The request tree and the engine that decides every stop.
#![no_std]
extern crate alloc;

mod id;
pub use id::{Attempt, CancelId, InstanceId, RequestId, Ticket};
