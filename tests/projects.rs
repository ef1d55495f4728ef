//! A credential of one project gets nothing of another, and of its own what its scopes say (I11).
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Reply, Ring, TestNode, within};

/// The function nobody else may learn of.
const PRECIOUS: &str = "precious";
/// What a route needs, and whether its answer is the asker's own view of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    Scope(&'static str),
    /// A list or view that is there for everybody who may look, of the asker's own project.
    OwnView(&'static str),
}

/// Every route that wants a credential, on things of project `default`. Bodies are such that nothing is
/// changed by whoever may.
fn routes(live: &str, over: &str, cancel: &str, instance: &str) -> Vec<(Method, String, Needs)> {
    use Needs::{OwnView, Scope};
    let functions = "/v2/default/fgs/functions";
    let f = |rest: &str| format!("{functions}/{PRECIOUS}{rest}");
    let nobody = format!("{functions}/nobody");
    let own = |rest: &str| format!("/quell/v1{rest}");
    vec![
        (Method::POST, functions.to_owned(), Scope("admin")),
        (Method::GET, functions.to_owned(), Scope("read")),
        (Method::DELETE, nobody.clone(), Scope("admin")),
        (Method::GET, f("/config"), Scope("read")),
        (Method::PUT, f("/config"), Scope("admin")),
        (Method::GET, f("/code"), Scope("admin")),
        (Method::PUT, f("/code"), Scope("admin")),
        (Method::PUT, f("/config-max-instance"), Scope("admin")),
        (Method::GET, f("/async-invoke-config"), Scope("read")),
        (Method::PUT, format!("{nobody}/async-invoke-config"), Scope("admin")),
        (Method::DELETE, format!("{nobody}/async-invoke-config"), Scope("admin")),
        (Method::GET, f("/async-invoke-configs"), Scope("read")),
        (Method::POST, format!("{nobody}/versions"), Scope("admin")),
        (Method::GET, f("/versions"), Scope("read")),
        (Method::POST, f("/aliases"), Scope("admin")),
        (Method::GET, f("/aliases"), Scope("read")),
        (Method::GET, f("/aliases/nobody"), Scope("read")),
        (Method::PUT, f("/aliases/nobody"), Scope("admin")),
        (Method::DELETE, f("/aliases/nobody"), Scope("admin")),
        (Method::POST, format!("{nobody}/invocations"), Scope("invoke")),
        (Method::POST, format!("{nobody}/invocations-async"), Scope("invoke")),
        (Method::POST, f("/cancel"), Scope("cancel")),
        (Method::GET, f("/async-invocations"), Scope("read")),
        (Method::GET, f("/active-async-invocations"), Scope("read")),
        (Method::PUT, format!("{nobody}/reservedinstances"), Scope("admin")),
        (Method::GET, f("/instancereports"), Scope("read")),
        (Method::GET, f("/slareports/5"), Scope("read")),
        (Method::GET, f("/statistics/5"), Scope("read")),
        (Method::GET, format!("{functions}/reservedinstances"), Scope("read")),
        (Method::GET, format!("{functions}/reservedinstanceconfigs"), Scope("read")),
        (Method::GET, format!("{functions}/statistics?filter=monitor_data"), Scope("read")),
        (Method::GET, "/v2/default/fgs/function/report".to_owned(), Scope("read")),
        (Method::GET, "/v2/default/fgs/quotas".to_owned(), Scope("read")),
        (Method::GET, own("/node"), OwnView("read")),
        (Method::GET, own(&format!("/requests/{live}")), Scope("read")),
        (Method::GET, own(&format!("/requests/{over}")), Scope("read")),
        (Method::GET, own(&format!("/requests/{live}/tree")), Scope("read")),
        (Method::GET, own(&format!("/requests/{live}/plan")), Scope("read")),
        (Method::GET, own(&format!("/instances/{instance}/output")), Scope("read")),
        (Method::GET, own(&format!("/requests/{live}/log")), Scope("read")),
        (Method::GET, own(&format!("/instances/{instance}/log")), Scope("read")),
        (Method::GET, own(&format!("/functions/{PRECIOUS}/log")), Scope("read")),
        (Method::GET, own("/requests"), OwnView("read")),
        (Method::GET, own("/cancels"), OwnView("read")),
        (Method::POST, own("/cancels"), OwnView("cancel")),
        (Method::GET, own("/cancels/bulk"), OwnView("read")),
        (Method::GET, own("/cancels/bulk/nobody"), Scope("read")),
        (Method::DELETE, own("/cancels/bulk/nobody"), Scope("cancel")),
        (Method::GET, own("/receipts"), OwnView("read")),
        (Method::GET, own(&format!("/cancels/{cancel}")), Scope("read")),
        (Method::GET, own(&format!("/receipts/{cancel}")), Scope("read")),
        (Method::GET, own("/credentials"), OwnView("credentials")),
        (Method::POST, own("/credentials"), OwnView("credentials")),
        (Method::DELETE, own("/credentials/nobody"), OwnView("credentials")),
        (Method::POST, own("/credentials/nobody/rotate"), OwnView("credentials")),
        (Method::GET, own("/backup"), Scope("operator")),
    ]
}

