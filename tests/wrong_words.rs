//! The wrong things that people type first: each is told what is wrong and what to do, and changes nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, TestNode, within};

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// Somebody with a home of his own.
struct Person {
    home: tempfile::TempDir,
    data: Option<PathBuf>,
}

impl Person {
    fn at(data: Option<&Path>) -> Self {
        Self { home: tempfile::tempdir().unwrap(), data: data.map(Path::to_owned) }
    }

    /// (exit code, stdout, stderr)
    async fn types(&self, args: &[&str]) -> (i32, String, String) {
        self.types_with(args, "").await
    }

    async fn types_with(&self, args: &[&str], stdin: &str) -> (i32, String, String) {
        use std::io::Write as _;
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_quell"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUELL_")) {
            command.env_remove(name);
        }
        command.env_remove("XDG_CONFIG_HOME").env("HOME", self.home.path()).current_dir(self.home.path());
        if let Some(data) = &self.data {
            command.env("QUELL_DATA", data);
        }
        use std::process::Stdio;
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let stdin = stdin.to_owned();
        let run = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            drop(child.stdin.take().unwrap().write_all(stdin.as_bytes())); // it may not read any
            child.wait_with_output().unwrap()
        });
        let output = within("the command", run).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// That this is answered with this code and these words, and nothing on stdout.
    #[track_caller]
    fn told(args: &[&str], (code, out, err): (i32, String, String), (wanted, words): (i32, &[&str])) {
        assert!(code == wanted && out.is_empty(), "{args:?}: {code} {out} {err}");
        for word in words {
            assert!(err.contains(word), "{args:?} should say {word:?}: {err}");
        }
    }
}

#[tokio::test]
async fn words_of_other_tools_are_told_what_they_are_here() {
    let person = Person::at(None);
    let cases: Vec<(Vec<&str>, i32, &[&str])> = vec![
        (vec!["cancle", NOBODY], 2, &["unrecognized subcommand 'cancle'", "cancel"]),
        (vec!["stop", NOBODY], 2, &["unrecognized subcommand 'stop'", "--help", "`quell cancel REQUEST`"]),
        (vec!["start"], 2, &["did you mean `quell serve`?"]),
        (vec!["run", "hello"], 2, &["`quell serve` runs a node, `quell invoke hello` a function"]),
        (vec!["history"], 2, &["did you mean `quell receipts`?"]),
        (vec!["describe", NOBODY], 2, &["did you mean `quell tree REQUEST`?"]),
        (vec!["functions", "list"], 2, &["did you mean `quell functions`?"]),
        (vec!["functions", "show", "f"], 2, &["quell functions --output json"]),
        (vec!["credentials", "delete", "k"], 2, &["did you mean `quell credentials revoke KEY`?"]),
        (vec!["config", "validate", "f"], 2, &["did you mean `quell config check FILE`?"]),
        (vec!["cancel", "--label", "team=x"], 2, &["quell cancel --where 'label.team=x'"]),
        (vec!["ls", "--function", "f"], 2, &["quell ls --where 'function=f'"]),
        (vec!["invoke", "f", "{\"a\": 1}"], 2, &["the event is: --event '{\"a\": 1}'"]),
        (vec!["invoke", "f", "--data", "{\"a\": 1}"], 2, &["quell invoke f --event '{\"a\": 1}'"]),
        (vec!["serve", "--drain", "30s"], 2, &["not a number of seconds", "write 30"]),
        (vec!["serve", "--drain", "5m"], 2, &["write 300"]),
        (vec!["run"], 2, &["`quell serve`", "quell invoke FUNCTION"]),
        (vec!["ps"], 2, &["did you mean `quell ls`?"]),
        (vec!["kill", NOBODY], 2, &["did you mean `quell cancel REQUEST --force`?"]),
        (vec!["version"], 2, &["did you mean `quell --version`?"]),
        (vec!["delete", "f"], 2, &["did you mean `quell functions delete NAME`?"]),
        (vec!["serve", "--port", "80"], 2, &["--listen 127.0.0.1:PORT"]),
        (vec!["ls", "--all"], 2, &["`quell ls` shows all that lives", "quell receipts"]),
        (vec!["logs"], 2, &["quell logs --function NAME"]),
        (vec!["logs", NOBODY, "--since", "5"], 2, &["90s, 15m", "--since"]),
        (vec!["call-off"], 2, &["quell call-off --list"]),
        (vec!["invoke", "f", "--event", "{name: 1}"], 2, &["not JSON", "--event '{"]),
        (vec!["invoke", "f", "--label", "team"], 2, &["--label", "name=value"]),
    ];
    for (args, code, words) in cases {
        Person::told(&args, person.types(&args).await, (code, words));
    }
}

