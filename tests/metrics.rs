//! What a node tells whoever watches it: figures, whether it lives and takes work, and its log as JSON.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/openmetrics.rs"]
mod openmetrics;
#[path = "support/mod.rs"]
mod support;

use std::net::TcpListener;

use nix::sys::signal::Signal;
use openmetrics::Exposition;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Reply, TestNode, within};

async fn figures(node: &TestNode) -> Exposition {
    let reply = node.get("/metrics").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    Exposition::parse(&reply.text())
}

#[tokio::test]
async fn what_happened_is_counted_once_each() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 4, json!({})).await;
    for _ in 0..3 {
        assert_eq!(within("an answer", node.invoke("f", &json!({}))).await.unwrap().status, 200);
    }
    let fails = json!({ "do": "fail", "port": bell.port });
    within("a failure", node.invoke("f", &fails)).await.unwrap();
    drop(bell.ring().await);
    let done = node.invoke_async("f", &json!({})).await;
    assert_eq!(node.settled("f", &done).await.0, "SUCCESS");
    let running = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let ring = bell.ring().await;
    let cancel = node.cancel("f", &ring.request(), Mode::Force).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped");
    within("its result", running).await.unwrap();
    let nobody = "00000000-0000-4000-8000-000000000000";
    assert_eq!(node.cancel("f", nobody, Mode::Plain).await.status, 400);

    let seen = figures(&node).await;
    let settled =
        |mode, outcome| seen.value("quell_requests_settled_total", &[("mode", mode), ("outcome", outcome)]);
    assert_eq!(settled("sync", "returned"), 3.0);
    assert_eq!(settled("sync", "function_failed"), 1.0);
    assert_eq!(settled("sync", "canceled"), 1.0);
    assert_eq!(settled("async", "returned"), 1.0);
    assert_eq!(seen.value("quell_requests_accepted_total", &[("mode", "sync")]), 5.0);
    assert_eq!(seen.value("quell_requests_accepted_total", &[("mode", "async")]), 1.0);
    assert_eq!(seen.value("quell_request_ran_seconds_count", &[("mode", "sync")]), 5.0);
    assert_eq!(seen.value("quell_request_queued_seconds_count", &[("mode", "async")]), 1.0);
    assert_eq!(seen.value("quell_cancel_answers_total", &[("answer", "stopped")]), 1.0);
    assert_eq!(seen.value("quell_cancel_answers_total", &[("answer", "unknown")]), 1.0);
    assert_eq!(seen.value("quell_cancels_total", &[("cause", "asked"), ("result", "stopped")]), 1.0);
    for phase in ["recorded", "exited", "emptied", "proven", "answered"] {
        let of = |level| {
            let labels = [("phase", phase), ("scope", "request"), ("level", level)];
            seen.value("quell_cancel_phase_seconds_count", &labels)
        };
        assert_eq!((of("kill"), of("ask")), (1.0, 0.0), "{phase}");
    }
    assert!(seen.value("quell_instances_started_total", &[]) >= 1.0);
    assert!(seen.value("quell_instances_reaped_total", &[]) >= 1.0);
    assert!(seen.value("quell_store_commit_seconds_count", &[]) > 0.0);
    assert!(
        seen.value("quell_store_writes_total", &[]) >= seen.value("quell_store_commit_seconds_count", &[])
    );
    assert!(seen.value("quell_http_answers_total", &[("class", "4xx")]) >= 1.0);
    assert!(seen.value("process_resident_memory_bytes", &[]) > 1e6);
    let of_f =
        [("project", "default"), ("function", "default:f"), ("version", "latest"), ("outcome", "returned")];
    assert_eq!(seen.value("quell_function_settled_total", &of_f), 4.0);
    node.stop().await;
}

#[tokio::test]
async fn what_lives_is_seen_by_function_and_state() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let first = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let mut ring = bell.ring().await;
    let second = node.invoke("f", &json!({}));
    let of =
        |state| [("project", "default"), ("function", "default:f"), ("version", "latest"), ("state", state)];
    within("the second one in the queue", async {
        while figures(&node).await.value("quell_function_requests", &of("waiting")) != 1.0 {}
    })
    .await;
    let seen = figures(&node).await;
    assert_eq!(seen.value("quell_function_requests", &of("running")), 1.0);
    assert_eq!(seen.value("quell_function_instances", &of("ready")), 1.0);
    assert_eq!(seen.value("quell_requests_live", &[]), 2.0);
    assert_eq!(seen.value("quell_functions_together", &[]), 0.0);
    ring.release().await;
    for answer in [first, second] {
        assert_eq!(within("an answer", answer).await.unwrap().status, 200);
    }
    node.stop().await;
}

