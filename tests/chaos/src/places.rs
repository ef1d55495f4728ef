//! Where clients reach the nodes.

use std::sync::{Mutex, PoisonError};

use crate::client::Api;

/// One node as its clients know it.
#[derive(Clone, Debug)]
pub struct Place {
    /// How to reach it.
    pub api: Api,
    /// Which life answers there.
    pub life: u32,
}

/// All nodes. One that is gone stays where it was: clients learn it when they ask it.
#[derive(Debug)]
pub struct Places(Mutex<Vec<Place>>);

impl Places {
    /// These.
    #[must_use]
    pub fn of(places: Vec<Place>) -> Self {
        Self(Mutex::new(places))
    }

    /// A node is reached elsewhere from now on.
    pub fn moved(&self, node: usize, place: Place) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = all.get_mut(node) {
            *there = place;
        }
    }

    /// The node that this number picks; none where there are none.
    #[must_use]
    pub fn pick(&self, number: u64) -> Option<Place> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = number.checked_rem(all.len() as u64)?;
        all.get(usize::try_from(at).ok()?).cloned()
    }
}
