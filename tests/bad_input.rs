//! Bad input over HTTP: the documented status and error body, nothing changed, nothing leaked.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Reply, TestNode};

const FUNCTIONS: &str = "/v2/default/fgs/functions";
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// What must not change: live requests, functions, and what waits in the store.
async fn state(node: &TestNode) -> Value {
    let view = node.view().await;
    let functions = node.get(FUNCTIONS).await.json();
    json!([view["requests"], functions])
}

async fn post_raw(node: &TestNode, path: &str, kind: &str, body: &[u8]) -> Reply {
    node.send(Method::POST, path, &[("Content-Type", kind)], body).await
}

fn error(status: u16, code: &str, message: &str) -> (u16, String, String) {
    (status, code.to_owned(), message.to_owned())
}

#[tokio::test]
async fn a_malformed_cancel_is_refused_by_name_and_stops_nobody() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 2, json!({})).await;
    let live = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let mut ring = bell.ring().await;
    let request = ring.request();
    let before = state(&node).await;
    let path = format!("{FUNCTIONS}/f/cancel");
    let about = |rest: &str| format!("{{\"request_id\": \"{request}\"{rest}}}");
    for (body, message) in [
        (String::new(), "the request body is not JSON"),
        ("{".to_owned(), "the request body is not JSON"),
        ("[]".to_owned(), "the request body is not a JSON object"),
        ("null".to_owned(), "the request body is not a JSON object"),
        ("{}".to_owned(), "Invalid RequestId"),
        ("{\"request_id\": 7}".to_owned(), "Invalid RequestId"),
        ("{\"request_id\": \"x\"}".to_owned(), "Invalid RequestId"),
        (about(", \"type\": \"bogus\""), "type is neither"),
        (about(", \"type\": [\"force\"]"), "type is neither"),
        (about(", \"force\": \"yes\""), "force is not a boolean"),
        (about(", \"recursive\": 1"), "recursive is not a boolean"),
        (about(", \"reason\": {}"), "reason is not a string"),
        (about(&format!(", \"reason\": \"{}\"", "x".repeat(1025))), "reason is longer"),
    ] {
        let (status, code, said) = post_raw(&node, &path, "application/json", body.as_bytes()).await.error();
        assert_eq!((status, code.as_str()), (400, "FSS.0400"), "{body}");
        assert!(said.starts_with(message), "{body}: {said}");
    }
    let kind = post_raw(&node, &path, "text/plain", about("").as_bytes()).await.error();
    assert_eq!((kind.0, kind.1.as_str()), (400, "FSS.0400"));
    let large = about(&format!(", \"more\": \"{}\"", "x".repeat(64 << 10)));
    assert_eq!(post_raw(&node, &path, "application/json", large.as_bytes()).await.error().0, 413);
    assert_eq!(state(&node).await, before);
    ring.release().await;
    assert_eq!(live.await.unwrap().status, 200);
    node.stop().await;
}

#[tokio::test]
async fn a_wrong_credential_on_cancel_is_403_and_stops_nobody() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 2, json!({})).await;
    let live = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let mut ring = bell.ring().await;
    let body = json!({ "request_id": ring.request(), "type": "force" }).to_string();
    let path = format!("{FUNCTIONS}/f/cancel");
    let json = [("Content-Type", "application/json")];
    let mut flipped = node.token.clone();
    let last = flipped.pop().unwrap();
    flipped.push(if last == '0' { '1' } else { '0' });
    let key_only = node.token.rsplit_once('.').unwrap().0.to_owned();
    let unknown_key = format!("qk.0000000000000000.{}", node.token.rsplit_once('.').unwrap().1);
    for token in [
        None,
        Some(""),
        Some("x"),
        Some("qk."),
        Some("qa.1.2"),
        Some(&flipped),
        Some(&key_only),
        Some(&unknown_key),
    ] {
        let reply = node.send_as(token, Method::POST, &path, &json, body.as_bytes()).await;
        assert_eq!(reply.error(), error(403, "FSS.0403", "invalid token"), "{token:?}");
    }
    // A valid credential of another project, and a function of another project under one's own path.
    let other = path.replace("/default/", "/other/");
    let reply = node.send(Method::POST, &other, &json, body.as_bytes()).await;
    assert_eq!(reply.error(), error(403, "FSS.0403", "invalid token: it opens another project"));
    for urn in ["other:default:f", "urn%3Afss%3Alocal%3Aother%3Afunction%3Adefault%3Af"] {
        let path = format!("{FUNCTIONS}/{urn}/cancel");
        let reply = node.send(Method::POST, &path, &json, body.as_bytes()).await;
        assert_eq!(reply.error(), error(404, "FSS.0404", "can not find function"), "{urn}");
    }
    assert!(!ring.process.is_gone());
    ring.release().await;
    assert_eq!(live.await.unwrap().status, 200, "nobody was stopped");
    node.stop().await;
}

