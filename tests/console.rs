//! The web console's end of the node: the page as it is served, and the events that it lives on.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::collections::HashSet;

use nix::sys::signal::Signal;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use support::{Bell, LIMIT, Mode, TestNode, within};

const EVENTS: &str = "/quell/v1/events";
/// Watchers of one project; `MAX_PROJECT_WATCHERS` of the node.
const PLACES: usize = 16;

/// An open stream of events.
struct Events {
    response: reqwest::Response,
    rest: String,
}

impl Events {
    async fn ask(node: &TestNode, token: Option<&str>) -> reqwest::Response {
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
        let mut request = client.get(format!("{}{EVENTS}", node.endpoint));
        if let Some(token) = token {
            request = request.header("X-Auth-Token", token);
        }
        request.send().await.unwrap()
    }

    /// Watches; what it was greeted with.
    async fn open(node: &TestNode, token: &str) -> (Self, Value) {
        let response = Self::ask(node, Some(token)).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let mut events = Self { response, rest: String::new() };
        let (name, hello) = events.next().await.unwrap();
        assert_eq!(name, "hello");
        (events, hello)
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        within("an event", async {
            loop {
                if let Some((event, rest)) = self.rest.split_once("\n\n") {
                    let (event, rest) = (event.to_owned(), rest.to_owned());
                    self.rest = rest;
                    if event.starts_with(':') {
                        continue; // nothing new
                    }
                    let (name, data) = event.split_once('\n').unwrap();
                    let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                    return Some((name.strip_prefix("event: ").unwrap().to_owned(), data));
                }
                let chunk = self.response.chunk().await.unwrap()?;
                self.rest.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        })
        .await
    }

    async fn changes(&mut self) -> Value {
        let (name, changes) = self.next().await.unwrap();
        assert_eq!(name, "changes", "{changes}");
        changes
    }

    /// All of one moment: the ids of its requests, and what is gone.
    async fn moment(&mut self) -> (HashSet<String>, HashSet<String>, Value) {
        let (mut rows, mut gone) = (HashSet::new(), HashSet::new());
        loop {
            let changes = self.changes().await;
            let requests = changes["requests"].as_array().unwrap();
            rows.extend(requests.iter().map(|row| row["request_id"].as_str().unwrap().to_owned()));
            let over = changes["gone"].as_array().unwrap();
            gone.extend(over.iter().map(|id| id.as_str().unwrap().to_owned()));
            if changes["more"] == false {
                return (rows, gone, changes);
            }
        }
    }

    /// Changes until one of them holds this request in this state.
    async fn until(&mut self, request: &str, state: &str) -> Value {
        loop {
            let changes = self.changes().await;
            let rows = changes["requests"].as_array().unwrap();
            let row = rows.iter().find(|row| row["request_id"] == request && row["state"] == state);
            if let Some(row) = row {
                return row.clone();
            }
        }
    }

    async fn until_gone(&mut self, request: &str) {
        while !self.moment().await.1.contains(request) {}
    }
}

async fn token(node: &TestNode, project: &str, scope: &str) -> (String, String) {
    let body = json!({ "project": project, "scopes": [scope] });
    let reply = node.post("/quell/v1/credentials", &body).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let text = |name: &str| reply.json()[name].as_str().unwrap().to_owned();
    (text("token"), text("key_id"))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn whoever_opens_the_address_of_a_node_is_told_where_to_go_and_nothing_of_the_node() {
    let node = TestNode::start().await;
    let root = node.send_as(None, Method::GET, "/", &[], b"").await;
    assert_eq!(root.status, 200);
    let told = root.json();
    for name in ["console", "health", "openapi"] {
        let path = told[name].as_str().unwrap();
        assert_eq!(node.send_as(None, Method::GET, path, &[], b"").await.status, 200, "{name}: {path}");
    }
    assert_eq!(node.send_as(None, Method::POST, "/", &[], b"").await.error().0, 405);
    node.stop().await;
}

#[tokio::test]
async fn the_page_is_served_to_anybody_with_a_policy_that_lets_in_nothing_but_itself() {
    let node = TestNode::start().await;
    let page = node.send_as(None, Method::GET, "/console", &[], b"").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let text = page.text();
    let named = text.split("/console/").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    let mut files: HashSet<String> = named.collect();
    let script = node.send_as(None, Method::GET, "/console/main.js", &[], b"").await.text();
    let imports = script.lines().filter_map(|line| line.split_once(" from './"));
    files.extend(imports.map(|(_, name)| name.split('\'').next().unwrap().to_owned()));
    assert!(files.len() > 10, "{files:?}");
    let paths = files.iter().map(|name| format!("/console/{name}"));
    for path in paths.chain(["/console".to_owned(), "/console/".to_owned()]) {
        let reply = node.send_as(None, Method::GET, &path, &[], b"").await;
        assert_eq!(reply.status, 200, "{path}");
        let policy = reply.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        for rule in [
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(rule), "{path}: {rule}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("referrer-policy"), "no-referrer");
        assert_eq!(reply.header("x-frame-options"), "DENY");
        assert!(!reply.text().contains("http://") || path.ends_with(".svg") || path.ends_with("element.js"));
    }
    for path in ["/console/nothing.js", "/console/main.js/x", "/console/..%2fserve.rs", "/console/a/b"] {
        let (status, code, _) = node.send_as(None, Method::GET, path, &[], b"").await.error();
        assert_eq!((status, code.as_str()), (404, "FSS.0404"), "{path}");
    }
    let (status, code, _) = node.send_as(None, Method::POST, "/console", &[], b"").await.error();
    assert_eq!((status, code.as_str()), (405, "FSS.0405"));
    node.stop().await;
}

#[tokio::test]
async fn events_begin_with_all_there_is_and_go_on_with_what_changes_and_nothing_else() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let wait = json!({ "do": "wait", "port": bell.port });
    let mut waiting = Vec::new();
    for _ in 0..600 {
        waiting.push(node.invoke_async("f", &wait).await);
    }
    let running = waiting[0].clone();
    let mut ring = bell.ring().await;
    let (mut events, hello) = Events::open(&node, &node.token).await;
    assert_eq!((&hello["project"], hello["heartbeat_ms"].as_u64().is_some()), (&json!("default"), true));
    assert!(hello["scopes"].as_array().unwrap().contains(&json!("admin")));
    assert!(!hello.to_string().contains(&node.token));
    let first = events.changes().await;
    assert_eq!(first["more"], true, "600 rows are more than one part");
    let rows = first["requests"].as_array().unwrap();
    let row = rows.iter().find(|row| row["request_id"] == running.as_str()).unwrap();
    assert_eq!((&row["state"], &row["function"]), (&json!("running"), &json!("default:f")));
    assert_eq!(row, &node.tree(&running).await[&running], "a row is what it is elsewhere");
    let (rest, gone, last) = events.moment().await;
    assert_eq!((rows.len() + rest.len(), gone.len(), &last["live"]), (600, 0, &json!(600)));
    assert_eq!(last["instances"].as_array().unwrap().len(), 1);

    // One of them is taken out: that, and nothing of the other 599.
    let out = waiting.pop().unwrap();
    assert_eq!(node.cancel("f", &out, Mode::Plain).await.status, 200);
    let mut changed = HashSet::new();
    loop {
        let (rows, gone, last) = events.moment().await;
        changed.extend(rows);
        if gone.contains(&out) {
            assert_eq!((gone.len(), &last["live"]), (1, &json!(599)));
            break;
        }
    }
    changed.remove(&out);
    assert!(changed.is_empty(), "{changed:?}");

    // The next takes its place.
    ring.release().await;
    let second = bell.ring().await;
    let next = second.request();
    let row = events.until(&next, "running").await;
    assert_eq!(row["attempt"], 1);
    let reply = node.cancel("f", &next, Mode::Force).await;
    assert_eq!(reply.header("x-quell-stop"), "stopped");
    events.until_gone(&next).await;
    // Who comes when nobody has watched for a while sees what lives then.
    drop(events);
    node.invoke_async("f", &wait).await;
    let (mut events, _) = Events::open(&node, &node.token).await;
    let (rows, ..) = events.moment().await;
    let there = node.view().await["requests"].as_array().unwrap().clone();
    let there = there.iter().map(|row| row["request_id"].as_str().unwrap().to_owned());
    assert_eq!(rows, there.collect::<HashSet<_>>());
    drop(events);
    node.stop().await;
}

#[tokio::test]
async fn an_instance_is_told_with_its_processes_and_a_parent_that_is_over_as_long_as_its_children_live() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 4, json!({})).await;
    let (mut events, _) = Events::open(&node, &node.token).await;
    let (rows, ..) = events.moment().await;
    assert!(rows.is_empty());
    let child = json!({ "do": "wait", "port": bell.port, "tag": "child" });
    let parent = json!({ "do": "wait", "port": bell.port, "tag": "parent", "children": [child] });
    let headers = [("Content-Type", "application/json"), ("X-Quell-Labels", "team=x")];
    let path = "/v2/default/fgs/functions/f/invocations-async";
    let accepted = node.send(Method::POST, path, &headers, parent.to_string().as_bytes()).await;
    let root = accepted.json()["request_id"].as_str().unwrap().to_owned();
    let mut rings = bell.rings(2).await;
    let below = rings["child"].request();
    assert_eq!(events.until(&below, "running").await["parent"], json!(root));
    let child_pid = rings["child"].pid;
    loop {
        let changes = events.changes().await;
        let instances = changes["instances"].as_array().unwrap();
        let told = |row: &Value| {
            let processes = row["processes"].as_array().unwrap();
            processes.iter().any(|process| process["pid"] == child_pid && process["comm"] != "")
        };
        if instances.iter().any(told) {
            break;
        }
    }
    rings.get_mut("parent").unwrap().release().await;
    let settled = events.until(&root, "settled").await;
    assert_eq!((&settled["code"], &settled["function"]), (&json!(0), &json!("default:f")));
    assert_eq!((&settled["asynchronous"], &settled["labels"]), (&json!(true), &json!({ "team": "x" })));
    let times = ["created_ms", "started_ms"].map(|name| settled[name].as_i64().unwrap());
    assert!(times[0] > 1_700_000_000_000 && times[0] <= times[1], "{settled}");
    let tree = node.tree(&root).await;
    let row = &tree[&root];
    assert_eq!((&row["state"], &row["created_ms"]), (&json!("settled"), &settled["created_ms"]));
    // And a new watcher sees the whole tree as well.
    let (mut second, _) = Events::open(&node, &node.token).await;
    assert_eq!(second.moment().await.0, HashSet::from([root.clone(), below]));
    rings.get_mut("child").unwrap().release().await;
    events.until_gone(&root).await;
    drop((events, second));
    node.stop().await;
}