#[tokio::test]
async fn files_and_folders_that_cannot_be_used_are_told_without_a_node() {
    let person = Person::at(None);
    fs::write(person.home.path().join("a-file"), "").unwrap();
    fs::create_dir(person.home.path().join("damaged")).unwrap();
    fs::write(person.home.path().join("damaged/client.json"), "{").unwrap();
    let cases: Vec<(Vec<&str>, i32, &[&str])> = vec![
        (vec!["serve", "--data", "a-file"], 2, &["the data folder a-file", "it is a file", "--data"]),
        (vec!["serve", "--data", "/proc/nosuch"], 2, &["the data folder /proc/nosuch cannot be made"]),
        (vec!["man", ""], 2, &["a value is required"]),
        (vec!["man", "a-file"], 2, &["a-file cannot be made"]),
        (vec!["context", "add", "n", "--data", "nosuch"], 2, &["nosuch is not there"]),
        (
            vec!["context", "add", "n", "--endpoint", "http://n", "--token-file", "nosuch"],
            2,
            &["nosuch is not there"],
        ),
        (
            vec!["ls", "--endpoint", "https://n", "--token", "t", "--ca", "nosuch.pem"],
            2,
            &["--ca nosuch.pem cannot be read"],
        ),
        (
            vec!["ls", "--endpoint", "https://n", "--token", "t", "--ca", "a-file"],
            2,
            &["--ca a-file holds no certificate"],
        ),
        (vec!["ls", "--data", "damaged"], 2, &["client.json is damaged", "move it away"]),
        (vec!["backup", "a-file", "--endpoint", "http://n", "--token", "t"], 2, &["is there already"]),
        (
            vec!["backup", "nosuch/b", "--endpoint", "http://n", "--token", "t"],
            2,
            &["there is no folder nosuch"],
        ),
    ];
    for (args, code, words) in cases {
        Person::told(&args, person.types(&args).await, (code, words));
    }
}

