//! The reference for how instances end and what their requests get.

use cancel::{Effect, Evidence, InstanceId, OnCollateral, Outcome, RequestId, Requeue};

use crate::model::{At, Inst, Model, Why};

impl Model {
    /// Takes nothing new; what has a place and was not taken waits again.
    pub(crate) fn drain(&mut self, instance: InstanceId) {
        let Some(i) = self.instances.get_mut(&instance) else { return };
        if i.draining || i.why.is_some() {
            return;
        }
        i.draining = true;
        self.effects.push(Effect::Drain(instance));
        self.displace(instance);
    }

    fn displace(&mut self, instance: InstanceId) {
        for request in self.tenants(instance) {
            let req = &self.requests[&request];
            if req.at == At::Placed(instance) && req.fence.is_none() {
                self.requeue(request, Requeue::Displaced);
            }
        }
    }

    pub(crate) fn end(&mut self, instance: InstanceId, why: Why) {
        let Some(i) = self.instances.get_mut(&instance) else { return };
        if i.why.is_some() {
            return;
        }
        i.why = Some(why);
        self.effects.push(Effect::Kill(instance));
        let failed_start = matches!(why, Why::Crashed | Why::StartFailed(_)) && !i.ready;
        if !failed_start {
            self.displace(instance);
        }
    }

    /// A draining instance ends when no request on it is unsettled.
    pub(crate) fn end_what_has_drained(&mut self) {
        let drained: Vec<InstanceId> = self
            .instances
            .iter()
            .filter(|(id, i)| i.draining && self.tenants(**id).iter().all(|t| self.requests[t].settled()))
            .map(|(id, _)| *id)
            .collect();
        for instance in drained {
            self.end(instance, Why::Drained);
        }
    }

    pub(crate) fn kill_timed_out(&mut self, instance: InstanceId) {
        let Some(i) = self.instances.get_mut(&instance) else { return };
        let Some(why) = i.why.filter(|_| !i.stuck) else { return };
        i.stuck = true;
        let i = i.clone();
        self.effects.push(Effect::Quarantine(instance));
        for request in self.tenants(instance) {
            let req = self.requests.get_mut(&request).expect("known");
            if matches!(req.at, At::Placed(_)) && req.fence.is_none() {
                // It waited for the reap only to be told why the start failed.
                self.not_started(request, &i, why);
                continue;
            }
            if i.ready && matches!(req.at, At::Placed(_)) {
                continue; // fenced, and settled as soon as whoever fenced it acts
            }
            req.stuck = true;
            if !req.settled() {
                self.effects.push(Effect::Stuck(request));
            }
        }
    }

    pub(crate) fn reaped(&mut self, instance: InstanceId) {
        let Some(i) = self.instances.get(&instance).cloned() else { return };
        let why = i.why.unwrap_or(Why::Crashed);
        for request in self.tenants(instance) {
            let req = self.requests[&request].clone();
            let proof = Evidence::Reaped(instance);
            let again = req.policy.on_collateral == OnCollateral::Retry && req.policy.asynchronous;
            match (req.at, why) {
                (At::Over(outcome, _), _) => self.gone(request, outcome, proof),
                _ if req.fence.is_some() => self.settle(request, req.outcome_if_fenced(), proof),
                (At::Placed(_), _) => self.not_started(request, &i, why),
                (_, Why::Canceled) if again => self.requeue(request, Requeue::Collateral),
                (_, Why::Canceled) => self.settle(request, Outcome::Canceled, proof),
                (_, Why::NodeEnds) if req.policy.asynchronous => {
                    self.requeue(request, Requeue::Displaced);
                }
                _ => {
                    if !self.retry(request) {
                        self.settle(request, Outcome::Crashed, proof);
                    }
                }
            }
        }
        self.instances.remove(&instance);
    }

    /// What becomes of a request whose place was never taken: if the start failed that is its own
    /// failure, else it waits again.
    pub(crate) fn not_started(&mut self, request: RequestId, i: &Inst, why: Why) {
        let outcome = match why {
            Why::StartFailed(code) => Outcome::Failed(code),
            Why::Crashed if !i.ready => Outcome::Crashed,
            _ => return self.requeue(request, Requeue::Displaced),
        };
        if !self.retry(request) {
            self.settle(request, outcome, Evidence::NeverStarted);
        }
    }
}