#[tokio::test]
async fn nobody_hears_of_another_project_and_without_a_credential_nobody_hears_anything() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let (foreign, key) = token(&node, "foreign", "admin").await;
    node.deploy_probe("f", 1, 4, json!({})).await;
    let wait = json!({ "do": "wait", "port": bell.port });
    node.invoke_async("f", &wait).await;
    let ring = bell.ring().await;
    let (mut events, hello) = Events::open(&node, &foreign).await;
    assert_eq!(hello["project"], "foreign");
    let mut heard = vec![events.changes().await];
    node.invoke_async("f", &wait).await;
    let other = bell.ring().await;
    // Its own arrives, after all that: nothing of the others came with it.
    let body = json!({
        "func_name": "own", "package": "default", "runtime": "Python3.10", "handler": "index.handler",
        "timeout": 60, "memory_size": 128, "code_type": "inline",
        "func_code": { "file": support::base64(include_bytes!("functions/probe.py")) },
    });
    let json_type = [("Content-Type", "application/json")];
    for (path, body) in [("", body), ("/own/invocations-async", wait.clone())] {
        let path = format!("/v2/foreign/fgs/functions{path}");
        let reply =
            node.send_as(Some(&foreign), Method::POST, &path, &json_type, body.to_string().as_bytes()).await;
        assert!(reply.status < 300, "{}", reply.text());
    }
    let own = bell.ring().await;
    loop {
        let changes = events.changes().await;
        heard.push(changes.clone());
        let rows = changes["requests"].as_array().unwrap();
        if rows.iter().any(|row| row["request_id"] == own.request() && row["state"] == "running") {
            break;
        }
    }
    let heard = Value::Array(heard).to_string();
    assert!(!heard.contains("default:f") && !heard.contains(&ring.request()), "{heard}");
    assert!(!heard.contains(&other.request()), "{heard}");

    // Revoked meanwhile: it ends.
    let path = format!("/quell/v1/credentials/{key}");
    assert_eq!(node.send(Method::DELETE, &path, &[], b"").await.status, 204);
    let (name, last) = loop {
        let (name, data) = events.next().await.unwrap();
        if name != "changes" {
            break (name, data);
        }
    };
    assert_eq!(
        (name.as_str(), last),
        ("end", json!({ "error_code": "FSS.0403", "error_msg": "invalid token" }))
    );
    assert_eq!(events.next().await, None);
    for token in [None, Some("qk.nobody.nothing"), Some(foreign.as_str())] {
        let response = Events::ask(&node, token).await;
        assert_eq!(response.status(), 403);
        assert_eq!(response.json::<Value>().await.unwrap()["error_code"], "FSS.0403");
    }
    for (scope, status) in [("read", 200), ("invoke", 403), ("cancel", 403), ("operator", 403)] {
        let (token, _) = token(&node, "default", scope).await;
        assert_eq!(Events::ask(&node, Some(&token)).await.status(), status, "{scope}");
    }
    drop((ring, other, own));
    node.stop().await;
}

