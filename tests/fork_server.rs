//! Instances that are forked from a process which has imported the function: each in its own place all the same,
//! proven dead as any other; and executed, with the reason, where forking is not possible.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test that cannot go on fails

mod support;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Bell, Mode, Pidfd, TestNode, within};

/// Between two looks at something that nothing tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Tells who imported it, and who runs.
const WHO: &str = "\
import os
IMPORTED = open('/proc/self/stat').read().split()[21]  # the start of the process, which no fork inherits
NAMESPACE = os.readlink('/proc/self/ns/pid')
AT_IMPORT = sorted(os.environ)


def handler(event, context):
    open('/tmp/mine', 'a').write('x')
    return {
        'imported': IMPORTED, 'started': open('/proc/self/stat').read().split()[21],
        'namespace': os.readlink('/proc/self/ns/pid'), 'imported_in': NAMESPACE, 'at_import': AT_IMPORT,
        'instance': os.environ['QUELL_INSTANCE_ID'], 'processes': [p for p in os.listdir('/proc') if p.isdigit()],
        'cgroup': open('/proc/self/cgroup').read(), 'mine': open('/tmp/mine').read(), 'user': os.getuid(),
    }
";

fn forked() -> Value {
    json!({ "quell": { "fork_server": true }, "strategy_config": { "concurrency": 4, "concurrent_num": 1 } })
}

fn rows(view: &Value, of: &str) -> Vec<Value> {
    view[of].as_array().unwrap().clone()
}

