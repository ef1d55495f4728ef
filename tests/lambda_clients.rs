//! The Lambda clients of others, unmodified and pinned, as runtimes: one suite over all three.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use support::{Bell, Mode, Pidfd, Reply, Ring, TestNode, base64, within, zip};
use tokio::task::JoinHandle;

/// What an event and a result may have, less a few bytes for what is around them.
const MOST: usize = (6 << 20) - 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Python,
    Node,
    Rust,
}

const ALL: [Client; 3] = [Client::Python, Client::Node, Client::Rust];
/// These know no way to stop one request of several.
const WITHOUT_CANCEL: [Client; 2] = [Client::Node, Client::Rust];

/// Below the target folder, where `.ci/runtimes` has put it.
fn installed(path: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_quell")).parent().unwrap();
    let found = built.parent().unwrap().join("runtimes").join(path);
    assert!(found.exists(), "{} is not there: run .ci/runtimes, which installs it", found.display());
    // Where it is in truth: a link to it may be where an instance does not see it.
    found.canonicalize().unwrap()
}

fn paths() -> [PathBuf; 2] {
    installed("python/installed-from");
    installed("node/installed-from");
    [installed("python/bin"), installed("node/node_modules/.bin")]
}

async fn start() -> TestNode {
    TestNode::start_with_path(&paths()).await
}

impl Client {
    fn package(self, broken: bool) -> Vec<u8> {
        let file = match (self, broken) {
            (Self::Python, false) => ("index.py", include_str!("functions/lambda.py").to_owned()),
            (Self::Python, true) => ("index.py", include_str!("functions/lambda_broken.py").to_owned()),
            (Self::Node, false) => ("index.mjs", include_str!("functions/lambda.mjs").to_owned()),
            (Self::Node, true) => ("index.mjs", include_str!("functions/lambda_broken.mjs").to_owned()),
            (Self::Rust, _) => {
                let program = installed("rust/quell-lambda-function");
                ("bootstrap", format!("#!/bin/sh\nexec '{}'\n", program.display()))
            }
        };
        zip(&[(file.0, file.1.as_bytes())])
    }

