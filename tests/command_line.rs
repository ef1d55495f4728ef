//! The commands as people and scripts type them: output, exit codes, mistakes.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{fs, path::Path};

use serde_json::{Value, json};
use support::{Bell, TestNode};

/// (exit code, stdout, stderr) of a command about this node.
async fn quell(node: &TestNode, args: &[&str]) -> (i32, String, String) {
    run(args, Some(&node.dir), &[]).await
}

async fn run(args: &[&str], data: Option<&Path>, env: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_quell"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUELL_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(std::process::Stdio::null()).envs(env.iter().copied());
    if let Some(data) = data {
        command.env("QUELL_DATA", data);
    }
    let waiting = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = support::within("the command", waiting).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// A folder with a function as `quell deploy` takes it.
fn folder(into: &Path, name: &str, more: &str) -> String {
    let dir = into.join(name);
    fs::create_dir(&dir).unwrap();
    let config = format!(
        "name = \"{name}\"\nruntime = \"Python3.10\"\nhandler = \"index.handler\"\ntimeout = 60\n{more}"
    );
    fs::write(dir.join("function.toml"), config).unwrap();
    fs::write(dir.join("index.py"), include_str!("functions/probe.py")).unwrap();
    dir.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_function_is_deployed_invoked_watched_cancelled_and_looked_up() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    let scratch = tempfile::tempdir().unwrap();
    let dir = folder(scratch.path(), "probe", "max_instances = 2\n");
    let urn = "urn:fss:local:default:function:default:probe:latest\n";
    assert_eq!(quell(&node, &["deploy", &dir]).await, (0, urn.into(), String::new()));
    assert_eq!(quell(&node, &["deploy", &dir]).await.0, 0, "again: an update");

    let (code, out, _) = quell(&node, &["invoke", "probe", "--event", "{\"name\": 1}"]).await;
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()["event"]["name"].clone()), (0, json!(1)));

    for (last, status) in [("latest", 0), ("!nobody", 5), ("v20260131-235959", 5)] {
        let (code, _, said) = quell(&node, &["invoke", &format!("probe:{last}")]).await;
        assert_eq!(code, status, "{last}: {said}");
    }

    let child = json!({ "do": "wait", "port": bell.port, "tag": "child" });
    let event = json!({ "do": "wait", "port": bell.port, "tag": "parent", "children": [child] }).to_string();
    let (code, out, _) = quell(&node, &["invoke", "probe", "--async", "--event", &event]).await;
    assert_eq!(code, 0);
    let request = out.trim().to_owned();
    let rings = bell.rings(2).await;
    let child = rings["child"].request();

    let (code, tree, _) = quell(&node, &["tree", &request]).await;
    assert!(code == 0 && tree.contains(&request) && tree.contains(&format!("  {child}")), "{tree}");
    let (code, ls, _) = quell(&node, &["ls"]).await;
    assert!(code == 0 && ls.contains(&request) && ls.contains(&rings["parent"].pid.to_string()), "{ls}");

    let (code, logs, _) = quell(&node, &["logs", &request]).await;
    assert!(code == 0 && logs.contains("the handler begins"), "{logs}");

    let (code, plan, _) = quell(&node, &["cancel", &request, "--recursive", "--dry-run"]).await;
    assert!(code == 0 && plan.contains(&request) && plan.contains(&child), "{plan}");
    assert_eq!(node.tree(&request).await.len(), 2, "a dry run touches nothing");

    let args = ["cancel", &request, "--recursive", "--force", "--reason", "a test", "--output", "json"];
    let (code, receipt, _) = quell(&node, &args).await;
    let receipt: Value = serde_json::from_str(&receipt).unwrap();
    assert_eq!((code, receipt["result"].as_str()), (0, Some("stopped")));
    assert_eq!(receipt["asked_by"][0]["reason"], "a test");
    assert!(rings.values().all(|ring| ring.process.is_gone()));
    let (code, shown, _) = quell(&node, &["receipt", receipt["cancel_id"].as_str().unwrap()]).await;
    assert!(code == 0 && shown.contains(&child) && shown.contains("4208"), "{shown}");
    assert_eq!(quell(&node, &["cancel", &request]).await.0, 0, "cancelled is what it is");
    node.stop().await;
}

