//! Random schedules: abstract actions, resolved against the state at hand, fed to the engine, to the
//! reference model and to the laws; everything is compared after every step, and at the end every
//! outstanding fact is told and nothing may be left waiting.
//!
//! `QUELL_CASES` sets the schedules per test (default 6,000 each, 42,000 in all).

#![allow(clippy::expect_used, reason = "a test may take for granted what it set up itself")]
#![allow(clippy::print_stdout, reason = "a failing schedule is shown on request")]

mod actions;
mod cancels;
mod ends;
mod laws;
mod model;
mod run;

use cancel::Bounds;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{RngAlgorithm, TestRunner},
};

use crate::{actions::act, run::Run};

const SCHEDULES_PER_TEST: u32 = 6_000;

/// Everything in one step: no tree of a schedule is that large.
const WHOLE: u32 = 1_000;

fn bounds(
    max_depth: u16,
    max_below_root: u32,
    max_live: u32,
    max_tombstones: u32,
    max_askers: u32,
) -> Bounds {
    let (slice, max_walks) = (WHOLE, 16);
    Bounds { max_depth, max_below_root, max_live, max_tombstones, max_askers, slice, max_walks }
}

/// Runs schedules of a length; a failure is shrunk, and the smallest schedule printed.
fn schedules(bounds: Bounds, lengths: std::ops::Range<usize>) {
    schedules_with(bounds, lengths, Run::new);
}

fn schedules_with(bounds: Bounds, lengths: std::ops::Range<usize>, new: impl Fn(Bounds) -> Run) {
    let cases = std::env::var("QUELL_CASES").ok().and_then(|cases| cases.parse().ok());
    let config = ProptestConfig {
        cases: cases.unwrap_or(SCHEDULES_PER_TEST),
        failure_persistence: None,
        // The default one, unoptimised, is nine tenths of the run.
        rng_algorithm: RngAlgorithm::XorShift,
        max_shrink_iters: 50_000,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&(vec(act(), lengths), any::<u64>()), |(acts, ending)| {
        let mut run = new(bounds);
        for act in &acts {
            run.act(act);
        }
        run.finish(ending);
        Ok(())
    });
    if let Err(why) = outcome {
        panic!("{why}");
    }
}

#[test]
fn short_schedules_obey_the_model_and_the_laws() {
    schedules(bounds(64, 1_000, 1_000, 1_000, 100), 10..40);
}

#[test]
fn long_schedules_obey_the_model_and_the_laws() {
    schedules(bounds(64, 1_000, 1_000, 1_000, 100), 40..120);
}

#[test]
fn schedules_over_small_trees_obey_their_bounds() {
    schedules(bounds(2, 4, 9, 1_000, 2), 20..90);
}

#[test]
fn schedules_that_outgrow_the_tombstones_forget_the_oldest() {
    schedules(bounds(3, 20, 40, 4, 1), 20..90);
}

/// Slices so small that nearly every recursive cancel is on its way for a while.
fn sliced(slice: u32, max_walks: u32) -> Bounds {
    Bounds { slice, max_walks, ..bounds(64, 1_000, 1_000, 1_000, 100) }
}

#[test]
fn schedules_whose_cancels_go_one_request_at_a_time_obey_the_model_and_the_laws() {
    schedules(sliced(1, 16), 20..90);
}

#[test]
fn schedules_whose_cancels_go_in_slices_and_crowd_each_other_obey_the_model_and_the_laws() {
    schedules(sliced(2, 1), 20..90);
}

#[test]
fn a_cancel_in_slices_that_nothing_comes_between_does_what_was_planned() {
    schedules_with(sliced(2, 16), 20..90, Run::at_once);
}
