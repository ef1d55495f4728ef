//! Cancels that reach beyond this node: fenced in the store in one transaction, stopped by whoever runs the parts.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use cancel::{CancelId, RequestId, Scope};
use store::{Fence, Fenced, FunctionKey, News, Part, PartState, Status, StoreError};
use tokio::{sync::broadcast, time::Instant};

use super::{Nodes, PartActor, Waited, shown};
use crate::{
    asks::{badness, stored_answer},
    handle::{CancelAnswer, CancelOrder, Handle, Stop},
    receipt::{AskedBy, Receipt, TouchedRequest},
    shell::{fresh_cancel, now_ms},
};

impl Nodes {
    /// Cancels, wherever the request is and whatever hangs below it, on every node.
    pub(crate) async fn cancel(self: &Arc<Self>, handle: &Handle, order: CancelOrder) -> CancelAnswer {
        match self.cancel_held(handle, order.clone()).await {
            CancelAnswer::Elsewhere => self.cancel_elsewhere(&order).await,
            answer => answer,
        }
    }

    /// The same for a request that this node has, or had; `Elsewhere` if it did not.
    pub(super) async fn cancel_held(self: &Arc<Self>, handle: &Handle, order: CancelOrder) -> CancelAnswer {
        let here = handle.cancel_here(order.clone()).await;
        match here {
            // It is over, and what it made may live on another node.
            CancelAnswer::Finished(_) if order.scope == Scope::Subtree => match self.fence(&order).await {
                Ok(Some(answer @ (CancelAnswer::Done { .. } | CancelAnswer::Unkillable { .. }))) => answer,
                Ok(_) => self.written_end(&order, here).await,
                Err(error) => gone(&order, &error),
            },
            CancelAnswer::Finished(_) => self.written_end(&order, here).await,
            here => self.rest_of(&order, here).await,
        }
    }

    /// How a request has ended, by the store: what this node knows may not be written yet, and until it is, another node
    /// may fence it first, or run it again when this one is gone.
    async fn written_end(&self, order: &CancelOrder, here: CancelAnswer) -> CancelAnswer {
        let asked = async {
            self.shared.barrier().await?;
            match self.shared.invocation(order.request).await? {
                None => Ok(here), // a synchronous one: this node alone knows it
                Some(row) if matches!(row.status, Status::Wait | Status::Running) => Ok(CancelAnswer::Gone),
                Some(_) => stored_answer(self.shared.as_ref(), order).await,
            }
        };
        asked.await.unwrap_or_else(|error| gone(order, &error))
    }

    /// What this node had of a tree is stopped; the rest may be under way on others.
    async fn rest_of(self: &Arc<Self>, order: &CancelOrder, here: CancelAnswer) -> CancelAnswer {
        let CancelAnswer::Done { cancel, stop } = here else { return here };
        if order.scope != Scope::Subtree {
            return here;
        }
        // An earlier cancel that it joined, or that had stopped it, may have been of the request alone.
        let fenced = match self.shared.reaches(cancel, order.request).await {
            Ok(true) => None,
            Ok(false) => match self.fence(order).await {
                Ok(fenced) => fenced,
                Err(error) => return gone(order, &error),
            },
            Err(error) => return gone(order, &error),
        };
        let here = if stop == Stop::Fenced { here } else { self.wait_for(cancel).await.over(cancel, here) };
        match fenced {
            Some(there @ CancelAnswer::Done { .. }) if badness(&there) > badness(&here) => there,
            Some(there @ CancelAnswer::Unkillable { .. }) => there,
            _ => here,
        }
    }

    async fn cancel_elsewhere(self: &Arc<Self>, order: &CancelOrder) -> CancelAnswer {
        let found = match self.fence(order).await {
            Ok(Some(answer)) => return answer,
            Ok(None) => stored_answer(self.shared.as_ref(), order).await,
            Err(error) => return gone(order, &error),
        };
        match found {
            Ok(CancelAnswer::Unknown) => self.ask_around(order).await,
            Ok(answer) => answer,
            Err(error) => gone(order, &error),
        }
    }

