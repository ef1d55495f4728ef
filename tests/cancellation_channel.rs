//! The cancellation channel on the wire: who hears of what, what an acknowledgement is worth, and whose word
//! counts for nothing (docs/runtime-protocol.md). The test plays the runtime.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use support::{Bell, Line, Mode, Played, TestNode, within};

const NEXT: &str = "/v1/runtime/invocation/cancellation/next";
const STREAM: (&str, &str) = ("Accept", "application/x-ndjson");
const TELLS: (&str, &str) = ("X-Quell-Cancellation", "tells");
const PROCESS: (&str, &str) = ("X-Quell-Connection", "process");
/// Longer than any test: what ends before it was not ended by the grace.
const LONG: u64 = 600_000;

fn named(invocation: &str) -> String {
    format!("{NEXT}?invocation={invocation}")
}

async fn acknowledge(runtime: &Played<'_>, invocation: &str) -> u16 {
    let path = format!("/v1/runtime/invocation/cancellation/{invocation}/ack");
    runtime.post(&path, &[], "").await.status
}

/// The instance of a function as the node shows it.
async fn instance(node: &TestNode) -> Value {
    node.view().await["instances"][0].clone()
}

/// A poll that the node holds: it is, once something was asked and answered behind it.
async fn held(runtime: &Played<'_>, path: &str, headers: &[(&str, &str)]) -> Line {
    let mut poll = runtime.get(path, headers).await;
    let says: Vec<_> = headers.iter().copied().filter(|header| *header == TELLS).collect();
    let mut behind = runtime.get(&named(""), &says).await;
    assert_eq!(behind.reply().await.status, 204);
    if !headers.contains(&STREAM) {
        assert!(poll.is_held().await);
    }
    poll
}

#[tokio::test]
async fn a_notice_says_which_why_and_until_when_and_the_acknowledgement_ends_the_cancel() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let runtime = Played::deploy(&node, &bell, "f", 1, json!({ "quell": { "grace_ms": LONG } })).await;
    let request = node.invoke_async("f", &json!({})).await;
    let (taken, invocation) = runtime.take().await;
    assert_eq!(taken, request);
    let mut poll = held(&runtime, NEXT, &[]).await;
    assert_eq!(instance(&node).await["cooperates"], true);
    let before = jiff::Timestamp::now().as_millisecond();
    let fenced = node.fence("f", &request).await;
    let told = poll.reply().await;
    let notice = told.json();
    assert_eq!(told.header("content-type"), "application/json");
    assert_eq!(
        (&notice["requestId"], &notice["invocationId"], &notice["reason"], &notice["graceMs"]),
        (&json!(request), &json!(invocation), &json!("cancel"), &json!(LONG))
    );
    assert!(notice["deadlineMs"].as_i64().unwrap() >= before + i64::try_from(LONG).unwrap());
    // Of another attempt, or of nobody, it says nothing.
    for other in [format!("{request}-7"), format!("{}-1", uuid::Uuid::new_v4())] {
        assert_eq!(acknowledge(&runtime, &other).await, 202);
    }
    for wrong in ["nonsense", &request, &format!("{request}-")] {
        assert_eq!(acknowledge(&runtime, wrong).await, 400, "{wrong}");
    }
    assert_eq!(node.listed("f", &request).await.0, "RUNNING");
    assert_eq!(acknowledge(&runtime, &invocation).await, 202);
    assert_eq!(node.settled("f", &request).await, ("FAIL".to_owned(), 4208));
    let receipt = node.receipt(fenced.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "acknowledged", "{receipt}");
    assert_eq!(receipt["instances"][0]["signals"], json!(["asked"]), "{receipt}");
    // Late ones are ignored, and so is one of a request that nobody cancelled.
    assert_eq!(acknowledge(&runtime, &invocation).await, 202);
    let answer = node.invoke("f", &json!({}));
    let (second, invocation) = runtime.take().await;
    assert_eq!(acknowledge(&runtime, &invocation).await, 202);
    let response = format!("/v1/runtime/invocation/response/{second}");
    assert_eq!(
        runtime.post(&response, &[("X-Quell-Invocation-Id", &invocation)], "\"done\"").await.status,
        202
    );
    assert_eq!(within("the second", answer).await.unwrap().json(), "done");
    node.stop().await;
}

