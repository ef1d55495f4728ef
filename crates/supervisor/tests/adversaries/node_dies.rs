//! A node that is killed with 50 adversaries running: nothing of them outlives it for long, and its next
//! life ends what a killed helper left.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use supervisor::group::{Containment, Isolation};

use crate::{
    BEHAVIOURS, On, checker,
    support::{Node, Reports, fresh_name, helper},
};

const NAME: &str = "QUELL_TEST_NODE";
const TOKEN: &str = "QUELL_TEST_TOKEN";
const LAYER: &str = "QUELL_TEST_LAYER";
const RUNNING: usize = 50;

#[tokio::test]
#[ignore = "is the node that the tests below kill"]
async fn a_node_with_adversaries() {
    let isolation = match std::env::var(LAYER).unwrap().as_str() {
        "subreaper" => Isolation::Subreaper,
        _ => Isolation::Auto,
    };
    let node = Node::named(&std::env::var(NAME).unwrap(), isolation, helper());
    let token = std::env::var(TOKEN).unwrap();
    let not_here = ["asks_a_daemon", "v1_frozen", "fuse_d_state"];
    let all = BEHAVIOURS.iter().filter(|(name, on)| *on == On::All && !not_here.contains(name));
    let mut groups = Vec::new();
    for (at, (behaviour, _)) in all.cycle().take(RUNNING).enumerate() {
        let program = if *behaviour == "foreign_tracer" { "plain" } else { behaviour };
        let mut reports = Reports::at(node.dir.path().join(format!("fifo-{at}")));
        let mut order = node.order("python3", &["-B", &crate::programs(), program, reports.path()]);
        order.env.push((checker::VARIABLE.into(), token.clone().into()));
        order.keep.push(crate::programs_dir());
        let group = node.spawner.spawn(order).await.unwrap();
        group.go().unwrap();
        let stood = tokio::time::timeout(Duration::from_secs(20), reports.line()).await;
        assert!(stood.is_ok(), "{behaviour} never stood");
        groups.push((group, reports));
    }
    println!("standing");
    std::future::pending::<()>().await;
}

fn node(name: &str, token: &str, layer: &str) -> Child {
    let mut node = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "node_dies::a_node_with_adversaries", "--ignored", "--nocapture"])
        .envs([(NAME, name), (TOKEN, token), (LAYER, layer)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(node.stdout.as_mut().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("standing")), "the node never stood");
    node
}

/// Kills the node; returns how long anything of its adversaries lived after that.
fn killed(layer: &str) -> (String, Duration) {
    let (name, token) = (fresh_name(), format!("quell-dies-{}-{layer}", std::process::id()));
    let mut node = node(&name, &token, layer);
    let living = checker::alive(&token).len();
    assert!(living > RUNNING, "only {living} stand");
    node.kill().unwrap();
    let start = Instant::now();
    node.wait().unwrap();
    while !checker::alive(&token).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "still alive: {:?}", checker::alive(&token));
    }
    println!("{layer}: {living} processes were gone {:?} after their node", start.elapsed());
    (name, start.elapsed())
}

#[tokio::test]
async fn nothing_outlives_a_killed_node_and_the_next_life_sweeps_its_leaves() {
    // 64: what was stopped after a restart leaks.
    let (name, _) = killed("auto");
    let next = Containment::probe(&name, Isolation::Auto, &helper()).unwrap();
    let swept = next.sweep(Duration::from_secs(10)).await.unwrap();
    println!("swept: {swept:?}");
    if next.base().is_some() {
        assert!(swept.leaves >= 1, "{swept:?}");
    }
    next.close().unwrap();
}

#[test]
fn a_subreaper_outlives_its_node_long_enough_to_leave_nothing() {
    killed("subreaper");
}
