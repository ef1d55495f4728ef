//! Every adversary on every layer: caught, and with which proof; or not, and what is said instead.
//!
//! A checker outside the supervisor looks for each run's token in every process of the machine, and a
//! witness beside each run must survive it. `docs/containment.md` holds the matrix; each test compares
//! its column. `QUELL_UPDATE_DOCS=1 cargo nextest run -p supervisor --test adversaries -j1` rewrites it;
//! `QUELL_ADVERSARY_RUNS=50` is the long mode.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test that cannot go on fails
#![allow(dead_code, unreachable_pub)] // of the support that is shared with the other tests

mod checker;
#[path = "../group/deaf_disk.rs"]
mod deaf_disk;
mod delegated;
mod matrix;
mod node_dies;
mod privileges;
#[path = "../group/support.rs"]
mod support;
#[path = "../group/tracer.rs"]
mod tracer;

use std::{collections::BTreeMap, fs, time::Duration};

use supervisor::group::{Isolation, NotProven, Proof};

use crate::{
    checker::{TROUBLED, Trouble, Witness, alive, kill_all},
    support::{Node, Reports},
};

/// Runs of each behaviour in CI.
const RUNS: usize = 3;
/// More than any of them needs to be ended where it can be.
const END: Duration = Duration::from_secs(15);
/// What it takes to see that something cannot be ended.
const SHORT: Duration = Duration::from_millis(500);

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/adversaries/programs.py");

/// Where the programs lie, which is elsewhere for a user who cannot read this tree.
fn programs() -> String {
    std::env::var("QUELL_TEST_PROGRAMS").unwrap_or_else(|_| PROGRAMS.to_owned())
}

/// They may lie below `/tmp`, which is another one in a namespace.
fn programs_dir() -> std::path::PathBuf {
    std::path::Path::new(&programs()).parent().expect("they lie in a folder").to_path_buf()
}

/// Which layers a behaviour may be run on: some would reach the test itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    All,
    /// It strikes its parent, which without a helper is the node.
    Helpers,
    /// It strikes everybody it can see.
    Namespaces,
}

/// The behaviours, by their functions in `programs.py`.
const BEHAVIOURS: [(&str, On); 57] = [
    ("plain", On::All),
    ("leader_exits", On::All),
    ("double_fork", On::All),
    ("setsid_closefds", On::All),
    ("ignore_signals", On::All),
    ("block_signals", On::All),
    ("stopped", On::All),
    ("own_groups", On::All),
    ("fork_relay", On::All),
    ("fork_storm", On::All),
    ("fork_in_thread", On::All),
    ("vfork_waits", On::All),
    ("traced", On::All),
    ("tracer_keeps_zombie", On::All),
    ("pipe_holder", On::All),
    ("zombies", On::All),
    ("other_user", On::All),
    ("huge_memory", On::All),
    ("locked_memory", On::All),
    ("many_threads", On::All),
    ("zombie_leader", On::All),
    ("clone_parent", On::Helpers),
    ("reparent_chain", On::All),
    ("nested_subreaper", On::All),
    ("own_pid_namespace", On::All),
    ("own_cgroup_namespace", On::All),
    ("nested_cgroups", On::All),
    ("frozen", On::All),
    ("cgroup_escape", On::All),
    ("escapes_twice", On::Helpers),
    ("scrubbed", On::All),
    ("false_name", On::All),
    ("dumps_core", On::All),
    ("exits_at_once", On::All),
    ("crashes", On::All),
    ("no_room_for_files", On::All),
    ("deleted_folder", On::All),
    ("idle_priority", On::All),
    ("busy_loops", On::All),
    ("execs_for_ever", On::All),
    ("dies_with_parent", On::All),
    ("new_on_terminate", On::All),
    ("deep_tree", On::All),
    ("floods_output", On::All),
    ("stops_its_helper", On::Helpers),
    ("kills_its_helper", On::Helpers),
    ("dies_of_a_signal_without_a_name", On::All),
    ("stops_its_helper_for_ever", On::Helpers),
    ("starves_its_helper", On::Helpers),
    ("forges_the_last_word", On::Helpers),
    ("leaves_by_the_old_proc", On::Namespaces),
    ("kills_everybody", On::Namespaces),
    ("kills_by_a_cgroup", On::Namespaces),
    ("v1_frozen", On::All),
    ("foreign_tracer", On::All),
    ("fuse_d_state", On::All),
    ("asks_a_daemon", On::All),
];

