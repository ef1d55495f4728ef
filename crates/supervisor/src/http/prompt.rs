//! A connection whose segments are acknowledged at once, where somebody may wait for it.
//!
//! A client that leaves Nagle's algorithm on, as hyper does, sends the second small piece of a streamed body only
//! when the first is acknowledged, and the kernel puts that off by 40 ms. It is asked not to, again and again, as
//! it forgets; and only when there is a wait for more of what has begun to come. What is answered carries the
//! acknowledgement in its answer: one of its own would cost every invocation three segments.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

pub(super) struct Prompt {
    stream: TcpStream,
    /// Something was read, and nothing written since.
    unanswered: bool,
}

impl Prompt {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, unanswered: false }
    }

    fn arm(&self) {
        if let Err(error) = self.stream.set_quickack(true) {
            tracing::trace!(%error, "TCP_QUICKACK not set: the connection has ended, or streams are slower");
        }
    }
}

impl AsyncRead for Prompt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        match read {
            Poll::Ready(Ok(())) => self.unanswered = true,
            Poll::Pending if self.unanswered => self.arm(),
            Poll::Pending | Poll::Ready(Err(_)) => {}
        }
        read
    }
}

impl AsyncWrite for Prompt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unanswered = false;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unanswered = false;
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Looks for more, without waiting for it.
    async fn look(prompt: &mut Prompt) -> bool {
        let mut piece = [0; 5];
        let mut buffer = ReadBuf::new(&mut piece);
        poll_fn(|context| Poll::Ready(Pin::new(&mut *prompt).poll_read(context, &mut buffer).is_ready()))
            .await
    }

    #[tokio::test]
    async fn what_is_waited_for_is_acknowledged_at_once_though_the_kernel_forgets() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut prompt = Prompt::new(listener.accept().await.unwrap().0);
        for _ in 0..3 {
            client.write_all(b"piece").await.unwrap();
            let mut piece = [0; 5];
            prompt.read_exact(&mut piece).await.unwrap();
            prompt.stream.set_quickack(false).unwrap(); // as the kernel does by itself
            assert!(!look(&mut prompt).await, "there is no more");
            assert!(prompt.stream.quickack().unwrap(), "more is waited for");
            prompt.write_all(b"answer").await.unwrap();
            prompt.stream.set_quickack(false).unwrap();
            assert!(!look(&mut prompt).await);
            assert!(!prompt.stream.quickack().unwrap(), "what was answered is acknowledged by that");
        }
    }
}
