//! What is remembered of the requests that are over, so that a late cancel is told how they ended.
//!
//! Two generations: what is over is written into the younger; when that is full it becomes the older, and what
//! was the older is forgotten as a whole. So nothing is paid for forgetting each of them, and no table is ever
//! cleaned up in the middle of somebody's event. Between half of the bound and all of it are remembered.

use hashbrown::HashMap;

use crate::{Outcome, RequestId, tree::Fence};

/// How a request that is no longer in the tree ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tombstone {
    pub(crate) outcome: Outcome,
    /// Its fence, if it had one.
    pub(crate) fence: Option<Fence>,
}

#[derive(Clone, Debug)]
pub(crate) struct Tombstones {
    young: HashMap<RequestId, Tombstone>,
    old: HashMap<RequestId, Tombstone>,
    most: usize,
}

impl Tombstones {
    /// For so many at most, and for one at least. The room is there from the start: a table that grows makes
    /// one step wait for all of it, and room that is not used is no memory.
    pub(crate) fn new(most: usize) -> Self {
        let each = most / 2;
        Self { young: HashMap::with_capacity(each), old: HashMap::with_capacity(each), most }
    }

    pub(crate) fn bury(&mut self, request: RequestId, tombstone: Tombstone) {
        if self.young.len() >= (self.most / 2).max(1) {
            core::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            if self.most < 2 {
                self.old.clear();
            }
        }
        self.young.insert(request, tombstone);
    }

    pub(crate) fn get(&self, request: RequestId) -> Option<&Tombstone> {
        self.young.get(&request).or_else(|| self.old.get(&request))
    }

    /// The fences of all of them. Costs O(the bound).
    pub(crate) fn fences(&mut self) -> impl Iterator<Item = &mut Fence> {
        self.young.values_mut().chain(self.old.values_mut()).filter_map(|tomb| tomb.fence.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVER: Tombstone = Tombstone { outcome: Outcome::Returned, fence: None };

    #[test]
    fn of_any_number_the_youngest_are_remembered_and_never_more_than_the_bound() {
        for most in [0, 1, 2, 3, 8, 9] {
            let mut tombstones = Tombstones::new(most);
            for id in 1..=50_u128 {
                tombstones.bury(RequestId(id), OVER);
                let known = (1..=id).filter(|id| tombstones.get(RequestId(*id)).is_some()).count() as u128;
                let (least, most) = ((most as u128 / 2).max(1).min(id), (most as u128).max(1));
                assert!((least..=most).contains(&known), "{known} of {id}, at most {most}");
                let youngest = (id - known + 1..=id).all(|id| tombstones.get(RequestId(id)).is_some());
                assert!(youngest, "an older one is remembered, a younger one is not");
            }
        }
    }
}
