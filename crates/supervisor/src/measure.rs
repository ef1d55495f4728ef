//! What a synchronous caller is told beside its result: how long it took, what its instance used and printed.

use bytes::Bytes;
use cancel::Outcome;

use crate::{
    handle::{Completion, RunLog},
    request::Request,
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
        if self.functions.contains_key(key) {
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
}
