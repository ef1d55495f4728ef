//! Credentials from their making to their end: tokens, logins, signatures, and what keeps guessing small.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/sign.rs"]
mod sign;
#[path = "support/mod.rs"]
mod support;

use std::{io::Write as _, os::unix::fs::PermissionsExt as _, process::Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Reply, TestNode, within};

const NODE: &str = "/quell/v1/node";

async fn looks(node: &TestNode, token: &str) -> u16 {
    node.send_as(Some(token), Method::GET, NODE, &[], b"").await.status
}

fn host(node: &TestNode) -> String {
    node.endpoint.trim_start_matches("http://").to_owned()
}

async fn signed(
    node: &TestNode,
    keys: (&str, &str, Option<&str>),
    method: Method,
    path: &str,
    body: &[u8],
) -> Reply {
    let headers = sign::sign(keys, method.as_str(), path, &host(node), body);
    let mut headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.push(("Content-Type", "application/json"));
    within(path, node.send_as(None, method, path, &headers, body)).await
}

fn client_json(node: &TestNode) -> Value {
    serde_json::from_slice(&std::fs::read(node.dir.join("client.json")).unwrap()).unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

/// The command line of this node; what it said on stdout and stderr, and its exit code.
async fn quell(node: &TestNode, args: &[&str], stdin: &str) -> (String, String, i32) {
    let mut command = TestNode::client_command(&node.dir, args);
    let stdin = stdin.to_owned();
    let told = tokio::task::spawn_blocking(move || {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdin.take().unwrap().write_all(stdin.as_bytes())); // it may want none
        child.wait_with_output().unwrap()
    });
    let output = within("quell", told).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

#[tokio::test]
async fn the_first_start_makes_one_credential_for_its_owner_only_and_keeps_no_secret_in_the_clear() {
    let node = TestNode::start().await;
    let file = node.dir.join("client.json");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let client = client_json(&node);
    let secret = text(&client, "token").rsplit('.').next().unwrap().to_owned();
    let secret_key = text(&client, "secret_key").to_owned();
    for entry in std::fs::read_dir(&node.dir).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        if entry.file_name() == "client.json" {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        for secret in [&secret, &secret_key] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{:?} has a secret in the clear", entry.file_name());
        }
    }
    assert_eq!(node.get("/quell/v1/credentials").await.json()["count"], 1);
    node.stop().await;
}

