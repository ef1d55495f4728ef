//! The body of a request on its way in: not for ever.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

/// What must arrive within one limit: the largest event there is (`functiongraph.md` 3). Only code is larger,
/// and has as many limits as it has such parts.
const PART: usize = 6 << 20;

/// A body did not arrive in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request body did not arrive within {} s", .limit.as_secs_f32())]
pub struct TooSlow {
    /// What an event may take.
    pub limit: Duration,
}

/// A body that comes in time or fails with [`TooSlow`].
#[derive(Debug)]
pub(super) struct Arriving {
    body: Incoming,
    limit: Duration,
    /// What is left of the part that is arriving.
    left: usize,
    until: Instant,
    /// Made at the first wait: most bodies are there when their head is.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    pub(super) fn new(body: Incoming, limit: Duration) -> Self {
        Self { body, limit, left: PART, until: Instant::now() + limit, timer: None }
    }

    /// A longer body is a later end.
    fn arrived(&mut self, bytes: usize) {
        let (parts, over) = (bytes / PART, bytes % PART);
        let parts = parts + usize::from(over >= self.left);
        self.left = if over >= self.left { self.left + PART - over } else { self.left - over };
        if parts > 0 {
            self.until += self.limit * u32::try_from(parts).unwrap_or(u32::MAX);
            if let Some(timer) = &mut self.timer {
                timer.as_mut().reset(self.until);
            }
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame {
                self.arrived(frame.data_ref().map_or(0, Bytes::remaining));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let until = self.until;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(Box::new(TooSlow { limit: self.limit }))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
