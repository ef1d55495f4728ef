//! Spans to a collector of traces, by OTLP over HTTP in its JSON form: a page of it is all that is needed, where the
//! usual crates are a hundred.
//!
//! Nothing waits for the collector: what it does not take in time is lost and counted (`quell_spans_lost`).

use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use supervisor::{Handle, Span, Spans};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{
    settings::{Endpoint, NodeSettings},
    trust,
};

/// Spans on their way: of a thousand requests a second those of two seconds.
const WAITING: usize = 8_192;
/// In one message to the collector: some hundred KB.
const BATCH: usize = 512;
/// A span waits no longer for others to go with.
const GATHER: Duration = Duration::from_secs(1);
/// A collector that has not answered after this has not taken it.
const LIMIT: Duration = Duration::from_secs(10);
/// At the end of the node what is left gets this long.
const END_LIMIT: Duration = Duration::from_secs(2);

/// The way to the collector, not open yet.
pub(crate) struct Exporter {
    client: reqwest::Client,
    url: String,
    /// Which node it is, among those that tell the same collector.
    node: String,
    spans: mpsc::Receiver<Span>,
}

/// Its task.
pub(crate) struct Exporting(JoinHandle<()>);

impl Exporter {
    /// To the endpoint of the settings, if there is one. `node`: its name.
    pub(crate) fn of(settings: &NodeSettings, node: &str) -> anyhow::Result<Option<(Self, Spans)>> {
        let Some(endpoint) = settings.otlp_endpoint.as_ref().map(Endpoint::as_str) else { return Ok(None) };
        let builder = reqwest::Client::builder().timeout(LIMIT).no_proxy();
        let client =
            trust::trusting(builder, endpoint, None)?.build().context("no client for otlp_endpoint")?;
        let (to, spans) = mpsc::channel(WAITING);
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        tracing::info!(url, "traces are collected");
        Ok(Some((Self { client, url, node: node.to_owned(), spans }, Spans(to))))
    }

    /// Sends until the node has ended.
    pub(crate) fn start(self, handle: Handle) -> Exporting {
        Exporting(tokio::spawn(self.run(handle)))
    }

    async fn run(mut self, handle: Handle) {
        let mut failing = false;
        while let Some(first) = self.spans.recv().await {
            let mut batch = vec![first];
            let gathered = timeout(GATHER, async {
                while batch.len() < BATCH {
                    let room = BATCH - batch.len();
                    if self.spans.recv_many(&mut batch, room).await == 0 {
                        return; // the node has ended
                    }
                }
            });
            drop(gathered.await); // an error means that it was waited for long enough
            match self.send(&batch).await {
                Ok(()) => failing = false,
                Err(error) => {
                    handle.metrics().spans_lost.add(batch.len() as u64);
                    if !failing {
                        tracing::warn!(error = format!("{error:#}"), url = self.url, "spans are lost");
                    }
                    failing = true; // said once, until it takes some again
                }
            }
        }
    }

    async fn send(&self, batch: &[Span]) -> anyhow::Result<()> {
        let body = message(batch, &self.node).to_string();
        let request = self.client.post(&self.url).header(CONTENT_TYPE, "application/json").body(body);
        request.send().await?.error_for_status()?;
        Ok(())
    }
}

impl Exporting {
    /// Waits until all was sent, for a moment.
    pub(crate) async fn ended(mut self) {
        if timeout(END_LIMIT, &mut self.0).await.is_err() {
            self.0.abort();
            tracing::warn!("the last spans were not taken in time");
        }
    }
}

/// An `ExportTraceServiceRequest`.
fn message(batch: &[Span], node: &str) -> Value {
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let version = env!("CARGO_PKG_VERSION");
    let resource =
        [text("service.name", "quell"), text("service.version", version), text("service.instance.id", node)];
    let spans: Vec<Value> = batch.iter().map(span).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": { "name": "quell", "version": version }, "spans": spans }],
    }] })
}

fn span(span: &Span) -> Value {
    let text = |(key, value): &(&str, String)| json!({ "key": key, "value": { "stringValue": value } });
    let (server, internal) = (2, 1);
    let parent = span.parent.map(|id| format!("{id:016x}")).unwrap_or_default();
    let status = match &span.failure {
        None => json!({}),
        Some(why) => json!({ "code": 2, "message": why }),
    };
    json!({
        "traceId": format!("{:032x}", span.trace),
        "spanId": format!("{:016x}", span.id),
        "parentSpanId": parent,
        "name": span.name,
        "kind": if span.name == "invoke" { server } else { internal },
        "startTimeUnixNano": span.start_ns.to_string(),
        "endTimeUnixNano": span.end_ns.to_string(),
        "attributes": span.attributes.iter().map(text).collect::<Vec<_>>(),
        "status": status,
    })
}
