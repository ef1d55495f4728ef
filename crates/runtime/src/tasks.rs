//! Tasks that belong to a request.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::{sync::oneshot, task::JoinSet, time::Instant};

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

    /// Lets them run until then, drops those that are left, and returns when none runs any more. From now
    /// on there are no new ones.
    pub(crate) async fn end(&self, at: Option<Instant>) {
        let tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut tasks) = tasks else { return };
        if let Some(at) = at {
            let all = async { while tasks.join_next().await.is_some() {} };
            drop(tokio::time::timeout_at(at, all).await);
        }
        tasks.shutdown().await;
    }
}
