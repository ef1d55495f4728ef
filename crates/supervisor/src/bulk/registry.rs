//! The bulk cancels that a node knows: one under each key of a project.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use cancel::{Level, RequestId, Scope};
use store::{BulkRecord, FunctionKey, StoreError};
use tokio::sync::{Notify, oneshot};

use super::{
    Bulk, BulkOrder, abroad,
    plan::{BulkPlan, planned},
    run::{How, run},
    state::ToDo,
};
use crate::{
    handle::Handle,
    message::Question,
    selection::{Found, NotSelected, Selected, Selection, Standing},
};

/// Of one project so many at once: each has its own rate, and together they must leave room.
const MAX_RUNNING: usize = 4;
/// Of one project so many are remembered, the oldest that are done go first. Each is some kilobytes, and
/// 300 in the worst case; projects are as many as the operator makes.
const MAX_KEPT: usize = 64;

/// Why a bulk cancel did not begin; nothing was cancelled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BulkRefusal {
    /// There is no selection.
    #[error(transparent)]
    NotSelected(#[from] NotSelected),
    /// The key is another one's.
    #[error(
        "this key is of another bulk cancel ({selection}, scope {scope}, level {level}); choose another key"
    )]
    OtherAsk {
        /// What that one selected by, in words.
        selection: String,
        /// Its scope.
        scope: String,
        /// Its level.
        level: String,
    },
    /// Too many run already.
    #[error("{MAX_RUNNING} bulk cancels of this project run already; wait for one to end")]
    TooManyRunning,
    /// It could not be made durable.
    #[error("it could not be stored: {0}")]
    Store(#[from] StoreError),
}

/// One that is known.
pub(crate) struct Kept {
    pub(super) key: String,
    project: String,
    bulk: Mutex<Bulk>,
    called_off: AtomicBool,
    /// Told when something of it was answered, or it is over.
    changes: Notify,
    /// Held while its end is decided and written: of two ends the later one must not be overwritten by the earlier.
    ending: tokio::sync::Mutex<()>,
}

impl Kept {
    fn new(bulk: Bulk) -> Arc<Self> {
        let (key, project) = (bulk.key.clone(), bulk.project.clone());
        let (called_off, changes, ending) = (AtomicBool::new(false), Notify::new(), Default::default());
        Arc::new(Self { key, project, bulk: Mutex::new(bulk), called_off, changes, ending })
    }

