//! Every mode of cancel on a request in every state (DESIGN section 4), with who else was touched.
//!
//! A witness of the same function runs on another instance throughout; it must finish normally.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::{Bell, Mode, Reply, Ring, TestNode, within};

/// A witness: a request that has nothing to do with the cancel.
struct Witness {
    ring: Ring,
    answer: tokio::task::JoinHandle<Reply>,
}

async fn witness(node: &TestNode, bell: &Bell, function: &str) -> Witness {
    let answer = node.invoke(function, &json!({ "do": "wait", "port": bell.port, "tag": "witness" }));
    Witness { ring: bell.ring().await, answer }
}

impl Witness {
    /// It goes on, on the same process, and finishes.
    async fn untouched(mut self) {
        self.ring.release().await;
        let reply = within("the witness", self.answer).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["me"], self.ring.facts["me"]);
    }
}

#[track_caller]
fn stopped(reply: &Reply) -> String {
    assert_eq!((reply.status, reply.text().as_str()), (200, "null"), "{reply:?}");
    assert_eq!(reply.header("x-quell-stop"), "stopped", "{reply:?}");
    assert!(reply.header("content-type").starts_with("application/json"));
    reply.header("x-quell-cancel-id").to_owned()
}

/// The one row of a receipt about this request.
#[track_caller]
fn row<'a>(receipt: &'a Value, request: &str) -> &'a Value {
    let rows = receipt["requests"].as_array().unwrap();
    let mut rows = rows.iter().filter(|row| row["request_id"] == json!(request));
    let row = rows.next().unwrap_or_else(|| panic!("{request} is not in {receipt}"));
    assert!(rows.next().is_none(), "named twice: {receipt}");
    row
}

#[tokio::test]
async fn a_queued_request_is_taken_out_and_never_runs() {
    // 20: cancelled before the start, run all the same (docs/durability.md has the list).
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("one", 1, 1, json!({})).await;
    let blocker = witness(&node, &bell, "one").await;
    for mode in Mode::ALL {
        let request =
            node.invoke_async("one", &json!({ "do": "wait", "port": bell.port, "tag": "never" })).await;
        let cancel = stopped(&node.cancel("one", &request, mode).await);
        assert_eq!(node.listed("one", &request).await, ("DISCARD".into(), 4208), "{mode:?}");
        let receipt = node.receipt(&cancel).await;
        assert_eq!(row(&receipt, &request)["evidence"], "never_started", "{mode:?}");
        assert_eq!(receipt["instances"], json!([]), "{mode:?}: nobody is signalled");
        assert_eq!(receipt["co_tenants"], json!([]), "{mode:?}");
    }
    blocker.untouched().await;
    // The instance is free now and the queue is empty: the next to run is a new request.
    let answer = node.invoke("one", &json!({ "do": "wait", "port": bell.port, "tag": "next" }));
    let mut ring = bell.ring().await;
    assert_eq!(ring.facts["tag"], "next");
    ring.release().await;
    assert_eq!(within("the next", answer).await.unwrap().status, 200);
    node.stop().await;
}

#[tokio::test]
async fn a_request_whose_instance_is_being_started_never_runs() {
    // 22: cancelled in the queue, started anyway; 26: a cancel between set-up and start has no effect.
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let user_data = json!({ "port": bell.port.to_string() }).to_string();
    for (at, mode) in Mode::ALL.into_iter().enumerate() {
        let name = format!("slow{at}");
        let source = include_str!("functions/slow_start.py");
        node.deploy(&name, source, json!({ "user_data": user_data })).await;
        let request = node.invoke_async(&name, &json!({})).await;
        let mut starting = bell.ring().await;
        let cancel = stopped(&node.cancel(&name, &request, mode).await);
        assert_eq!(node.listed(&name, &request).await, ("DISCARD".into(), 4208), "{mode:?}");
        let receipt = node.receipt(&cancel).await;
        if mode.kills() {
            assert!(starting.process.is_gone(), "{mode:?}: the starting instance was killed first");
            assert_eq!(row(&receipt, &request)["evidence"], "reaped", "{mode:?}");
        } else {
            assert!(!starting.process.is_gone(), "{mode:?}: the instance serves the next request");
            assert_eq!(row(&receipt, &request)["evidence"], "never_started", "{mode:?}");
            let next = node.invoke(&name, &json!({}));
            starting.release().await;
            let reply = within("the next request", next).await.unwrap();
            assert_eq!(reply.json()["me"], starting.facts["me"], "{mode:?}: on that very instance");
        }
    }
    node.stop().await;
}

