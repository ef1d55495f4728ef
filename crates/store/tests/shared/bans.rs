//! Accepts and fences at the same moment, on several nodes: never is a child alive and unfenced below a fence.

use std::{collections::HashMap, sync::Arc};

use cancel::{CancelId, Level, RequestId};
use store::{
    Fenced, Lineage, NewInvocation, NewReceipt, Placement, Postgres, Reach, Shared, Store, StoreError,
};

use crate::{lives::FenceOf, samples::*, subject::*};

/// Trees, one after the other in each lane.
const TREES: u128 = 120;
const LANES: u128 = 4;
/// Accepts in each tree, and fences among them.
const CHILDREN: u128 = 20;
const FENCES: u128 = 3;

/// Numbers that look like chance (splitmix64), the same each time; what is left to chance is the order on the server.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u128) -> u128 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u128::from(mixed ^ (mixed >> 31)) % most
    }
}

/// A tree: ids from `first` on, each but the first with the one it hangs below.
async fn tree(nodes: Vec<Arc<Postgres>>, first: u128, mut dice: Dice) -> (usize, usize) {
    nodes[0].accept(invocation(first)).await.unwrap();
    let mut doing = Vec::new();
    let (mut parents, mut owners) = (HashMap::new(), HashMap::from([(first, Arc::clone(&nodes[0]))]));
    let mut fences = Vec::new();
    for child in first + 1..=first + CHILDREN {
        let parent = first + dice.below(child - first);
        parents.insert(child, parent);
        let node = Arc::clone(&nodes[dice.below(nodes.len() as u128) as usize]);
        owners.insert(child, Arc::clone(&node));
        let placement = if dice.below(3) == 0 { Placement::Anywhere } else { Placement::Here };
        let lineage = Lineage { root: Some(RequestId(first)), above: vec![RequestId(parent)] };
        let new = NewInvocation { lineage, parent: Some(RequestId(parent)), placement, ..invocation(child) };
        doing.push((child, node.accept(new)));
        if dice.below(CHILDREN) < FENCES {
            let at = first + dice.below(child - first);
            let node = &nodes[dice.below(nodes.len() as u128) as usize];
            let cancel = first + at;
            fences.push(at);
            drop(match dice.below(2) {
                0 => node.fence(FenceOf { cancel, target: at }.ask()),
                _ => {
                    // A node cancels in this way what it accepted itself.
                    let node = &owners[&at];
                    let reach = Reach { root: RequestId(first), level: Level::Ask, actor: "{}".into() };
                    let recorded =
                        node.record_cancel(NewReceipt { reach: Some(reach), ..receipt(cancel, &[at]) });
                    Box::pin(async move { recorded.await.map(|()| Fenced::Unknown) })
                }
            });
        }
    }
    let mut accepted = vec![first];
    for (child, done) in doing {
        match done.await {
            Ok(()) => accepted.push(child),
            Err(StoreError::Banned) => {}
            Err(other) => panic!("{other}"),
        }
    }
    for node in &nodes {
        node.barrier().await.unwrap();
    }
    let mut under = 0;
    for id in &accepted {
        let mut above = *id;
        let fenced = loop {
            // A fence over what was not there fenced nothing, and has no receipt.
            if fences.contains(&above) && nodes[0].receipt(CancelId(first + above)).await.unwrap().is_some() {
                break true;
            }
            match parents.get(&above) {
                Some(parent) if accepted.contains(&above) => above = *parent,
                _ => break false, // the top, or what the store knows only as something above
            }
        };
        let row = nodes[0].invocation(RequestId(*id)).await.unwrap().unwrap();
        assert_eq!(row.fenced_by.is_some(), fenced, "{id} in the tree of {first}");
        under += usize::from(fenced);
    }
    (under, CHILDREN as usize + 1 - accepted.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_child_is_accepted_behind_a_fence_whatever_comes_first() {
    let home = home();
    let nodes: Vec<_> = (0..3).map(|number| Arc::new(home.node(number))).collect();
    soon(async {
        let lanes = (0..LANES).map(|lane| {
            let nodes = nodes.clone();
            tokio::spawn(async move {
                let mut counted = (0, 0);
                for number in (lane..TREES).step_by(LANES as usize) {
                    let dice = Dice(number as u64);
                    let (under, banned) = tree(nodes.clone(), 1_000 * (number + 1), dice).await;
                    counted = (counted.0 + under, counted.1 + banned);
                }
                counted
            })
        });
        let (mut under, mut banned) = (0, 0);
        for lane in lanes.collect::<Vec<_>>() {
            let counted = lane.await.unwrap();
            (under, banned) = (under + counted.0, banned + counted.1);
        }
        // Else nothing was tried.
        assert!(under > 100 && banned > 100, "{under} fenced, {banned} banned");
    })
    .await;
}
