//! What the engine knows of one live runtime: who it serves and how it is ending. No PID, no address.

use alloc::vec::Vec;

use crate::tree::NodeKey;

/// Why an instance is ending; decides what its requests get at the reap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Killed for a cancel: the unfenced ones are collateral.
    Canceled,
    /// It went away by itself.
    Crashed,
    /// It could not initialise.
    StartFailed(u16),
    /// Nothing was on it.
    Retired,
    /// The node ends.
    NodeEnds,
}

#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) capacity: u32,
    /// Listens for cancellations by request id.
    pub(crate) cooperates: bool,
    /// Has asked for work at least once.
    pub(crate) ready: bool,
    /// Takes nothing new.
    pub(crate) draining: bool,
    /// Was sent the soft signal; its answers are no evidence any more.
    pub(crate) terminated: bool,
    pub(crate) ending: Option<Ending>,
    pub(crate) stuck: bool,
    /// Requests placed on it, running on it, or settled with code still running on it.
    pub(crate) tenants: Vec<NodeKey>,
}

impl Instance {
    pub(crate) fn new(capacity: u32) -> Self {
        Self {
            capacity: capacity.max(1),
            cooperates: false,
            ready: false,
            draining: false,
            terminated: false,
            ending: None,
            stuck: false,
            tenants: Vec::new(),
        }
    }

    /// Places left for new requests.
    pub(crate) fn room(&self) -> u32 {
        if self.draining || self.ending.is_some() {
            return 0;
        }
        self.capacity.saturating_sub(u32::try_from(self.tenants.len()).unwrap_or(u32::MAX))
    }

    pub(crate) fn vacate(&mut self, key: NodeKey) {
        self.tenants.retain(|tenant| *tenant != key);
    }
}
