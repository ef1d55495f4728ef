//! A lease as its node sees it: a table of stories, and what holds at every order of answers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use cluster::{Act, Ask, Failure, Membership, Timing, Why};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A lease of 10 s, a heartbeat of 1 s, a margin of 3 s: what is confirmed runs for 7 s.
fn joined_at(at: u64) -> Membership {
    let mut node = Membership::new(Timing::default(), ms(at));
    let Some(Act::Join(ask)) = node.next(ms(at)) else { panic!("it joins first") };
    assert!(node.joined(ms(at), ask, 1));
    node
}

fn renewal(node: &mut Membership, at: u64) -> Ask {
    match node.next(ms(at)) {
        Some(Act::Renew(ask)) => ask,
        other => panic!("no renewal at {at}: {other:?}"),
    }
}

#[test]
fn a_node_joins_then_renews_at_its_pace() {
    let mut node = Membership::new(Timing::default(), ms(5));
    assert_eq!(node.deadline(), Some(ms(5)));
    assert_eq!(node.run_until(), None);
    assert!(!node.accepts_new(ms(5)) && !node.may_claim(ms(5)) && !node.may_start(ms(5)));
    let Some(Act::Join(ask)) = node.next(ms(5)) else { panic!("it joins first") };
    assert_eq!((ask.sent(), node.next(ms(6)), node.deadline()), (ms(5), None, None));
    assert!(node.joined(ms(50), ask, 7));
    assert_eq!((node.epoch(), node.run_until()), (Some(7), Some(ms(7_005))));
    assert!(node.accepts_new(ms(50)) && node.may_claim(ms(50)) && node.may_start(ms(50)));
    assert_eq!((node.deadline(), node.next(ms(1_004))), (Some(ms(1_005)), None));
    let ask = renewal(&mut node, 1_005);
    assert_eq!(node.next(ms(1_005)), None, "each act is said once");
    node.renewed(ms(1_100), ask);
    assert_eq!(node.run_until(), Some(ms(8_005)));
}

#[test]
fn a_late_answer_gives_what_its_own_ask_gives_and_an_older_one_takes_nothing_back() {
    let mut node = joined_at(0);
    let first = renewal(&mut node, 1_000);
    let second = renewal(&mut node, 2_000);
    node.renewed(ms(2_500), second);
    assert_eq!(node.run_until(), Some(ms(9_000)));
    node.renewed(ms(6_000), first);
    assert_eq!(node.run_until(), Some(ms(9_000)));
}

#[test]
fn a_failed_or_late_renewal_makes_it_take_nothing_new_until_a_newer_one_is_confirmed() {
    let mut node = joined_at(0);
    let first = renewal(&mut node, 1_000);
    assert!(node.accepts_new(ms(1_999)));
    assert!(!node.accepts_new(ms(2_000)), "the renewal of 1,000 is late");
    assert!(node.may_start(ms(2_000)), "what it owns goes on");
    node.renewed(ms(2_100), first);
    assert!(node.accepts_new(ms(2_100)));
    let second = renewal(&mut node, 2_100);
    node.renewal_failed(ms(2_150), second, Failure::Unreachable);
    assert!(!node.accepts_new(ms(2_150)) && !node.may_claim(ms(2_150)) && node.may_start(ms(2_150)));
    assert_eq!(node.deadline(), Some(ms(2_400)), "again after a quarter of the heartbeat");
    let third = renewal(&mut node, 2_400);
    node.renewed(ms(2_450), third);
    assert!(node.accepts_new(ms(2_450)));
    node.renewal_failed(ms(2_460), second, Failure::Unreachable);
    assert!(node.accepts_new(ms(2_460)), "an old failure says nothing new");
}

#[test]
fn at_the_margin_everything_is_stopped_and_only_its_proof_lets_it_join_again() {
    let mut node = joined_at(0);
    for at in 1..7 {
        renewal(&mut node, at * 1_000);
    }
    assert_eq!(node.deadline(), Some(ms(7_000)));
    assert!(!node.may_start(ms(7_000)));
    node.stopped(ms(7_000));
    assert_eq!(node.next(ms(7_000)), Some(Act::StopEverything(Why::Margin)));
    assert_eq!((node.run_until(), node.epoch(), node.deadline()), (None, None, None));
    assert_eq!(node.next(ms(60_000)), None);
    node.stopped(ms(60_000));
    assert!(matches!(node.next(ms(60_000)), Some(Act::Join(_))));
}