#[tokio::test]
async fn exit_codes_tell_what_kind_of_trouble_it_is() {
    let node = TestNode::start().await;
    let scratch = tempfile::tempdir().unwrap();
    let dir = folder(scratch.path(), "probe", "");
    assert_eq!(quell(&node, &["deploy", &dir]).await.0, 0);
    let nobody = "00000000-0000-4000-8000-000000000000";
    let broken = folder(scratch.path(), "broken", "memroy_size = 128\n");
    for (args, code, said) in [
        (vec!["invoke", "nobody"], 5, "Not found the function"),
        (vec!["invoke", "prob"], 5, "there is no function prob; did you mean probe?"),
        (vec!["invoke", "probe", "--event", "{"], 2, "not JSON"),
        (vec!["invoke", "probe", "--event", "{\"do\": \"fail\", \"port\": 1}"], 8, "4002"),
        (vec!["cancel", nobody], 5, "--function"),
        (vec!["cancel", nobody, "--function", "probe"], 1, "Invalid RequestId"),
        (vec!["tree", nobody], 5, "not found"),
        (vec!["receipt", nobody], 5, "not found"),
        (vec!["logs", nobody], 5, "not found"),
        (vec!["logs", "probe"], 2, "quell logs --function probe"),
        (vec!["logs", "--function", "prob"], 5, "did you mean probe?"),
        (vec!["functions", "delete", "prob", "--yes"], 5, "did you mean probe?"),
        (vec!["functions", "disable", "prob"], 5, "did you mean probe?"),
        (vec!["logs", "i999"], 5, "not found"),
        (vec!["deploy", "/nonexistent"], 2, "is not there"),
        (vec!["deploy", &broken], 2, "memroy_size"),
        (vec!["ls", "--token", "wrong"], 4, "invalid token"),
        (vec!["ls", "--endpoint", "http://127.0.0.1:1"], 3, "quell serve"),
    ] {
        let (got, out, err) = quell(&node, &args).await;
        assert!(got == code && err.contains(said) && out.is_empty(), "{args:?}: {got} {out}{err}");
        assert!(err.starts_with("quell: "), "{args:?}: {err}");
    }
    node.stop().await;
}

#[tokio::test]
async fn what_a_finished_request_came_to_is_shown_by_its_id() {
    let node = TestNode::start().await;
    node.deploy_probe("probe", 1, 1, json!({})).await;
    let request = node.invoke_async("probe", &json!({ "name": 1 })).await;
    assert_eq!(node.settled("probe", &request).await.0, "SUCCESS");
    let (code, out, err) = quell(&node, &["tree", &request]).await;
    assert!(code == 0 && out.contains(&request) && out.contains("SUCCESS"), "{out} {err}");
    assert!(out.contains("default:probe") && out.contains("ENDED"), "{out}");
    let (code, out, _) = quell(&node, &["tree", &request, "--output", "json"]).await;
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()["status"].clone()), (0, json!("SUCCESS")));

    let (code, out, err) = quell(&node, &["cancel", &request]).await;
    let said = format!("quell: request {request} has already ended: SUCCESS; nothing to cancel\n");
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", said.as_str()));
    let (code, _, err) = quell(&node, &["cancel", &request, "--output", "json"]).await;
    assert!(
        code == 1 && err.contains("FSS.0400: Invalid RequestId: SUCCESS"),
        "programs get the code: {err}"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_function_is_disabled_enabled_and_deleted_by_name() {
    let node = TestNode::start().await;
    let scratch = tempfile::tempdir().unwrap();
    let dir = folder(scratch.path(), "probe", "max_instances = 2\n");
    let other = scratch.path().join("other");
    fs::create_dir(&other).unwrap();
    let redeployed = folder(&other, "probe", "");
    assert_eq!(quell(&node, &["deploy", &dir]).await.0, 0);
    let (code, out, _) = quell(&node, &["functions", "disable", "probe"]).await;
    assert!(
        code == 0 && out.contains("as it was (2 instances at most): quell functions enable probe"),
        "{out}"
    );
    let (code, _, err) = quell(&node, &["invoke", "probe"]).await;
    assert!(
        code == 1 && err.contains("FSS.150434") && err.contains("quell functions enable"),
        "{code} {err}"
    );
    let (code, out, _) = quell(&node, &["functions"]).await;
    assert!(code == 0 && out.contains("0 (disabled)"), "{out}");
    let (code, out, _) = quell(&node, &["functions", "disable", "probe"]).await;
    assert!(code == 0 && out.contains("already"), "{out}");
    let (code, _, err) = quell(&node, &["functions", "enable", "probe", "--max-instances", "0"]).await;
    assert!(code == 2 && err.contains("quell functions disable probe"), "{err}");
    assert_eq!(quell(&node, &["deploy", &redeployed]).await.0, 0, "it stays disabled, and remembers");
    let (code, out, _) = quell(&node, &["functions", "enable", "probe"]).await;
    assert_eq!((code, out.as_str()), (0, "enabled probe: 2 instances at most\n"), "as it was before");
    let (code, out, _) = quell(&node, &["functions", "enable", "probe", "--max-instances", "-1"]).await;
    assert_eq!((code, out.as_str()), (0, "enabled probe: any number of instances\n"));
    let (code, out, _) = quell(&node, &["functions", "enable", "probe", "--max-instances", "2"]).await;
    assert_eq!((code, out.as_str()), (0, "enabled probe: 2 instances at most\n"));
    let (code, out, _) = quell(&node, &["functions", "enable", "probe"]).await;
    assert_eq!((code, out.as_str()), (0, "enabled probe: 2 instances at most\n"), "as it is");
    assert_eq!(quell(&node, &["invoke", "probe", "--event", "{\"name\": 1}"]).await.0, 0);

    let (code, _, err) = quell(&node, &["functions", "delete", "probe"]).await;
    assert!(code == 2 && err.contains("--yes"), "nobody is there to be asked: {code} {err}");
    assert_eq!(
        quell(&node, &["invoke", "probe", "--event", "{\"name\": 1}"]).await.0,
        0,
        "it is still there"
    );
    assert_eq!(
        quell(&node, &["functions", "delete", "probe", "--yes"]).await,
        (0, "deleted probe\n".into(), String::new())
    );
    assert_eq!(quell(&node, &["invoke", "probe"]).await.0, 5);
    node.stop().await;
}

#[tokio::test]
async fn a_wrong_command_line_is_explained_and_changes_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    for (args, said) in [
        (vec![], "Usage"),
        (vec!["stop"], "unrecognized subcommand"),
        (vec!["cancel"], "<REQUEST>"),
        (vec!["serve", "--drain", "5m"], "not a number of seconds"),
        (vec!["serve", "--listen", "here"], "invalid"),
        (vec!["serve", "--isolation", "magic"], "process-group"),
    ] {
        let (code, _, err) = run(&args, Some(scratch.path()), &[]).await;
        assert!(code == 2 && err.contains(said), "{args:?}: {code} {err}");
    }
    let (code, _, err) = run(&["ls"], Some(scratch.path()), &[]).await;
    assert!(code == 2 && err.contains("--endpoint") && err.contains("--data"), "{code} {err}");
    let (code, help, _) = run(&["--help"], None, &[]).await;
    assert!(code == 0 && help.contains("Exit codes") && help.contains("quell cancel REQUEST --recursive"));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing was made");
}

