//! The Node.js image on a real node: results and errors, one of many cancelled, and what does not obey.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

mod support;

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use support::{Mode, Reply, TestNode, base64, within};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const SHARED: usize = 8;
const CANCELED: (u16, &str) = (500, "FSS.4208");

/// Where functions say that they are at the point the test waits for.
struct Bell(TcpListener);

struct Ring {
    facts: Value,
    line: BufReader<TcpStream>,
}

impl Bell {
    async fn hang() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    async fn ring(&self) -> Ring {
        within("a ring of the bell", async {
            let mut line = BufReader::new(self.0.accept().await.unwrap().0);
            let mut text = String::new();
            line.read_line(&mut text).await.unwrap();
            Ring { facts: serde_json::from_str(&text).unwrap(), line }
        })
        .await
    }
}

impl Ring {
    fn fact(&self, name: &str) -> String {
        self.facts[name].as_str().unwrap().to_owned()
    }

    fn request(&self) -> String {
        self.fact("request")
    }

    async fn release(&mut self) {
        self.line.get_mut().write_all(b"go").await.unwrap();
    }

    /// What else it said until its end of the line closed; a killed process says nothing.
    async fn last_words(&mut self) -> String {
        let mut words = Vec::new();
        drop(within("the end of a line", self.line.read_to_end(&mut words)).await);
        String::from_utf8_lossy(&words).into_owned()
    }
}

async fn deploy(node: &TestNode, name: &str, more: Value) {
    let mut body = json!({ "runtime": "Node.js20.15" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    node.deploy(name, include_str!("functions/probe.js"), body).await;
}

/// With N requests an instance, on one instance.
async fn deploy_shared(node: &TestNode, name: &str, requests: usize, quell: Value) {
    let strategy = json!({ "concurrency": 1, "concurrent_num": requests });
    deploy(node, name, json!({ "strategy_config": strategy, "quell": quell })).await;
}

/// So many synchronous requests that wait on one instance; by tag.
async fn waiting(
    node: &TestNode,
    bell: &Bell,
    function: &str,
    count: usize,
) -> (HashMap<String, JoinHandle<Reply>>, HashMap<String, Ring>) {
    let (mut answers, mut rings) = (HashMap::new(), HashMap::new());
    for at in 0..count {
        let tag = format!("a{at}");
        answers.insert(
            tag.clone(),
            node.invoke(function, &json!({ "do": "wait", "port": bell.port(), "tag": tag })),
        );
    }
    for _ in 0..count {
        let ring = bell.ring().await;
        rings.insert(ring.fact("tag"), ring);
    }
    (answers, rings)
}

async fn answered(what: &str, answer: JoinHandle<Reply>) -> Reply {
    within(what, answer).await.unwrap()
}

/// They are told to go on, and each gives its own answer from the same process.
async fn finish(mut answers: HashMap<String, JoinHandle<Reply>>, rings: HashMap<String, Ring>) {
    for (tag, mut ring) in rings {
        ring.release().await;
        let reply = answered(&tag, answers.remove(&tag).unwrap()).await;
        assert_eq!(reply.status, 200, "{tag}: {}", reply.text());
        assert_eq!(reply.json(), json!({ "me": ring.facts["me"], "told": "go", "tag": tag }));
    }
    assert!(answers.is_empty());
}

#[track_caller]
fn assert_canceled(reply: &Reply) {
    let (status, code, _) = reply.error();
    assert_eq!((status, code.as_str()), CANCELED);
}

#[tokio::test]
async fn every_form_of_handler_answers_and_what_goes_wrong_is_said() {
    let node = TestNode::start().await;
    for handler in ["index.handler", "index.calledBack"] {
        let name = handler.replace('.', "-");
        deploy(&node, &name, json!({ "handler": handler })).await;
        let reply = answered("echo", node.invoke(&name, &json!({ "do": "echo", "a": ["ü"] }))).await;
        assert_eq!((reply.status, &reply.json()["event"]["a"][0]), (200, &json!("ü")));
        for (what, code, words) in [
            ("fail", "FSS.4002", "RangeError: as the test asked"),
            ("late", "FSS.4002", "RangeError: in a callback"),
            ("leave", "FSS.4204", ""),
        ] {
            let reply = answered(what, node.invoke(&name, &json!({ "do": what }))).await;
            let (status, told, message) = reply.error();
            assert_eq!((status, told.as_str()), (500, code), "{what}: {message}");
            assert!(message.contains(words), "{message}");
        }
        let big = json!({ "do": "big", "bytes": 7_000_000 });
        assert_eq!(answered("big", node.invoke(&name, &big)).await.error().1, "FSS.4004");
        let fits = json!({ "do": "big", "bytes": 6_000_000 });
        assert_eq!(answered("fits", node.invoke(&name, &fits)).await.body.len(), 6_000_000);
    }
    deploy(&node, "broken", json!({ "initializer_handler": "index.initializer", "initializer_timeout": 10 }))
        .await;
    let (_, code, message) = answered("broken", node.invoke("broken", &json!({}))).await.error();
    assert_eq!(code, "FSS.4201");
    assert!(message.contains("no such database"), "{message}");
    deploy(&node, "missing", json!({ "handler": "index.missing" })).await;
    let (_, code, message) = answered("missing", node.invoke("missing", &json!({}))).await.error();
    assert_eq!(code, "FSS.4201");
    assert!(message.contains("index.js exports no \"missing\""), "{message}");
    node.stop().await;
}

#[tokio::test]
async fn a_cooperative_cancel_stops_one_of_eight_and_the_other_seven_finish_in_the_same_process() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy_shared(&node, "f", SHARED, json!({})).await;
    let (mut answers, mut rings) = waiting(&node, &bell, "f", SHARED).await;
    let mut target = rings.remove("a3").unwrap();
    let cancel = node.cancel("f", &target.request(), Mode::Plain).await;
    assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
    assert_eq!(target.last_words().await, "cleaned cancel AbortError\n");
    assert_canceled(&answered("the target", answers.remove("a3").unwrap()).await);
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "acknowledged");
    assert_eq!(receipt["co_tenants"], json!([]));
    assert!(rings.values().all(|ring| ring.fact("me") == target.fact("me")), "one process");
    finish(answers, rings).await;
    let next = answered("the next", node.invoke("f", &json!({ "do": "echo" }))).await;
    assert_eq!(next.json()["me"], target.facts["me"], "and it is warm");
    node.stop().await;
}

