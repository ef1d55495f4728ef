//! The plan (dry run): what a cancel would do, told by the same rules without doing it.

use alloc::vec::Vec;
use hashbrown::HashSet;

use crate::{
    CancelAsk, Engine, InstanceId, Level, OnCollateral, OnGrace, Reply, RequestId, Scope,
    stop::is_innocent,
    tree::{Node, NodeKey, Phase},
};

/// How one request would be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopHow {
    /// No runtime holds it: it is taken out of the queue.
    Removed,
    /// Its runtime is asked; this is what happens if that does not stop it within its grace.
    Asked {
        /// Where it runs.
        instance: InstanceId,
        /// `Drain` if innocent co-tenants live there and its function did not choose otherwise.
        then: OnGrace,
    },
    /// Its instance is killed, or is dying already (then it is not among the `kills`).
    Killed(InstanceId),
    /// A running cancel is at it already, as hard as this one would be.
    Stopping,
    /// It has settled, and its code may still run on this draining instance; left to end there.
    Draining(InstanceId),
}

/// One request of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedStop {
    /// Which.
    pub request: RequestId,
    /// How.
    pub how: StopHow,
}

/// What a cancel would do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The requests in scope that are not over, parents before children.
    pub stops: Vec<PlannedStop>,
    /// Instances that die at once.
    pub kills: Vec<InstanceId>,
    /// Requests outside the scope that would settle as 4208 with those instances.
    pub collateral: Vec<RequestId>,
    /// Requests outside the scope that would lose their place and wait again.
    pub requeued: Vec<RequestId>,
}

impl Engine {
    /// What this ask would do, if it were told now. Costs O(nodes in scope).
    ///
    /// # Errors
    /// The reply the asker would get at once, where there is nothing to stop.
    pub fn plan(&self, ask: &CancelAsk) -> Result<Plan, Reply> {
        let target = self.stoppable(ask)?;
        let (scope, level) = self.comes_to(target, ask);
        let mut covered = Vec::new();
        match scope {
            Scope::Request => covered.push(target),
            Scope::Subtree => self.tree.subtree(target, usize::MAX, &mut covered),
        }
        let scope: HashSet<NodeKey> = covered.iter().copied().collect();
        let mut doomed = HashSet::new();
        let mut plan = Plan::default();
        for key in &covered {
            let Some(node) = self.tree.get(*key) else { continue };
            let Some(how) = self.how(node, level, &scope) else { continue };
            plan.stops.push(PlannedStop { request: node.id, how });
            if let StopHow::Killed(instance) = how
                && self.lives(instance)
                && doomed.insert(instance)
            {
                plan.kills.push(instance);
            }
        }
        for instance in plan.kills.clone() {
            self.plan_bystanders(instance, &scope, &mut plan);
        }
        Ok(plan)
    }

    fn how(&self, node: &Node, level: Level, scope: &HashSet<NodeKey>) -> Option<StopHow> {
        let raised = node.level().is_none_or(|now| now < level);
        Some(match node.phase {
            Phase::Husk(_) => return None,
            Phase::Draining(instance, _) if level == Level::Ask => StopHow::Draining(instance),
            Phase::Queued | Phase::Placed(_) | Phase::Running(_) | Phase::Draining(..) if !raised => {
                StopHow::Stopping
            }
            Phase::Queued => StopHow::Removed,
            Phase::Placed(instance) => {
                let starting = self.instances.get(&instance).is_some_and(|holder| !holder.ready);
                if starting && level == Level::Kill { StopHow::Killed(instance) } else { StopHow::Removed }
            }
            Phase::Running(instance) if level == Level::Ask && self.lives(instance) => {
                StopHow::Asked { instance, then: self.after_grace(node, instance, scope) }
            }
            Phase::Running(instance) | Phase::Draining(instance, _) => StopHow::Killed(instance),
        })
    }

    fn lives(&self, instance: InstanceId) -> bool {
        self.instances.get(&instance).is_some_and(|holder| holder.ending.is_none())
    }

    fn after_grace(&self, node: &Node, instance: InstanceId, scope: &HashSet<NodeKey>) -> OnGrace {
        let Some(holder) = self.instances.get(&instance) else { return OnGrace::Kill };
        let innocent = |key: &NodeKey| !scope.contains(key) && self.tree.get(*key).is_some_and(is_innocent);
        if holder.tenants.iter().any(innocent) { node.policy.on_grace } else { OnGrace::Kill }
    }

    /// Names who shares a doomed instance without being in scope.
    fn plan_bystanders(&self, instance: InstanceId, scope: &HashSet<NodeKey>, plan: &mut Plan) {
        let Some(holder) = self.instances.get(&instance) else { return };
        for key in holder.tenants.iter().filter(|key| !scope.contains(*key)) {
            let Some(node) = self.tree.get(*key).filter(|node| node.fence.is_none()) else { continue };
            let retry = node.policy.asynchronous && node.policy.on_collateral == OnCollateral::Retry;
            match node.phase {
                Phase::Running(_) if !retry => plan.collateral.push(node.id),
                Phase::Running(_) | Phase::Placed(_) => plan.requeued.push(node.id),
                Phase::Queued | Phase::Draining(..) | Phase::Husk(_) => {}
            }
        }
    }
}