#[tokio::test]
async fn what_is_revoked_opens_nothing_by_any_way_and_a_rotated_one_only_by_its_new_secrets() {
    let node = TestNode::start().await;
    for end in ["revoke", "rotate"] {
        let (made, _, code) = quell(
            &node,
            &["credentials", "create", "--scope", "admin", "--login", end, "--output", "json"],
            "correct horse\n",
        )
        .await;
        assert_eq!(code, 0);
        let made: Value = serde_json::from_str(&made).unwrap();
        let login = login(&node, end, "correct horse", None).await;
        assert_eq!(login.status, 201, "{}", login.text());
        let subject = login.header("x-subject-token").to_owned();
        let (token, key) = (text(&made, "token"), text(&made, "key_id"));
        let keys = (key, text(&made, "secret_key"), None);
        let ways = async || {
            [
                looks(&node, token).await,
                looks(&node, &subject).await,
                signed(&node, keys, Method::GET, NODE, b"").await.status,
            ]
        };
        assert_eq!(ways().await, [200, 200, 200]);
        let (told, said, code) = quell(&node, &["credentials", end, key, "--output", "json"], "").await;
        assert_eq!(code, 0, "{said}");
        assert_eq!(ways().await, [403, 403, 403], "{end}");
        let (_, said, code) = quell(&node, &["credentials", end, "nobody"], "").await;
        assert_eq!(code, 5, "{said}");
        if end == "rotate" {
            let rotated: Value = serde_json::from_str(&told).unwrap();
            assert_eq!(looks(&node, text(&rotated, "token")).await, 200);
            let keys = (text(&rotated, "access_key"), text(&rotated, "secret_key"), None);
            assert_eq!(signed(&node, keys, Method::GET, NODE, b"").await.status, 200);
            assert_eq!(self::login(&node, end, "correct horse", None).await.status, 201);
        } else {
            assert_eq!(self::login(&node, end, "correct horse", None).await.status, 401);
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn the_command_line_rotates_its_own_credential_and_goes_on_with_it() {
    let data = TestNode::folder();
    let node = TestNode::start_in(data.path(), &[]).await;
    let before = client_json(&node);
    let (_, said, code) = quell(&node, &["credentials", "rotate", text(&before, "access_key")], "").await;
    assert_eq!(code, 0, "{said}");
    let after = client_json(&node);
    assert_ne!(before["token"], after["token"]);
    assert_ne!(before["secret_key"], after["secret_key"]);
    assert_eq!(looks(&node, text(&before, "token")).await, 403);
    let (list, said, code) = quell(&node, &["credentials", "list"], "").await;
    assert_eq!(code, 0, "{said}");
    assert!(list.contains("read,invoke,cancel,admin,operator") && list.contains("default"), "{list}");
    // And what it revokes is made anew at the next start, for whoever owns the folder.
    let (_, _, code) = quell(&node, &["credentials", "revoke", text(&after, "access_key")], "").await;
    assert_eq!(code, 0);
    let (_, said, code) = quell(&node, &["ls"], "").await;
    assert_eq!(code, 4, "{said}");
    node.stop().await;
    let next = TestNode::start_in(data.path(), &[]).await;
    assert_ne!(client_json(&next)["token"], after["token"]);
    assert_eq!(looks(&next, &next.token).await, 200);
    next.stop().await;
}

async fn login(node: &TestNode, name: &str, password: &str, project: Option<&str>) -> Reply {
    let mut body = json!({ "auth": { "identity": { "methods": ["password"], "password": {
        "user": { "name": name, "password": password, "domain": { "name": "anything" } } } } } });
    if let Some(project) = project {
        body["auth"]["scope"] = json!({ "project": { "name": project } });
    }
    token_for(node, &body).await
}

async fn token_for(node: &TestNode, body: &Value) -> Reply {
    let json = [("Content-Type", "application/json")];
    let body = body.to_string();
    within("a token", node.send_as(None, Method::POST, "/v3/auth/tokens", &json, body.as_bytes())).await
}

#[tokio::test]
async fn a_login_gives_a_token_that_does_what_its_credential_does() {
    let node = TestNode::start().await;
    node.deploy("f", include_str!("functions/plain.py"), json!({ "handler": "index.length" })).await;
    let body =
        json!({ "scopes": ["invoke"], "login": "ann", "password": "correct horse", "expires_in_s": 3600 });
    assert_eq!(node.post("/quell/v1/credentials", &body).await.status, 201);
    let taken = node.post("/quell/v1/credentials", &body).await;
    assert_eq!((taken.error().0, taken.error().1.as_str()), (409, "FSS.0409"));

    let reply = login(&node, "ann", "correct horse", Some("default")).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    let token = &reply.json()["token"];
    assert_eq!((text(token, "expires_at").len(), text(token, "issued_at").len()), (27, 27), "{token}");
    assert_eq!(token["project"]["id"], "default");
    assert_eq!(token["user"]["name"], "ann");
    assert_eq!(token["user"]["domain"]["name"], "anything");
    let subject = reply.header("x-subject-token").to_owned();
    assert!(!reply.text().contains(&subject));
    let json = [("Content-Type", "application/json")];
    let invoke = "/v2/default/fgs/functions/f/invocations";
    let reply = node.send_as(Some(&subject), Method::POST, invoke, &json, b"[1]").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "1"));
    assert_eq!(looks(&node, &subject).await, 403, "it may invoke and no more");

    // A token for a token lives no longer than that one.
    let body = json!({ "auth": { "identity": { "methods": ["token"], "token": { "id": subject } } } });
    let again = token_for(&node, &body).await;
    assert_eq!(again.status, 201, "{}", again.text());
    assert_eq!(again.json()["token"]["expires_at"], token["expires_at"]);

    for (name, password, project) in [
        ("ann", "wrong horse", None),
        ("bob", "correct horse", None),
        ("ann", "correct horse", Some("foreign")),
        ("ann", "", None),
    ] {
        let reply = login(&node, name, password, project).await;
        assert_eq!(reply.status, 401);
        let error = &reply.json()["error"];
        assert_eq!((error["code"].as_u64(), text(error, "title")), (Some(401), "Unauthorized"), "{error}");
    }
    for body in [json!({}), json!({ "auth": { "identity": { "methods": ["totp"] } } }), json!([1])] {
        let reply = token_for(&node, &body).await;
        assert_eq!((reply.status, reply.json()["error"]["code"].as_u64()), (400, Some(400)), "{body}");
    }
    node.stop().await;
}

#[tokio::test]
async fn wrong_passwords_and_signatures_lock_for_a_while_and_the_token_goes_on() {
    let node = TestNode::start().await;
    let body = json!({ "scopes": ["read"], "login": "ann", "password": "correct horse" });
    let made = node.post("/quell/v1/credentials", &body).await.json();
    for _ in 0..6 {
        assert_eq!(login(&node, "ann", "wrong horse", None).await.status, 401);
    }
    assert_eq!(login(&node, "ann", "correct horse", None).await.status, 401, "locked");
    let (key, secret) = (text(&made, "access_key"), text(&made, "secret_key"));
    assert_eq!(signed(&node, (key, secret, None), Method::GET, NODE, b"").await.status, 200);
    for _ in 0..6 {
        assert_eq!(signed(&node, (key, "wrong", None), Method::GET, NODE, b"").await.status, 403);
    }
    assert_eq!(signed(&node, (key, secret, None), Method::GET, NODE, b"").await.status, 403, "locked");
    assert_eq!(looks(&node, text(&made, "token")).await, 200, "which nobody can guess");
    node.stop().await;
}

#[tokio::test]
async fn a_signature_covers_the_body_and_a_token_beside_it_is_enough() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 4, json!({})).await;
    let client = client_json(&node);
    let keys = (text(&client, "access_key"), text(&client, "secret_key"), None);
    let path = "/v2/default/fgs/functions/f/invocations-async";
    let body = json!({ "do": "wait", "port": bell.port }).to_string();
    let reply = signed(&node, keys, Method::POST, path, body.as_bytes()).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let ring = bell.ring().await;
    let headers = sign::sign(keys, "POST", path, &host(&node), body.as_bytes());
    let mut headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.push(("Content-Type", "application/json"));
    let other = node.send_as(None, Method::POST, path, &headers, b"{}").await;
    assert_eq!((other.error().0, other.error().1.as_str()), (401, "FSS.0401"), "another body");
    let both = node.send_as(Some(&node.token), Method::POST, path, &headers, b"{}").await;
    assert_eq!(both.status, 202, "a valid token counts, whatever stands beside it");
    let none = [("Authorization", "none"), ("Content-Type", "application/json")];
    assert_eq!(node.send_as(Some(&node.token), Method::POST, path, &none, b"{}").await.status, 202);

    // A running request signs with its own keys, and only together with its token.
    let fact = |name: &str| ring.facts[name].as_str().unwrap().to_owned();
    let (token, key, secret) = (fact("token"), fact("access_key"), fact("secret_key"));
    let child = json!({ "do": "wait", "port": bell.port }).to_string();
    let child = child.as_bytes();
    for wrong in [None, Some("qa.x"), Some(node.token.as_str())] {
        let reply = signed(&node, (&key, &secret, wrong), Method::POST, path, child).await;
        assert_eq!(reply.status, 401, "{wrong:?}");
    }
    let reply = signed(&node, (&key, &secret, Some(&token)), Method::POST, path, child).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let _child = bell.ring().await;
    let tree = node.tree(&ring.request()).await;
    assert_eq!(tree[reply.json()["request_id"].as_str().unwrap()]["parent"], json!(ring.request()));
    assert_eq!(node.cancel("f", &ring.request(), Mode::Both).await.header("x-quell-stop"), "stopped");
    let late = signed(&node, (&key, &secret, Some(&token)), Method::POST, path, child).await;
    assert_eq!(late.status, 401, "its keys ended with it");
    node.stop().await;
}

