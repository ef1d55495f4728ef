//! Events that are in the store alone: left there when many wait, read when their turn comes.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cancel::RequestId;

use crate::{
    message::Message,
    request::Payload,
    shell::{Shell, Timer},
};

/// Before another try to read an event that could not be read: it is owed a run.
const READ_AGAIN: Duration = Duration::from_secs(1);

impl Shell {
    /// Drops an event from memory that is durable.
    pub(crate) fn leave_to_the_store(&mut self, id: RequestId) {
        let Some(request) = self.requests.get_mut(&id).filter(|request| request.asynchronous) else { return };
        self.waiting_bytes -= request.payload.bytes_here();
        request.payload = Payload::Kept;
    }

    /// Reads the event of a request that has got a place.
    pub(crate) fn load(&mut self, id: RequestId) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if !matches!(request.payload, Payload::Kept) || request.instance.is_none() {
            return;
        }
        request.payload = Payload::Loading;
        let (store, inbox) = (Arc::clone(&self.store), self.inbox.clone());
        tokio::spawn(async move {
            let read = match store.invocation(id).await {
                Ok(Some(record)) => Ok(record.payload),
                Ok(None) => Err("it is not in the store".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            drop(inbox.send(Message::Loaded(id, read)).await); // closed: the node has ended
        });
    }

    pub(crate) fn loaded(&mut self, id: RequestId, read: Result<Bytes, String>) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        if !matches!(request.payload, Payload::Loading) {
            return;
        }
        match read {
            Ok(payload) => {
                self.waiting_bytes += payload.len();
                request.payload = Payload::Here(payload);
                if let Some(instance) = request.instance {
                    self.hand_over(instance);
                }
            }
            Err(why) => {
                request.payload = Payload::Kept;
                tracing::error!(request = %id, why, "its event cannot be read; once more in a second");
                self.set_timer(Timer::Load(id), READ_AGAIN);
            }
        }
    }

    pub(crate) fn is_here(&self, id: RequestId) -> bool {
        self.requests.get(&id).is_none_or(|request| matches!(request.payload, Payload::Here(_)))
    }
}