#[tokio::test]
async fn only_an_operator_reads_the_figures_unless_a_listener_is_open_for_all() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let open = format!("127.0.0.1:{port}");
    let node = TestNode::start_with(&["--metrics-listen", &open]).await;
    let body = json!({ "project": "default", "scopes": ["admin"], "note": "no operator" });
    let made = node.post("/quell/v1/credentials", &body).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let admin = made.json()["token"].as_str().unwrap().to_owned();
    for token in [None, Some("qk.wrong.wrong"), Some(admin.as_str())] {
        let refused = node.send_as(token, Method::GET, "/metrics", &[], b"").await.error();
        // Only who is known is told what he lacks.
        let lacks = if token == Some(admin.as_str()) { ": it lacks the scope operator" } else { "" };
        assert_eq!(refused, (403, "FSS.0403".into(), format!("invalid token{lacks}")), "{token:?}");
    }
    let bearer = format!("Bearer {}", node.token);
    let by_bearer = node.send_as(None, Method::GET, "/metrics", &[("Authorization", &bearer)], b"").await;
    assert_eq!(by_bearer.status, 200, "as collectors send a token");
    let wrong = node.send_as(None, Method::GET, "/metrics", &[("Authorization", "Bearer qk.a.b")], b"").await;
    assert_eq!(wrong.status, 403);

    let client = reqwest::Client::builder().no_proxy().timeout(support::LIMIT).build().unwrap();
    let get = async |path: &str| client.get(format!("http://{open}{path}")).send().await.unwrap();
    let shown = get("/metrics").await;
    assert_eq!(shown.status(), 200);
    let seen = Exposition::parse(&shown.text().await.unwrap());
    assert_eq!(seen.value("quell_http_unauthorised_total", &[]), 4.0);
    for (path, status) in [
        ("/quell/v1/health", 200),
        ("/quell/v1/ready", 200),
        ("/quell/v1/node", 404),
        ("/v2/default/fgs/functions", 404),
    ] {
        assert_eq!(get(path).await.status(), status, "{path}");
    }
    node.stop().await;
}

/// Every name of a metric in the queries of the dashboard.
fn queried(dashboard: &Value, names: &mut Vec<String>) {
    match dashboard {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().filter(|_| key == "expr" || key == "query") {
                    Some(query) => names.extend(
                        query
                            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                            .filter(|word| word.starts_with("quell_") || word.starts_with("process_"))
                            .map(str::to_owned),
                    ),
                    None => queried(value, names),
                }
            }
        }
        Value::Array(all) => all.iter().for_each(|one| queried(one, names)),
        _ => {}
    }
}

#[tokio::test]
async fn the_dashboard_asks_for_what_there_is_and_the_documentation_lists_it() {
    let node = TestNode::start().await;
    let seen = figures(&node).await;
    let dashboard: Value = serde_json::from_str(include_str!("../docs/grafana/quell.json")).unwrap();
    let mut names = Vec::new();
    queried(&dashboard, &mut names);
    assert!(names.len() > 30, "{names:?}");
    for name in &names {
        assert!(seen.has_series_name(name), "{name} is in the dashboard, and no metric");
    }
    let documented = include_str!("../docs/observability.md");
    for family in seen.families() {
        assert!(documented.contains(&format!("`{family}`")), "{family} is not in docs/observability.md");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_drains_lives_and_is_not_ready_and_says_why() {
    let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let nobody = async |path: &str| -> Reply { node.send_as(None, Method::GET, path, &[], b"").await };
    let ready = nobody("/quell/v1/ready").await;
    assert_eq!(
        (ready.status, ready.json()["checks"]["store"].as_str()),
        (200, Some("writes")),
        "{}",
        ready.text()
    );
    assert_eq!(nobody("/quell/v1/health").await.json(), json!({ "status": "ok", "draining": false }));
    let answer = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let mut ring = bell.ring().await;
    node.signal(Signal::SIGTERM);
    within("the drain", async { while nobody("/quell/v1/ready").await.status == 200 {} }).await;
    let (status, code, why) = nobody("/quell/v1/ready").await.error();
    assert_eq!((status, code.as_str(), why.as_str()), (503, "FSS.0503", "not ready: the node is draining"));
    assert_eq!(nobody("/quell/v1/health").await.json(), json!({ "status": "ok", "draining": true }));
    ring.release().await;
    assert_eq!(within("the running one", answer).await.unwrap().status, 200);
    assert!(node.ended().await.0.success());
}

#[tokio::test]
async fn a_log_of_json_is_json_in_every_line_and_names_requests() {
    let (mut node, bell) = (TestNode::start_with(&["--log-format", "json"]).await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let answer = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let ring = bell.ring().await;
    let request = ring.request();
    node.cancel("f", &request, Mode::Force).await;
    within("its result", answer).await.unwrap();
    node.signal(Signal::SIGTERM);
    let (status, log) = node.ended().await;
    assert!(status.success());
    let lines: Vec<Value> = log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect();
    let cancel = lines.iter().find(|line| line["message"] == "cancel").unwrap_or_else(|| panic!("{log:#?}"));
    assert_eq!((&cancel["request"], &cancel["result"]), (&json!(request), &json!("stopped")));
    assert_eq!((&cancel["level"], &cancel["hardest"]), (&json!("INFO"), &json!("kill")));
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()), "{log:#?}");
}
