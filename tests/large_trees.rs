//! A tree that is cancelled in several slices: all of it stops, and others are served meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use serde_json::json;
use support::{Bell, Mode, TestNode, within};

/// Children of the root: several times what a cancel does in one step (`Bounds::slice`).
const CHILDREN: usize = 1_500;

const ROOT: &str = "import socket, time
def handler(event, context):
    for _ in range(event['children']):
        context.invoke_async('leaf', {})
    line = socket.socket(socket.AF_UNIX)
    line.connect('\\0quell-bell-%d' % event['port'])
    line.sendall(b'{}\\n')
    time.sleep(300)
";
const LEAF: &str = "import time
def handler(event, context):
    time.sleep(300)
";
const ECHO: &str = "def handler(event, context):
    return event
";

#[tokio::test]
async fn a_tree_of_many_slices_is_stopped_whole_while_others_are_served() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let one = json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } });
    for (name, source) in [("root", ROOT), ("leaf", LEAF), ("echo", ECHO)] {
        node.deploy(name, source, one.clone()).await;
    }
    for mode in [Mode::Recursive, Mode::Both] {
        let root = node.invoke_async("root", &json!({ "children": CHILDREN, "port": bell.port })).await;
        let ring = bell.ring().await;
        let cancel = node.cancel("root", &root, mode);
        let others = async {
            for n in 0..20 {
                let reply = within("somebody else", node.invoke("echo", &json!({ "n": n }))).await.unwrap();
                assert_eq!((reply.status, &reply.json()["n"]), (200, &json!(n)));
            }
        };
        let (reply, ()) = tokio::join!(cancel, others);
        assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{}", reply.text());
        assert!(mode == Mode::Recursive || ring.process.is_gone());
        let view = node.view().await;
        assert_eq!(view["requests"].as_array().unwrap().len(), 0, "{view}");
        let receipt = node.receipt(reply.header("x-quell-cancel-id")).await;
        let rows = receipt["requests"].as_array().unwrap();
        assert_eq!(rows.len(), CHILDREN + 1);
        assert!(rows.iter().all(|row| row["code"] == json!(4208)), "{receipt}");
        assert_eq!(receipt["result"], "stopped");
    }
    for status in ["WAIT", "RUNNING"] {
        let list =
            node.get(&format!("/v2/default/fgs/functions/leaf/async-invocations?status={status}")).await;
        assert_eq!(list.json()["count"], 0, "{status}");
    }
    node.stop().await;
}
