//! The body of an answer on its way out: in pieces, so that what a client does not take is not buffered.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};

use super::{activity::UnderWay, uptake::Waiting};

/// What is handed to the connection at once. HTTP/2 buffers a whole piece even for a client that has room
/// for one byte of it; and a piece must cost little beside its copy into the socket.
const PIECE: usize = 64 << 10;

/// An answer's body. Its request is under way for as long as it lives.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    /// The rest of a frame that was larger than a piece.
    rest: Bytes,
    waiting: Waiting,
    _under_way: UnderWay,
}

impl Answer {
    pub(super) fn new(body: Body, under_way: UnderWay, waiting: Waiting) -> Self {
        Self { body, rest: Bytes::new(), waiting, _under_way: under_way }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        if !self.is_end_stream() {
            self.waiting.handed_over();
        }
        Frame::data(piece)
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.waiting.taken();
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.rest = data;
                    Poll::Ready(Some(Ok(self.piece())))
                }
                Err(trailers) => Poll::Ready(Some(Ok(trailers))),
            },
            over => Poll::Ready(over),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;

    use super::{
        super::{activity::Activity, uptake::answer},
        *,
    };

    #[tokio::test]
    async fn an_answer_comes_whole_and_in_pieces_and_says_how_long_it_is() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 3] {
            let activity = Arc::new(Activity::default());
            let bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut answer = answer(Body::from(bytes.clone()), activity.begin(), None);
            assert_eq!(answer.size_hint().exact(), Some(length as u64));
            let mut got = Vec::new();
            while let Some(frame) = answer.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert!(data.len() <= PIECE);
                got.extend_from_slice(&data);
                assert_eq!(answer.size_hint().exact(), Some((length - got.len()) as u64));
            }
            assert!(got == bytes && answer.is_end_stream());
            assert!(!activity.is_idle());
            drop(answer);
            assert!(activity.is_idle());
        }
    }
}