    pub(super) fn look_and_change<T>(&self, change: impl FnOnce(&mut Bulk) -> T) -> T {
        change(&mut self.bulk.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn state(&self) -> Bulk {
        self.look_and_change(|bulk| bulk.clone())
    }

    /// Notes an answer.
    pub(super) fn note(&self, change: impl FnOnce(&mut Bulk)) {
        self.look_and_change(change);
        self.changes.notify_one();
    }

    /// Resolves when something was noted since it did so last, or it is over.
    pub(super) async fn changed(&self) {
        self.changes.notified().await;
    }

    pub(super) fn is_called_off(&self) -> bool {
        self.called_off.load(Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.look_and_change(|bulk| bulk.is_over())
    }

    async fn keep_end(&self, handle: &Handle, ended: &Bulk) -> Result<(), StoreError> {
        let body = serde_json::to_string(ended).unwrap_or_default(); // plain data: cannot fail
        handle.store.end_bulk(self.project.clone(), self.key.clone(), body).await
    }

    /// All that was begun of it was answered: first the disk, then whoever asks.
    pub(super) async fn end(&self, handle: &Handle) {
        let _ending = self.ending.lock().await;
        let mut ended = self.state();
        ended.end(self.is_called_off());
        if let Err(error) = self.keep_end(handle, &ended).await {
            // The next life goes through it again, which stops nobody twice.
            tracing::warn!(key = self.key, %error, "the end of a bulk cancel could not be kept");
        }
        let Bulk { selected, stopped, draining, over, failed, .. } = ended;
        tracing::info!(key = self.key, selected, stopped, draining, over, failed, "bulk cancel");
        self.note(|bulk| *bulk = ended);
    }

    /// Leaves alone whoever was not asked to stop yet. First the disk: a new life must not go on with it. Its last form is
    /// written when it has ended; one that has is as it is.
    async fn call_off(&self, handle: &Handle) -> Result<(), StoreError> {
        let _ending = self.ending.lock().await;
        if self.is_over() {
            return Ok(());
        }
        let mut so_far = self.state();
        so_far.end(true);
        self.keep_end(handle, &so_far).await?;
        self.called_off.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// All of a node.
#[derive(Clone, Default)]
pub(crate) struct Bulks(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// By project, in the order in which they began.
    known: Mutex<HashMap<String, VecDeque<Arc<Kept>>>>,
    /// One begins at a time: who asks twice at once finds the first.
    beginning: tokio::sync::Mutex<()>,
}

impl Bulks {
    fn of<T>(&self, project: &str, look: impl FnOnce(&mut VecDeque<Arc<Kept>>) -> T) -> T {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(project) {
            return look(&mut VecDeque::new());
        }
        look(known.entry(project.to_owned()).or_default())
    }

    fn find(&self, project: &str, key: &str) -> Option<Bulk> {
        self.kept(project, key).map(|kept| kept.state())
    }

    fn kept(&self, project: &str, key: &str) -> Option<Arc<Kept>> {
        self.of(project, |all| all.iter().find(|kept| kept.key == key).map(Arc::clone))
    }

    fn running(&self, project: &str) -> usize {
        self.of(project, |all| all.iter().filter(|kept| !kept.is_over()).count())
    }

    /// Remembers one more; those that are forgotten for it.
    fn keep(&self, kept: Arc<Kept>) -> Vec<Arc<Kept>> {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let all = known.entry(kept.project.clone()).or_default();
        all.push_back(kept);
        let mut forgotten = Vec::new();
        while all.len() > MAX_KEPT {
            let Some(oldest) = all.iter().position(|kept| kept.is_over()) else { break };
            forgotten.extend(all.remove(oldest));
        }
        forgotten
    }
}

impl Handle {
    /// What a bulk cancel would do now. Each look is of its moment; together they take a while where there is
    /// much to look at, and hold nobody up.
    ///
    /// # Errors
    /// See [`NotSelected`].
    pub async fn bulk_plan(
        &self,
        selection: Selection,
        scope: Scope,
        level: Level,
    ) -> Result<BulkPlan, NotSelected> {
        let selected = self.select(selection).await?;
        planned(self, selected, scope, level).await
    }

    /// Begins a bulk cancel, or tells of the one that has its key. True if it begins now: then it is durable.
    ///
    /// # Errors
    /// See [`BulkRefusal`].
    pub async fn bulk_cancel(&self, order: BulkOrder) -> Result<(Bulk, bool), BulkRefusal> {
        // In a task of its own: what is in the store must run, though its asker goes away.
        let handle = self.clone();
        let begun = tokio::spawn(async move { handle.begin_bulk(order).await });
        begun.await.unwrap_or(Err(BulkRefusal::NotSelected(NotSelected::Gone)))
    }

    async fn begin_bulk(&self, order: BulkOrder) -> Result<(Bulk, bool), BulkRefusal> {
        let project = order.selection.project.clone();
        let _turn = self.bulks.0.beginning.lock().await;
        if let Some(known) = self.bulk(&project, &order.key).await? {
            return known.told_to(&order);
        }
        if self.bulks.running(&project) >= MAX_RUNNING {
            return Err(BulkRefusal::TooManyRunning);
        }
        let Selected { mut requests, .. } = self.select(order.selection.clone()).await?;
        // First what waits: whoever runs makes room when he is stopped, and nobody selected is to take it.
        requests.sort_by_key(|found| match found.standing {
            Standing::Waiting => 0,
            Standing::Running => 1,
            Standing::Draining => 2,
        });
        let node = self.nodes().map(|nodes| nodes.shared().node());
        let bulk = Bulk { node, ..Bulk::begun(&order, &requests) };
        let todo = ToDo::of(&requests);
        let text = |part: serde_json::Result<String>| part.unwrap_or_default(); // plain data: cannot fail
        let (body, left) = (text(serde_json::to_string(&bulk)), text(serde_json::to_string(&todo)));
        let record =
            BulkRecord { project: project.clone(), key: order.key.clone(), body, requests: Some(left) };
        match self.store.begin_bulk(record).await {
            Ok(()) => {}
            // Another node began it while this one selected.
            Err(StoreError::Exists) => {
                let known = self.bulk(&project, &order.key).await?.ok_or(StoreError::Exists)?;
                return known.told_to(&order);
            }
            Err(error) => return Err(error.into()),
        }
        let requests = requests.into_iter().map(|Found { request, function, .. }| (request, function));
        self.go_on(bulk.clone(), requests.collect(), How::of(&order));
        Ok((bulk, true))
    }

    pub(super) fn go_on(&self, bulk: Bulk, requests: Vec<(RequestId, Arc<FunctionKey>)>, how: How) {
        let kept = self.keep_bulk(bulk);
        if let Some(nodes) = self.nodes() {
            tokio::spawn(abroad::keep_noted(Arc::clone(nodes), Arc::clone(&kept)));
        }
        tokio::spawn(run(self.clone(), kept, requests, how));
    }

    /// Remembers one, and has the store forget those that go for it.
    pub(super) fn keep_bulk(&self, bulk: Bulk) -> Arc<Kept> {
        let kept = Kept::new(bulk);
        for forgotten in self.bulks.keep(Arc::clone(&kept)) {
            let forget = self.store.forget_bulk(forgotten.project.clone(), forgotten.key.clone());
            tokio::spawn(async move {
                if let Err(error) = forget.await {
                    tracing::warn!(key = forgotten.key, %error, "a bulk cancel could not be forgotten");
                }
            });
        }
        kept
    }

    /// How a bulk cancel of this project stands, whichever node of the store has it.
    ///
    /// # Errors
    /// When it is not of this node, and the store cannot be read.
    pub async fn bulk(&self, project: &str, key: &str) -> Result<Option<Bulk>, StoreError> {
        match (self.bulks.find(project, key), self.nodes()) {
            (None, Some(nodes)) => abroad::find(nodes.shared().as_ref(), project, key).await,
            (known, _) => Ok(known),
        }
    }

    /// Leaves alone whoever of it was not asked to stop yet, in the next life too; what was begun goes on. `None`
    /// if there is no such bulk cancel; one that is over stays as it is.
    ///
    /// # Errors
    /// When that could not be made durable: then it goes on.
    pub async fn call_off_bulk(&self, project: &str, key: &str) -> Result<Option<Bulk>, StoreError> {
        match (self.bulks.kept(project, key), self.nodes()) {
            (Some(kept), _) => {
                kept.call_off(self).await?;
                Ok(Some(kept.state()))
            }
            (None, Some(nodes)) => abroad::call_off(nodes.shared().as_ref(), project, key).await,
            (None, None) => Ok(None),
        }
    }

    /// Does what was asked for on another node: the row says that it is called off, and nobody would go on with it.
    pub(super) async fn hear_called_off(&self, project: &str, key: &str) -> Result<(), StoreError> {
        let Some(kept) = self.bulks.kept(project, key) else { return Ok(()) };
        if kept.is_over() {
            // An earlier life did not come to say how far it was.
            return kept.keep_end(self, &kept.state()).await;
        }
        kept.called_off.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Those of a project that are remembered, the newest first; where several nodes share the store the last 64 of all.
    ///
    /// # Errors
    /// When what other nodes have cannot be read.
    pub async fn bulks(&self, project: &str) -> Result<Vec<Bulk>, StoreError> {
        let here: Vec<Bulk> =
            self.bulks.of(project, |all| all.iter().rev().map(|kept| kept.state()).collect());
        let Some(nodes) = self.nodes() else { return Ok(here) };
        let rows = nodes.shared().bulks_of(project.to_owned(), MAX_KEPT as u32).await?;
        let known = |key: &str| here.iter().find(|bulk| bulk.key == key).cloned();
        rows.into_iter().map(|row| known(&row.record.key).map_or_else(|| abroad::read(row), Ok)).collect()
    }

    async fn select(&self, selection: Selection) -> Result<Selected, NotSelected> {
        match self.nodes() {
            None => self.select_here(selection).await,
            Some(nodes) => nodes.select(self, selection).await,
        }
    }

    /// Of what this node holds.
    pub(crate) async fn select_here(&self, selection: Selection) -> Result<Selected, NotSelected> {
        let asked = |respond: oneshot::Sender<_>| Question::Select { selection, respond };
        self.ask(asked).await.unwrap_or(Err(NotSelected::Gone))
    }
}

/// Takes up what earlier lives began: what is done is remembered, what is not goes on.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn resume(handle: &Handle) -> Result<(), StoreError> {
    handle.store.bulks().await?.into_iter().for_each(|record| handle.take_up_bulk(record));
    Ok(())
}