/// Runs one behaviour with a child, cancels it in one mode, and checks everything about it.
async fn running(node: &TestNode, bell: &Bell, behaviour: &str, mode: Mode) {
    let function = "many";
    let child = json!({ "do": "wait", "port": bell.port, "tag": "child" });
    let event = json!({ "do": behaviour, "port": bell.port, "tag": "target", "children": [child] });
    let request = node.invoke_async(function, &event).await;
    // The child rings on its own; a leaf process of the target may ring as well.
    let count = if behaviour == "setsid" { 3 } else { 2 };
    let mut rings = bell.rings(count).await;
    let target = rings.remove("target").unwrap();
    let mut child = rings.remove("child").unwrap();
    let leaf = rings.remove("setsid").map(|ring| ring.started());
    assert_eq!(node.tree(&request).await.len(), 2);

    let cancel = stopped(&node.cancel(function, &request, mode).await);
    assert_eq!(node.listed(function, &request).await, ("FAIL".into(), 4208), "{behaviour} {mode:?}");
    let receipt = node.receipt(&cancel).await;
    assert_eq!(receipt["co_tenants"], json!([]), "{behaviour} {mode:?}");
    let touched = receipt["requests"].as_array().unwrap().len();
    assert_eq!(touched, if mode.is_recursive() { 2 } else { 1 }, "{behaviour} {mode:?}: {receipt}");
    let evidence = if mode.kills() { "reaped" } else { "acknowledged" };
    assert_eq!(row(&receipt, &request)["evidence"], evidence, "{behaviour} {mode:?}");
    assert_eq!(target.process.is_gone(), mode.kills(), "{behaviour} {mode:?}: the runtime");
    if let Some(leaf) = leaf {
        assert!(leaf.is_gone(), "{behaviour} {mode:?}: the process that called setsid");
    }
    let child_id = child.request();
    if mode.is_recursive() {
        assert_eq!(row(&receipt, &child_id)["evidence"], evidence, "{behaviour} {mode:?}");
        assert_eq!(row(&receipt, &child_id)["parent"], json!(request));
        assert_eq!(node.listed(function, &child_id).await, ("FAIL".into(), 4208), "{behaviour} {mode:?}");
        assert_eq!(child.process.is_gone(), mode.kills(), "{behaviour} {mode:?}: the child's runtime");
    } else {
        assert_eq!(
            node.listed(function, &child_id).await.0,
            "RUNNING",
            "{behaviour} {mode:?}: the child lives on"
        );
        child.release().await;
    }
}

async fn running_in_all_modes(behaviour: &str) {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("many", 1, 20, json!({})).await;
    let witness = witness(&node, &bell, "many").await;
    for mode in Mode::ALL {
        running(&node, &bell, behaviour, mode).await;
    }
    witness.untouched().await;
    node.stop().await;
}

#[tokio::test]
async fn a_request_that_runs_python_code_is_stopped_in_every_mode() {
    running_in_all_modes("loop").await;
}

#[tokio::test]
async fn a_request_that_waits_in_a_system_call_is_stopped_in_every_mode() {
    running_in_all_modes("wait").await;
}

#[tokio::test]
async fn a_request_that_waits_for_a_subprocess_is_stopped_in_every_mode() {
    running_in_all_modes("subprocess").await;
}

#[tokio::test]
async fn a_request_whose_subprocess_called_setsid_is_stopped_in_every_mode() {
    running_in_all_modes("setsid").await;
}

#[tokio::test]
async fn a_finished_request_is_an_invalid_request_id_with_its_status() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let done = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
    let mut ring = bell.ring().await;
    ring.release().await;
    let failed = node.invoke_async("f", &json!({ "do": "fail", "port": bell.port })).await;
    bell.ring().await;
    // The next request runs on the one instance only after both have settled.
    let last = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    bell.ring().await.release().await;
    within("the last", last).await.unwrap();
    for mode in Mode::ALL {
        let reply = node.cancel("f", &done, mode).await;
        let invalid = |status| (400, "FSS.0400".to_owned(), format!("Invalid RequestId: {status}"));
        assert_eq!(reply.error(), invalid("SUCCESS"), "{mode:?}");
        assert_eq!(node.cancel("f", &failed, mode).await.error(), invalid("FAIL"), "{mode:?}");
    }
    assert_eq!(node.listed("f", &done).await, ("SUCCESS".into(), 0));
    assert_eq!(node.listed("f", &failed).await, ("FAIL".into(), 4002));
    node.stop().await;
}

