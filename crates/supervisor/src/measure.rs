//! What the caller of a settled request is told: its result, how long it took, what its instance used and printed.

use bytes::Bytes;
use cancel::Outcome;

use crate::{
    codes,
    handle::{Completion, RunLog},
    message::ReportKind,
    perform::error_message,
    request::Request,
    runtimes::memory_message,
    shell::{Shell, now_ms},
};

/// Bytes of output that go with a result: the header it goes in holds the last 2,000 bytes of a log
/// (`functiongraph.md` 2.1).
const LOGGED_BYTES: usize = 2_000;

impl Shell {
    /// Counts a request that settled.
    pub(crate) fn count_end(&mut self, request: &Request, outcome: Outcome) {
        let key = &request.function.key;
        if request.started.is_some() {
            self.counters.ended(key);
        }
        let at = self.metrics.settled(request, outcome);
        if self.functions.contains_key(key) {
            self.settled_of.count(key, at);
            let ran = request.started.map(|(at, _)| at.elapsed());
            self.counters.settled(key, outcome, ran, now_ms());
        }
    }

    /// Puts together what the caller of a settled request gets. Its instance, if it is still there, is asked
    /// at this moment.
    pub(crate) fn completion(
        &self,
        request: &Request,
        outcome: Outcome,
        body: Bytes,
        message: String,
    ) -> Completion {
        let duration = request.started.map(|(at, _)| at.elapsed()).unwrap_or_default();
        let instance = request.instance.and_then(|at| self.instances.get(&at));
        let group =
            instance.and_then(|instance| instance.group.as_ref()).filter(|_| request.started.is_some());
        let output = instance.and_then(|instance| instance.output.as_ref());
        let log = match (request.log, request.started, output) {
            (true, Some((_, started_ms)), Some(output)) => Some(RunLog {
                started_ms,
                ended_ms: now_ms(),
                output: output.since(request.printed_before, LOGGED_BYTES),
                shared: request.function.concurrency > 1,
            }),
            _ => None,
        };
        let memory_used = group.and_then(|group| group.memory_used());
        Completion { outcome, body, message, duration, memory_used, log }
    }

    /// A crash that the kernel brought about at the limit of memory has a code of its own.
    pub(crate) fn why_it_crashed(&self, request: &mut Request, outcome: Outcome) -> Outcome {
        let instance = request.instance.and_then(|at| self.instances.get(&at));
        match instance.and_then(|instance| instance.out_of_memory) {
            Some(seen) if outcome == Outcome::Crashed => {
                request.failure.get_or_insert_with(|| memory_message(seen));
                Outcome::Failed(codes::OUT_OF_MEMORY)
            }
            _ => outcome,
        }
    }

    /// The body and the message of a result, as its caller gets them.
    pub(crate) fn result(&self, request: &mut Request, outcome: Outcome) -> (Bytes, String) {
        let report = request.report.take();
        match (outcome, report) {
            (Outcome::Returned, Some((ReportKind::Response, body))) => (body, String::new()),
            (Outcome::Failed(codes::FUNCTION_FAILED), Some((_, body))) => {
                let message = error_message(&body);
                (body, message.unwrap_or_else(|| codes::message(outcome).to_owned()))
            }
            _ => {
                let told = request.failure.take();
                (Bytes::new(), told.unwrap_or_else(|| codes::message(outcome).to_owned()))
            }
        }
    }
}
