//! Receipts while they are being written: from the fence to the last proof.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use cancel::{CancelId, Cause, Evidence, InstanceId, Level, Outcome, Reply, RequestId, Scope};
use store::{FunctionFilter, FunctionKey, NewReceipt, Reach, StoreError};

use crate::{
    group::Proof,
    handle::Actor,
    instance::Instance,
    nodes::PartActor,
    receipt::{AskedBy, Receipt, TouchedInstance, TouchedRequest},
    request::{Request, shown},
    settings::MAX_NAMED_ASKERS,
    shell::{micros, now_ms},
    spec::FunctionSpec,
    trace::TraceContext,
};

/// How an instance ended: times from the first strike.
pub(crate) struct Ended {
    pub(crate) instance: InstanceId,
    pub(crate) proven_at: Instant,
    pub(crate) exited: Duration,
    pub(crate) emptied: Duration,
    pub(crate) proven: Duration,
}

/// What is told of a cancel to a collector of traces, beside its receipt.
pub(crate) struct Traced<'a> {
    pub(crate) trace: Option<&'a TraceContext>,
    pub(crate) target: RequestId,
    pub(crate) fenced_at: Option<Instant>,
    pub(crate) recorded_after: Option<Duration>,
    pub(crate) ends: &'a [Ended],
}

struct Draft {
    receipt: Receipt,
    target: RequestId,
    /// The top of the target's tree, where several nodes share the store.
    root: Option<RequestId>,
    function: FunctionKey,
    /// Where each request stands in `receipt.requests`.
    rows: HashMap<RequestId, usize>,
    bystanders: HashMap<RequestId, usize>,
    instances: HashMap<InstanceId, usize>,
    kill_started: HashMap<InstanceId, Instant>,
    fenced_at: Option<Instant>,
    /// How long after that it was durable for the first time.
    recorded_after: Option<Duration>,
    /// The trace of its target, and then how its instances ended.
    trace: Option<Box<TraceContext>>,
    ends: Vec<Ended>,
    closed: bool,
    record_failure: String,
}

/// The receipts that are not complete. Bounded by the running cancels, and by what is draining or
/// stuck; each holds one row a request it covers.
#[derive(Default)]
pub(crate) struct Drafts {
    drafts: HashMap<CancelId, Draft>,
}

impl Drafts {
    pub(crate) fn open(
        &mut self,
        cancel: CancelId,
        target: RequestId,
        function: &FunctionSpec,
        cause: Cause,
        trace: Option<Box<TraceContext>>,
        root: Option<RequestId>,
    ) {
        let receipt = Receipt {
            cancel_id: cancel.to_string(),
            request_id: target.to_string(),
            function_urn: function.urn.clone(),
            project: function.key.project.clone(),
            cause: cause_word(cause).to_owned(),
            result: "running".to_owned(),
            ..Receipt::default()
        };
        let draft = Draft {
            receipt,
            target,
            root,
            function: FunctionKey::clone(&function.key),
            rows: HashMap::new(),
            bystanders: HashMap::new(),
            instances: HashMap::new(),
            kill_started: HashMap::new(),
            fenced_at: None,
            recorded_after: None,
            trace,
            ends: Vec::new(),
            closed: false,
            record_failure: String::new(),
        };
        self.drafts.insert(cancel, draft);
    }

    /// Names somebody who asked. Scope and level of the receipt are the widest and hardest asked.
    pub(crate) fn name(&mut self, cancel: CancelId, actor: &Actor, scope: Scope, level: Level) {
        let Some(draft) = self.drafts.get_mut(&cancel) else { return };
        let (scope, level) = (scope_word(scope), level_word(level));
        let receipt = &mut draft.receipt;
        if receipt.scope != "subtree" {
            scope.clone_into(&mut receipt.scope);
        }
        if receipt.level != "kill" {
            level.clone_into(&mut receipt.level);
        }
        if receipt.asked_by.len() < MAX_NAMED_ASKERS {
            receipt.asked_by.push(AskedBy {
                credential: actor.credential.clone(),
                remote: actor.remote.map(|remote| remote.to_string()),
                reason: actor.reason.clone(),
                bulk: actor.bulk.clone(),
                scope: scope.to_owned(),
                level: level.to_owned(),
                at_ms: now_ms(),
            });
        }
    }

    pub(crate) fn is_closed(&self, cancel: CancelId) -> bool {
        self.drafts.get(&cancel).is_some_and(|draft| draft.closed)
    }

    /// Drops a draft that nothing was recorded of. True if it was one.
    pub(crate) fn drop_unused(&mut self, cancel: CancelId) -> bool {
        let unused = self.drafts.get(&cancel).is_some_and(|draft| draft.fenced_at.is_none());
        if unused {
            self.drafts.remove(&cancel);
        }
        unused
    }

