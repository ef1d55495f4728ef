//! How requests get their one result and instances lose their tenants.

use alloc::vec::Vec;

use crate::{
    Answer, Attempt, Effect, Engine, Evidence, InstanceId, Level, OnCollateral, Outcome, RequestId, Requeue,
    instance::Ending,
    rest::Rest,
    tree::{NodeKey, Phase},
};

impl Engine {
    /// I1: the only place where an unsettled request gets its result.
    fn settle(&mut self, key: NodeKey, outcome: Outcome, evidence: Evidence, out: &mut Vec<Effect>) {
        let Some(node) = self.tree.get(key) else { return };
        let (request, fenced) = (node.id, node.fence.is_some());
        let counted = fenced && !node.stuck;
        let ran = node.ran();
        let phase = match evidence {
            Evidence::FencedOnly(instance) => Phase::Draining(instance, outcome),
            Evidence::NeverStarted
            | Evidence::Answered
            | Evidence::Acknowledged(..)
            | Evidence::Reaped(_) => Phase::Husk(outcome),
        };
        self.tree.mark_settled(key, phase);
        out.push(Effect::Settle { request, outcome, ran, evidence });
        if counted {
            let draining = matches!(evidence, Evidence::FencedOnly(_));
            self.rest(key, Level::Ask, if draining { Rest::Draining } else { Rest::Stopped }, out);
        }
        self.prune(key);
    }

    /// Settles a request no runtime holds, and gives back its place if it had one.
    pub(crate) fn settle_never_started(&mut self, key: NodeKey, outcome: Outcome, out: &mut Vec<Effect>) {
        let place = self.tree.get(key).map(|node| node.phase);
        self.settle(key, outcome, Evidence::NeverStarted, out);
        if let Some(Phase::Placed(instance)) = place {
            self.vacate(instance, key, out);
        }
    }

    /// Settles a request whose code may run on: its instance drains (DESIGN section 4, Ask 2).
    pub(crate) fn settle_draining(&mut self, key: NodeKey, instance: InstanceId, out: &mut Vec<Effect>) {
        let Some(fence) = self.tree.get(key).and_then(|node| node.fence) else { return };
        self.settle(key, Outcome::of(fence.cause), Evidence::FencedOnly(instance), out);
        self.drain(instance, out);
    }

    pub(crate) fn answered(
        &mut self,
        request: RequestId,
        instance: InstanceId,
        attempt: Attempt,
        answer: Answer,
        out: &mut Vec<Effect>,
    ) {
        let Some((key, node)) = self.tree.find(request) else { return };
        if node.attempt != attempt {
            return;
        }
        match node.phase {
            Phase::Draining(at, _) if at == instance => {
                // The word of what is being killed counts for nothing: the reap will tell (I5).
                if self.instances.get(&instance).is_none_or(|holder| holder.ending.is_some()) {
                    return;
                }
                let evidence = Evidence::Acknowledged(instance, attempt);
                self.gone(key, evidence, out);
                self.vacate(instance, key, out);
            }
            Phase::Running(at) if at == instance => match node.fence {
                None => self.answered_unfenced(key, instance, answer, out),
                Some(fence) => {
                    let Some(holder) = self.instances.get(&instance) else { return };
                    // What is being killed, or was sent the soft signal, is believed only when reaped (I5).
                    if fence.level == Level::Kill || holder.ending.is_some() {
                        return;
                    }
                    if holder.terminated {
                        self.end(instance, Ending::Canceled, out);
                        return;
                    }
                    let evidence = Evidence::Acknowledged(instance, attempt);
                    self.settle(key, Outcome::of(fence.cause), evidence, out);
                    self.vacate(instance, key, out);
                }
            },
            Phase::Queued | Phase::Placed(_) | Phase::Running(_) | Phase::Draining(..) | Phase::Husk(_) => {}
        }
    }

    fn answered_unfenced(
        &mut self,
        key: NodeKey,
        instance: InstanceId,
        answer: Answer,
        out: &mut Vec<Effect>,
    ) {
        match answer {
            Answer::Failed { retry: true, .. } if self.spend_retry(key) => {
                self.requeue(key, Requeue::Retry, out);
            }
            Answer::Failed { code, .. } => self.settle(key, Outcome::Failed(code), Evidence::Answered, out),
            Answer::Returned => self.settle(key, Outcome::Returned, Evidence::Answered, out),
        }
        self.vacate(instance, key, out);
    }

