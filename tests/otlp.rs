//! Spans by OTLP/HTTP, of a binary with that feature, to a collector that is this test.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::collections::HashMap;

use axum::{Json, Router, http::StatusCode, routing::post};
use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, TestNode, within};
use tokio::{net::TcpListener, sync::mpsc};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// What a collector was sent, span by span.
struct Collector {
    endpoint: String,
    spans: mpsc::Receiver<Value>,
    /// By name, those of interest so far.
    seen: Vec<Value>,
}

impl Collector {
    async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (sender, spans) = mpsc::channel(1_024);
        let take = move |Json(body): Json<Value>| {
            let sender = sender.clone();
            async move {
                for resource in body["resourceSpans"].as_array().unwrap() {
                    let attributes = resource["resource"]["attributes"].as_array().unwrap();
                    assert_eq!(
                        attributes[0],
                        json!({ "key": "service.name", "value": { "stringValue": "quell" } })
                    );
                    for span in resource["scopeSpans"][0]["spans"].as_array().unwrap() {
                        drop(sender.send(span.clone()).await); // the test may have seen enough
                    }
                }
                StatusCode::OK
            }
        };
        let router = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum_server(listener, router).await });
        Self { endpoint, spans, seen: Vec::new() }
    }

    /// Waits for a span of this name with this attribute.
    async fn span(&mut self, name: &str, key: &str, value: &str) -> Value {
        let fits = |span: &Value| span["name"] == name && (key.is_empty() || attributes(span)[key] == value);
        within(name, async {
            loop {
                if let Some(found) = self.seen.iter().find(|span| fits(span)) {
                    return found.clone();
                }
                self.seen.push(self.spans.recv().await.unwrap());
            }
        })
        .await
    }
}

/// The smallest server there is: axum's own is not compiled in.
async fn axum_server(listener: TcpListener, router: Router) {
    let end = tokio_util::sync::CancellationToken::new();
    let serving =
        supervisor::http::Serving { max_connections: 16, end_limit: support::LIMIT, strangers: None };
    supervisor::http::serve(listener, router, serving, |_| Some(()), end).await;
}

fn attributes(span: &Value) -> HashMap<String, String> {
    let pairs = span["attributes"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    pairs.map(|pair| (text(&pair["key"]), text(&pair["value"]["stringValue"]))).collect()
}

/// The span is within the other one, and each of them begins before it ends.
fn is_within(part: &Value, whole: &Value) {
    let time = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    let [start, end] = ["startTimeUnixNano", "endTimeUnixNano"].map(|key| time(part, key));
    let [first, last] = ["startTimeUnixNano", "endTimeUnixNano"].map(|key| time(whole, key));
    // The two clocks are read one after the other: a little is lost in between.
    let slack = 1_000_000;
    assert!(start <= end && first <= start + slack && end <= last + slack, "{part} {whole}");
}

#[tokio::test]
async fn a_request_its_parts_its_child_and_a_cancel_are_spans_of_the_callers_trace() {
    let mut collector = Collector::listen().await;
    let node = TestNode::start_with(&["--otlp-endpoint", &collector.endpoint]).await;
    node.deploy("traced", include_str!("functions/traced.py"), json!({})).await;
    let path = "/v2/default/fgs/functions/traced/invocations";
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let headers = [("Content-Type", "application/json"), ("traceparent", parent.as_str())];
    let reply = within("an answer", node.send(Method::POST, path, &headers, b"{\"child\": true}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let (said, child) = (reply.json(), reply.json()["child"].clone());

    let invoke = collector.span("invoke", "quell.request", said["request"].as_str().unwrap()).await;
    assert_eq!((&invoke["traceId"], &invoke["parentSpanId"]), (&json!(TRACE), &json!(CALLER)));
    assert_eq!(attributes(&invoke)["quell.outcome"], "returned");
    assert_eq!(invoke["status"], json!({}));
    let told = said["traceparent"].as_str().unwrap().to_owned();
    let run = collector
        .seen
        .iter()
        .find(|span| span["name"] == "run" && told.contains(span["spanId"].as_str().unwrap()));
    let run = run.unwrap_or_else(|| panic!("{told}: {:#?}", collector.seen)).clone();
    assert_eq!(
        told,
        format!("00-{TRACE}-{}-01", run["spanId"].as_str().unwrap()),
        "the function is below its run"
    );
    for name in ["queue", "dispatch", "run"] {
        let of_it = |span: &&Value| span["name"] == name && span["parentSpanId"] == invoke["spanId"];
        let part =
            collector.seen.iter().find(of_it).unwrap_or_else(|| panic!("{name}: {:#?}", collector.seen));
        assert_eq!(part["traceId"], TRACE);
        is_within(part, &invoke);
    }
    let below = collector.span("invoke", "quell.request", child["request"].as_str().unwrap()).await;
    assert_eq!(
        (&below["traceId"], &below["parentSpanId"]),
        (&json!(TRACE), &run["spanId"]),
        "the child is below it"
    );
    is_within(&below, &invoke);

    let unsampled = format!("00-{}-{CALLER}-00", TRACE.replace("0af7", "1af7"));
    let headers = [("Content-Type", "application/json"), ("traceparent", unsampled.as_str())];
    let quiet = within("an answer", node.send(Method::POST, path, &headers, b"{}")).await.json();
    assert_eq!(quiet["traceparent"], unsampled, "what its caller does not sample is passed on as it came");

    let bell = Bell::hang().await;
    node.deploy_probe("f", 1, 1, json!({})).await;
    let answer = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let ring = bell.ring().await;
    let cancel = node.cancel("f", &ring.request(), Mode::Force).await;
    within("its result", answer).await.unwrap();
    let span = collector.span("cancel", "quell.cancel", cancel.header("x-quell-cancel-id")).await;
    let stopped = collector.span("invoke", "quell.request", &ring.request()).await;
    assert_eq!((&span["traceId"], &span["parentSpanId"]), (&stopped["traceId"], &stopped["spanId"]));
    assert_eq!(
        stopped["traceId"],
        ring.request().replace('-', ""),
        "a trace of its own: the id of the request"
    );
    assert_eq!(stopped["status"], json!({ "code": 2, "message": "canceled" }));
    for name in ["cancel.recorded", "cancel.exited", "cancel.emptied", "cancel.proven"] {
        let phase = collector.span(name, "", "").await;
        assert_eq!(phase["parentSpanId"], span["spanId"], "{name}");
        is_within(&phase, &span);
    }
    assert!(!collector.seen.iter().any(|span| unsampled.contains(span["traceId"].as_str().unwrap())));
    let ids: Vec<&Value> = collector.seen.iter().map(|span| &span["spanId"]).collect();
    assert!(
        ids.iter().enumerate().all(|(at, id)| !ids[..at].contains(id)),
        "each span has an id of its own: {ids:?}"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_spans_and_nothing_else() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let node = TestNode::start_with(&["--otlp-endpoint", &format!("http://{nobody}")]).await;
    node.deploy("traced", include_str!("functions/traced.py"), json!({})).await;
    let reply = within("an answer", node.invoke("traced", &json!({}))).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    node.logs("spans are lost");
    let figures = node.get("/metrics").await.text();
    assert!(
        figures.lines().any(|line| line.starts_with("quell_spans_lost_total ") && !line.ends_with(" 0")),
        "{figures}"
    );
    node.stop().await;
}
