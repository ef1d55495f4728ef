//! Tasks that belong to a request.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{sync::oneshot, task::JoinSet};

/// The tasks of one request. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Tasks(Arc<Mutex<Option<JoinSet<()>>>>);

/// The result of a task that [`Context::spawn`](crate::Context::spawn) started: `None` if it panicked or
/// ended with its request. Dropped, the task goes on.
#[derive(Debug)]
pub struct Task<T>(oneshot::Receiver<T>);

impl<T> Future for Task<T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.0).poll(context).map(Result::ok)
    }
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(JoinSet::new()))))
    }

    /// Starts one; after the end of the request it is dropped instead.
    pub(crate) fn spawn<F>(&self, work: F) -> Task<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (done, result) = oneshot::channel();
        if let Some(tasks) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            while tasks.try_join_next().is_some() {} // what is over takes no room
            tasks.spawn(async move {
                drop(done.send(work.await)); // nobody has to wait for it
            });
        }
        Task(result)
    }

    /// Drops those that are left, and returns when none runs any more. From now on there are no new ones.
    pub(crate) async fn end(&self) {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_at_the_end_is_dropped_and_nothing_new_begins() {
        let tasks = Tasks::new();
        assert_eq!(tasks.spawn(async { 7 }).await, Some(7));
        let (alive, mut dropped) = oneshot::channel::<()>();
        let endless = tasks.spawn(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        tasks.end().await;
        assert!(dropped.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        assert_eq!(endless.await, None);
        assert_eq!(tasks.clone().spawn(async { 7 }).await, None);
    }
}
