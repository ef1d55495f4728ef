//! Whether the node lives, and whether it should be sent work. Neither wants a credential: load balancers and probes
//! have none, and what they are told names nothing of anybody.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Json, extract::State};
use serde_json::{Value, json};
use supervisor::Census;

use crate::{error::ApiError, openapi::ErrorBody, registry::Api};

/// The core answers in microseconds; one that has not within this will not.
const CORE_LIMIT: Duration = Duration::from_secs(5);
/// A commit takes milliseconds. A disk that hangs this long takes no work.
const STORE_LIMIT: Duration = Duration::from_secs(5);
/// The store is tried no more often: anybody may ask, and each try is a sync of the disk.
const STORE_EVERY: Duration = Duration::from_secs(5);
/// Of the queue of the core and of the memory for events: when so much is taken, others should be sent the rest.
const FULL: f64 = 0.9;

/// How the last try to write went.
#[derive(Debug, Default)]
pub(crate) struct StoreTried(tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>);

impl Api {
    async fn counted(&self) -> Result<Census, ApiError> {
        let census = tokio::time::timeout(CORE_LIMIT, self.handle.census()).await;
        let census = census.map_err(|_| ApiError::unavailable("the core does not answer"))?;
        census.ok_or_else(|| self.ended())
    }

    /// Why nothing decides here any more: for good, or until the shared store answers.
    pub(crate) fn ended(&self) -> ApiError {
        match self.handle.nodes() {
            Some(nodes) if nodes.lapsed() => ApiError::unavailable(
                "not ready: the lease is over and what ran here was ended; the node waits for the shared store, and begins \
                 again by itself when that answers",
            ),
            _ => ApiError::unavailable("the node has ended"),
        }
    }

    /// Writes something, unless that was done a moment ago. Whoever asks meanwhile waits for the same try.
    async fn store_writes(&self) -> Result<(), String> {
        let mut tried = self.store_tried.0.lock().await;
        if let Some((at, result)) = tried.as_ref()
            && at.elapsed() < STORE_EVERY
        {
            return result.clone();
        }
        let now = jiff::Timestamp::now().to_string();
        let write = tokio::time::timeout(STORE_LIMIT, self.store.put_fact("ready", now)).await;
        let result = match write {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "not ready: the store does not write");
                Err("the store refuses to write: see the log".to_owned())
            }
            Err(_) => Err("the disk does not answer".to_owned()),
        };
        *tried = Some((Instant::now(), result.clone()));
        result
    }
}

/// Whether the node lives: a node that does not say so should be ended and started again.
///
/// It does while it drains.
#[utoipa::path(get, path = "/quell/v1/health", tag = "node", security(()), responses(
    (status = 200, description = "its core answers", body = serde_json::Value),
    (status = 503, description = "it does not", body = ErrorBody)))]
pub(crate) async fn health(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let census = api.counted().await?;
    Ok(Json(json!({ "status": "ok", "draining": census.draining })))
}

/// Whether the node should be sent work: each check says how it is, and the refusal what is wrong.
#[utoipa::path(get, path = "/quell/v1/ready", tag = "node", security(()), responses(
    (status = 200, description = "it should", body = serde_json::Value),
    (status = 503, description = "it should not, and why", body = ErrorBody)))]
pub(crate) async fn ready(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let census = api.counted().await?;
    let inbox = api.handle.inbox();
    let checks = checks(&census, inbox, api.store_writes().await);
    let mut checks = Vec::from(checks);
    if let Some(nodes) = api.handle.nodes() {
        let holds = match nodes.accepts() {
            true => Ok("is renewed".to_owned()),
            false => Err("the lease is not renewed: the shared store does not answer".to_owned()),
        };
        checks.push(("lease", holds));
    }
    let wrong: Vec<&str> =
        checks.iter().filter_map(|(_, check)| check.as_ref().err().map(String::as_str)).collect();
    if !wrong.is_empty() {
        return Err(ApiError::unavailable(format!("not ready: {}", wrong.join("; "))));
    }
    let said = checks.into_iter().map(|(name, check)| (name.to_owned(), json!(check.unwrap_or_default())));
    Ok(Json(json!({ "status": "ready", "checks": said.collect::<serde_json::Map<_, _>>() })))
}

/// Each with what it found: `Err` is a reason to send nothing.
fn checks(
    census: &Census,
    (waiting, most): (usize, usize),
    store: Result<(), String>,
) -> [(&'static str, Result<String, String>); 6] {
    let full = |part: f64, whole: f64| part > whole * FULL;
    #[expect(clippy::cast_precision_loss, reason = "a share of it is looked at")]
    let events = full(census.event_bytes as f64, census.max_event_bytes as f64);
    #[expect(clippy::cast_precision_loss, reason = "a share of it is looked at")]
    let inbox = full(waiting as f64, most as f64);
    let lost = census.max_instances > 0 && census.quarantined >= census.max_instances;
    let check =
        |wrong: bool, bad: &str, good: &str| if wrong { Err(bad.to_owned()) } else { Ok(good.to_owned()) };
    [
        ("drain", check(census.draining, "the node is draining", "takes new requests")),
        ("core", check(inbox, "the core has too much to do", "answers")),
        ("store", store.map(|()| "writes".to_owned())),
        (
            "backlog",
            match census.unwritten {
                0 => Ok("nothing waits for the disk".to_owned()),
                count => Err(format!("{count} results and records of cancels wait for the disk")),
            },
        ),
        (
            "events",
            check(events, "the events that wait fill the memory for them", "there is room for events"),
        ),
        (
            "containment",
            match (census.leafless, lost) {
                (true, _) => Err("the node's cgroup is gone: restart it".to_owned()),
                (_, true) => {
                    Err("all instances are quarantined: their processes cannot be killed".to_owned())
                }
                _ => Ok("instances can be contained".to_owned()),
            },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Census {
        Census {
            functions: Vec::new(),
            live: 0,
            draining: false,
            unwritten: 0,
            event_bytes: 0,
            max_event_bytes: 100,
            max_instances: 2,
            quarantined: 1,
            log_lines_lost: 0,
            leafless: false,
            at_ms: 0,
        }
    }

    fn wrong(census: &Census, inbox: (usize, usize), store: Result<(), String>) -> Vec<&'static str> {
        checks(census, inbox, store)
            .into_iter()
            .filter(|(_, check)| check.is_err())
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn each_reason_to_send_nothing_is_seen_and_named() {
        let fine = (0, 10);
        assert!(wrong(&well(), fine, Ok(())).is_empty());
        assert_eq!(wrong(&Census { draining: true, ..well() }, fine, Ok(())), ["drain"]);
        assert_eq!(wrong(&well(), (10, 10), Ok(())), ["core"]);
        assert_eq!(wrong(&well(), fine, Err("full".to_owned())), ["store"]);
        assert_eq!(wrong(&Census { unwritten: 1, ..well() }, fine, Ok(())), ["backlog"]);
        assert_eq!(wrong(&Census { event_bytes: 95, ..well() }, fine, Ok(())), ["events"]);
        assert_eq!(wrong(&Census { leafless: true, ..well() }, fine, Ok(())), ["containment"]);
        assert_eq!(wrong(&Census { quarantined: 2, ..well() }, fine, Ok(())), ["containment"]);
        assert!(wrong(&Census { max_instances: 0, quarantined: 0, ..well() }, fine, Ok(())).is_empty());
    }
}
