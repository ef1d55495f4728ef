//! Many requests cancelled at once: planned first, selected once, each as if it had been asked for alone.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{rc::Rc, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Reply, TestNode, within};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const CANCELS: &str = "/quell/v1/cancels";
/// Between two looks at a bulk cancel: nothing tells a client when it is done.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Accepts a request; returns its id.
async fn invoke(node: &TestNode, function: &str, labels: &str, event: &Value) -> String {
    let headers = [JSON, ("X-Quell-Labels", labels)];
    let path = format!("/v2/default/fgs/functions/{function}/invocations-async");
    let reply = node.send(Method::POST, &path, &headers, event.to_string().as_bytes()).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    reply.json()["request_id"].as_str().unwrap().to_owned()
}

async fn ask(node: &TestNode, body: Value) -> Reply {
    within("an answer", node.post(CANCELS, &body)).await
}

async fn plan(node: &TestNode, selected: &str) -> Value {
    let reply = ask(node, json!({ "where": selected, "dry_run": true })).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// How it stands once it is done.
async fn done(node: &TestNode, key: &str) -> Value {
    within("the end of a bulk cancel", async {
        loop {
            let reply = node.get(&format!("{CANCELS}/bulk/{key}")).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            if reply.json()["state"] == "done" {
                return reply.json();
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await
}

fn numbers<const N: usize>(of: &Value, names: [&str; N]) -> [u64; N] {
    names.map(|name| of[name].as_u64().unwrap_or_else(|| panic!("{name} of {of}")))
}

/// One running request of `f`, and so many that wait behind it.
async fn one_and_waiting(node: &TestNode, bell: &Bell, labels: &[&str]) -> (support::Ring, Vec<String>) {
    node.deploy_probe("f", 1, 1, json!({})).await;
    node.invoke_async("f", &json!({ "do": "wait", "port": bell.port, "tag": "runs" })).await;
    let ring = bell.ring().await;
    let mut waiting = Vec::new();
    for labels in labels {
        waiting.push(invoke(node, "f", labels, &json!({ "do": "wait", "port": bell.port })).await);
    }
    (ring, waiting)
}

#[tokio::test]
async fn what_was_planned_is_cancelled_once_and_nothing_else() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let (ring, waiting) = one_and_waiting(&node, &bell, &["team=x", "team=y", "team=x,run=1"]).await;
    let planned = plan(&node, "label.team=x").await;
    let counts = numbers(&planned, ["selected", "waiting", "running", "removed", "asked", "kills"]);
    assert_eq!(counts, [2, 2, 0, 2, 0, 0], "{planned}");
    let first: Vec<&Value> =
        planned["first"].as_array().unwrap().iter().map(|row| &row["request_id"]).collect();
    assert_eq!(first, [&json!(waiting[0]), &json!(waiting[2])]);
    assert_eq!(node.view().await["live"], 4, "a plan touches nothing");

    // What arrives after the plan is not in the selection that is asked for as of it.
    let late = invoke(&node, "f", "team=x", &json!({})).await;
    let body = json!({
        "where": { "labels": { "team": "x" } }, "key": "first", "as_of": planned["as_of"], "reason": "a test",
    });
    let reply = ask(&node, body.clone()).await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    let bulk = done(&node, "first").await;
    let names = ["selected", "done", "stopped", "draining", "over", "failed"];
    assert_eq!(numbers(&bulk, names), [2, 2, 2, 0, 0, 0], "{bulk}");
    assert_eq!((&bulk["where"], &bulk["failures"]), (&json!("label.team=x"), &json!([])));
    for (request, status) in
        [(&waiting[0], "DISCARD"), (&waiting[1], "WAIT"), (&waiting[2], "DISCARD"), (&late, "WAIT")]
    {
        assert_eq!(node.listed("f", request).await.0, status, "{request}");
    }
    let receipts = node.get(CANCELS).await.json();
    let receipts = receipts["receipts"].as_array().unwrap();
    assert_eq!(receipts.len(), 2, "each has its own: {receipts:?}");
    let by: Vec<_> =
        receipts.iter().map(|row| (&row["asked_by"][0]["bulk"], &row["asked_by"][0]["reason"])).collect();
    assert!(by.iter().all(|by| *by == (&json!("first"), &json!("a test"))), "{by:?}");

    // Asked again it tells how it stands; another ask under its key is refused; nothing is selected anew.
    let again = ask(&node, body).await;
    assert_eq!((again.status, again.json()), (200, bulk), "the same as before");
    let other = ask(&node, json!({ "where": "label.team=y", "key": "first" })).await;
    assert_eq!((other.error().0, other.error().1.as_str()), (409, "FSS.0409"), "{other:?}");
    assert_eq!(node.listed("f", &late).await.0, "WAIT");
    drop(ring);
    node.cancel("f", &late, Mode::Plain).await;
    node.stop().await;
}

#[tokio::test]
async fn requests_are_found_by_what_they_have_in_common() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("g", 1, 2, json!({})).await;
    let child = json!({ "do": "wait", "port": bell.port, "tag": "child" });
    let event = json!({ "do": "wait", "port": bell.port, "tag": "parent", "children": [child] });
    let parent = invoke(&node, "g", "team=x", &event).await;
    let rings = bell.rings(2).await;
    let child = rings["child"].request();
    let (_ring, waiting) = one_and_waiting(&node, &bell, &["team=x", "team=y"]).await;
    for (wanted, found) in [
        ("function=g".to_owned(), vec![&parent, &child]),
        ("function=default:g,label.team=x".to_owned(), vec![&parent]),
        (format!("parent={parent}"), vec![&child]),
        ("status=waiting".to_owned(), vec![&waiting[0], &waiting[1]]),
        ("status=running,function=g".to_owned(), vec![&parent, &child]),
        ("status=draining".to_owned(), vec![]),
        ("label.team=x,age>0ms".to_owned(), vec![&parent, &waiting[0]]),
        ("age>1h".to_owned(), vec![]),
    ] {
        let path = format!("/quell/v1/requests?where={}", wanted.replace('>', "%3E"));
        let page = within("a page", node.get(&path)).await.json();
        let rows = page["requests"].as_array().unwrap_or_else(|| panic!("{wanted}: {page}"));
        let ids: Vec<&str> = rows.iter().map(|row| row["request_id"].as_str().unwrap()).collect();
        assert_eq!(
            (ids, &page["count"]),
            (found.iter().map(|id| id.as_str()).collect(), &json!(found.len()))
        );
    }
    // Page by page it is all of it, each once.
    let (mut marker, mut seen) = (0, Vec::new());
    loop {
        let page = node.get(&format!("/quell/v1/requests?limit=2&marker={marker}")).await.json();
        let rows = page["requests"].as_array().unwrap();
        seen.extend(rows.iter().map(|row| row["request_id"].as_str().unwrap().to_owned()));
        marker = page["next_marker"].as_u64().unwrap();
        if marker == 0 {
            break;
        }
    }
    assert_eq!((seen.len(), &seen[..2]), (5, &[parent, child][..]));
    for path in ["/quell/v1/requests?where=function%3Dnobody", "/quell/v1/requests?where=function%3Df:!prod"]
    {
        assert_eq!(node.get(path).await.status, 404, "{path}");
    }
    let reply = ask(&node, json!({ "where": "function=nobody", "dry_run": true })).await;
    assert_eq!(reply.error().1, "FSS.1051");
    let reply = ask(&node, json!({ "where": "function=g,age>0ms", "force": true, "key": "end" })).await;
    assert_eq!(reply.status, 202);
    assert_eq!(numbers(&done(&node, "end").await, ["stopped", "running"]), [2, 2]);
    node.stop().await;
}

#[tokio::test]
async fn nobody_grows_older_or_begins_to_run_between_the_plan_and_the_cancel() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let (mut ring, waiting) = one_and_waiting(&node, &bell, &["team=x"]).await;
    let planned = plan(&node, "status=running,label.team=x").await;
    assert_eq!(numbers(&planned, ["selected"]), [0]);
    ring.release().await;
    let ring = bell.ring().await;
    assert_eq!(ring.request(), waiting[0], "now it runs");
    let body = json!({ "where": "status=running,label.team=x", "key": "ran", "as_of": planned["as_of"] });
    assert_eq!(ask(&node, body).await.json()["selected"], 0, "it did not when it was planned");

    let (young, planned) = within("a plan before it is a second old", async {
        loop {
            let young = invoke(&node, "f", "team=y", &json!({})).await;
            let planned = plan(&node, "age>1s,label.team=y").await;
            if planned["selected"] == 0 {
                return (young, planned);
            }
            node.cancel("f", &young, Mode::Plain).await;
        }
    })
    .await;
    within("its age", async {
        while plan(&node, "age>1s,label.team=y").await["selected"] == 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    let body = json!({ "where": "age>1s,label.team=y", "key": "aged", "as_of": planned["as_of"] });
    assert_eq!(ask(&node, body).await.json()["selected"], 0, "it was younger when it was planned");
    assert_eq!(
        ask(&node, json!({ "where": "age>1s,label.team=y", "key": "now" })).await.json()["selected"],
        1
    );
    done(&node, "now").await;
    assert_eq!(node.listed("f", &young).await, ("DISCARD".into(), 4208));
    node.stop().await;
}

#[tokio::test]
async fn a_plan_names_who_else_would_be_touched_and_a_soft_stop_that_only_drains_is_said_to() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    // Two requests on one loop; the second blocks the loop, so the runtime cannot cooperate.
    let more = json!({ "handler": "index.ahandler", "quell": { "grace_ms": 200 } });
    node.deploy_probe("f", 2, 1, more).await;
    let innocent = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
    let innocents = bell.ring().await;
    let event = json!({ "do": "block", "port": bell.port });
    let blocks = invoke(&node, "f", "team=x", &event).await;
    bell.ring().await;
    let body = json!({ "where": "label.team=x", "type": "force", "dry_run": true });
    let planned = ask(&node, body).await.json();
    assert_eq!(numbers(&planned, ["selected", "killed", "kills"]), [1, 1, 1], "{planned}");
    assert_eq!(planned["collateral"], json!({ "count": 1, "first": [innocent] }), "{planned}");
    assert!(
        planned["first_kills"][0]["processes"].as_array().is_some_and(|all| !all.is_empty()),
        "{planned}"
    );

    assert_eq!(ask(&node, json!({ "where": "label.team=x", "key": "soft" })).await.status, 202);
    let soft = done(&node, "soft").await;
    assert_eq!(numbers(&soft, ["done", "stopped", "draining"]), [1, 0, 1], "{soft}");
    assert_eq!(soft["draining_requests"][0]["request_id"], json!(blocks));
    assert!(!innocents.process.is_gone());
    // What drains is found by that, and force ends it.
    let body = json!({ "where": "status=draining,label.team=x", "force": true, "key": "hard" });
    assert_eq!(ask(&node, body).await.status, 202);
    let hard = done(&node, "hard").await;
    assert_eq!(numbers(&hard, ["selected", "stopped"]), [1, 1], "{hard}");
    within("the end of the process", innocents.process.gone()).await;
    node.stop().await;
}

/// Queued behind one that runs, and running on five light runtimes beside them.
const QUEUED: usize = 20_000;
const RUNNING: usize = 500;
/// Callers that fill the queue; a part of `QUEUED` each.
const CALLERS: usize = 32;

#[tokio::test]
async fn twenty_thousand_that_wait_and_five_hundred_that_run_are_stopped_in_one_go_and_nobody_else_waits() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let node = Rc::new(node);
    node.deploy_probe("other", 1, 1, json!({})).await;
    node.deploy_probe("runs", 100, 5, json!({ "handler": "index.ahandler" })).await;
    node.deploy_probe("f", 1, 1, json!({})).await;
    let event = json!({ "do": "wait", "port": bell.port });
    for at in 0..RUNNING {
        let event = json!({ "do": "wait", "port": bell.port, "tag": at.to_string() });
        invoke(&node, "runs", "run=night", &event).await;
    }
    let _running = bell.rings(RUNNING).await;
    invoke(&node, "f", "run=other", &event).await;
    let innocent = bell.ring().await;
    let callers = tokio::task::LocalSet::new();
    for _ in 0..CALLERS {
        let (node, event) = (Rc::clone(&node), event.clone());
        callers.spawn_local(async move {
            for _ in 0..QUEUED / CALLERS {
                invoke(&node, "f", "run=night", &event).await;
            }
        });
    }
    within("the queue", callers).await;
    let planned = plan(&node, "label.run=night").await;
    let counts = numbers(&planned, ["selected", "waiting", "running", "removed", "asked"]);
    let [queued, running] = [QUEUED, RUNNING].map(|count| count as u64);
    assert_eq!(counts, [queued + running, queued, running, queued, running]);

    let body =
        json!({ "where": "label.run=night", "key": "night", "rate": 5_000, "as_of": planned["as_of"] });
    assert_eq!(ask(&node, body).await.status, 202);
    for _ in 0..10 {
        // Others invoke, look and cancel while it goes on.
        let reply = within("another's request", node.invoke("other", &json!({ "name": 1 }))).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        let other = invoke(&node, "f", "run=other", &event).await;
        assert_eq!(node.cancel("f", &other, Mode::Plain).await.status, 200);
    }
    let standing = node.get(&format!("{CANCELS}/bulk/night")).await.json();
    assert_eq!(standing["state"], "running", "others were served meanwhile: {standing}");
    let bulk = done(&node, "night").await;
    let names = ["selected", "done", "stopped", "over", "failed"];
    assert_eq!(numbers(&bulk, names), [queued + running, queued + running, queued + running, 0, 0], "{bulk}");
    assert!(!innocent.process.is_gone());
    let view = node.view().await;
    assert_eq!(view["live"], 1, "whoever was not meant: {view}");
    let path = "/v2/default/fgs/functions/f/async-invocations?status=DISCARD&labels=run=night&limit=1";
    assert_eq!(node.get(path).await.json()["count"], queued, "durably");
    assert!(bell.is_silent().await, "none of them has begun");
    Rc::into_inner(node).unwrap().stop().await;
}

#[tokio::test]
async fn a_bulk_cancel_goes_on_in_the_next_life_and_its_key_is_still_its_own() {
    let (data, bell) = (TestNode::folder(), Bell::hang().await);
    let mut node = TestNode::start_in(data.path(), &[]).await;
    let labels = ["team=x"; 30];
    let (ring, waiting) = one_and_waiting(&node, &bell, &labels).await;
    let body = json!({ "where": "label.team=x", "key": "slow", "rate": 10, "reason": "a test" });
    assert_eq!(ask(&node, body.clone()).await.status, 202);
    within("a first one", async {
        while node.get(&format!("{CANCELS}/bulk/slow")).await.json()["done"] == 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    node.kill();
    drop(ring);
    let node = TestNode::start_in(data.path(), &[]).await;
    let bulk = done(&node, "slow").await;
    let names = ["selected", "done", "failed"];
    assert_eq!(numbers(&bulk, names), [30, 30, 0], "{bulk}");
    assert_eq!((&bulk["resumed"], &bulk["reason"]), (&json!(true), &json!("a test")));
    for request in &waiting {
        let (status, code) = node.settled("f", request).await;
        assert_eq!((status.as_str(), code), ("DISCARD", 4208), "{request}");
    }
    let late = invoke(&node, "f", "team=x", &json!({ "name": 1 })).await;
    assert_eq!(ask(&node, body.clone()).await.status, 200, "the key is known");
    node.stop().await;
    let node = TestNode::start_in(data.path(), &[]).await;
    let again = ask(&node, body).await;
    assert_eq!(
        (again.status, &again.json()["state"], &again.json()["done"]),
        (200, &json!("done"), &json!(30))
    );
    let list = node.get(&format!("{CANCELS}/bulk")).await.json();
    assert_eq!(list["bulks"].as_array().unwrap().len(), 1, "{list}");
    assert_ne!(node.listed("f", &late).await.1, 4208, "nothing was selected anew");
    node.stop().await;
}

#[tokio::test]
async fn a_bulk_cancel_is_called_off_for_those_that_it_has_not_reached_and_stays_so() {
    let (data, bell) = (TestNode::folder(), Bell::hang().await);
    let mut node = TestNode::start_in(data.path(), &[]).await;
    let (ring, waiting) = one_and_waiting(&node, &bell, &["team=x"; 50]).await;
    let path = format!("{CANCELS}/bulk/slow");
    assert_eq!(node.send(Method::DELETE, &path, &[], b"").await.status, 404);
    let body = json!({ "where": "label.team=x", "key": "slow", "rate": 2 });
    assert_eq!(ask(&node, body).await.status, 202);
    assert_eq!(node.send(Method::DELETE, &path, &[], b"").await.status, 200);
    let over = within("its end", async {
        loop {
            let standing = node.get(&path).await.json();
            if standing["state"] != "running" {
                return standing;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    assert_eq!(over["state"], "called_off", "{over}");
    let [selected, stopped, failed] = numbers(&over, ["selected", "done", "failed"]);
    assert!(selected == 50 && stopped < 50 && failed == 0, "{over}");
    assert_eq!(node.send(Method::DELETE, &path, &[], b"").await.json(), over, "again is the same");
    node.kill();
    drop(ring);
    let node = TestNode::start_in(data.path(), &["--max-instances", "1"]).await;
    assert_eq!(node.get(&path).await.json(), over, "the next life does not go on with it");
    let list = node.get("/v2/default/fgs/functions/f/async-invocations?status=DISCARD").await.json();
    assert_eq!(list["count"], stopped, "whoever it had reached, and nobody else");
    let last = waiting.last().unwrap();
    assert_eq!(node.listed("f", last).await.0, "WAIT");
    assert_eq!(ask(&node, json!({ "where": "age>0s", "force": true, "key": "rest" })).await.status, 202);
    done(&node, "rest").await;
    node.stop().await;
}

#[tokio::test]
async fn nobody_cancels_of_another_project_or_without_the_right() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let (_ring, waiting) = one_and_waiting(&node, &bell, &["team=x"]).await;
    let token = async |body: Value| {
        let made = node.post("/quell/v1/credentials", &body).await;
        made.json()["token"].as_str().unwrap().to_owned()
    };
    let foreign = token(json!({ "project": "foreign", "scopes": ["admin"] })).await;
    let reader = token(json!({ "scopes": ["read"] })).await;
    let canceller = token(json!({ "scopes": ["cancel"] })).await;
    let send = async |token: &str, body: Value| {
        let body = body.to_string();
        within("an answer", node.send_as(Some(token), Method::POST, CANCELS, &[JSON], body.as_bytes())).await
    };
    let all = json!({ "where": "age>0ms", "key": "k" });
    let theirs = send(&foreign, all.clone()).await;
    assert_eq!((theirs.status, &theirs.json()["selected"]), (202, &json!(0)), "{}", theirs.text());
    for function in ["urn:fss:local:default:function:default:f", "default:default:f"] {
        let reply = send(&foreign, json!({ "where": { "function": function }, "dry_run": true })).await;
        assert_eq!(reply.error().0, 404, "{function}");
    }
    assert_eq!(send(&reader, all.clone()).await.error().0, 403);
    let plan = json!({ "where": "age>0ms", "dry_run": true });
    assert_eq!(send(&canceller, plan).await.error().0, 403, "a plan tells what there is");
    assert_eq!(node.get(&format!("{CANCELS}/bulk/k")).await.status, 404, "the other project's");
    assert_eq!(node.listed("f", &waiting[0]).await.0, "WAIT");
    assert_eq!(send(&canceller, json!({ "where": "status=waiting", "key": "k" })).await.status, 202);
    assert_eq!(numbers(&done(&node, "k").await, ["selected", "stopped"]), [1, 1]);
    node.stop().await;
}

#[tokio::test]
async fn a_bad_ask_is_named_and_touches_nothing() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let (_ring, waiting) = one_and_waiting(&node, &bell, &["team=x"]).await;
    for (body, status, said) in [
        (json!({ "where": "status=waiting" }), 400, "key is missing"),
        (json!({ "where": "", "key": "k" }), 400, "age>0s"),
        (json!({ "key": "k" }), 400, "where is missing"),
        (json!({ "where": "functoin=f", "key": "k" }), 400, "functoin"),
        (json!({ "where": "status=waiting", "key": "k", "as_of": "1.5.7" }), 409, "earlier life"),
        (json!({ "where": "status=waiting", "key": "k", "rate": -1 }), 400, "rate"),
    ] {
        let reply = ask(&node, body.clone()).await;
        let (got, _, message) = reply.error();
        assert!(got == status && message.contains(said), "{body}: {got} {message}");
    }
    let reply = node.send(Method::POST, CANCELS, &[("Content-Type", "text/plain")], b"{}").await;
    assert_eq!(reply.error().0, 406);
    assert_eq!(node.listed("f", &waiting[0]).await.0, "WAIT");
    assert_eq!(node.get(&format!("{CANCELS}/bulk")).await.json()["bulks"], json!([]));
    node.stop().await;
}
