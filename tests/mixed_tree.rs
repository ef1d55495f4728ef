//! Trees whose parts are of all kinds of runtimes, each as a parent and as a child, by invocations that are waited
//! for and that are not: a recursive cancel stops the whole of one, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::{Value, json};
use support::{Bell, Mode, Ring, TestNode, base64, zip};

const PYTHON: &[u8] = include_bytes!("functions/tree.py");
/// Functions, and how many requests one instance of each holds.
const KINDS: [(&str, u32); 6] =
    [("plain", 1), ("coroutine", 4), ("nodejs", 4), ("rust", 4), ("http", 1), ("lambda", 1)];
/// Those that stop one request and go on.
const COOPERATE: [&str; 5] = ["plain", "coroutine", "nodejs", "rust", "lambda"];
/// The way down: the function, and whether its parent waits for it. Each of them has a leaf beside it.
const DOWN: [(&str, bool); 7] = [
    ("plain", false),
    ("nodejs", true),
    ("rust", false),
    ("http", true),
    ("lambda", false),
    ("coroutine", true),
    ("plain", false),
];
/// What is beside each of them on the way down, not waited for.
const BESIDE: [&str; 6] = ["coroutine", "lambda", "nodejs", "plain", "http", "rust"];
const PARTS: usize = DOWN.len() + BESIDE.len();

/// The Rust part, built; see tests/rust_runtime.rs.
fn rust() -> &'static [u8] {
    static PROGRAM: OnceLock<Vec<u8>> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let profile = Path::new(env!("CARGO_BIN_EXE_quell")).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["rustc", "--offline", "--package", "quell-runtime", "--example", "tree"]);
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        cargo.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.args(["--", "-C", "strip=symbols"]);
        assert!(cargo.status().unwrap().success(), "the example cannot be built");
        std::fs::read(profile.join("examples/tree")).unwrap()
    })
}

/// Where `.ci/runtimes` has put the Lambda client.
fn client() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_quell")).parent().unwrap().parent().unwrap();
    let bin = target.join("runtimes/python/bin");
    assert!(bin.exists(), "{} is not there: run .ci/runtimes, which installs it", bin.display());
    // Where it is in truth: a link to it may be where an instance does not see it.
    bin.canonicalize().unwrap()
}

/// Name, runtime, handler, and the files of the package.
type Kind<'a> = (&'a str, &'a str, &'a str, Vec<(&'a str, &'a [u8])>);

async fn start() -> TestNode {
    let node = TestNode::start_with_path(&[client()]).await;
    let files: [Kind<'_>; 6] = [
        ("plain", "Python3.10", "tree.handler", vec![("tree.py", PYTHON)]),
        ("coroutine", "Python3.10", "tree.coroutine", vec![("tree.py", PYTHON)]),
        ("nodejs", "Node.js18.15", "tree.handler", vec![("tree.js", include_bytes!("functions/tree.js"))]),
        ("rust", "Custom", "bootstrap.handler", vec![("bootstrap", rust())]),
        (
            "http",
            "http",
            "bootstrap.http",
            vec![("bootstrap", include_bytes!("functions/tree_http.py")), ("tree.py", PYTHON)],
        ),
        ("lambda", "python3.11", "tree.on_lambda", vec![("tree.py", PYTHON)]),
    ];
    for (name, runtime, handler, package) in files {
        let (_, concurrency) = KINDS.into_iter().find(|(kind, _)| *kind == name).unwrap();
        // Long, so that what says that it has stopped has done so by itself; HTTP servers cannot say it.
        let grace = if COOPERATE.contains(&name) { 50_000 } else { 100 };
        let body = json!({
            "runtime": runtime,
            "handler": handler,
            "memory_size": 256,
            "code_type": "zip",
            "func_code": { "file": base64(&zip(&package)) },
            "strategy_config": { "concurrency": 16, "concurrent_num": concurrency },
            "quell": { "grace_ms": grace },
        });
        node.deploy(name, "", body).await;
    }
    node
}