#[tokio::test]
async fn who_asks_too_much_is_told_so_in_the_shape_of_the_api_and_nobody_else_is() {
    let node = TestNode::start_with(&["--rate-limit", "5", "--refusal-limit", "3"]).await;
    let mut told = Vec::new();
    for _ in 0..20 {
        told.push(looks(&node, "qk.nobody.x").await);
    }
    assert!(told.contains(&403) && told.contains(&429), "{told:?}");
    let mut replies = Vec::new();
    for _ in 0..20 {
        replies.push(node.get(NODE).await);
    }
    let refused: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 429).collect();
    assert!(refused.len() < 20 && !refused.is_empty());
    let (status, code, message) = refused[0].error();
    assert_eq!((status, code.as_str(), message.starts_with("api is busy now")), (429, "FSS.0429", true));
    assert!(!refused[0].header("x-request-id").is_empty());
    node.stop().await;
}

#[tokio::test]
async fn refusals_are_in_the_log_without_any_secret() {
    let mut node = TestNode::start().await;
    let wrong = format!("{}x", node.token);
    assert_eq!(looks(&node, &wrong).await, 403);
    let body = json!({ "request_id": "x" }).to_string();
    let cancel = "/v2/foreign/fgs/functions/f/cancel";
    assert_eq!(node.send(Method::POST, cancel, &[], body.as_bytes()).await.status, 403);
    let token = node.token.clone();
    node.signal(nix::sys::signal::Signal::SIGTERM);
    let (_, log) = node.ended().await;
    let lines: Vec<&String> = log.iter().filter(|line| line.contains("audit: refused")).collect();
    assert_eq!(lines.len(), 2, "{log:#?}");
    assert!(lines[0].contains("another secret") && lines[0].contains(NODE), "{}", lines[0]);
    assert!(lines[1].contains("another project") && lines[1].contains("127.0.0.1"), "{}", lines[1]);
    let secret = token.rsplit('.').next().unwrap();
    assert!(!log.iter().any(|line| line.contains(secret)));
}

