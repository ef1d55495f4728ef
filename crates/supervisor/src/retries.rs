//! When an asynchronous request is tried again, and when it is given up.
//!
//! Never after a cancel: the engine tells of no retry of a fenced request. Between two attempts a request
//! waits like any other, with its pause; a cancel takes it out of that like out of a queue.

use std::{sync::Arc, time::Duration};

use cancel::{Event, Outcome, RequestId};
use store::FunctionKey;

use crate::{
    codes,
    message::ReportKind,
    perform::error_message,
    request::Request,
    runtimes::memory_message,
    shell::{Shell, Timer, now_ms},
    spec::FunctionSpec,
};

/// No pause between two attempts is longer: a function that is well again is tried within minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Between two looks for waiting requests that have become too old.
pub(crate) const AGES_EVERY: Duration = Duration::from_secs(1);

/// What is left of a function's retries after so many failures.
pub(crate) fn left_retries(function: &FunctionSpec, failures: u32) -> u8 {
    function.asynchronous.retries.saturating_sub(u8::try_from(failures).unwrap_or(u8::MAX))
}

/// The pause after the n-th failure. Spread by a quarter, so that what failed together does not come
/// back together; by the request's own id, so that it is the same each time.
fn pause(base: Duration, failures: u32, request: RequestId) -> Duration {
    let doubled = base.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    let share = u32::try_from(request.0 % 256).unwrap_or(0);
    doubled - doubled / 4 + doubled / 512 * share
}

/// Until then, by a clock that may have been set since: no longer than the longest pause.
fn until(at_ms: i64) -> Duration {
    let left = Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms())).unwrap_or(0));
    left.min(LONGEST_PAUSE * 5 / 4)
}

impl Request {
    /// For how long it may still be begun; nothing if it is too old.
    fn left(&self) -> Duration {
        let (at, then) = self.taken_up;
        self.function.asynchronous.max_age.saturating_sub(then + at.elapsed())
    }
}

impl Shell {
    /// An attempt failed and another is owed: after a pause, unless the request is too old by then.
    pub(crate) fn try_again(&mut self, id: RequestId) {
        let base = self.settings.retry_backoff;
        let (code, why) = self.last_failure(id);
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.failures += 1;
        let pause = pause(base, request.failures, id);
        let not_before_ms = now_ms().saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
        if pause > request.left() {
            request.failure = Some(why);
            return self.tell(Event::Expired { request: id, code });
        }
        let failures = request.failures;
        tracing::info!(request = %id, failures, pause_ms = pause.as_millis() as u64, why, "is tried again");
        self.write("waiting", id, self.store.mark_waiting(id, failures, not_before_ms));
        self.wait_until(id, not_before_ms);
    }

    /// Code and words of the attempt that failed.
    fn last_failure(&mut self, id: RequestId) -> (u16, String) {
        let Some(request) = self.requests.get_mut(&id) else { return (cancel::CODE_CRASHED, String::new()) };
        let told = request.failure.take();
        match request.report.take() {
            Some((ReportKind::TooLarge, _)) => {
                let code = codes::RESPONSE_TOO_LARGE;
                (code, codes::message(Outcome::Failed(code)).to_owned())
            }
            Some((_, body)) if told.is_none() => {
                let said = error_message(&body);
                let code = codes::FUNCTION_FAILED;
                (code, said.unwrap_or_else(|| codes::message(Outcome::Failed(code)).to_owned()))
            }
            _ => {
                let crashed = || codes::message(Outcome::Crashed).to_owned();
                (cancel::CODE_CRASHED, told.unwrap_or_else(crashed))
            }
        }
    }

    /// Lets a request wait for its turn from then on.
    pub(crate) fn wait_until(&mut self, id: RequestId, not_before_ms: i64) {
        let pause = until(not_before_ms);
        if pause.is_zero() {
            return self.runnable(id);
        }
        if !self.requests.contains_key(&id) {
            return; // it was refused
        }
        let timer = self.set_timer(Timer::Pause(id), pause);
        if let Some(request) = self.requests.get_mut(&id) {
            request.runnable = false;
            let old = request.timer.replace(timer);
            self.clear_timer(old);
        }
    }

