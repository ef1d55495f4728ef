//! The Node.js image on a real node: results, errors, what spoils a process, and a machine without it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

mod support;

use serde_json::json;
use support::{
    Mode, TestNode, base64,
    javascript::{TcpBell, answered, deploy, deploy_shared, finish, waiting},
    within,
};

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
async fn a_process_that_an_exception_spoilt_makes_room_for_a_fresh_one_and_no_request_notices() {
    let (node, bell) = (TestNode::start().await, TcpBell::hang().await);
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
