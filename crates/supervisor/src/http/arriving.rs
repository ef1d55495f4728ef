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
pub(super) struct Arriving<B = Incoming> {
    body: B,
    limit: Duration,
    /// What is left of the part that is arriving.
    left: usize,
    until: Instant,
    /// Made at the first wait: most bodies are there when their head is.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Arriving<B> {
    pub(super) fn new(body: B, limit: Duration) -> Self {
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

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Reads pieces of these lengths, each of which comes after its pause. When and how it ended.
    async fn read(pieces: &[(usize, Duration)]) -> (Duration, Result<usize, TooSlow>) {
        let pieces = futures_util::stream::unfold(pieces.iter().copied(), async |mut pieces| {
            let (length, pause) = pieces.next()?;
            tokio::time::sleep(pause).await;
            Some((Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; length]))), pieces))
        });
        let begun = Instant::now();
        let read = Arriving::new(StreamBody::new(Box::pin(pieces)), LIMIT).collect().await;
        let read = read.map(|body| body.to_bytes().len()).map_err(|error| *error.downcast().unwrap());
        (begun.elapsed(), read)
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_arrives_within_the_limit_or_not_at_all_however_busily_it_comes() {
        let second = Duration::from_secs(1);
        assert_eq!(read(&[(1, LIMIT - second), (PART - 1, Duration::ZERO)]).await.1, Ok(PART));
        let (after, read) = read(&vec![(1_000, second); 3_600]).await;
        assert_eq!((after, read), (LIMIT, Err(TooSlow { limit: LIMIT })));
    }

    #[tokio::test(start_paused = true)]
    async fn each_further_part_of_a_large_body_has_as_long_again() {
        // However its pieces lie to the bounds of the parts: a little faster than that, then a little slower.
        for length in [16_384, 65_537, PART / 100] {
            for (pace, in_time) in [(0.95, true), (1.05, false)] {
                #[expect(clippy::cast_precision_loss, reason = "a few MB")]
                let pause = LIMIT.mul_f64(pace * length as f64 / PART as f64);
                let (_, read) = read(&vec![(length, pause); 8 * PART / length]).await;
                assert_eq!(read.is_ok(), in_time, "{length} {pace}");
            }
        }
        let (after, read) = read(&[(3 * PART, Duration::ZERO), (1, LIMIT * 9)]).await;
        assert_eq!((after, read), (LIMIT * 4, Err(TooSlow { limit: LIMIT })), "what came late has no more");
    }
}
