//! How a bulk cancel stands: what is told of it, and what the store keeps.

use std::sync::Arc;

use cancel::{CancelId, RequestId};
use serde::{Deserialize, Serialize};
use store::FunctionKey;
use utoipa::ToSchema;

use super::{BulkOrder, BulkRefusal};
use crate::{
    drafts::{level_word, scope_word},
    handle::{CancelAnswer, Stop},
    selection::{Found, Standing},
    shell::now_ms,
};

/// Requests named in each list of a state; more are counted and not named. Every one of them has its receipt.
const MAX_NAMED: usize = 1_000;

/// A cancel of many requests. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Bulk {
    /// The name its asker gave it.
    pub key: String,
    /// The project.
    pub project: String,
    /// Which requests were meant.
    #[serde(rename = "where")]
    pub selection: String,
    /// `request` or `subtree`.
    pub scope: String,
    /// `ask` or `kill`.
    pub level: String,
    /// Cancels a second, at most.
    pub rate: u32,
    /// The id of the asker's credential.
    pub asked_by: String,
    /// Where from.
    pub remote: Option<String>,
    /// In the asker's words.
    pub reason: Option<String>,
    /// When the selection was taken.
    pub asked_ms: i64,
    /// `running`, `done`, or `called_off`: then those that are not `done` were left alone.
    pub state: String,
    /// An earlier life of the node began it, or one that is gone; it was gone through again as a whole, which stops nobody twice.
    pub resumed: bool,
    /// Requests that were selected.
    pub selected: u32,
    /// Of these, those that were waiting.
    pub waiting: u32,
    /// Of these, those that were running.
    pub running: u32,
    /// Those whose cancel was answered; the sum of the next four.
    pub done: u32,
    /// Stopped, with proof.
    pub stopped: u32,
    /// Settled, and their code may still run: see `draining_requests`.
    pub draining: u32,
    /// Over by themselves before their turn came.
    pub over: u32,
    /// Not stopped, or not recorded: see `failures`.
    pub failed: u32,
    /// The first 1,000 of those.
    pub failures: Vec<BulkFailure>,
    /// The first 1,000 of those.
    pub draining_requests: Vec<BulkDraining>,
    /// When the last was answered.
    pub ended_ms: Option<i64>,
    /// The node that carries it out, or did, where several share the store. Asked on another one, the counts are a second old or so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// One request that a bulk cancel could not stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkFailure {
    /// Which.
    pub request_id: String,
    /// `package:name`.
    pub function: String,
    /// As a cancel of it alone would have been answered.
    pub error_code: String,
    /// In words.
    pub error_msg: String,
    /// The receipt, where there is one.
    pub cancel_id: Option<String>,
}

/// One request that is settled while its code may still run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BulkDraining {
    /// Which.
    pub request_id: String,
    /// The receipt, which tells when it was proven gone after all.
    pub cancel_id: String,
}

impl Bulk {
    /// One that begins.
    pub(super) fn begun(order: &BulkOrder, requests: &[Found]) -> Self {
        let stood = |standing| count(requests.iter().filter(|found| found.standing == standing).count());
        Self {
            key: order.key.clone(),
            project: order.selection.project.clone(),
            selection: order.described.clone(),
            scope: scope_word(order.scope).to_owned(),
            level: level_word(order.level).to_owned(),
            rate: order.rate,
            asked_by: order.actor.credential.clone(),
            remote: order.actor.remote.map(|remote| remote.to_string()),
            reason: order.actor.reason.clone(),
            asked_ms: now_ms(),
            state: "running".to_owned(),
            selected: count(requests.len()),
            waiting: stood(Standing::Waiting),
            running: stood(Standing::Running),
            ..Self::default()
        }
    }

    /// Whether an ask under the same key is the same ask. Who asks and how fast is not part of it.
    pub(super) fn is(&self, order: &BulkOrder) -> bool {
        self.selection == order.described
            && self.scope == scope_word(order.scope)
            && self.level == level_word(order.level)
    }

    /// What an ask under its key is told: how it stands, and that it does not begin now.
    pub(super) fn told_to(self, order: &BulkOrder) -> Result<(Self, bool), BulkRefusal> {
        if self.is(order) {
            return Ok((self, false));
        }
        let Self { selection, scope, level, .. } = self;
        Err(BulkRefusal::OtherAsk { selection, scope, level })
    }

    /// Whether nothing of it is under way any more.
    pub(super) fn is_over(&self) -> bool {
        self.state != "running"
    }

    /// Notes the answer to the cancel of one.
    pub(super) fn note(&mut self, request: RequestId, function: &FunctionKey, answer: &CancelAnswer) {
        self.done += 1;
        match answer {
            CancelAnswer::Done { stop: Stop::Stopped, .. } => self.stopped += 1,
            CancelAnswer::Done { cancel, stop: Stop::Draining | Stop::Fenced } => {
                self.draining += 1;
                if self.draining_requests.len() < MAX_NAMED {
                    let (request_id, cancel_id) = (request.to_string(), cancel.to_string());
                    self.draining_requests.push(BulkDraining { request_id, cancel_id });
                }
            }
            // Whoever was over between the selection and his turn needed no stop.
            CancelAnswer::Finished(_) | CancelAnswer::Unknown => self.over += 1,
            CancelAnswer::Unkillable { .. }
            | CancelAnswer::NotRecorded { .. }
            | CancelAnswer::TooManyAskers
            | CancelAnswer::Elsewhere
            | CancelAnswer::Gone => {
                self.failed += 1;
                self.name_failure(request, function, answer);
            }
        }
    }

