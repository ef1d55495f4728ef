//! What other nodes ask this one to stop.

use std::{collections::HashSet, sync::Arc};

use cancel::{Cause, RequestId};
use store::{FunctionFilter, Part, PartState, StoreError, StoreFuture};
use tokio::sync::{mpsc, oneshot};

use super::{Nodes, PartActor};
use crate::{
    asks::Hearer,
    handle::{CancelAnswer, CancelOrder, Handle, Stop},
    message::Message,
};

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

/// What is said of a part, `Open` where that cannot be said yet, and the write that says it where it has begun.
type Said = (PartState, Option<StoreFuture<()>>);

impl Nodes {
    async fn perform(self: &Arc<Self>, handle: &Handle, part: Part) -> Result<(), StoreError> {
        let (number, request) = (part.part, part.request);
        let (actor, asked) = match serde_json::from_str::<PartActor>(&part.actor) {
            Ok(actor) => actor.split(),
            Err(error) => {
                let why = format!("who asks cannot be read: {error}");
                return self.report(number, PartState::Unkillable, why).await;
            }
        };
        let (scope, level, held) = (part.scope, part.level, part.function.is_some());
        let function = part.function.map_or(asked, FunctionFilter::exactly);
        let order = CancelOrder { request, function, scope, level, cause: Cause::Asked, early: false, actor };
        // What hangs below it on other nodes is waited for by whoever asks, unless that knows nothing of it.
        if !held {
            return match said(self.cancel_held(handle, order).await) {
                (PartState::Open, _) => Ok(()),
                (state, detail) => self.report(number, state, detail).await,
            };
        }
        match self.stopped(handle, number, order).await {
            // The store says that it is here, and the shell has not heard of it: an answer was lost, or is on its way.
            (PartState::NotHere, _) => self.never_came(handle, number, request).await,
            (state, Some(reported)) => reported.await.map(|()| self.metrics.part(state)),
            (_, None) => Ok(()),
        }
    }

    /// Stops what this node holds, and begins to say how far and on what evidence when the shell says so: then that goes in
    /// one transaction with the end of what was stopped.
    async fn stopped(&self, handle: &Handle, part: i64, order: CancelOrder) -> Said {
        let (shared, (told, heard)) = (Arc::clone(&self.shared), oneshot::channel());
        let hearer = Hearer::Now(Box::new(move |answer| {
            let (state, detail) = said(answer);
            let unsaid = matches!(state, PartState::Open | PartState::NotHere);
            let reported = (!unsaid).then(|| shared.report(part, state, detail));
            drop(told.send((state, reported))); // the node is ending; what was begun goes on
        }));
        drop(handle.inbox.send(Message::Cancel { order, hearer }).await); // closed: the same
        heard.await.unwrap_or((PartState::Open, None))
    }

    async fn report(&self, part: i64, state: PartState, detail: String) -> Result<(), StoreError> {
        self.shared.report(part, state, detail).await?;
        self.metrics.part(state);
        Ok(())
    }

    /// Refuses a request that this node owns and does not have, before it says that nothing of it runs.
    async fn never_came(&self, handle: &Handle, part: i64, request: RequestId) -> Result<(), StoreError> {
        let (respond, refused) = oneshot::channel();
        drop(handle.inbox.send(Message::Ban { request, respond }).await); // closed: the node is ending
        if !refused.await.unwrap_or(false) {
            return Ok(()); // it came meanwhile: at the next heartbeat it is stopped like any other
        }
        if let Some(row) = self.shared.invocation(request).await? {
            self.settle_canceled(&row).await?;
        }
        self.report(part, PartState::Stopped, "it had not begun here".to_owned()).await
    }
}

/// What an answer says of a part.
fn said(answer: CancelAnswer) -> (PartState, String) {
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