    pub(crate) fn delivery_failed(
        &mut self,
        request: RequestId,
        instance: InstanceId,
        attempt: Attempt,
        out: &mut Vec<Effect>,
    ) {
        let Some((key, node)) = self.tree.find(request) else { return };
        if node.phase != Phase::Running(instance) || node.attempt != attempt {
            return;
        }
        let fence = node.fence;
        let Some(holder) = self.instances.get(&instance) else { return };
        if holder.ending.is_some() {
            return; // the reap decides
        }
        if let Some(node) = self.tree.get_mut(key) {
            node.undelivered += 1;
        }
        match fence {
            Some(fence) => {
                self.settle(key, Outcome::of(fence.cause), Evidence::NeverStarted, out);
                self.vacate(instance, key, out);
            }
            None if holder.draining => {
                self.requeue(key, Requeue::Displaced, out);
                self.vacate(instance, key, out);
            }
            None => {
                if let Some(node) = self.tree.get_mut(key) {
                    node.phase = Phase::Placed(instance);
                }
            }
        }
    }

    /// Everything of this instance is dead, by proof: its tenants get what they get (I5).
    pub(crate) fn reaped(&mut self, instance: InstanceId, out: &mut Vec<Effect>) {
        let Some(gone) = self.instances.remove(&instance) else { return };
        let ending = gone.ending.unwrap_or(Ending::Crashed);
        for key in self.bystanders_first(gone.tenants) {
            self.reaped_tenant(key, instance, ending, gone.ready, out);
        }
    }

    /// The tenants of an instance that ends, the unfenced before the fenced: a cancel answers with the
    /// last request it covers, and what became of those it touched besides is known by then.
    pub(crate) fn bystanders_first(&self, mut tenants: Vec<NodeKey>) -> Vec<NodeKey> {
        tenants.sort_by_key(|key| self.tree.get(*key).is_some_and(|node| node.fence.is_some()));
        tenants
    }

    fn reaped_tenant(
        &mut self,
        key: NodeKey,
        instance: InstanceId,
        ending: Ending,
        was_ready: bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(node) = self.tree.get(key) else { return };
        let evidence = Evidence::Reaped(instance);
        if node.settled().is_some() {
            return self.gone(key, evidence, out);
        }
        if let Some(fence) = node.fence {
            return self.settle(key, Outcome::of(fence.cause), evidence, out);
        }
        if matches!(node.phase, Phase::Placed(_)) {
            return self.never_taken(key, ending, was_ready, out);
        }
        let policy = node.policy;
        match ending {
            Ending::Canceled if policy.asynchronous && policy.on_collateral == OnCollateral::Retry => {
                self.requeue(key, Requeue::Collateral, out);
            }
            Ending::Canceled => self.settle(key, Outcome::Canceled, evidence, out),
            Ending::NodeEnds if policy.asynchronous => self.requeue(key, Requeue::Displaced, out),
            Ending::Crashed | Ending::StartFailed(_) | Ending::Retired | Ending::NodeEnds => {
                if self.spend_retry(key) {
                    self.requeue(key, Requeue::Retry, out);
                } else {
                    self.settle(key, Outcome::Crashed, evidence, out);
                }
            }
        }
    }

    /// An unfenced request whose instance ended before taking it: a failed start is its own failure,
    /// anything else none of its business.
    pub(crate) fn never_taken(
        &mut self,
        key: NodeKey,
        ending: Ending,
        was_ready: bool,
        out: &mut Vec<Effect>,
    ) {
        match ending {
            Ending::StartFailed(code) => self.settle_or_retry(key, Outcome::Failed(code), out),
            Ending::Crashed if !was_ready => self.settle_or_retry(key, Outcome::Crashed, out),
            Ending::Crashed | Ending::Canceled | Ending::Retired | Ending::NodeEnds => {
                self.requeue(key, Requeue::Displaced, out);
            }
        }
    }