#[test]
fn an_answer_that_comes_after_the_margin_takes_the_stop_not_back() {
    let mut node = joined_at(0);
    let ask = renewal(&mut node, 6_000);
    // The process was paused; the switches have struck meanwhile, whatever is read first now.
    node.renewed(ms(8_000), ask);
    assert_eq!(node.next(ms(8_000)), Some(Act::StopEverything(Why::Margin)));
    node.renewed(ms(8_001), ask);
    assert_eq!(node.run_until(), None);
}

#[test]
fn a_process_that_was_paused_stops_everything_first() {
    let mut node = joined_at(0);
    assert_eq!(node.next(ms(3_600_000)), Some(Act::StopEverything(Why::Margin)));
    assert_eq!(node.next(ms(3_600_000)), None);
}

#[test]
fn a_lapsed_node_stops_everything_and_what_an_older_life_is_told_changes_nothing() {
    let mut node = joined_at(0);
    let old = renewal(&mut node, 1_000);
    let refused = renewal(&mut node, 2_000);
    node.renewal_failed(ms(2_001), refused, Failure::Lapsed);
    assert_eq!(node.deadline(), Some(Duration::ZERO));
    assert_eq!(node.next(ms(2_001)), Some(Act::StopEverything(Why::Lapsed)));
    node.stopped(ms(2_050));
    let Some(Act::Join(ask)) = node.next(ms(2_050)) else { panic!("it joins again") };
    assert!(node.joined(ms(2_060), ask, 3));
    node.renewal_failed(ms(2_061), old, Failure::Lapsed);
    node.renewed(ms(2_061), old);
    node.lapsed(1);
    assert_eq!((node.epoch(), node.run_until()), (Some(3), Some(ms(9_050))));
    node.lapsed(3);
    assert_eq!(node.next(ms(2_062)), Some(Act::StopEverything(Why::Lapsed)));
}

#[test]
fn a_join_that_fails_or_comes_too_late_is_tried_again() {
    let mut node = Membership::new(Timing::default(), ms(0));
    let Some(Act::Join(first)) = node.next(ms(0)) else { panic!("it joins first") };
    node.join_failed(ms(100), first);
    assert_eq!(node.deadline(), Some(ms(1_100)));
    let Some(Act::Join(second)) = node.next(ms(1_100)) else { panic!("it joins again") };
    assert!(!node.joined(ms(1_200), first, 1), "nobody waits for this one any longer");
    assert!(!node.joined(ms(8_100), second, 2), "its margin is reached");
    let Some(Act::Join(third)) = node.next(ms(8_100)) else { panic!("it joins again") };
    assert!(node.joined(ms(8_101), third, 3));
}

#[test]
fn a_draining_node_renews_and_takes_nothing_new_and_one_that_left_does_nothing() {
    let mut node = joined_at(0);
    node.drain();
    assert!(!node.accepts_new(ms(1)) && !node.may_claim(ms(1)) && node.may_start(ms(1)));
    let ask = renewal(&mut node, 1_000);
    node.renewed(ms(1_001), ask);
    node.left();
    assert_eq!((node.next(ms(90_000)), node.deadline(), node.run_until()), (None, None, None));
}

#[test]
fn a_draining_node_that_had_to_stop_does_not_join_again() {
    let mut node = joined_at(0);
    node.drain();
    assert_eq!(node.next(ms(7_000)), Some(Act::StopEverything(Why::Margin)));
    assert!(!node.over(), "what it runs is not proven ended");
    node.stopped(ms(7_100));
    assert_eq!((node.next(ms(7_100)), node.deadline()), (None, None));
    assert!(node.over());
}

#[test]
fn news_bring_the_renewal_forward_once() {
    let mut node = joined_at(0);
    node.hurry();
    assert_eq!(node.deadline(), Some(Duration::ZERO));
    renewal(&mut node, 10);
    assert_eq!((node.next(ms(10)), node.deadline()), (None, Some(ms(1_010))));
}

