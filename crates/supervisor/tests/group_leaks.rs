//! What is left of many instances: nothing. Alone in its process, since it counts descriptors and
//! children of the whole of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test ends by its panic, and says which half of it could not be made here"
)]

#[path = "group/support.rs"]
#[allow(dead_code, reason = "the other test binary uses the rest")]
mod support;

use std::{
    fs::{self, File},
    path::PathBuf,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::{
    io::Errno,
    process::{WaitId, WaitIdOptions, waitid},
};
use supervisor::group::{Isolation, OutputRing};
use support::{END, Node, abandon_a_spawn, leaves, within};

/// On each of four kinds of containment: 10,000 in all.
const GROUPS: usize = 2_500;
const AT_ONCE: usize = 20;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count()
}

fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// What an allocator may keep; a kilobyte a group would be 2.5 MiB.
const GROWTH_KIB: usize = 4_096;

async fn spawn_and_end(node: &Node) {
    let group = node.held("sh", &["-c", "sleep 1000 & wait"]).await;
    let output = OutputRing::start(cancel::InstanceId(1), group.take_output().unwrap());
    group.go().unwrap();
    group.end(END).await.unwrap();
    output.finish();
    output.finished().await;
}

/// The mounts of what has ended are closed by a thread that tells nobody.
async fn until_mounts_are_let_go() {
    let is_held = |link: PathBuf| link.to_string_lossy().starts_with("mnt:[");
    let held = || {
        let links =
            fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        links.filter(|link| is_held(link.clone())).count()
    };
    within(async {
        while held() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

async fn many(isolation: Isolation) {
    let node = Node::new(isolation);
    spawn_and_end(&node).await; // whatever is opened once is open now
    until_mounts_are_let_go().await;
    let before = (descriptors(), threads(), mounts());
    let memory = resident_kib();
    for _ in 0..GROUPS / AT_ONCE {
        futures_util::future::join_all((0..AT_ONCE).map(|_| spawn_and_end(&node))).await;
    }
    abandon_a_spawn(&node, false).await;
    abandon_a_spawn(&node, true).await;
    until_mounts_are_let_go().await;
    assert_eq!((descriptors(), threads(), mounts()), before);
    let grown = resident_kib().saturating_sub(memory);
    println!("{isolation:?}: {GROUPS} ended, {grown} KiB more resident");
    assert!(grown < GROWTH_KIB, "{grown} KiB");
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    assert_eq!(waitid(WaitId::All, options).unwrap_err(), Errno::CHILD, "no child, so no zombie either");
    if node.has_leaves() {
        assert_eq!(leaves(node.containment.base().unwrap()), Vec::<String>::new());
    }
}

/// With no descriptor left: a leaf is killed and proven by what is open already, and a group that
/// cannot be looked at is not called empty.
async fn without_descriptors(isolation: Isolation) {
    let node = Node::new(isolation);
    let mut reports = node.reports();
    let group = node.sh("sleep 1000 & echo $! > $1; wait", &reports).await;
    let child = reports.process().await;
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    let ended = group.end(std::time::Duration::from_secs(2)).await;
    drop(taken);
    if group.mechanism().has_leaf() {
        ended.unwrap();
    } else {
        let why = ended.unwrap_err();
        assert!(why.trouble.is_some(), "{why:?}");
        group.end(END).await.unwrap();
    }
    assert!(child.is_dead());
}

#[tokio::test]
async fn nothing_is_left_of_many_groups_and_none_needs_a_free_descriptor_to_die() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 1_024.min(hard), hard).unwrap();
    for isolation in [Isolation::Auto, Isolation::Subreaper, Isolation::Cgroup, Isolation::ProcessGroup] {
        within(many(isolation)).await;
    }
    for isolation in [Isolation::Cgroup, Isolation::ProcessGroup] {
        within(without_descriptors(isolation)).await;
    }
}