/// Waits until a look at the node is as it should be.
async fn until(node: &TestNode, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
    within(what, async {
        loop {
            let view = node.view().await;
            if fits(&view) {
                return view;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await
}

/// Whether instances can be forked here; says so if not, since a test is then not made.
async fn forks(node: &TestNode) -> bool {
    let view = node.view().await;
    let leaf = rows(&view, "containment").into_iter().find(|row| row["id"] == "L2").unwrap();
    if leaf["active"] != true {
        println!("no leaves here: {}", leaf["detail"]);
    }
    leaf["active"] == true
}

async fn reserve(node: &TestNode, count: u32) {
    let json = [("Content-Type", "application/json")];
    let body = json!({ "count": count }).to_string();
    let path = "/v2/default/fgs/functions/f/reservedinstances";
    assert_eq!(node.send(Method::PUT, path, &json, body.as_bytes()).await.status, 200);
}

/// Whether this many ready instances were forked.
fn has_forked(count: usize) -> impl Fn(&Value) -> bool {
    move |view| {
        let ready = rows(view, "instances").into_iter().filter(|row| row["state"] == "ready");
        ready.filter(|row| row["fork_server"] == "forked").count() == count
    }
}

#[tokio::test]
async fn forked_instances_share_the_import_and_nothing_else() {
    let node = TestNode::start().await;
    if !forks(&node).await {
        return node.stop().await;
    }
    let bell = Bell::hang().await;
    let source = WHO.replace(
        "    open('/tmp/mine'",
        "    import json, socket\n    line = socket.socket(socket.AF_UNIX)\n    \
         line.connect('\\0quell-bell-%d' % event['port'])\n    line.sendall(b'{}\\n')\n    line.recv(2)\n    \
         open('/tmp/mine'",
    );
    node.deploy("f", &source, forked()).await;
    // Both at once, so that each has an instance of its own.
    let answers = [(); 2].map(|()| node.invoke("f", &json!({ "port": bell.port })));
    let mut rings = [bell.ring().await, bell.ring().await];
    let view = node.view().await;
    let servers = rows(&view, "fork_servers");
    assert_eq!(servers.len(), 1, "{servers:?}");
    for row in rows(&view, "instances") {
        assert_eq!(row["fork_server"], "forked", "{row}");
        assert_eq!(row["processes"].as_array().unwrap().len(), 1, "{row}");
    }
    for ring in &mut rings {
        ring.release().await;
    }
    let mut told = Vec::new();
    for answer in answers {
        told.push(within("an answer", answer).await.unwrap().json());
    }
    assert_eq!(told[0]["imported"], told[1]["imported"], "one import");
    for each in &told {
        assert_ne!(each["started"], each["imported"], "{each}");
        let at_import = each["at_import"].as_array().unwrap();
        for own in ["RUNTIME_API_ADDR", "QUELL_INSTANCE_ID"] {
            assert!(!at_import.contains(&json!(own)), "{each}");
        }
        assert_eq!(each["mine"], "x", "a /tmp of its own: {each}");
        let leaf = format!("/{}\n", each["instance"].as_str().unwrap());
        assert!(each["cgroup"].as_str().unwrap().contains(&leaf), "{each}");
    }
    assert_ne!(told[0]["instance"], told[1]["instance"]);
    let containment = rows(&view, "instances")[0]["containment"].as_str().unwrap().to_owned();
    if containment.contains("cgroup + pid namespace") {
        assert_ne!(told[0]["namespace"], told[1]["namespace"]);
        for each in &told {
            assert_ne!(each["namespace"], each["imported_in"], "{each}");
            assert_eq!(
                each["processes"].as_array().unwrap().len(),
                2,
                "it sees itself and its helper: {each}"
            );
        }
    } else {
        println!("no namespace of its own here: {containment}");
        assert!(containment.contains("forked"), "{containment}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_cancel_kills_one_fork_with_proof_and_leaves_its_sibling_and_the_fork_server_alone() {
    // With namespaces where there are any, and with leaves alone.
    for options in [&[][..], &["--isolation", "cgroup"]] {
        let node = TestNode::start_with(options).await;
        if !forks(&node).await {
            return node.stop().await;
        }
        cancel_one_of_two(node).await;
    }
}

async fn cancel_one_of_two(node: TestNode) {
    let bell = Bell::hang().await;
    node.deploy_probe("f", 1, 4, json!({ "quell": { "fork_server": true } })).await;
    let spared = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    let mut spared_ring = bell.ring().await;
    let request = node.invoke_async("f", &json!({ "do": "setsid", "port": bell.port })).await;
    let rings = bell.rings(2).await;
    let detached = rings["setsid"].started();
    let before = node.view().await;
    let server = rows(&before, "fork_servers")[0]["pid"].as_u64().unwrap();
    let reply = node.cancel("f", &request, Mode::Force).await;
    assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
    assert!(detached.is_gone() && rings.values().all(|ring| ring.process.is_gone()));
    let receipt = node.receipt(reply.header("x-quell-cancel-id")).await;
    let killed = &receipt["instances"][0];
    let steps: Vec<&str> =
        killed["proof"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
    assert!(steps.contains(&"populated_0") && steps.contains(&"leaf_removed"), "{killed}");
    // The node is not its parent, and does not say that it has collected it.
    assert!(!steps.contains(&"exit_collected") && !steps.contains(&"no_descendants"), "{killed}");
    let containment = killed["containment"].as_str().unwrap();
    assert!(containment.contains("forked"), "{killed}");
    assert_eq!(
        steps.contains(&"namespace_ended"),
        containment.contains("cgroup + pid namespace"),
        "{killed}"
    );
    // The other runs on, and the next is forked from the same import.
    assert!(!spared_ring.process.is_gone());
    spared_ring.release().await;
    assert_eq!(within("the other", spared).await.unwrap().status, 200);
    let after = node.view().await;
    assert_eq!(rows(&after, "fork_servers")[0]["pid"].as_u64().unwrap(), server);
    node.stop().await;
}

#[tokio::test]
async fn a_cancel_by_asking_reaches_a_fork_which_stays() {
    let node = TestNode::start().await;
    if !forks(&node).await {
        return node.stop().await;
    }
    let bell = Bell::hang().await;
    for (name, each) in [("f", 1), ("g", 4)] {
        node.deploy_probe(name, each, 1, json!({ "quell": { "fork_server": true, "grace_ms": 30_000 } }))
            .await;
        let request = node.invoke_async(name, &json!({ "do": "wait", "port": bell.port })).await;
        let _ring = bell.ring().await;
        let before = node.view().await;
        let reply = node.cancel(name, &request, Mode::Plain).await;
        assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{reply:?}");
        let (before, after) = (rows(&before, "instances"), rows(&node.view().await, "instances"));
        assert_eq!(before.last().unwrap()["pid"], after.last().unwrap()["pid"]);
        assert_eq!(after.last().unwrap()["fork_server"], "forked");
    }
    node.stop().await;
}

#[tokio::test]
async fn reserved_instances_are_forked() {
    let node = TestNode::start().await;
    if !forks(&node).await {
        return node.stop().await;
    }
    node.deploy("f", WHO, forked()).await;
    reserve(&node, 2).await;
    until(&node, "two of them", has_forked(2)).await;
    node.stop().await;
}

#[tokio::test]
async fn a_fork_server_that_dies_is_replaced() {
    let node = TestNode::start().await;
    if !forks(&node).await {
        return node.stop().await;
    }
    node.deploy("f", WHO, forked()).await;
    let first = within("a request", node.invoke("f", &json!({}))).await.unwrap().json();
    let view = node.view().await;
    let (server, instance) = (&rows(&view, "fork_servers")[0], &rows(&view, "instances")[0]);
    let instance = Pidfd::open(u32::try_from(instance["pid"].as_u64().unwrap()).unwrap()).unwrap();
    let pid =
        rustix::process::Pid::from_raw(i32::try_from(server["pid"].as_u64().unwrap()).unwrap()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    // What is in its PID namespace ends with it, and so does what it is the only parent of.
    within("the end of its instance", instance.gone()).await;
    until(&node, "its end", |view| rows(view, "fork_servers").is_empty()).await;
    let second = within("a request", node.invoke("f", &json!({}))).await.unwrap().json();
    assert_ne!(first["imported"], second["imported"]);
    until(&node, "another", has_forked(1)).await;
    node.stop().await;
}

#[tokio::test]
async fn another_revision_has_another_fork_server_and_a_deleted_function_has_none() {
    let node = TestNode::start().await;
    if !forks(&node).await {
        return node.stop().await;
    }
    node.deploy("f", WHO, forked()).await;
    let first = within("a request", node.invoke("f", &json!({}))).await.unwrap().json();
    let before = rows(&node.view().await, "fork_servers")[0]["fork_server"].clone();
    let json = [("Content-Type", "application/json")];
    let config = json!({
        "func_name": "f", "runtime": "Python3.10", "handler": "index.handler", "timeout": 9, "memory_size": 256,
    });
    let path = "/v2/default/fgs/functions/f/config";
    assert_eq!(node.send(Method::PUT, path, &json, config.to_string().as_bytes()).await.status, 200);
    let second = within("a request", node.invoke("f", &json!({}))).await.unwrap().json();
    assert_ne!(first["imported"], second["imported"]);
    let alone = |view: &Value| {
        let servers = rows(view, "fork_servers");
        servers.len() == 1 && servers[0]["fork_server"] != before
    };
    until(&node, "the new one alone", alone).await;
    assert_eq!(node.send(Method::DELETE, "/v2/default/fgs/functions/f", &[], b"").await.status, 204);
    let nobody = |view: &Value| rows(view, "fork_servers").is_empty() && rows(view, "instances").is_empty();
    until(&node, "none", nobody).await;
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_forked_is_executed_and_says_why() {
    let thread = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n";
    let cases = [
        (&[][..], "f", thread, "started a thread"),
        (&["--isolation", "subreaper"][..], "g", "", "no cgroup leaf"),
    ];
    for (options, name, import, reason) in cases {
        let node = TestNode::start_with(options).await;
        node.deploy(name, &format!("{import}def handler(event, context):\n    return event\n"), forked())
            .await;
        let reply = within("a request", node.invoke(name, &json!({ "a": 1 }))).await.unwrap();
        assert_eq!((reply.status, reply.json()), (200, json!({ "a": 1 })));
        let view = node.view().await;
        let said = rows(&view, "instances")[0]["fork_server"].as_str().unwrap().to_owned();
        let fits = said.starts_with("executed: ") && (said.contains(reason) || !forks(&node).await);
        assert!(fits, "{said}");
        until(&node, "no fork server", |view| rows(view, "fork_servers").is_empty()).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn what_the_import_may_do_to_the_fork_server_makes_no_claim_of_the_node_false() {
    let node = TestNode::start().await;
    if !forks(&node).await {
        return node.stop().await;
    }
    let handler = "\n\ndef handler(event, context):\n    return event\n";
    // Where no namespace can be made (here: is kept from being made), none is claimed.
    let shared = "from quell_runtime import namespaces\nnamespaces.make = lambda: False\n";
    node.deploy("shared", &format!("{shared}{handler}"), forked()).await;
    assert_eq!(within("a request", node.invoke("shared", &json!({}))).await.unwrap().status, 200);
    let row = rows(&node.view().await, "instances")[0].clone();
    assert_eq!(row["fork_server"], "forked");
    assert!(row["containment"].as_str().unwrap().starts_with("cgroup + subreaper, forked"), "{row}");
    // A process that is left beside the forked one, outside its leaf, from either side of the fork.
    for (name, side) in [("parent", "after_in_parent"), ("child", "after_in_child")] {
        let stray = format!(
            "import os\n\n\ndef leave():\n    if os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '300'):\n        return\n\n\n\
             os.register_at_fork({side}=leave)\n"
        );
        node.deploy(name, &format!("{stray}{handler}"), forked()).await;
        assert_eq!(within("a request", node.invoke(name, &json!({}))).await.unwrap().status, 200);
        let view = node.view().await;
        let row =
            rows(&view, "instances").into_iter().find(|row| row["function"] == format!("default:{name}"));
        let said = row.unwrap()["fork_server"].as_str().unwrap().to_owned();
        assert!(said.starts_with("executed: "), "{said}");
        let ended = |view: &Value| rows(view, "fork_servers").len() == 1;
        until(&node, "the end of that fork server", ended).await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_fork_that_is_released_runs_its_hooks_and_its_fork_server_makes_room() {
    let node = TestNode::start_with(&["--idle", "0.05", "--max-instances", "2"]).await;
    if !forks(&node).await {
        return node.stop().await;
    }
    let bell = Bell::hang().await;
    let source = format!(
        "import json\nimport socket\n\nSAID = []\n\n\ndef begin(context):\n    SAID.append('begun')\n\n\n\
         def handler(event, context):\n    SAID.append('served')\n    return SAID\n\n\n\
         def leave(context):\n    line = socket.socket(socket.AF_UNIX)\n    \
         line.connect('\\0quell-bell-{}')\n    line.sendall((json.dumps(SAID) + '\\n').encode())\n",
        bell.port
    );
    let mut more = forked();
    more["initializer_handler"] = json!("index.begin");
    more["pre_stop_handler"] = json!("index.leave");
    node.deploy("f", &source, more).await;
    let told = within("a request", node.invoke("f", &json!({}))).await.unwrap().json();
    assert_eq!(told, json!(["begun", "served"]));
    assert_eq!(bell.ring().await.facts, told, "the hook before its end");
    let alone = |view: &Value| rows(view, "instances").is_empty() && rows(view, "fork_servers").len() == 1;
    until(&node, "the end of the instance", alone).await;
    // Two others need both places.
    node.deploy_probe("g", 1, 2, json!({})).await;
    let answers = [(); 2].map(|()| node.invoke("g", &json!({ "do": "wait", "port": bell.port })));
    let mut rings = [bell.ring().await, bell.ring().await];
    assert!(rows(&node.view().await, "fork_servers").is_empty());
    for ring in &mut rings {
        ring.release().await;
    }
    for answer in answers {
        assert_eq!(within("an answer", answer).await.unwrap().status, 200);
    }
    node.stop().await;
}

#[tokio::test]
async fn an_import_that_fails_is_told_as_ever() {
    let node = TestNode::start().await;
    node.deploy("f", "raise ValueError('as the test asked')\n", forked()).await;
    let reply = within("a request", node.invoke("f", &json!({}))).await.unwrap();
    assert!(reply.text().contains("as the test asked"), "{}", reply.text());
    node.stop().await;
}

#[tokio::test]
async fn with_the_node_its_fork_servers_and_what_they_forked_are_gone_and_the_next_life_sweeps() {
    let (mut node, bell) = (TestNode::start().await, Bell::hang().await);
    if !forks(&node).await {
        return node.stop().await;
    }
    node.deploy_probe("f", 1, 1, json!({ "quell": { "fork_server": true } })).await;
    let request = node.invoke_async("f", &json!({ "do": "setsid", "port": bell.port })).await;
    let rings = bell.rings(2).await;
    let detached = rings["setsid"].started();
    let view = node.view().await;
    let server = rows(&view, "fork_servers")[0]["pid"].as_u64().unwrap();
    let server = Pidfd::open(u32::try_from(server).unwrap()).unwrap();
    node.kill();
    for process in [&server, &detached].into_iter().chain(rings.values().map(|ring| &ring.process)) {
        within("the end of a process", process.gone()).await;
    }
    let next = TestNode::start_in(&node.dir.clone(), &[]).await;
    let again = bell.rings(2).await;
    assert_eq!(again.values().find(|ring| ring.facts["tag"].is_null()).unwrap().request(), request);
    assert_eq!(next.cancel("f", &request, Mode::Both).await.header("x-quell-stop"), "stopped");
    next.stop().await;
}
