//! The Python image under a real node: what a handler that is stopped sees and may still do, in each way of serving.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use serde_json::json;
use support::{Bell, Mode, TestNode, within};

/// Waits to be told to go on, and says on its line how it ended instead.
const SOURCE: &str = r#"
import asyncio
import json
import os
import socket


def connect(event):
    line = socket.socket(socket.AF_UNIX)
    line.connect("\0quell-bell-%d" % event["port"])
    return line


def ring(line, event, context):
    facts = {"tag": event["tag"], "request": context.getRequestID()}
    line.sendall((json.dumps(facts) + "\n").encode())


def stopped(line, error, context):
    words = (type(error).__name__, context.cancel_reason, context.cancelled)
    line.sendall(("%s %s %s\n" % words).encode())


def handler(event, context):
    with connect(event) as line:
        try:
            ring(line, event, context)
            return {"told": line.recv(100).decode(), "tag": event["tag"]}
        except Exception:
            return "swallowed"  # what stops it is none
        except BaseException as error:
            stopped(line, error, context)
            raise
        finally:
            line.sendall(b"cleaned up\n")


async def ahandler(event, context):
    with connect(event) as line:
        try:
            ring(line, event, context)
            line.setblocking(False)
            told = await asyncio.get_running_loop().sock_recv(line, 100)
            return {"told": told.decode(), "tag": event["tag"]}
        except Exception:
            return "swallowed"
        except BaseException as error:
            stopped(line, error, context)
            raise
        finally:
            line.sendall(b"cleaned up\n")
"#;

/// Its name, its handler, requests an instance, what stops it.
const WAYS: [(&str, &str, u32, &str); 4] = [
    ("single", "index.handler", 1, "InvocationCanceled"),
    ("workers", "index.handler", 8, "InvocationCanceled"),
    ("loop", "index.ahandler", 8, "CancelledError"),
    ("loop-of-one", "index.ahandler", 1, "CancelledError"),
];

#[tokio::test]
async fn one_of_eight_is_cancelled_and_cleans_up_and_the_other_seven_finish_in_the_same_processes() {
    for forked in [false, true] {
        let (node, bell) = (TestNode::start().await, Bell::hang().await);
        for (name, handler, each, stops) in WAYS.into_iter().filter(|(_, _, each, _)| *each == 8) {
            let more = json!({
                "handler": handler,
                "strategy_config": { "concurrency": 1, "concurrent_num": each },
                "quell": { "fork_server": forked, "grace_ms": 30_000 },
            });
            node.deploy(name, SOURCE, more).await;
            let asked = |at: u32| node.invoke(name, &json!({ "port": bell.port, "tag": at.to_string() }));
            let answers: Vec<_> = (0..each).map(asked).collect();
            let mut rings = bell.rings(8).await;
            let mut canceled = rings.remove("3").unwrap();
            let reply = node.cancel(name, &canceled.request(), Mode::Plain).await;
            assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
            assert_eq!(canceled.last_words().await, format!("{stops} cancel True\ncleaned up\n"), "{name}");
            for ring in rings.values_mut() {
                assert!(!ring.process.is_gone(), "{name}");
                ring.release().await;
            }
            for (at, answer) in answers.into_iter().enumerate() {
                let reply = within("an answer", answer).await.unwrap();
                match at {
                    3 => assert_eq!(reply.error().1, "FSS.4208", "{name}"),
                    _ => assert_eq!(reply.json(), json!({ "told": "go", "tag": at.to_string() }), "{name}"),
                }
            }
            assert!(!canceled.process.is_gone(), "{name}: the process that served the cancelled one");
        }
        node.stop().await;
    }
}

#[tokio::test]
async fn a_deadline_reaches_the_handler_as_a_cancel_does_with_its_own_reason() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let mut answers = Vec::new();
    for (name, handler, each, _) in WAYS {
        let more = json!({
            "handler": handler, "timeout": 3,
            "strategy_config": { "concurrency": 1, "concurrent_num": each },
            "quell": { "grace_ms": 30_000 },
        });
        node.deploy(name, SOURCE, more).await;
        answers.push((name, node.invoke(name, &json!({ "port": bell.port, "tag": name }))));
    }
    let mut rings = bell.rings(WAYS.len()).await;
    for (name, answer) in answers {
        let reply = within("its deadline", answer).await.unwrap();
        assert_eq!((reply.error().0, reply.error().1.as_str()), (500, "FSS.4010"), "{name}");
    }
    for (name, _, _, stops) in WAYS {
        let ring = rings.get_mut(name).unwrap();
        assert_eq!(ring.last_words().await, format!("{stops} deadline True\ncleaned up\n"), "{name}");
        assert!(!ring.process.is_gone(), "{name}: it stays warm");
    }
    node.stop().await;
}