#[tokio::test]
async fn what_nobody_needs_a_node_for_is_told_without_one() {
    let person = Person::at(None);
    let cases: Vec<(Vec<&str>, i32, &[&str])> = vec![
        (vec!["deploy", "nosuchdir"], 2, &["nosuchdir is not there", "function.toml"]),
        (vec!["credentials", "create", "--scope", "root"], 2, &["read, invoke, cancel, admin, operator"]),
        (vec!["cancel"], 2, &["<REQUEST>", "quell cancel --where", "quell ls"]),
        (vec!["plan"], 2, &["quell plan --where"]),
        (vec!["cancel", "1167bf8c"], 2, &["a request id is like", "quell ls"]),
        (vec!["tree", "i12"], 2, &["a request id is like", "quell ls"]),
        (vec!["receipt", "last"], 2, &["a cancel id is like", "quell receipts"]),
        (vec!["cancel", NOBODY, "--where", "age>1m"], 2, &["cannot be used with"]),
        (vec!["cancel", "--where", "functoin=f"], 2, &["no \"functoin\"", "function=NAME"]),
        (vec!["cancel", "--where", "age=10m"], 2, &["age>10m"]),
        (vec!["cancel", "--where", "age>10"], 2, &["90s, 15m"]),
        (vec!["cancel", "--where", "status=done"], 2, &["waiting, running, draining"]),
        (vec!["cancel", "--where", "team=x"], 2, &["did you mean label.team=x?"]),
        (vec!["cancel", "--where", "label.team"], 2, &["is no term"]),
        (vec!["cancel", NOBODY, "--yes"], 2, &["cannot be used with", "--yes"]),
        (vec!["ls", "--where", "f"], 2, &["is no term", "function=NAME"]),
        (vec!["ls", "--output", "yaml"], 2, &["table, json"]),
        (vec!["completions", "tcsh"], 2, &["bash", "zsh"]),
        (vec!["top"], 2, &["for a terminal", "quell ls"]),
        (vec!["migrate", "--store", "mysql://host/quell"], 2, &["--store", "`mysql://...` is no database"]),
        (vec!["migrate", "--store", "postgres://u:secret@host/quell"], 2, &["a password does not belong"]),
        (
            vec!["migrate", "--store", "postgres://u@host/quell", "--store-password-file", "nosuch"],
            2,
            &["--store-password-file", "nosuch cannot be read"],
        ),
        // No node was ever named.
        (vec!["ls"], 2, &["--endpoint", "--context", "--data", "quell serve"]),
        (vec!["ls", "--context", "prod"], 2, &["no context \"prod\"", "none yet", "quell context add"]),
        (vec!["context", "use", "prod"], 2, &["no context \"prod\""]),
        (vec!["context", "add", "a b", "--endpoint", "http://n"], 2, &["letters, digits"]),
        (vec!["context", "add", "n", "--endpoint", "n:7171"], 2, &["http://"]),
        (vec!["context", "add", "n", "--endpoint", "http://n"], 2, &["no token came", "--token-file"]),
        (vec!["context", "add", "n"], 2, &["--endpoint URL", "--data FOLDER"]),
        // Nothing listens there.
        (
            vec!["ls", "--endpoint", "http://127.0.0.1:1", "--token", "t"],
            3,
            &["no node answers", "quell serve"],
        ),
        (vec!["ls", "--endpoint", "127.0.0.1:1", "--token", "t"], 2, &["http://", "QUELL_ENDPOINT"]),
        (vec!["ls", "--endpoint", "http://[", "--token", "t"], 2, &["is no address", "QUELL_ENDPOINT"]),
    ];
    for (args, code, words) in cases {
        Person::told(&args, person.types(&args).await, (code, words));
    }
}

