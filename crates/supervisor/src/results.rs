//! Where results of asynchronous requests go: another function of the same project is invoked with them.
//!
//! The request that this makes is accepted in the same commit that settles the one it comes from, so it is
//! made exactly once, however often the node dies, and then run like any other: at least once. A request
//! that was cancelled hands nothing on.

use std::sync::Arc;

use bytes::Bytes;
use cancel::{Outcome, RequestId};
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Labels, Lineage, NewInvocation, Placement, Settlement};

use crate::{
    codes,
    handle::Invocation,
    message::{Arrival, Kept, Message, Mode},
    request::{Payload, Request},
    shell::{Shell, now_ms},
    unwritten::Write,
};

/// Results handed on in a row: two functions that invoke each other with their results end here.
const MAX_HOPS: u32 = 16;
/// Of what is handed on. Event and result are left out where they make it longer.
const MAX_BYTES: usize = 256 << 10;

impl Shell {
    /// The request that the result of this one goes to.
    pub(crate) fn next_of(
        &self,
        id: RequestId,
        request: &Request,
        outcome: Outcome,
        body: &Bytes,
        message: &str,
    ) -> Option<NewInvocation> {
        let policy = &request.function.asynchronous;
        let to = match outcome {
            Outcome::Canceled | Outcome::Failed(codes::NO_FUNCTION) => None,
            Outcome::Returned => policy.on_success.as_ref(),
            Outcome::Failed(_) | Outcome::TimedOut | Outcome::Crashed => policy.on_failure.as_ref(),
        }?;
        if request.hops >= MAX_HOPS {
            tracing::warn!(request = %id, ?to, "its result is not handed on: it came from {MAX_HOPS} others");
            return None;
        }
        let Some(to) = self.functions.get(to) else {
            tracing::warn!(request = %id, ?to, "its result is not handed on: there is no such function");
            return None;
        };
        Some(NewInvocation {
            request: RequestId(uuid::Uuid::new_v4().as_u128()),
            function: Arc::clone(&to.key),
            alias: None,
            parent: None,
            payload: told(id, request, outcome, body, message),
            created_ms: now_ms(),
            hops: request.hops + 1,
            labels: Labels::default(),
            lineage: Lineage::default(),
            placement: match self.nodes.is_some() && self.lacks_labels(to) {
                true => Placement::Anywhere,
                false => Placement::Here,
            },
        })
    }

    /// Settles a request in the store.
    pub(crate) fn settle_durably(&self, settlement: Settlement) {
        let write = self.store.settle(settlement.clone());
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            let result = write.await;
            let message = match (result, settlement.next.clone()) {
                (Ok(true), Some(next)) => Message::HandedOn(next),
                (Ok(_), _) => return,
                (Err(error), _) => Message::Unwritten(Write::Settle(Box::new(settlement)), error),
            };
            drop(inbox.send(message).await); // closed: the node has ended
        });
    }

    /// A result has made another request, durably: it is taken up like one of an earlier life.
    pub(crate) fn handed_on(&mut self, next: NewInvocation) {
        if let Some(nodes) = self.nodes.as_ref().filter(|_| next.placement == Placement::Anywhere) {
            return nodes.waits();
        }
        let NewInvocation { request, function, created_ms, hops, .. } = next;
        let Some(function) = self.functions.get(&function).map(Arc::clone) else {
            return tracing::warn!(%request, "its function is gone; the next life settles it");
        };
        let kept = Kept { hops, created_ms, ..Kept::default() };
        let invocation = Invocation {
            request,
            function,
            alias: None,
            payload: Bytes::new(),
            parent: None,
            detached: false,
            labels: Labels::default(),
            log: false,
            trace: None,
        };
        self.arrived(Arrival { invocation, mode: Mode::Kept(kept) });
    }
}

/// What the other function is invoked with (`functiongraph.md` 2.4).
fn told(id: RequestId, request: &Request, outcome: Outcome, body: &Bytes, message: &str) -> Bytes {
    let condition = match outcome {
        Outcome::Returned => "Success",
        Outcome::Failed(codes::TOO_OLD) => "EventAgeExceeded",
        _ => "RetriesExhausted",
    };
    // What the function itself did wrong is no error of the system.
    let own = matches!(outcome, Outcome::Returned | Outcome::Failed(codes::FUNCTION_FAILED));
    let attempts = u64::from(request.attempt.0) + u64::from(request.earlier_attempts);
    let event = match &request.payload {
        Payload::Here(event) => as_json(event),
        Payload::Kept | Payload::Loading => Value::Null,
    };
    let whole = |event: Value, result: Value| {
        let value = json!({
            "timestamp": Timestamp::now().to_string(),
            "request_context": {
                "request_id": id.to_string(),
                "function_urn": request.function.urn,
                "condition": condition,
                "approximate_invoke_count": attempts,
            },
            "request_payload": event,
            "response_context": {
                "status_code": if own { 200 } else { 500 },
                "error_code": outcome.code(),
                "function_error": message,
            },
            "response_payload": result,
        });
        Bytes::from(value.to_string())
    };
    let told = whole(event, as_json(body));
    if told.len() <= MAX_BYTES { told } else { whole(Value::Null, Value::Null) }
}

fn as_json(bytes: &Bytes) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}
