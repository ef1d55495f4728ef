//! The node counted through at one moment, for whoever watches it. Takes time by instances and functions, not by
//! requests: a million that wait are the length of a queue.

use std::collections::{BTreeMap, HashMap};

use store::FunctionKey;

use crate::{
    instance::Instance,
    logs::Logs,
    metrics::OUTCOMES,
    shell::{Shell, now_ms},
};

/// The states of instances, in the order of [`FunctionCensus::instances`].
pub const INSTANCE_STATES: [&str; 5] = ["starting", "ready", "draining", "ending", "quarantined"];

const QUARANTINED: usize = INSTANCE_STATES.len() - 1;

/// One version of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionCensus {
    /// Which.
    pub function: FunctionKey,
    /// Its instances by [`INSTANCE_STATES`].
    pub instances: [u64; 5],
    /// Requests that were handed to an instance and have not ended.
    pub running: u64,
    /// Requests that wait for a place.
    pub waiting: u64,
    /// Requests that settled since it was first seen in this life, by [`OUTCOMES`].
    pub settled: [u64; OUTCOMES.len()],
}

/// The node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Every version that has, or had, something to do; in the order of their keys.
    pub functions: Vec<FunctionCensus>,
    /// Requests that are not over, those that wait for another try included.
    pub live: u64,
    /// Whether the node takes no new requests.
    pub draining: bool,
    /// Results and records of cancels that the disk has refused so far.
    pub unwritten: u64,
    /// Bytes of events in memory.
    pub event_bytes: u64,
    /// How many there may be.
    pub max_event_bytes: u64,
    /// Instances that there may be.
    pub max_instances: u64,
    /// Instances whose processes could not be killed: their places are lost until the node's next life.
    pub quarantined: u64,
    /// Lines that functions printed and that are in no log.
    pub log_lines_lost: u64,
    /// The node's own folder of the cgroups is gone: no instance can be started in it any more.
    pub leafless: bool,
    /// When it was taken, in Unix milliseconds.
    pub at_ms: i64,
}

/// What the requests of each function ended as. Of those there are: what is deleted is forgotten.
#[derive(Debug, Default)]
pub(crate) struct SettledOf(HashMap<FunctionKey, [u64; OUTCOMES.len()]>);

impl SettledOf {
    /// One more that ended as the outcome at this place of [`OUTCOMES`].
    pub(crate) fn count(&mut self, key: &FunctionKey, at: usize) {
        match self.0.get_mut(key) {
            Some(counts) => counts[at] += 1, // each request comes here: nothing is copied
            None => self.0.entry(key.clone()).or_default()[at] += 1,
        }
    }

    pub(crate) fn forget(&mut self, key: &FunctionKey) {
        self.0.remove(key);
    }
}

impl Shell {
    pub(crate) fn census(&self) -> Census {
        let mut functions: BTreeMap<&FunctionKey, FunctionCensus> = BTreeMap::new();
        let empty = |key: &FunctionKey| FunctionCensus {
            function: key.clone(),
            instances: [0; INSTANCE_STATES.len()],
            running: 0,
            waiting: 0,
            settled: [0; OUTCOMES.len()],
        };
        for (key, settled) in &self.settled_of.0 {
            functions.entry(key).or_insert_with(|| empty(key)).settled = *settled;
        }
        for (key, pool) in &self.pools {
            functions.entry(key).or_insert_with(|| empty(key)).waiting = pool.waiting() as u64;
        }
        for instance in self.instances.values() {
            let key = &*instance.function.key;
            let of = functions.entry(key).or_insert_with(|| empty(key));
            of.instances[state(instance)] += 1;
            of.running += instance.delivered.len() as u64;
        }
        let quarantined = functions.values().map(|of| of.instances[QUARANTINED]).sum();
        let folder = self.spawner.containment().base();
        Census {
            functions: functions.into_values().collect(),
            live: self.requests.len() as u64,
            draining: self.draining.is_some(),
            unwritten: self.unwritten.len() as u64,
            event_bytes: self.waiting_bytes as u64,
            max_event_bytes: self.settings.max_waiting_bytes as u64,
            max_instances: self.settings.max_instances as u64,
            quarantined,
            log_lines_lost: self.logs.as_ref().map_or(0, Logs::lost),
            leafless: folder.is_some_and(|folder| !folder.exists()),
            at_ms: now_ms(),
        }
    }
}

/// Its place in [`INSTANCE_STATES`].
fn state(instance: &Instance) -> usize {
    match (instance.stuck.is_some(), instance.ending, instance.draining, instance.ready) {
        (true, ..) => QUARANTINED,
        (_, true, ..) => 3,
        (_, _, true, _) => 2,
        (_, _, _, true) => 1,
        _ => 0,
    }
}