    /// Fences a request that the store knows; `None`: it knows none.
    async fn fence(self: &Arc<Self>, order: &CancelOrder) -> Result<Option<CancelAnswer>, StoreError> {
        let (cancel, begun) = (fresh_cancel(), Instant::now());
        let mut receipt = opened(cancel, order);
        // From before the fence on: what is reported after it is not missed, and its parts need not be read again.
        let news = self.shared.news();
        let answer = match self.shared.fence(fence_of(cancel, order, &receipt)).await? {
            Fenced::Unknown => return Ok(None),
            Fenced::Finished(status) => CancelAnswer::Finished(word(status)),
            Fenced::Canceled(earlier) => {
                let known = stored_answer(self.shared.as_ref(), order).await?;
                match known {
                    CancelAnswer::Done { .. } if !order.early => {
                        self.wait_for(earlier).await.over(earlier, known)
                    }
                    known => known,
                }
            }
            Fenced::Stopping { settled, parts } => {
                receipt.requests = settled.into_iter().map(never_started).collect();
                if order.early {
                    // The receipt tells the rest, when whoever waits for it below has heard of all.
                    self.close_later(cancel, receipt, news, Some(parts));
                    return Ok(Some(CancelAnswer::Done { cancel, stop: Stop::Fenced }));
                }
                let waited = self.wait_among(cancel, news, Some(parts)).await;
                receipt.took_us = u64::try_from(begun.elapsed().as_micros()).ok();
                self.closed(cancel, receipt, waited).await
            }
        };
        Ok(Some(answer))
    }

    /// Asks every other node for a synchronous request: the store knows none of them.
    async fn ask_around(&self, order: &CancelOrder) -> CancelAnswer {
        let cancel = fresh_cancel();
        let receipt = opened(cancel, order);
        let asked = match self.shared.ask_around(fence_of(cancel, order, &receipt)).await {
            Ok(asked) => asked,
            Err(error) => return gone(order, &error),
        };
        if asked.is_empty() {
            return CancelAnswer::Unknown;
        }
        let parts = match self.wait_for(cancel).await {
            Waited::Done(parts) => parts,
            waited => return waited.over(cancel, CancelAnswer::Unknown),
        };
        // One of them holds it, and its receipt is the cancel's.
        let told =
            parts.into_iter().find(|part| !matches!(part.state, PartState::NotHere | PartState::NodeLost));
        let Some(part) = told else { return CancelAnswer::Unknown };
        let cancel = CancelId::parse(&part.detail).unwrap_or(cancel);
        match part.state {
            PartState::Stopped => CancelAnswer::Done { cancel, stop: Stop::Stopped },
            PartState::Draining => CancelAnswer::Done { cancel, stop: Stop::Draining },
            PartState::Finished => CancelAnswer::Finished(word_of(&part.detail)),
            PartState::Unkillable | PartState::Open | PartState::NotHere | PartState::NodeLost => {
                CancelAnswer::Unkillable { cancel, detail: format!("on node {}: {}", part.node, part.detail) }
            }
        }
    }

    /// Waits until every part of a cancel was reported. A notification only says when to look; where it is lost, the
    /// next heartbeat's look finds the same rows. A store that cannot be read is waited for as well: until it says so,
    /// nobody knows what is stopped.
    pub(crate) async fn wait_for(&self, cancel: CancelId) -> Waited {
        let news = self.shared.news();
        self.wait_among(cancel, news, None).await
    }

    /// The same. `known`: the parts, where they were read after the news began.
    async fn wait_among(
        &self,
        cancel: CancelId,
        mut news: broadcast::Receiver<News>,
        mut known: Option<Vec<Part>>,
    ) -> Waited {
        let end = Instant::now() + self.patience;
        loop {
            let read = match known.take() {
                Some(parts) => Ok(parts),
                None => self.shared.parts_of(cancel).await,
            };
            match read {
                Ok(parts) if parts.iter().all(|part| part.state != PartState::Open) => {
                    return Waited::Done(parts);
                }
                Ok(parts) if Instant::now() >= end => return Waited::Silent(parts),
                Ok(_) => {}
                Err(StoreError::Closed) => return Waited::Unreadable(StoreError::Closed),
                Err(error) if Instant::now() >= end => return Waited::Unreadable(error),
                Err(error) => tracing::debug!(%cancel, %error, "what other nodes did cannot be read yet"),
            }
            changed(&mut news, cancel, end.min(Instant::now() + super::lease::LOOK_AGAIN)).await;
        }
    }

