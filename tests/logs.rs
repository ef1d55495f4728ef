//! Logs: whose lines are whose, what stays of them on the disk, and how they are followed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, TestNode, within};

const SOURCE: &str = include_str!("functions/speaks.py");

async fn deploy(node: &TestNode, name: &str, concurrency: u32) {
    let strategy = json!({ "concurrency": 1, "concurrent_num": concurrency });
    node.deploy(name, SOURCE, json!({ "strategy_config": strategy })).await;
}

/// The lines of a log.
async fn log(node: &TestNode, what: &str) -> Vec<Value> {
    let reply = within("a log", node.get(&format!("/quell/v1/{what}"))).await;
    assert_eq!(reply.status, 200, "{what}: {}", reply.text());
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["text"].as_str().unwrap()).collect()
}

async fn invoke(node: &TestNode, function: &str, event: Value) -> String {
    let reply = within("a request", node.invoke(function, &event)).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.header("x-cff-request-id").to_owned()
}

/// Files below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

fn bytes(dir: &Path) -> u64 {
    files(dir).iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum()
}

#[tokio::test]
async fn an_instance_of_one_request_at_a_time_prints_for_that_one_and_a_new_life_still_has_it() {
    let mut node = TestNode::start().await;
    deploy(&node, "f", 1).await;
    let first = node.invoke_async("f", &json!({ "print": ["one", "two"], "stderr": ["three"] })).await;
    node.settled("f", &first).await;
    let second = node.invoke_async("f", &json!({ "print": ["four"], "bytes": [255, 27, 10, 120] })).await;
    node.settled("f", &second).await;
    let silent = node.invoke_async("f", &json!({})).await;
    node.settled("f", &silent).await;
    let lines = log(&node, &format!("requests/{first}/log")).await;
    let mut told = texts(&lines);
    told.sort_unstable();
    assert_eq!(told, ["one", "three", "two"]);
    for line in &lines {
        let stream = if line["text"] == "three" { "stderr" } else { "stdout" };
        assert_eq!(
            (&line["request"], &line["attempt"], &line["stream"]),
            (&json!(first), &json!(1), &json!(stream))
        );
        assert!(line["ms"].as_i64().unwrap() > 0 && line["n"].as_u64().unwrap() > 0);
    }
    // The last has no line feed, and is its own all the same.
    assert_eq!(texts(&log(&node, &format!("requests/{second}/log")).await), ["four", "\u{fffd}\u{1b}", "x"]);
    assert!(log(&node, &format!("requests/{silent}/log")).await.is_empty());
    let instance = lines[0]["instance"].as_str().unwrap().to_owned();
    assert_eq!(log(&node, &format!("instances/{instance}/log")).await.len(), 6);
    assert_eq!(texts(&log(&node, "functions/f/log?tail=2").await), ["\u{fffd}\u{1b}", "x"]);
    let since = lines[0]["ms"].as_i64().unwrap();
    assert_eq!(log(&node, &format!("functions/default:f/log?since={since}&limit=1")).await.len(), 1);
    assert!(log(&node, &format!("functions/f/log?since={}", i64::MAX)).await.is_empty());

    for file in files(&node.dir.join("logs")) {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(fs::metadata(node.dir.join("logs")).unwrap().mode() & 0o777, 0o700);
    node.kill();
    let next = TestNode::start_in(&node.dir.clone(), &[]).await;
    assert_eq!(log(&next, &format!("requests/{first}/log")).await, lines);
    assert_eq!(log(&next, &format!("instances/{instance}/log")).await.len(), 6);
    // A live instance of that name has its own log.
    let third = invoke(&next, "f", json!({ "print": ["five"] })).await;
    assert_eq!(texts(&log(&next, &format!("instances/{instance}/log")).await), ["five"]);
    assert_eq!(texts(&log(&next, &format!("requests/{third}/log")).await), ["five"]);
    assert_eq!(log(&next, "functions/f/log").await.len(), 7);
    next.stop().await;
}

#[tokio::test]
async fn an_instance_of_several_requests_gives_each_the_lines_that_carry_its_id() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 8).await;
    let mut requests = Vec::new();
    for tag in 0..8 {
        let event = json!({ "tag": tag.to_string(), "port": bell.port, "log": [format!("marked {tag}")], "print": [format!("plain {tag}")] });
        requests.push(node.invoke_async("f", &event).await);
    }
    let mut rings = bell.rings(8).await;
    // One that is not here, nor ever was on this instance.
    let other = "11111111-2222-4333-8444-555555555555";
    let first = rings.get_mut("0").unwrap();
    first.tell(&format!("T INFO {other} borrowed\n")).await;
    first.tell(&format!("{} at the begin\n", requests[1])).await;
    // Said while that one is still held here.
    let named = format!("requests/{}/log", requests[1]);
    within("the line", async { while log(&node, &named).await.len() < 2 {} }).await;
    for ring in rings.values_mut() {
        ring.release().await;
    }
    for (tag, request) in requests.iter().enumerate() {
        node.settled("f", request).await;
        let lines = log(&node, &format!("requests/{request}/log")).await;
        let own =
            texts(&lines).iter().filter(|text| text.ends_with(&format!(" {request} marked {tag}"))).count();
        assert_eq!((own, lines.len()), (1, if tag == 1 { 2 } else { 1 }), "{lines:?}");
    }
    let all = log(&node, "functions/f/log").await;
    let unowned: Vec<&Value> = all.iter().filter(|line| line["request"].is_null()).collect();
    assert!(unowned.len() >= 9, "eight plain lines and a borrowed id: {unowned:?}");
    assert_eq!(node.get(&format!("/quell/v1/requests/{other}/log")).await.status, 404);
    node.stop().await;
}