    /// The running cancel that targets this request.
    pub(crate) fn targeting(&self, request: RequestId) -> Option<CancelId> {
        let running = |(_, draft): &(&CancelId, &Draft)| draft.target == request && !draft.closed;
        self.drafts.iter().find(running).map(|(cancel, _)| *cancel)
    }

    /// Names a request in scope. `outcome` is known already of one that only drains.
    pub(crate) fn cover(
        &mut self,
        cancel: CancelId,
        id: RequestId,
        request: &Request,
        first: bool,
        outcome: Option<Outcome>,
    ) {
        let Some(draft) = self.drafts.get_mut(&cancel) else { return };
        if draft.rows.contains_key(&id) {
            return; // a wider or harder ask covers it again
        }
        draft.fenced_at.get_or_insert_with(Instant::now);
        draft.rows.insert(id, draft.receipt.requests.len());
        let mut row = touched_and(id, request, outcome);
        row.fenced_before = !first;
        draft.receipt.requests.push(row);
    }

    /// Names a request outside the scope; `outcome` is known already of one that only drains.
    pub(crate) fn bystander(
        &mut self,
        cancel: CancelId,
        id: RequestId,
        request: &Request,
        outcome: Option<Outcome>,
    ) {
        let Some(draft) = self.drafts.get_mut(&cancel) else { return };
        draft.bystanders.insert(id, draft.receipt.co_tenants.len());
        draft.receipt.co_tenants.push(touched_and(id, request, outcome));
    }

    pub(crate) fn bystander_waits(&mut self, cancels: &[CancelId], id: RequestId) {
        for cancel in cancels {
            let Some(row) = self.drafts.get_mut(cancel).and_then(|draft| draft.bystander_row(id)) else {
                continue;
            };
            row.evidence = Some("requeued".to_owned());
        }
    }

    /// Notes a settled request in every receipt that names it; returns the closed ones this changed.
    pub(crate) fn settled(
        &mut self,
        request: &Request,
        id: RequestId,
        outcome: Outcome,
        evidence: &str,
    ) -> Vec<CancelId> {
        let (now, mut changed) = (now_ms(), Vec::new());
        let covering = request.covered_by.iter().map(|cancel| (cancel, true));
        let near = request.bystander_of.iter().map(|cancel| (cancel, false));
        for (cancel, covers) in covering.chain(near) {
            let Some(draft) = self.drafts.get_mut(cancel) else { continue };
            let row = if covers { draft.row(id) } else { draft.bystander_row(id) };
            let Some(row) = row else { continue };
            row.code = Some(outcome.code());
            row.evidence = Some(evidence.to_owned());
            row.settled_ms = Some(now);
            if draft.changed_late() {
                changed.push(*cancel);
            }
        }
        changed
    }

    /// Changes the evidence of one row; returns the closed receipts it changed, to be kept again.
    pub(crate) fn set_evidence(&mut self, cancels: &[CancelId], id: RequestId, word: &str) -> Vec<CancelId> {
        let mut changed = Vec::new();
        for cancel in cancels {
            let Some(draft) = self.drafts.get_mut(cancel) else { continue };
            let row = if draft.rows.contains_key(&id) { draft.row(id) } else { draft.bystander_row(id) };
            let Some(row) = row else { continue };
            row.evidence = Some(word.to_owned());
            if draft.changed_late() {
                changed.push(*cancel);
            }
        }
        changed
    }

    pub(crate) fn signal(
        &mut self,
        cancels: &[CancelId],
        id: InstanceId,
        word: &str,
        instances: &HashMap<InstanceId, Instance>,
    ) {
        for cancel in cancels {
            let Some(draft) = self.drafts.get_mut(cancel) else { continue };
            if word == "killed" {
                draft.kill_started.insert(id, Instant::now());
            }
            let row = draft.instance_row(id);
            let instance = instances.get(&id);
            row.pid = instance.and_then(Instance::pid);
            row.containment = instance
                .and_then(|instance| instance.group.as_ref())
                .map(|group| group.mechanism().to_string());
            if !row.signals.iter().any(|signal| signal == word) {
                row.signals.push(word.to_owned());
            }
        }
    }

