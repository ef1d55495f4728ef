//! [`Shared`] for [`Postgres`].

use std::sync::{Arc, atomic::Ordering};

use cancel::{CancelId, RequestId};
use tokio::sync::broadcast;

use super::{
    Postgres, bulks, cancels, claims, nodes, parts,
    queue::{Change, Needs},
    receipts, selects,
    store::dropped,
};
use crate::{
    Beat, BulkRecord, Claim, ElsewherePage, ElsewhereQuery, Fence, Fenced, FunctionKey, InvocationRecord,
    Joining, Namesake, News, NodeLabels, NodeRow, Part, PartState, ReceiptRecord, Shared, SharedBulk,
    StoreError, StoreFuture,
};

impl Shared for Postgres {
    fn node(&self) -> String {
        self.node.to_string()
    }

    fn join(&self, joining: Joining) -> StoreFuture<i64> {
        let (node, place, epoch) = (Arc::clone(&self.node), Arc::clone(&self.place), Arc::clone(&self.epoch));
        // In the writer's turn: what was asked for before belongs to the life before.
        let then = move |joined: &i64| epoch.store(*joined, Ordering::Release);
        self.queue.alone(
            Needs::NoCheck,
            None,
            move |db, _| Box::pin(async move { nodes::join(db, &node, &place, &joining).await }),
            then,
        )
    }

    fn namesake(&self, endpoint: String) -> StoreFuture<Option<Namesake>> {
        let (node, place) = (Arc::clone(&self.node), Arc::clone(&self.place));
        self.read(move |db| Box::pin(async move { nodes::namesake(db, &node, &place, &endpoint).await }))
    }

    fn renew(&self) -> StoreFuture<Beat> {
        let (node, epoch) = (Arc::clone(&self.node), self.epoch());
        let renewed = self.read(move |db| Box::pin(async move { nodes::renew(db, &node, epoch).await }));
        Box::pin(async move {
            renewed.await.map_err(|error| match error {
                StoreError::Unreadable(why) => StoreError::Unwritable(why),
                other => other,
            })
        })
    }

    fn drain(&self) -> StoreFuture<()> {
        let node = Arc::clone(&self.node);
        self.alone(Needs::Life, move |db, _| Box::pin(async move { nodes::drain(db, &node).await }))
    }

    fn leave(&self) -> StoreFuture<u64> {
        let node = Arc::clone(&self.node);
        self.alone(Needs::NoCheck, move |db, opening| {
            Box::pin(async move { nodes::leave(db, &node, opening.epoch).await })
        })
    }

    fn claim(&self, claim: Claim) -> StoreFuture<Vec<InvocationRecord>> {
        self.alone(Needs::Begins, move |db, opening| {
            Box::pin(async move { claims::claim(db, opening, &claim).await })
        })
    }

    fn release(&self, requests: Vec<RequestId>) -> StoreFuture<Vec<RequestId>> {
        let node = Arc::clone(&self.node);
        self.alone(Needs::Life, move |db, _| {
            Box::pin(async move { claims::release(db, &node, &requests).await })
        })
    }

    fn fence(&self, fence: Fence) -> StoreFuture<Fenced> {
        self.alone(Needs::Begins, move |db, opening| {
            Box::pin(async move { cancels::fence(db, opening, &fence).await })
        })
    }

    fn ask_around(&self, fence: Fence) -> StoreFuture<Vec<Part>> {
        let node = Arc::clone(&self.node);
        self.alone(Needs::NoCheck, move |db, opening| {
            Box::pin(async move { parts::ask_around(db, &node, opening.epoch, &fence).await })
        })
    }

    fn reaches(&self, cancel: CancelId, request: RequestId) -> StoreFuture<bool> {
        self.read(move |db| Box::pin(async move { cancels::reaches(db, cancel, request).await }))
    }

    fn parts(&self) -> StoreFuture<Vec<Part>> {
        let node = Arc::clone(&self.node);
        self.read(move |db| Box::pin(async move { parts::open(db, &node).await }))
    }

    fn parts_of(&self, cancel: CancelId) -> StoreFuture<Vec<Part>> {
        self.read(move |db| Box::pin(async move { parts::of(db, cancel).await }))
    }

    fn report(&self, part: i64, state: PartState, detail: String) -> StoreFuture<()> {
        if state == PartState::Open {
            let why = StoreError::Unwritable("a part that is open is not reported".into());
            return Box::pin(std::future::ready(Err(why)));
        }
        // In the transaction of whatever else the end of the request wrote.
        dropped(self.change(Change::Report(part, state, detail), None))
    }

    fn take_over(&self, node: String) -> StoreFuture<bool> {
        let me = Arc::clone(&self.node);
        self.alone(Needs::NoCheck, move |db, opening| {
            Box::pin(async move { nodes::take_over(db, &me, opening.epoch, &node).await })
        })
    }

    fn unplaceable(&self, limit: u32) -> StoreFuture<Vec<(FunctionKey, NodeLabels)>> {
        self.read(move |db| Box::pin(async move { claims::unplaceable(db, limit).await }))
    }

    fn bulk(&self, project: String, key: String) -> StoreFuture<Option<SharedBulk>> {
        self.read(move |db| Box::pin(async move { bulks::one(db, &project, &key).await }))
    }

    fn bulks_of(&self, project: String, limit: u32) -> StoreFuture<Vec<SharedBulk>> {
        self.read(move |db| Box::pin(async move { bulks::of_project(db, &project, limit).await }))
    }

    fn note_bulk(&self, project: String, key: String, body: String) -> StoreFuture<()> {
        let node = Arc::clone(&self.node);
        self.alone(Needs::Life, move |db, _| {
            Box::pin(async move { bulks::note(db, &node, &project, &key, &body).await })
        })
    }

    fn call_off_bulk(&self, project: String, key: String, body: String) -> StoreFuture<bool> {
        self.alone(Needs::Life, move |db, _| {
            Box::pin(async move { bulks::call_off(db, &project, &key, &body).await })
        })
    }

    fn adopt_bulks(&self) -> StoreFuture<Vec<BulkRecord>> {
        let node = Arc::clone(&self.node);
        self.alone(Needs::Life, move |db, _| Box::pin(async move { bulks::adopt(db, &node).await }))
    }

    fn adopt(&self, limit: u32) -> StoreFuture<Vec<ReceiptRecord>> {
        let node = Arc::clone(&self.node);
        self.alone(Needs::Life, move |db, _| Box::pin(async move { receipts::adopt(db, &node, limit).await }))
    }

    fn nodes(&self) -> StoreFuture<Vec<NodeRow>> {
        self.read(move |db| Box::pin(async move { nodes::all(db).await }))
    }

    fn below(&self, request: RequestId, limit: u32) -> StoreFuture<Vec<(InvocationRecord, Option<String>)>> {
        self.read(move |db| Box::pin(async move { claims::below(db, request, limit).await }))
    }

    fn select(&self, query: ElsewhereQuery) -> StoreFuture<ElsewherePage> {
        let node = Arc::clone(&self.node);
        self.read(move |db| Box::pin(async move { selects::elsewhere(db, &node, &query).await }))
    }

    fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }
}
