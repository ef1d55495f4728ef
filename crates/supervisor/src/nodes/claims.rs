//! Requests out of the shared queue: as many as the node would run now, and none that another is better placed for.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
};

use cancel::Outcome;
use store::{Claim, FunctionKey, InvocationRecord, StoreError};
use tokio::sync::oneshot;

use super::Nodes;
use crate::{
    codes,
    handle::Handle,
    message::{Message, Question},
    node::{never_here, taken_up},
    pool::Pool,
    shell::Shell,
    spec::FunctionSpec,
};

/// Requests in one claim: enough to make the way to the store cheap for each, few enough that another node finds some.
const CLAIMED_AT_ONCE: u32 = 256;
/// Of one version of a function in one claim: where it turns out that the node cannot run them all, so many wait here
/// while another node might run them.
const OF_EACH: u32 = 8;
/// Functions that are named as not wanted; a node that is behind with more of them claims nothing.
const MAX_NOT: usize = 1_000;

/// What the node would run now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    /// So many requests.
    pub(crate) places: usize,
    /// Not of these: they have enough waiting here or no room, or are disabled.
    pub(crate) behind: Vec<FunctionKey>,
}

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimed {
    /// There may be more.
    Some,
    /// Nothing waits that this node could run.
    Nothing,
    /// What waits, if anything does, has to wait for room here.
    NoRoom,
}

impl Shell {
    /// Places on instances there are and could be, less what waits for them already.
    pub(crate) fn free_places(&self) -> Room {
        if self.draining.is_some() {
            return Room::default();
        }
        let free = self.settings.max_instances.saturating_sub(self.instances.len());
        let offered: u32 = self.instances.keys().map(|id| self.engine.room(*id)).sum();
        let waiting: usize = self.pools.values().map(Pool::waiting).sum();
        // What was given back for want of room does not come before there is some.
        let enough = |key: &Arc<FunctionKey>, pool: &Pool| {
            let given_back = pool.waiting() > 0 || self.given_back.contains(key);
            given_back && !self.has_room(pool) || self.crowded_out.contains(key)
        };
        let behind = self.pools.iter().filter(|(key, pool)| enough(key, pool));
        // What asks for labels that are not here is not given out by the store.
        let is_disabled = |function: &&Arc<FunctionSpec>| function.max_instances == 0;
        let disabled = self.functions.values().filter(is_disabled).filter(|of| !self.lacks_labels(of));
        let behind = behind.map(|(key, _)| key).chain(disabled.map(|function| &function.key));
        Room {
            places: (free + offered as usize).saturating_sub(waiting),
            behind: behind.map(|key| FunctionKey::clone(key)).collect(),
        }
    }

    /// Takes up what was claimed; gives back what is of functions that are not here, or ask for labels that are not.
    pub(crate) fn claimed(
        &mut self,
        rows: Vec<InvocationRecord>,
        respond: oneshot::Sender<Vec<InvocationRecord>>,
    ) {
        let mut unknown = Vec::new();
        for row in rows {
            match self.functions.get(&row.function).map(Arc::clone) {
                Some(function) if !self.lacks_labels(&function) => {
                    // A tree that spans nodes is held together by the store.
                    let parent = row.parent;
                    self.arrived(taken_up(row, function, parent, Vec::new()));
                }
                _ => unknown.push(row),
            }
        }
        drop(respond.send(unknown)); // closed: the node is ending, and gives all back
    }
}

impl Nodes {
    /// Claims once. `unknown`: functions that cannot run here.
    pub(super) async fn claim(
        &self,
        handle: &Handle,
        unknown: &mut HashSet<FunctionKey>,
    ) -> Result<Claimed, StoreError> {
        let Some(room) = handle.ask(|respond| Question::Room { respond }).await else {
            return Ok(Claimed::NoRoom);
        };
        let mut not = room.behind;
        not.extend(unknown.iter().cloned());
        let limit = u32::try_from(room.places).unwrap_or(CLAIMED_AT_ONCE).min(CLAIMED_AT_ONCE);
        if limit == 0 || not.len() > MAX_NOT {
            return Ok(Claimed::NoRoom);
        }
        // Of what is behind here there may be some.
        let nothing = match not.is_empty() {
            true => Claimed::Nothing,
            false => Claimed::NoRoom,
        };
        let _passing = self.passing.lock().await;
        let rows = self.shared.claim(Claim { limit, each: OF_EACH, not }).await?;
        if rows.is_empty() {
            return Ok(nothing);
        }
        self.metrics.claimed.add(rows.len() as u64);
        let (respond, refused) = oneshot::channel();
        drop(handle.inbox.send(Message::Claimed { rows, respond }).await); // closed: it is ending
        for row in refused.await.unwrap_or_default() {
            self.cannot_run(row, unknown).await?;
        }
        Ok(Claimed::Some)
    }

    /// Gives back what the shell has let go of.
    pub(super) async fn give_back_misplaced(&self) {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        if left.is_empty() {
            return;
        }
        match self.shared.release(left).await {
            Ok(gone) => tracing::info!(requests = gone.len(), "gave back what this node may not run"),
            // Found again as what this node owns and does not know of.
            Err(error) => tracing::warn!(%error, "what this node may not run is given back later"),
        }
    }

    /// Its function is not here: for another node, or for nobody if it is gone.
    async fn cannot_run(
        &self,
        row: InvocationRecord,
        unknown: &mut HashSet<FunctionKey>,
    ) -> Result<(), StoreError> {
        if self.shared.function(row.function.clone()).await?.is_some() {
            self.shared.release(vec![row.request]).await?;
            unknown.insert(row.function);
            return Ok(());
        }
        let settlement = never_here(&row, Outcome::Failed(codes::NO_FUNCTION));
        self.shared.settle(settlement).await.map(drop)
    }
}
