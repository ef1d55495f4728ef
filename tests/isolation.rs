//! Functions cannot reach into each other: the Runtime API knows its own (I11).
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use serde_json::json;
use support::{Bell, Mode, TestNode, within};

#[tokio::test]
async fn a_function_cannot_speak_for_the_instance_of_another() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("victim", 1, 1, json!({})).await;
    node.deploy("burglar", include_str!("functions/burglar.py"), json!({})).await;
    let answer = node.invoke("victim", &json!({ "do": "wait", "port": bell.port }));
    let mut ring = bell.ring().await;
    let event = json!({ "address": ring.facts["api"], "request": ring.request() });
    let burglary = within("the burglar", node.invoke("burglar", &event)).await.unwrap();
    let doors = burglary.json();
    let tried = doors.as_object().unwrap();
    assert_eq!(tried.len(), 5, "{doors}");
    let view = node.view().await;
    let isolated = view["instances"][0]["containment"].as_str().unwrap().contains("cgroup");
    if isolated {
        assert!(tried.values().all(|tried| tried == "refused"), "{doors}");
    }
    if isolated {
        assert!(!answer.is_finished(), "nobody answered for it");
        ring.release().await;
        let reply = within("the victim", answer).await.unwrap();
        assert_eq!((reply.status, reply.json()["told"].as_str()), (200, Some("go")));
    }
    node.stop().await;
}

#[tokio::test]
async fn a_function_that_hoards_connections_is_bounded_and_others_are_served() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy("hoarder", include_str!("functions/hoarder.py"), json!({})).await;
    node.deploy_probe("f", 1, 1, json!({})).await;
    let event = json!({ "port": bell.port, "connections": 500 });
    let hoarder = node.invoke_async("hoarder", &event).await;
    let hoard = bell.ring().await;
    let kept = hoard.facts["kept"].as_u64().unwrap();
    assert!((1..100).contains(&kept), "{kept} of 500");
    let answer = node.invoke("f", &json!({ "do": "wait", "port": bell.port }));
    bell.ring().await.release().await;
    assert_eq!(within("the other", answer).await.unwrap().status, 200);
    assert_eq!(node.cancel("hoarder", &hoarder, Mode::Force).await.header("x-quell-stop"), "stopped");
    node.stop().await;
}

#[tokio::test]
async fn each_instance_has_a_tmp_of_its_own_that_goes_with_it() {
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy("scribe", include_str!("functions/scribe.py"), json!({})).await;
    node.deploy_probe("f", 1, 1, json!({})).await;
    let name = format!("quell-scribe-{}", bell.port);
    let event = json!({ "name": name, "port": bell.port });
    let first = node.invoke_async("scribe", &event).await;
    let ring = bell.ring().await;
    assert_eq!(ring.facts["found"], json!(false));
    let view = node.view().await;
    let private = view["instances"][0]["containment"].as_str().unwrap().contains("namespace");
    let outside = std::path::Path::new("/tmp").join(&name);
    assert_eq!(outside.exists(), !private, "what it wrote is seen outside");
    let second = node.invoke_async("scribe", &event).await;
    let ring = bell.ring().await;
    assert_eq!(ring.facts["found"], json!(!private), "what it wrote is seen by another instance");
    for request in [&first, &second] {
        assert_eq!(node.cancel("scribe", request, Mode::Force).await.header("x-quell-stop"), "stopped");
    }
    if !private {
        std::fs::remove_file(outside).unwrap();
    }
    node.stop().await;
}

#[tokio::test]
async fn runtimes_of_another_user_reach_nothing_of_the_nodes_and_are_stopped_as_ever() {
    if !nix::unistd::geteuid().is_root() || !std::path::Path::new("/usr/bin/python3").exists() {
        return println!("not root, or no interpreter that everybody may run: nothing is tested");
    }
    let data = TestNode::folder();
    let open = |mode: u32| {
        std::fs::set_permissions(data.path(), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    open(0o700);
    let refused = TestNode::command(data.path(), &["--runtime-user", "65534"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("chmod o+x"), "{said}");
    // Where nobody is named, a node whose code nobody else can reach runs it itself.
    let as_itself = TestNode::start_in(data.path(), &[]).await;
    assert_eq!(as_itself.view().await["containment"][5]["active"], false);
    as_itself.stop().await;
    open(0o711);
    for (isolation, user) in
        [("auto", "auto"), ("auto", "65534"), ("subreaper", "65534"), ("process-group", "auto")]
    {
        let options = ["--runtime-user", user, "--isolation", isolation];
        let uid = user.parse().unwrap_or(61_000);
        let (node, bell) = (TestNode::start_in(data.path(), &options).await, Bell::hang().await);
        let name = format!("thief-{isolation}-{user}");
        node.deploy(&name, include_str!("functions/thief.py"), json!({})).await;
        let event = json!({ "data": data.path(), "port": bell.port });
        for mode in [Mode::Plain, Mode::Force] {
            let request = node.invoke_async(&name, &event).await;
            let ring = bell.ring().await;
            assert_eq!(ring.facts["uid"], json!([uid, uid, []]), "{isolation}");
            assert_eq!(ring.facts["got"], json!([]), "{isolation}");
            let cancel = node.cancel(&name, &request, mode).await;
            assert_eq!(cancel.header("x-quell-stop"), "stopped", "{isolation} {mode:?}");
            assert_eq!(ring.process.is_gone(), mode.kills(), "{isolation} {mode:?}");
        }
        node.stop().await;
    }
}
