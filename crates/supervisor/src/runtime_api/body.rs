//! How bodies of runtimes are read: whole, or not at all.

use axum::{body::Body, http::HeaderMap};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

/// What is read and thrown away of a body that is too large, so that its sender gets to see the answer; some
/// clients end their process over an answer that came while they were still sending.
const MAX_DISCARDED: usize = 64 << 20;

/// A body that arrived whole.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Empty if it was too large.
    pub(super) bytes: Bytes,
    pub(super) trailers: Option<HeaderMap>,
    /// It was larger than the limit.
    pub(super) over: bool,
}

/// The connection ended in the middle of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BrokenOff;

/// Reads a body of up to `limit` bytes in whatever pieces it comes, and what trails it.
///
/// # Errors
/// When it broke off.
pub(super) async fn gather(mut body: Body, limit: usize) -> Result<Gathered, BrokenOff> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut bytes = BytesMut::with_capacity(announced.min(limit));
    let (mut read, mut trailers) = (0_usize, None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| BrokenOff)?.into_data() {
            Ok(data) => {
                read = read.saturating_add(data.len());
                if read <= limit {
                    bytes.extend_from_slice(&data);
                } else {
                    bytes = BytesMut::new();
                }
                if read > limit.saturating_add(MAX_DISCARDED) {
                    break;
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok(Gathered { bytes: bytes.freeze(), trailers, over: read > limit })
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, io};

    use futures_util::stream;
    use hyper::body::Frame;

    use super::*;

    #[tokio::test]
    async fn a_body_is_whole_or_too_large_or_broken_off() {
        let whole = gather(Body::from("12345"), 5).await.unwrap();
        assert_eq!((whole.bytes.as_ref(), whole.over), (&b"12345"[..], false));
        let large = gather(Body::from("123456"), 5).await.unwrap();
        assert_eq!((large.bytes.as_ref(), large.over), (&b""[..], true));
        let half = [Ok(Bytes::from("123")), Err(io::Error::from(io::ErrorKind::ConnectionReset))];
        assert_eq!(gather(Body::from_stream(stream::iter(half)), 5).await.unwrap_err(), BrokenOff);
    }

    #[tokio::test]
    async fn what_trails_a_body_is_kept() {
        let trailer = HeaderMap::from_iter([("a".parse().unwrap(), "b".parse().unwrap())]);
        let frames = [
            Ok::<_, Infallible>(Frame::data(Bytes::from("12"))),
            Ok(Frame::data(Bytes::from("3"))),
            Ok(Frame::trailers(trailer)),
        ];
        let body = Body::new(http_body_util::StreamBody::new(stream::iter(frames)));
        let gathered = gather(body, 5).await.unwrap();
        assert_eq!(gathered.bytes.as_ref(), b"123");
        assert_eq!(gathered.trailers.unwrap()["a"], "b");
    }
}
