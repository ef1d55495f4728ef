//! A connection of which the first bytes have been read, to see what it speaks.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What HTTP/2 begins with where nothing was agreed before (RFC 9113, 3.4). No request of HTTP/1.1 does.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection, and what was read of it already.
#[derive(Debug)]
pub(super) struct Begun<Io> {
    io: Io,
    read: [u8; PREFACE.len()],
    /// Where in `read` what was not given out yet begins and ends.
    from: usize,
    to: usize,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Begun<Io> {
    /// Reads until it is clear whether this is HTTP/2; says so.
    ///
    /// # Errors
    /// When reading fails.
    pub(super) async fn read(io: Io) -> io::Result<(Self, bool)> {
        let mut begun = Self { io, read: [0; PREFACE.len()], from: 0, to: 0 };
        loop {
            let read = begun.io.read(&mut begun.read[begun.to..]).await?;
            begun.to += read;
            let (known, expected) = (&begun.read[..begun.to], &PREFACE[..begun.to]);
            if read == 0 || known != expected {
                return Ok((begun, false));
            }
            if begun.to == PREFACE.len() {
                return Ok((begun, true));
            }
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Begun<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.from == self.to {
            return Pin::new(&mut self.io).poll_read(cx, buffer);
        }
        let some = (self.to - self.from).min(buffer.remaining());
        buffer.put_slice(&self.read[self.from..self.from + some]);
        self.from += some;
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Begun<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn http_2_is_known_by_its_preface_however_it_is_cut_and_nothing_is_lost() {
        let http2 = [PREFACE.as_slice(), b"\0\0\0\x04\0\0\0\0\0"].concat();
        let most = [&PREFACE[..PREFACE.len() - 1], b"X tail"].concat();
        for (bytes, is_http2) in [
            (http2.as_slice(), true),
            (b"POST / HTTP/1.1\r\nhost: a\r\n\r\n", false),
            (b"PRI", false),
            (b"", false),
            (most.as_slice(), false),
        ] {
            for cut in 0..=bytes.len() {
                let (mut client, server) = duplex(256);
                let (first, second) = bytes.split_at(cut);
                let sending = async {
                    client.write_all(first).await.unwrap();
                    tokio::task::yield_now().await;
                    client.write_all(second).await.unwrap();
                    client.shutdown().await.unwrap();
                };
                let reading = async {
                    let (mut begun, known) = Begun::read(server).await.unwrap();
                    let mut all = Vec::new();
                    begun.read_to_end(&mut all).await.unwrap();
                    (known, all)
                };
                let ((), (known, all)) = tokio::join!(sending, reading);
                assert_eq!((known, all.as_slice()), (is_http2, bytes), "cut at {cut}");
            }
        }
    }
}
