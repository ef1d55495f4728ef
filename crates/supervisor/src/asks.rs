//! Cancels on their way in and answers on their way out.

use std::sync::Arc;

use cancel::{CancelAsk, CancelId, Cause, Event, Level, Outcome, Reply, RequestId, Scope, Ticket};
use store::{FunctionFilter, FunctionKey, Status, Store, StoreError};
use tokio::sync::oneshot;

use crate::{
    handle::{Actor, CancelAnswer, CancelOrder, Stop},
    message::Message,
    receipt::{Receipt, TouchedRequest},
    request::Request,
    shell::{Shell, fresh_cancel},
    unwritten::Write,
};

/// Who hears the answer to a cancel.
pub(crate) enum Hearer {
    /// A task, which may be gone by then; the stop goes on.
    Task(oneshot::Sender<CancelAnswer>),
    /// Whatever is to be done with it before anything else is: it begins a write, so that it goes with those of what was
    /// stopped, and waits for nothing. Dropped, it is never called.
    Now(Box<dyn FnOnce(CancelAnswer) + Send>),
}

impl Hearer {
    pub(crate) fn tell(self, answer: CancelAnswer) {
        match self {
            Self::Task(respond) => drop(respond.send(answer)),
            Self::Now(hear) => hear(answer),
        }
    }
}

/// Somebody who waits for the answer to a cancel.
pub(crate) struct Asker {
    hearer: Hearer,
    request: RequestId,
}

impl Shell {
    pub(crate) fn cancel(&mut self, order: CancelOrder, hearer: Hearer) {
        match self.function_of(order.request) {
            Some(function) if order.function.fits(&function) => {}
            // Of another function or project: as unknown as if it were nowhere (I11).
            Some(_) => return hearer.tell(CancelAnswer::Unknown),
            None if self.nodes.is_some() => return hearer.tell(CancelAnswer::Elsewhere),
            None => match self.orphans_of(&order) {
                orphans if orphans.is_empty() => return self.ask_the_store(order, hearer),
                orphans => return self.cancel_orphans(order, orphans, hearer),
            },
        }
        let ticket = self.fresh_ticket();
        let cancel = fresh_cancel();
        let CancelOrder { request, scope, level, cause, early, actor, .. } = order;
        self.askers.insert(ticket, Asker { hearer, request });
        self.open_draft(cancel, request, Some(actor.clone()), scope, level, cause);
        let ask = CancelAsk { ticket: Some(ticket), early, cancel, request, scope, level, cause };
        self.tell(Event::CancelAsked(ask));
        if self.drop_unused(cancel) {
            // It joined a running cancel: the asker is named in that one's receipt.
            if let Some(running) = self.running_cancel(request) {
                self.drafts.name(running, &actor, scope, level);
            }
        }
    }

    /// Drops the draft of an ask that did not become a cancel of its own. True if it was one.
    pub(crate) fn drop_unused(&mut self, cancel: CancelId) -> bool {
        // One that is still on its way through its scope has recorded nothing yet.
        !self.engine.is_running(cancel) && self.drafts.drop_unused(cancel)
    }

    /// What a request of an earlier life left behind, if the whole tree is to be stopped.
    fn orphans_of(&self, order: &CancelOrder) -> Vec<(RequestId, Arc<FunctionKey>)> {
        if order.scope != Scope::Subtree {
            return Vec::new();
        }
        let below = |request: &Request| request.orphan_of.contains(&order.request);
        let left = self.requests.iter().filter(|(_, request)| {
            // Of each tree its top: the rest is below that.
            let above = request.parent.and_then(|parent| self.requests.get(&parent));
            below(request)
                && !above.is_some_and(|above| below(above))
                && request.function.key.project == order.function.project
        });
        left.map(|(id, request)| (*id, Arc::clone(&request.function.key))).collect()
    }

