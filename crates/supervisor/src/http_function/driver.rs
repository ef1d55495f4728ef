//! The task that stands between the shell and an instance's server.

use std::{
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use axum::http::HeaderName;
use bytes::Bytes;
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    event::{Call, INITIALIZE},
    exchange::{Broken, exchange},
    way::Way,
};
use crate::{
    http::Ends,
    message::{Delivery, Message, Report, ReportKind},
    runtime_api,
    spec::FunctionSpec,
};

/// Nothing tells when somebody begins to listen, so it is tried: soon at first, as most servers need
/// milliseconds, and never more rarely than a start's length would show. The start's own limit ends it.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);
/// A process that ends closes its connections first: whether it is the server's end or only this request's
/// is known within this. A worker that dies below a server that lives is told after it.
const END_FOLLOWS: Duration = Duration::from_millis(500);

/// What drives one instance.
pub(crate) struct Driver {
    pub(crate) function: Arc<FunctionSpec>,
    /// The instance's address of the Runtime API, which names it.
    pub(crate) address: SocketAddrV4,
    /// Where its server listens.
    pub(crate) port: u16,
    pub(crate) inbox: mpsc::Sender<Message>,
}

impl Driver {
    /// Drives the instance for as long as it is polled: dropped, all its connections are closed. `ended`:
    /// its main process was seen to have ended.
    pub(crate) async fn run(self, way: Way, ended: CancellationToken) {
        let driving = Arc::new(Driving { driver: self, way, ended });
        driving.until_it_listens().await;
        if driving.driver.function.initializer.is_some()
            && let Err(why) = driving.initialize().await
        {
            let body = error_body("Initialization", &why);
            return driving.driver.tell(Message::InitFailed { at: *driving.driver.address.ip(), body }).await;
        }
        let mut polls = JoinSet::new();
        for _ in 0..driving.driver.function.concurrency {
            let driving = Arc::clone(&driving);
            polls.spawn(async move { driving.serve().await });
        }
        while polls.join_next().await.is_some() {}
    }

    async fn tell(&self, message: Message) {
        drop(self.inbox.send(message).await); // closed: the node has ended
    }
}

struct Driving {
    driver: Driver,
    way: Way,
    ended: CancellationToken,
}

impl Driving {
    async fn until_it_listens(&self) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.way.connect(self.driver.port).await {
            tracing::trace!(address = %self.driver.address, %error, "does not listen yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn initialize(&self) -> Result<(), String> {
        let stream = self.way.connect(self.driver.port).await.map_err(|error| error.to_string())?;
        let call = Call::post(INITIALIZE, Bytes::new());
        let own = runtime_api::headers_of(function_headers(&self.driver.function));
        match exchange(stream, call, own).await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(format!("POST {INITIALIZE} was answered with {}", answer.words())),
            Err(broken) => Err(format!("POST {INITIALIZE}: {broken}")),
        }
    }

    /// One request after the other. Also after one that was cancelled: the shell counts whom the instance
    /// serves, and this poll is no word of the server about what it does.
    async fn serve(&self) {
        let at = SocketAddr::V4(self.driver.address);
        loop {
            let ends = Ends { local: at, peer: at };
            let Ok(delivery) = runtime_api::next_delivery(&self.driver.inbox, ends).await else { return };
            let (request, attempt, fence) = (delivery.request, delivery.attempt, delivery.fence.clone());
            let told = tokio::select! {
                biased;
                // Its connection is closed with this, and nothing of it is reported any more.
                () = fence.cancelled() => continue,
                told = self.deliver(delivery) => told,
            };
            let Some((kind, body)) = told else { continue };
            let report = Report { request, attempt: Some(attempt), body, kind };
            self.driver.tell(Message::Reported { at: *self.driver.address.ip(), report }).await;
        }
    }

    /// What is to be reported of a request; nothing if the instance's end says it.
    async fn deliver(&self, delivery: Delivery) -> Option<(ReportKind, Bytes)> {
        let error = |kind: &str, why: &str| Some((ReportKind::Error, error_body(kind, why)));
        let call = match Call::of(&delivery.payload) {
            Ok(call) => call,
            Err(why) => return error("InvalidEvent", &format!("the event is no HTTP request: {why}")),
        };
        let (any_status, what) = (call.any_status, format!("{} {}", call.method, call.target.path()));
        let mut own = runtime_api::functiongraph_headers(&delivery);
        if call.headers.contains_key(runtime_api::TRACEPARENT) {
            // Of the call that the event is of: nearer to the function than whoever brought the event.
            own.remove(runtime_api::TRACEPARENT);
            own.remove(runtime_api::TRACESTATE);
        }
        own.extend(runtime_api::headers_of(function_headers(&self.driver.function)));
        let broken = match self.way.connect(self.driver.port).await {
            Err(error) => format!("no connection to port {}: {error}", self.driver.port),
            Ok(stream) => match exchange(stream, call, own).await {
                Ok(answer) if any_status || answer.status.is_success() => {
                    let too_large = (ReportKind::TooLarge, Bytes::new());
                    return Some(answer.result().map_or(too_large, |result| (ReportKind::Response, result)));
                }
                Ok(answer) => {
                    return error("HttpStatus", &format!("{what} was answered with {}", answer.words()));
                }
                Err(Broken::TooLarge) => return Some((ReportKind::TooLarge, Bytes::new())),
                Err(broken) => broken.to_string(),
            },
        };
        tokio::select! {
            () = self.ended.cancelled() => None,
            () = tokio::time::sleep(END_FOLLOWS) => {
                Some((ReportKind::Broken, error_body("HttpServer", &format!("{what}: {broken}"))))
            }
        }
    }
}

fn error_body(kind: &str, why: &str) -> Bytes {
    json!({ "errorType": kind, "errorMessage": why }).to_string().into()
}

/// What a server is told of its function (`functiongraph.md` 7.2).
fn function_headers(function: &FunctionSpec) -> [(HeaderName, String); 7] {
    let region = function.urn.split(':').nth(2).unwrap_or_default().to_owned();
    let key = &function.key;
    [
        (HeaderName::from_static("x-cff-memory"), function.memory_mb.to_string()),
        (HeaderName::from_static("x-cff-timeout"), function.timeout.as_secs().to_string()),
        (HeaderName::from_static("x-cff-func-version"), key.version.clone()),
        (HeaderName::from_static("x-cff-func-name"), key.name.clone()),
        (HeaderName::from_static("x-cff-project-id"), key.project.clone()),
        (HeaderName::from_static("x-cff-package"), key.package.clone()),
        (HeaderName::from_static("x-cff-region"), region),
    ]
}