#[tokio::test]
async fn a_node_that_cannot_start_says_why() {
    let scratch = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, err) = run(&["serve", "--listen", &address], Some(scratch.path()), &[]).await;
    assert!(code == 1 && err.contains("cannot listen on"), "{code} {err}");
    assert!(err.contains("another program has this port") && err.contains("--listen"), "{err}");
    let node = TestNode::start().await;
    let (code, _, err) = run(&["serve", "--listen", "127.0.0.1:0"], Some(&node.dir), &[]).await;
    assert!(code == 1 && err.contains("in use by another quell") && err.contains("--data"), "{code} {err}");
    node.stop().await;
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let (code, _, err) = run(&["serve", "--listen", "127.0.0.1:0"], Some(&file), &[]).await;
    assert!(code == 2 && err.contains("cannot be made"), "{code} {err}");
    let data = scratch.path().join("damaged");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("quell.db"), "this is no database, and quite long enough to be seen as such")
        .unwrap();
    let (code, _, err) = run(&["serve", "--listen", "127.0.0.1:0"], Some(&data), &[]).await;
    assert!(code == 1 && err.contains("quell.db") && err.contains("quell backup"), "{code} {err}");
    fs::remove_file(data.join("quell.db")).unwrap();
    fs::write(data.join("client.json"), "{").unwrap();
    let (code, _, err) = run(&["serve", "--listen", "127.0.0.1:0"], Some(&data), &[]).await;
    assert!(
        code == 2 && err.contains("client.json is damaged") && err.contains("move it away"),
        "{code} {err}"
    );
}

#[tokio::test]
async fn the_doctor_names_each_layer_and_what_it_guarantees() {
    let (code, out, err) = run(&["doctor"], None, &[]).await;
    assert_eq!(code, 0, "{err}");
    for layer in ["L0", "L2", "L6 network namespace ("] {
        assert!(out.contains(layer), "{layer}: {out}");
    }
    assert!(out.contains("fork servers (possible)") || out.contains("fork servers (not possible)"), "{out}");
}
