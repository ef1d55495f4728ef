//! What this node owns by the store and does not know of: an answer that was lost with its connection leaves such. Found
//! again by looking, and taken up, or settled if it was cancelled meanwhile.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use cancel::{Outcome, RequestId};
use store::{InvocationRecord, StoreError};
use tokio::sync::oneshot;

use super::Nodes;
use crate::{
    handle::Handle,
    message::{Message, Question},
    node::never_here,
    pool::Pool,
    request::Request,
    shell::Shell,
};

/// Requests that are remembered as refused: those that were being stopped while an answer was on its way.
const MAX_BANNED: usize = 10_000;
/// How long a request waits here for a place that somebody else took, before any node may have it.
pub(super) const WAITS_HERE: Duration = Duration::from_secs(1);
/// Requests that are given back at a time: as many as are claimed at once.
const GIVEN_BACK_AT_ONCE: usize = 256;
/// Rows that are compared at a time.
const PAGE: u32 = 500;

/// Requests that must not come in any more.
#[derive(Default)]
pub(crate) struct Banned {
    known: HashSet<RequestId>,
    order: VecDeque<RequestId>,
}

impl Banned {
    pub(crate) fn has(&self, request: RequestId) -> bool {
        self.known.contains(&request)
    }

    fn add(&mut self, request: RequestId) {
        if self.known.insert(request) {
            self.order.push_back(request);
        }
        if self.order.len() > MAX_BANNED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Shell {
    /// Whether it is refused from now on: it is not here, and was not.
    pub(crate) fn ban(&mut self, request: RequestId) -> bool {
        let unknown = self.function_of(request).is_none();
        if unknown {
            self.banned.add(request);
        }
        unknown
    }

    /// The node drains: what waits here and has never run is given back, so that others run it now. First it is let
    /// go here, then in the store: whoever is asked to stop it meanwhile finds it in the store.
    pub(crate) fn leave_to_other_nodes(&mut self) {
        let Some(nodes) = self.nodes.clone() else { return };
        let left: Vec<RequestId> =
            self.requests.iter().filter(|(_, request)| is_anybodys(request)).map(|(id, _)| *id).collect();
        for id in &left {
            self.withdraw(*id);
        }
        tokio::spawn(async move {
            match nodes.shared.release(left).await {
                Ok(gone) => tracing::info!(requests = gone.len(), "gave back what waits for a place"),
                Err(error) => tracing::warn!(%error, "what waits is given back when this node has ended"),
            }
        });
    }

    /// What has waited here for long enough and never ran is let go, the oldest of each function first: somebody else took
    /// the places it was to have, and another node may have some. Nothing that this node has no room for comes back before it
    /// has ([`free_places`](Self::free_places)).
    pub(crate) fn give_back(&mut self, respond: oneshot::Sender<Vec<RequestId>>) {
        let mut full = std::mem::take(&mut self.given_back);
        full.retain(|key| self.pools.get(key).is_some_and(|pool| !self.has_room(pool)));
        let long = |request: &Request| is_anybodys(request) && request.waits_since.elapsed() >= WAITS_HERE;
        let waiting = self.pools.values().flat_map(Pool::in_order);
        let long = waiting.filter(|id| self.requests.get(id).is_some_and(|request| long(request)));
        let left: Vec<RequestId> = long.take(GIVEN_BACK_AT_ONCE).collect();
        for id in &left {
            full.extend(self.requests.get(id).map(|request| Arc::clone(&request.function.key)));
            self.withdraw(*id);
        }
        self.given_back = full;
        drop(respond.send(left)); // closed: the node is ending, and gives all back
    }

    pub(crate) fn strangers(&self, requests: Vec<RequestId>) -> Option<Vec<RequestId>> {
        let strange = |id: &RequestId| self.function_of(*id).is_none() && !self.banned.has(*id);
        (self.unwritten.len() == 0).then(|| requests.into_iter().filter(strange).collect())
    }
}

/// Whether a request waits for a place, never ran, and is not being stopped: any node may as well have it.
fn is_anybodys(request: &Request) -> bool {
    let queued = request.asynchronous && request.runnable && request.instance.is_none();
    queued && request.deliveries() == 0 && request.covered_by.is_empty()
}

impl Nodes {
    /// Gives back what has waited here for long, so that whoever has room runs it. `suspects` learns what the store gave no answer about.
    pub(super) async fn give_back(
        &self,
        handle: &Handle,
        suspects: &mut HashSet<RequestId>,
    ) -> Result<(), StoreError> {
        let _passing = self.passing.lock().await;
        let (respond, left) = oneshot::channel();
        drop(handle.inbox.send(Message::GiveBack { respond }).await); // closed: the node is ending
        let left = left.await.unwrap_or_default();
        if left.is_empty() {
            return Ok(());
        }
        match self.shared.release(left.clone()).await {
            Ok(gone) => {
                self.metrics.given_back.add(gone.len() as u64);
                tracing::debug!(requests = gone.len(), "gave back what found no place here");
                Ok(())
            }
            Err(error) => {
                suspects.extend(left); // what is still this node's is taken up at the next look
                Err(error)
            }
        }
    }

    /// Looks through what this node owns. What was unknown to it at the last look already, and is still, is taken up.
    pub(super) async fn look_for_lost(
        &self,
        handle: &Handle,
        suspects: &mut HashSet<RequestId>,
    ) -> Result<(), StoreError> {
        let (mut after, mut found) = (None, HashSet::new());
        loop {
            let page = self.shared.unsettled(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.request);
            let requests = page.iter().map(|row| row.request).collect();
            let Some(Some(strange)) = handle.ask(|respond| Question::Strangers { requests, respond }).await
            else {
                return Ok(());
            };
            let (again, new): (Vec<_>, Vec<_>) = strange.into_iter().partition(|id| suspects.contains(id));
            found.extend(new);
            let rows = page.into_iter().filter(|row| again.contains(&row.request)).collect();
            self.take_up_lost(handle, rows).await?;
        }
        *suspects = found;
        Ok(())
    }

    async fn take_up_lost(&self, handle: &Handle, rows: Vec<InvocationRecord>) -> Result<(), StoreError> {
        let (fenced, owed): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.fenced_by.is_some());
        for row in fenced {
            self.settle_canceled(&row).await?;
        }
        if owed.is_empty() {
            return Ok(());
        }
        tracing::warn!(requests = owed.len(), "took up what a lost answer had left with this node");
        let (respond, refused) = oneshot::channel();
        drop(handle.inbox.send(Message::Claimed { rows: owed, respond }).await); // closed: it is ending
        let refused = refused.await.unwrap_or_default();
        self.shared.release(refused.into_iter().map(|row| row.request).collect()).await.map(drop)
    }

    /// Settles a request that is cancelled and that this node owns without ever having had it.
    pub(super) async fn settle_canceled(&self, row: &InvocationRecord) -> Result<bool, StoreError> {
        self.shared.settle(never_here(row, Outcome::Canceled)).await
    }
}