/// In trees of this name whoever is waited for is not, and the other way round.
const FLIPPED: &str = "flipped";

/// The event of the part at this depth, and of all below it.
fn event(bell: &Bell, tree: &str, depth: usize) -> Value {
    let mut children = Vec::new();
    if let Some((function, sync)) = DOWN.get(depth + 1) {
        let beside = json!({ "bell": bell.path(), "tag": format!("{tree}-beside-{depth}"), "children": [] });
        children.push(json!({ "function": BESIDE[depth], "sync": false, "event": beside }));
        let below = event(bell, tree, depth + 1);
        let sync = *sync != tree.starts_with(FLIPPED);
        children.push(json!({ "function": function, "sync": sync, "event": below }));
    }
    json!({ "bell": bell.path(), "tag": format!("{tree}-{depth}"), "children": children })
}

/// Starts a tree; its root.
async fn plant(node: &TestNode, bell: &Bell, tree: &str) -> String {
    node.invoke_async(DOWN[0].0, &event(bell, tree, 0)).await
}

async fn receipt_of(node: &TestNode, cancel: &support::Reply) -> Value {
    assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
    node.receipt(cancel.header("x-quell-cancel-id")).await
}

fn requests(rings: &HashMap<String, Ring>) -> BTreeSet<String> {
    rings.values().map(Ring::request).collect()
}

/// The rows of the requests in the receipt's scope, by request.
fn rows(receipt: &Value) -> HashMap<String, Value> {
    let rows = receipt["requests"].as_array().unwrap().iter();
    rows.map(|row| (row["request_id"].as_str().unwrap().to_owned(), row.clone())).collect()
}

/// Nothing of these runs any more: each line has ended with the code that held it.
async fn have_ended(rings: HashMap<String, Ring>) {
    for mut ring in rings.into_values() {
        ring.last_words().await;
    }
}

/// Lets a tree, or what is left of it, come to its end.
async fn finish(rings: &mut HashMap<String, Ring>) {
    for ring in rings.values_mut() {
        ring.may_tell("go").await;
    }
}

#[tokio::test]
async fn a_recursive_cancel_stops_all_kinds_of_one_tree_and_another_tree_of_the_same_functions_finishes() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    for names in [["a", "b"], ["flipped-a", "flipped-b"]] {
        stops_one_of_two(&node, &bell, names).await;
    }
    node.stop().await;
}

async fn stops_one_of_two(node: &TestNode, bell: &Bell, [name, beside]: [&str; 2]) {
    let root = plant(node, bell, name).await;
    let tree = bell.rings(PARTS).await;
    let other = plant(node, bell, beside).await;
    let mut others = bell.rings(PARTS).await;
    let receipt = receipt_of(node, &node.cancel("plain", &root, Mode::Recursive).await).await;
    let rows = rows(&receipt);
    assert_eq!(rows.keys().cloned().collect::<BTreeSet<_>>(), requests(&tree), "{receipt}");
    assert_eq!(receipt["co_tenants"], json!([]));
    let view = node.view().await["instances"].to_string();
    for row in rows.values() {
        let function = row["function"].as_str().unwrap().trim_start_matches("default:");
        let expected = if COOPERATE.contains(&function) { "acknowledged" } else { "reaped" };
        assert_eq!((&row["evidence"], &row["code"]), (&json!(expected), &json!(4208)), "{row}");
        let stays = view.contains(&format!("\"instance\":{}", row["instance"]));
        assert_eq!(stays, expected == "acknowledged", "{row}: {view}");
    }
    have_ended(tree).await;
    assert!(bell.is_silent().await);
    finish(&mut others).await;
    assert_eq!(node.settled("plain", &other).await, ("SUCCESS".to_owned(), 0));
}