#[tokio::test]
async fn what_a_node_refuses_is_told_with_what_to_do() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let event = json!({ "do": "wait", "port": bell.port });
    node.invoke_async("f", &event).await;
    let mut ring = bell.ring().await;
    let over = node.invoke_async("f", &json!({ "name": 1 })).await;
    ring.release().await;
    assert_eq!(node.settled("f", &over).await.0, "SUCCESS");
    let live = node.invoke_async("f", &event).await;
    let _ring = bell.ring().await;
    let made =
        node.post("/quell/v1/credentials", &json!({ "project": "foreign", "scopes": ["admin"] })).await;
    let foreign = made.json()["token"].as_str().unwrap().to_owned();
    let made = node.post("/quell/v1/credentials", &json!({ "scopes": ["read"] })).await;
    let reader = made.json()["token"].as_str().unwrap().to_owned();
    let made = node.post("/quell/v1/credentials", &json!({ "scopes": ["invoke"] })).await;
    let nobody = made.json()["token"].as_str().unwrap().to_owned();
    let person = Person::at(Some(&node.dir));
    let folder = person.home.path().join("empty");
    fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap();
    let no_function = person.home.path().to_str().unwrap();
    fs::write(
        person.home.path().join("empty/function.toml"),
        "runtime = \"Python3.10\"\nhandler = \"index.handler\"\ntimeout = 30\n",
    )
    .unwrap();
    let no_tls = node.endpoint.replace("http://", "https://");
    let cases: Vec<(Vec<&str>, i32, &[&str])> = vec![
        (vec!["ls", "--token", "wrong"], 4, &["invalid token", "--token", "quell context list"]),
        (vec!["cancel", &live, "--token", &reader], 4, &["invalid token: it lacks the scope cancel"]),
        (vec!["deploy", folder, "--token", &reader], 4, &["invalid token: it lacks the scope admin"]),
        (vec!["credentials", "list", "--token", &reader], 4, &["it lacks the scope admin"]),
        (vec!["receipts", "--token", &nobody], 4, &["it lacks the scope read"]),
        // An id of another project is unknown there, and that is all that is told.
        (vec!["tree", &live, "--token", &foreign, "--project", "foreign"], 5, &["not found", "quell ls"]),
        (
            vec!["cancel", &live, "--token", &foreign, "--project", "foreign"],
            5,
            &["has no request", "quell ls"],
        ),
        (vec!["cancel", NOBODY], 5, &["has no request", "of another node", "--function"]),
        (vec!["nodes"], 5, &["this node is alone", "its store is its own"]),
        (vec!["cancel", &over], 1, &["has already ended: SUCCESS", "nothing to cancel"]),
        (vec!["plan", &over], 1, &["has already ended: SUCCESS", "nothing to cancel"]),
        (vec!["cancel", &over, "--dry-run"], 1, &["has already ended: SUCCESS", "nothing to cancel"]),
        (vec!["plan", NOBODY], 5, &["has no request", "quell ls"]),
        (vec!["receipt", &over], 5, &["was not cancelled", "quell tree"]),
        (vec!["receipts", "--function", "nosuch"], 5, &["there is no function nosuch"]),
        (vec!["credentials", "revoke", "nosuch"], 5, &["quell credentials list"]),
        (vec!["ls", "--endpoint", &no_tls], 3, &["speaks no TLS", "http://"]),
        (vec!["call-off", "nobody"], 5, &["bulk cancel not found", "none runs", "quell call-off --list"]),
        (vec!["receipt", NOBODY], 5, &["not found", "quell receipts"]),
        (
            vec!["invoke", "nobody"],
            5,
            &["there is no function nobody", "Not found the function", "quell functions"],
        ),
        (vec!["tree", NOBODY], 5, &["is not live, and not kept", "not found"]),
        (vec!["deploy", no_function], 2, &["function.toml cannot be read", "runtime = "]),
        (vec!["plan", "--where", "function=nobody"], 5, &["Not found the function", "quell functions"]),
        (vec!["cancel", "--where", "age>0s", "--key", "a/b", "--yes"], 1, &["key is not of"]),
    ];
    for (args, code, words) in cases {
        Person::told(&args, person.types(&args).await, (code, words));
    }
    node.stop().await;
}

#[tokio::test]
async fn whoever_names_another_project_than_that_of_the_credential_touches_nothing() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let live = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
    let _ring = bell.ring().await;
    let person = Person::at(Some(&node.dir));
    let other = ["--project", "other"];
    for args in [
        &["ls"] as &[&str],
        &["functions"],
        &["receipts"],
        &["tree", &live],
        &["plan", &live, "--recursive"],
        &["cancel", &live],
        &["cancel", &live, "--dry-run"],
        &["cancel", &live, "--function", "f"],
        &["cancel", "--where", "age>=0s", "--yes"],
        &["cancel", "--where", "age>=0s", "--dry-run"],
        &["logs", &live],
        &["backup", "b"],
    ] {
        let args = [args, &other].concat();
        let words: &[&str] = &["it opens another project", "--project"];
        Person::told(&args, person.types(&args).await, (4, words));
    }
    assert_eq!(node.listed("f", &live).await.0, "RUNNING");
    // Whoever names a request is told its cancel, and a plan of one that is cancelled is none, as its cancel is.
    let (code, _, err) = person.types(&["cancel", &live, "--force", "--project", "default"]).await;
    assert_eq!(code, 0, "{err}");
    let cancel = node.get(&format!("/quell/v1/requests/{live}")).await.json()["cancel_id"].clone();
    let receipt = format!("quell receipt {}", cancel.as_str().unwrap());
    let args = ["receipt", live.as_str()];
    Person::told(&args, person.types(&args).await, (5, &[&receipt]));
    let (code, out, err) = person.types(&["plan", &live]).await;
    assert!(code == 0 && out.contains("cancelled already") && out.contains(&receipt), "{code} {out} {err}");
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_written_is_no_success() {
    let node = TestNode::start().await;
    let mut command = TestNode::client_command(&node.dir, &["ls"]);
    command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let output =
        within("the command", tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("cannot be written"), "{} {err}", output.status);
    assert_eq!(err.lines().count(), 1, "once: {err}");
    node.stop().await;
}

