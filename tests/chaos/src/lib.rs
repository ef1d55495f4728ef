//! The chaos harness: it kills the built node at random moments, over and over on one data folder, and
//! checks that it kept every promise that it had given. The same with several nodes that share a [`database`].
//!
//! [`plan`] draws what a round does from the seed, [`life`] starts and kills the node, [`weather`] makes its
//! disk fail and its clock jump, [`load`] calls and
//! cancels and writes into the [`book`] what it is told, the functions write into the [`ledger`] what they
//! do, [`living`] looks for processes that should be dead, and [`check`] holds all that against the laws.
//! Of several nodes, [`fault`] draws what happens to which, and [`places`] says where clients reach them.

pub mod book;
pub mod check;
pub mod client;
pub mod database;
pub mod draw;
pub mod fault;
pub mod ledger;
pub mod life;
pub mod living;
pub mod load;
pub mod places;
pub mod plan;
pub mod program;
pub mod run;
pub mod weather;