#[tokio::test]
async fn more_watchers_than_there_are_places_are_refused_until_one_goes() {
    let node = TestNode::start().await;
    let mut open = Vec::new();
    for _ in 0..PLACES {
        open.push(Events::open(&node, &node.token).await.0);
    }
    let response = Events::ask(&node, Some(&node.token)).await;
    assert_eq!(response.status(), 429);
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        body,
        json!({ "error_code": "FSS.0429", "error_msg": "api is busy now: too many watch already" })
    );
    let (foreign, _) = token(&node, "foreign", "admin").await;
    drop(Events::open(&node, &foreign).await); // there is room for others
    open.pop();
    within("a place", async { while Events::ask(&node, Some(&node.token)).await.status() == 429 {} }).await;
    drop(open);
    node.stop().await;
}

#[tokio::test]
async fn events_end_with_the_node_and_do_not_hold_it_up() {
    let mut node = TestNode::start().await;
    let (mut events, _) = Events::open(&node, &node.token).await;
    assert_eq!(events.changes().await["draining"], false);
    node.signal(Signal::SIGTERM);
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    let (name, data) = last.unwrap();
    assert_eq!((name.as_str(), &data["error_code"]), ("end", &json!("FSS.0503")));
    let (status, log) = node.ended().await;
    assert!(status.success(), "{log:#?}");
    assert!(!log.iter().any(|line| line.contains("panicked")), "{log:#?}");
}