    pub(crate) fn pause_over(&mut self, id: RequestId) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        // What its function says now is what holds.
        if let Some(function) = self.functions.get(&request.function.key) {
            request.function = Arc::clone(function);
        }
        if request.left().is_zero() {
            return self.give_up_old(id);
        }
        self.runnable(id);
    }

    /// Gives up what has waited too long. The oldest of each function are the first of its queue.
    pub(crate) fn give_up_all_old(&mut self) {
        let keys: Vec<Arc<FunctionKey>> = self.pools.keys().map(Arc::clone).collect();
        for key in keys {
            while let Some(first) = self.pools.get(&key).and_then(|pool| pool.first_waiting()) {
                let Some(request) = self.requests.get(&first).filter(|request| request.asynchronous) else {
                    break;
                };
                if !request.left().is_zero() {
                    break;
                }
                self.give_up_old(first);
                // One that could not be settled is not looked at for ever.
                if self.pools.get(&key).and_then(|pool| pool.first_waiting()) == Some(first) {
                    break;
                }
            }
        }
        self.set_timer(Timer::Ages, AGES_EVERY);
    }

    /// Nodes have ended under it too often: it may be its own doing.
    pub(crate) fn give_up_deadly(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.failure = Some("the node ended while this was running".to_owned());
        }
        self.tell(Event::Expired { request: id, code: cancel::CODE_CRASHED });
    }

    fn give_up_old(&mut self, id: RequestId) {
        if let Some(request) = self.requests.get_mut(&id) {
            let age = request.function.asynchronous.max_age.as_secs();
            request.failure = Some(format!("{} ({age} s)", codes::message(Outcome::Failed(codes::TOO_OLD))));
        }
        self.tell(Event::Expired { request: id, code: codes::TOO_OLD });
    }

    /// The function is gone: what waits between two attempts has nowhere to run.
    pub(crate) fn expire_between_attempts(&mut self, key: &FunctionKey) {
        let paused =
            |request: &Request| !request.runnable && !request.storing && *request.function.key == *key;
        let gone: Vec<RequestId> =
            self.requests.iter().filter(|(_, request)| paused(request)).map(|(id, _)| *id).collect();
        for request in gone {
            self.tell(Event::Expired { request, code: codes::NO_FUNCTION });
        }
    }

    /// The runtime died under a request: in which words its caller, or its next attempt, is told.
    pub(crate) fn name_crash(&mut self, id: RequestId) {
        let seen = self.requests.get(&id).and_then(|request| request.instance);
        let seen = seen.and_then(|at| self.instances.get(&at)).and_then(|instance| instance.out_of_memory);
        if let (Some(seen), Some(request)) = (seen, self.requests.get_mut(&id)) {
            request.failure.get_or_insert_with(|| memory_message(seen));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_makes_no_pause_longer_than_the_longest() {
        assert_eq!(until(now_ms() - 1_000), Duration::ZERO);
        assert!(until(now_ms() + 2_000) <= Duration::from_secs(2));
        assert_eq!(until(i64::MAX), LONGEST_PAUSE * 5 / 4);
    }

    #[test]
    fn pauses_double_within_a_quarter_and_end_at_the_longest() {
        let base = Duration::from_secs(1);
        for id in [0, 1, 128, 255, u128::MAX].map(RequestId) {
            for failures in 1..=4 {
                let whole = base * (1 << (failures - 1));
                let pause = pause(base, failures, id);
                assert!(pause >= whole * 3 / 4 && pause <= whole * 5 / 4, "{failures}: {pause:?}");
            }
            assert!(pause(base, u32::MAX, id) <= LONGEST_PAUSE * 5 / 4);
        }
    }
}
