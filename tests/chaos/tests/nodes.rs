//! The harness with three nodes that share a database, for as long as a test may take.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use std::time::Duration;

use quell_chaos::{
    program,
    run::{self, Order},
};

/// Rounds, of a schedule that is always the same: all kinds of faults are among them, which the test checks.
const ROUNDS: u64 = 10;
const SEED: u64 = 5;
/// It takes a third of this on two cores that do something else besides.
const LIMIT: Duration = Duration::from_secs(180);

/// Fails, and does not skip, where there is no PostgreSQL: the message says what to install, and `.ci/run` installs it.
#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_that_are_killed_and_stopped_with_their_database_lose_nothing_and_run_nothing_again() {
    let program = program::node().unwrap();
    let folder = program::folder().unwrap();
    let order = Order { program, folder, seed: SEED, nodes: 3, rounds: ROUNDS, at_most: None };
    let mut tell = |line: &str| println!("{line}");
    let report = tokio::time::timeout(LIMIT, run::run(&order, &mut tell)).await;
    let report = report.expect("it ends in time").unwrap();
    println!("{}", report.figures);
    assert!(report.violations.is_empty(), "kept in {:?}: {:#?}", report.kept, report.violations);
    let figures = report.figures;
    assert_eq!(figures.rounds, ROUNDS);
    assert!(
        figures.accepted > 0 && figures.canceled.values().sum::<usize>() > 0,
        "clients were served: {figures}"
    );
    let faults = [figures.kills, figures.sleeps, figures.clean_ends, figures.database_kills];
    assert!(faults.iter().all(|count| *count > 0), "every kind of fault is drawn: {faults:?}");
}