#[tokio::test]
async fn a_form_of_another_site_has_no_token_and_does_nothing() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let request = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
    let ring = bell.ring().await;
    let path = "/v2/default/fgs/functions/f/cancel";
    let body = json!({ "request_id": request, "type": "force" }).to_string();
    // What a browser can be made to send without asking, with what it may know of a console that is open.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json"]
    {
        let token = format!("quell-token={}; X-Auth-Token={}", node.token, node.token);
        let headers = [("Content-Type", kind), ("Origin", "http://evil.example"), ("Cookie", token.as_str())];
        let (status, code, _) =
            node.send_as(None, Method::POST, path, &headers, body.as_bytes()).await.error();
        assert_eq!((status, code.as_str()), (403, "FSS.0403"), "{kind}");
        let in_url = format!("{path}?X-Auth-Token={}&token={}", node.token, node.token);
        assert_eq!(node.send_as(None, Method::POST, &in_url, &headers, body.as_bytes()).await.status, 403);
    }
    // Asked first whether it may send a token, it is not told so.
    let asks = [
        ("Origin", "http://evil.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "x-auth-token, content-type"),
    ];
    for path in [path, EVENTS, "/console"] {
        let reply = node.send_as(None, Method::OPTIONS, path, &asks, b"").await;
        assert_eq!(reply.status, 405, "{path}");
        assert!(reply.headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{reply:?}");
    }
    assert_eq!(header(&node.get("/quell/v1/node").await.headers, "access-control-allow-origin"), "");
    assert_eq!(node.tree(&request).await.len(), 1, "it lives");
    assert_eq!(node.get("/quell/v1/cancels").await.json()["count"], 0);
    drop(ring);
    node.stop().await;
}
