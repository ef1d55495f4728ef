//! HTTP functions: the runtime is a server, and the node its client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use serde_json::json;
use support::{
    Bell, Mode, TestNode,
    http::{SHARED, all_finish, body, call, deploy, deploy_file, waiting},
    within,
};

#[tokio::test]
async fn an_event_is_posted_to_invoke_and_the_answer_is_the_result() {
    let node = TestNode::start().await;
    deploy(&node, "f", (1, 1), json!({ "init": "200" }), json!({ "initializer_handler": "a.init" })).await;
    let reply = call(&node, "f", json!({ "do": "plain", "tag": "t" })).await;
    let result = reply.json();
    assert_eq!((&result["statusCode"], &result["isBase64Encoded"]), (&json!(200), &json!(false)), "{result}");
    assert_eq!(result["headers"]["content-type"], "application/json");
    assert!(result["headers"]["content-length"].is_null(), "{result}");
    let said = body(&reply);
    assert_eq!((&said["tag"], &said["request"]), (&json!("t"), &json!(reply.header("x-cff-request-id"))));
    assert_eq!(said["initialized"], true, "POST /init came first");
    let bytes = call(&node, "f", json!({ "do": "bytes" })).await.json();
    let all: Vec<u8> = (0..=255).collect();
    assert_eq!((&bytes["body"], &bytes["isBase64Encoded"]), (&json!(support::base64(&all)), &json!(true)));
    // Asynchronously it is a request like any other.
    let request = node.invoke_async("f", &json!({ "do": "plain" })).await;
    assert_eq!(node.settled("f", &request).await, ("SUCCESS".into(), 0));
    let failing = node.invoke_async("f", &json!({ "do": "status", "status": 503 })).await;
    assert_eq!(node.settled("f", &failing).await, ("FAIL".into(), 4002));
    node.stop().await;
}

#[tokio::test]
async fn a_gateways_event_is_the_request_it_describes_whatever_its_answers_status() {
    let node = TestNode::start().await;
    deploy(&node, "f", (1, 1), json!({}), json!({ "timeout": 77 })).await;
    let event = json!({
        "httpMethod": "PUT", "path": "/a/b c", "queryStringParameters": { "q": ["1", "2"] },
        "headers": { "X-Answer": "404", "Host": "example.org", "X-CFF-Request-Id": "spoofed" },
        "body": support::base64(b"\x00\xff"), "isBase64Encoded": true,
    });
    let reply = call(&node, "f", event).await;
    assert_eq!(reply.json()["statusCode"], 404, "{}", reply.text());
    let said = body(&reply);
    assert_eq!((&said["method"], &said["path"]), (&json!("PUT"), &json!("/a/b%20c?q=1&q=2")));
    assert_eq!(said["body"], support::base64(b"\x00\xff"));
    let headers: Vec<(String, String)> = serde_json::from_value(said["headers"].clone()).unwrap();
    let one = |name: &str| {
        let values: Vec<_> =
            headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value).collect();
        assert_eq!(values.len(), 1, "{name}: {headers:?}");
        values[0].clone()
    };
    assert_eq!(one("x-cff-request-id"), reply.header("x-cff-request-id"));
    assert_eq!((one("host"), one("connection")), ("example.org".into(), "close".into()));
    let function = ["memory", "timeout", "func-version", "func-name", "project-id", "package"];
    let told: Vec<String> = function.map(|name| one(&format!("x-cff-{name}"))).into();
    assert_eq!(told, ["128", "77", "latest", "f", "default", "default"]);
    for name in ["x-cff-region", "x-cff-auth-token", "x-quell-invocation-id", "x-quell-deadline-ms"] {
        assert!(!one(name).is_empty(), "{name}");
    }
    // What cannot be sent is a failure that says why, and the function goes on.
    let bad = call(&node, "f", json!({ "httpMethod": "GET", "path": "nowhere" })).await.error();
    assert_eq!((bad.0, bad.1.as_str()), (500, "FSS.4002"));
    assert!(bad.2.contains("does not begin with /"), "{}", bad.2);
    let status = call(&node, "f", json!({ "do": "status", "status": 418 })).await.error();
    assert_eq!((status.0, status.1.as_str()), (500, "FSS.4002"));
    assert!(
        status.2.contains("POST /invoke was answered with 418") && status.2.contains("because"),
        "{}",
        status.2
    );
    node.stop().await;
}