#[tokio::test]
async fn by_force_every_runtime_of_the_tree_is_gone() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    let root = plant(&node, &bell, "a").await;
    let tree = bell.rings(PARTS).await;
    let receipt = receipt_of(&node, &node.cancel("plain", &root, Mode::Both).await).await;
    assert_eq!(rows(&receipt).keys().cloned().collect::<BTreeSet<_>>(), requests(&tree), "{receipt}");
    assert!(rows(&receipt).values().all(|row| row["evidence"] == "reaped"), "{receipt}");
    assert!(tree.values().all(|ring| ring.process.is_gone()));
    assert_eq!(node.view().await["instances"], json!([]));
    node.stop().await;
}

#[tokio::test]
async fn a_cancel_in_the_middle_stops_what_is_below_and_what_is_above_goes_on() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    let root = plant(&node, &bell, "a").await;
    let mut tree = bell.rings(PARTS).await;
    // Of the third on the way down, which nobody waits for.
    let (middle, _) = DOWN[2];
    let target = tree["a-2"].request();
    let above: Vec<String> = ["a-0", "a-1", "a-beside-0", "a-beside-1"].map(str::to_owned).to_vec();
    let mut left: HashMap<String, Ring> =
        above.iter().map(|tag| (tag.clone(), tree.remove(tag).unwrap())).collect();
    let receipt = receipt_of(&node, &node.cancel(middle, &target, Mode::Recursive).await).await;
    assert_eq!(rows(&receipt).keys().cloned().collect::<BTreeSet<_>>(), requests(&tree), "{receipt}");
    have_ended(tree).await;
    finish(&mut left).await;
    assert_eq!(node.settled("plain", &root).await, ("SUCCESS".to_owned(), 0));
    node.stop().await;
}

#[tokio::test]
async fn a_plain_cancel_in_the_middle_stops_that_one_and_its_children_finish() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    let root = plant(&node, &bell, "a").await;
    let mut tree = bell.rings(PARTS).await;
    let (above, _) = DOWN[1];
    let stopped = tree.remove("a-2").unwrap();
    let receipt = receipt_of(&node, &node.cancel(DOWN[2].0, &stopped.request(), Mode::Plain).await).await;
    assert_eq!(rows(&receipt).len(), 1, "{receipt}");
    have_ended(HashMap::from([("a-2".to_owned(), stopped)])).await;
    let child = tree["a-4"].request();
    finish(&mut tree).await;
    assert_eq!(node.settled("plain", &root).await, ("SUCCESS".to_owned(), 0), "above: {above}");
    assert_eq!(node.settled(DOWN[4].0, &child).await, ("SUCCESS".to_owned(), 0));
    node.stop().await;
}

#[tokio::test]
async fn a_tree_that_is_cancelled_while_it_grows_starts_nothing_afterwards() {
    let (node, bell) = (start().await, Bell::hang_in_a_folder().await);
    for grown in [1, 2, 3, 5, 7, 9, 11, 12, PARTS] {
        let root = plant(&node, &bell, &format!("grown-{grown}")).await;
        let mut tree = bell.rings(grown).await;
        let receipt = receipt_of(&node, &node.cancel("plain", &root, Mode::Recursive).await).await;
        // Whoever rang before the fence may have done so after the test stopped to listen.
        for ring in bell.rung().await {
            tree.insert(ring.facts["tag"].as_str().unwrap().to_owned(), ring);
        }
        let rows = rows(&receipt);
        assert!(requests(&tree).iter().all(|request| rows.contains_key(request)), "{grown}: {receipt}");
        have_ended(tree).await;
        assert!(rows.values().all(|row| row["code"] == 4208), "{grown}: {receipt}");
        for row in rows.values() {
            let function = row["function"].as_str().unwrap().trim_start_matches("default:");
            let soon = function == "http"
                || ["acknowledged", "never_started"].contains(&row["evidence"].as_str().unwrap());
            assert!(soon, "{grown}: it had to be killed: {row} of {receipt}");
        }
        assert!(bell.is_silent().await, "{grown}: something started after the fence");
    }
    node.stop().await;
}
