//! What is told to a collector of traces, if there is one: each request as a span with its parts, each cancel as one
//! with its phases. Told when it is over, from times that are kept anyway: where nobody collects it costs nothing.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cancel::{Attempt, CancelId, InstanceId, Outcome, RequestId};
use tokio::sync::mpsc;

use crate::{
    drafts::Traced,
    metrics::outcome_word,
    request::{Request, shown},
    shell::Shell,
    trace::{TraceContext, attempt_span, span_of},
};

/// One span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its trace.
    pub trace: u128,
    /// Its id.
    pub id: u64,
    /// The span it is below.
    pub parent: Option<u64>,
    /// What it is of: `invoke`, `queue`, `dispatch`, `run`, `cancel`, `cancel.recorded`, `cancel.exited`,
    /// `cancel.emptied`, `cancel.proven`.
    pub name: &'static str,
    /// Nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// The same.
    pub end_ns: u64,
    /// What is known of it.
    pub attributes: Vec<(&'static str, String)>,
    /// It ended badly: how.
    pub failure: Option<String>,
}

/// Where spans go. What finds it full is lost, and counted: nobody waits for a collector.
#[derive(Clone, Debug)]
pub struct Spans(pub mpsc::Sender<Span>);

/// Turns times of the monotonic clock into those of the wall clock, by what both are now.
struct Clock {
    now: Instant,
    now_ns: u64,
}