#[tokio::test]
async fn eight_requests_run_in_one_instance_at_once() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    deploy(&node, "f", (SHARED, 1), json!({}), json!({})).await;
    for _ in 0..2 {
        let (answers, mut rings) = waiting(&node, &bell, "f", SHARED).await;
        let first = rings.values().next().unwrap().pid;
        assert!(rings.values().all(|ring| ring.pid == first), "one process");
        all_finish(answers, &mut rings).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_cancel_closes_the_connection_and_then_stops_the_instance() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    for (name, settings) in [("polite", json!({})), ("stubborn", json!({ "stubborn": "yes" }))] {
        deploy(&node, name, (1, 1), settings, json!({ "quell": { "grace_ms": 300 } })).await;
        for mode in Mode::ALL {
            let event = json!({ "do": "notice", "bell": bell.path() });
            let answer = node.invoke(name, &event);
            let mut ring = bell.ring().await;
            let cancel = node.cancel(name, &ring.request(), mode).await;
            assert_eq!(
                (cancel.status, cancel.header("x-quell-stop")),
                (200, "stopped"),
                "{mode:?}: {cancel:?}"
            );
            assert!(ring.process.is_gone(), "{name} {mode:?}");
            assert_eq!(within("its answer", answer).await.unwrap().error().1, "FSS.4208");
            let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
            let signals = &receipt["instances"][0]["signals"];
            let expected = match (mode.kills(), name) {
                (true, _) => json!(["connection_closed", "killed"]),
                (false, _) => json!(["connection_closed", "terminated", "killed"]),
            };
            assert_eq!(signals, &expected, "{name} {mode:?}");
            if !mode.kills() && name == "stubborn" {
                assert_eq!(ring.last_words().await, "closed", "{mode:?}: it was there to notice");
            }
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn force_ends_the_eight_requests_of_the_instance_with_4208_and_nobody_else() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    deploy(&node, "a", (SHARED, 1), json!({}), json!({})).await;
    deploy(&node, "b", (SHARED, 1), json!({}), json!({})).await;
    let (answers, rings) = waiting(&node, &bell, "a", SHARED).await;
    let (others, mut witnesses) = waiting(&node, &bell, "b", SHARED).await;
    let cancel = node.cancel("a", &rings["a0"].request(), Mode::Force).await;
    assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
    for (tag, answer) in answers {
        assert_eq!(within(&tag, answer).await.unwrap().error().1, "FSS.4208", "{tag}");
        assert!(rings[&tag].process.is_gone());
    }
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["co_tenants"].as_array().unwrap().len(), SHARED - 1, "{receipt}");
    all_finish(others, &mut witnesses).await;
    node.stop().await;
}

#[tokio::test]
async fn one_of_eight_is_fenced_and_the_instance_drains_or_is_killed_as_the_function_chose() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    for choice in ["drain", "kill"] {
        let more = json!({ "quell": { "grace_ms": 200, "on_grace_expired": choice } });
        deploy(&node, choice, (SHARED, 1), json!({}), more).await;
        let (answers, mut rings) = waiting(&node, &bell, choice, SHARED - 1).await;
        let target = node.invoke(choice, &json!({ "do": "notice", "bell": bell.path() }));
        let mut ring = bell.ring().await;
        let cancel = node.cancel(choice, &ring.request(), Mode::Plain).await;
        assert_eq!(ring.last_words().await, "closed", "its handler saw that its connection was closed");
        assert_eq!(within("the target", target).await.unwrap().error().1, "FSS.4208");
        let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["instances"][0]["signals"][0], "connection_closed", "{receipt}");
        match choice {
            "drain" => {
                assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "draining"));
                assert_eq!(receipt["co_tenants"], json!([]), "{receipt}");
                all_finish(answers, &mut rings).await;
            }
            _ => {
                assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"));
                for (tag, answer) in answers {
                    assert_eq!(within(&tag, answer).await.unwrap().error().1, "FSS.4208", "{tag}");
                }
            }
        }
        // It is gone, by itself or not, and the next request has another.
        within("its end", ring.process.gone()).await;
        assert_eq!(call(&node, choice, json!({ "do": "plain" })).await.status, 200);
    }
    node.stop().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_closes_the_connection_if_the_function_chose_so() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    let quell = json!({ "quell": { "grace_ms": 300, "on_disconnect": "cancel" } });
    deploy(&node, "f", (1, 1), json!({ "stubborn": "yes" }), quell).await;
    let answer = node.invoke("f", &json!({ "do": "notice", "bell": bell.path() }));
    let mut ring = bell.ring().await;
    answer.abort();
    assert_eq!(ring.last_words().await, "closed");
    within("its end", ring.process.gone()).await;
    node.stop().await;
}