#[tokio::test]
async fn a_backup_of_a_node_at_work_is_a_node() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 4, json!({})).await;
    let wait = json!({ "do": "wait", "port": bell.port });
    let (goes_on, canceled) = (node.invoke_async("f", &wait).await, node.invoke_async("f", &wait).await);
    let _rings = [bell.ring().await, bell.ring().await];
    assert_eq!(node.cancel("f", &canceled, Mode::Force).await.header("x-quell-stop"), "stopped");
    let elsewhere = TestNode::folder();
    let file = elsewhere.path().join("quell.db");
    let (_, said, code) = quell(&node, &["backup", file.to_str().unwrap()], "").await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (_, said, code) = quell(&node, &["backup", file.to_str().unwrap()], "").await;
    assert_eq!((code, said.contains("is there already")), (2, true), "{said}");
    let left = std::fs::read_dir(&node.dir).unwrap().flatten();
    assert!(!left.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("backup")));
    assert_eq!(node.cancel("f", &goes_on, Mode::Force).await.header("x-quell-stop"), "stopped");
    node.stop().await;

    let copy = TestNode::start_in(elsewhere.path(), &[]).await;
    assert_eq!(bell.ring().await.request(), goes_on, "at the time of the copy it ran");
    assert_eq!(copy.settled("f", &canceled).await, ("FAIL".to_owned(), 4208));
    copy.stop().await;
}

