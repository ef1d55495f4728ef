//! Whether clients take what they are answered, counted.
//!
//! On HTTP/1.1 it is the connection that stalls. On HTTP/2 it is one answer, and it ends alone: a proxy has the
//! requests of everybody on one connection, and who reads slowly behind it must not end those of others. (A
//! client that reads nothing at all does not answer pings either.)

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::body::Body;

use super::{activity::UnderWay, answer::Answer};

tokio::task_local! {
    /// That of the stream of HTTP/2 whose task this is.
    static STREAM: Arc<Uptake>;
}

/// The counts of one connection of HTTP/1.1, or of one stream of HTTP/2. Relaxed, as those of `Activity`.
#[derive(Debug, Default)]
pub(super) struct Uptake {
    /// Answers whose last piece the client has not taken, and which have more.
    waiting: AtomicUsize,
    /// Pieces of answers that the client has taken.
    taken: AtomicUsize,
}

impl Uptake {
    /// Resolves when nothing of what waits was taken for `limit`, and at most as much later.
    pub(super) async fn stalled(&self, limit: Duration) {
        loop {
            let (taken, waits) = (self.taken.load(Relaxed), self.waiting.load(Relaxed) > 0);
            tokio::time::sleep(limit).await;
            if waits && self.waiting.load(Relaxed) > 0 && taken == self.taken.load(Relaxed) {
                return;
            }
        }
    }
}

/// Runs a stream of HTTP/2 until it ends or its answer stalls; dropped, it is reset. Says whether it ended.
pub(super) async fn stream(work: impl Future<Output = ()>, limit: Duration) -> bool {
    let uptake = Arc::<Uptake>::default();
    tokio::select! {
        () = STREAM.scope(Arc::clone(&uptake), work) => true,
        () = uptake.stalled(limit) => false,
    }
}

/// Where an answer is counted: with its connection, or with the stream whose task this is.
pub(super) fn answer(body: Body, under_way: UnderWay, connection: Option<Arc<Uptake>>) -> Answer {
    let uptake = connection.or_else(|| STREAM.try_with(Arc::clone).ok()).unwrap_or_default();
    Answer::new(body, under_way, Waiting { uptake, waits: false })
}

/// One answer on its way.
#[derive(Debug)]
pub(super) struct Waiting {
    uptake: Arc<Uptake>,
    waits: bool,
}

impl Waiting {
    /// A piece of the answer was handed over, and there is more.
    pub(super) fn handed_over(&mut self) {
        if !self.waits {
            self.waits = true;
            self.uptake.waiting.fetch_add(1, Relaxed);
        }
    }

    /// The client has room for more.
    pub(super) fn taken(&mut self) {
        if self.waits {
            self.waits = false;
            self.uptake.waiting.fetch_sub(1, Relaxed);
            self.uptake.taken.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.taken();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn waiting(uptake: &Arc<Uptake>) -> Waiting {
        Waiting { uptake: Arc::clone(uptake), waits: false }
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_an_answer_is_stalled_and_who_takes_some_is_not() {
        let uptake = Arc::default();
        let mut answer = waiting(&uptake);
        answer.handed_over();
        uptake.stalled(LIMIT).await;
        let taking = async {
            for _ in 0..200 {
                tokio::time::sleep(LIMIT / 2).await;
                answer.taken();
                answer.handed_over();
            }
        };
        tokio::select! {
            () = uptake.stalled(LIMIT) => panic!("it takes its answer, slowly"),
            () = taking => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_answer_is_not_stalled() {
        let uptake = Arc::default();
        let mut answer = waiting(&uptake);
        let quiet = tokio::time::timeout(LIMIT * 100, uptake.stalled(LIMIT)).await;
        assert!(quiet.is_err(), "there is no answer yet");
        answer.handed_over();
        drop(answer);
        let over = tokio::time::timeout(LIMIT * 100, uptake.stalled(LIMIT)).await;
        assert!(over.is_err(), "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_own_answer_stalls_and_not_when_anothers_does() {
        let activity = Arc::default();
        let large = || Body::from(vec![0; 1 << 20]);
        let unread = async {
            let mut answer = answer(large(), super::super::activity::Activity::begin(&activity), None);
            let _piece = http_body_util::BodyExt::frame(&mut answer).await;
            std::future::pending::<()>().await;
        };
        let runs = tokio::time::sleep(LIMIT * 10);
        let (unread, runs) = tokio::join!(stream(unread, LIMIT), stream(runs, LIMIT));
        assert_eq!((unread, runs), (false, true));
    }
}
