//! Goes through what was selected: one cancel after the other, at a bounded rate, so many at once.

use std::{sync::Arc, time::Duration};

use cancel::{Cause, Level, RequestId, Scope};
use store::{FunctionFilter, FunctionKey};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{BulkOrder, registry::Kept};
use crate::handle::{Actor, CancelAnswer, CancelOrder, Handle};

/// Cancels of one bulk that are under way at once: a sixteenth of what the inbox and the store's queue take,
/// so that everybody else always finds room there, and enough for a grace of 2 s to pass for 128 a second.
const IN_FLIGHT: usize = 256;

/// What a cancel of each asks for.
#[derive(Clone, Debug)]
pub(super) struct How {
    pub(super) scope: Scope,
    pub(super) level: Level,
    pub(super) rate: u32,
    pub(super) actor: Actor,
}

impl How {
    pub(super) fn of(order: &BulkOrder) -> Self {
        let actor = Actor { bulk: Some(order.key.clone()), ..order.actor.clone() };
        Self { scope: order.scope, level: order.level, rate: order.rate, actor }
    }
}

/// Stops each of these and notes the answers. Where the node ends before that, the next life goes on.
pub(super) async fn run(
    handle: Handle,
    kept: Arc<Kept>,
    requests: Vec<(RequestId, Arc<FunctionKey>)>,
    how: How,
) {
    let (mut pace, mut in_flight) = (Pace::new(how.rate), JoinSet::new());
    let mut node_ended = false;
    for (request, function) in requests {
        pace.turn().await;
        while in_flight.len() >= IN_FLIGHT {
            node_ended |= noted(&kept, in_flight.join_next().await);
        }
        while let Some(done) = in_flight.try_join_next() {
            node_ended |= noted(&kept, Some(done));
        }
        if node_ended {
            return;
        }
        if kept.is_called_off() {
            break;
        }
        let (handle, how) = (handle.clone(), how.clone());
        in_flight.spawn(async move {
            let order = CancelOrder {
                request,
                function: FunctionFilter::exactly(FunctionKey::clone(&function)),
                scope: how.scope,
                level: how.level,
                cause: Cause::Asked,
                early: false,
                actor: how.actor,
            };
            (request, function, handle.cancel(order).await)
        });
    }
    while !in_flight.is_empty() {
        node_ended |= noted(&kept, in_flight.join_next().await);
    }
    if !node_ended {
        kept.end(&handle).await;
    }
}

type Answered = (RequestId, Arc<FunctionKey>, CancelAnswer);

/// Notes an answer; whether it is that the node has ended.
fn noted(kept: &Kept, done: Option<Result<Answered, tokio::task::JoinError>>) -> bool {
    match done {
        Some(Ok((_, _, CancelAnswer::Gone))) => true,
        Some(Ok((request, function, answer))) => {
            kept.note(|bulk| bulk.note(request, &function, &answer));
            false
        }
        Some(Err(error)) => {
            tracing::error!(%error, key = kept.key, "a cancel of a bulk ended badly");
            true // what is left is for the next life, rather than to be told as done
        }
        None => false,
    }
}

/// So many turns a second.
struct Pace {
    every: Duration,
    next: Instant,
}

/// Turns that were missed are made up for within this time; more than that would be a burst.
const CATCH_UP: Duration = Duration::from_millis(20);

impl Pace {
    fn new(rate: u32) -> Self {
        Self { every: Duration::from_secs(1) / rate.max(1), next: Instant::now() }
    }

    async fn turn(&mut self) {
        let now = Instant::now();
        if let Some(earliest) = now.checked_sub(CATCH_UP) {
            self.next = self.next.max(earliest);
        }
        if self.next > now {
            sleep_until(self.next).await;
        }
        self.next += self.every;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn turns_of(rate: u32, turns: u32) -> Duration {
        let begin = Instant::now();
        let mut pace = Pace::new(rate);
        for _ in 0..turns {
            pace.turn().await;
        }
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pace_is_kept_below_and_above_the_steps_of_the_clock() {
        for rate in [1, 10, 1_000, 10_000] {
            let took = turns_of(rate, rate * 2 + 1).await;
            let seconds = took.as_secs_f64();
            assert!((1.99..2.05).contains(&seconds), "{rate} a second: {seconds} s for two seconds' worth");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_wait_is_not_made_up_for_by_a_burst() {
        let mut pace = Pace::new(1_000);
        pace.turn().await;
        tokio::time::advance(Duration::from_secs(60)).await;
        let begin = Instant::now();
        for _ in 0..1_000 {
            pace.turn().await;
        }
        assert!(begin.elapsed() > Duration::from_millis(950), "{:?}", begin.elapsed());
    }
}