    /// Notes the proof of an instance's end; returns the closed receipts it changed.
    pub(crate) fn proven(&mut self, id: InstanceId, proof: Option<&Proof>) -> Vec<CancelId> {
        let mut changed = Vec::new();
        for (cancel, draft) in &mut self.drafts {
            if !draft.instances.contains_key(&id) {
                continue;
            }
            let took = draft.kill_started.remove(&id).map(micros);
            if let (Some(proof), true) = (proof, draft.trace.is_some()) {
                draft.ends.push(Ended {
                    instance: id,
                    proven_at: Instant::now(),
                    exited: proof.phases.main_exited,
                    emptied: proof.phases.emptied,
                    proven: proof.took,
                });
            }
            let row = draft.instance_row(id);
            row.took_us = took;
            row.survivors.clear();
            match proof {
                Some(proof) => {
                    row.exit = Some(proof.exit.to_string());
                    row.proof = proof.steps.iter().map(ToString::to_string).collect();
                    row.other_processes = proof.others;
                    let micros = |took: Duration| u64::try_from(took.as_micros()).ok();
                    row.exited_us = micros(proof.phases.main_exited);
                    row.emptied_us = micros(proof.phases.emptied);
                    row.proven_us = micros(proof.took);
                    row.cannot_see = proof.cannot_see.iter().map(ToString::to_string).collect();
                }
                None => row.proof = vec!["never_started".to_owned()],
            }
            if draft.changed_late() {
                changed.push(*cancel);
            }
        }
        changed
    }

    pub(crate) fn not_proven(&mut self, id: InstanceId, survivors: &[String]) {
        for draft in self.drafts.values_mut() {
            if draft.instances.contains_key(&id) {
                draft.instance_row(id).survivors = survivors.to_vec();
            }
        }
    }

    /// The instances a cancel signalled.
    pub(crate) fn instances(&self, cancel: CancelId) -> Vec<InstanceId> {
        self.drafts.get(&cancel).map(|draft| draft.instances.keys().copied().collect()).unwrap_or_default()
    }

    /// Why a request is being stopped, as its runtime is told.
    pub(crate) fn reason(&self, cancels: &[CancelId]) -> &'static str {
        let first = cancels.first().and_then(|cancel| self.drafts.get(cancel));
        match first.map(|draft| draft.receipt.cause.as_str()) {
            Some("deadline") => "deadline",
            Some("disconnect") => "disconnect",
            Some(_) | None => "cancel",
        }
    }

    /// The record the engine asked for: everything fenced so far.
    pub(crate) fn record(&mut self, cancel: CancelId, level: Level) -> Option<NewReceipt> {
        let draft = self.drafts.get_mut(&cancel)?;
        if draft.receipt.fenced_ms == 0 {
            draft.fenced_at.get_or_insert_with(Instant::now);
            draft.receipt.fenced_ms = now_ms();
        }
        level_word(level).clone_into(&mut draft.receipt.level);
        Some(draft.new_receipt(cancel))
    }

    /// The same again, for a store that refused it.
    pub(crate) fn record_again(&mut self, cancel: CancelId) -> Option<NewReceipt> {
        let draft = self.drafts.get(&cancel)?;
        Some(draft.new_receipt(cancel))
    }

    pub(crate) fn recorded(&mut self, cancel: CancelId, result: &Result<(), StoreError>) {
        let Some(draft) = self.drafts.get_mut(&cancel) else { return };
        match result {
            Ok(()) => {
                draft.receipt.recorded_ms = Some(now_ms());
                let after = draft.fenced_at.map(|at| at.elapsed());
                draft.recorded_after = draft.recorded_after.or(after);
                draft.record_failure.clear();
            }
            Err(error) => draft.record_failure = error.to_string(),
        }
    }

    /// A cancel as a collector of traces is told of it.
    pub(crate) fn traced(&self, cancel: CancelId) -> Option<(&Receipt, Traced<'_>)> {
        let draft = self.drafts.get(&cancel)?;
        let traced = Traced {
            trace: draft.trace.as_deref(),
            target: draft.target,
            fenced_at: draft.fenced_at,
            recorded_after: draft.recorded_after,
            ends: &draft.ends,
        };
        Some((&draft.receipt, traced))
    }

    /// How long after its fence a cancel was durable, if it is.
    pub(crate) fn recorded_after(&self, cancel: CancelId) -> Option<Duration> {
        self.drafts.get(&cancel)?.recorded_after
    }

    pub(crate) fn record_failure(&self, cancel: CancelId) -> String {
        self.drafts.get(&cancel).map(|draft| draft.record_failure.clone()).unwrap_or_default()
    }

    pub(crate) fn close(&mut self, cancel: CancelId, reply: Reply) {
        let Some(draft) = self.drafts.get_mut(&cancel) else { return };
        draft.closed = true;
        draft.receipt.closed_ms = Some(now_ms());
        draft.receipt.took_us = draft.fenced_at.map(micros);
        let word = match reply {
            Reply::Unkillable(_) => "unkillable",
            Reply::Draining(_) => "draining",
            Reply::NotRecorded(_) => "not_recorded",
            _ => "stopped",
        };
        word.clone_into(&mut draft.receipt.result);
    }

    pub(crate) fn body(&self, cancel: CancelId) -> Option<String> {
        self.drafts.get(&cancel).map(Draft::body)
    }

    pub(crate) fn receipt(&self, cancel: CancelId) -> Option<&Receipt> {
        self.drafts.get(&cancel).map(|draft| &draft.receipt)
    }

    /// The store has the receipt's present form: forget it, unless something about it is still open.
    pub(crate) fn kept(&mut self, cancel: CancelId) {
        let done = |draft: &Draft| draft.closed && !draft.open_ended() && draft.record_failure.is_empty();
        if self.drafts.get(&cancel).is_some_and(done) {
            self.drafts.remove(&cancel);
        }
    }
}

