//! Reserved instances: so many of a function are there whether or not there is work.
//!
//! They are ordinary instances that the idle limit spares. One that ends is replaced: at once if the node
//! ended it (a cancel) or it had been well for a while, else after a pause that doubles, so that a function
//! that cannot start does not keep the node busy with starting it.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use cancel::InstanceId;
use store::FunctionKey;

use crate::{
    instance::Instance,
    pool::{Offer, Pool},
    shell::{Shell, Timer, now_ms},
    spec::FunctionSpec,
    view::InstanceCount,
};

/// The pause after a first failure; doubled after each further one in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// No pause is longer: a function that is well again has its instances back within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An instance that was ready for this long was well: its end starts no new row of failures.
const WELL_AFTER: Duration = Duration::from_secs(30);

/// How the reserved instances of a function fare.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    /// Ends by themselves, in a row.
    failures: u32,
    /// None is started until a timer says so.
    pausing: bool,
}

/// How an instance ended, as far as its replacement goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The node ended it.
    Ordered,
    /// By itself, after it had been well.
    Well,
    /// By itself, or it could not start.
    Failed,
}

impl Reserve {
    /// Takes note of an end; returns the pause that it brings, if it brings one.
    fn ended(&mut self, end: End) -> Option<Duration> {
        match end {
            End::Ordered => return None,
            End::Well => self.failures = 0,
            End::Failed => self.failures = self.failures.saturating_add(1),
        }
        if self.failures == 0 || self.pausing {
            return None;
        }
        self.pausing = true;
        Some(FIRST_PAUSE.saturating_mul(1 << (self.failures - 1).min(16)).min(LONGEST_PAUSE))
    }
}

impl Pool {
    /// How many instances are kept: what is reserved, and never more than the function may have.
    pub(crate) fn wanted(&self) -> usize {
        self.function.reserved.min(self.function.max_instances) as usize
    }

    /// The function is this now. A new revision may well start where the old one could not.
    pub(crate) fn follow(&mut self, function: Arc<FunctionSpec>) {
        if function.revision != self.function.revision {
            self.reserve = Reserve::default();
        }
        self.function = function;
    }

    /// The function is gone: nothing is kept for it.
    pub(crate) fn release(&mut self) {
        self.function = Arc::new(FunctionSpec { reserved: 0, ..self.function.as_ref().clone() });
    }

    /// Whether one more is to be started to have as many as are reserved.
    pub(crate) fn falls_short(&self, offers: &[Offer]) -> bool {
        let kept = offers.iter().filter(|offer| offer.kept).count();
        let may = self.instances.len() < self.function.max_instances as usize;
        !self.reserve.pausing && may && kept < self.wanted()
    }
}

impl Instance {
    fn end(&self) -> End {
        let well = self.ready_since.is_some_and(|since| since.elapsed() >= WELL_AFTER);
        match (self.ended_by_itself || self.start_failure.is_some(), well) {
            (false, _) => End::Ordered,
            (true, true) => End::Well,
            (true, false) => End::Failed,
        }
    }
}

impl Shell {
    /// Whether an instance is one that may be counted on for later requests.
    pub(crate) fn is_kept(&self, id: InstanceId) -> bool {
        self.instances.get(&id).is_some_and(|instance| !instance.ending && !instance.draining)
    }

    /// The instances of a pool's current revision that may be counted on.
    fn counted_on(&self, pool: &Pool) -> usize {
        let current = |id: &&InstanceId| {
            let instance = self.instances.get(id);
            instance.is_some_and(|instance| instance.function.revision == pool.function.revision)
        };
        pool.instances.iter().filter(current).filter(|id| self.is_kept(**id)).count()
    }

    /// Whether an idle instance may go: its function has more of them than are reserved.
    pub(crate) fn is_spare(&self, instance: &Instance) -> bool {
        self.pools
            .get(&instance.function.key)
            .is_none_or(|pool| pool.function.revision != instance.function.revision || self.has_spare(pool))
    }

    fn has_spare(&self, pool: &Pool) -> bool {
        pool.wanted() == 0 || self.counted_on(pool) > pool.wanted()
    }