async fn made(node: &TestNode, body: Value) -> Value {
    let reply = node.post("/quell/v1/credentials", &body).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply.json()
}

async fn token(node: &TestNode, project: &str, scopes: &[&str]) -> String {
    let made = made(node, json!({ "project": project, "scopes": scopes })).await;
    made["token"].as_str().unwrap().to_owned()
}

async fn ask(node: &TestNode, token: Option<&str>, method: &Method, path: &str) -> Reply {
    let json = [("Content-Type", "application/json")];
    let body: &[u8] = if *method == Method::GET || *method == Method::DELETE { b"" } else { b"{}" };
    within(path, node.send_as(token, method.clone(), path, &json, body)).await
}

/// A node with a live request of the precious function (and its token), one that is over, and a cancel.
struct Full {
    node: TestNode,
    /// The live request's line: it works as long as this is held.
    _ring: Ring,
    live: String,
    live_token: String,
    over: String,
    over_token: String,
    cancel: String,
    instance: String,
}

async fn full() -> Full {
    let (node, bell) = (TestNode::start_with(&["--refusal-limit", "0"]).await, Bell::hang().await);
    node.deploy_probe(PRECIOUS, 1, 4, json!({})).await;
    let wait = json!({ "do": "wait", "port": bell.port });
    let over = node.invoke_async(PRECIOUS, &wait).await;
    let ring = bell.ring().await;
    let over_token = ring.facts["token"].as_str().unwrap().to_owned();
    let reply = node.cancel(PRECIOUS, &over, Mode::Force).await;
    assert_eq!(reply.header("x-quell-stop"), "stopped");
    let cancel = reply.header("x-quell-cancel-id").to_owned();
    let live = node.invoke_async(PRECIOUS, &wait).await;
    let ring = bell.ring().await;
    let live_token = ring.facts["token"].as_str().unwrap().to_owned();
    let instance = node.view().await["instances"][0]["instance"].as_str().unwrap().to_owned();
    Full { node, _ring: ring, live, live_token, over, over_token, cancel, instance }
}

#[tokio::test]
async fn whoever_is_nobody_here_gets_nothing_of_any_route() {
    let full = full().await;
    let node = &full.node;
    let foreign = token(node, "foreign", &["admin"]).await;
    let gone = made(node, json!({ "scopes": ["admin", "operator"] })).await;
    let revoked = gone["token"].as_str().unwrap().to_owned();
    let path = format!("/quell/v1/credentials/{}", gone["key_id"].as_str().unwrap());
    assert_eq!(ask(node, Some(&node.token), &Method::DELETE, &path).await.status, 204);
    let short = made(node, json!({ "scopes": ["admin", "operator"], "expires_in_s": 1 })).await;
    let expired = short["token"].as_str().unwrap().to_owned();
    within("its end", async {
        while ask(node, Some(&expired), &Method::GET, "/quell/v1/node").await.status == 200 {}
    })
    .await;
    let mut tampered = node.token.clone();
    let last = if tampered.ends_with('0') { "1" } else { "0" };
    tampered.replace_range(tampered.len() - 1.., last);
    let before = node.view().await;
    assert_eq!(before["requests"].as_array().unwrap().len(), 1, "{before}");
    let routes = routes(&full.live, &full.over, &full.cancel, &full.instance);
    for (method, path, needs) in &routes {
        let outsiders = [
            ("nobody", None),
            ("of another project", Some(&foreign)),
            ("revoked", Some(&revoked)),
            ("expired", Some(&expired)),
            ("tampered with", Some(&tampered)),
            ("of a request that is over", Some(&full.over_token)),
        ];
        for (who, token) in outsiders {
            let reply = ask(node, token.map(String::as_str), method, path).await;
            let text = reply.text();
            let own = who == "of another project" && matches!(needs, Needs::OwnView(_));
            if own {
                assert!(reply.status < 500, "{who} {method} {path}: {} {text}", reply.status);
            } else {
                assert!(
                    [401, 403, 404].contains(&reply.status),
                    "{who} {method} {path}: {} {text}",
                    reply.status
                );
            }
            for secret in [PRECIOUS, &full.live, &full.over, &full.cancel, &full.instance] {
                let told = text.contains(secret) && !path.contains(secret);
                assert!(!told, "{who} {method} {path} tells {secret}: {text}");
            }
        }
    }
    // Nor by naming the function from the project that is its own.
    for urn in ["urn:fss:local:default:function:default:precious", "default:default:precious"] {
        for (rest, body) in [
            ("invocations", json!({})),
            ("invocations-async", json!({})),
            ("cancel", json!({ "request_id": full.live, "type": "force" })),
        ] {
            let path = format!("/v2/foreign/fgs/functions/{urn}/{rest}");
            let json = [("Content-Type", "application/json")];
            let body = body.to_string();
            let reply = node.send_as(Some(&foreign), Method::POST, &path, &json, body.as_bytes()).await;
            assert!([400, 403, 404].contains(&reply.status), "{path}: {} {}", reply.status, reply.text());
        }
    }
    let after = node.view().await;
    assert_eq!(before["requests"], after["requests"], "nothing of it was touched");
    full.node.stop().await;
}