impl Draft {
    /// How far it goes beyond this node: a cancel of a tree, to whatever hangs below it.
    fn reach(&self) -> Option<Reach> {
        let root = self.root.filter(|_| self.receipt.scope == "subtree")?;
        let level = if self.receipt.level == "kill" { Level::Kill } else { Level::Ask };
        let first = self.receipt.asked_by.first().cloned().unwrap_or_default();
        let actor = Actor {
            credential: first.credential,
            remote: first.remote.and_then(|remote| remote.parse().ok()),
            reason: first.reason,
            bulk: first.bulk,
        };
        let actor = PartActor::new(&actor, &FunctionFilter::exactly(self.function.clone())).text();
        Some(Reach { root, level, actor })
    }

    fn new_receipt(&self, cancel: CancelId) -> NewReceipt {
        NewReceipt {
            cancel,
            target: self.target,
            function: self.function.clone(),
            fenced: self.rows.keys().copied().collect(),
            reach: self.reach(),
            body: self.body(),
            created_ms: self.receipt.fenced_ms,
        }
    }

    fn row(&mut self, id: RequestId) -> Option<&mut TouchedRequest> {
        self.rows.get(&id).and_then(|at| self.receipt.requests.get_mut(*at))
    }

    fn bystander_row(&mut self, id: RequestId) -> Option<&mut TouchedRequest> {
        self.bystanders.get(&id).and_then(|at| self.receipt.co_tenants.get_mut(*at))
    }

    fn instance_row(&mut self, id: InstanceId) -> &mut TouchedInstance {
        let rows = &mut self.receipt.instances;
        let at = *self.instances.entry(id).or_insert_with(|| {
            rows.push(TouchedInstance { instance: id.to_string(), ..TouchedInstance::default() });
            rows.len() - 1
        });
        &mut self.receipt.instances[at]
    }

    /// Whether it was closed before what changed now, and so has to be kept again. Notes when nothing that
    /// was open at the close is any more.
    fn changed_late(&mut self) -> bool {
        if self.closed
            && !self.open_ended()
            && self.receipt.result != "stopped"
            && self.receipt.stopped_later_ms.is_none()
        {
            self.receipt.stopped_later_ms = Some(now_ms());
        }
        self.closed
    }

    /// Whether a late proof may still be added.
    fn open_ended(&self) -> bool {
        let open =
            |row: &TouchedRequest| matches!(row.evidence.as_deref(), None | Some("fenced_only" | "stuck"));
        self.receipt.requests.iter().any(open) || !self.kill_started.is_empty()
    }

    fn body(&self) -> String {
        serde_json::to_string(&self.receipt).unwrap_or_default() // plain data with string keys: cannot fail
    }
}

/// The engine has moved on by the time its effects are carried out; where the request stood when the
/// fence fell is what the shell still has of it.
fn touched(id: RequestId, request: &Request) -> TouchedRequest {
    let found = match (request.draining, request.started.is_some(), request.instance.is_some()) {
        (true, ..) => "draining",
        (_, true, _) => "running",
        (_, _, true) => "placed",
        _ => "queued",
    };
    TouchedRequest {
        request_id: id.to_string(),
        parent: request.parent.map(|parent| parent.to_string()),
        function: shown(&request.function),
        version: request.function.key.version.clone(),
        labels: request.labels.to_map(),
        found: found.to_owned(),
        instance: request.instance.map(|instance| instance.to_string()),
        ..TouchedRequest::default()
    }
}

fn touched_and(id: RequestId, request: &Request, outcome: Option<Outcome>) -> TouchedRequest {
    let drains = outcome.map(|_| "fenced_only".to_owned());
    TouchedRequest { code: outcome.map(Outcome::code), evidence: drains, ..touched(id, request) }
}

pub(crate) fn evidence_word(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::NeverStarted => "never_started",
        Evidence::Answered => "answered",
        Evidence::Acknowledged(..) => "acknowledged",
        Evidence::Reaped(_) => "reaped",
        Evidence::FencedOnly(_) => "fenced_only",
    }
}

fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Asked => "asked",
        Cause::Deadline => "deadline",
        Cause::Disconnect => "disconnect",
    }
}

pub(crate) fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Request => "request",
        Scope::Subtree => "subtree",
    }
}

pub(crate) fn level_word(level: Level) -> &'static str {
    match level {
        Level::Ask => "ask",
        Level::Kill => "kill",
    }
}
