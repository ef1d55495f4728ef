//! A disk that may not be written to, and one that is full: nothing is accepted that could be lost, a cancel still stops what runs and says
//! what it could not record, and that is recorded once there is room.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test that cannot go on fails

#[path = "support/mod.rs"]
mod support;

use std::{fs, io::Write as _, path::Path};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use support::{Bell, Mode, TestNode, within};

/// A small disk of its own; unmounted with it.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where nothing may be mounted.
    fn of(mib: u32) -> Option<Self> {
        let dir = TestNode::folder();
        let size = format!("size={mib}m,mode=711");
        let mounted = mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str()));
        mounted.is_ok().then_some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.path().join("full")).unwrap();
        for size in [1 << 20, 4 << 10, 1] {
            let part = vec![0; size];
            while file.write_all(&part).is_ok() {}
        }
    }

    /// Nothing may be open for writing.
    fn forbid_writing(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, self.path(), None::<&str>, flags, None::<&str>).unwrap();
    }

    fn allow_writing(&self) {
        mount(None::<&str>, self.path(), None::<&str>, MsFlags::MS_REMOUNT, None::<&str>).unwrap();
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("full")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test]
async fn on_a_full_disk_a_cancel_stops_says_what_it_could_not_record_and_records_it_when_there_is_room() {
    // 29: an update that wrote nothing, and a cancel that is dropped with it.
    let Some(disk) = Disk::of(64) else {
        return println!("nothing may be mounted here, so nothing is tested");
    };
    let bell = Bell::hang().await;
    let mut node = TestNode::start_in(disk.path(), &[]).await;
    node.deploy_probe("f", 1, 4, json!({})).await;
    let wait = json!({ "do": "wait", "port": bell.port });
    let request = node.invoke_async("f", &wait).await;
    let ring = bell.ring().await;
    let finishing = node.invoke_async("f", &wait).await;
    let mut finishes = bell.ring().await;
    disk.fill();

    let refused = node.post("/v2/default/fgs/functions/f/invocations-async", &wait).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    let cancel = node.cancel("f", &request, Mode::Force).await;
    let (status, code, message) = cancel.error();
    assert_eq!((status, code.as_str()), (500, "FSS.0500"), "{message}");
    assert!(message.contains("could not be recorded"), "{message}");
    assert!(ring.process.is_gone(), "it was stopped all the same");
    finishes.release().await;
    within("what it owes the disk", async { while node.view().await["unwritten"].as_u64() < Some(3) {} })
        .await;
    let (status, _, why) = node.get("/quell/v1/ready").await.error();
    assert!(
        status == 503 && why.contains("the store refuses to write") && why.contains("wait for the disk"),
        "{why}"
    );
    assert_eq!(node.get("/quell/v1/health").await.status, 200, "it lives all the same");

    disk.make_room();
    within("the late record", async { while node.view().await["unwritten"] != 0 {} }).await;
    within("readiness", async { while node.get("/quell/v1/ready").await.status != 200 {} }).await;
    assert_eq!(node.listed("f", &finishing).await, ("SUCCESS".to_owned(), 0));
    let again = node.cancel("f", &request, Mode::Force).await;
    assert_eq!((again.status, again.header("x-quell-stop")), (200, "stopped"), "{}", again.text());
    let receipt = node.receipt(again.header("x-quell-cancel-id")).await;
    assert!(receipt["recorded_ms"].is_number() && receipt["fenced_ms"].is_number(), "{receipt}");

    // And it holds in the next life.
    node.kill();
    let next = TestNode::start_in(disk.path(), &[]).await;
    assert_eq!(next.settled("f", &request).await, ("FAIL".to_owned(), 4208));
    assert_eq!(next.listed("f", &finishing).await, ("SUCCESS".to_owned(), 0));
    next.stop().await;
    assert!(bell.is_silent().await, "nothing ran again");
}

#[tokio::test]
async fn on_a_read_only_disk_a_node_says_so_and_does_not_start_and_nothing_is_lost() {
    let Some(disk) = Disk::of(64) else {
        return println!("nothing may be mounted here, so nothing is tested");
    };
    let bell = Bell::hang().await;
    let mut node = TestNode::start_in(disk.path(), &[]).await;
    node.deploy_probe("f", 1, 4, json!({})).await;
    let request = node.invoke_async("f", &json!({ "do": "wait", "port": bell.port })).await;
    drop(bell.ring().await);
    node.kill();
    disk.forbid_writing();
    let refused = TestNode::command(disk.path(), &[]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.starts_with("quell: ") && said.contains("Read-only file system"), "{said}");

    disk.allow_writing();
    let next = TestNode::start_in(disk.path(), &[]).await;
    bell.ring().await.release().await;
    assert_eq!(next.settled("f", &request).await, ("SUCCESS".to_owned(), 0));
    next.stop().await;
}