#[tokio::test]
async fn what_ignores_the_signal_or_blocks_the_loop_drains_or_is_killed_as_the_function_chose() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    for what in ["stubborn", "block"] {
        // Alone: killed when its grace is over.
        let alone = format!("{what}-alone");
        deploy_shared(&node, &alone, 1, json!({ "grace_ms": 300 })).await;
        let event = json!({ "do": what, "port": bell.port() });
        let answer = node.invoke(&alone, &event);
        let mut ring = bell.ring().await;
        let cancel = node.cancel(&alone, &ring.request(), Mode::Plain).await;
        assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
        let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["requests"][0]["evidence"], "reaped", "{receipt}");
        assert_canceled(&answered(what, answer).await);
        ring.last_words().await;

        // With others, and they may finish. (Those that share a blocked loop cannot, until it is killed.)
        let drains = format!("{what}-drains");
        deploy_shared(&node, &drains, 3, json!({ "grace_ms": 300 })).await;
        let (answers, rings) = waiting(&node, &bell, &drains, 2).await;
        let answer = node.invoke(&drains, &event);
        let target = bell.ring().await;
        let cancel = node.cancel(&drains, &target.request(), Mode::Plain).await;
        assert_eq!(cancel.header("x-quell-stop"), "draining", "{cancel:?}");
        assert_canceled(&answered(what, answer).await);
        if what == "stubborn" {
            finish(answers, rings).await;
            // With the last innocent one its process ends.
            let next = answered("the next", node.invoke(&drains, &json!({ "do": "echo" }))).await;
            assert_ne!(next.json()["me"], target.facts["me"]);
        } else {
            let forced = node.cancel(&drains, &target.request(), Mode::Force).await;
            assert_eq!(forced.header("x-quell-stop"), "stopped", "{forced:?}");
            for answer in answers.into_values() {
                assert_canceled(&answered("a co-tenant", answer).await);
            }
        }

        // With others, and the function chose that they end with it.
        let kills = format!("{what}-kills");
        deploy_shared(&node, &kills, 3, json!({ "grace_ms": 300, "on_grace_expired": "kill" })).await;
        let (answers, _rings) = waiting(&node, &bell, &kills, 2).await;
        let answer = node.invoke(&kills, &event);
        let target = bell.ring().await;
        let cancel = node.cancel(&kills, &target.request(), Mode::Plain).await;
        assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
        let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["co_tenants"].as_array().unwrap().len(), 2, "{receipt}");
        for answer in answers.into_values().chain([answer]) {
            assert_canceled(&answered(what, answer).await);
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn processes_of_the_request_are_dead_when_it_is_acknowledged_and_the_runtime_stays() {
    let bell = Bell::hang().await;
    for isolation in ["auto", "subreaper"] {
        let node = TestNode::start_with(&["--isolation", isolation]).await;
        deploy_shared(&node, "f", 2, json!({})).await;
        let (answers, rings) = waiting(&node, &bell, "f", 1).await;
        let answer = node.invoke("f", &json!({ "do": "process", "port": bell.port() }));
        let target = bell.ring().await;
        let cancel = node.cancel("f", &target.request(), Mode::Plain).await;
        assert_eq!(cancel.header("x-quell-stop"), "stopped", "{isolation}: {cancel:?}");
        let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["requests"][0]["evidence"], "acknowledged", "{isolation}: {receipt}");
        assert_canceled(&answered("the target", answer).await);
        finish(answers, rings).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn where_nobody_inherits_what_processes_leave_behind_the_runtime_is_ended_instead() {
    let bell = Bell::hang().await;
    let node = TestNode::start_with(&["--isolation", "process-group"]).await;
    deploy_shared(&node, "f", 1, json!({ "grace_ms": 300 })).await;
    let answer = node.invoke("f", &json!({ "do": "process", "port": bell.port() }));
    let target = bell.ring().await;
    let cancel = node.cancel("f", &target.request(), Mode::Plain).await;
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["requests"][0]["evidence"], "reaped", "{receipt}");
    assert_canceled(&answered("the target", answer).await);
    node.stop().await;
}

#[tokio::test]
async fn a_late_answer_of_what_drains_is_not_delivered_and_crosses_no_other() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy_shared(&node, "f", 3, json!({ "grace_ms": 300 })).await;
    let (answers, rings) = waiting(&node, &bell, "f", 1).await;
    let request = node.invoke_async("f", &json!({ "do": "deaf", "port": bell.port(), "tag": "deaf" })).await;
    let mut target = bell.ring().await;
    let cancel = node.cancel("f", &request, Mode::Plain).await;
    assert_eq!(cancel.header("x-quell-stop"), "draining", "{cancel:?}");
    target.release().await;
    target.last_words().await;
    finish(answers, rings).await;
    assert_eq!(node.settled("f", &request).await, ("FAIL".into(), 4208));
    node.stop().await;
}