    fn close_later(
        self: &Arc<Self>,
        cancel: CancelId,
        receipt: Receipt,
        news: broadcast::Receiver<News>,
        known: Option<Vec<Part>>,
    ) {
        let nodes = Arc::clone(self);
        tokio::spawn(async move {
            let waited = nodes.wait_among(cancel, news, known).await;
            nodes.closed(cancel, receipt, waited).await;
        });
    }

    /// Closes a receipt that an earlier life of this node left open, when the other nodes have done what that life asked
    /// them for: true. Or it had asked for nothing: false, and the receipt is for whoever asks to close.
    pub(crate) async fn close_interrupted(
        self: &Arc<Self>,
        cancel: CancelId,
        receipt: &Receipt,
    ) -> Result<bool, StoreError> {
        let news = self.shared.news();
        let parts = self.shared.parts_of(cancel).await?;
        if parts.is_empty() {
            return Ok(false);
        }
        self.close_later(cancel, receipt.clone(), news, Some(parts));
        Ok(true)
    }

    /// Closes a receipt that this node opened for others, and says what it comes to. Whoever asks for it from here on sees its
    /// last form; the store gets that meanwhile, as it does for a cancel of this node alone: the fence is what is promised.
    /// Where it is not known what other nodes did, it stays open: this node is ending, and its next life waits for them again.
    async fn closed(
        self: &Arc<Self>,
        cancel: CancelId,
        mut receipt: Receipt,
        waited: Waited,
    ) -> CancelAnswer {
        receipt.parts = waited.parts().iter().map(shown).collect();
        let known = !matches!(waited, Waited::Unreadable(_));
        let ended = self.ended_by_itself(&receipt, waited.parts()).await;
        let answer = waited.over(cancel, CancelAnswer::Done { cancel, stop: Stop::Stopped });
        if !known {
            return answer;
        }
        let answer = ended.unwrap_or(answer);
        receipt.closed_ms = Some(now_ms());
        receipt.recorded_ms = Some(receipt.fenced_ms);
        let result = match &answer {
            // What an earlier life of this node ran of it is not proven gone.
            CancelAnswer::Done { stop: Stop::Stopped, .. } if receipt.result == "interrupted" => {
                "interrupted"
            }
            CancelAnswer::Done { stop: Stop::Stopped, .. } => "stopped",
            CancelAnswer::Done { .. } => "draining",
            CancelAnswer::Finished(_) => "finished",
            _ => "unkillable",
        };
        result.clone_into(&mut receipt.result);
        let body = serde_json::to_string(&receipt).unwrap_or_default(); // plain data: it cannot fail
        self.closing().insert(cancel, receipt);
        let nodes = Arc::clone(self);
        tokio::spawn(async move {
            while !nodes.kept(cancel, &body).await {
                tokio::time::sleep(super::lease::LOOK_AGAIN).await; // nothing tells when a database is back
            }
            nodes.closing().remove(&cancel);
        });
        answer
    }

    /// What there is to say where nothing was left to stop: all of it had ended before the fence, and what was asked for
    /// is a node's memory of it.
    async fn ended_by_itself(&self, receipt: &Receipt, parts: &[Part]) -> Option<CancelAnswer> {
        let over = |part: &Part| matches!(part.state, PartState::Finished | PartState::NotHere);
        if !receipt.requests.is_empty() || !parts.iter().all(over) {
            return None;
        }
        let own = parts.iter().find(|part| {
            part.state == PartState::Finished && part.request.to_string() == receipt.request_id
        })?;
        // An end that was written after the fence is a cancelled one.
        match self.shared.invocation(own.request).await {
            Ok(Some(row)) if row.error_code != i32::from(cancel::CODE_CANCELED) => {
                Some(CancelAnswer::Finished(word(row.status)))
            }
            Ok(None) => Some(CancelAnswer::Finished(word_of(&own.detail))),
            Ok(Some(_)) | Err(_) => None,
        }
    }

