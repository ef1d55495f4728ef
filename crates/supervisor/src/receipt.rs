//! The receipt: what was asked, by whom, what it did, and on what evidence.
//!
//! Times are milliseconds since the Unix epoch. A receipt is written when the fence falls, and again
//! in its last form when the cancel is over; what is only learnt later (the end of a draining or
//! stuck instance) is added to it then.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use store::{ReceiptRecord, Store, StoreError};
use utoipa::ToSchema;

use crate::{nodes::Nodes, shell::now_ms};

/// Receipts read from the store at a time.
const PAGE: u32 = 500;

/// One cancel, as told to people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Receipt {
    /// Its id.
    pub cancel_id: String,
    /// The request that was asked to be stopped.
    pub request_id: String,
    /// Its function's URN.
    pub function_urn: String,
    /// The project.
    pub project: String,
    /// `request` or `subtree`: the widest asked.
    pub scope: String,
    /// `ask` or `kill`: the hardest asked.
    pub level: String,
    /// `asked`, `deadline` or `disconnect`.
    pub cause: String,
    /// Everybody who asked, in order; bounded.
    pub asked_by: Vec<AskedBy>,
    /// What the askers were told: `running` (nothing yet), `stopped`, `draining`, `unkillable` or
    /// `not_recorded`; `finished` where everything had ended by itself by then; `interrupted` if the node ended before, with nothing that proves more.
    pub result: String,
    /// When what drained, or could not be killed, at the answer was proven gone after all.
    #[serde(default)]
    pub stopped_later_ms: Option<i64>,
    /// When the fence fell.
    pub fenced_ms: i64,
    /// When the fence was durable.
    pub recorded_ms: Option<i64>,
    /// When the answer was ready; where `took_us` is null, when the next life of the node, or another node, closed it instead.
    pub closed_ms: Option<i64>,
    /// From the fence to the answer, in microseconds, by the monotonic clock; null where the node ended before.
    pub took_us: Option<u64>,
    /// Every request in scope.
    pub requests: Vec<TouchedRequest>,
    /// Every instance that was signalled.
    pub instances: Vec<TouchedInstance>,
    /// Requests outside the scope that ended, or wait again, because they shared an instance.
    pub co_tenants: Vec<TouchedRequest>,
    /// What other nodes had of it, where several share a store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<NodePart>,
}

/// What a node stopped of a cancel that another node was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodePart {
    /// The node's name.
    pub node: String,
    /// The request on that node, with what hangs below it there.
    pub request_id: String,
    /// `open` (no word yet), `stopped`, `draining`, `unkillable`, `finished` (it had ended by itself), `not_here`, or
    /// `lease_over`: that node is fenced, and what it ran ended with its lease.
    pub result: String,
    /// The id of that node's own receipt, or why it could not be stopped.
    pub detail: String,
}

/// One ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AskedBy {
    /// The id of the credential; empty for the node itself.
    pub credential: String,
    /// Where from.
    pub remote: Option<String>,
    /// In the asker's words.
    pub reason: Option<String>,
    /// The key of the bulk cancel that this ask was a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<String>,
    /// How wide.
    pub scope: String,
    /// How hard.
    pub level: String,
    /// When.
    pub at_ms: i64,
}

/// One request that a cancel touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TouchedRequest {
    /// Its id.
    pub request_id: String,
    /// The request that made it: why it is in scope.
    pub parent: Option<String>,
    /// `package:name`.
    pub function: String,
    /// The version of it.
    #[serde(default = "latest")]
    pub version: String,
    /// What whoever invoked it says of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Where it stood at the fence: `queued`, `placed`, `running`, `draining`.
    pub found: String,
    /// An earlier cancel had fenced it.
    pub fenced_before: bool,
    /// The instance it was on.
    pub instance: Option<String>,
    /// Its wire code once settled; `None` while it waits again or is stuck.
    pub code: Option<u16>,
    /// `never_started`, `acknowledged`, `reaped`, `fenced_only`, `answered`, `requeued`, `stuck` or
    /// `node_ended`: the node went away, and what it ran was ended before its next life began. Or `lease_over`: it did not come back,
    /// and what it ran ended with its lease.
    pub evidence: Option<String>,
    /// When.
    pub settled_ms: Option<i64>,
}

/// What a receipt that says nothing of versions is about.
fn latest() -> String {
    store::LATEST.to_owned()
}