#[tokio::test]
async fn a_stream_carries_every_notice_as_a_line_and_ends_with_the_instance() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let runtime = Played::deploy(&node, &bell, "f", 3, json!({ "quell": { "grace_ms": LONG } })).await;
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push(node.invoke_async("f", &json!({})).await);
        assert_eq!(runtime.take().await.0, *requests.last().unwrap());
    }
    // What was told before anybody listened is told to who listens then.
    let mut stream = runtime.get(NEXT, &[STREAM]).await;
    let head = stream.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, "application/x-ndjson"));
    for request in &requests[..2] {
        node.fence("f", request).await;
        let line = stream.chunk().await;
        assert!(line.ends_with('\n'), "{line:?}");
        let notice: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(notice["requestId"], json!(request));
    }
    assert_eq!(node.cancel("f", &requests[2], Mode::Force).await.header("x-quell-stop"), "stopped");
    node.stop().await;
}

#[tokio::test]
async fn who_names_an_invocation_hears_of_that_one_alone_until_it_is_over() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let runtime = Played::deploy(&node, &bell, "f", 3, json!({ "quell": { "grace_ms": LONG } })).await;
    // An empty name announces the runtime, and hears nothing.
    let first = node.invoke_async("f", &json!({})).await;
    let mut announces = runtime.get(&named(""), &[]).await;
    assert_eq!(announces.reply().await.status, 204);
    let (_, first_invocation) = runtime.take().await;
    assert_eq!(instance(&node).await["cooperates"], true);
    let second = node.invoke_async("f", &json!({})).await;
    let (_, second_invocation) = runtime.take().await;
    let third = node.invoke_async("f", &json!({})).await;
    let (_, third_invocation) = runtime.take().await;
    let mut of_first = held(&runtime, &named(&first_invocation), &[]).await;
    let mut of_second = held(&runtime, &named(&second_invocation), &[STREAM]).await;
    assert_eq!(of_second.head().await.status, 200);
    let mut of_any = held(&runtime, NEXT, &[]).await;
    for (request, poll) in [(&first, &mut of_first), (&third, &mut of_any)] {
        node.fence("f", request).await;
        assert_eq!(poll.reply().await.json()["requestId"], json!(request));
    }
    // The second ends by itself: whoever listened for it hears that nothing will come.
    let response = format!("/v1/runtime/invocation/response/{second}");
    assert_eq!(runtime.post(&response, &[], "{}").await.status, 202);
    assert_eq!(of_second.chunk().await, "", "the end of the stream");
    let mut late = runtime.get(&named(&second_invocation), &[]).await;
    assert_eq!(late.reply().await.status, 204);
    for wrong in [named("nonsense"), named(&first), format!("{NEXT}?invocation=&invocation=")] {
        let mut poll = runtime.get(&wrong, &[]).await;
        assert_eq!(poll.reply().await.status, 400, "{wrong}");
    }
    let mut poll = runtime.get(NEXT, &[("X-Quell-Cancellation", "sometimes")]).await;
    assert_eq!(poll.reply().await.status, 400);
    for invocation in [&first_invocation, &third_invocation] {
        assert_eq!(acknowledge(&runtime, invocation).await, 202);
    }
    for request in [&first, &third] {
        assert_eq!(node.settled("f", request).await, ("FAIL".to_owned(), 4208));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_notice_that_died_with_its_poll_is_told_again_to_who_names_the_invocation() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let runtime = Played::deploy(&node, &bell, "f", 1, json!({ "quell": { "grace_ms": LONG } })).await;
    let request = node.invoke_async("f", &json!({})).await;
    let (_, invocation) = runtime.take().await;
    let poll = held(&runtime, &named(&invocation), &[]).await;
    node.fence("f", &request).await;
    drop(poll); // unread
    for headers in [&[][..], &[STREAM]] {
        let mut again = runtime.get(&named(&invocation), headers).await;
        let head = again.head().await;
        assert_eq!(head.status, 200);
        let text = if headers.is_empty() { again.body(&head).await } else { again.chunk().await };
        assert!(text.contains(&invocation), "{text}");
        if !headers.is_empty() {
            assert_eq!(again.chunk().await, "", "there is no more to hear of it");
        }
    }
    assert_eq!(acknowledge(&runtime, &invocation).await, 202);
    assert_eq!(node.settled("f", &request).await.1, 4208);
    let mut over = runtime.get(&named(&invocation), &[]).await;
    assert_eq!(over.reply().await.status, 204);
    node.stop().await;
}

