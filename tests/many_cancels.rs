//! 2,000 cancels in a row leave no zombie, no descriptor, and no memory beyond a stated bound.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::fs;

use serde_json::json;
use support::{Bell, Mode, TestNode};

const CANCELS: usize = 2_000;
/// Before the first measurement: caches, thread stacks and the allocator have grown by then.
const WARM_UP: usize = 200;
/// What the daemon may grow by over the 1,800 cancels after the warm-up. The node remembers each
/// settled request for late cancels (about 200 bytes in the engine and the shell): 0.4 MiB here; the
/// rest is room for the allocator.
const GROWTH_KIB: u64 = 8 * 1024;

fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Children of the daemon in any thread's list, with their states.
fn children(pid: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let list = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        for child in list.split_whitespace() {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            let state = stat.rsplit_once(") ").map_or("gone", |(_, rest)| &rest[..1]).to_owned();
            found.push((child.parse().unwrap(), state));
        }
    }
    found
}

#[tokio::test]
async fn two_thousand_cancels_leave_nothing() {
    // 52: after a mass kill, dead ids are tried for ever.
    let (node, bell) = (TestNode::start().await, Bell::hang().await);
    node.deploy_probe("f", 1, 2, json!({})).await;
    let mut before = (0, 0);
    for at in 0..CANCELS {
        if at == WARM_UP {
            before = (rss_kib(node.pid()), descriptors(node.pid()));
        }
        let request = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
        let _ring = bell.ring().await; // kept: its end would end the handler
        // Every tenth by force: its instance dies and a new one is started.
        let mode = if at % 10 == 0 { Mode::Force } else { Mode::ALL[at % 2] };
        let reply = node.cancel("f", &request, mode).await;
        assert_eq!((reply.status, reply.header("x-quell-stop")), (200, "stopped"), "{at}: {reply:?}");
    }
    let after = (rss_kib(node.pid()), descriptors(node.pid()));
    let zombies: Vec<_> = children(node.pid()).into_iter().filter(|(_, state)| state == "Z").collect();
    println!("after {WARM_UP}: {before:?}, after {CANCELS}: {after:?} (KiB resident, descriptors)");
    assert!(zombies.is_empty(), "{zombies:?}");
    // One instance more or less is alive at the two points in time; each holds about ten descriptors.
    assert!(after.1 <= before.1 + 12, "descriptors: {before:?} -> {after:?}");
    assert!(after.0 <= before.0 + GROWTH_KIB, "memory: {before:?} -> {after:?}");
    node.stop().await;
}
