//! Which invocations are under way, and which of them are to stop.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{context::Reason, node::Notice};

/// Notices kept for invocations that are not known here (yet): a notice and its request come on two
/// connections. More than an instance can have requests; the oldest are of some that are over.
const MAX_EARLY: usize = 1_024;
/// Between the drop of a handler's future and the end of its grace: for the drop itself, and for the
/// acknowledgement to arrive. A tenth of the grace within these.
const MARGIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// What is known of the end of one invocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) reason: Reason,
    /// When its future is dropped.
    pub(crate) drop_at: Instant,
}

/// One invocation's ear.
#[derive(Clone, Debug)]
pub(crate) struct Stopping {
    pub(crate) token: CancellationToken,
    pub(crate) stop: watch::Receiver<Option<Stop>>,
}

/// All of them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Active(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    running: HashMap<String, (CancellationToken, watch::Sender<Option<Stop>>)>,
    early: VecDeque<(String, Stop)>,
}

impl Active {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An invocation begins; it may be cancelled already.
    pub(crate) fn begin(&self, invocation: &str) -> Stopping {
        let mut state = self.state();
        let at = state.early.iter().position(|(id, _)| id == invocation);
        let stop = at.and_then(|at| state.early.remove(at)).map(|(_, stop)| stop);
        let token = CancellationToken::new();
        if stop.is_some() {
            token.cancel();
        }
        let (sender, receiver) = watch::channel(stop);
        state.running.insert(invocation.to_owned(), (token.clone(), sender));
        Stopping { token, stop: receiver }
    }

    /// It is over.
    pub(crate) fn end(&self, invocation: &str) {
        self.state().running.remove(invocation);
    }

    pub(crate) fn told(&self, notice: &Notice) {
        let stop = Stop { reason: Reason::named(&notice.reason), drop_at: Instant::now() + left(notice) };
        let mut state = self.state();
        match state.running.get(&notice.invocation_id) {
            Some((token, sender)) => {
                // Before the token: who hears of it finds the reason.
                sender.send_replace(Some(stop));
                token.cancel();
            }
            None => {
                if state.early.len() >= MAX_EARLY {
                    state.early.pop_front();
                }
                state.early.push_back((notice.invocation_id.clone(), stop));
            }
        }
    }
}

/// How long a handler may go on: what is left of its grace without the margin.
fn left(notice: &Notice) -> Duration {
    let grace = Duration::from_millis(notice.grace_ms);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ends = Duration::from_millis(u64::try_from(notice.deadline_ms).unwrap_or(0));
    // The clock may have been set meanwhile: never longer than the grace itself.
    ends.saturating_sub(now).min(grace).saturating_sub((grace / 10).clamp(MARGIN.0, MARGIN.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(invocation: &str, grace_ms: u64, deadline_ms: i64) -> Notice {
        let (invocation_id, reason) = (invocation.to_owned(), "deadline".to_owned());
        Notice { invocation_id, reason, grace_ms, deadline_ms }
    }

    #[test]
    fn a_notice_stops_the_invocation_it_names_also_if_it_comes_first() {
        let active = Active::default();
        active.told(&notice("early", 1_000, i64::MAX));
        let (early, late, other) = (active.begin("early"), active.begin("late"), active.begin("other"));
        active.told(&notice("late", 1_000, i64::MAX));
        assert!(early.token.is_cancelled() && late.token.is_cancelled() && !other.token.is_cancelled());
        assert_eq!(early.stop.borrow().map(|stop| stop.reason), Some(Reason::Deadline));
        assert!(other.stop.borrow().is_none());
    }

    #[test]
    fn notices_of_what_is_not_known_are_bounded() {
        let active = Active::default();
        for at in 0..=MAX_EARLY {
            active.told(&notice(&at.to_string(), 1, 0));
        }
        assert!(!active.begin("0").token.is_cancelled(), "forgotten");
        assert!(active.begin("1").token.is_cancelled());
        assert_eq!(active.state().early.len(), MAX_EARLY - 1);
    }

    #[test]
    fn a_handler_has_what_is_left_of_its_grace_and_no_more_whatever_the_clock_says() {
        let whole = Duration::from_millis(1_900);
        assert_eq!(left(&notice("x", 2_000, i64::MAX)), whole);
        assert_eq!(left(&notice("x", 2_000, 0)), Duration::ZERO);
        assert_eq!(left(&notice("x", 0, i64::MAX)), Duration::ZERO);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let soon = notice("x", 2_000, i64::try_from(now).unwrap() + 1_000);
        assert!(left(&soon) <= Duration::from_millis(900));
    }
}