/// A subreaper of the same user can be killed: then nothing is proven.
const LOSES_ITS_HELPER: [&str; 3] = ["kills_its_helper", "escapes_twice", "forges_the_last_word"];

struct Layer {
    name: &'static str,
    isolation: Isolation,
    on: &'static [On],
    /// Behaviours that get away from this layer although an end is claimed, and what says so.
    escapes: &'static [&'static str],
}

const L0: Layer = Layer { name: "L0", isolation: Isolation::ProcessGroup, on: &[On::All], escapes: &[] };
const L1: Layer =
    Layer { name: "L1", isolation: Isolation::Subreaper, on: &[On::All, On::Helpers], escapes: &[] };
const L2: Layer =
    Layer { name: "L2", isolation: Isolation::Cgroup, on: &[On::All], escapes: &["cgroup_escape"] };
const L23: Layer = Layer {
    name: "L2+L3",
    isolation: Isolation::Auto,
    on: &[On::All, On::Helpers, On::Namespaces],
    escapes: &[],
};

/// What one run came to.
struct Outcome {
    ended: Result<Proof, NotProven>,
    /// Processes with the run's token that the checker found alive when the end was told.
    alive: usize,
    /// After the cause of an end that was not proven was taken away.
    late: Option<(Proof, usize)>,
    /// This machine cannot do to it what it is about.
    untested: bool,
}

async fn run(node: &Node, behaviour: &str, token: &str) -> Outcome {
    let mut reports = Reports::at(node.dir.path().join(token));
    let programs = programs();
    let program = match behaviour {
        "v1_frozen" | "foreign_tracer" => "plain",
        "asks_a_daemon" => "leader_exits",
        own => own,
    };
    let mut order = node.order("python3", &["-B", &programs, program, reports.path()]);
    order.env.push((checker::VARIABLE.into(), token.into()));
    order.keep.push(programs_dir());
    let mut trouble = Trouble::prepare(behaviour);
    order.args.extend(trouble.argument().map(Into::into));
    let group = node.spawner.spawn(order).await.unwrap();
    let output = group.take_output();
    let reader = output.map(|output| supervisor::group::OutputRing::start(cancel::InstanceId(0), output));
    group.go().unwrap();
    let ready = tokio::time::timeout(Duration::from_secs(20), reports.line()).await;
    assert!(ready.is_ok(), "{behaviour} never stood: {:?}", reader.map(|reader| reader.tail(20)));
    if behaviour == "new_on_terminate" {
        group.terminate().unwrap();
    }
    trouble.begin(behaviour, token);
    let untested = TROUBLED.contains(&behaviour) && !trouble.holds();
    let limit = if trouble.holds() { SHORT } else { END };
    let limit = if LOSES_ITS_HELPER.contains(&behaviour) { SHORT } else { limit };
    let ended = group.end(limit).await;
    let alive_then = alive(token).len() - trouble.outside(token);
    let mut late = None;
    if ended.is_err() && trouble.holds() {
        trouble.end();
        let proof = group.end(END).await.unwrap_or_else(|why| panic!("{behaviour}: no late proof: {why}"));
        late = Some((proof, alive(token).len()));
    }
    if ended.is_err() && late.is_none() {
        kill_all(token);
    }
    drop(trouble);
    kill_all(token);
    if ended.is_err() {
        // Nothing is left now, but this group can never say so: dropping it is loud, and that is right.
        drop(group);
    }
    Outcome { ended, alive: alive_then, late, untested }
}

/// One cell of the matrix, from all runs of a behaviour.
fn cell(outcomes: &[Outcome]) -> String {
    if outcomes.iter().any(|outcome| outcome.untested) {
        return matrix::UNTESTED.to_owned();
    }
    let words = outcomes.iter().map(|outcome| match (&outcome.ended, &outcome.late) {
        (Ok(proof), _) => {
            let proven: Vec<String> = proof.steps.iter().map(ToString::to_string).collect();
            let proven =
                proven.iter().filter(|step| !matches!(step.as_str(), "exit_collected" | "leaf_removed"));
            let proven = proven.map(String::as_str).collect::<Vec<_>>().join(", ");
            if outcome.alive == 0 { proven } else { "**lives on, unseen**".to_owned() }
        }
        (Err(_), Some(_)) => "not proven; proven late".to_owned(),
        (Err(_), None) => "**not proven**, and said so".to_owned(),
    });
    // Where races decide, the worst is what is documented.
    let words: Vec<String> = words.collect();
    words.iter().max_by_key(|word| (word.contains("**"), word.len())).cloned().unwrap_or_default()
}

