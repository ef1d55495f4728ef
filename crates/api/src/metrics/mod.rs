//! `GET /metrics`: what the node has counted and what lives on it, as OpenMetrics text.
//!
//! What is counted costs an atomic addition where it happens; the rest is looked at when somebody asks, by one message to
//! the core. The number of series is bounded: every label but those of functions has a fixed list of values, and so many
//! functions have series of their own ([`MAX_FUNCTIONS`]).

mod functions;
mod page;
mod process;
mod text;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use meter::Counter;
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Registry};
use store::StoreMetrics;
use supervisor::{Census, Handle};

use self::functions::Named;
use crate::{auth::Head, error::ApiError, openapi::Refusals, registry::Api, response::set};

/// Versions of functions that have series of their own: twelve each, so that a node stays below 5,000. Those beyond are
/// counted together.
pub(crate) const MAX_FUNCTIONS: usize = 200;
/// A core that does not answer within this has a problem that figures would only hide.
const LIMIT: Duration = Duration::from_secs(5);
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the API itself counts.
#[derive(Debug, Default)]
pub(crate) struct HttpMetrics {
    /// Answers by the first digit of their status, from 1.
    answers: [Counter; 5],
    /// Answers 401 and 403.
    unauthorised: Counter,
    /// Answers 429.
    limited: Counter,
    /// The functions that have series.
    named: Mutex<Named>,
}

impl HttpMetrics {
    fn answered(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(answers) = self.answers.get(class) {
            answers.count();
        }
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.unauthorised.count(),
            StatusCode::TOO_MANY_REQUESTS => self.limited.count(),
            _ => {}
        }
    }
}

/// Counts every answer.
pub(crate) async fn count(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    api.metrics.answered(response.status());
    response
}

/// Everything that is shown, of one moment.
struct Seen {
    handle: Handle,
    store: Arc<StoreMetrics>,
    api: Arc<Api>,
    census: Census,
    /// How long the core took to answer.
    answered: Duration,
    functions: functions::Rows,
    process: Option<process::Process>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen").field("census", &self.census).finish_non_exhaustive()
    }
}

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        page::write(self, &mut encoder)
    }
}

/// What the node has counted, and what lives on it.
///
/// OpenMetrics text, of all projects: for a credential with the scope `operator`. Where `metrics_listen` is set there is a
/// listener of its own that asks nobody.
#[utoipa::path(get, path = "/metrics", tag = "node", responses(
    (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"), Refusals))]
pub(crate) async fn metrics(State(api): State<Arc<Api>>, head: Head) -> Result<Response, ApiError> {
    api.operator(&head)?;
    shown(api).await
}

/// The same for whoever can reach the listener.
pub(crate) async fn open_metrics(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    shown(api).await
}

async fn shown(api: Arc<Api>) -> Result<Response, ApiError> {
    let asked = Instant::now();
    let census = tokio::time::timeout(LIMIT, api.handle.census()).await;
    let census = census.map_err(|_| ApiError::unavailable("the core does not answer"))?;
    let census = census.ok_or_else(|| api.ended())?;
    let functions = api.metrics.named.lock().unwrap_or_else(PoisonError::into_inner).rows(&census);
    let seen = Seen {
        handle: api.handle.clone(),
        store: api.store.metrics(),
        census,
        answered: asked.elapsed(),
        functions,
        process: process::Process::look(),
        api,
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(seen));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)
        .map_err(|_| ApiError::internal("the figures could not be written"))?;
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    set(&mut response, header::CACHE_CONTROL, "no-store");
    Ok(response)
}
