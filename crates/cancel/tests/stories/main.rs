//! What the engine promises, one situation a test, told from outside.

#![allow(clippy::expect_used, reason = "a test may take for granted what it set up itself")]

mod bench;
mod bounds;
mod graces;
mod joining;
mod leaving;
mod proofs;
mod slices;
mod trees;