#[tokio::test]
async fn many_are_not_cancelled_where_nobody_can_be_asked() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 1, json!({})).await;
    let event = json!({ "do": "wait", "port": bell.port });
    let live = node.invoke_async("f", &event).await;
    let _ring = bell.ring().await;
    let waiting = node.invoke_async("f", &event).await;
    let person = Person::at(Some(&node.dir));
    let (code, out, err) = person.types(&["cancel", "--where", "status=waiting"]).await;
    assert!(
        code == 2 && err.contains("--yes") && out.contains(&waiting),
        "the plan, and no: {code} {out} {err}"
    );
    let (code, out, _) = person.types(&["cancel", "--where", "status=waiting", "--dry-run"]).await;
    assert!(code == 0 && out.contains(&waiting) && out.contains("1 waiting"), "{out}");
    assert_eq!(node.listed("f", &waiting).await.0, "WAIT");
    let (code, out, _) = person.types(&["ls", "--where", "status=queued"]).await;
    assert!(code == 0 && out.contains(&waiting) && !out.contains(&live), "as `ls` says it: {out}");
    let (code, out, _) = person.types(&["ls", "--where", "status=running"]).await;
    assert!(code == 0 && out.contains(&live) && !out.contains(&waiting), "{out}");

    let args =
        ["cancel", "--where", "status=waiting", "--yes", "--key", "k", "--reason", "why", "--output", "json"];
    let (code, out, _) = person.types(&args).await;
    let bulk: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &bulk["stopped"], &bulk["key"]), (0, &json!(1), &json!("k")), "{bulk}");
    assert_eq!(node.listed("f", &waiting).await, ("DISCARD".into(), 4208));
    let again = person.types(&args).await;
    assert_eq!(
        (again.0, serde_json::from_str::<Value>(&again.1).unwrap()),
        (0, bulk),
        "the same, not another"
    );
    let (code, out, _) = person.types(&["call-off", "--list"]).await;
    assert!(
        code == 0 && out.contains("k  ") && out.contains("done") && out.contains("status=waiting"),
        "{out}"
    );
    let (code, out, _) = person.types(&["receipts"]).await;
    assert!(code == 0 && out.contains(&waiting) && out.contains("k: why"), "{out}");
    let args = ["cancel", "--where", "status=waiting", "--yes"];
    let (code, _, err) = person.types(&args).await;
    assert!(code == 0 && err.contains("nothing to cancel"), "{err}");
    node.cancel("f", &live, Mode::Force).await;
    node.stop().await;
}