    fn settle_or_retry(&mut self, key: NodeKey, outcome: Outcome, out: &mut Vec<Effect>) {
        if self.spend_retry(key) {
            self.requeue(key, Requeue::Retry, out);
        } else {
            self.settle(key, outcome, Evidence::NeverStarted, out);
        }
    }

    fn spend_retry(&mut self, key: NodeKey) -> bool {
        let Some(node) = self.tree.get_mut(key) else { return false };
        let left = node.policy.retries.checked_sub(1);
        node.policy.retries = left.unwrap_or(0);
        left.is_some()
    }

    /// The request waits again. Never called for a fenced one: that is I6's half of this crate.
    fn requeue(&mut self, key: NodeKey, why: Requeue, out: &mut Vec<Effect>) {
        let Some(node) = self.tree.get_mut(key) else { return };
        debug_assert!(node.fence.is_none(), "I2: a fenced request waits again");
        node.phase = Phase::Queued;
        node.stuck = false;
        out.push(Effect::Requeue { request: node.id, why });
    }

    /// The code of a request that settled as fenced only has ended.
    fn gone(&mut self, key: NodeKey, evidence: Evidence, out: &mut Vec<Effect>) {
        let Some(node) = self.tree.get_mut(key) else { return };
        let Phase::Draining(_, outcome) = node.phase else { return };
        node.phase = Phase::Husk(outcome);
        let (request, counted) = (node.id, !node.stuck);
        out.push(Effect::Gone { request, evidence });
        if counted {
            self.rest(key, Level::Kill, Rest::Stopped, out);
        }
        self.prune(key);
    }

    /// A tenant leaves; a draining instance ends with its last.
    pub(crate) fn vacate(&mut self, instance: InstanceId, key: NodeKey, out: &mut Vec<Effect>) {
        if let Some(holder) = self.instances.get_mut(&instance) {
            holder.vacate(key);
        }
        self.end_if_drained(instance, out);
    }

    /// The instance takes nothing new; what was placed on it and not taken waits again.
    pub(crate) fn drain(&mut self, instance: InstanceId, out: &mut Vec<Effect>) {
        let Some(holder) = self.instances.get_mut(&instance) else { return };
        if holder.ending.is_some() || holder.draining {
            return;
        }
        holder.draining = true;
        out.push(Effect::Drain(instance));
        self.displace(instance, out);
    }

    /// Ends a draining instance once no request on it still counts. One within its own grace does:
    /// its grace ending is what ends the instance then.
    pub(crate) fn end_if_drained(&mut self, instance: InstanceId, out: &mut Vec<Effect>) {
        let Some(holder) = self.instances.get(&instance) else { return };
        let busy = |key: &NodeKey| self.tree.get(*key).is_some_and(|node| node.settled().is_none());
        if !holder.draining || holder.ending.is_some() || holder.tenants.iter().any(busy) {
            return;
        }
        self.end(instance, Ending::Retired, out);
    }

    /// Orders the end of an instance, once; the first reason stays.
    pub(crate) fn end(&mut self, instance: InstanceId, why: Ending, out: &mut Vec<Effect>) {
        let Some(holder) = self.instances.get_mut(&instance) else { return };
        if holder.ending.is_some() {
            return;
        }
        holder.ending = Some(why);
        out.push(Effect::Kill(instance));
        // What never started must not wait for a death it has no part in; at a failed start the
        // reap tells those that waited for it why.
        if matches!(why, Ending::Canceled | Ending::Retired | Ending::NodeEnds) || holder.ready {
            self.displace(instance, out);
        }
    }

    /// Puts the unfenced requests that have a place here, and were not taken, back to waiting.
    fn displace(&mut self, instance: InstanceId, out: &mut Vec<Effect>) {
        let Some(holder) = self.instances.get(&instance) else { return };
        let placed = |key: &&NodeKey| {
            let node = self.tree.get(**key);
            node.is_some_and(|node| node.phase == Phase::Placed(instance) && node.fence.is_none())
        };
        let displaced: Vec<NodeKey> = holder.tenants.iter().filter(placed).copied().collect();
        for key in displaced {
            if let Some(holder) = self.instances.get_mut(&instance) {
                holder.vacate(key);
            }
            self.requeue(key, Requeue::Displaced, out);
        }
    }
}