#[tokio::test]
async fn answers_that_race_with_cancels_reach_nobody_else() {
    const ROUNDS: usize = 30;
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy_shared(&node, "f", SHARED, json!({})).await;
    let mut processes = HashSet::new();
    for round in 0..ROUNDS {
        let (answers, mut rings) = waiting(&node, &bell, "f", SHARED).await;
        let target = format!("a{}", round % SHARED);
        let request = rings[&target].request();
        let release = async {
            for ring in rings.values_mut() {
                // The one that is cancelled may be over.
                drop(ring.line.get_mut().write_all(b"go").await);
            }
        };
        let (cancel, ()) = tokio::join!(node.cancel("f", &request, Mode::Plain), release);
        assert!(matches!(cancel.status, 200 | 400), "{cancel:?}");
        for (tag, answer) in answers {
            let reply = answered(&tag, answer).await;
            if tag == target && cancel.status == 200 {
                assert_canceled(&reply);
                continue;
            }
            assert_eq!((reply.status, reply.json()["tag"].as_str()), (200, Some(tag.as_str())));
        }
        processes.extend(rings.values().map(|ring| ring.fact("me")));
    }
    assert_eq!(processes.len(), 1, "one process for all of it");
    node.stop().await;
}

#[tokio::test]
async fn a_process_that_an_exception_spoilt_makes_room_for_a_fresh_one_and_no_request_notices() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy_shared(&node, "f", 3, json!({})).await;
    let (answers, rings) = waiting(&node, &bell, "f", 1).await;
    let spoilt = rings["a0"].facts["me"].clone();
    assert_eq!(answered("late", node.invoke("f", &json!({ "do": "late" }))).await.error().1, "FSS.4002");
    let beside = answered("beside", node.invoke("f", &json!({ "do": "echo" }))).await;
    assert_eq!(beside.json()["me"], spoilt, "it serves on while it has something to do");
    finish(answers, rings).await;
    within("a fresh process", async {
        loop {
            let reply = answered("echo", node.invoke("f", &json!({ "do": "echo" }))).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            if reply.json()["me"] != spoilt {
                break;
            }
        }
    })
    .await;
    node.stop().await;
}

