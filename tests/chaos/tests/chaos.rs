//! The harness at work, for as long as a test may take: one schedule that is always the same, and one
//! that nobody has seen before.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use std::time::{SystemTime, UNIX_EPOCH};

use quell_chaos::{
    program,
    run::{self, Order},
};

/// Rounds of each of the two schedules.
const ROUNDS: u64 = 15;
/// The schedule that is always the same.
const SEED: u64 = 20_260_101;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_at_random_moments_loses_nothing_and_runs_nothing_again() {
    let program = program::node().unwrap();
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for seed in [SEED, clock] {
        println!("seed {seed}");
        let folder = program::folder().unwrap();
        let order = Order { program: program.clone(), folder, seed, nodes: 1, rounds: ROUNDS, at_most: None };
        let report = run::run(&order, &mut |line| println!("{line}")).await.unwrap();
        println!("{}", report.figures);
        assert!(
            report.violations.is_empty(),
            "seed {seed}, kept in {:?}: {:#?}",
            report.kept,
            report.violations
        );
        assert_eq!(report.figures.rounds, ROUNDS);
    }
}