impl Clock {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { now: Instant::now(), now_ns: nanos(since) }
    }

    fn at(&self, at: Instant) -> u64 {
        self.now_ns.saturating_sub(nanos(self.now.saturating_duration_since(at)))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Shell {
    /// The trace of a new request: the one it was invoked with, else that of the request that makes it, else, where
    /// traces are collected, one of its own.
    pub(crate) fn trace_of(
        &self,
        request: RequestId,
        given: Option<TraceContext>,
        parent: Option<RequestId>,
    ) -> Option<Box<TraceContext>> {
        let above = parent.and_then(|id| self.requests.get(&id).map(|request| (id, request)));
        let inherited = above.and_then(|(id, above)| self.trace_inside(id, above, above.attempt));
        let own = || self.settings.spans.is_some().then(|| TraceContext::of(request, true));
        given.or(inherited).or_else(own).map(Box::new)
    }

    /// What the function of a request is told: what it begins is below its attempt, if anybody hears of that.
    pub(crate) fn trace_inside(
        &self,
        id: RequestId,
        request: &Request,
        attempt: Attempt,
    ) -> Option<TraceContext> {
        let trace = request.trace.as_deref()?;
        let collected = self.settings.spans.is_some() && trace.is_sampled();
        Some(if collected { trace.below(attempt_span(id, attempt)) } else { trace.clone() })
    }

    fn collected<'a>(&self, trace: Option<&'a TraceContext>) -> Option<&'a TraceContext> {
        trace.filter(|trace| self.settings.spans.is_some() && trace.is_sampled())
    }

    fn emit(&self, span: Span) {
        let Some(Spans(to)) = &self.settings.spans else { return };
        if to.try_send(span).is_err() {
            self.metrics.spans_lost.count();
        }
    }

    /// An attempt has ended, and its request waits again.
    pub(crate) fn attempt_ends(&self, id: RequestId) {
        if let Some(request) = self.requests.get(&id) {
            self.attempt_over(id, request, None);
        }
    }

    /// An attempt is over: what it did, and what it waited for before.
    fn attempt_over(&self, id: RequestId, request: &Request, outcome: Option<Outcome>) {
        let Some(trace) = self.collected(request.trace.as_deref()) else { return };
        let clock = Clock::new();
        let begun = request.started.map(|(at, _)| at);
        let placed = request.placed_at.filter(|placed| begun.is_none_or(|begun| *placed <= begun));
        let part = |name, from: Instant, to: Instant, number: u64| Span {
            trace: trace.trace(),
            id: attempt_span(id, request.attempt).rotate_left(16) ^ number,
            parent: Some(span_of(id)),
            name,
            start_ns: clock.at(from),
            end_ns: clock.at(to),
            attributes: Vec::new(),
            failure: None,
        };
        let waited = request.waits_since;
        let until = placed.or(begun).unwrap_or(clock.now);
        self.emit(part("queue", waited, until.max(waited), 1));
        let Some(begun) = begun else { return };
        if let Some(placed) = placed {
            self.emit(part("dispatch", placed, begun, 2));
        }
        let instance = request.instance.map(|instance| instance.to_string()).unwrap_or_default();
        let attempt = request.deliveries().to_string();
        self.emit(Span {
            id: attempt_span(id, request.attempt),
            attributes: vec![("quell.instance", instance), ("quell.attempt", attempt)],
            failure: failure(outcome),
            ..part("run", begun, clock.now, 0)
        });
    }

    /// A request is over.
    pub(crate) fn request_over(&self, id: RequestId, request: &Request, outcome: Outcome) {
        let Some(trace) = self.collected(request.trace.as_deref()) else { return };
        self.attempt_over(id, request, Some(outcome));
        let clock = Clock::new();
        let function = &request.function;
        self.emit(Span {
            trace: trace.trace(),
            id: span_of(id),
            parent: trace.parent(),
            name: "invoke",
            start_ns: clock.at(request.taken_up.0),
            end_ns: clock.now_ns,
            attributes: vec![
                ("quell.request", id.to_string()),
                ("quell.project", function.key.project.clone()),
                ("quell.function", shown(function)),
                ("quell.version", function.key.version.clone()),
                ("quell.mode", if request.asynchronous { "async" } else { "sync" }.to_owned()),
                ("quell.outcome", outcome_word(outcome).to_owned()),
            ],
            failure: failure(Some(outcome)),
        });
    }

    /// A cancel is over.
    pub(crate) fn cancel_over(&self, cancel: CancelId) {
        let Some((receipt, traced)) = self.drafts.traced(cancel) else { return };
        let Traced { trace, target, fenced_at, recorded_after, ends } = traced;
        let (Some(trace), Some(fenced)) = (self.collected(trace), fenced_at) else { return };
        let clock = Clock::new();
        #[expect(clippy::cast_possible_truncation, reason = "a part of it is as random as the whole")]
        let whole = (cancel.0 as u64).max(1);
        let mut number = 0;
        let mut part = |name, from: Instant, took: Duration, instance: Option<InstanceId>| {
            number += 1;
            let start_ns = clock.at(from);
            self.emit(Span {
                trace: trace.trace(),
                id: whole.rotate_left(16) ^ number,
                parent: Some(whole),
                name,
                start_ns,
                end_ns: start_ns.saturating_add(nanos(took)),
                attributes: instance.map(|id| ("quell.instance", id.to_string())).into_iter().collect(),
                failure: None,
            });
        };
        if let Some(recorded) = recorded_after {
            part("cancel.recorded", fenced, recorded, None);
        }
        for end in ends {
            let struck = end.proven_at.checked_sub(end.proven).unwrap_or(end.proven_at);
            part("cancel.exited", struck, end.exited, Some(end.instance));
            part("cancel.emptied", struck, end.emptied, Some(end.instance));
            part("cancel.proven", struck, end.proven, Some(end.instance));
        }
        let stopped = receipt.result == "stopped";
        self.emit(Span {
            trace: trace.trace(),
            id: whole,
            parent: Some(span_of(target)),
            name: "cancel",
            start_ns: clock.at(fenced),
            end_ns: clock.now_ns,
            attributes: vec![
                ("quell.cancel", receipt.cancel_id.clone()),
                ("quell.request", receipt.request_id.clone()),
                ("quell.cause", receipt.cause.clone()),
                ("quell.scope", receipt.scope.clone()),
                ("quell.level", receipt.level.clone()),
                ("quell.result", receipt.result.clone()),
            ],
            failure: (!stopped).then(|| receipt.result.clone()),
        });
    }
}

fn failure(outcome: Option<Outcome>) -> Option<String> {
    match outcome {
        Some(Outcome::Returned) => None,
        Some(outcome) => Some(outcome_word(outcome).to_owned()),
        None => Some("waits again".to_owned()),
    }
}