#[tokio::test]
async fn the_credential_of_a_running_request_may_invoke_but_not_cancel_or_change_functions() {
    let node = TestNode::start().await;
    let source = "def handler(event, context):\n    return context.getToken()\n";
    node.deploy("token", source, json!({})).await;
    let reply = node.invoke("token", &json!({})).await.unwrap();
    let token = reply.text();
    assert!(token.starts_with("qa."), "{token}");
    let json = [("Content-Type", "application/json")];
    let body = json!({ "request_id": NOBODY }).to_string();
    let path = format!("{FUNCTIONS}/token/cancel");
    let reply = node.send_as(Some(&token), Method::POST, &path, &json, body.as_bytes()).await;
    assert_eq!(reply.error(), error(403, "FSS.0403", "invalid token"));
    // Its request is over: it opens nothing any more, sub-invocations included.
    let path = format!("{FUNCTIONS}/token/invocations");
    let reply = node.send_as(Some(&token), Method::POST, &path, &json, b"{}").await;
    assert_eq!(reply.error(), error(401, "FSS.0401", "not permit"));
    node.stop().await;
}

#[tokio::test]
async fn urns_are_taken_in_every_form_and_a_malformed_one_is_refused() {
    let node = TestNode::start().await;
    node.deploy("f", include_str!("functions/plain.py"), json!({ "handler": "index.length" })).await;
    let long = "urn:fss:local:default:function:default:f";
    for urn in [
        "f".to_owned(),
        "default:f".to_owned(),
        "default:default:f".to_owned(),
        long.to_owned(),
        format!("{long}:latest"),
        format!("{long}:latest").replace(':', "%3A"),
    ] {
        let reply = node.post(&format!("{FUNCTIONS}/{urn}/invocations"), &json!([1, 2])).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "2"), "{urn}");
        let reply = node.post(&format!("{FUNCTIONS}/{urn}/cancel"), &json!({ "request_id": NOBODY })).await;
        assert_eq!(reply.error(), error(400, "FSS.0400", "Invalid RequestId"), "{urn}");
    }
    let too_long = "x".repeat(270);
    for urn in ["a:b:c:d:e", "urn:fss:local:default:nofunction:default:f", "default::f", ":", &too_long] {
        for operation in ["invocations", "invocations-async", "cancel"] {
            let path = format!("{FUNCTIONS}/{urn}/{operation}");
            let reply = node.post(&path, &json!({ "request_id": NOBODY })).await;
            assert_eq!((reply.error().0, reply.error().1.as_str()), (400, "FSS.1309"), "{path}");
        }
    }
    for (operation, expected) in [
        ("invocations", error(404, "FSS.1051", "Not found the function")),
        ("invocations-async", error(404, "FSS.1051", "Not found the function")),
        ("cancel", error(404, "FSS.0404", "can not find function")),
    ] {
        for urn in ["nobody", "default:nobody", "other:default:f", "default:default:nobody:v7"] {
            let path = format!("{FUNCTIONS}/{urn}/{operation}");
            let reply = node.post(&path, &json!({ "request_id": NOBODY })).await;
            assert_eq!(reply.error(), expected, "{path}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn events_that_are_too_large_or_no_json_are_refused_and_not_kept() {
    let node = TestNode::start().await;
    node.deploy("f", include_str!("functions/plain.py"), json!({ "handler": "index.length" })).await;
    let before = state(&node).await;
    let quoted = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    for (operation, limit, accepted) in [("invocations", 6 << 20, 200), ("invocations-async", 256 << 10, 202)]
    {
        let path = format!("{FUNCTIONS}/f/{operation}");
        let json = "application/json";
        let over = post_raw(&node, &path, json, quoted(limit + 1).as_bytes()).await.error();
        assert_eq!((over.0, over.1.as_str()), (413, "FSS.1201"), "{operation}");
        for body in ["{", "{]", "nothing", "{} {}", "\u{0}"] {
            let refused = post_raw(&node, &path, json, body.as_bytes()).await.error();
            assert_eq!((refused.0, refused.1.as_str()), (406, "FSS.0406"), "{operation} {body}");
        }
        let kind = post_raw(&node, &path, "text/plain", b"{}").await.error();
        assert_eq!((kind.0, kind.1.as_str()), (406, "FSS.0406"), "{operation}");
        let list = node.get(&format!("{FUNCTIONS}/f/async-invocations")).await.json();
        assert_eq!((list["count"].as_u64(), state(&node).await), (Some(0), before.clone()), "{operation}");
        let within = post_raw(&node, &path, json, quoted(limit).as_bytes()).await;
        assert_eq!(within.status, accepted, "{operation}");
        if accepted == 200 {
            assert_eq!(within.text(), (limit - 2).to_string());
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_have_the_apis_own_error_shape() {
    let node = TestNode::start().await;
    for (method, path, status) in [
        (Method::POST, "/", 405),
        (Method::GET, "/v2/default/fgs", 404),
        (Method::GET, "/v2/default/fgs/functions/f/cancel", 405),
        (Method::DELETE, "/v2/default/fgs/functions/f/invocations", 405),
        (Method::POST, "/v2/default/fgs/functions/f/%FF/cancel", 404),
        (Method::POST, "/v2/default/fgs/functions/%FF/cancel", 400),
        (Method::GET, "/v2/default/fgs/functions/statistics", 400),
        (Method::POST, "/v2/default/fgs/functions/import", 501),
        (Method::GET, "/v2/default/fgs/functions/import/config", 404),
        (Method::GET, "/quell/v1/requests/nonsense/tree", 404),
        (Method::GET, "/quell/v1/receipts/nonsense", 404),
    ] {
        let reply = node.send(method.clone(), path, &[], b"").await;
        assert_eq!(reply.error().0, status, "{method} {path}: {}", reply.text());
    }
    node.stop().await;
}

/// Creates a function from what the test gives; returns the answer.
async fn create(node: &TestNode, change: Value) -> Reply {
    let mut body = json!({
        "func_name": "g",
        "package": "default",
        "runtime": "Python3.10",
        "handler": "index.handler",
        "timeout": 30,
        "memory_size": 128,
        "code_type": "inline",
        "func_code": { "file": support::base64(b"def handler(event, context):\n    return 1\n") },
    });
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => body.as_object_mut().unwrap().remove(name),
            value => body.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    node.post(FUNCTIONS, &body).await
}

#[tokio::test]
async fn a_function_that_cannot_be_is_refused_by_field() {
    let node = TestNode::start().await;
    let before = state(&node).await;
    for (change, code) in [
        (json!({ "func_name": null }), "FSS.1002"),
        (json!({ "func_name": "../x" }), "FSS.1002"),
        (json!({ "func_name": 7 }), "FSS.1002"),
        (json!({ "package": "a/b" }), "FSS.1027"),
        (json!({ "runtime": null }), "FSS.1005"),
        (json!({ "runtime": "Cobol85" }), "FSS.1005"),
        (json!({ "timeout": 0 }), "FSS.1008"),
        (json!({ "timeout": "3" }), "FSS.1008"),
        (json!({ "memory_size": 129 }), "FSS.1007"),
        (json!({ "func_code": null }), "FSS.1012"),
        (json!({ "func_code": { "file": "no base64!" } }), "FSS.1011"),
        (json!({ "code_filename": "../index.py" }), "FSS.1013"),
    ] {
        let refused = create(&node, change.clone()).await.error();
        assert_eq!((refused.0, refused.1.as_str()), (400, code), "{change}: {}", refused.2);
    }
    assert_eq!(state(&node).await, before);
    assert_eq!(create(&node, json!({})).await.status, 200);
    let again = create(&node, json!({})).await.error();
    assert_eq!((again.0, again.1.as_str()), (409, "FSS.1061"));
    node.stop().await;
}

#[tokio::test]
async fn hostile_packages_are_refused_and_leave_no_file() {
    let node = TestNode::start().await;
    let before = state(&node).await;
    let zip = |files: &[(&str, &[u8])]| support::base64(&support::zip(files));
    let zeros = vec![0; 600 << 20];
    let packages = [
        ("leads out", zip(&[("../evil.py", b"1"), ("index.py", b"")])),
        ("deep out", zip(&[("a/../../evil.py", b"1")])),
        ("absolute", zip(&[("/tmp/quell-evil.py", b"1")])),
        ("backslash", zip(&[("..\\evil.py", b"1")])),
        ("file and folder", zip(&[("a", b"1"), ("a/b", b"2")])),
        ("bomb", zip(&[("zeros", &zeros)])),
        ("cut off", support::base64(&support::zip(&[("index.py", b"pass")])[..40])),
    ];
    drop(zeros);
    for (what, package) in packages {
        let change = json!({ "code_type": "zip", "func_code": { "file": package } });
        let refused = create(&node, change).await.error();
        assert_eq!((refused.0, refused.1.as_str()), (400, "FSS.1011"), "{what}: {}", refused.2);
    }
    assert_eq!(state(&node).await, before);
    let left: Vec<_> = std::fs::read_dir(node.dir.join("code")).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!node.dir.join("evil.py").exists() && !node.dir.join("code/evil.py").exists());
    assert!(!std::path::Path::new("/tmp/quell-evil.py").exists());
    node.stop().await;
}

/// Runs a function that fails; returns (status, code, message), and checks that no request is left.
async fn fails(node: &TestNode, function: &str, event: Value) -> (u16, String, String) {
    let reply = support::within(function, node.invoke(function, &event)).await.unwrap();
    assert_eq!(node.view().await["requests"], json!([]), "{function}");
    reply.error()
}

#[tokio::test]
async fn functions_that_fail_say_how_and_the_node_serves_on() {
    let node = TestNode::start().await;
    let source = include_str!("functions/plain.py");
    for (handler, event, code) in [
        ("index.raises", json!({}), "FSS.4002"),
        ("index.unprintable", json!({}), "FSS.4002"),
        ("index.large", json!({ "bytes": (6 << 20) + 200 }), "FSS.4004"),
        ("index.leaves", json!({}), "FSS.4204"),
        ("index.missing", json!({}), "FSS.4201"),
        ("index.not_callable", json!({}), "FSS.4201"),
        ("nowhere.handler", json!({}), "FSS.4201"),
    ] {
        let name = handler.replace(['.', '_'], "-");
        node.deploy(&name, source, json!({ "handler": handler })).await;
        let failed = fails(&node, &name, event).await;
        assert_eq!((failed.0, failed.1.as_str()), (500, code), "{handler}: {}", failed.2);
    }
    let raised = node.invoke("index-raises", &json!({})).await.unwrap();
    assert_eq!(raised.header("x-func-err-code"), "4002");
    assert_eq!(raised.header("x-is-func-err"), "true");
    assert!(raised.text().contains("as the test asked"), "{}", raised.text());
    node.stop().await;
}

#[tokio::test]
async fn runtimes_that_never_become_ready_are_reported_and_leave_no_process() {
    let node = TestNode::start().await;
    for (name, bootstrap, code) in [
        ("exits", Some("#!/bin/sh\nexit 3\n"), "FSS.4204"),
        ("hangs", Some("#!/bin/sh\nsleep 300 &\nexec sleep 300\n"), "FSS.4211"),
        ("not-executable-text", Some("no program\n"), "FSS.4201"),
        ("no-bootstrap", None, "FSS.4202"),
    ] {
        let files: Vec<(&str, &[u8])> = match bootstrap {
            Some(text) => vec![("bootstrap", text.as_bytes())],
            None => vec![("readme", b"nothing to run")],
        };
        let change = json!({
            "func_name": name,
            "runtime": "Custom",
            "handler": "bootstrap.handler",
            "code_type": "zip",
            "func_code": { "file": support::base64(&support::zip(&files)) },
            "quell": { "start_timeout_s": 1 },
        });
        assert_eq!(create(&node, change).await.status, 200, "{name}");
        let failed = fails(&node, name, json!({})).await;
        assert_eq!((failed.0, failed.1.as_str()), (500, code), "{name}: {}", failed.2);
        let cancel = node.cancel(name, NOBODY, Mode::Force).await.error();
        assert_eq!(cancel, error(400, "FSS.0400", "Invalid RequestId"));
    }
    assert_eq!(node.view().await["instances"], json!([]), "nothing of them is left");
    node.stop().await;
}
