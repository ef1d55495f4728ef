//! The loop of a runtime: take, run, report; and the ear for cancellations beside it.

use std::{future::ready, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::task::{JoinError, JoinHandle, JoinSet};

use crate::{
    Context, Error, RunError,
    active::{Active, Stopping},
    node::{Delivery, Node},
    report,
    settings::Settings,
};

/// Serves requests with this handler, as many at once as the function says, until the node is gone.
///
/// # Errors
/// It never returns otherwise: give the error back from `main`.
pub async fn run<H, T, F, R, E>(handler: H) -> Result<(), RunError>
where
    H: Fn(T, Context) -> F + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
    F: Future<Output = Result<R, E>> + Send + 'static,
    R: Serialize + Send + 'static,
    E: Into<Error> + Send + 'static,
{
    run_with(ready(Ok::<_, Error>(handler))).await
}

/// The same with an initialisation, which gives the handler. If it fails, the node is told why, and the
/// requests that wait for this instance end with that.
///
/// # Errors
/// As [`run`], and when the initialisation fails.
pub async fn run_with<I, X, H, T, F, R, E>(initialisation: I) -> Result<(), RunError>
where
    I: Future<Output = Result<H, X>>,
    X: Into<Error>,
    H: Fn(T, Context) -> F + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
    F: Future<Output = Result<R, E>> + Send + 'static,
    R: Serialize + Send + 'static,
    E: Into<Error> + Send + 'static,
{
    let node = Node::new(Settings::from_environment()?);
    let handler = match initialisation.await.map_err(Into::into) {
        Ok(handler) => Arc::new(handler),
        Err(error) => {
            node.post("init/error", "", report::failed(&error)).await?;
            return Err(RunError::Init(error));
        }
    };
    // Before the first poll for work: no request is here before the node knows that it can be stopped.
    let mut notices = node.listen().await?;
    let active = Active::default();
    let mut loops: JoinSet<Result<(), RunError>> = JoinSet::new();
    for _ in 0..node.settings().concurrency {
        let (node, active, handler) = (node.clone(), active.clone(), Arc::clone(&handler));
        loops.spawn(async move {
            loop {
                let delivery = node.next().await?;
                serve(&node, &active, &handler, delivery).await?;
            }
        });
    }
    loops.spawn(async move {
        loop {
            active.told(&notices.next().await?);
        }
    });
    // The first that ends ends all: dropped, the others stop.
    match loops.join_next().await {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => Err(RunError::NodeGone(error.to_string())),
        None => Ok(()),
    }
}

async fn serve<H, T, F, R, E>(
    node: &Node,
    active: &Active,
    handler: &Arc<H>,
    delivery: Delivery,
) -> Result<(), RunError>
where
    H: Fn(T, Context) -> F + Send + Sync + 'static,
    T: DeserializeOwned + Send + 'static,
    F: Future<Output = Result<R, E>> + Send + 'static,
    R: Serialize + Send + 'static,
    E: Into<Error> + Send + 'static,
{
    let invocation = delivery.header(crate::node::INVOCATION_ID).to_owned();
    let stopping = active.begin(&invocation);
    let context = Context::new(node.clone(), &delivery, stopping.clone());
    let (handler, of_it) = (Arc::clone(handler), context.clone());
    let mut work: JoinHandle<Result<Bytes, Bytes>> = tokio::spawn(async move {
        let event = serde_json::from_slice(&delivery.event);
        let event = event.map_err(|error| report::error("BadEvent", &error.to_string()))?;
        let result = handler(event, of_it).await.map_err(|error| report::failed(&error.into()))?;
        let text = serde_json::to_vec(&result);
        text.map(Bytes::from).map_err(|error| report::error("BadResult", &error.to_string()))
    });
    let ended = until_it_ends(&mut work, &context, stopping).await;
    active.end(&invocation);
    let request = context.request_id();
    let (what, body) = match ended {
        Ended::Returned(body) => ("response", body),
        Ended::Failed(body) => ("error", body),
        Ended::Canceled => ("error", report::canceled()),
    };
    node.post(&format!("invocation/{what}/{request}"), &invocation, body).await
}

enum Ended {
    Returned(Bytes),
    Failed(Bytes),
    /// It was told to stop, and no code of it runs any more.
    Canceled,
}

/// Returns when no code of the request runs any more that this crate started.
async fn until_it_ends(
    work: &mut JoinHandle<Result<Bytes, Bytes>>,
    context: &Context,
    mut stopping: Stopping,
) -> Ended {
    let ended = tokio::select! {
        biased;
        ended = &mut *work => Some(ended),
        _ = stopping.stop.changed(), if stopping.stop.borrow().is_none() => None,
        () = ready(()), if stopping.token.is_cancelled() => None,
    };
    let Some(stop) = *stopping.stop.borrow() else {
        // Nobody stopped it: what it started and did not wait for ends with it.
        context.tasks().end().await;
        return ended.map_or(Ended::Canceled, said);
    };
    if ended.is_none() && tokio::time::timeout_at(stop.drop_at, &mut *work).await.is_err() {
        work.abort();
        // It is over when this says so: code that does not come to an `.await` holds it up.
        drop(work.await);
    }
    context.tasks().end().await;
    Ended::Canceled
}

fn said(ended: Result<Result<Bytes, Bytes>, JoinError>) -> Ended {
    match ended {
        Ok(Ok(body)) => Ended::Returned(body),
        Ok(Err(body)) => Ended::Failed(body),
        Err(error) => match error.try_into_panic() {
            Ok(payload) => Ended::Failed(report::panicked(&*payload)),
            Err(_) => Ended::Canceled, // cannot be: nobody aborts what was not cancelled
        },
    }
}