#[tokio::test]
async fn contexts_name_nodes_and_their_tokens_are_seen_by_nobody_else() {
    let node = TestNode::start().await;
    node.deploy_probe("f", 1, 1, json!({})).await;
    let person = Person::at(None);
    let add = ["context", "add", "here", "--endpoint", &node.endpoint];
    let (code, _, err) = person.types_with(&add, &format!("{}\n", node.token)).await;
    assert!(code == 0 && err.contains("it is the current one"), "{code} {err}");
    let file = person.home.path().join(".config/quell/contexts.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, out, err) = person.types(&["functions"]).await;
    assert!(code == 0 && out.contains("default:f"), "{out} {err}");
    let (code, out, _) = person.types(&["instances", "--output", "json"]).await;
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()["instances"].clone()), (0, json!([])));
    let data = node.dir.to_str().unwrap();
    assert_eq!(person.types(&["context", "add", "folder", "--data", data]).await.0, 0);
    assert_eq!(person.types(&["ls", "--context", "folder"]).await.0, 0);
    let (code, out, _) = person.types(&["context", "list"]).await;
    assert!(
        code == 0 && out.contains("here") && out.contains("folder") && !out.contains(&node.token),
        "{out}"
    );
    let (code, _, err) = person.types(&["ls", "--context", "there"]).await;
    assert!(code == 2 && err.contains("there are: folder, here"), "{err}");
    // The token of a context goes to its own node and to no other.
    let (code, _, err) = person.types(&["ls", "--endpoint", "http://127.0.0.1:1"]).await;
    assert!(code == 2 && err.contains("no token"), "{code} {err}");
    assert_eq!(person.types(&["context", "use", "folder"]).await.0, 0);
    assert_eq!(person.types(&["context", "remove", "folder"]).await.0, 0);
    let (code, _, err) = person.types(&["ls"]).await;
    assert!(code == 2 && err.contains("--context"), "none is current now: {code} {err}");
    // A file that others may read is not used.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, err) = person.types(&["ls", "--context", "here"]).await;
    assert!(code == 2 && err.contains("chmod 600"), "{code} {err}");
    assert_eq!(node.send(Method::GET, "/quell/v1/node", &[], b"").await.status, 200);
    node.stop().await;
}

#[tokio::test]
async fn completions_and_man_pages_come_from_the_commands_themselves() {
    let person = Person::at(None);
    for (shell, word) in [("bash", "_quell()"), ("zsh", "#compdef quell"), ("fish", "complete -c quell")] {
        let (code, out, err) = person.types(&["completions", shell]).await;
        assert!(
            code == 0 && out.contains(word) && out.contains("cancel") && err.is_empty(),
            "{shell}: {err}"
        );
    }
    let (code, _, err) = person.types(&["man", "pages"]).await;
    assert_eq!(code, 0, "{err}");
    for (page, word) in [
        ("quell.1", ".SH \"EXIT CODES\""),
        ("quell-cancel.1", ".SH \"EXAMPLES\""),
        ("quell-context-add.1", "stdin"),
    ] {
        let text = fs::read_to_string(person.home.path().join("pages").join(page)).unwrap();
        assert!(text.contains(word) && !text.contains("EXTRA"), "{page}");
    }
    for (shell, option, words) in [
        ("bash", "--isolation", "auto cgroup subreaper process-group"),
        ("bash", "--scope", "read invoke cancel admin operator"),
    ] {
        let (_, out, _) = person.types(&["completions", shell]).await;
        assert!(out.contains(words), "{option} completes with its words");
    }
}

#[tokio::test]
async fn a_cancel_whose_node_ends_before_the_receipt_is_read_says_what_the_node_said() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    const CANCEL: &str = "11111111-1111-4111-8111-111111111111";
    for (output, wanted) in [("table", "stopped  receipt"), ("json", "\"result\":\"stopped\"")] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let node = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            drop(listener); // nobody answers the next
            let (mut ask, mut piece) = (Vec::new(), [0; 4_096]);
            while !ask.ends_with(b"}") {
                let read = stream.read(&mut piece).await.unwrap();
                ask.extend_from_slice(&piece[..read]);
            }
            let answer = format!(
                "HTTP/1.1 200 OK\r\nX-Quell-Stop: stopped\r\nX-Quell-Cancel-Id: {CANCEL}\r\n\
                 Content-Length: 4\r\nConnection: close\r\n\r\nnull"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let person = Person::at(None);
        let args = [
            "cancel",
            NOBODY,
            "--function",
            "f",
            "--endpoint",
            &endpoint,
            "--token",
            "t",
            "--output",
            output,
        ];
        let (code, out, err) = person.types(&args).await;
        assert_eq!(code, 0, "{out} {err}");
        assert!(out.contains(wanted) && out.contains(CANCEL), "{out}");
        assert!(err.contains("cannot be read now") && err.contains("quell receipt"), "{err}");
        within("the node", node).await.unwrap();
    }
}