    /// Stops the trees that a request of an earlier life left behind, each by a cancel of its own; the
    /// answer is the worst of theirs, and names one of them.
    fn cancel_orphans(
        &self,
        order: CancelOrder,
        orphans: Vec<(RequestId, Arc<FunctionKey>)>,
        hearer: Hearer,
    ) {
        let (store, inbox) = (Arc::clone(&self.store), self.inbox.clone());
        tokio::spawn(async move {
            // Only whoever names a request and its function may stop what is below it.
            let known = stored_answer(store.as_ref(), &order).await;
            if !matches!(known, Ok(CancelAnswer::Done { .. } | CancelAnswer::Finished(_))) {
                return hearer.tell(known.unwrap_or(CancelAnswer::Gone));
            }
            let mut waits = Vec::new();
            for (request, function) in orphans {
                let function = FunctionFilter::exactly(FunctionKey::clone(&function));
                let order = CancelOrder { request, function, actor: order.actor.clone(), ..order };
                let (respond, answer) = oneshot::channel();
                let hearer = Hearer::Task(respond);
                drop(inbox.send(Message::Cancel { order, hearer }).await); // closed: its answer is Gone
                waits.push(answer);
            }
            let mut worst = CancelAnswer::Gone;
            let mut rank = 0;
            for wait in waits {
                let answer = wait.await.unwrap_or(CancelAnswer::Gone);
                let badness = badness(&answer);
                if badness > rank {
                    (worst, rank) = (answer, badness);
                }
            }
            hearer.tell(worst);
        });
    }

    /// The function of a request that is live or was settled not long ago.
    pub(crate) fn function_of(&self, request: RequestId) -> Option<Arc<FunctionKey>> {
        if let Some(request) = self.requests.get(&request) {
            return Some(Arc::clone(&request.function.key));
        }
        self.remembered.get(request).map(|settled| Arc::clone(&settled.function.key))
    }

    /// The running cancel an ask about this request joined.
    fn running_cancel(&self, request: RequestId) -> Option<CancelId> {
        let fenced_by = self.engine.request(request).and_then(|view| view.fenced_by);
        self.drafts.targeting(request).or(fenced_by)
    }

    /// Opens the receipt of a cancel the engine is about to hear of.
    pub(crate) fn open_draft(
        &mut self,
        cancel: CancelId,
        target: RequestId,
        actor: Option<Actor>,
        scope: Scope,
        level: Level,
        cause: Cause,
    ) {
        let function = match self.requests.get(&target) {
            Some(request) => Arc::clone(&request.function),
            None => match self.remembered.get(target) {
                Some(settled) => Arc::clone(&settled.function),
                None => return,
            },
        };
        let trace = self.requests.get(&target).and_then(|request| request.trace.clone());
        let root = self.nodes.is_some().then(|| self.root_of(target));
        self.drafts.open(cancel, target, &function, cause, trace, root);
        self.drafts.name(cancel, &actor.unwrap_or_default(), scope, level);
    }

    /// Effect `Answer`.
    pub(crate) fn answer(&mut self, ticket: Ticket, reply: Reply) {
        let Some(Asker { hearer, request }) = self.askers.remove(&ticket) else { return };
        let done = |cancel, stop| CancelAnswer::Done { cancel, stop };
        let answer = match reply {
            Reply::Stopped(cancel) => done(cancel, Stop::Stopped),
            Reply::Draining(cancel) => done(cancel, Stop::Draining),
            Reply::Fenced(cancel) => done(cancel, Stop::Fenced),
            Reply::AlreadyCanceled { cancel, draining } => {
                done(cancel, if draining { Stop::Draining } else { Stop::Stopped })
            }
            Reply::Unkillable(cancel) => CancelAnswer::Unkillable { cancel, detail: self.survivors(cancel) },
            Reply::NotRecorded(cancel) if self.drafts.record_failure(cancel).is_empty() => {
                return self.answer_from_receipt(cancel, hearer);
            }
            Reply::NotRecorded(cancel) => {
                CancelAnswer::NotRecorded { cancel, detail: self.drafts.record_failure(cancel) }
            }
            Reply::Finished(outcome) => CancelAnswer::Finished(self.status_word(request, outcome)),
            Reply::Unknown => CancelAnswer::Unknown,
            Reply::TooManyAskers(_) => CancelAnswer::TooManyAskers,
        };
        hearer.tell(answer);
    }

