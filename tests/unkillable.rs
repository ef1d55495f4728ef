//! What cannot be killed is said to be unkillable, with who and why; its late end is proven late.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test that cannot go on fails

#[path = "../crates/supervisor/tests/group/deaf_disk.rs"]
mod deaf_disk;
#[path = "support/mod.rs"]
mod support;

use std::{fs, path::PathBuf, time::Duration};

use deaf_disk::DeafDisk;
use serde_json::json;
use support::{Bell, Mode, Ring, TestNode, within};

/// Between two looks at something that nothing tells of.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A group of the v1 freezer, in which SIGKILL waits; thawed and removed with it.
struct Freezer(PathBuf);

impl Freezer {
    /// `None` where there is none.
    fn around(pid: u32) -> Option<Self> {
        let group = PathBuf::from(format!("/sys/fs/cgroup/freezer/quell-test-{pid}"));
        fs::create_dir(&group).ok()?;
        fs::write(group.join("cgroup.procs"), pid.to_string()).unwrap();
        fs::write(group.join("freezer.state"), "FROZEN").unwrap();
        while fs::read_to_string(group.join("freezer.state")).unwrap().trim() != "FROZEN" {}
        Some(Self(group))
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        fs::write(self.0.join("freezer.state"), "THAWED").unwrap();
        // What was in it dies now; nothing tells when it has left.
        while fs::remove_dir(&self.0).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy) {
            std::thread::yield_now();
        }
    }
}

#[tokio::test]
async fn a_frozen_runtime_is_500_with_the_reason_and_is_proven_once_it_thaws() {
    let (node, bell) = node_and_bell().await;
    let request = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
    let ring = bell.ring().await;
    let Some(freezer) = Freezer::around(ring.pid) else {
        return println!("no v1 freezer that can be written here: nothing is tested");
    };
    is_unkillable_until_it_ends(node, &bell, (request, ring), freezer, "frozen").await;
}

#[tokio::test]
async fn a_runtime_that_waits_for_a_disk_is_500_with_the_reason_and_is_proven_once_the_disk_fails() {
    let Some(disk) = DeafDisk::mount() else { return };
    let (node, bell) = node_and_bell().await;
    let event = json!({ "do": "disk", "port": bell.port, "path": disk.file() });
    let request = node.invoke_async("f", &event).await;
    let ring = bell.ring().await;
    assert_eq!(disk.asked(), ring.pid);
    is_unkillable_until_it_ends(node, &bell, (request, ring), disk, "uninterruptible").await;
}

#[tokio::test]
async fn of_many_the_one_that_cannot_be_killed_is_named_with_its_code_and_the_others_are_stopped() {
    let Some(disk) = DeafDisk::mount() else { return };
    let (node, bell) = node_and_bell().await;
    let event = json!({ "do": "disk", "port": bell.port, "path": disk.file() });
    let stuck = node.invoke_async("f", &event).await;
    let ring = bell.ring().await;
    assert_eq!(disk.asked(), ring.pid);
    let waiting = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
    let body = json!({ "where": "function=f", "force": true, "key": "k" });
    assert_eq!(node.post("/quell/v1/cancels", &body).await.status, 202);
    let bulk = within("its end", async {
        loop {
            let bulk = node.get("/quell/v1/cancels/bulk/k").await.json();
            if bulk["state"] == "done" {
                return bulk;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    let counts = ["selected", "done", "stopped", "failed"].map(|name| bulk[name].as_u64().unwrap());
    assert_eq!(counts, [2, 2, 1, 1], "{bulk}");
    let failure = &bulk["failures"][0];
    assert_eq!(
        (&failure["request_id"], &failure["error_code"]),
        (&json!(stuck), &json!("FSS.0500")),
        "{bulk}"
    );
    assert!(failure["error_msg"].as_str().unwrap().contains(&format!("pid {}", ring.pid)), "{bulk}");
    let receipt = node.receipt(failure["cancel_id"].as_str().unwrap()).await;
    assert_eq!(receipt["result"], "unkillable");
    assert_eq!(node.listed("f", &waiting).await, ("DISCARD".into(), 4208));
    let args = ["cancel", "--where", "function=f", "--force", "--key", "k"];
    let again = TestNode::client_command(&node.dir, &args).output().unwrap();
    let shown = String::from_utf8(again.stdout).unwrap();
    assert_eq!(again.status.code(), Some(1), "{shown}");
    assert!(shown.contains(&stuck) && shown.contains("FSS.0500") && shown.contains("1 failed"), "{shown}");
    drop(disk);
    within("the proof of its end", async {
        let cancel = failure["cancel_id"].as_str().unwrap();
        while !node.receipt(cancel).await["stopped_later_ms"].is_i64() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
    .await;
    node.stop().await;
}

/// A node that gives up soon, with a function of one instance.
async fn node_and_bell() -> (TestNode, Bell) {
    let node = TestNode::start_with(&["--kill-timeout", "0.5"]).await;
    node.deploy_probe("f", 1, 1, json!({})).await;
    (node, Bell::hang().await)
}

/// What is told of a request whose process cannot be killed, and once `holder` that keeps it is gone.
async fn is_unkillable_until_it_ends<T>(
    node: TestNode,
    bell: &Bell,
    (request, ring): (String, Ring),
    holder: T,
    reason: &str,
) {
    let cancel = node.cancel("f", &request, Mode::Force).await;
    let (status, code, message) = cancel.error();
    assert_eq!((status, code.as_str(), cancel.header("x-quell-stop")), (500, "FSS.0500", "unkillable"));
    assert!(message.contains(&format!("pid {}", ring.pid)) && message.contains(reason), "{message}");
    let view = node.view().await;
    assert_eq!(view["instances"][0]["state"], "quarantined", "{view}");
    assert!(!ring.process.is_gone(), "and that was the truth");
    // Its place is not given to another: the function has one instance at most.
    let waiting = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port, "tag": "next" })).await;
    assert_eq!(node.listed("f", &waiting).await.0, "WAIT");

    drop(holder);
    within("its end", ring.process.gone()).await;
    let next = bell.ring().await;
    assert_eq!(next.facts["tag"], "next", "its place is free again");
    assert_eq!(node.listed("f", &request).await, ("FAIL".into(), 4208));
    let again = node.cancel("f", &request, Mode::Force).await;
    assert_eq!((again.status, again.header("x-quell-stop")), (200, "stopped"), "{again:?}");
    let receipt = node.receipt(cancel.header("x-quell-cancel-id")).await;
    assert_eq!(receipt["result"], "unkillable", "what the asker was told");
    assert!(receipt["stopped_later_ms"].is_i64(), "{receipt}");
    assert_eq!(receipt["requests"][0]["evidence"], "reaped");
    node.stop().await;
}
