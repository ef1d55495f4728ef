//! Ending what an earlier life of this node left in its leaves (I7).

use std::{collections::HashSet, fs, io, path::PathBuf, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{
    containment::{Containment, GroupError},
    ending::MAX_NAMED,
    hierarchy::{groups_in, remove_group},
    leaf::Leaf,
    limits::OwnGroup,
    own_folders,
    proof::NotProven,
    rounds::{self, Members as _},
    survivor::Survivor,
};

/// Leaves ended at once; each holds three descriptors meanwhile.
const BATCH: usize = 64;

/// What a sweep of earlier lives' leaves came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Leaves that were removed.
    pub leaves: u32,
    /// Processes that were found alive in them and ended.
    pub processes: u32,
}

impl Containment {
    /// Ends and removes every leaf an earlier life of this node left, also where this life uses none.
    /// Must run before anything is spawned, and while no other life can run (the store's lock).
    ///
    /// # Errors
    /// [`GroupError::Namesake`] where another node of this name lives, and nothing was touched; when something in them cannot be ended within `limit`, or a folder cannot be read. All of them
    /// were struck then.
    pub async fn sweep(&self, limit: Duration) -> Result<Swept, GroupError> {
        if self.held.get().is_none() {
            let held = own_folders::hold(self.folders().iter().chain(self.limit_folders())).await?;
            self.held.set(held).ok(); // one sweep of a life comes after another, never beside it
        }
        let deadline = Instant::now() + limit;
        let mut swept = Swept::default();
        let mut failed = NotProven::default();
        for folder in self.folders() {
            let look = |error| GroupError::Look { path: folder.display().to_string(), error };
            for batch in groups_in(folder).map_err(look)?.chunks(BATCH) {
                let opened: io::Result<Vec<Leaf>> =
                    batch.iter().map(|path| Leaf::open(path.clone())).collect();
                sweep_batch(&opened.map_err(look)?, deadline, &mut swept, &mut failed).await;
            }
            if self.base() != Some(folder.as_path())
                && let Err(error) = fs::remove_dir(folder)
            {
                tracing::debug!(%error, folder = %folder.display(), "an earlier life's folder stays");
            }
        }
        for folder in self.limit_folders() {
            let look = |error| GroupError::Look { path: folder.display().to_string(), error };
            for path in groups_in(folder).map_err(look)? {
                sweep_own(path, deadline, &mut failed).await.map_err(look)?;
            }
            if !self.controllers().folders().any(|used| used == folder)
                && let Err(error) = remove_group(folder)
            {
                tracing::debug!(%error, folder = %folder.display(), "an earlier life's folder stays");
            }
        }
        if failed == NotProven::default() { Ok(swept) } else { Err(GroupError::Sweep(failed)) }
    }
}

/// The same for groups that limited: whoever is in one belongs to an instance of that life.
async fn sweep_own(path: PathBuf, deadline: Instant, failed: &mut NotProven) -> io::Result<()> {
    let group = OwnGroup(path);
    match timeout_at(deadline, group.end(&mut HashSet::new())).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => failed.trouble = Some(format!("{}: {error}", group.path().display())),
        Err(_) => failed.trouble = Some(format!("{}: it was not seen empty in time", group.path().display())),
    }
    let living = group.alive(MAX_NAMED - failed.survivors.len())?.unwrap_or_default();
    failed.survivors.extend(living.into_iter().filter_map(Survivor::look));
    Ok(())
}

/// Strikes all, then proves each: one deadline for the batch, and a stuck one does not spare the rest.
async fn sweep_batch(leaves: &[Leaf], deadline: Instant, swept: &mut Swept, failed: &mut NotProven) {
    let mut seen = HashSet::new();
    for leaf in leaves {
        // Counted before the strike, after which they vanish; the rounds add what lies deeper.
        seen.extend(leaf.own_processes(usize::MAX).unwrap_or_default());
        if let Err(error) = leaf.kill() {
            tracing::warn!(%error, leaf = %leaf.path().display(), "cgroup.kill refused");
        }
    }
    for leaf in leaves {
        let emptied = timeout_at(deadline, rounds::empty(leaf, &mut seen)).await;
        let trouble = match emptied.map(|emptied| emptied.and_then(|()| leaf.remove())) {
            Ok(Ok(())) => {
                swept.leaves += 1;
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it was not seen empty in time".to_owned(),
        };
        failed.trouble = Some(format!("{}: {trouble}", leaf.path().display()));
        let room = MAX_NAMED - failed.survivors.len();
        let living = leaf.processes(room).unwrap_or_default();
        failed.survivors.extend(living.into_iter().filter_map(Survivor::look));
    }
    swept.processes = swept.processes.saturating_add(u32::try_from(seen.len()).unwrap_or(u32::MAX));
}
