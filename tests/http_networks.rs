//! Where HTTP functions listen: in a network of each instance's own, or at a port of its own on the machine's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{fs, time::Duration};

use serde_json::json;
use support::{
    Bell, Mode, TestNode,
    http::{all_finish, body, call, deploy, deploy_file, waiting},
    within,
};

/// Whether instances have networks of their own here; says so if not.
async fn own_networks(node: &TestNode) -> bool {
    let view = node.view().await;
    let layers = view["containment"].as_array().unwrap_or_else(|| panic!("{view}"));
    let layer = layers.iter().find(|layer| layer["id"] == "L6").unwrap();
    if layer["active"] != true {
        println!("no networks of their own here, so nothing is tested of them: {layer}");
    }
    layer["active"] == true
}

#[tokio::test]
async fn two_instances_have_the_same_port_each_in_a_network_of_its_own() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    if !own_networks(&node).await {
        return node.stop().await;
    }
    deploy(&node, "f", (1, 2), json!({}), json!({})).await;
    let (answers, mut rings) = waiting(&node, &bell, "f", 2).await;
    let pids: Vec<u32> = rings.values().map(|ring| ring.pid).collect();
    let network = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let networks = [network(pids[0]), network(pids[1]), network(std::process::id())];
    assert!(networks[0] != networks[1] && networks[0] != networks[2] && networks[1] != networks[2]);
    all_finish(answers, &mut rings).await;
    let environ = &body(&call(&node, "f", json!({ "do": "plain" })).await)["environ"];
    assert_eq!(environ["PORT"], "8000");
    // From inside there is no way to what listens outside.
    let outside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = outside.local_addr().unwrap().port();
    let said = body(&call(&node, "f", json!({ "do": "outside", "port": port })).await);
    assert_eq!(said["reached"], false);
    node.stop().await;
}

#[tokio::test]
async fn on_the_nodes_network_each_instance_has_a_port_of_its_own() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    deploy(&node, "f", (1, 2), json!({}), json!({ "quell": { "network": "node" } })).await;
    let (answers, mut rings) = waiting(&node, &bell, "f", 2).await;
    all_finish(answers, &mut rings).await;
    let said = body(&call(&node, "f", json!({ "do": "plain" })).await);
    assert_ne!(said["environ"]["PORT"], "8000");
    let outside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = outside.local_addr().unwrap().port();
    assert_eq!(body(&call(&node, "f", json!({ "do": "outside", "port": port })).await)["reached"], true);
    // Cancelled like any other.
    let request = node.invoke_async("f", &json!({ "do": "wait", "bell": bell.path() })).await;
    let ring = bell.ring().await;
    let cancel = node.cancel("f", &request, Mode::Plain).await;
    assert_eq!((cancel.status, cancel.header("x-quell-stop")), (200, "stopped"), "{cancel:?}");
    assert!(ring.process.is_gone());
    node.stop().await;
}

#[tokio::test]
async fn without_namespaces_an_http_function_listens_where_port_says_and_own_networks_are_refused() {
    let (node, bell) =
        (TestNode::start_with(&["--isolation", "subreaper"]).await, Bell::hang_in_a_folder().await);
    assert!(!own_networks(&node).await);
    deploy(&node, "f", (2, 1), json!({}), json!({})).await;
    let (answers, mut rings) = waiting(&node, &bell, "f", 2).await;
    all_finish(answers, &mut rings).await;
    deploy(&node, "own", (1, 1), json!({}), json!({ "quell": { "network": "own" } })).await;
    let refused = call(&node, "own", json!({ "do": "plain" })).await.error();
    assert_eq!((refused.0, refused.1.as_str()), (500, "FSS.4201"), "{}", refused.2);
    assert!(refused.2.contains("network of its own"), "{}", refused.2);
    node.stop().await;
}

#[tokio::test]
async fn a_python_function_may_have_a_network_of_its_own_as_well() {
    let node = TestNode::start().await;
    if !own_networks(&node).await {
        return node.stop().await;
    }
    let source = "def handler(event, context):\n    return open('/proc/net/dev').read()\n";
    for (name, network, alone) in [("own", "own", true), ("auto", "auto", false)] {
        node.deploy(name, source, json!({ "quell": { "network": network } })).await;
        let reply = call(&node, name, json!({})).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let ours = fs::read_to_string("/proc/net/dev").unwrap().lines().count();
        let theirs = reply.text().lines().count();
        assert_eq!(theirs, if alone { 3 } else { ours }, "two lines of titles and one device");
    }
    node.stop().await;
}

#[tokio::test]
async fn whoever_else_listens_at_an_instances_port_is_not_taken_for_its_server() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    let layers = node.view().await["containment"].clone();
    if !layers.as_array().unwrap().iter().any(|layer| layer["id"] == "L2" && layer["active"] == true) {
        println!("no cgroups here, by which whose a socket is could be told");
        return node.stop().await;
    }
    // It tells its port, and never listens; the test does in its place.
    let silent = "#!/bin/sh\npython3 -c 'import json, os, socket
line = socket.socket(socket.AF_UNIX)
line.connect(json.loads(os.environ[\"RUNTIME_USERDATA\"])[\"bell\"])
line.sendall((json.dumps({\"port\": int(os.environ[\"PORT\"])}) + \"\\n\").encode())
line.recv(1)'\n";
    let more = json!({
        "quell": { "network": "node", "start_timeout_s": 1 },
        "user_data": json!({ "bell": bell.path() }).to_string(),
    });
    deploy_file(&node, "f", silent.as_bytes(), more).await;
    let answer = node.invoke("f", &json!({ "do": "plain" }));
    let ring = bell.ring().await;
    let port = u16::try_from(ring.facts["port"].as_u64().unwrap()).unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let stranger = async {
        use tokio::io::AsyncReadExt as _;
        loop {
            let (mut line, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            drop(line.read_to_end(&mut heard).await); // a reset is an end as well
            assert!(heard.is_empty(), "nothing of a request goes to a stranger");
        }
    };
    let reply = tokio::select! {
        reply = within("its end", answer) => reply.unwrap(),
        () = stranger => unreachable!(),
    };
    assert_eq!(reply.error().1, "FSS.4211", "{}", reply.text());
    node.stop().await;
}

/// Descriptors of the node: what is left of a network without processes is in one of them.
fn descriptors(node: &TestNode) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count()
}

#[tokio::test]
async fn nothing_of_an_instances_network_is_held_once_it_is_gone() {
    let (node, bell) = (TestNode::start().await, Bell::hang_in_a_folder().await);
    deploy(&node, "f", (2, 1), json!({ "cooperates": "yes" }), json!({})).await;
    let mut early = usize::MAX;
    for round in 0..30 {
        let request = node.invoke_async("f", &json!({ "do": "notice", "bell": bell.path() })).await;
        let ring = bell.ring().await;
        let cancel = node.cancel("f", &request, Mode::Force).await;
        assert_eq!(cancel.header("x-quell-stop"), "stopped");
        assert!(ring.process.is_gone());
        if round == 4 {
            early = descriptors(&node);
        }
    }
    // Connections and listeners end in tasks of their own, a moment after the proof.
    within(&format!("{early} descriptors again"), async {
        while descriptors(&node) > early {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    node.stop().await;
}
