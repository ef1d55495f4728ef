//! Processes of an instance that serve one request each and are known by a connection of theirs.
//!
//! Who waits for the end of an instance does not see the end of one process in it. So a process may say that a
//! connection of it lives as long as it does (`docs/runtime-protocol.md`): the kernel closes that with the process.

use std::{
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
};

use axum::{
    extract::Query,
    http::{HeaderMap, HeaderName, Uri},
};
use cancel::{Attempt, RequestId};
use tokio::sync::mpsc;

use super::cancellation::{Asked, NEXT, named};
use crate::{http::Companion, message::Message};

/// What a connection is, said by its client.
const CONNECTION: HeaderName = HeaderName::from_static("x-quell-connection");

/// A process, as long as its connection stands.
#[derive(Debug)]
pub(super) struct Worker {
    at: Ipv4Addr,
    inbox: mpsc::Sender<Message>,
    /// The invocation that it named last.
    serves: Mutex<Option<(RequestId, Attempt)>>,
}

impl Worker {
    pub(super) fn new(
        at: Ipv4Addr,
        inbox: mpsc::Sender<Message>,
        serves: Option<(RequestId, Attempt)>,
    ) -> Self {
        Self { at, inbox, serves: Mutex::new(serves) }
    }
}

impl Companion for Worker {
    /// What is named counts from here on: the code of that invocation may end the process at once.
    fn asked(&self, target: &Uri) {
        if target.path() == NEXT
            && let Ok(Query(asked)) = Query::<Asked>::try_from_uri(target)
            && let Some(Some(invocation)) = named(&asked)
        {
            *self.serves.lock().unwrap_or_else(PoisonError::into_inner) = Some(invocation);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let serves = self.serves.lock().unwrap_or_else(PoisonError::into_inner).take();
        let message = Message::WorkerGone { at: self.at, serves };
        if let Err(mpsc::error::TrySendError::Full(message)) = self.inbox.try_send(message) {
            let inbox = self.inbox.clone();
            tokio::spawn(async move { drop(inbox.send(message).await) });
        }
    }
}

/// Whether a connection is said to live as long as a process; `None` if it is said to be something unknown.
pub(super) fn is_process(headers: &HeaderMap) -> Option<bool> {
    match headers.get(CONNECTION).map(|value| value.as_bytes()) {
        None => Some(false),
        Some(b"process") => Some(true),
        Some(_) => None,
    }
}
