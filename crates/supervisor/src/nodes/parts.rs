//! What other nodes ask this one to stop.

use std::{collections::HashSet, sync::Arc};

use cancel::Cause;
use store::{FunctionFilter, InvocationRecord, Part, PartState, Status, StoreError};
use tokio::sync::mpsc;

use super::{Nodes, PartActor, cancels::word};
use crate::handle::{CancelAnswer, CancelOrder, Handle, Stop};

/// Parts that are carried out at once. More wait for their turn in the store.
const PARTS_AT_ONCE: usize = 1_024;

/// The parts that are being carried out, each by a task that says when it is through.
pub(super) struct Performing {
    under_way: HashSet<i64>,
    through: mpsc::Sender<i64>,
    done: mpsc::Receiver<i64>,
}

impl Performing {
    pub(super) fn new() -> Self {
        let (through, done) = mpsc::channel(PARTS_AT_ONCE);
        Self { under_way: HashSet::new(), through, done }
    }

    /// Begins with what has not begun. Whatever cannot be said now stays open, and is read again at the next heartbeat.
    pub(super) fn begin(&mut self, nodes: &Arc<Nodes>, handle: &Handle, parts: Vec<Part>) {
        while let Ok(part) = self.done.try_recv() {
            self.under_way.remove(&part);
        }
        for part in parts {
            if self.under_way.len() >= PARTS_AT_ONCE || !self.under_way.insert(part.part) {
                continue;
            }
            let (nodes, handle, through) = (Arc::clone(nodes), handle.clone(), self.through.clone());
            tokio::spawn(async move {
                let number = part.part;
                if let Err(error) = nodes.perform(&handle, part).await {
                    tracing::warn!(part = number, %error, "what became of a part cannot be reported yet");
                }
                through.send(number).await.ok(); // closed: the node has ended
            });
        }
    }
}

impl Nodes {
    async fn perform(&self, handle: &Handle, part: Part) -> Result<(), StoreError> {
        let (number, request) = (part.part, part.request);
        let held = part.function.is_some();
        match self.stopped(handle, part).await {
            (PartState::NotHere, _) if held => match self.shared.invocation(request).await? {
                // An earlier life of this node had it: nothing of that runs, or this life had not begun.
                Some(row) if is_over(row.status) => {
                    let (state, detail) = over_before(&row);
                    self.shared.report(number, state, detail.to_owned()).await
                }
                // The store says that it is here, and the shell has not heard of it yet: it is on its way in.
                Some(_) => Ok(()),
                None => self.shared.report(number, PartState::NotHere, String::new()).await,
            },
            (PartState::Open, _) => Ok(()),
            (state, detail) => self.shared.report(number, state, detail).await,
        }
    }

    /// Stops a part, and says how far and on what evidence; `Open` where that cannot be said yet.
    async fn stopped(&self, handle: &Handle, part: Part) -> (PartState, String) {
        let (actor, asked) = match serde_json::from_str::<PartActor>(&part.actor) {
            Ok(actor) => actor.split(),
            Err(error) => return (PartState::Unkillable, format!("who asks cannot be read: {error}")),
        };
        let whole = part.function.is_none();
        let order = CancelOrder {
            request: part.request,
            function: part.function.map_or(asked, FunctionFilter::exactly),
            scope: part.scope,
            level: part.level,
            cause: Cause::Asked,
            early: false,
            actor,
        };
        // What hangs below it on other nodes is waited for by whoever asks, unless that knows nothing of it.
        let answer = match whole {
            true => self.cancel_held(handle, order).await,
            false => handle.cancel_here(order).await,
        };
        match answer {
            CancelAnswer::Done { cancel, stop: Stop::Stopped } => (PartState::Stopped, cancel.to_string()),
            CancelAnswer::Done { cancel, .. } => (PartState::Draining, cancel.to_string()),
            CancelAnswer::Finished(status) => (PartState::Finished, status.to_owned()),
            CancelAnswer::Unkillable { detail, .. } => (PartState::Unkillable, detail),
            CancelAnswer::Unknown | CancelAnswer::Elsewhere => (PartState::NotHere, String::new()),
            // Its record failed with the store's connection, and so would a report.
            CancelAnswer::NotRecorded { .. } | CancelAnswer::TooManyAskers | CancelAnswer::Gone => {
                (PartState::Open, String::new())
            }
        }
    }
}

fn is_over(status: Status) -> bool {
    !matches!(status, Status::Wait | Status::Running)
}

/// What became of a request that is over, and that this life has never heard of.
fn over_before(row: &InvocationRecord) -> (PartState, &'static str) {
    match row.error_code == i32::from(cancel::CODE_CANCELED) {
        true => (PartState::Stopped, "it ended with an earlier life of its node"),
        false => (PartState::Finished, word(row.status)),
    }
}