    /// The instance that has been idle longest, of those that may go.
    pub(crate) fn longest_idle(&self) -> Option<InstanceId> {
        // Asked once of a function: on a full node many instances are of few functions.
        let mut spared: HashMap<&FunctionKey, bool> = HashMap::new();
        let mut may_go = |instance: &Instance| {
            let Some((key, pool)) = self.pools.get_key_value(&instance.function.key) else { return true };
            let current = pool.function.revision == instance.function.revision;
            !current || *spared.entry(key).or_insert_with(|| self.has_spare(pool))
        };
        let idle = self.instances.iter().filter(|(_, instance)| !instance.ending);
        let since = idle.filter_map(|(id, instance)| Some((instance.idle_since?, *id, instance)));
        let gone = since.filter(|(_, _, instance)| may_go(instance));
        gone.min_by_key(|(since, id, _)| (*since, *id)).map(|(_, id, _)| id)
    }

    /// An instance is gone: its function may need another, at once or after a pause.
    pub(crate) fn replace(&mut self, key: &Arc<FunctionKey>, gone: &Instance) {
        let Some(pool) = self.pools.get_mut(key) else { return };
        if pool.wanted() == 0 || gone.function.revision != pool.function.revision {
            return;
        }
        if let Some(pause) = pool.reserve.ended(gone.end()) {
            let why = gone.start_failure.as_deref().unwrap_or("it ended by itself");
            tracing::warn!(function = %gone.function.urn, why, ?pause, "a reserved instance is started again after a pause");
            self.set_timer(Timer::Reserve(Arc::clone(key)), pause);
        }
    }

    /// The pause before the next start of a reserved instance is over.
    pub(crate) fn reserve_again(&mut self, key: Arc<FunctionKey>) {
        if let Some(pool) = self.pools.get_mut(&key) {
            pool.reserve.pausing = false;
            self.dirty.insert(key);
        }
    }

    /// Counts the instances of a function where their number changed.
    pub(crate) fn count_instances(&mut self, key: &FunctionKey) {
        if !self.functions.contains_key(key) {
            return; // deleted: its figures are gone
        }
        let (all, kept) = self.pools.get(key).map_or((0, 0), |pool| (pool.instances.len(), pool.wanted()));
        self.counters.instances(key, all, kept, now_ms());
    }

    /// Once a minute: an instance that only is there is told of by nothing else.
    pub(crate) fn count_all_instances(&mut self) {
        let keys: Vec<Arc<FunctionKey>> = self
            .pools
            .iter()
            .filter(|(_, pool)| !pool.instances.is_empty())
            .map(|(key, _)| Arc::clone(key))
            .collect();
        for key in keys {
            self.count_instances(&key);
        }
        self.set_timer(Timer::Count, COUNT_EVERY);
    }

    pub(crate) fn instance_counts(&self, project: &str) -> Vec<InstanceCount> {
        let own = self.pools.iter().filter(|(key, _)| key.project == project);
        let counted = |(key, pool): (&Arc<FunctionKey>, &Pool)| {
            let ready = |id: &&InstanceId| {
                self.instances.get(id).is_some_and(|instance| {
                    instance.ready && instance.function.revision == pool.function.revision
                })
            };
            InstanceCount {
                function: FunctionKey::clone(key),
                live: pool.instances.len(),
                ready: pool.instances.iter().filter(ready).filter(|id| self.is_kept(**id)).count(),
                reserved: pool.wanted(),
            }
        };
        own.map(counted).collect()
    }
}

/// The figures have one value a minute.
pub(crate) const COUNT_EVERY: Duration = Duration::from_secs(60);

impl Instance {
    /// It has initialised.
    pub(crate) fn is_ready_now(&mut self) {
        self.ready = true;
        self.ready_since = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_a_kill_of_ours_brings_none() {
        let mut reserve = Reserve::default();
        assert_eq!(reserve.ended(End::Ordered), None);
        assert_eq!(reserve.ended(End::Well), None);
        let mut pauses = Vec::new();
        for _ in 0..40 {
            pauses.extend(reserve.ended(End::Failed));
            assert_eq!(reserve.ended(End::Failed), None, "one timer at a time");
            reserve.pausing = false;
        }
        assert_eq!(pauses[0], FIRST_PAUSE);
        assert!(pauses.is_sorted());
        assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
        assert_eq!(reserve.ended(End::Well), None, "it has been well since");
        assert_eq!(reserve.ended(End::Failed), Some(FIRST_PAUSE));
    }
}