#[tokio::test]
async fn the_examples_do_what_they_say() {
    let node = TestNode::start().await;
    let (hello, patient) = (
        include_bytes!("../runtime-images/http/examples/hello/bootstrap"),
        include_bytes!("../runtime-images/http/examples/patient/bootstrap"),
    );
    let shape = json!({ "strategy_config": { "concurrency": 1, "concurrent_num": SHARED } });
    deploy_file(&node, "hello", hello, shape.clone()).await;
    let greeted = call(&node, "hello", json!({ "name": "you" })).await;
    let request = greeted.header("x-cff-request-id");
    assert_eq!(body(&greeted), json!({ "hello": "you", "request": request }));
    let event = json!({ "httpMethod": "GET", "path": "/a" });
    assert_eq!(body(&call(&node, "hello", event).await), json!({ "path": "/a" }));
    deploy_file(&node, "patient", patient, shape).await;
    let other = node.invoke("patient", &json!({ "seconds": 1 }));
    let request = node.invoke_async("patient", &json!({ "seconds": 600 })).await;
    within("it runs", async {
        while node.listed("patient", &request).await.0 != "RUNNING" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let cancel = node.cancel("patient", &request, Mode::Plain).await;
    assert_eq!(cancel.status, 200, "{cancel:?}");
    assert_eq!(body(&within("the other one", other).await.unwrap()), json!({ "worked": 1 }));
    assert_eq!(node.settled("patient", &request).await, ("FAIL".into(), 4208));
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    let signals = &receipt["instances"][0]["signals"];
    assert_eq!(signals, &json!(["connection_closed", "asked"]), "{receipt}");
    node.stop().await;
}

#[tokio::test]
async fn a_server_that_listens_for_cancellations_stops_one_request_and_goes_on() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    for (name, shape) in [("one", 1), ("eight", SHARED)] {
        let settings = json!({ "cooperates": "yes" });
        deploy(&node, name, (shape, 1), settings, json!({ "quell": { "grace_ms": 60_000 } })).await;
        let (answers, mut rings) = waiting(&node, &bell, name, shape - 1).await;
        let target = node.invoke(name, &json!({ "do": "cooperate", "bell": bell.path() }));
        let mut ring = bell.ring().await;
        let cancel = node.cancel(name, &ring.request(), Mode::Plain).await;
        assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
        assert_eq!(ring.last_words().await, "stopped");
        assert_eq!(within("the target", target).await.unwrap().error().1, "FSS.4208");
        let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["requests"][0]["evidence"], "acknowledged", "{receipt}");
        assert_eq!(receipt["instances"][0]["signals"], json!(["connection_closed", "asked"]), "{receipt}");
        all_finish(answers, &mut rings).await;
        let (answers, mut again) = waiting(&node, &bell, name, shape).await;
        assert!(again.values().all(|other| other.pid == ring.pid), "{name}: the same process serves on");
        all_finish(answers, &mut again).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_child_that_is_invoked_from_inside_its_network_is_stopped_with_its_parent() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    deploy(&node, "parent", (SHARED, 1), json!({}), json!({ "quell": { "grace_ms": 200 } })).await;
    deploy(&node, "child", (1, 2), json!({}), json!({ "quell": { "grace_ms": 200 } })).await;
    let event = |tag: &str| {
        let child = json!({ "do": "wait", "bell": bell.path(), "tag": format!("child of {tag}") });
        json!({ "do": "parent", "child": "child", "bell": bell.path(), "tag": tag, "event": child })
    };
    let answers = ["a", "b"].map(|tag| (tag, node.invoke("parent", &event(tag))));
    let mut rings = bell.rings(4).await;
    let (a, child_of_a) = (rings["a"].request(), rings["child of a"].request());
    let tree = node.tree(&a).await;
    assert_eq!(tree.len(), 2, "{tree:?}");
    assert_eq!(tree[&child_of_a]["parent"], json!(a), "exactly that one of the two on the instance");
    let cancel = node.cancel("parent", &a, Mode::Recursive).await;
    assert_eq!(cancel.status, 200, "{cancel:?}");
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    let mut stopped: Vec<_> = receipt["requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["request_id"].as_str().unwrap())
        .collect();
    let mut both = [a.as_str(), child_of_a.as_str()];
    stopped.sort_unstable();
    both.sort_unstable();
    assert_eq!(stopped, both, "{receipt}");
    assert!(rings["child of a"].process.is_gone());
    assert!(!rings["child of b"].process.is_gone());
    rings.get_mut("child of b").unwrap().release().await;
    for (tag, answer) in answers {
        let reply = within(tag, answer).await.unwrap();
        match tag {
            "a" => assert_eq!(reply.error().1, "FSS.4208"),
            _ => assert_eq!(body(&reply)["child"]["statusCode"], 200),
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn a_request_that_runs_too_long_ends_with_4010_however_much_of_its_answer_came() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    deploy(&node, "f", (1, 1), json!({}), json!({ "timeout": 3, "quell": { "grace_ms": 100 } })).await;
    for what in ["wait", "drip"] {
        let answer = node.invoke("f", &json!({ "do": what, "bell": bell.path() }));
        let ring = bell.ring().await;
        let reply = within("the deadline", answer).await.unwrap();
        assert_eq!((reply.error().0, reply.error().1.as_str()), (500, "FSS.4010"), "{what}");
        within("its end", ring.process.gone()).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn what_is_no_whole_answer_is_a_failure_and_never_half_a_result() {
    let node = TestNode::start().await;
    deploy(&node, "f", (2, 1), json!({}), json!({})).await;
    let first = body(&call(&node, "f", json!({ "do": "plain" })).await)["pid"].clone();
    for what in ["half", "half_chunked", "unbounded", "garbage", "nothing", "header"] {
        let error = call(&node, "f", json!({ "do": what })).await.error();
        assert_eq!((error.0, error.1.as_str()), (500, "FSS.4002"), "{what}: {}", error.2);
        assert!(error.2.contains("POST /invoke"), "{what}: {}", error.2);
    }
    for bytes in [7 << 20, 6_291_456 + 101] {
        let error = call(&node, "f", json!({ "do": "huge", "bytes": bytes })).await.error();
        assert_eq!((error.0, error.1.as_str()), (500, "FSS.4004"), "{bytes}");
    }
    let large = call(&node, "f", json!({ "do": "huge", "bytes": 6 << 20 })).await;
    assert_eq!(large.status, 500, "with its status and headers it is larger than a result may be");
    let large = call(&node, "f", json!({ "do": "huge", "bytes": (6 << 20) - 1_000 })).await;
    assert_eq!(large.json()["body"].as_str().unwrap().len(), (6 << 20) - 1_000);
    let last = body(&call(&node, "f", json!({ "do": "plain" })).await);
    assert_eq!(last["pid"], first, "the same server through all of it");
    node.stop().await;
}

#[tokio::test]
async fn a_server_that_dies_fails_its_requests_as_any_runtime_that_does() {
    let node = TestNode::start().await;
    deploy(&node, "f", (2, 1), json!({}), json!({})).await;
    for what in ["crash", "half_crash"] {
        let error = call(&node, "f", json!({ "do": what })).await.error();
        assert_eq!((error.0, error.1.as_str()), (500, "FSS.4204"), "{what}: {}", error.2);
    }
    assert_eq!(call(&node, "f", json!({ "do": "plain" })).await.status, 200, "a fresh one serves on");
    node.stop().await;
}

#[tokio::test]
async fn a_server_that_never_listens_or_ends_at_once_is_a_failed_start() {
    let node = TestNode::start().await;
    let quick = json!({ "quell": { "start_timeout_s": 1 } });
    for (name, settings, code, words) in [
        ("never", json!({ "start": "never listens" }), "FSS.4211", "timed out"),
        ("exits", json!({ "start": "exits" }), "FSS.4204", "cannot start"),
    ] {
        deploy(&node, name, (1, 1), settings, quick.clone()).await;
        let error = call(&node, name, json!({ "do": "plain" })).await.error();
        assert_eq!((error.0, error.1.as_str()), (500, code), "{name}: {}", error.2);
        assert!(error.2.contains(words), "{name}: {}", error.2);
    }
    let more = json!({ "initializer_handler": "a.init" });
    deploy(&node, "init", (1, 1), json!({ "init": "500" }), more).await;
    let error = call(&node, "init", json!({ "do": "plain" })).await.error();
    assert_eq!((error.0, error.1.as_str()), (500, "FSS.4201"), "{}", error.2);
    assert!(error.2.contains("POST /init was answered with 500"), "{}", error.2);
    assert_eq!(node.view().await["instances"], json!([]), "nothing of them is left");
    node.stop().await;
}

#[tokio::test]
async fn an_answer_that_races_with_a_cancel_counts_before_it_or_not_at_all() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    deploy(&node, "f", (1, 4), json!({}), json!({ "quell": { "grace_ms": 50 } })).await;
    let mut seen = [0; 2];
    for round in 0..60 {
        let request = node.invoke_async("f", &json!({ "do": "wait", "bell": bell.path() })).await;
        let mut ring = bell.ring().await;
        let canceled = async {
            // Sooner or later, so that each of the two is first now and then.
            tokio::time::sleep(Duration::from_micros(round % 20 * 60)).await;
            node.cancel("f", &request, Mode::Plain).await
        };
        let (cancel, _) = tokio::join!(canceled, ring.may_tell("go"));
        match cancel.status {
            200 => {
                assert_eq!(node.listed("f", &request).await, ("FAIL".into(), 4208));
                seen[0] += 1;
            }
            _ => {
                assert_eq!(cancel.error().2, "Invalid RequestId: SUCCESS");
                assert_eq!(node.listed("f", &request).await, ("SUCCESS".into(), 0));
                seen[1] += 1;
            }
        }
    }
    println!("{} cancelled, {} answered before", seen[0], seen[1]);
    node.stop().await;
}