    /// A cancel that could not be recorded when it was over, and has been since.
    fn answer_from_receipt(&self, cancel: CancelId, hearer: Hearer) {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            let kept = store.receipt(cancel).await;
            let answer = match kept.map(|kept| kept.and_then(|kept| serde_json::from_str(&kept.body).ok())) {
                Ok(Some(receipt)) => CancelAnswer::Done { cancel, stop: stop_of(&receipt) },
                Ok(None) => {
                    CancelAnswer::NotRecorded { cancel, detail: "there is no record of it".to_owned() }
                }
                Err(error) => CancelAnswer::NotRecorded { cancel, detail: error.to_string() },
            };
            hearer.tell(answer);
        });
    }

    fn status_word(&self, request: RequestId, outcome: Outcome) -> &'static str {
        let fallback = if outcome == Outcome::Returned { "SUCCESS" } else { "FAIL" };
        self.remembered.get(request).map_or(fallback, |settled| settled.status)
    }

    /// What is left of the instances this cancel could not kill.
    fn survivors(&self, cancel: CancelId) -> String {
        let stuck = self.drafts.instances(cancel).into_iter().filter_map(|id| {
            let why = self.instances.get(&id)?.stuck.as_ref()?;
            Some(format!("{id}: {why}"))
        });
        stuck.collect::<Vec<_>>().join("; ")
    }

    pub(crate) fn recorded(&mut self, cancel: CancelId, record: u32, result: Result<(), StoreError>) {
        self.drafts.recorded(cancel, &result);
        if let Err(error) = &result {
            tracing::error!(%cancel, %error, "a cancel could not be recorded");
        }
        let ok = result.is_ok();
        if let Err(error) = result {
            self.unwritten(Write::Cancel(cancel), &error);
        }
        self.tell(Event::Recorded { cancel, record, ok });
    }

    /// Effect `Close`. Its receipt is kept when the askers, who are answered already, have had their turn; but in a store of
    /// several nodes at once: there it goes in one transaction with the end of what was stopped, where every other one is
    /// paid by all of them.
    pub(crate) fn close(&mut self, cancel: CancelId, reply: Reply) {
        self.drafts.close(cancel, reply);
        self.closed.push_back(cancel);
        if self.nodes.is_some() {
            self.keep_closed();
        }
    }

    /// Keeps the receipt of the cancel that has been over for longest, and logs it. Until it is kept, whoever
    /// asks for it is shown the draft.
    pub(crate) fn keep_closed(&mut self) {
        let Some(cancel) = self.closed.pop_front() else { return };
        if let Some(receipt) = self.drafts.receipt(cancel) {
            tracing::info!(
                request = receipt.request_id,
                %cancel,
                cause = receipt.cause,
                scope = receipt.scope,
                hardest = receipt.level, // not `level`: in a log of JSON that is how grave the line is
                requests = receipt.requests.len(),
                co_tenants = receipt.co_tenants.len(),
                took_us = receipt.took_us,
                result = receipt.result,
                "cancel"
            );
            self.metrics.closed(receipt, self.drafts.recorded_after(cancel));
            self.cancel_over(cancel);
        }
        self.keep_receipt(cancel);
    }

    /// Writes the present form of a receipt over the one in the store.
    pub(crate) fn keep_receipt(&self, cancel: CancelId) {
        let Some(body) = self.drafts.body(cancel) else { return };
        let write = self.store.update_receipt(cancel, body);
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let result = write.await;
            let message = Message::ReceiptKept(cancel, result);
            drop(inbox.send(message).await); // closed: the node has ended
        });
    }

    pub(crate) fn receipt_kept(&mut self, cancel: CancelId, result: Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::error!(%cancel, %error, "the last form of a receipt could not be kept");
        }
        self.drafts.kept(cancel);
    }

    /// A request this life does not know: the store may know how it ended.
    fn ask_the_store(&self, order: CancelOrder, hearer: Hearer) {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move {
            let answer = match stored_answer(store.as_ref(), &order).await {
                Ok(answer) => answer,
                Err(error) => {
                    tracing::error!(request = %order.request, %error, "the store could not be asked");
                    CancelAnswer::Gone
                }
            };
            hearer.tell(answer);
        });
    }
}