fn runs() -> usize {
    std::env::var("QUELL_ADVERSARY_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(RUNS)
}

async fn all_on(layer: &Layer) {
    let node = Node::new(layer.isolation);
    let complete = match layer.name {
        "L2" => node.has_leaves(),
        "L2+L3" => {
            node.has_leaves()
                && node.containment.layers().iter().any(|layer| layer.id == "L3" && layer.active)
        }
        _ => true,
    };
    let witness = Witness::start();
    let mut column = BTreeMap::new();
    for (behaviour, on) in BEHAVIOURS {
        if !layer.on.contains(&on) || (on == On::Namespaces && !complete) {
            continue;
        }
        let mut outcomes = Vec::new();
        for at in 0..runs() {
            let token = format!("quell-{}-{}-{behaviour}-{at}", std::process::id(), layer.name);
            let outcome = run(&node, behaviour, &token).await;
            check(layer, behaviour, &outcome);
            outcomes.push(outcome);
            assert!(witness.lives(), "{behaviour} on {}: the witness died", layer.name);
        }
        // A relay's next hop, or the answer to a soft signal, may or may not come before the strike.
        let racy = layer.name == "L0" && matches!(behaviour, "fork_relay" | "new_on_terminate");
        column.insert(behaviour, if racy { "depends on who is faster".to_owned() } else { cell(&outcomes) });
    }
    if complete && nix::unistd::getuid().is_root() {
        let names: Vec<&str> = BEHAVIOURS.iter().map(|(name, _)| *name).collect();
        matrix::compare(layer.name, &names, &column);
    }
}

/// What must hold on every machine.
fn check(layer: &Layer, behaviour: &str, outcome: &Outcome) {
    let at = format!("{behaviour} on {}", layer.name);
    match &outcome.ended {
        Ok(proof) if outcome.alive > 0 => {
            // Only where the layer says itself that it does not see such processes.
            assert!(
                layer.name == "L0" || layer.escapes.contains(&behaviour),
                "{at}: claimed, and {} live: {proof:?}",
                outcome.alive
            );
            let unseen = if layer.name == "L0" { "left the process group" } else { "to another cgroup" };
            assert!(proof.cannot_see.iter().any(|what| what.contains(unseen)), "{at}: {proof:?}");
        }
        Ok(proof) => assert!(!proof.steps.is_empty(), "{at}: an end without a proof"),
        Err(why) => {
            assert!(!why.survivors.is_empty() || why.trouble.is_some(), "{at}: no reason given");
            println!("{at}: not proven: {why}");
        }
    }
    if let Some((_, alive)) = &outcome.late {
        assert_eq!(*alive, 0, "{at}: claimed late, and something lives");
    }
}

#[tokio::test]
async fn on_process_groups_alone_what_leaves_the_group_is_not_seen() {
    all_on(&L0).await;
}

#[tokio::test]
async fn a_child_subreaper_leaves_nothing_or_says_that_it_cannot_know() {
    all_on(&L1).await;
}

#[tokio::test]
async fn a_cgroup_leaf_leaves_nothing_but_what_root_moved_out() {
    all_on(&L2).await;
}

#[tokio::test]
async fn a_leaf_and_a_namespace_leave_nothing() {
    all_on(&L23).await;
}

#[test]
fn every_program_has_a_place_in_the_matrix() {
    let programs = include_str!("programs.py");
    let defined = programs.lines().filter_map(|line| line.strip_prefix("def ")?.split('(').next());
    let helpers =
        ["ready", "stay", "stay_quietly", "child", "stand", "own_cgroup", "own_leaf", "leave_the_leaf"];
    for name in defined.filter(|name| !helpers.contains(name)) {
        assert!(BEHAVIOURS.iter().any(|(known, _)| *known == name), "{name} is never run");
    }
    assert!(fs::metadata(matrix::path()).is_ok());
}