mod at_every_order {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Act,
        Renewed(prop::sample::Index),
        Failed(prop::sample::Index, bool),
        Joined(prop::sample::Index),
        JoinFailed(prop::sample::Index),
        LapsedElsewhere(i64),
        Stopped,
        Hurry,
    }

    fn step() -> impl Strategy<Value = Step> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            6 => prop_oneof![0_u64..400, 400_u64..3_000, 6_000_u64..30_000].prop_map(Step::Pass),
            8 => Just(Step::Act),
            4 => index().prop_map(Step::Renewed),
            2 => (index(), prop::bool::weighted(0.2)).prop_map(|(at, lapsed)| Step::Failed(at, lapsed)),
            3 => index().prop_map(Step::Joined),
            1 => index().prop_map(Step::JoinFailed),
            1 => (0_i64..20).prop_map(Step::LapsedElsewhere),
            2 => Just(Step::Stopped),
            1 => Just(Step::Hurry),
        ]
    }

    /// What was asked and answered, kept apart from what is tested, and the laws over it.
    #[derive(Default)]
    struct Seen {
        now: u64,
        joins: Vec<Ask>,
        renewals: Vec<Ask>,
        /// The asks of this life that were answered well while it lasted.
        good: Vec<Ask>,
        epochs: i64,
        /// A stop was ordered and is not proven.
        stopping: bool,
        until: Option<Duration>,
    }

    impl Seen {
        fn take(&mut self, node: &mut Membership, step: &Step) {
            let now = ms(self.now);
            match step {
                Step::Pass(by) => self.now += by,
                Step::Act => match node.next(now) {
                    Some(Act::Join(ask)) => {
                        assert!(!self.stopping, "joined before the stop was proven");
                        self.joins.push(ask);
                    }
                    Some(Act::Renew(ask)) => self.renewals.push(ask),
                    Some(Act::StopEverything(_)) => self.stopping = true,
                    None => {}
                },
                Step::Renewed(at) if !self.renewals.is_empty() => {
                    let ask = *at.get(&self.renewals);
                    node.renewed(now, ask);
                    if node.epoch().is_some()
                        && self.good.first().is_some_and(|join| join.sent() <= ask.sent())
                    {
                        self.good.push(ask);
                    }
                }
                Step::Failed(at, lapsed) if !self.renewals.is_empty() => {
                    let failure = if *lapsed { Failure::Lapsed } else { Failure::Unreachable };
                    node.renewal_failed(now, *at.get(&self.renewals), failure);
                }
                Step::Joined(at) if !self.joins.is_empty() => {
                    let ask = *at.get(&self.joins);
                    self.epochs += 1;
                    if node.joined(now, ask, self.epochs) {
                        assert!(!self.stopping);
                        self.good = vec![ask];
                        self.until = None;
                    }
                }
                Step::JoinFailed(at) if !self.joins.is_empty() => node.join_failed(now, *at.get(&self.joins)),
                Step::LapsedElsewhere(epoch) => node.lapsed(*epoch),
                Step::Stopped => {
                    node.stopped(now);
                    self.stopping = false;
                }
                Step::Hurry => node.hurry(),
                _ => {}
            }
        }

        fn laws(&mut self, node: &Membership) {
            let now = ms(self.now);
            if let Some(until) = node.run_until() {
                assert!(!self.stopping, "something may run while everything is being stopped");
                let best = self.good.iter().map(|ask| ask.sent() + ms(7_000)).max().unwrap();
                assert!(until <= best, "{until:?} is more than any answer gave: {best:?}");
                assert!(self.until.is_none_or(|before| before <= until), "shortened");
                self.until = Some(until);
            }
            assert_eq!(node.may_start(now), node.run_until().is_some_and(|until| now < until));
            assert!(!node.accepts_new(now) || node.may_start(now));
            assert!(node.epoch().is_none() || node.deadline().is_some(), "a member always has a next moment");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
        #[test]
        fn nothing_runs_longer_than_an_answer_gave_nor_before_a_stop_is_proven(
            steps in prop::collection::vec(step(), 1..120)
        ) {
            let mut node = Membership::new(Timing::default(), ms(0));
            let mut seen = Seen::default();
            for step in &steps {
                seen.take(&mut node, step);
                seen.laws(&node);
            }
            // However it went, it comes to rest as a member or in a stop that waits for its proof.
            while let Some(act) = node.next(ms(seen.now)) {
                if let Act::Join(ask) = act {
                    prop_assert!(node.joined(ms(seen.now), ask, 1_000));
                }
            }
        }
    }
}
