//! The verbs of the client, a module for each or for those that look at the same.

mod bulk;
mod cancel;
mod context;
mod doctor;
mod documents;
mod functions;
mod invoke;
mod look;
mod nodes;
mod plan;
mod receipts;
mod top;

pub(crate) use bulk::call_off;
pub(crate) use cancel::cancel;
pub(crate) use context::context;
pub(crate) use doctor::doctor;
pub(crate) use documents::{completions, man};
pub(crate) use functions::{functions, not_there};
pub(crate) use invoke::invoke;
pub(crate) use look::{fetch_node, fetch_tree, instances, ls, show_tree, tree};
pub(crate) use nodes::nodes;
pub(crate) use plan::plan;
pub(crate) use receipts::{fetch_receipt, receipt, receipts, show_receipt};
pub(crate) use top::top;
