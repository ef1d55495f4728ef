//! Random sequences of calls against the store and against a model of plain maps: whoever can be asked
//! answers alike. The model is what the trait's documentation says, and is meant for any store.

use std::collections::{BTreeMap, BTreeSet};

use cancel::{CancelId, RequestId};
use proptest::prelude::*;
use store::{
    FunctionFilter, FunctionKey, InvocationPage, InvocationQuery, InvocationRecord, LATEST, Labels,
    NewInvocation, NewReceipt, Settlement, Status, Store, StoreError,
};

use crate::samples::*;

/// Few ids, so that calls meet each other.
const IDS: u128 = 6;
const CANCELS: u128 = 4;
const STATUSES: [Status; 5] = [Status::Wait, Status::Running, Status::Success, Status::Fail, Status::Discard];

#[derive(Clone, Debug)]
enum Call {
    Accept(NewInvocation),
    Running(u128, u32, i64),
    Waiting(u128, u32, i64),
    Settle(Settlement),
    Cancel(NewReceipt),
    Rewrite(u128, String),
    Prune(i64, u32),
    List(InvocationQuery),
    Unsettled(Option<u128>, u32),
}

/// None, one or two of the same few.
fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[ab]", "[xy]?", 0..3).prop_map(Labels::new)
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let id = || 1..=IDS;
    let name = || prop_oneof![4 => Just("f"), 1 => Just("g")];
    let version = || prop_oneof![2 => Just(LATEST), 1 => Just("v1"), 1 => Just("v2")];
    let function = (name(), version(), prop::option::of(Just("prod".into())));
    let accept = (id(), function, 0_i64..8, prop::option::of(id()), labels()).prop_map(
        |(id, (name, version, alias), at, parent, labels)| {
            let (function, parent) = (key(name).at(version).into(), parent.map(RequestId));
            Call::Accept(NewInvocation { function, alias, created_ms: at, parent, labels, ..invocation(id) })
        },
    );
    // Ids of their own: a result never goes to a request that is there already.
    let next = (IDS + 1..u128::MAX)
        .prop_map(|id| Box::new(NewInvocation { request: RequestId(id), hops: 1, ..invocation(1) }));
    let settle = (id(), prop::sample::select(&STATUSES[2..]), 0_i64..8, prop::option::of(next))
        .prop_map(|(id, status, at, next)| Call::Settle(Settlement { next, ..settlement(id, status, at) }));
    let cancel = (1..=CANCELS, prop::collection::vec(id(), 1..4), 0_i64..8, "[a-z]{0,3}").prop_map(
        |(cancel, fenced, created_ms, body)| {
            Call::Cancel(NewReceipt { created_ms, body, ..receipt(cancel, &fenced) })
        },
    );
    let list = (
        (name(), prop::collection::vec(version().prop_map(str::to_owned), 0..3)),
        prop::collection::vec(id(), 0..3),
        prop::option::of(prop::sample::select(&STATUSES[..])),
        (0_i64..4, 3_i64..8),
        (0_u64..4, 0_u32..4),
        (any::<bool>(), labels()),
    )
        .prop_map(
            |(
                (name, versions),
                requests,
                status,
                (from_ms, until_ms),
                (offset, limit),
                (unsettled, labels),
            )| {
                let requests = requests.into_iter().map(RequestId).collect();
                let function = FunctionFilter { versions, ..FunctionFilter::whole(key(name)) };
                Call::List(InvocationQuery {
                    function,
                    requests,
                    status,
                    unsettled,
                    labels,
                    from_ms,
                    until_ms,
                    offset,
                    limit,
                })
            },
        );
    let call = prop_oneof![
        4 => accept,
        2 => (id(), 1_u32..4, 0_i64..8).prop_map(|(id, attempts, at)| Call::Running(id, attempts, at)),
        1 => (id(), 0_u32..4, 0_i64..8).prop_map(|(id, failures, at)| Call::Waiting(id, failures, at)),
        3 => settle,
        3 => cancel,
        1 => (1..=CANCELS, "[a-z]{0,3}").prop_map(|(cancel, body)| Call::Rewrite(cancel, body)),
        1 => (0_i64..8, 0_u32..3).prop_map(|(before, limit)| Call::Prune(before, limit)),
        2 => list,
        1 => (prop::option::of(id()), 0_u32..4).prop_map(|(after, limit)| Call::Unsettled(after, limit)),
    ];
    prop::collection::vec(call, 1..40)
}

