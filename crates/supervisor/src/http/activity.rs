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
}

impl Activity {
    /// A request has come; it is under way for as long as this is kept.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.begun.fetch_add(1, Relaxed);
        self.under_way.fetch_add(1, Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Whether it has never asked anything.
    pub(super) fn is_silent(&self) -> bool {
        self.begun.load(Relaxed) == 0
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.load(Relaxed) == 0
    }

    /// Resolves when the connection has asked nothing for `limit`, and at most as much later. It looks once
    /// each `limit`: to be told of every request would wake the connection's task for each of them.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let (begun, idle) = (self.begun.load(Relaxed), self.is_idle());
            tokio::time::sleep(limit).await;
            if idle && self.is_idle() && begun == self.begun.load(Relaxed) {
                return;
            }
        }
    }
}

/// A request that is under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
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
        activity.idle(LIMIT).await;
        let request = activity.begin();
        assert!(!activity.is_silent() && !activity.is_idle());
        let busy = tokio::time::timeout(LIMIT * 100, activity.idle(LIMIT)).await;
        assert!(busy.is_err(), "a request may run for as long as its function");
        drop(request);
        activity.idle(LIMIT).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_now_and_then_is_not_idle() {
        let activity = Arc::new(Activity::default());
        let asking = async {
            for _ in 0..200 {
                drop(activity.begin());
                tokio::time::sleep(LIMIT / 2).await;
            }
        };
        tokio::select! {
            () = activity.idle(LIMIT) => panic!("it asks"),
            () = asking => {}
        }
    }
}