/// Orders answers by how much is left to worry about. One that ended meanwhile needed no stop.
pub(crate) fn badness(answer: &CancelAnswer) -> u8 {
    match answer {
        CancelAnswer::Unknown | CancelAnswer::Elsewhere | CancelAnswer::Finished(_) => 1,
        CancelAnswer::Done { stop: Stop::Stopped, .. } => 2,
        CancelAnswer::Done { stop: Stop::Fenced, .. } => 3,
        CancelAnswer::Done { stop: Stop::Draining, .. } => 4,
        CancelAnswer::TooManyAskers => 5,
        CancelAnswer::NotRecorded { .. } => 6,
        CancelAnswer::Unkillable { .. } => 7,
        CancelAnswer::Gone => 8,
    }
}

pub(crate) async fn stored_answer(
    store: &dyn Store,
    order: &CancelOrder,
) -> Result<CancelAnswer, StoreError> {
    let kept = store.receipt_of(order.request).await?;
    let receipt = kept.as_ref().and_then(|kept| serde_json::from_str::<Receipt>(&kept.body).ok());
    // The node died before this stop was proven, and the next life could not prove it either.
    let unproven = receipt.as_ref().is_some_and(|receipt| match receipt.result.as_str() {
        "interrupted" => true,
        "draining" => receipt.stopped_later_ms.is_none(),
        _ => false,
    });
    let stop = if unproven { Stop::Draining } else { Stop::Stopped };
    let canceled = |cancel| CancelAnswer::Done { cancel, stop };
    if let Some(record) = store.invocation(order.request).await? {
        if !order.function.fits(&record.function) {
            return Ok(CancelAnswer::Unknown);
        }
        return Ok(match (record.status, record.fenced_by) {
            (Status::Wait | Status::Running, _) => CancelAnswer::Unknown,
            (Status::Success, _) => CancelAnswer::Finished("SUCCESS"),
            (_, Some(cancel)) if record.error_code == i32::from(cancel::CODE_CANCELED) => canceled(cancel),
            (Status::Fail, _) => CancelAnswer::Finished("FAIL"),
            (Status::Discard, _) => CancelAnswer::Finished("DISCARD"),
        });
    }
    // A synchronous request leaves no row of its own, but a cancel of it left a receipt.
    let record = kept.filter(|receipt| receipt.function.project == order.function.project);
    let (Some(record), Some(receipt)) = (record, receipt) else { return Ok(CancelAnswer::Unknown) };
    let function = format!("{}:{}", order.function.package, order.function.name);
    let id = order.request.to_string();
    let meant = |row: &&TouchedRequest| {
        row.request_id == id && row.function == function && order.function.names(&row.version)
    };
    let row = receipt.requests.iter().find(meant);
    Ok(match row.and_then(|row| row.code) {
        Some(cancel::CODE_CANCELED) => canceled(record.cancel),
        Some(_) => CancelAnswer::Finished("FAIL"),
        None => CancelAnswer::Unknown,
    })
}

/// What a receipt proves of a cancel that is over.
fn stop_of(receipt: &Receipt) -> Stop {
    let drains = |row: &TouchedRequest| row.evidence.as_deref() == Some("fenced_only");
    if receipt.requests.iter().any(drains) { Stop::Draining } else { Stop::Stopped }
}