/// What the trait's documentation says, in the order things were written.
#[derive(Default)]
struct Model {
    rows: Vec<InvocationRecord>,
    receipts: Vec<NewReceipt>,
    /// Cancels that are over.
    over: BTreeSet<CancelId>,
    /// In the order of the fences.
    fences: Vec<(RequestId, CancelId)>,
}

fn without_payload(row: &InvocationRecord) -> InvocationRecord {
    InvocationRecord { payload: "".into(), ..row.clone() }
}

fn is_final(status: Status) -> bool {
    !matches!(status, Status::Wait | Status::Running)
}

impl Model {
    fn open_row(&mut self, id: RequestId) -> Option<&mut InvocationRecord> {
        self.rows.iter_mut().find(|row| row.request == id && !is_final(row.status))
    }

    fn accept(&mut self, new: NewInvocation) -> Result<(), StoreError> {
        if self.rows.iter().any(|row| row.request == new.request) {
            return Err(StoreError::Exists);
        }
        self.rows.push(InvocationRecord {
            request: new.request,
            function: FunctionKey::clone(&new.function),
            alias: new.alias.map(|alias| alias.to_string()),
            parent: new.parent,
            payload_len: new.payload.len() as u64,
            payload: new.payload,
            status: Status::Wait,
            error_code: 0,
            error_message: String::new(),
            attempts: 0,
            created_ms: new.created_ms,
            started_ms: None,
            ended_ms: None,
            fenced_by: None,
            failures: 0,
            not_before_ms: 0,
            hops: new.hops,
            labels: new.labels,
            root: None,
        });
        Ok(())
    }

    fn settle(&mut self, end: Settlement) -> bool {
        let Some(row) = self.open_row(end.request) else { return false };
        row.status = end.status;
        row.error_code = end.error_code;
        row.error_message = end.error_message;
        row.ended_ms = Some(end.ended_ms);
        if let Some(next) = end.next {
            self.accept(*next).unwrap();
        }
        true
    }

    fn cancel(&mut self, new: NewReceipt) {
        for id in &new.fenced {
            if !self.fences.contains(&(*id, new.cancel)) {
                self.fences.push((*id, new.cancel));
            }
            if let Some(row) = self.open_row(*id) {
                row.fenced_by.get_or_insert(new.cancel);
            }
        }
        match self.receipts.iter_mut().find(|receipt| receipt.cancel == new.cancel) {
            Some(receipt) => {
                receipt.body = new.body;
                self.over.remove(&receipt.cancel);
            }
            None => self.receipts.push(new),
        }
    }

    fn prune(&mut self, before: i64, limit: u32) -> u64 {
        let limit = limit as usize;
        // A stable sort by time leaves the order of writing among equals.
        let mut ended: Vec<_> =
            self.rows.iter().filter_map(|row| Some((row.ended_ms?, row.request))).collect();
        ended.retain(|(at, _)| *at < before);
        ended.sort_by_key(|(at, _)| *at);
        ended.truncate(limit);
        self.rows.retain(|row| !ended.iter().any(|(_, id)| *id == row.request));
        let mut old: Vec<_> = self.receipts.iter().map(|row| (row.created_ms, row.cancel)).collect();
        old.retain(|(at, _)| *at < before);
        old.sort_by_key(|(at, _)| *at);
        old.truncate(limit);
        self.receipts.retain(|row| !old.iter().any(|(_, id)| *id == row.cancel));
        self.over.retain(|cancel| !old.iter().any(|(_, id)| id == cancel));
        self.fences.retain(|(_, cancel)| !old.iter().any(|(_, id)| id == cancel));
        (ended.len() + old.len()) as u64
    }

    fn list(&self, query: &InvocationQuery) -> InvocationPage {
        let mut rows: Vec<_> = self.rows.iter().rev().cloned().collect();
        rows.retain(|row| {
            query.function.fits(&row.function)
                && (query.requests.is_empty() || query.requests.contains(&row.request))
                && query.status.is_none_or(|status| status == row.status)
                && !(query.unsettled && is_final(row.status))
                && row.labels.include(&query.labels)
                && (query.from_ms..=query.until_ms).contains(&row.created_ms)
        });
        rows.sort_by_key(|row| std::cmp::Reverse(row.created_ms));
        let total = rows.len() as u64;
        let skip = usize::try_from(query.offset).unwrap();
        let rows = rows.into_iter().skip(skip).take(query.limit as usize);
        InvocationPage { rows: rows.map(|row| without_payload(&row)).collect(), total }
    }

