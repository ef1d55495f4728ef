//! Versions of functions and the aliases that name them: what is published stays, and what was accepted for
//! a version runs that one.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Reply, TestNode, base64, within};

const SOURCE: &str = include_str!("functions/versioned.py");
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

fn path(function: &str, rest: &str) -> String {
    format!("/v2/default/fgs/functions/{function}{rest}")
}

/// `f` in a version, or by an alias with its `!`.
fn f(last: &str) -> String {
    format!("default:default:f:{last}")
}

async fn put(node: &TestNode, path: &str, body: &Value) -> Reply {
    node.send(Method::PUT, path, &JSON, body.to_string().as_bytes()).await
}

async fn delete(node: &TestNode, path: &str) -> Reply {
    node.send(Method::DELETE, path, &[], b"").await
}

/// A node with `f`, one request at a time.
async fn node_with_f() -> TestNode {
    let node = TestNode::start_with(&["--retry-backoff", "0.05"]).await;
    deploy_f(&node).await;
    node
}

async fn deploy_f(node: &TestNode) {
    let more = json!({
        "strategy_config": { "concurrency": 1, "concurrent_num": 1 },
        "user_data": "{\"colour\":\"blue\"}",
    });
    node.deploy("f", SOURCE, more).await;
}

/// Gives `latest` other code.
async fn change_code(node: &TestNode, code: &str) {
    let source = SOURCE.replace("\"one\"", &format!("\"{code}\""));
    let body = json!({ "code_type": "inline", "func_code": { "file": base64(source.as_bytes()) } });
    let reply = put(node, &path("f", "/code"), &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

async fn publish(node: &TestNode, body: &Value) -> Reply {
    node.post(&path("f", "/versions"), body).await
}

async fn published(node: &TestNode, version: &str) -> Value {
    let reply = publish(node, &json!({ "version": version })).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// `v1` with code "one", `v2` with code "two", and `latest` with code "three".
async fn two_versions(node: &TestNode) {
    published(node, "v1").await;
    change_code(node, "two").await;
    published(node, "v2").await;
    change_code(node, "three").await;
}

async fn alias(node: &TestNode, name: &str, body: Value) -> Value {
    let mut body = body;
    body["name"] = json!(name);
    let reply = node.post(&path("f", "/aliases"), &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// What a call is answered with: (code, version, alias).
async fn runs(node: &TestNode, function: &str) -> (String, String, String) {
    let reply = within("an answer", node.invoke(function, &json!({}))).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let facts = reply.json();
    assert_eq!(facts["version"], facts["told_version"]);
    let text = |name: &str| facts[name].as_str().unwrap().to_owned();
    (text("code"), text("version"), text("alias"))
}

fn ran(code: &str, version: &str, alias: &str) -> (String, String, String) {
    (code.to_owned(), version.to_owned(), alias.to_owned())
}

#[track_caller]
fn refused(reply: &Reply, status: u16, code: &str) -> String {
    let (got, found, message) = reply.error();
    assert_eq!((got, found.as_str()), (status, code), "{message}");
    message
}

#[tokio::test]
async fn a_published_version_stays_as_it_was_while_latest_changes() {
    let node = node_with_f().await;
    let shown = publish(&node, &json!({ "version": "v1", "description": "the first" })).await.json();
    assert_eq!((&shown["version"], &shown["version_description"]), (&json!("v1"), &json!("the first")));
    assert_eq!(shown["func_urn"], "urn:fss:local:default:function:default:f:v1");
    change_code(&node, "two").await;
    let config = json!({
        "func_name": "f", "runtime": "Python3.10", "handler": "index.handler", "timeout": 9, "memory_size": 256,
        "user_data": "{\"colour\":\"red\"}",
    });
    assert_eq!(put(&node, &path(&f("latest"), "/config"), &config).await.status, 200);
    assert_eq!(runs(&node, "f").await, ran("two", "latest", ""));
    assert_eq!(runs(&node, &f("v1")).await, ran("one", "v1", ""));
    let reply = node.invoke(&f("v1"), &json!({})).await.unwrap().json();
    assert_eq!(reply["colour"], "blue");
    let of = async |last: &str, rest: &str| node.get(&path(&f(last), rest)).await.json();
    assert_eq!(of("v1", "/config").await, shown);
    assert_eq!(of("latest", "/config").await["timeout"], 9);
    assert_eq!(of("v1", "/code").await["func_code"]["file"], base64(SOURCE.as_bytes()));
    // What is named after nobody is named after its second.
    let second = publish(&node, &json!({})).await.json()["version"].as_str().unwrap().to_owned();
    assert!(second.len() == 16 && second.starts_with('v') && second.as_bytes()[9] == b'-', "{second}");
    let list = async |query: &str| node.get(&path("f", &format!("/versions{query}"))).await.json();
    let names = |list: &Value| {
        let versions = list["versions"].as_array().unwrap().clone();
        versions.iter().map(|one| one["version"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = list("").await;
    assert_eq!(names(&all), ["latest", second.as_str(), "v1"]);
    assert_eq!((&all["count"], &all["next_marker"]), (&json!(3), &json!(0)));
    let page = list("?maxitems=1&marker=1").await;
    assert_eq!((names(&page), &page["next_marker"]), (vec![second], &json!(2)));
    let functions = node.get("/v2/default/fgs/functions").await.json();
    assert_eq!(functions["count"], 1, "a version is no function of its own: {functions}");
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_and_changes_nothing() {
    let node = node_with_f().await;
    let digest = published(&node, "v1").await["digest"].clone();
    refused(&publish(&node, &json!({ "version": "v2" })).await, 400, "FSS.1016");
    change_code(&node, "two").await;
    refused(&publish(&node, &json!({ "version": "v1" })).await, 409, "FSS.1062");
    refused(&publish(&node, &json!({ "digest": digest })).await, 400, "FSS.1011");
    for version in [json!("latest"), json!("!a"), json!("a b"), json!(7)] {
        refused(&publish(&node, &json!({ "version": version })).await, 400, "FSS.1015");
    }
    refused(&publish(&node, &json!({ "description": "x".repeat(513) })).await, 400, "FSS.1019");
    refused(&publish(&node, &json!([])).await, 406, "FSS.0406");
    refused(&node.post(&path("g", "/versions"), &json!({})).await, 404, "FSS.1051");
    refused(&node.post(&path(&f("v1"), "/versions"), &json!({})).await, 400, "FSS.1015");
    assert_eq!(node.get(&path("f", "/versions")).await.json()["count"], 2);
    // A version does not change by any door.
    let config = json!({
        "func_name": "f", "runtime": "Python3.10", "handler": "index.handler", "timeout": 9, "memory_size": 128,
    });
    let code = json!({ "code_type": "inline", "func_code": { "file": base64(b"x = 1") } });
    for (rest, body) in
        [("/config", config), ("/code", code), ("/config-max-instance", json!({ "max_instance_num": 3 }))]
    {
        refused(&put(&node, &path(&f("v1"), rest), &body).await, 400, "FSS.1015");
        refused(&put(&node, &path(&f("!a"), rest), &body).await, 400, "FSS.1014");
    }
    assert_eq!(runs(&node, &f("v1")).await, ran("one", "v1", ""));
    for rest in ["/config", "/code", "/versions", "/async-invoke-config"] {
        refused(&node.get(&path(&f("v9"), rest)).await, 404, "FSS.1052");
        refused(&node.get(&path(&f("!nobody"), rest)).await, 404, "FSS.1053");
    }
    refused(&node.post(&path(&f("v9"), "/invocations"), &json!({})).await, 404, "FSS.1052");
    refused(&node.post(&path(&f("!nobody"), "/invocations-async"), &json!({})).await, 404, "FSS.1053");
    node.stop().await;
}

#[tokio::test]
async fn an_alias_is_made_shown_switched_and_removed() {
    let node = node_with_f().await;
    two_versions(&node).await;
    let made = alias(&node, "prod", json!({ "version": "v1", "description": "for all" })).await;
    assert_eq!(made["alias_urn"], "urn:fss:local:default:function:default:f:!prod");
    assert_eq!((&made["name"], &made["version"]), (&json!("prod"), &json!("v1")));
    assert_eq!((&made["description"], &made["additional_version_weights"]), (&json!("for all"), &json!({})));
    assert_eq!(runs(&node, &f("!prod")).await, ran("one", "v1", "prod"));
    assert_eq!(runs(&node, &f("v1")).await, ran("one", "v1", ""), "the same instance, and no alias");
    let one = path("f", "/aliases/prod");
    assert_eq!(node.get(&one).await.json(), made);
    assert_eq!(node.get(&path("f", "/aliases")).await.json(), json!([made]));
    assert_eq!(node.get(&path(&f("!prod"), "/config")).await.json()["version"], "v1");
    let reply =
        put(&node, &one, &json!({ "version": "v2", "additional_version_weights": { "v1": 0 } })).await;
    assert_eq!((reply.status, &reply.json()["additional_version_weights"]), (200, &json!({ "v1": 0 })));
    assert_eq!(runs(&node, &f("!prod")).await, ran("two", "v2", "prod"));
    assert_eq!(put(&node, &one, &json!({ "version": "latest" })).await.status, 200);
    assert_eq!(runs(&node, &f("!prod")).await, ran("three", "latest", "prod"));
    assert_eq!(delete(&node, &one).await.status, 204);
    refused(&node.post(&path(&f("!prod"), "/invocations"), &json!({})).await, 404, "FSS.1053");
    for reply in
        [node.get(&one).await, delete(&node, &one).await, put(&node, &one, &json!({ "version": "v1" })).await]
    {
        refused(&reply, 404, "FSS.1053");
    }
    node.stop().await;
}

#[tokio::test]
async fn what_no_alias_can_say_is_refused_and_changes_nothing() {
    let node = node_with_f().await;
    two_versions(&node).await;
    let made = alias(&node, "prod", json!({ "version": "v1" })).await;
    let create = async |body: Value| node.post(&path("f", "/aliases"), &body).await;
    refused(&create(json!({ "name": "prod", "version": "v2" })).await, 409, "FSS.1063");
    refused(&create(json!({ "name": "latest", "version": "v2" })).await, 400, "FSS.1014");
    refused(&create(json!({ "name": "a", "version": "v9" })).await, 404, "FSS.1052");
    let weights =
        |weights: Value| json!({ "name": "a", "version": "v1", "additional_version_weights": weights });
    refused(&create(weights(json!({ "v9": 1 }))).await, 404, "FSS.1052");
    refused(&create(weights(json!({ "v2": 101 }))).await, 400, "FSS.1092");
    refused(&create(weights(json!({ "v2": 1, "latest": 1 }))).await, 400, "FSS.1091");
    let rules = json!({ "v2": { "combine_type": "and", "rules": [] } });
    let strategy = json!({ "name": "a", "version": "v1", "additional_version_strategy": rules });
    let message = refused(&create(strategy).await, 400, "FSS.1091");
    assert!(message.contains("additional_version_strategy"), "{message}");
    refused(
        &node.post(&path(&f("v1"), "/aliases"), &json!({ "name": "a", "version": "v1" })).await,
        400,
        "FSS.1015",
    );
    refused(&put(&node, &path("f", "/aliases/prod"), &json!({})).await, 400, "FSS.1015");
    assert_eq!(node.get(&path("f", "/aliases")).await.json(), json!([made]));
    for at in 1..10 {
        alias(&node, &format!("a{at}"), json!({ "version": "v1" })).await;
    }
    refused(&create(json!({ "name": "b", "version": "v1" })).await, 403, "FSS.1043");
    node.stop().await;
}

#[tokio::test]
async fn an_alias_with_two_versions_gives_each_its_share() {
    let node = node_with_f().await;
    two_versions(&node).await;
    alias(&node, "prod", json!({ "version": "v1", "additional_version_weights": { "v2": 50 } })).await;
    let share = async |calls: usize| {
        let mut second = 0;
        for _ in 0..calls {
            let (_, version, alias) = runs(&node, &f("!prod")).await;
            assert_eq!(alias, "prod");
            second += usize::from(version == "v2");
        }
        second
    };
    // Of 200 fair draws this is more than eight standard deviations on either side.
    let second = share(200).await;
    assert!((40..=160).contains(&second), "{second}");
    for (percent, all) in [(0, 0), (100, 20)] {
        let body = json!({ "version": "v1", "additional_version_weights": { "v2": percent } });
        assert_eq!(put(&node, &path("f", "/aliases/prod"), &body).await.status, 200);
        assert_eq!(share(20).await, all, "{percent}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_version_is_deleted_alone_unless_an_alias_names_it_and_latest_never() {
    let (mut node, bell) = (node_with_f().await, Bell::hang().await);
    two_versions(&node).await;
    refused(&delete(&node, &path(&f("latest"), "")).await, 400, "FSS.1015");
    refused(&delete(&node, &path(&f("!prod"), "")).await, 400, "FSS.1014");
    refused(&delete(&node, &path(&f("v9"), "")).await, 404, "FSS.1052");
    alias(&node, "prod", json!({ "version": "latest", "additional_version_weights": { "v1": 10 } })).await;
    let message = refused(&delete(&node, &path(&f("v1"), "")).await, 409, "FSS.1066");
    assert!(message.contains("prod"), "{message}");
    assert_eq!(put(&node, &path("f", "/aliases/prod"), &json!({ "version": "v2" })).await.status, 200);
    refused(&delete(&node, &path(&f("v2"), "")).await, 409, "FSS.1066");
    // What runs of a version may finish; what waits of it ends as for a deleted function.
    let event = json!({ "port": bell.port });
    let running = node.invoke_async(&f("v1"), &event).await;
    let mut ring = bell.ring().await;
    let waiting = node.invoke_async(&f("v1"), &event).await;
    assert_eq!(delete(&node, &path(&f("v1"), "")).await.status, 204);
    assert_eq!(node.settled("f", &waiting).await, ("DISCARD".to_owned(), 4024));
    ring.release().await;
    assert_eq!(node.settled("f", &running).await, ("SUCCESS".to_owned(), 0));
    refused(&node.post(&path(&f("v1"), "/invocations"), &json!({})).await, 404, "FSS.1052");
    assert_eq!(runs(&node, &f("!prod")).await, ran("two", "v2", "prod"));
    node.kill();
    let node = TestNode::start_in(&node.dir.clone(), &[]).await;
    assert_eq!(node.get(&path("f", "/versions")).await.json()["count"], 2);
    // Without a version all of it goes.
    assert_eq!(delete(&node, &path("f", "")).await.status, 204);
    for function in ["f".to_owned(), f("v2"), f("!prod")] {
        refused(&node.post(&path(&function, "/invocations"), &json!({})).await, 404, "FSS.1051");
    }
    deploy_f(&node).await;
    assert_eq!(node.get(&path("f", "/aliases")).await.json(), json!([]));
    assert_eq!(node.get(&path("f", "/versions")).await.json()["count"], 1);
    node.stop().await;
}

#[tokio::test]
async fn a_request_is_cancelled_and_listed_by_the_version_it_runs() {
    let (node, bell) = (node_with_f().await, Bell::hang().await);
    two_versions(&node).await;
    alias(&node, "both", json!({ "version": "v2", "additional_version_weights": { "v1": 1 } })).await;
    alias(&node, "other", json!({ "version": "v2" })).await;
    let event = json!({ "port": bell.port });
    for by in ["default:f".to_owned(), f("v1"), f("!both")] {
        let request = node.invoke_async(&f("v1"), &event).await;
        let _ring = bell.ring().await;
        for wrong in ["latest", "v2", "!other", "v9"] {
            let reply = node.cancel(&f(wrong), &request, Mode::Force).await;
            match wrong {
                "v9" => refused(&reply, 404, "FSS.0404"),
                _ => refused(&reply, 400, "FSS.0400"),
            };
        }
        refused(&node.cancel(&f("!nobody"), &request, Mode::Force).await, 404, "FSS.0404");
        assert_eq!(node.listed(&f("v2"), &request).await, (String::new(), -1));
        assert_eq!(node.listed(&by, &request).await, ("RUNNING".to_owned(), 0));
        let reply = node.cancel(&by, &request, Mode::Force).await;
        assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{}", reply.text());
        let receipt = node.receipt(reply.header("x-quell-cancel-id")).await;
        assert_eq!(receipt["function_urn"], "urn:fss:local:default:function:default:f:v1");
        assert_eq!(receipt["requests"][0]["version"], "v1");
        assert_eq!(node.settled(&by, &request).await, ("FAIL".to_owned(), 4208));
    }
    let receipts = async |function: &str| {
        let list = node.get(&format!("/quell/v1/cancels?function={function}")).await.json();
        list["count"].as_u64().unwrap()
    };
    assert_eq!((receipts("f").await, receipts(&f("v1")).await, receipts(&f("v2")).await), (3, 3, 0));
    refused(&node.get(&path(&f("v9"), "/async-invocations")).await, 404, "FSS.0404");
    node.stop().await;
}

#[tokio::test]
async fn a_later_life_knows_of_a_cancelled_request_which_version_it_ran() {
    let (mut node, bell) = (node_with_f().await, Bell::hang().await);
    two_versions(&node).await;
    let event = json!({ "port": bell.port });
    let asynchronous = node.invoke_async(&f("v1"), &event).await;
    let _ring = bell.ring().await;
    let caller = node.invoke(&f("v2"), &event);
    let ring = bell.ring().await;
    let synchronous = ring.request();
    for (request, last) in [(&asynchronous, "v1"), (&synchronous, "v2")] {
        let reply = node.cancel(&f(last), request, Mode::Force).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        node.receipt(reply.header("x-quell-cancel-id")).await; // it is closed, and its last form on its way
    }
    assert_eq!(node.get("/quell/v1/cancels").await.json()["count"], 2); // what was on its way has been written
    assert_eq!(within("the end of the call", caller).await.unwrap().status, 500);
    node.kill();
    let node = TestNode::start_in(&node.dir.clone(), &[]).await;
    for (request, last, other) in [(&asynchronous, "v1", "v2"), (&synchronous, "v2", "latest")] {
        assert_eq!(node.cancel(&f(last), request, Mode::Plain).await.status, 200, "{last}");
        assert_eq!(node.cancel("f", request, Mode::Plain).await.status, 200, "{last}");
        refused(&node.cancel(&f(other), request, Mode::Plain).await, 400, "FSS.0400");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_result_goes_to_the_version_it_is_sent_to() {
    let (node, bell) = (node_with_f().await, Bell::hang().await);
    node.deploy("g", SOURCE, json!({})).await;
    two_versions(&node).await;
    let to = |urn: &str| {
        let param = json!({ "func_urn": urn }).to_string();
        json!({ "destination_config": { "on_success": { "destination": "FunctionGraph", "param": param } } })
    };
    let config = path("g", "/async-invoke-config");
    for nowhere in [f("v9"), f("!prod")] {
        refused(&put(&node, &config, &to(&nowhere)).await, 400, "FSS.1001");
    }
    assert_eq!(put(&node, &config, &to(&f("v1"))).await.status, 200);
    node.invoke_async("g", &json!({ "port": bell.port })).await;
    bell.ring().await.release().await;
    let mut ring = bell.ring().await;
    assert_eq!((&ring.facts["function"], &ring.facts["version"]), (&json!("f"), &json!("v1")));
    ring.release().await;
    assert_eq!(node.settled(&f("v1"), &ring.request()).await, ("SUCCESS".to_owned(), 0));
    node.stop().await;
}

#[tokio::test]
async fn what_was_accepted_for_an_alias_keeps_its_version_over_retries_switches_and_lives() {
    let (mut node, bell) = (node_with_f().await, Bell::hang().await);
    two_versions(&node).await;
    alias(&node, "prod", json!({ "version": "v1" })).await;
    let event = json!({ "port": bell.port });
    let (first, second) =
        (node.invoke_async(&f("!prod"), &event).await, node.invoke_async(&f("!prod"), &event).await);
    let mut ring = bell.ring().await;
    assert_eq!(put(&node, &path("f", "/aliases/prod"), &json!({ "version": "v2" })).await.status, 200);
    let is_first = |facts: &Value| {
        assert_eq!(
            (&facts["version"], &facts["code"], &facts["alias"]),
            (&json!("v1"), &json!("one"), &json!("prod"))
        );
    };
    is_first(&ring.facts);
    ring.tell("leave").await;
    // Its second attempt, or the other's first: both are of the version that was chosen.
    let _ring = bell.ring().await;
    is_first(&_ring.facts);
    node.kill();
    let node = TestNode::start_in(&node.dir.clone(), &[]).await;
    for _ in 0..2 {
        let mut ring = bell.ring().await;
        is_first(&ring.facts);
        ring.release().await;
    }
    for request in [&first, &second] {
        assert_eq!(node.settled(&f("v1"), request).await, ("SUCCESS".to_owned(), 0));
        let shown = node.get(&format!("/quell/v1/requests/{request}")).await.json();
        assert_eq!((&shown["version"], &shown["alias"]), (&json!("v1"), &json!("prod")));
    }
    assert_eq!(runs(&node, &f("!prod")).await, ran("two", "v2", "prod"));
    assert_eq!(runs(&node, &f("v1")).await, ran("one", "v1", ""));
    node.stop().await;
}

#[tokio::test]
async fn a_version_has_its_own_configuration_of_asynchronous_requests_from_latest_on() {
    let node = node_with_f().await;
    let config = |last: &str| path(&f(last), "/async-invoke-config");
    let retries = |count: u64| json!({ "max_async_retry_attempts": count });
    assert_eq!(put(&node, &config("latest"), &retries(2)).await.status, 200);
    published(&node, "v1").await;
    alias(&node, "prod", json!({ "version": "v1" })).await;
    assert_eq!(put(&node, &config("latest"), &retries(3)).await.status, 200);
    let of = async |last: &str| node.get(&config(last)).await.json();
    assert_eq!(of("v1").await["max_async_retry_attempts"], 2);
    assert_eq!(of("!prod").await, of("v1").await);
    assert_eq!(of("v1").await["func_urn"], "urn:fss:local:default:function:default:f:v1");
    refused(&put(&node, &config("!prod"), &retries(1)).await, 400, "FSS.1014");
    assert_eq!(put(&node, &config("v1"), &retries(0)).await.status, 200);
    assert_eq!(of("latest").await["max_async_retry_attempts"], 3);
    let list = async |function: &str| node.get(&path(function, "/async-invoke-configs")).await.json();
    assert_eq!((&list("f").await["count"], &list(&f("v1")).await["count"]), (&json!(2), &json!(1)));
    assert_eq!(delete(&node, &config("v1")).await.status, 204);
    assert_eq!(list("f").await["count"], 1);
    node.stop().await;
}