    fn name_failure(&mut self, request: RequestId, function: &FunctionKey, answer: &CancelAnswer) {
        let Some((code, words)) = answer.refusal().filter(|_| self.failures.len() < MAX_NAMED) else {
            return;
        };
        let receipt = |cancel: &CancelId| cancel.to_string();
        self.failures.push(BulkFailure {
            request_id: request.to_string(),
            function: format!("{}:{}", function.package, function.name),
            error_code: code.to_owned(),
            error_msg: words,
            cancel_id: match answer {
                CancelAnswer::Unkillable { cancel, .. } | CancelAnswer::NotRecorded { cancel, .. } => {
                    Some(receipt(cancel))
                }
                _ => None,
            },
        });
    }

    pub(super) fn end(&mut self, called_off: bool) {
        // Whoever called it off when the last was asked to stop has called off nothing.
        let state = if called_off && self.done < self.selected { "called_off" } else { "done" };
        state.clone_into(&mut self.state);
        self.ended_ms = Some(now_ms());
    }

    /// Taken up by another life: it is gone through from the beginning, since what was answered is not known.
    pub(super) fn again(self) -> Self {
        let (done, stopped, draining, over, failed) = (0, 0, 0, 0, 0);
        let (failures, draining_requests) = (Vec::new(), Vec::new());
        Self { resumed: true, done, stopped, draining, over, failed, failures, draining_requests, ..self }
    }
}

/// Selections are bounded far below this.
pub(super) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What there is to do, as the store keeps it: each function once, and requests by the place of theirs.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ToDo {
    functions: Vec<(String, String, String)>,
    requests: Vec<(String, usize)>,
}

impl ToDo {
    pub(super) fn of(requests: &[Found]) -> Self {
        let mut todo = Self::default();
        let mut last: Option<(&Arc<FunctionKey>, usize)> = None;
        for Found { request, function, .. } in requests {
            // Most are of the function of the one before; the rest are few functions.
            let at = last
                .filter(|(known, _)| known == &function)
                .map_or_else(|| todo.place(function), |(_, at)| at);
            last = Some((function, at));
            todo.requests.push((request.to_string(), at));
        }
        todo
    }

    fn place(&mut self, key: &FunctionKey) -> usize {
        let named = (key.package.clone(), key.name.clone(), key.version.clone());
        let known = self.functions.iter().position(|function| *function == named);
        known.unwrap_or_else(|| {
            self.functions.push(named);
            self.functions.len() - 1
        })
    }

    pub(super) fn requests(&self, project: &str) -> Vec<(RequestId, Arc<FunctionKey>)> {
        let functions: Vec<Arc<FunctionKey>> = self
            .functions
            .iter()
            .map(|(package, name, version)| {
                let [project, package, name, version] = [project, package, name, version].map(str::to_owned);
                Arc::new(FunctionKey { project, package, name, version })
            })
            .collect();
        let requests = self.requests.iter();
        requests.filter_map(|(id, at)| Some((RequestId::parse(id)?, functions.get(*at)?.clone()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, version: &str) -> Arc<FunctionKey> {
        let [project, package] = ["p", "k"].map(str::to_owned);
        Arc::new(FunctionKey { project, package, name: name.into(), version: version.into() })
    }

    #[test]
    fn each_answer_counts_once_and_only_what_failed_is_a_failure() {
        let (mut bulk, cancel) = (Bulk::default(), CancelId(9));
        let detail = "pid 7".to_owned();
        for answer in [
            CancelAnswer::Done { cancel, stop: Stop::Stopped },
            CancelAnswer::Done { cancel, stop: Stop::Draining },
            CancelAnswer::Finished("SUCCESS"),
            CancelAnswer::Unknown,
            CancelAnswer::Unkillable { cancel, detail: detail.clone() },
            CancelAnswer::NotRecorded { cancel, detail },
            CancelAnswer::TooManyAskers,
        ] {
            bulk.note(RequestId(1), &key("f", "latest"), &answer);
        }
        let counts = (bulk.done, bulk.stopped, bulk.draining, bulk.over, bulk.failed);
        assert_eq!(counts, (7, 1, 1, 2, 3));
        let codes: Vec<_> =
            bulk.failures.iter().map(|row| (&*row.error_code, row.cancel_id.is_some())).collect();
        assert_eq!(codes, [("FSS.0500", true), ("FSS.0500", true), ("FSS.0429", false)]);
        assert!(bulk.failures[0].error_msg.contains("pid 7") && bulk.failures[0].function == "k:f");
    }

    #[test]
    fn the_lists_are_bounded_and_the_counts_are_not() {
        let mut bulk = Bulk::default();
        for _ in 0..MAX_NAMED + 5 {
            bulk.note(RequestId(1), &key("f", "latest"), &CancelAnswer::TooManyAskers);
        }
        assert_eq!((bulk.failures.len(), bulk.failed as usize), (MAX_NAMED, MAX_NAMED + 5));
    }

    #[test]
    fn what_there_is_to_do_comes_back_from_the_store_and_names_each_function_once() {
        let functions = [key("f", "latest"), key("g", "v1"), key("f", "latest"), key("f", "v1")];
        let requests: Vec<Found> = functions
            .iter()
            .zip(1..)
            .map(|(function, id)| Found {
                request: RequestId(id),
                function: Arc::clone(function),
                standing: Standing::Waiting,
                whereabouts: crate::selection::Whereabouts::Here,
            })
            .collect();
        let todo = ToDo::of(&requests);
        assert_eq!(todo.functions.len(), 3);
        let text = serde_json::to_string(&todo).unwrap();
        let back: ToDo = serde_json::from_str(&text).unwrap();
        let went: Vec<_> = requests.into_iter().map(|found| (found.request, found.function)).collect();
        assert_eq!(back.requests("p"), went);
    }
}
