//! What a node does for the others and takes from them: one task, so that what it has claimed is in the shell before
//! anybody can ask the shell to stop it.

use std::{collections::HashSet, sync::Arc, sync::atomic::Ordering};

use cancel::RequestId;
use store::{Beat, FunctionKey, News, StoreError};
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinHandle,
    time::{Duration, Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{Nodes, claims::Claimed, lease::Lease, owned::WAITS_HERE, parts::Performing};
use crate::handle::Handle;

/// How often what this node owns by the store is compared with what it has: a request that a lost answer left is owed
/// a run, and at two looks' distance nothing is on its way any more.
const LOOK_FOR_LOST: Duration = Duration::from_secs(15);

/// The task, while it works.
pub struct Working {
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Working {
    /// Claims nothing more from now on; what is being stopped for others goes on.
    pub fn cease(&self) {
        self.end.cancel();
    }

    /// The same, for good: whatever it asked the store and has no answer to is not waited for.
    pub async fn end(self) {
        self.end.cancel();
        self.task.abort();
        if let Err(error) = self.task.await
            && !error.is_cancelled()
        {
            tracing::error!(%error, "the task that works with other nodes ended badly");
        }
    }
}

/// What is to be done next.
#[derive(Default)]
struct Due {
    parts: bool,
    claim: bool,
}

struct Worker {
    nodes: Arc<Nodes>,
    handle: Handle,
    performing: Performing,
    unknown: HashSet<FunctionKey>,
    /// Functions that were told of as waiting for labels that no node has.
    unplaceable: HashSet<FunctionKey>,
    /// What the last look for lost requests found that the shell did not know.
    suspects: HashSet<RequestId>,
    /// Closes receipts of nodes that are gone, since the last renewal that told of some.
    adopting: Option<JoinHandle<()>>,
    /// The changes of functions that the last renewal told of.
    functions: Option<i64>,
    end: CancellationToken,
}

impl Nodes {
    /// Claims, and stops what others ask to be stopped, from now on: what this node owned before is in the shell.
    pub fn work(self: &Arc<Self>, handle: Handle, lease: &mut Lease) -> Working {
        let end = CancellationToken::new();
        let worker = Worker {
            nodes: Arc::clone(self),
            handle,
            performing: Performing::new(),
            unknown: HashSet::new(),
            unplaceable: HashSet::new(),
            suspects: HashSet::new(),
            adopting: None,
            functions: None,
            end: end.clone(),
        };
        let (news, beats) = (self.shared.news(), lease.take_beats());
        Working { end, task: tokio::spawn(worker.work(news, beats)) }
    }
}

impl Worker {
    async fn work(mut self, mut news: broadcast::Receiver<News>, mut beats: mpsc::Receiver<Beat>) {
        let mut due = Due { parts: true, claim: true };
        let mut lost = interval_at(Instant::now() + LOOK_FOR_LOST, LOOK_FOR_LOST);
        lost.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut long = interval_at(Instant::now() + WAITS_HERE, WAITS_HERE);
        long.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if due.parts {
                due.parts = self.begin_parts().await.is_err();
            }
            self.nodes.give_back_misplaced().await;
            if due.claim && self.nodes.accepts() && self.nodes.waiting.load(Ordering::Relaxed) {
                due.claim = self.claim().await;
            }
            let go_on = due.claim && self.nodes.accepts() && self.nodes.waiting.load(Ordering::Relaxed);
            tokio::select! {
                biased;
                () = self.end.cancelled() => return,
                told = news.recv() => self.heard(told, &mut due),
                Some(beat) = beats.recv() => {
                    self.beat(beat);
                    due.claim = true;
                }
                _ = lost.tick() => {
                    if let Err(error) = self.nodes.look_for_lost(&self.handle, &mut self.suspects).await {
                        tracing::debug!(%error, "what this node owns could not be looked through");
                    }
                    if let Err(error) = self.nodes.look_for_unplaceable(&mut self.unplaceable).await {
                        tracing::debug!(%error, "what no node may run could not be looked for");
                    }
                }
                _ = long.tick(), if self.nodes.accepts() => {
                    if let Err(error) = self.nodes.give_back(&self.handle, &mut self.suspects).await {
                        tracing::warn!(%error, "what waits here for a place could not be given back");
                    }
                }
                () = self.nodes.work.notified() => due.claim = true,
                () = std::future::ready(()), if go_on => {}
            }
        }
    }

    fn heard(&mut self, told: Result<News, broadcast::error::RecvError>, due: &mut Due) {
        match told {
            Ok(News::Parts) => due.parts = true,
            Ok(News::Queue) => {
                self.nodes.waiting.store(true, Ordering::Relaxed);
                due.claim = true;
            }
            Ok(News::Functions) => self.functions_changed(),
            // The next renewal tells which.
            Ok(News::Bulks) => self.nodes.hurry.notify_one(),
            Ok(News::Reported(_) | News::Credentials) => {}
            Ok(News::Again) | Err(broadcast::error::RecvError::Lagged(_)) => {
                self.nodes.waiting.store(true, Ordering::Relaxed);
                *due = Due { parts: true, claim: true };
                self.functions_changed();
                self.nodes.hurry.notify_one(); // the connection came back
            }
            // The store has been closed, and with it everything ends.
            Err(broadcast::error::RecvError::Closed) => self.end.cancel(),
        }
    }

    /// A renewal told of these, whether or not a notification did.
    fn beat(&mut self, beat: Beat) {
        self.performing.begin(&self.nodes, &self.handle, beat.parts);
        if beat.orphans && self.adopting.as_ref().is_none_or(JoinHandle::is_finished) {
            self.adopting = Some(tokio::spawn(Arc::clone(&self.nodes).adopt()));
        }
        if beat.waiting {
            self.nodes.waiting.store(true, Ordering::Relaxed);
        }
        if self.functions.replace(beat.functions).is_some_and(|known| known != beat.functions) {
            self.functions_changed();
        }
        if beat.abandoned || !beat.called_off.is_empty() {
            let (nodes, handle) = (Arc::clone(&self.nodes), self.handle.clone());
            tokio::spawn(async move {
                handle.called_off_elsewhere(beat.called_off).await;
                if beat.abandoned {
                    handle.adopt_bulks(&nodes).await;
                }
            });
        }
        for node in beat.lapsed {
            let nodes = Arc::clone(&self.nodes);
            tokio::spawn(async move {
                match nodes.shared.take_over(node.clone()).await {
                    Ok(true) => {
                        nodes.metrics.takeovers.count();
                        tracing::warn!(node, "its lease is over: its work is taken over");
                    }
                    Ok(false) => {} // another node was first
                    Err(error) => tracing::warn!(node, %error, "its work cannot be taken over yet"),
                }
            });
        }
    }

    fn functions_changed(&mut self) {
        self.unknown.clear();
        self.nodes.functions.send_modify(|changes| *changes += 1);
    }

    async fn begin_parts(&mut self) -> Result<(), StoreError> {
        let parts = self.nodes.shared.parts().await?;
        self.performing.begin(&self.nodes, &self.handle, parts);
        Ok(())
    }

    /// Claims once; whether to claim again at once.
    async fn claim(&mut self) -> bool {
        if self.nodes.read_again.swap(false, Ordering::Relaxed) {
            self.unknown.clear();
        }
        match self.nodes.claim(&self.handle, &mut self.unknown).await {
            Ok(Claimed::Some) => true,
            Ok(Claimed::Nothing) => {
                self.nodes.waiting.store(false, Ordering::Relaxed);
                false
            }
            // Until room comes free, or a renewal says that something waits.
            Ok(Claimed::NoRoom) => false,
            Err(error) => {
                tracing::warn!(%error, "nothing could be claimed");
                false
            }
        }
    }
}