#[tokio::test]
async fn who_only_listens_is_told_and_not_believed() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    // Two on one instance: the answer of the cancelled one is no proof that its code has ended.
    let runtime = Played::deploy(&node, &bell, "two", 2, json!({ "quell": { "grace_ms": 300 } })).await;
    let answer = node.invoke("two", &json!({}));
    let (innocent, innocent_invocation) = runtime.take().await;
    let request = node.invoke_async("two", &json!({})).await;
    let (_, invocation) = runtime.take().await;
    let mut poll = held(&runtime, NEXT, &[TELLS]).await;
    assert_eq!(instance(&node).await["cooperates"], false);
    let fenced = node.fence("two", &request).await;
    assert_eq!(poll.reply().await.json()["requestId"], json!(request));
    let error = format!("/v1/runtime/invocation/error/{request}");
    let said = json!({ "errorType": "InvocationCanceled", "errorMessage": "so it says" }).to_string();
    assert_eq!(runtime.post(&error, &[("X-Quell-Invocation-Id", &invocation)], &said).await.status, 202);
    assert_eq!(acknowledge(&runtime, &invocation).await, 202);
    assert_eq!(node.settled("two", &request).await, ("FAIL".to_owned(), 4208));
    let receipt = node.receipt(fenced.header("x-quell-cancel-id")).await;
    assert_eq!(
        (&receipt["result"], &receipt["requests"][0]["evidence"]),
        (&json!("draining"), &json!("fenced_only"))
    );
    assert_eq!(receipt["instances"][0]["signals"], json!(["told"]), "{receipt}");
    let response = format!("/v1/runtime/invocation/response/{innocent}");
    let echoed = [("X-Quell-Invocation-Id", innocent_invocation.as_str())];
    // With its answer the instance ends: whether it sees the 202 is a matter of luck.
    let mut last = runtime.line().await;
    last.send("POST", &response, &echoed, "\"done\"").await;
    assert_eq!(within("the innocent one", answer).await.unwrap().json(), "done");
    // One alone: it gets the signal as well, which ends it here.
    let bell = Bell::hang().await;
    let runtime = Played::deploy(&node, &bell, "one", 1, json!({ "quell": { "grace_ms": LONG } })).await;
    let request = node.invoke_async("one", &json!({})).await;
    runtime.take().await;
    let poll = held(&runtime, NEXT, &[TELLS]).await;
    let cancel = node.cancel("one", &request, Mode::Plain).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped");
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "reaped", "{receipt}");
    let signals = receipt["instances"][0]["signals"].as_array().unwrap();
    assert!(signals.starts_with(&[json!("terminated"), json!("told")]), "{receipt}");
    drop(poll);
    node.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_a_processs_tells_by_its_end_that_its_request_has_nobody() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let runtime = Played::deploy(&node, &bell, "f", 8, json!({ "quell": { "grace_ms": LONG } })).await;
    let other = node.invoke("f", &json!({}));
    let (other_id, other_invocation) = runtime.take().await;
    let mut wrong = runtime.get(&named(""), &[("X-Quell-Connection", "thread")]).await;
    assert_eq!(wrong.reply().await.status, 400);
    // A poll as any other ends, and nothing is concluded.
    drop(held(&runtime, &named(&other_invocation), &[]).await);
    assert_eq!(instance(&node).await["state"], "ready");
    let mut taken = Vec::new();
    for _ in 0..7 {
        let answer = node.invoke("f", &json!({}));
        taken.push((answer, runtime.take().await.1));
    }
    for (at, (answer, invocation)) in taken.into_iter().enumerate() {
        let process = match at {
            0 => held(&runtime, &named(&invocation), &[PROCESS]).await,
            _ => {
                // Its code ends the process at once: the connection ends right behind the name.
                let mut process = runtime.get(&named(""), &[PROCESS]).await;
                assert_eq!(process.reply().await.status, 204);
                process.send("GET", &named(&invocation), &[], "").await;
                process
            }
        };
        drop(process);
        let (status, code, message) = within("its end", answer).await.unwrap().error();
        assert_eq!((status, code.as_str()), (500, "FSS.4204"), "{at}: {message}");
        assert!(message.contains("the process that served it ended"), "{message}");
    }
    // The rest goes on, and with its last answer the instance ends.
    assert_eq!(instance(&node).await["state"], "draining");
    let mut last = runtime.line().await;
    last.send("POST", &format!("/v1/runtime/invocation/response/{other_id}"), &[], "7").await;
    assert_eq!(within("the other one", other).await.unwrap().json(), 7);
    node.stop().await;
}

#[tokio::test]
async fn the_end_of_a_process_proves_nothing_of_a_request_that_is_being_cancelled() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let runtime = Played::deploy(&node, &bell, "f", 2, json!({ "quell": { "grace_ms": 300 } })).await;
    let request = node.invoke_async("f", &json!({})).await;
    let (_, invocation) = runtime.take().await;
    let process = held(&runtime, &named(&invocation), &[PROCESS]).await;
    let fenced = node.fence("f", &request).await;
    drop(process);
    assert_eq!(node.settled("f", &request).await, ("FAIL".to_owned(), 4208));
    let receipt = node.receipt(fenced.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "reaped", "{receipt}");
    node.stop().await;
}