    fn unsettled(&self, after: Option<RequestId>, limit: u32) -> Vec<InvocationRecord> {
        let place = self.rows.iter().position(|row| Some(row.request) == after);
        let rest = self.rows.iter().skip(place.map_or(0, |place| place + 1));
        rest.filter(|row| !is_final(row.status)).take(limit as usize).map(without_payload).collect()
    }
}

/// Makes one call of both, and compares what they say.
async fn agree(store: &dyn Store, model: &mut Model, call: Call) {
    match call {
        Call::Accept(new) => assert_eq!(store.accept(new.clone()).await, model.accept(new)),
        Call::Running(id, attempts, at) => {
            store.mark_running(RequestId(id), attempts, at).await.unwrap();
            if let Some(row) = model.open_row(RequestId(id)) {
                (row.status, row.attempts, row.started_ms) = (Status::Running, attempts, Some(at));
            }
        }
        Call::Waiting(id, failures, at) => {
            store.mark_waiting(RequestId(id), failures, at).await.unwrap();
            if let Some(row) = model.open_row(RequestId(id)) {
                (row.status, row.failures, row.not_before_ms) = (Status::Wait, failures, at);
            }
        }
        Call::Settle(end) => {
            assert_eq!(store.settle(end.clone()).await, Ok(model.settle(end)));
        }
        Call::Cancel(new) => {
            store.record_cancel(new.clone()).await.unwrap();
            model.cancel(new);
        }
        Call::Rewrite(cancel, body) => {
            store.update_receipt(CancelId(cancel), body.clone()).await.unwrap();
            if let Some(receipt) = model.receipts.iter_mut().find(|row| row.cancel.0 == cancel) {
                receipt.body = body;
                model.over.insert(receipt.cancel);
            }
        }
        Call::Prune(before, limit) => {
            assert_eq!(store.prune(before, limit).await, Ok(model.prune(before, limit)));
        }
        Call::List(query) => assert_eq!(store.invocations(query.clone()).await, Ok(model.list(&query))),
        Call::Unsettled(after, limit) => {
            let after = after.map(RequestId);
            assert_eq!(store.unsettled(after, limit).await, Ok(model.unsettled(after, limit)));
        }
    }
}

/// Compares everything the store can be asked about.
async fn agree_on_all(store: &dyn Store, model: &Model) {
    let kept: BTreeMap<_, _> = model.receipts.iter().map(|row| (row.cancel, row)).collect();
    for id in (1..=IDS).map(RequestId) {
        let row = model.rows.iter().find(|row| row.request == id).cloned();
        assert_eq!(store.invocation(id).await, Ok(row));
        let first = model.fences.iter().find(|(request, _)| *request == id).map(|(_, cancel)| *cancel);
        assert_eq!(store.receipt_of(id).await.unwrap().map(|row| row.cancel), first);
    }
    for id in (1..=CANCELS).map(CancelId) {
        let row = store.receipt(id).await.unwrap().map(|row| (row.target, row.body, row.created_ms));
        assert_eq!(row, kept.get(&id).map(|row| (row.target, row.body.clone(), row.created_ms)));
    }
    let open: Vec<_> = store.open_receipts(u32::MAX).await.unwrap().iter().map(|row| row.cancel).collect();
    let not_over = model.receipts.iter().map(|row| row.cancel).filter(|id| !model.over.contains(id));
    assert_eq!(open, not_over.collect::<Vec<_>>());
    assert_eq!(store.unsettled(None, u32::MAX).await, Ok(model.unsettled(None, u32::MAX)));
    assert_eq!(store.invocations(query()).await, Ok(model.list(&query())));
    let mut newest: Vec<_> = model.receipts.iter().rev().map(|row| (row.created_ms, row.cancel)).collect();
    newest.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let listed = store.receipts("p".into(), None, (i64::MIN, i64::MAX), 0, u32::MAX).await.unwrap();
    assert_eq!(listed.iter().map(|row| (row.created_ms, row.cancel)).collect::<Vec<_>>(), newest);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::subject::CASES, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_calls_is_answered_as_by_plain_maps(calls in calls()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, dir) = fresh();
            let mut model = Model::default();
            for call in calls {
                agree(&store, &mut model, call).await;
            }
            agree_on_all(&store, &model).await;
            drop(store);
            agree_on_all(&again(&dir), &model).await;
        });
    }
}
