//! The groups that limit an instance: they come and go with it, and nothing hides in them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use supervisor::group::{Containment, Exit, Isolation, Limits};

use crate::{
    support::{END, Node, Watched, fresh_name, helper, within},
    tracer::tracer,
};

const LIMITS: Limits = Limits { memory: Some(64 << 20), processes: Some(16), tmp: 1 << 20 };

/// The group of a process in a cgroup v1 hierarchy; `None` if it is in its root, or there is none.
fn v1_group(pid: u32, controller: &str) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let marked = format!(":{controller}:");
    let path = groups.lines().find_map(|line| line.split_once(&marked)).map(|(_, path)| path)?;
    let group = Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/'));
    (path.contains("quell-") && group.is_dir()).then_some(group)
}

/// The groups of a limited process, if this machine limits by cgroup v1.
fn groups(pid: u32) -> Vec<PathBuf> {
    let found: Vec<PathBuf> = ["memory", "pids"].iter().filter_map(|name| v1_group(pid, name)).collect();
    if found.is_empty() {
        println!("nothing is limited by cgroup v1 here: nothing is tested");
    }
    found
}

#[tokio::test]
async fn groups_that_limit_come_with_an_instance_and_go_with_it() {
    within(async {
        let name = fresh_name();
        let node = Node::named(&name, Isolation::Auto, helper());
        let mut order = node.order("sleep", &["1000"]);
        order.limits = LIMITS;
        let group = node.spawner.spawn(order).await.unwrap();
        group.go().unwrap();
        let own = groups(group.pid());
        assert_eq!(group.out_of_memory(), None);
        assert_eq!(group.end(END).await.unwrap().exit, Exit::Signal(9));
        // Removed by the thread that also spawns: after its next spawn it has been.
        node.held("true", &[]).await.end(END).await.unwrap();
        for group in &own {
            assert!(!group.exists(), "{}", group.display());
        }
        node.containment.close().unwrap();
        for group in &own {
            assert!(!group.parent().unwrap().exists(), "{}", group.display());
        }
    })
    .await;
}

#[tokio::test]
async fn a_process_that_left_its_leaf_is_ended_by_the_groups_that_limit_it() {
    within(async {
        let node = Node::new(Isolation::Cgroup);
        let Some(base) = node.containment.base().map(Path::to_path_buf).filter(|_| node.has_leaves()) else {
            return;
        };
        let mut reports = node.reports();
        let procs = base.parent().unwrap().join("cgroup.procs");
        let script =
            format!("sh -c 'echo 0 > {}; echo $$ > $1; exec sleep 1000' sh $1 & wait", procs.display());
        let mut order = node.order("sh", &["-c", &script, "sh", reports.path()]);
        order.limits = LIMITS;
        let group = node.spawner.spawn(order).await.unwrap();
        group.go().unwrap();
        let escaped = reports.process().await;
        if groups(group.pid()).is_empty() {
            escaped.kill();
        }
        group.end(END).await.unwrap();
        assert!(escaped.is_dead());
        node.containment.close().unwrap();
    })
    .await;
}

#[tokio::test]
async fn after_the_first_strike_nothing_is_forked_any_more() {
    within(async {
        let node = Node::new(Isolation::Cgroup);
        let mut order = node.order("sleep", &["1000"]);
        order.limits = LIMITS;
        let group = node.spawner.spawn(order).await.unwrap();
        group.go().unwrap();
        let Some(pids) = v1_group(group.pid(), "pids") else {
            println!("processes are not limited by cgroup v1 here: nothing is tested");
            return drop(group.end(END).await.unwrap());
        };
        let max = || fs::read_to_string(pids.join("pids.max")).unwrap();
        assert_eq!(max().trim(), "18", "its own, and two for the helpers");
        let mut tracer = tracer(group.pid()).expect("root may trace");
        group.end(Duration::from_millis(200)).await.unwrap_err();
        assert_eq!(max().trim(), "0");
        drop(tracer.stdin.take());
        tracer.wait().unwrap();
        group.end(END).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_next_life_ends_what_is_left_in_groups_that_limited() {
    within(async {
        for next in [Isolation::Auto, Isolation::ProcessGroup] {
            let name = fresh_name();
            let first = Containment::probe(&name, Isolation::Auto, &helper()).unwrap();
            let Some(pids) = v1_folder(&name) else { return first.close().unwrap() };
            let mut left = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
            let watched = Watched::of(left.id().cast_signed());
            fs::create_dir(pids.join("i7")).unwrap();
            fs::write(pids.join("i7/cgroup.procs"), left.id().to_string()).unwrap();
            let containment = Containment::probe(&name, next, &helper()).unwrap();
            containment.sweep(END).await.unwrap();
            assert!(watched.is_dead());
            left.wait().unwrap();
            assert!(!pids.join("i7").exists());
            containment.close().unwrap();
            first.close().unwrap();
            assert!(!pids.exists());
        }
    })
    .await;
}

fn v1_folder(node: &str) -> Option<PathBuf> {
    let folder = Path::new("/sys/fs/cgroup/pids").join(format!("quell-{node}"));
    if !folder.is_dir() {
        println!("processes are not limited by cgroup v1 here: nothing is tested");
    }
    folder.is_dir().then_some(folder)
}