    /// Deploys the function of these tests. `more` is merged into the create body.
    async fn deploy(self, node: &TestNode, name: &str, (requests, instances): (u32, u32), more: Value) {
        let runtime = match self {
            Self::Python => "python3.11",
            Self::Node => "nodejs22.x",
            Self::Rust => "provided.al2023",
        };
        let broken = more["handler"] == "index.broken";
        let mut body = json!({
            "runtime": runtime,
            "code_type": "zip",
            "memory_size": 512,
            "func_code": { "file": base64(&self.package(broken)) },
            "strategy_config": { "concurrency": instances, "concurrent_num": requests },
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        node.deploy(name, "", body).await;
    }
}

/// So many synchronous requests that wait, all of them running; by tag.
async fn waiting(
    node: &TestNode,
    bell: &Bell,
    function: &str,
    count: usize,
) -> (HashMap<String, JoinHandle<Reply>>, HashMap<String, Ring>) {
    let mut answers = HashMap::new();
    for at in 0..count {
        let tag = format!("{function}{at}");
        let event = json!({ "do": "wait", "bell": bell.path(), "tag": tag });
        answers.insert(tag, node.invoke(function, &event));
    }
    (answers, bell.rings(count).await)
}

async fn result(node: &TestNode, function: &str, event: Value) -> Reply {
    within("a result", node.invoke(function, &event)).await.unwrap()
}

async fn echo(node: &TestNode, function: &str) -> Value {
    let reply = result(node, function, json!({ "do": "echo", "tag": function })).await;
    assert_eq!(reply.status, 200, "{function}: {}", reply.text());
    reply.json()
}

fn instance_of(me: &Value) -> &str {
    me["me"].as_str().unwrap().split_once('/').unwrap().0
}

/// The evidence of the one request that a cancel covers, and the signals that its instance was sent.
async fn told(node: &TestNode, cancel: &Reply) -> (Value, Value) {
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    (receipt["requests"][0]["evidence"].clone(), receipt["instances"][0]["signals"].clone())
}

#[tokio::test]
async fn every_client_gets_its_event_and_its_context_and_gives_its_result() {
    let node = start().await;
    for client in ALL {
        let name = format!("{client:?}");
        client.deploy(&node, &name, (1, 1), json!({})).await;
        let reply = result(&node, &name, json!({ "do": "echo", "tag": "a", "pad": "12345" })).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        let first = reply.json();
        assert_eq!(first["request"], reply.header("x-cff-request-id"), "{name}");
        assert_eq!((&first["tag"], &first["size"]), (&json!("a"), &json!(5)), "{name}");
        let urn = first["urn"].as_str().unwrap();
        assert!(urn.starts_with("urn:fss:") && urn.ends_with(&format!(":{name}:latest")), "{name}: {urn}");
        assert_eq!((&first["memory"], &first["client"]), (&json!("512"), &json!("one")), "{name}");
        assert_eq!(first["stream"], instance_of(&first), "{name}");
        let left = first["left"].as_u64().unwrap();
        assert!((1..=120_000).contains(&left), "{name}: {left}");
        assert_eq!(echo(&node, &name).await["me"], first["me"], "{name}: the same process");
    }
    node.stop().await;
}

#[tokio::test]
async fn an_error_of_the_handler_ends_its_request_and_not_its_process() {
    let node = start().await;
    for client in ALL {
        let name = format!("{client:?}");
        client.deploy(&node, &name, (1, 1), json!({})).await;
        let first = echo(&node, &name).await;
        let (status, code, message) = result(&node, &name, json!({ "do": "fail" })).await.error();
        assert_eq!((status, code.as_str()), (500, "FSS.4002"), "{name}: {message}");
        assert!(message.ends_with("as the test asked"), "{name}: {message}");
        if client != Client::Rust {
            assert!(message.starts_with("ValueError"), "{name}: {message}");
        }
        // What two clients say of it in a header is larger than most servers take.
        let words = "w".repeat(700_000);
        let reply = result(&node, &name, json!({ "do": "fail", "words": words })).await;
        assert_eq!(reply.error().1, "FSS.4002", "{name}");
        assert_eq!(echo(&node, &name).await["me"], first["me"], "{name}: the same process");
    }
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_start_ends_its_request_and_says_why() {
    let node = start().await;
    for (client, requests) in [(Client::Python, 1), (Client::Python, 4), (Client::Node, 1), (Client::Node, 4)]
    {
        let name = format!("{client:?}{requests}");
        client.deploy(&node, &name, (requests, 1), json!({ "handler": "index.broken" })).await;
        let (status, code, message) = result(&node, &name, json!({ "do": "echo" })).await.error();
        assert_eq!((status, code.as_str()), (500, "FSS.4201"), "{name}: {message}");
        assert!(message.contains("it cannot be imported"), "{name}: {message}");
    }
    // This client has no word for it: its process ends.
    Client::Rust.deploy(&node, "rust", (1, 1), json!({ "handler": "index.broken" })).await;
    let (_, code, message) = result(&node, "rust", json!({ "do": "echo" })).await.error();
    assert_eq!(code, "FSS.4204", "{message}");
    assert!(message.contains("ended before it was ready"), "{message}");
    node.stop().await;
}

#[tokio::test]
async fn a_package_without_its_client_is_told_which_one_is_missing() {
    // Without the folders of `.ci/runtimes` on its PATH the node finds no client.
    let node = TestNode::start().await;
    for (client, words) in [(Client::Python, "awslambdaric"), (Client::Node, "aws-lambda-ric")] {
        let name = format!("{client:?}");
        client.deploy(&node, &name, (1, 1), json!({})).await;
        let (_, code, message) = result(&node, &name, json!({ "do": "echo" })).await.error();
        assert_eq!(code, "FSS.4204", "{message}");
        assert!(message.contains(words), "{message}");
    }
    node.stop().await;
}

#[tokio::test]
async fn six_mebibytes_pass_both_ways_and_what_is_larger_fails_its_request_alone() {
    let node = start().await;
    for client in ALL {
        let name = format!("{client:?}");
        client.deploy(&node, &name, (1, 1), json!({})).await;
        let first = echo(&node, &name).await;
        let pad = "p".repeat(MOST - 100);
        let reply = result(&node, &name, json!({ "do": "echo", "pad": pad })).await;
        assert_eq!(reply.json()["size"], MOST - 100, "{name}");
        let reply = result(&node, &name, json!({ "do": "big", "bytes": MOST })).await;
        assert_eq!((reply.status, reply.json().as_str().unwrap().len()), (200, MOST), "{name}");
        let reply = result(&node, &name, json!({ "do": "big", "bytes": 7 << 20 })).await;
        assert_eq!(reply.error().1, "FSS.4004", "{name}");
        assert_eq!(echo(&node, &name).await["me"], first["me"], "{name}: the same process");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_stream_is_one_result_and_one_that_fails_in_the_middle_is_none() {
    let node = start().await;
    for client in WITHOUT_CANCEL {
        let name = format!("{client:?}");
        let handler = if client == Client::Node { "index.stream" } else { "index.handler" };
        client.deploy(&node, &name, (1, 1), json!({ "handler": handler })).await;
        let pieces: String = (0..50).map(|at| format!("piece {at};")).collect();
        let reply = result(&node, &name, json!({ "do": "stream", "pieces": 50, "prelude": true })).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        let whole = reply.json();
        assert_eq!((&whole["statusCode"], &whole["body"]), (&json!(201), &json!(pieces)), "{name}");
        assert_eq!((&whole["headers"]["x-of"], &whole["isBase64Encoded"]), (&json!("stream"), &json!(false)));
        if client == Client::Node {
            let plain = result(&node, &name, json!({ "pieces": 50 })).await;
            assert_eq!((plain.status, plain.text()), (200, pieces), "without status and headers, as it is");
        }
        let event = json!({ "do": "stream", "pieces": 50, "prelude": true, "fail": true });
        let (status, code, message) = result(&node, &name, event).await.error();
        assert_eq!((status, code.as_str()), (500, "FSS.4002"), "{name}: {message}");
        assert!(message.contains("in the middle of the stream"), "{name}: {message}");
        let reply = result(&node, &name, json!({ "do": "stream", "pieces": 1, "prelude": true })).await;
        assert_eq!(reply.json()["body"], "piece 0;", "{name}: it goes on");
    }
    node.stop().await;
}

#[tokio::test]
async fn an_extension_registers_and_waits_and_what_is_not_supported_is_said() {
    let node = start().await;
    let package = zip(&[("bootstrap", include_bytes!("functions/lambda_extension.py"))]);
    let code = json!({ "file": base64(&package) });
    let more = json!({ "runtime": "provided.al2023", "code_type": "zip", "func_code": code });
    node.deploy("watched", "", more).await;
    for _ in 0..2 {
        let told = result(&node, "watched", json!({})).await.json();
        let function =
            json!({ "functionName": "watched", "functionVersion": "latest", "handler": "index.handler" });
        assert_eq!(told["registered"], json!([200, function]));
        assert_eq!((&told["exit"], &told["restored"]), (&json!([202, { "status": "OK" }]), &json!(200)));
        for (what, status, kind) in [
            ("nameless", 400, "InvalidRequest"),
            ("stranger", 403, "Forbidden"),
            ("unknown", 404, "NotFound"),
            ("logs", 202, "Logs.NotSupported"),
            ("telemetry", 202, "Telemetry.NotSupported"),
        ] {
            let (said, error) = (&told[what][0], &told[what][1]);
            assert_eq!((said, &error["errorType"]), (&json!(status), &json!(kind)), "{what}");
            assert!(error["errorMessage"].is_string(), "{what}: {error}");
        }
        assert_eq!(told["event"], false, "the next event is never there, and the wait for it never over");
    }
    node.stop().await;
}

#[tokio::test]
async fn an_instance_serves_eight_at_once_and_never_nine() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    for client in ALL {
        let name = format!("{client:?}");
        client.deploy(&node, &name, (8, 1), json!({})).await;
        let (mut answers, mut rings) = waiting(&node, &bell, &name, 8).await;
        let instances: HashSet<&str> = rings.values().map(|ring| instance_of(&ring.facts)).collect();
        assert_eq!(instances.len(), 1, "{name}");
        assert!(rings.values().all(|ring| ring.facts["client"] == "8"), "{name}");
        let ninth =
            node.invoke_async(&name, &json!({ "do": "wait", "bell": bell.path(), "tag": "ninth" })).await;
        assert_eq!(node.listed(&name, &ninth).await.0, "WAIT", "{name}: its polls are no room");
        assert!(bell.is_silent().await, "{name}");
        let (first, mut ring) = rings.remove_entry(&format!("{name}0")).unwrap();
        ring.release().await;
        assert_eq!(within("the first", answers.remove(&first).unwrap()).await.unwrap().status, 200);
        rings.insert("ninth".into(), bell.ring().await);
        for ring in rings.values_mut() {
            ring.release().await;
        }
        for (tag, answer) in answers {
            let reply = within(&tag, answer).await.unwrap();
            assert_eq!((reply.status, reply.json()["tag"].as_str()), (200, Some(tag.as_str())), "{name}");
        }
        assert_eq!(node.settled(&name, &ninth).await.0, "SUCCESS", "{name}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_cancel_stops_a_request_that_is_alone_on_its_instance_in_each_mode() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    for client in ALL {
        let name = format!("{client:?}");
        client.deploy(&node, &name, (1, 4), json!({})).await;
        for mode in Mode::ALL {
            let child = json!({ "do": "wait", "bell": bell.path(), "tag": "child", "function": name });
            let event = json!({ "do": "wait", "bell": bell.path(), "tag": "parent", "children": [child] });
            let parent = node.invoke(&name, &event);
            let mut rings = bell.rings(2).await;
            let (mut above, mut below) = (rings.remove("parent").unwrap(), rings.remove("child").unwrap());
            let tree = node.tree(&above.request()).await;
            assert_eq!(
                tree[&below.request()]["parent"],
                json!(above.request()),
                "{name}: by its credentials"
            );
            let cancel = node.cancel(&name, &above.request(), mode).await;
            assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{name} {mode:?}");
            let reply = within("the parent", parent).await.unwrap();
            assert_eq!(reply.error().1, "FSS.4208", "{name} {mode:?}");
            let cooperates = client == Client::Python && !mode.kills();
            let (evidence, signals) = told(&node, &cancel).await;
            let expected = match (cooperates, mode.kills()) {
                (true, _) => ("acknowledged", json!(["asked"])),
                (false, true) => ("reaped", json!(["killed"])),
                (false, false) => ("reaped", json!(["terminated", "killed"])),
            };
            assert_eq!((evidence, signals), (json!(expected.0), expected.1), "{name} {mode:?}");
            assert_eq!(above.process.is_gone(), !cooperates, "{name} {mode:?}: the process");
            if cooperates {
                assert_eq!(above.last_words().await, "cleaned\n");
            }
            if mode.is_recursive() {
                assert_eq!(
                    node.settled(&name, &below.request()).await,
                    ("FAIL".into(), 4208),
                    "{name} {mode:?}"
                );
            } else {
                below.release().await;
                assert_eq!(node.settled(&name, &below.request()).await.0, "SUCCESS", "{name} {mode:?}");
            }
        }
        let after = echo(&node, &name).await;
        assert_eq!(after["tag"], json!(name), "{name}: it goes on");
    }
    node.stop().await;
}

#[tokio::test]
async fn one_of_eight_is_stopped_in_python_and_the_others_finish_in_their_processes() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    Client::Python.deploy(&node, "f", (8, 1), json!({})).await;
    for _ in 0..2 {
        let (mut answers, mut rings) = waiting(&node, &bell, "f", 8).await;
        let pids: HashSet<u32> = rings.values().map(|ring| ring.pid).collect();
        for victim in ["f3", "f5"] {
            let mut target = rings.remove(victim).unwrap();
            let cancel = node.cancel("f", &target.request(), Mode::Plain).await;
            assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
            assert_eq!(told(&node, &cancel).await, (json!("acknowledged"), json!(["asked"])));
            let stopped = within("the target", answers.remove(victim).unwrap()).await.unwrap();
            assert_eq!(stopped.error().1, "FSS.4208");
            assert_eq!(target.last_words().await, "cleaned\n");
            assert!(!target.process.is_gone(), "its process serves the next");
        }
        // Their places are taken at once by the same processes.
        for tag in ["g1", "g2"] {
            let event = json!({ "do": "wait", "bell": bell.path(), "tag": tag });
            answers.insert(tag.to_owned(), node.invoke("f", &event));
        }
        rings.extend(bell.rings(2).await);
        assert!(rings.values().all(|ring| pids.contains(&ring.pid)), "no process was started");
        for ring in rings.values_mut() {
            ring.release().await;
        }
        for (tag, answer) in answers {
            let reply = within(&tag, answer).await.unwrap();
            assert_eq!((reply.status, reply.json()["tag"].as_str()), (200, Some(tag.as_str())));
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn what_a_cancelled_request_has_started_is_gone_when_its_client_says_so() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    Client::Python.deploy(&node, "f", (1, 1), json!({})).await;
    let answer = node.invoke("f", &json!({ "do": "spawn", "bell": bell.path() }));
    let ring = bell.ring().await;
    let child = ring.started();
    let cancel = node.cancel("f", &ring.request(), Mode::Plain).await;
    assert_eq!(told(&node, &cancel).await.0, "acknowledged");
    assert!(child.is_gone() && !ring.process.is_gone());
    assert_eq!(within("its answer", answer).await.unwrap().error().1, "FSS.4208");
    node.stop().await;
}

#[tokio::test]
async fn cancelling_in_python_can_be_switched_off() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    let off = json!({ "user_data": json!({ "QUELL_CANCELLATION": "off" }).to_string() });
    Client::Python.deploy(&node, "f", (1, 1), off).await;
    let answer = node.invoke("f", &json!({ "do": "wait", "bell": bell.path() }));
    let ring = bell.ring().await;
    let cancel = node.cancel("f", &ring.request(), Mode::Plain).await;
    assert_eq!(told(&node, &cancel).await, (json!("reaped"), json!(["terminated", "killed"])));
    assert_eq!(within("its answer", answer).await.unwrap().error().1, "FSS.4208");
    node.stop().await;
}

#[tokio::test]
async fn a_request_among_others_drains_and_its_late_answer_harms_nobody() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    for client in ALL {
        let name = format!("{client:?}");
        client.deploy(&node, &name, (2, 1), json!({ "quell": { "grace_ms": 200 } })).await;
        let event = |what: &str, tag: &str| json!({ "do": what, "bell": bell.path(), "tag": tag });
        let innocent = node.invoke(&name, &event("wait", "innocent"));
        let mut other = bell.ring().await;
        // One that listens to nobody, in Python as well.
        let answer = node.invoke(&name, &event("loop", "target"));
        let mut target = bell.ring().await;
        let cancel = node.cancel(&name, &target.request(), Mode::Plain).await;
        assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "draining"), "{name}: {cancel:?}");
        assert_eq!(within("the target", answer).await.unwrap().error().1, "FSS.4208", "{name}");
        if client != Client::Python {
            target.release().await; // it answers now, and is told that this is fine
            target.last_words().await;
        }
        assert!(!other.process.is_gone(), "{name}");
        other.release().await;
        let reply = within("the innocent one", innocent).await.unwrap();
        assert_eq!((reply.status, reply.json()["tag"].as_str()), (200, Some("innocent")), "{name}");
        within("the drained instance", other.process.gone()).await;
        let after = echo(&node, &name).await;
        assert_ne!(instance_of(&after), instance_of(&other.facts), "{name}: a new instance");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_function_may_choose_that_a_request_among_others_takes_its_instance_with_it() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    for client in WITHOUT_CANCEL {
        let name = format!("{client:?}");
        let quell = json!({ "grace_ms": 200, "on_grace_expired": "kill" });
        client.deploy(&node, &name, (2, 1), json!({ "quell": quell })).await;
        let (answers, rings) = waiting(&node, &bell, &name, 2).await;
        let target = &rings[&format!("{name}0")];
        let cancel = node.cancel(&name, &target.request(), Mode::Plain).await;
        assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{name}: {cancel:?}");
        for (tag, answer) in answers {
            assert_eq!(within(&tag, answer).await.unwrap().error().1, "FSS.4208", "{name}");
        }
        assert!(target.process.is_gone(), "{name}");
    }
    node.stop().await;
}

#[tokio::test]
async fn the_time_limit_of_a_function_ends_its_request_with_4010() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    let mut running = Vec::new();
    for client in ALL {
        let name = format!("{client:?}");
        client.deploy(&node, &name, (1, 1), json!({ "timeout": 3 })).await;
        let event = json!({ "do": "wait", "bell": bell.path(), "tag": name });
        running.push((client, node.invoke(&name, &event), bell.ring().await));
    }
    for (client, answer, ring) in running {
        let name = format!("{client:?}");
        assert_eq!(within("the deadline", answer).await.unwrap().error().1, "FSS.4010", "{name}");
        assert_eq!(ring.process.is_gone(), client != Client::Python, "{name}: its process");
        let after = echo(&node, &name).await;
        assert_eq!(after["me"] == ring.facts["me"], client == Client::Python, "{name}: who serves the next");
    }
    node.stop().await;
}

#[tokio::test]
async fn no_client_outlives_a_node_that_is_killed_and_its_next_life_runs_what_was_accepted() {
    let (folder, bell) = (TestNode::folder(), Bell::hang_in_a_folder().await);
    let mut node = TestNode::start_in_with_path(folder.path(), &paths()).await;
    let (mut accepted, mut lines) = (HashMap::new(), Vec::new());
    for (client, requests) in ALL.into_iter().flat_map(|client| [(client, 1), (client, 4)]) {
        let name = format!("{client:?}{requests}");
        client.deploy(&node, &name, (requests, 1), json!({})).await;
        let event = json!({ "do": "wait", "bell": bell.path(), "tag": name });
        let request = node.invoke_async(&name, &event).await;
        let ring = bell.ring().await;
        assert_eq!(ring.request(), request);
        accepted.insert(name, request);
        lines.push(ring); // a function whose line ends takes the test for gone, and fails
    }
    // Every process of every instance, the idle ones of several requests too.
    let view = node.view().await;
    let rows = view["instances"].as_array().unwrap();
    let pids = rows.iter().flat_map(|row| row["processes"].as_array().unwrap());
    let left: Vec<Pidfd> =
        pids.filter_map(|row| Pidfd::open(u32::try_from(row["pid"].as_u64().unwrap()).unwrap())).collect();
    assert!(left.len() >= 6 + 4, "{} processes", left.len());
    node.kill();
    drop(lines);
    for process in left {
        within("a process of a killed node", process.gone()).await;
    }
    let node = TestNode::start_in_with_path(folder.path(), &paths()).await;
    let mut rings = bell.rings(accepted.len()).await;
    for (name, request) in accepted {
        let ring = rings.get_mut(&name).unwrap();
        assert_eq!(ring.request(), request);
        ring.release().await;
        assert_eq!(node.settled(&name, &request).await.0, "SUCCESS", "{name}");
    }
    node.stop().await;
}
