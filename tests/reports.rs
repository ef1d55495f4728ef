//! What a node tells of invocations: the log and the summary of one, the figures of many.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

mod support;

use base64::Engine as _;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Reply, TestNode, within};

const TALKS: &str = r#"
import sys

print("imported")


def handler(event, context):
    print("begins with", event.get("word"))
    sys.stderr.write("to stderr\n")
    for line in range(event.get("lines", 0)):
        print("line", line)
    if event.get("raises"):
        raise ValueError("as the test asked")
    print("the end")
    return event
"#;

async fn invoke(node: &TestNode, function: &str, headers: &[(&str, &str)], event: &Value) -> Reply {
    let path = format!("/v2/default/fgs/functions/{function}/invocations");
    let headers = [&[("Content-Type", "application/json")], headers].concat();
    within("invoke", node.send(Method::POST, &path, &headers, event.to_string().as_bytes())).await
}

fn log(reply: &Reply) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(reply.header("x-cff-function-log")).unwrap();
    assert!(bytes.len() <= 2_000, "{}", bytes.len());
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn the_log_of_an_invocation_is_what_its_instance_printed_meanwhile() {
    let node = TestNode::start().await;
    node.deploy("f", TALKS, json!({})).await;
    let tail = [("X-Cff-Log-Type", "tail")];
    let plain = invoke(&node, "f", &[], &json!({ "word": "nothing" })).await;
    assert!(plain.headers.get("x-cff-function-log").is_none(), "{plain:?}");
    let first = invoke(&node, "f", &tail, &json!({ "word": "one" })).await;
    let text = log(&first);
    let lines: Vec<&str> = text.lines().collect();
    let id = first.header("x-cff-request-id");
    assert!(lines[0].ends_with(&format!("Z Start invoke request '{id}', version: latest")), "{text}");
    assert!(
        lines[lines.len() - 1].contains(&format!("Z Finish invoke request '{id}', duration: ")),
        "{text}"
    );
    assert!(lines[lines.len() - 1].ends_with("billing memory: 128MB"), "{text}");
    let mut printed = lines[1..lines.len() - 1].to_vec();
    printed.sort_unstable(); // two pipes have no common order
    assert_eq!(printed, ["begins with one", "the end", "to stderr"], "{text}");

    let v1 = [("X-Cff-Log-Type", "tail"), ("X-Cff-Request-Version", "v1")];
    let wrapped = invoke(&node, "f", &v1, &json!({ "word": "two" })).await;
    assert_eq!(wrapped.json()["log"], json!(log(&wrapped)));
    assert!(log(&wrapped).contains("begins with two") && !log(&wrapped).contains("one"), "{wrapped:?}");
    let failed = invoke(&node, "f", &tail, &json!({ "raises": true })).await;
    assert_eq!(failed.error().1, "FSS.4002");
    assert!(log(&failed).contains("begins with None") && !log(&failed).contains("the end"), "{failed:?}");
    let long = log(&invoke(&node, "f", &tail, &json!({ "lines": 1_000 })).await);
    assert!(long.contains("line 999\nthe end") && !long.contains("line 0\n"), "{long}");

    node.deploy("shared", TALKS, json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 4 } }))
        .await;
    assert!(log(&invoke(&node, "shared", &tail, &json!({})).await).contains("lines of others may be among"));
    let (status, code, message) = invoke(&node, "f", &[("X-Cff-Log-Type", "all")], &json!({})).await.error();
    assert_eq!((status, code.as_str()), (400, "FSS.0400"), "{message}");
    node.stop().await;
}