#[tokio::test]
async fn each_scope_opens_its_routes_and_no_other() {
    let full = full().await;
    let node = &full.node;
    let routes = routes(&full.live, &full.over, &full.cancel, &full.instance);
    for scope in ["read", "invoke", "cancel", "admin", "operator"] {
        let token = token(node, "default", &[scope]).await;
        for (method, path, needs) in &routes {
            let (Needs::Scope(needed) | Needs::OwnView(needed)) = needs;
            let may = match *needed {
                "credentials" => ["admin", "operator"].contains(&scope),
                "operator" => scope == "operator",
                needed => scope == needed || scope == "admin",
            };
            let reply = ask(node, Some(&token), method, path).await;
            let refused = [401, 403].contains(&reply.status);
            assert_eq!(refused, !may, "{scope}: {method} {path}: {} {}", reply.status, reply.text());
            assert!(reply.status < 500, "{method} {path}: {} {}", reply.status, reply.text());
        }
    }
    // A running request looks and invokes, and that is all.
    for (method, path, needs) in &routes {
        let (Needs::Scope(needed) | Needs::OwnView(needed)) = needs;
        let reply = ask(node, Some(&full.live_token), method, path).await;
        let refused = [401, 403].contains(&reply.status);
        assert_eq!(refused, !["read", "invoke"].contains(needed), "{method} {path}: {}", reply.status);
    }
    full.node.stop().await;
}

#[tokio::test]
async fn nobody_makes_a_credential_that_may_more_than_he() {
    let node = TestNode::start().await;
    let admin = token(&node, "default", &["admin"]).await;
    let json = [("Content-Type", "application/json")];
    let make = async |token: &str, body: Value| {
        let body = body.to_string();
        node.send_as(Some(token), Method::POST, "/quell/v1/credentials", &json, body.as_bytes()).await
    };
    assert_eq!(make(&admin, json!({ "scopes": ["read", "cancel"] })).await.status, 201);
    for body in [json!({ "scopes": ["operator"] }), json!({ "scopes": ["read"], "project": "foreign" })] {
        let reply = make(&admin, body).await;
        assert_eq!((reply.error().0, reply.error().1.as_str()), (403, "FSS.0403"));
    }
    // Nor takes over the one of an operator.
    let key = node.token.split('.').nth(1).unwrap();
    for (method, rest) in [(Method::DELETE, ""), (Method::POST, "/rotate")] {
        let path = format!("/quell/v1/credentials/{key}{rest}");
        assert_eq!(ask(&node, Some(&admin), &method, &path).await.status, 403);
    }
    for body in [
        json!({}),
        json!({ "scopes": [] }),
        json!({ "scopes": ["root"] }),
        json!({ "scopes": ["read"], "project": "a:b" }),
        json!({ "scopes": ["read"], "login": "ann" }),
        json!({ "scopes": ["read"], "password": "long enough" }),
        json!({ "scopes": ["read"], "login": "ann", "password": "short" }),
        json!({ "scopes": ["read"], "login": "a b", "password": "long enough" }),
        json!({ "scopes": ["read"], "expires_in_s": 0 }),
        json!({ "scopes": ["read"], "expires_in_s": u64::MAX }),
        json!({ "scopes": ["read"], "note": "n".repeat(600) }),
        json!({ "scopes": ["read"], "colour": "red" }),
    ] {
        let reply = make(&node.token, body.clone()).await;
        assert_eq!((reply.error().0, reply.error().1.as_str()), (400, "FSS.0400"), "{body}");
    }
    let list = node.get("/quell/v1/credentials").await.json();
    assert_eq!(list["count"], 3, "{list}");
    assert!(!list.to_string().contains("secret") && !list.to_string().contains("token"), "{list}");
    node.stop().await;
}