#[tokio::test]
async fn a_deadline_aborts_the_signal_and_is_4010_and_force_asks_nobody() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "short", json!({ "timeout": 3 })).await;
    let answer = node.invoke("short", &json!({ "do": "wait", "port": bell.port() }));
    let mut ring = bell.ring().await;
    assert_eq!(ring.last_words().await, "cleaned deadline TimeoutError\n");
    assert_eq!(answered("the deadline", answer).await.error().1, "FSS.4010");
    let next = answered("the next", node.invoke("short", &json!({ "do": "echo" }))).await;
    assert_eq!(next.json()["me"], ring.facts["me"], "the process stays");

    deploy_shared(&node, "f", SHARED, json!({})).await;
    let (answers, mut rings) = waiting(&node, &bell, "f", SHARED).await;
    let cancel = node.cancel("f", &rings["a0"].request(), Mode::Force).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
    for answer in answers.into_values() {
        assert_canceled(&answered("one of eight", answer).await);
    }
    for ring in rings.values_mut() {
        assert_eq!(ring.last_words().await, "", "no handler was asked");
    }
    node.stop().await;
}

#[tokio::test]
async fn children_are_stopped_with_their_parent_by_a_recursive_cancel_and_not_by_a_plain_one() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", json!({})).await;
    let leaf = |tag: &str| json!({ "do": "wait", "port": bell.port(), "tag": tag });
    let tree = json!({
        "do": "child", "port": bell.port(), "tag": "root", "children": [leaf("async")], "child": leaf("sync"),
    });
    for mode in [Mode::Recursive, Mode::Plain] {
        let root = node.invoke_async("f", &tree).await;
        let mut rings = HashMap::new();
        for _ in 0..3 {
            let ring = bell.ring().await;
            rings.insert(ring.fact("tag"), ring);
        }
        let children = rings["root"].facts["children"].clone();
        assert_eq!(children, json!([rings["async"].request()]));
        assert_eq!(node.tree(&root).await.len(), 3);
        let cancel = node.cancel("f", &root, mode).await;
        assert_eq!(cancel.header("x-quell-stop"), "stopped", "{mode:?}: {cancel:?}");
        assert_eq!(node.settled("f", &root).await, ("FAIL".into(), 4208));
        for tag in ["async", "sync"] {
            let mut ring = rings.remove(tag).unwrap();
            if mode == Mode::Plain {
                ring.release().await;
            }
            let words = if mode == Mode::Plain { "" } else { "cleaned cancel AbortError\n" };
            assert_eq!(ring.last_words().await, words, "{mode:?} {tag}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn the_examples_are_deployed_as_they_lie_there_and_run() {
    let node = TestNode::start().await;
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../runtime-images/nodejs/examples");
    for name in ["hello", "fanout", "shared"] {
        let folder = format!("{examples}/{name}");
        let done = TestNode::client_command(&node.dir, &["deploy", &folder]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
    let reply = answered("hello", node.invoke("hello-node", &json!({ "name": "you" }))).await;
    assert_eq!(reply.json()["greeting"], "Hello, you!");
    let shared = answered("shared", node.invoke("shared-node", &json!({ "sleep_s": 0 }))).await;
    assert!(shared.json()["pid"].is_number(), "{}", shared.text());
    let root = node.invoke_async("fanout-node", &json!({ "depth": 1, "width": 3, "sleep_s": 300 })).await;
    within("its leaves", async {
        while node.tree(&root).await.len() < 4 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let cancel = node.cancel("fanout-node", &root, Mode::Recursive).await;
    assert_eq!(cancel.header("x-quell-stop"), "stopped", "{cancel:?}");
    node.stop().await;
}

#[tokio::test]
async fn without_node_the_daemon_serves_python_and_says_to_a_node_function_what_is_missing() {
    // A PATH with python3 and nothing else.
    let bin = TestNode::folder();
    let python = String::from_utf8(
        std::process::Command::new("python3")
            .args(["-c", "import sys; print(sys.executable)"])
            .output()
            .unwrap()
            .stdout,
    );
    std::os::unix::fs::symlink(python.unwrap().trim(), bin.path().join("python3")).unwrap();
    let node = TestNode::start_on_path(bin.path()).await;
    node.deploy("py", "def handler(event, context):\n    return 'python'\n", json!({})).await;
    assert_eq!(answered("python", node.invoke("py", &json!({}))).await.text(), "python");
    deploy(
        &node,
        "js",
        json!({ "code_filename": "index.js", "func_code": { "file": base64(b"exports.handler = 1") } }),
    )
    .await;
    let (status, code, message) = answered("node", node.invoke("js", &json!({}))).await.error();
    assert_eq!((status, code.as_str()), (500, "FSS.4201"));
    assert!(message.contains("node"), "{message}");
    node.stop().await;
}
