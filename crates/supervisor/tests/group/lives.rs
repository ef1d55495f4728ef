//! From one life of a node to the next: nothing outlives a node that dies, or the next one ends it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use supervisor::group::{Containment, Isolation};

use crate::support::{END, Node, Reports, Watched, fresh_name, helper, leaves, within};

const NAME: &str = "QUELL_TEST_NODE";
const FIFO: &str = "QUELL_TEST_FIFO";
const ISOLATION: &str = "QUELL_TEST_ISOLATION";

#[tokio::test]
#[ignore = "is the node that other tests kill"]
async fn a_node_that_is_killed() {
    let isolation = match std::env::var(ISOLATION).unwrap().as_str() {
        "auto" => Isolation::Cgroup,
        _ => Isolation::ProcessGroup,
    };
    let node = Node::named(&std::env::var(NAME).unwrap(), isolation, helper());
    let script = "setsid sh -c 'echo $$ > $1; exec sleep 1000' sh $1 & echo $$ > $1; wait";
    let _running = node.run("sh", &["-c", script, "sh", &std::env::var(FIFO).unwrap()]).await;
    let _held = node.held("sleep", &["1000"]).await;
    println!("leaves: {}", node.has_leaves());
    std::future::pending::<()>().await;
}

/// A node in a process of its own; resolves with whether it has leaves, when it has spawned.
fn node_of_its_own(name: &str, isolation: &str, reports: &Reports) -> (Child, bool) {
    let mut node = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lives::a_node_that_is_killed", "--ignored", "--nocapture"])
        .envs([(NAME, name), (FIFO, reports.path()), (ISOLATION, isolation)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(node.stdout.as_mut().unwrap()).lines();
    let said = lines.map_while(Result::ok).find(|line| line.contains("leaves: ")).unwrap();
    (node, said.ends_with("true"))
}

async fn killed_node(name: &str, isolation: &str) -> (bool, Watched, Watched) {
    let dir = tempfile::tempdir().unwrap();
    let mut reports = Reports::at(dir.path().join("fifo"));
    let (mut node, has_leaves) = node_of_its_own(name, isolation, &reports);
    let (one, other): (i32, i32) =
        (reports.line().await.parse().unwrap(), reports.line().await.parse().unwrap());
    let in_group = |pid: &i32| nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(*pid))).unwrap().as_raw();
    // The one that made a session of its own leads a group, as the main process does; its session tells.
    let session = |pid: i32| nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).unwrap().as_raw();
    assert_eq!(in_group(&one), one);
    let (main, escaped) = if session(one) == one { (other, one) } else { (one, other) };
    let (main, escaped) = (Watched::of(main), Watched::of(escaped));
    node.kill().unwrap();
    node.wait().unwrap();
    (has_leaves, main, escaped)
}

#[tokio::test]
async fn the_main_process_dies_with_its_node() {
    within(async {
        for isolation in ["auto", "group"] {
            let name = fresh_name();
            let (_, main, escaped) = killed_node(&name, isolation).await;
            main.wait();
            escaped.kill();
            let containment = Containment::probe(&name, Isolation::Cgroup, &helper()).unwrap();
            containment.sweep(END).await.unwrap();
            if let Some(base) = containment.base() {
                fs::remove_dir(base).unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_next_life_ends_what_the_last_one_left_whatever_its_isolation() {
    within(async {
        for next in [Isolation::Cgroup, Isolation::ProcessGroup] {
            let name = fresh_name();
            let (has_leaves, main, escaped) = killed_node(&name, "auto").await;
            main.wait();
            if !has_leaves {
                println!("no leaves here, so nothing that could be swept");
                escaped.kill();
                continue;
            }
            assert!(!escaped.is_dead());
            let containment = Containment::probe(&name, next, &helper()).unwrap();
            let swept = containment.sweep(END).await.unwrap();
            assert!(escaped.is_dead());
            assert_eq!(swept.leaves, 2);
            assert!(swept.processes >= 1, "{swept:?}");
            assert_eq!(containment.sweep(END).await.unwrap(), Default::default());
            if let Some(base) = containment.base() {
                assert_eq!(leaves(base), Vec::<String>::new());
                fs::remove_dir(base).unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_life_that_was_killed_while_it_probed_does_not_cost_the_next_one_its_leaves() {
    within(async {
        let name = fresh_name();
        let first = Containment::probe(&name, Isolation::Cgroup, &helper()).unwrap();
        let Some(base) = first.base().map(PathBuf::from) else {
            println!("no leaves here: {}", first.layers().last().unwrap());
            return;
        };
        // In a container every life has the same pid.
        fs::create_dir(base.join(format!("probe-{}", std::process::id()))).unwrap();
        let next = Containment::probe(&name, Isolation::Cgroup, &helper()).unwrap();
        assert_eq!(next.sweep(END).await.unwrap().leaves, 1);
        assert_eq!(leaves(&base), Vec::<String>::new());
        fs::remove_dir(base).unwrap();
    })
    .await;
}

#[test]
fn every_layer_says_what_it_gives_or_why_it_is_not_there() {
    let name = fresh_name();
    let without = Containment::probe(&name, Isolation::ProcessGroup, &helper()).unwrap();
    assert_eq!(
        without.layers().iter().map(|layer| layer.active).collect::<Vec<_>>(),
        [true, false, false, false, false, false, false]
    );
    assert!(without.base().is_none());
    assert!(without.layers().iter().all(|layer| !layer.detail.is_empty()));
}

#[test]
fn a_helper_that_cannot_be_run_leaves_no_folder_behind() {
    let name = fresh_name();
    let broken =
        supervisor::group::HelperProgram { program: "/no/such/helper".into(), args: Vec::new(), user: None };
    assert!(Containment::probe(&name, Isolation::Cgroup, &broken).is_err());
    let working = Containment::probe(&name, Isolation::Cgroup, &helper()).unwrap();
    if let Some(base) = working.base() {
        fs::remove_dir(base).unwrap();
        assert!(Containment::probe(&name, Isolation::Cgroup, &broken).is_err());
        assert!(!base.exists());
    }
}