#[tokio::test]
async fn the_summary_has_the_memory_where_something_counts_it() {
    let node = TestNode::start().await;
    node.deploy("f", TALKS, json!({})).await;
    let reply = invoke(&node, "f", &[("X-Cff-Instance-Memory", "256")], &json!({})).await;
    let summary: Value = serde_json::from_str(reply.header("x-cff-invoke-summary")).unwrap();
    assert_eq!(summary["memorySize"], 128, "a valid size is taken and changes nothing");
    assert!(summary["duration"].as_f64().unwrap() > 0.0 && summary["billingDuration"].as_u64().unwrap() > 0);
    let limits = node.view().await["limits"].clone();
    let memory = limits.as_array().unwrap().iter().find(|limit| limit["name"] == "memory").unwrap();
    let counted = memory["active"] == true;
    match summary.get("memoryUsed").map(|used| used.as_f64().unwrap()) {
        Some(used) => assert!(counted && used > 1.0 && used < 128.0, "{summary}, {memory}"),
        None => assert!(!counted, "{summary}, {memory}"),
    }
    for wrong in ["129", "1.5", "much", "-128"] {
        let headers = [("X-Cff-Instance-Memory", wrong)];
        let (status, code, message) = invoke(&node, "f", &headers, &json!({})).await.error();
        assert_eq!((status, code.as_str()), (406, "FSS.0406"), "{wrong}: {message}");
    }
    let path = "/v2/default/fgs/functions/f/invocations-async";
    let headers = [("Content-Type", "application/json"), ("X-Cff-Instance-Memory", "129")];
    assert_eq!(node.send(Method::POST, path, &headers, b"{}").await.error().1, "FSS.0406");
    node.stop().await;
}

#[tokio::test]
async fn the_log_of_a_killed_invocation_holds_what_it_had_printed() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let wait = json!({ "do": "wait", "port": bell.port });
    let killed = async {
        let ring = bell.ring().await;
        assert_eq!(node.cancel("f", &ring.request(), Mode::Force).await.status, 200);
    };
    let (reply, ()) = tokio::join!(invoke(&node, "f", &[("X-Cff-Log-Type", "tail")], &wait), killed);
    assert_eq!(reply.error().1, "FSS.4208");
    assert!(log(&reply).contains("\nthe handler begins\n"), "{}", log(&reply));
    node.stop().await;
}

/// The sum of a series, without the minutes that have no figure; `None` if none has one.
fn sum(shown: &Value, name: &str) -> Option<f64> {
    let values = shown[name].as_array().unwrap_or_else(|| panic!("no {name} in {shown}"));
    let values: Vec<f64> = values.iter().map(|point| point["value"].as_f64().unwrap()).collect();
    let known: Vec<f64> = values.into_iter().filter(|value| *value >= 0.0).collect();
    (!known.is_empty()).then(|| known.iter().sum())
}