/// One instance that a cancel signalled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TouchedInstance {
    /// Its id.
    pub instance: String,
    /// Its main process.
    pub pid: Option<u32>,
    /// What was sent, in order: `asked`, `terminated`, `killed`.
    pub signals: Vec<String>,
    /// What contained it: `cgroup` or `process group`.
    pub containment: Option<String>,
    /// How its main process ended.
    pub exit: Option<String>,
    /// What was proven, e.g. `exit_collected`, `populated_0`, `leaf_removed`.
    pub proof: Vec<String>,
    /// Processes beside the main one that were found alive and killed.
    pub other_processes: u32,
    /// From the kill to the proof, in microseconds.
    pub took_us: Option<u64>,
    /// From the first strike until its main process had ended, in microseconds.
    #[serde(default)]
    pub exited_us: Option<u64>,
    /// The same until nothing of it was left alive.
    #[serde(default)]
    pub emptied_us: Option<u64>,
    /// The same until that was proven.
    #[serde(default)]
    pub proven_us: Option<u64>,
    /// What could not be killed, and why.
    pub survivors: Vec<String>,
    /// What this kind of containment cannot see.
    pub cannot_see: Vec<String>,
}

/// Closes the receipts of cancels that an earlier life of the node did not bring to their end. What that had asked other
/// nodes for, they may be at still: such a receipt is closed when they are through, by a task of `nodes`.
///
/// # Errors
/// When the store cannot be read or written.
pub(crate) async fn close_interrupted(
    store: &dyn Store,
    nodes: Option<&Arc<Nodes>>,
    swept: bool,
) -> Result<(), StoreError> {
    // Those that stay open for now: as many as cancels were under way when that life ended.
    let mut left = HashSet::new();
    loop {
        let limit = PAGE.saturating_add(u32::try_from(left.len()).unwrap_or(u32::MAX));
        let mut page = store.open_receipts(limit).await?;
        page.retain(|record| !left.contains(&record.cancel));
        if page.is_empty() {
            return Ok(());
        }
        for record in page {
            let gone = if swept { Gone::Swept } else { Gone::Unproven };
            if !close_one(store, nodes, &record, gone).await? {
                left.insert(record.cancel);
            }
        }
    }
}

/// What became of what a node ran that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its next life has ended what was left.
    Swept,
    /// Nothing proves that it ended.
    Unproven,
    /// It ended with that node's lease, or before the node left.
    LeaseOver,
}

/// Closes the receipt of a cancel that its node did not bring to its end. False: other nodes are at it still, and a task of
/// `nodes` closes it when they are through.
///
/// # Errors
/// When the store cannot be read or written: asked for again it does the same.
pub(crate) async fn close_one(
    store: &dyn Store,
    nodes: Option<&Arc<Nodes>>,
    record: &ReceiptRecord,
    gone: Gone,
) -> Result<bool, StoreError> {
    let body = match serde_json::from_str::<Receipt>(&record.body) {
        Ok(mut receipt) => {
            receipt.interrupted(gone);
            if let Some(nodes) = nodes
                && nodes.close_interrupted(record.cancel, &receipt).await?
            {
                return Ok(false);
            }
            serde_json::to_string(&receipt).unwrap_or_else(|_| record.body.clone())
        }
        Err(error) => {
            tracing::error!(cancel = %record.cancel, %error, "a receipt cannot be read; it stays as it is");
            record.body.clone()
        }
    };
    store.update_receipt(record.cancel, body).await.map(|()| true)
}

impl Receipt {
    /// Of a cancel that other nodes have parts of: it says no more than holds for all of them.
    pub(crate) fn with_parts(&mut self, parts: Vec<NodePart>) {
        let some = |result: &str| parts.iter().any(|part| part.result == result);
        if self.result == "stopped" {
            let worst = ["open", "unkillable", "draining"].into_iter().find(|result| some(result));
            match worst {
                Some("open") => {
                    "running".clone_into(&mut self.result);
                    self.closed_ms = None;
                }
                Some(worst) => worst.clone_into(&mut self.result),
                None => {}
            }
        }
        self.parts = parts;
    }