/// Sends the head of a request and holds its body back until `meanwhile` is done; the status.
async fn held(
    node: &TestNode,
    token: &str,
    path: &str,
    body: &str,
    meanwhile: impl Future<Output = ()>,
) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(host(node)).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nX-Auth-Token: {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        host(node),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The node asks for the body once it reads it: by then it knows who asks.
    let mut answer = vec![0; 1_024];
    let read = within("100 Continue", stream.read(&mut answer)).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&answer[..read]));
    meanwhile.await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_is_revoked_while_a_body_is_on_its_way_opens_nothing_when_it_is_there() {
    let node = TestNode::start().await;
    node.deploy("f", include_str!("functions/plain.py"), json!({ "handler": "index.length" })).await;
    let function = "/v2/default/fgs/functions/f";
    for (path, body) in [
        ("/quell/v1/credentials".to_owned(), json!({ "scopes": ["admin"] })),
        (format!("{function}/invocations-async"), json!({})),
        (format!("{function}/invocations"), json!([1])),
        (format!("{function}/cancel"), json!({ "request_id": "1167bf8c-87b0-43ab-8f5f-26b16c64f252" })),
        (format!("{function}/versions"), json!({})),
        (format!("{function}/aliases"), json!({ "name": "a", "version": "latest" })),
        ("/v2/default/fgs/functions".to_owned(), json!({})),
    ] {
        let made = node.post("/quell/v1/credentials", &json!({ "scopes": ["admin"] })).await.json();
        let key = format!("/quell/v1/credentials/{}", text(&made, "key_id"));
        let revoked = async {
            assert_eq!(node.send(Method::DELETE, &key, &[], b"").await.status, 204);
        };
        let status = held(&node, text(&made, "token"), &path, &body.to_string(), revoked).await;
        assert_eq!(status, 403, "{path}");
    }
    assert_eq!(node.get("/quell/v1/credentials").await.json()["count"], 1, "nobody was made");
    node.stop().await;
}

#[tokio::test]
async fn nobody_makes_a_credential_that_outlives_himself() {
    let node = TestNode::start().await;
    let body =
        json!({ "scopes": ["admin"], "expires_in_s": 3_600, "login": "ann", "password": "correct horse" });
    let short = node.post("/quell/v1/credentials", &body).await.json();
    let json = [("Content-Type", "application/json")];
    let subject = login(&node, "ann", "correct horse", None).await.header("x-subject-token").to_owned();
    for token in [text(&short, "token"), &subject] {
        for body in [json!({ "scopes": ["admin"] }), json!({ "scopes": ["admin"], "expires_in_s": 99_999 })] {
            let body = body.to_string();
            let path = "/quell/v1/credentials";
            let made = node.send_as(Some(token), Method::POST, path, &json, body.as_bytes()).await;
            assert_eq!((made.status, &made.json()["expires"]), (201, &short["expires"]), "{}", made.text());
        }
    }
    // Nor gives new secrets to one that does.
    let lasting = node.post("/quell/v1/credentials", &json!({ "scopes": ["admin"] })).await.json();
    let rotate = format!("/quell/v1/credentials/{}/rotate", text(&lasting, "key_id"));
    let refused = node.send_as(Some(text(&short, "token")), Method::POST, &rotate, &[], b"").await;
    assert_eq!(refused.error().0, 403);
    node.stop().await;
}

#[tokio::test]
async fn wrong_tokens_at_the_login_are_told_only_so_often() {
    let node = TestNode::start_with(&["--refusal-limit", "3"]).await;
    let body = json!({ "auth": { "identity": { "methods": ["token"], "token": { "id": "qt.x" } } } });
    let mut told = Vec::new();
    for _ in 0..20 {
        told.push(token_for(&node, &body).await.status);
    }
    assert!(told.contains(&401) && told.contains(&429), "{told:?}");
    node.stop().await;
}