#[tokio::test]
async fn every_end_is_counted_once_and_under_its_own_name() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy("f", TALKS, json!({})).await;
    node.deploy_probe("g", 1, 1, json!({})).await;
    node.deploy("off", TALKS, json!({ "strategy_config": { "concurrency": 0, "concurrent_num": 1 } })).await;
    for event in [json!({}), json!({}), json!({ "raises": true })] {
        invoke(&node, "f", &[], &event).await;
    }
    assert_eq!(invoke(&node, "off", &[], &json!({})).await.error().1, "FSS.150434");
    let request = node.invoke_async("g", &json!({ "do": "wait", "port": bell.port })).await;
    let _ring = bell.ring().await;
    assert_eq!(node.cancel("g", &request, Mode::Force).await.status, 200);

    let path = |rest: &str| format!("/v2/default/fgs/functions/{rest}");
    let f = node.get(&path("f/slareports/10")).await.json();
    assert_eq!(f["count"].as_array().unwrap().len(), 10);
    assert_eq!((sum(&f, "count"), sum(&f, "fail_count")), (Some(3.0), Some(1.0)));
    assert_eq!((sum(&f, "function_error_count"), sum(&f, "system_error_count")), (Some(1.0), Some(0.0)));
    assert!(sum(&f, "max_duration") >= sum(&f, "min_duration") && sum(&f, "duration") > Some(0.0), "{f}");
    assert!(sum(&f, "instance_num") >= Some(1.0) && sum(&f, "concurrency_num") >= Some(1.0), "{f}");
    assert_eq!(sum(&f, "reserved_instance_num"), Some(0.0));
    let g = node.get(&path("g/statistics/10")).await.json();
    assert_eq!((sum(&g, "count"), sum(&g, "fail_count")), (Some(1.0), Some(1.0)));
    assert_eq!((sum(&g, "function_error_count"), sum(&g, "system_error_count")), (Some(0.0), Some(0.0)));
    let off = node.get(&path("off/statistics/10")).await.json();
    assert_eq!((sum(&off, "count"), sum(&off, "reject_count")), (Some(0.0), Some(1.0)));
    let all = node.get(&path("statistics?filter=monitor_data&period=10")).await.json();
    assert_eq!(sum(&all["statistics"], "count"), Some(4.0));
    let instances = node.get(&path("g/instancereports?limit=3")).await.json();
    assert_eq!(instances["instanceNum"].as_array().unwrap().len(), 3);
    assert!(sum(&instances, "instanceNum") >= Some(1.0), "{instances}");
    let earlier = node.get(&path("g/instancereports?limit=3&marker=30")).await.json();
    assert_eq!(sum(&earlier, "instanceNum"), None, "before the node was there");

    let report = node.get("/v2/default/fgs/function/report?type=count&limit=1").await.json();
    assert_eq!((&report["count"], &report["next_marker"]), (&json!(2), &json!(1)));
    let most = &report["values"][0];
    assert!(most["key"].as_str().unwrap().ends_with(":function:default:f:latest"), "{report}");
    assert_eq!(most["value"], 3);
    let failed = node.get("/v2/default/fgs/function/report").await.json();
    assert_eq!(failed["count"], 2, "{failed}");
    let later = node.get("/v2/default/fgs/function/report?start_time=2999-01-01T00:00:00").await.json();
    assert_eq!(later["values"], json!([]));
    // A function that is made again under its name begins anew.
    assert_eq!(node.send(Method::DELETE, &path("f"), &[], b"").await.status, 204);
    node.deploy("f", TALKS, json!({})).await;
    // No figure, or none but the end of the old one's instances.
    let again = node.get(&path("f/slareports/10")).await.json();
    assert_eq!(sum(&again, "count").unwrap_or(0.0), 0.0, "{again}");
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_reported_is_said() {
    let node = TestNode::start_with(&["--max-instances", "7", "--idle", "9"]).await;
    node.deploy("f", TALKS, json!({})).await;
    for (path, status, code) in [
        ("functions/f/slareports/0", 400, "FSS.1001"),
        ("functions/f/statistics/1441", 400, "FSS.1001"),
        ("functions/f/statistics/day", 400, "FSS.1001"),
        ("functions/f/instancereports?limit=-1", 400, "FSS.1001"),
        ("functions/nowhere/slareports/5", 404, "FSS.1051"),
        ("functions/statistics", 400, "FSS.1001"),
        ("functions/statistics?filter=metric", 400, "FSS.1001"),
        ("functions/statistics?filter=monthly_report", 501, "FSS.0501"),
        ("function/report?type=beauty", 400, "FSS.1001"),
        ("function/report?start_time=yesterday", 400, "FSS.1001"),
    ] {
        let (got, got_code, message) = node.get(&format!("/v2/default/fgs/{path}")).await.error();
        assert_eq!((got, got_code.as_str()), (status, code), "{path}: {message}");
    }
    assert_eq!(node.post("/v2/default/fgs/functions/f/versions", &json!({})).await.status, 200);
    let quotas = node.get("/v2/default/fgs/quotas").await.json();
    let quota = |kind: &str| {
        let all = quotas["quotas"]["resources"].as_array().unwrap();
        let one = all.iter().find(|one| one["type"] == kind).unwrap();
        (one["quota"].as_i64().unwrap(), one["used"].as_i64().unwrap())
    };
    assert_eq!(quota("fgs_func_num"), (-1, 1), "a function, whatever versions it has");
    assert_eq!(quota("fgs_func_code_size"), (-1, 1));
    assert_eq!(quota("fgs_func_qos_limit"), (7, 0));
    assert_eq!(quota("fgs_func_scale_down_timeout").0, 9);
    let foreign = node.send_as(None, Method::GET, "/v2/default/fgs/quotas", &[], b"").await;
    assert_eq!(foreign.error().1, "FSS.0401");
    node.stop().await;
}