#[tokio::test]
async fn a_running_request_is_followed_to_its_end() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    deploy(&node, "f", 1).await;
    let request = node.invoke_async("f", &json!({ "port": bell.port, "print": ["first"] })).await;
    let mut ring = bell.ring().await;
    let follow = |args: &[&str]| {
        let mut command = TestNode::client_command(&node.dir, args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = follow(&["logs", &request, "-f"]);
    let mut json = follow(&["logs", &request, "-f", "--output", "json"]);
    let instance =
        log(&node, &format!("requests/{request}/log")).await[0]["instance"].as_str().unwrap().to_owned();
    let mut whole = follow(&["logs", &instance, "--follow", "--tail", "0"]);
    let mut function = follow(&["logs", "--function", "f", "-f"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut of_function = BufReader::new(function.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first");
    assert_eq!(of_function.next().unwrap().unwrap(), format!("{instance} first"));
    for word in ["second", "third"] {
        ring.tell(&format!("{word}\n")).await;
        assert_eq!(lines.next().unwrap().unwrap(), word, "as it is printed");
        assert_eq!(of_function.next().unwrap().unwrap(), format!("{instance} {word}"));
    }
    ring.release().await;
    assert!(lines.next().is_none(), "it ends with its request");
    assert!(child.wait().unwrap().success());
    let told = json.wait_with_output_ok();
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(texts(&told), ["first", "second", "third"]);
    assert!(whole.try_wait().unwrap().is_none(), "its instance lives on");
    // Ctrl-C is no error.
    interrupt(&function);
    assert!(function.wait().unwrap().success());
    node.stop().await;
    assert!(whole.wait().unwrap().success(), "the instance has ended");
}

trait Output {
    fn wait_with_output_ok(&mut self) -> String;
}

impl Output for std::process::Child {
    fn wait_with_output_ok(&mut self) -> String {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.stdout.take().unwrap(), &mut text).unwrap();
        assert!(self.wait().unwrap().success());
        text
    }
}

fn interrupt(child: &std::process::Child) {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    #[expect(clippy::disallowed_methods, reason = "our own child, not reaped yet: the pid is its own")]
    nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
}

#[tokio::test]
async fn what_is_typed_wrongly_or_is_not_there_says_what_to_do() {
    let node = TestNode::start().await;
    let run = |args: &[&str]| {
        let output = TestNode::client_command(&node.dir, args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stderr))
    };
    let (code, said) = run(&["logs", "11111111-2222-4333-8444-555555555555"]);
    assert!(code == 5 && said.contains("quell ls"), "{code} {said}");
    assert_eq!(run(&["logs", "i77", "-f"]).0, 5);
    assert_eq!(run(&["logs", "--function", "nobody"]).0, 5);
    assert_eq!(run(&["logs"]).0, 2);
    assert_eq!(run(&["logs", "i1", "--function", "f"]).0, 2);
    let (code, said) = run(&["logs", "i1", "--since", "yesterday"]);
    assert!(code == 2 && said.contains("15m"), "{code} {said}");
    for query in ["tail=x", "tail=10001", "limit=1&tail=1", "follow=yes", "since=soon", "limit=3&follow=true"]
    {
        let (status, code, _) = node.get(&format!("/quell/v1/instances/i1/log?{query}")).await.error();
        assert_eq!((status, &code[..4]), (400, "FSS."), "{query}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_flood_stays_within_its_bounds_and_is_cancelled_as_ever() {
    let options = ["--log-instance", "2", "--log-function", "3", "--log-total", "4"];
    let (node, bell) = (TestNode::start_with(&options).await, Bell::hang().await);
    deploy(&node, "f", 1).await;
    let request =
        node.invoke_async("f", &json!({ "flood": 100, "print": ["before"], "port": bell.port })).await;
    let mut ring = bell.ring().await;
    let logs = node.dir.join("logs");
    let last = log(&node, &format!("requests/{request}/log?tail=3")).await;
    assert!(bytes(&logs) <= 2 << 20, "{}", bytes(&logs));
    assert!(last.iter().all(|line| line["text"].as_str().unwrap().len() <= 4 << 10));
    // Whatever was lost on the way is marked: all numbers are there, as lines or in marks.
    let all = log(&node, &format!("requests/{request}/log?tail=10000")).await;
    for pair in all.windows(2) {
        let next = pair[0]["n"].as_u64().unwrap() + pair[0]["lost"].as_u64().unwrap_or(0).max(1);
        assert_eq!(pair[1]["n"], next, "{} {}", pair[0], pair[1]);
    }
    assert!(all[0]["n"].as_u64().unwrap() > 1, "the oldest is gone");
    // In the middle of a flood that does not end.
    ring.tell("flood\n").await;
    let reply = node.cancel("f", &request, Mode::Force).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{}", reply.text());
    assert!(ring.process.is_gone());
    for _ in 0..3 {
        // Instances of their own: the bound of the function takes the oldest.
        let request = node.invoke_async("f", &json!({ "flood": 3, "port": bell.port })).await;
        let _ring = bell.ring().await;
        assert_eq!(node.cancel("f", &request, Mode::Force).await.status, 200);
    }
    log(&node, "functions/f/log?tail=1").await;
    assert!(bytes(&logs) <= 3 << 20, "{}", bytes(&logs));
    deploy(&node, "g", 1).await;
    invoke(&node, "g", json!({ "flood": 3 })).await;
    log(&node, "functions/g/log?tail=1").await;
    assert!(bytes(&logs) <= 4 << 20, "{}", bytes(&logs));
    node.stop().await;
}

#[tokio::test]
async fn who_does_not_read_loses_lines_and_holds_up_nobody() {
    let options = ["--log-instance", "1", "--log-function", "1", "--log-total", "4"];
    let (node, bell) = (TestNode::start_with(&options).await, Bell::hang().await);
    deploy(&node, "f", 1).await;
    let request = node.invoke_async("f", &json!({ "print": ["before"], "port": bell.port })).await;
    let mut ring = bell.ring().await;
    let client = support::client_trusting(&json!({})).build().unwrap();
    let url = format!("{}/quell/v1/requests/{request}/log?follow=true", node.endpoint);
    let mut answer = client.get(url).header("X-Auth-Token", &node.token).send().await.unwrap();
    let first = within("the first line", answer.chunk()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("before"));
    // It stops reading here. Meanwhile far more is printed than sockets and files hold.
    ring.tell("flood\n").await;
    let flooded = within("the flood", async {
        loop {
            let last = log(&node, &format!("requests/{request}/log?tail=1")).await;
            let n = last.last().map_or(0, |line| line["n"].as_u64().unwrap());
            if n > 30_000 {
                return n;
            }
        }
    })
    .await;
    let reply = node.cancel("f", &request, Mode::Force).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"));
    // It reads on, to the end.
    let mut text = String::from_utf8_lossy(&first).into_owned();
    while let Some(piece) = within("the rest", answer.chunk()).await.unwrap() {
        text.push_str(&String::from_utf8_lossy(&piece));
    }
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lost: u64 = lines.iter().filter_map(|line| line["lost"].as_u64()).sum();
    assert!(lost > 0, "{} lines came of {flooded} and no mark", lines.len());
    assert!(lines.len() < 30_000, "{}", lines.len());
    node.stop().await;
}

#[tokio::test]
async fn followers_have_a_bound_and_those_that_are_gone_make_room() {
    let node = TestNode::start().await;
    deploy(&node, "f", 1).await;
    let client = support::client_trusting(&json!({})).build().unwrap();
    let url = format!("{}/quell/v1/functions/f/log?follow=true", node.endpoint);
    let follow = || client.get(&url).header("X-Auth-Token", &node.token).send();
    let mut followers = Vec::new();
    for _ in 0..64 {
        let follower = within("a follower", follow()).await.unwrap();
        assert_eq!(follower.status().as_u16(), 200);
        followers.push(follower);
    }
    assert_eq!(within("one too many", follow()).await.unwrap().status().as_u16(), 429);
    assert_eq!(node.get("/quell/v1/functions/f/log").await.status, 200, "who only looks is not one of them");
    followers.clear();
    within("room again", async { while follow().await.unwrap().status().as_u16() != 200 {} }).await;
    node.stop().await;
}

#[tokio::test]
async fn a_log_is_of_its_project_and_of_whoever_may_read() {
    let node = TestNode::start().await;
    deploy(&node, "f", 1).await;
    let request = invoke(&node, "f", json!({ "print": ["secret"] })).await;
    let instance =
        log(&node, &format!("requests/{request}/log")).await[0]["instance"].as_str().unwrap().to_owned();
    let mint = async |body: Value| {
        let reply = node.post("/quell/v1/credentials", &body).await;
        assert_eq!(reply.status, 201, "{}", reply.text());
        reply.json()["token"].as_str().unwrap().to_owned()
    };
    let stranger = mint(json!({ "scopes": ["admin"], "project": "other" })).await;
    let caller = mint(json!({ "scopes": ["invoke"] })).await;
    let reader = mint(json!({ "scopes": ["read"] })).await;
    let urn = "urn:fss:local:default:function:default:f";
    for what in [
        format!("requests/{request}/log"),
        format!("instances/{instance}/log"),
        "functions/f/log".to_owned(),
        format!("functions/{urn}/log"),
    ] {
        for follow in ["", "?follow=true"] {
            let path = format!("/quell/v1/{what}{follow}");
            let ask = async |token: Option<&str>| {
                within("an answer", node.send_as(token, Method::GET, &path, &[], b"")).await
            };
            let reply = ask(Some(&stranger)).await;
            assert_eq!(reply.status, 404, "{path}: {}", reply.text());
            assert_eq!(ask(Some(&caller)).await.status, 403, "{path}");
            assert_eq!(ask(None).await.status, 403, "{path}");
            if follow.is_empty() {
                assert!(ask(Some(&reader)).await.text().contains("secret"), "{path}");
            }
        }
    }
    // A function of the same name in the other project has its own.
    let body = json!({
        "func_name": "f", "package": "default", "runtime": "Python3.10", "handler": "index.handler", "timeout": 3,
        "memory_size": 128, "code_type": "inline", "func_code": { "file": support::base64(SOURCE.as_bytes()) },
    });
    let body = body.to_string();
    let json = [("Content-Type", "application/json")];
    let functions = "/v2/other/fgs/functions";
    let made = node.send_as(Some(&stranger), Method::POST, functions, &json, body.as_bytes());
    assert_eq!(made.await.status, 200);
    let own = node.send_as(Some(&stranger), Method::GET, "/quell/v1/functions/f/log", &[], b"").await;
    assert_eq!((own.status, own.text()), (200, String::new()));
    node.stop().await;
}

#[tokio::test]
async fn a_full_disk_loses_lines_with_a_mark_and_fails_no_request() {
    let dir = TestNode::folder();
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let size = Some("size=1m,mode=700");
    if mount(Some("tmpfs"), &logs, Some("tmpfs"), MsFlags::empty(), size).is_err() {
        return println!("nothing may be mounted here, so nothing is tested");
    }
    let node = TestNode::start_in(dir.path(), &[]).await;
    deploy(&node, "f", 1).await;
    let before = invoke(&node, "f", json!({ "print": ["before"] })).await;
    assert_eq!(texts(&log(&node, &format!("requests/{before}/log")).await), ["before"]);
    let mut full = fs::File::create(logs.join("full")).unwrap();
    for size in [4 << 10, 1] {
        let part = vec![0; size];
        while full.write_all(&part).is_ok() {}
    }
    let meanwhile = invoke(&node, "f", json!({ "flood": 1, "print": ["meanwhile"] })).await;
    node.logs("logs cannot be written");
    assert!(node.view().await["log_lines_lost"].as_u64().unwrap() > 0);
    assert!(texts(&log(&node, &format!("requests/{meanwhile}/log")).await).len() < 1_000);
    fs::remove_file(logs.join("full")).unwrap();
    drop(full);
    let after = invoke(&node, "f", json!({ "print": ["after"] })).await;
    assert_eq!(texts(&log(&node, &format!("requests/{after}/log")).await).last(), Some(&"after"));
    node.logs("logs are written again");
    let all = log(&node, "functions/f/log?tail=10000").await;
    let lost: u64 = all.iter().filter_map(|line| line["lost"].as_u64()).sum();
    assert!(lost > 0, "{all:?}");
    for pair in all.windows(2) {
        let next = pair[0]["n"].as_u64().unwrap() + pair[0]["lost"].as_u64().unwrap_or(0).max(1);
        assert_eq!(pair[1]["n"], next, "{} {}", pair[0], pair[1]);
    }
    node.stop().await;
    umount2(&logs, MntFlags::MNT_DETACH).unwrap();
}