    /// The node ended before this cancel did, and its next life has begun, or another node closes it.
    fn interrupted(&mut self, gone: Gone) {
        self.closed_ms = Some(now_ms());
        // It was read from the store, so it was durable: since then at the earliest.
        self.recorded_ms.get_or_insert(self.fenced_ms);
        let stuck = self.requests.iter().any(|row| row.evidence.as_deref() == Some("stuck"));
        let result = match gone {
            Gone::Swept => "stopped",
            // What no kill could end, the end of a lease did not either.
            Gone::LeaseOver if !stuck => "stopped",
            Gone::LeaseOver | Gone::Unproven => "interrupted",
        };
        result.clone_into(&mut self.result);
        let ran = if gone == Gone::LeaseOver { "lease_over" } else { "node_ended" };
        for row in self.requests.iter_mut().filter(|row| row.evidence.is_none()) {
            // What no runtime held when the fence fell was given to none after it.
            let waited = matches!(row.found.as_str(), "queued" | "placed");
            row.evidence = Some(if waited { "never_started" } else { ran }.to_owned());
            row.code.get_or_insert(cancel::CODE_CANCELED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_of_a_node_that_is_gone_says_what_is_known_of_what_it_ran() {
        for (gone, evidence, result, word) in [
            (Gone::Swept, None, "stopped", "node_ended"),
            (Gone::Unproven, None, "interrupted", "node_ended"),
            (Gone::LeaseOver, None, "stopped", "lease_over"),
            (Gone::LeaseOver, Some("stuck"), "interrupted", "lease_over"),
        ] {
            let row = |found: &str, evidence: Option<&str>| TouchedRequest {
                found: found.to_owned(),
                evidence: evidence.map(str::to_owned),
                ..TouchedRequest::default()
            };
            let requests = vec![row("running", None), row("queued", None), row("running", evidence)];
            let mut receipt = Receipt { requests, result: "running".to_owned(), ..Receipt::default() };
            receipt.interrupted(gone);
            let said: Vec<_> = receipt.requests.iter().map(|row| row.evidence.as_deref().unwrap()).collect();
            assert_eq!(said, [word, "never_started", evidence.unwrap_or(word)], "{gone:?}");
            assert_eq!((receipt.result.as_str(), receipt.took_us), (result, None), "{gone:?}");
            assert!(receipt.closed_ms.is_some() && receipt.recorded_ms.is_some());
        }
    }

    #[test]
    fn a_receipt_says_no_more_than_holds_on_every_node() {
        for (parts, result, closed) in [
            (&["stopped", "finished", "lease_over", "not_here"][..], "stopped", true),
            (&["stopped", "open", "draining"], "running", false),
            (&["draining", "unkillable"], "unkillable", true),
            (&["draining", "stopped"], "draining", true),
        ] {
            let mut receipt =
                Receipt { result: "stopped".to_owned(), closed_ms: Some(1), ..Receipt::default() };
            let part = |result: &&str| NodePart { result: (*result).to_owned(), ..NodePart::default() };
            receipt.with_parts(parts.iter().map(part).collect());
            assert_eq!((receipt.result.as_str(), receipt.closed_ms.is_some()), (result, closed), "{parts:?}");
            assert_eq!(receipt.parts.len(), parts.len());
        }
    }

    #[test]
    fn an_interrupted_cancel_claims_no_more_than_the_sweep_proved() {
        let row = |found: &str, evidence: Option<&str>| TouchedRequest {
            found: found.to_owned(),
            evidence: evidence.map(str::to_owned),
            code: evidence.map(|_| 4010),
            ..TouchedRequest::default()
        };
        let open = Receipt {
            result: "running".to_owned(),
            requests: vec![
                row("running", Some("reaped")),
                row("running", None),
                row("draining", None),
                row("queued", None),
                row("placed", None),
            ],
            ..Receipt::default()
        };
        for (swept, result) in [(true, "stopped"), (false, "interrupted")] {
            let mut receipt = open.clone();
            receipt.interrupted(if swept { Gone::Swept } else { Gone::Unproven });
            assert_eq!((receipt.result.as_str(), receipt.closed_ms.is_some()), (result, true));
            let told: Vec<_> =
                receipt.requests.iter().map(|row| (row.evidence.as_deref(), row.code)).collect();
            let lost = (Some("node_ended"), Some(4208));
            let waited = (Some("never_started"), Some(4208));
            assert_eq!(told, [(Some("reaped"), Some(4010)), lost, lost, waited, waited]);
            assert_eq!(receipt.took_us, None, "nobody was answered");
        }
    }
}
