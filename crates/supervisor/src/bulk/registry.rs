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
use tokio::sync::oneshot;

use super::{
    Bulk, BulkOrder,
    plan::{BulkPlan, planned},
    run::{How, run},
    state::ToDo,
};
use crate::{
    handle::{Actor, Handle},
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
    #[error("this key is of another bulk cancel ({0}); choose another key")]
    OtherAsk(String),
    /// The key is of one that another node of this store began.
    #[error(
        "this key is of a bulk cancel that another node began: ask that node how it stands, or choose another key"
    )]
    OtherNode,
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
}

impl Kept {
    fn new(bulk: Bulk) -> Arc<Self> {
        let (key, project) = (bulk.key.clone(), bulk.project.clone());
        Arc::new(Self { key, project, bulk: Mutex::new(bulk), called_off: AtomicBool::new(false) })
    }

    pub(super) fn look_and_change<T>(&self, change: impl FnOnce(&mut Bulk) -> T) -> T {
        change(&mut self.bulk.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn state(&self) -> Bulk {
        self.look_and_change(|bulk| bulk.clone())
    }

    pub(super) fn is_called_off(&self) -> bool {
        self.called_off.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.look_and_change(|bulk| bulk.is_over())
    }

    async fn keep_end(&self, handle: &Handle, ended: &Bulk) -> Result<(), StoreError> {
        let body = serde_json::to_string(ended).unwrap_or_default(); // plain data: cannot fail
        handle.store.end_bulk(self.project.clone(), self.key.clone(), body).await
    }

    /// All that was begun of it was answered: first the disk, then whoever asks.
    pub(super) async fn end(&self, handle: &Handle) {
        let mut ended = self.state();
        ended.end(self.is_called_off());
        if let Err(error) = self.keep_end(handle, &ended).await {
            // The next life goes through it again, which stops nobody twice.
            tracing::warn!(key = self.key, %error, "the end of a bulk cancel could not be kept");
        }
        let Bulk { selected, stopped, draining, over, failed, .. } = ended;
        tracing::info!(key = self.key, selected, stopped, draining, over, failed, "bulk cancel");
        self.look_and_change(|bulk| *bulk = ended);
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
        self.of(project, |all| all.iter().find(|kept| kept.key == key).map(|kept| kept.state()))
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
        if let Some(known) = self.bulks.find(&project, &order.key) {
            return if known.is(&order) {
                Ok((known, false))
            } else {
                Err(BulkRefusal::OtherAsk(known.selection))
            };
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
        let bulk = Bulk::begun(&order, &requests);
        let todo = ToDo::of(&requests);
        let text = |part: serde_json::Result<String>| part.unwrap_or_default(); // plain data: cannot fail
        let (body, left) = (text(serde_json::to_string(&bulk)), text(serde_json::to_string(&todo)));
        let record = BulkRecord { project, key: order.key.clone(), body, requests: Some(left) };
        self.store.begin_bulk(record).await.map_err(|error| match error {
            StoreError::Exists => BulkRefusal::OtherNode,
            error => error.into(),
        })?;
        let requests = requests.into_iter().map(|Found { request, function, .. }| (request, function));
        self.go_on(bulk.clone(), requests.collect(), How::of(&order));
        Ok((bulk, true))
    }

    fn go_on(&self, bulk: Bulk, requests: Vec<(RequestId, Arc<FunctionKey>)>, how: How) {
        let kept = Kept::new(bulk);
        for forgotten in self.bulks.keep(Arc::clone(&kept)) {
            let forget = self.store.forget_bulk(forgotten.project.clone(), forgotten.key.clone());
            tokio::spawn(async move {
                if let Err(error) = forget.await {
                    tracing::warn!(key = forgotten.key, %error, "a bulk cancel could not be forgotten");
                }
            });
        }
        tokio::spawn(run(self.clone(), kept, requests, how));
    }

    /// How a bulk cancel of this project stands.
    pub fn bulk(&self, project: &str, key: &str) -> Option<Bulk> {
        self.bulks.find(project, key)
    }

    /// Leaves alone whoever of it was not asked to stop yet, in the next life too; what was begun goes on. `None`
    /// if there is no such bulk cancel; one that is over stays as it is.
    ///
    /// # Errors
    /// When that could not be made durable: then it goes on.
    pub async fn call_off_bulk(&self, project: &str, key: &str) -> Result<Option<Bulk>, StoreError> {
        let find = |all: &mut VecDeque<Arc<Kept>>| all.iter().find(|kept| kept.key == key).map(Arc::clone);
        let Some(kept) = self.bulks.of(project, find) else { return Ok(None) };
        if !kept.is_over() {
            let mut so_far = kept.state();
            so_far.end(true);
            // First the disk: a new life must not go on with it. Its last form is written when it has ended.
            kept.keep_end(self, &so_far).await?;
            kept.called_off.store(true, Ordering::Relaxed);
        }
        Ok(Some(kept.state()))
    }

    /// Those of a project that are remembered, the newest first.
    pub fn bulks(&self, project: &str) -> Vec<Bulk> {
        self.bulks.of(project, |all| all.iter().rev().map(|kept| kept.state()).collect())
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
    for record in handle.store.bulks().await? {
        let BulkRecord { project, key, body, requests } = record;
        let read = serde_json::from_str::<Bulk>(&body);
        let left = requests.map(|left| serde_json::from_str::<ToDo>(&left)).transpose();
        let (bulk, todo) = match (read, left) {
            (Ok(bulk), Ok(Some(todo))) => (bulk, todo),
            (Ok(bulk), Ok(None)) => {
                handle.bulks.keep(Kept::new(bulk));
                continue;
            }
            (Err(error), _) | (_, Err(error)) => {
                // Its key stays taken: the store knows it.
                tracing::error!(key, project, %error, "a bulk cancel cannot be read; it stays as it is");
                continue;
            }
        };
        tracing::info!(key, project, selected = bulk.selected, "a bulk cancel goes on");
        let how = How {
            scope: if bulk.scope == "subtree" { Scope::Subtree } else { Scope::Request },
            level: if bulk.level == "kill" { Level::Kill } else { Level::Ask },
            rate: bulk.rate,
            actor: Actor {
                credential: bulk.asked_by.clone(),
                remote: bulk.remote.as_deref().and_then(|remote| remote.parse().ok()),
                reason: bulk.reason.clone(),
                bulk: Some(key),
            },
        };
        handle.go_on(bulk.again(), todo.requests(&project), how);
    }
    Ok(())
}
