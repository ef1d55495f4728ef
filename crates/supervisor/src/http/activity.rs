//! What a connection is doing, counted: for whoever may have to end it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// The counts of one connection. Relaxed: each decision reads one count, and nothing is published by it.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests that have come.
    begun: AtomicUsize,
    /// Those whose answers are not over.
    under_way: AtomicUsize,
    /// Answers whose last piece the client has not taken, and which have more.
    waiting: AtomicUsize,
    /// Pieces of answers that clients have taken.
    taken: AtomicUsize,
}

/// Why a connection should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dull {
    /// It asks nothing.
    Idle,
    /// It takes nothing of what it is answered.
    Stalled,
}

impl Activity {
    /// A request has come; it is under way for as long as this is kept.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.begun.fetch_add(1, Relaxed);
        self.under_way.fetch_add(1, Relaxed);
        UnderWay { activity: Arc::clone(self), waits: false }
    }

    /// Whether it has never asked anything.
    pub(super) fn is_silent(&self) -> bool {
        self.begun.load(Relaxed) == 0
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.load(Relaxed) == 0
    }

    /// Resolves when the connection has asked nothing, or taken nothing of what waits for it, for `limit`,
    /// and at most twice that later. It looks once each `limit`: to be told of every request and every
    /// piece would wake the connection's task for each of them.
    pub(super) async fn dull(&self, limit: Duration) -> Dull {
        loop {
            let (begun, taken) = (self.begun.load(Relaxed), self.taken.load(Relaxed));
            let (idle, waits) = (self.is_idle(), self.waiting.load(Relaxed) > 0);
            tokio::time::sleep(limit).await;
            if idle && self.is_idle() && begun == self.begun.load(Relaxed) {
                return Dull::Idle;
            }
            if waits && self.waiting.load(Relaxed) > 0 && taken == self.taken.load(Relaxed) {
                return Dull::Stalled;
            }
        }
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    activity: Arc<Activity>,
    waits: bool,
}

impl UnderWay {
    /// A piece of the answer was handed over, and there is more.
    pub(super) fn handed_over(&mut self) {
        if !self.waits {
            self.waits = true;
            self.activity.waiting.fetch_add(1, Relaxed);
        }
    }

    /// The client has room for more.
    pub(super) fn taken(&mut self) {
        if self.waits {
            self.waits = false;
            self.activity.waiting.fetch_sub(1, Relaxed);
            self.activity.taken.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.taken();
        self.activity.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_is_idle_and_who_is_at_work_is_not() {
        let activity = Arc::new(Activity::default());
        assert!(activity.is_silent());
        assert_eq!(activity.dull(LIMIT).await, Dull::Idle);
        let request = activity.begin();
        assert!(!activity.is_silent() && !activity.is_idle());
        let busy = tokio::time::timeout(LIMIT * 100, activity.dull(LIMIT)).await;
        assert!(busy.is_err(), "a request may run for as long as its function");
        drop(request);
        assert_eq!(activity.dull(LIMIT).await, Dull::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_an_answer_is_stalled_and_who_takes_some_is_not() {
        let activity = Arc::new(Activity::default());
        let mut answer = activity.begin();
        answer.handed_over();
        assert_eq!(activity.dull(LIMIT).await, Dull::Stalled);
        let taking = async {
            for _ in 0..200 {
                tokio::time::sleep(LIMIT / 2).await;
                answer.taken();
                answer.handed_over();
            }
        };
        tokio::select! {
            _ = activity.dull(LIMIT) => panic!("it takes its answer, slowly"),
            () = taking => {}
        }
    }
}