#[tokio::test]
async fn a_request_that_was_cancelled_before_answers_with_the_same_receipt() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 2, json!({})).await;
    for first in Mode::ALL {
        let request = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
        let _ring = bell.ring().await; // kept: its end would end the handler
        let cancel = stopped(&node.cancel("f", &request, first).await);
        for again in Mode::ALL {
            let reply = node.cancel("f", &request, again).await;
            assert_eq!(stopped(&reply), cancel, "{first:?} then {again:?}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn an_unknown_request_is_an_invalid_request_id() {
    // 25: a cancel for an id that is not here yet is swallowed.
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 2, json!({})).await;
    node.deploy_probe("g", 1, 2, json!({})).await;
    let other = node.invoke_async("g", &json!({ "do": "wait", "port": bell.port })).await;
    let mut ring = bell.ring().await;
    let nobody = "00000000-0000-4000-8000-000000000000";
    for mode in Mode::ALL {
        for request in [nobody, other.as_str()] {
            let reply = node.cancel("f", request, mode).await;
            let invalid = (400, "FSS.0400".to_owned(), "Invalid RequestId".to_owned());
            assert_eq!(reply.error(), invalid, "{mode:?} {request}");
        }
    }
    assert_eq!(node.listed("g", &other).await.0, "RUNNING", "asking under another function touches nothing");
    ring.release().await;
    node.stop().await;
}

#[tokio::test]
async fn a_request_of_a_function_that_was_deleted_is_stopped_as_ever() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    for mode in Mode::ALL {
        node.deploy_probe("f", 1, 2, json!({})).await;
        let request = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
        let ring = bell.ring().await;
        let path = "/v2/default/fgs/functions/f";
        assert_eq!(node.send(reqwest::Method::DELETE, path, &[], b"").await.status, 204);
        stopped(&node.cancel("f", &request, mode).await);
        // Softly stopped, its instance has nothing left to live for and is released soon.
        assert!(!mode.kills() || ring.process.is_gone(), "{mode:?}");
        let unknown = node.cancel("f", "00000000-0000-4000-8000-000000000000", mode).await.error();
        assert_eq!(unknown, (404, "FSS.0404".into(), "can not find function".into()), "{mode:?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_handler_that_swallows_the_cancel_is_killed_when_its_grace_ends() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 2, json!({ "quell": { "grace_ms": 300 } })).await;
    let request = node.invoke_async("f", &json!({ "do": "stubborn", "port": bell.port })).await;
    let ring = bell.ring().await;
    let cancel = stopped(&node.cancel("f", &request, Mode::Plain).await);
    assert!(ring.process.is_gone());
    let receipt = node.receipt(&cancel).await;
    assert_eq!(row(&receipt, &request)["evidence"], "reaped");
    assert_eq!(receipt["instances"][0]["signals"], json!(["asked", "killed"]));
    node.stop().await;
}

#[tokio::test]
async fn a_handler_may_clean_up_within_its_grace_and_its_process_stays_warm() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let request = node.invoke_async("f", &json!({ "do": "cleanup", "port": bell.port })).await;
    let mut ring = bell.ring().await;
    stopped(&node.cancel("f", &request, Mode::Plain).await);
    let next = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let mut second = bell.ring().await;
    assert_eq!(second.pid, ring.pid, "the process serves the next request");
    second.release().await;
    within("the next request", next).await.unwrap();
    assert_eq!(ring.last_words().await, "cleaned\n");
    node.stop().await;
}

#[tokio::test]
async fn a_harder_ask_joins_a_running_cancel_and_both_askers_are_answered() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({ "quell": { "grace_ms": 60_000 } })).await;
    let request = node.invoke_async("f", &json!({ "do": "stubborn", "port": bell.port })).await;
    let ring = bell.ring().await;
    let fenced = node.fence("f", &request).await;
    assert!(!ring.process.is_gone(), "its grace is a minute");
    let (soft, hard) = tokio::join!(node.cancel("f", &request, Mode::Plain), async {
        // The soft asker waits; the hard one ends the wait of both.
        node.cancel("f", &request, Mode::Force).await
    });
    let cancel = stopped(&hard);
    assert_eq!(stopped(&soft), cancel);
    assert_eq!(fenced.header("x-quell-cancel-id"), cancel);
    assert!(ring.process.is_gone());
    let receipt = node.receipt(&cancel).await;
    assert_eq!(receipt["level"], "kill");
    assert_eq!(receipt["asked_by"].as_array().unwrap().len(), 3, "{receipt}");
    node.stop().await;
}