    /// Whether no more is to be done to keep the last form of a receipt.
    async fn kept(&self, cancel: CancelId, body: &str) -> bool {
        match self.shared.update_receipt(cancel, body.to_owned()).await {
            Ok(()) => true,
            Err(error @ (StoreError::Lapsed | StoreError::Closed)) => {
                tracing::warn!(%cancel, %error, "the next life gives its receipt the last form");
                true
            }
            Err(error) => {
                tracing::warn!(%cancel, %error, "the last form of a receipt cannot be kept yet");
                false
            }
        }
    }

    /// A receipt whose last form is on its way to the store.
    pub(crate) fn being_closed(&self, cancel: CancelId) -> Option<Receipt> {
        self.closing().get(&cancel).cloned()
    }

    /// No more than the writes that wait for the store: each of them is one of these.
    fn closing(&self) -> MutexGuard<'_, HashMap<CancelId, Receipt>> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when a part of a cancel was reported, or may have been, or at this moment. What was told of until now is told.
async fn changed(news: &mut broadcast::Receiver<News>, cancel: CancelId, until: Instant) {
    let look_again = tokio::time::sleep_until(until);
    tokio::pin!(look_again);
    loop {
        tokio::select! {
            told = news.recv() => match told {
                Ok(News::Reported(of)) if of == cancel => break,
                Ok(News::Again) | Err(broadcast::error::RecvError::Lagged(_)) => break,
                Ok(_) => {}
                // The store is closing: the look at it says so.
                Err(broadcast::error::RecvError::Closed) => break,
            },
            () = &mut look_again => break,
        }
    }
    // One look finds all of it.
    while news.try_recv().is_ok() {}
}

fn gone(order: &CancelOrder, error: &StoreError) -> CancelAnswer {
    tracing::error!(request = %order.request, %error, "the store could not be asked");
    CancelAnswer::Gone
}

fn fence_of(cancel: CancelId, order: &CancelOrder, receipt: &Receipt) -> Fence {
    Fence {
        cancel,
        target: order.request,
        function: order.function.clone(),
        scope: order.scope,
        level: order.level,
        body: serde_json::to_string(receipt).unwrap_or_default(), // plain data: it cannot fail
        actor: PartActor::new(&order.actor, &order.function).text(),
        now_ms: receipt.fenced_ms,
    }
}

/// The receipt of a cancel whose target this node does not hold.
fn opened(cancel: CancelId, order: &CancelOrder) -> Receipt {
    let at_ms = now_ms();
    let scope = if order.scope == Scope::Subtree { "subtree" } else { "request" };
    let level = if order.level == cancel::Level::Kill { "kill" } else { "ask" };
    Receipt {
        cancel_id: cancel.to_string(),
        request_id: order.request.to_string(),
        function_urn: format!("{}:{}", order.function.package, order.function.name),
        project: order.function.project.clone(),
        scope: scope.to_owned(),
        level: level.to_owned(),
        cause: "asked".to_owned(),
        asked_by: vec![AskedBy {
            credential: order.actor.credential.clone(),
            remote: order.actor.remote.map(|remote| remote.to_string()),
            reason: order.actor.reason.clone(),
            bulk: order.actor.bulk.clone(),
            scope: scope.to_owned(),
            level: level.to_owned(),
            at_ms,
        }],
        result: "running".to_owned(),
        fenced_ms: at_ms,
        ..Receipt::default()
    }
}

fn never_started((request, function): (RequestId, FunctionKey)) -> TouchedRequest {
    TouchedRequest {
        request_id: request.to_string(),
        function: format!("{}:{}", function.package, function.name),
        version: function.version,
        found: "queued".to_owned(),
        code: Some(cancel::CODE_CANCELED),
        evidence: Some("never_started".to_owned()),
        settled_ms: Some(now_ms()),
        ..TouchedRequest::default()
    }
}

pub(super) fn word(status: Status) -> &'static str {
    match status {
        Status::Success => "SUCCESS",
        Status::Discard => "DISCARD",
        Status::Fail | Status::Wait | Status::Running => "FAIL",
    }
}

fn word_of(detail: &str) -> &'static str {
    match detail {
        "SUCCESS" => "SUCCESS",
        "DISCARD" => "DISCARD",
        _ => "FAIL",
    }
}
