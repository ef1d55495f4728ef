//! One connection, from its first byte to its end: what it speaks, and how long each stage may take.

use std::{
    convert::Infallible,
    future::pending,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{
    Request, Response,
    body::{Body as _, Incoming},
    header::{HOST, HeaderValue},
    rt::Executor,
    server::conn::{http1, http2},
    service::{HttpService, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::{
    Ends, Kept, Strangers,
    activity::Activity,
    answer::Answer,
    arriving::Arriving,
    begun::Begun,
    certificates::{Certificates, HTTP_2},
    prompt::Prompt,
    uptake::{self, Uptake},
};

/// Requests that one HTTP/2 connection has under way at once: what RFC 9113 (6.5.2) advises as the least. Who
/// needs more opens a second connection, and is bounded by the connections of his address.
const STREAMS: u32 = 100;
/// The head of a request of HTTP/2, unpacked: a few tokens of several KB, and room.
const HEAD_BYTES: u32 = 64 << 10;
/// The head of a request of a runtime: clients of the Lambda protocol send up to 1 MiB about an error in one
/// header, and some end their process when that is refused.
const RUNTIME_HEAD_BYTES: usize = 2 << 20;
/// What a client may send of bodies that nobody has read yet: of one connection, and so also of one request.
const WINDOW: u32 = 1 << 20;
/// What is buffered of one answer that the client has no room for: one piece is always taken whole.
const SEND_BYTES: usize = 64 << 10;
/// Requests that a client opened and took back before they were looked at; with more the connection ends.
/// This is the flood of "rapid reset": an honest client takes back what it has waited for.
const EARLY_RESETS: usize = 20;
/// Requests that the node reset by itself over the life of a connection; with more it ends. Honest clients have
/// some: what is still on its way of a body that was refused unread, what they opened before they knew of
/// [`STREAMS`]. A proxy has everybody's on one connection, which lives for days and takes all with it.
const FAULTY_STREAMS: usize = 1_024;
/// An HTTP/2 connection is asked whether its client is still there this often, and has as long to answer. A
/// request that runs for hours sends nothing meanwhile.
const PING: Duration = Duration::from_secs(20);
/// Once nothing is under way and the client has been told to go, it has this long to hang up.
const GOODBYE: Duration = Duration::from_secs(5);
/// At the listener's end, a connection that has asked nothing yet has this long to: what it asks may be on its way,
/// since nobody told it that the node was about to end. Far more than a round trip, and all that a silent one can
/// delay the end.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// A connection that was let in.
pub(super) struct Connection {
    pub(super) ends: Ends,
    pub(super) router: Router,
    pub(super) activity: Arc<Activity>,
    /// Where the requests of HTTP/2 run: whoever waits for connections waits for them as well.
    pub(super) streams: TaskTracker,
    /// The listener's end: finish what is under way, take nothing new.
    pub(super) end: CancellationToken,
}

impl Connection {
    /// Serves it until either side has enough.
    pub(super) async fn serve(self, stream: TcpStream, strangers: Option<Strangers>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY not set: answers may be slower");
        }
        let Some(strangers) = strangers else { return self.http1(Prompt::new(stream), None).await };
        if let Some(certificates) = &strangers.certificates {
            let Some(stream) = self.shake_hands(stream, certificates, strangers.handshake_limit).await else {
                return;
            };
            if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) {
                self.http2(stream, &strangers).await;
            } else {
                self.http1(stream, Some(&strangers)).await;
            }
            return;
        }
        let begun = tokio::select! {
            () = self.over() => return,
            begun = timeout(strangers.head_limit, Begun::read(stream)) => begun,
        };
        match begun {
            Ok(Ok((stream, true))) => self.http2(stream, &strangers).await,
            Ok(Ok((stream, false))) => self.http1(stream, Some(&strangers)).await,
            Ok(Err(error)) => tracing::trace!(%error, peer = %self.ends.peer, "connection ended"),
            Err(_) => tracing::debug!(peer = %self.ends.peer, "said nothing in time"),
        }
    }

    /// The TLS handshake; `None` if it came to nothing.
    async fn shake_hands(
        &self,
        stream: TcpStream,
        certificates: &Arc<Certificates>,
        limit: Duration,
    ) -> Option<TlsStream<TcpStream>> {
        let shaking = async { TlsAcceptor::from(certificates.current().await).accept(stream).await };
        let shaken = tokio::select! {
            () = self.over() => return None,
            shaken = timeout(limit, shaking) => shaken,
        };
        match shaken {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, peer = %self.ends.peer, "TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!(peer = %self.ends.peer, "TLS handshake took too long");
                None
            }
        }
    }

    async fn http1<Io>(&self, io: Io, strangers: Option<&Strangers>)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http1::Builder::new();
        let head_limit = strangers.map(|strangers| strangers.head_limit);
        builder.timer(TokioTimer::new()).header_read_timeout(head_limit);
        if strangers.is_none() {
            builder.max_buf_size(RUNTIME_HEAD_BYTES);
        }
        let uptake = Arc::<Uptake>::default();
        let requests = self.requests(strangers, Some(Arc::clone(&uptake)));
        let connection = builder.serve_connection(TokioIo::new(io), requests);
        let stalled = async {
            match head_limit {
                Some(limit) => uptake.stalled(limit).await,
                None => pending().await,
            }
        };
        self.drive(connection, |connection| connection.graceful_shutdown(), head_limit, stalled).await;
    }

    async fn http2<Io>(&self, io: Io, strangers: &Strangers)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limit = strangers.head_limit;
        let mut builder =
            http2::Builder::new(Streams { tasks: self.streams.clone(), ends: self.ends, limit });
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_BYTES)
            .initial_connection_window_size(WINDOW)
            .initial_stream_window_size(WINDOW)
            .max_send_buf_size(SEND_BYTES)
            .max_pending_accept_reset_streams(EARLY_RESETS)
            .max_local_error_reset_streams(FAULTY_STREAMS)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        let connection = builder.serve_connection(TokioIo::new(io), self.requests(Some(strangers), None));
        self.drive(connection, |connection| connection.graceful_shutdown(), Some(limit), pending()).await;
    }

    /// Lets a connection run until it ends, is told to, or is of no use any more.
    async fn drive<C>(
        &self,
        connection: C,
        wind_down: impl Fn(Pin<&mut C>),
        idle_limit: Option<Duration>,
        stalled: impl Future<Output = ()>,
    ) where
        C: Future<Output = hyper::Result<()>>,
    {
        let (mut connection, mut stalled) = (pin!(connection), pin!(stalled));
        let idle = async {
            match idle_limit {
                Some(limit) => self.activity.idle(limit).await,
                None => pending().await,
            }
        };
        let ended = tokio::select! {
            biased; // it is told to go once what has arrived of its first request was read, and not before
            ended = connection.as_mut() => Some(ended),
            () = stalled.as_mut() => None,
            () = self.over() => {
                wind_down(connection.as_mut());
                Some(connection.as_mut().await)
            }
            () = idle => {
                wind_down(connection.as_mut());
                // What had just begun when it was told to go is still served; a client that is not there any
                // more would never hang up.
                tokio::select! {
                    ended = connection.as_mut() => Some(ended),
                    () = stalled => None,
                    () = self.activity.idle(GOODBYE) => Some(Ok(())),
                }
            }
        };
        match ended {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::trace!(%error, peer = %self.ends.peer, "connection ended"),
            None => tracing::debug!(peer = %self.ends.peer, "cut off: it does not take what it is answered"),
        }
    }

    /// Resolves when this connection is to begin nothing more.
    async fn over(&self) {
        self.end.cancelled().await;
        if self.activity.is_silent() {
            tokio::time::sleep(FIRST_WORD).await;
        }
    }

    /// What answers the requests of this connection. `uptake`: where answers are counted, if not with the stream
    /// of each.
    fn requests(
        &self,
        strangers: Option<&Strangers>,
        uptake: Option<Arc<Uptake>>,
    ) -> impl HttpService<
        Incoming,
        ResBody = Answer,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<Answer>, Infallible>> + Send + 'static + use<>,
    > + use<> {
        let (ends, router, activity) = (self.ends, self.router.clone(), Arc::clone(&self.activity));
        let body_limit = strangers.map(|strangers| strangers.body_limit);
        let kept = strangers.is_none().then(Kept::default);
        service_fn(move |request: Request<Incoming>| {
            let (under_way, uptake) = (activity.begin(), uptake.clone());
            let mut request = request.map(|body| match body_limit {
                Some(limit) if !body.is_end_stream() => Body::new(Arriving::new(body, limit)),
                _ => Body::new(body),
            });
            request.extensions_mut().insert(ends);
            if let Some(kept) = &kept {
                kept.asked(request.uri());
                request.extensions_mut().insert(kept.clone());
            }
            name_host(&mut request);
            let answer = router.clone().oneshot(request);
            async move { Ok(answer.await?.map(|body| uptake::answer(body, under_way, uptake))) }
        })
    }
}

/// HTTP/2 names the host in a place of its own. Signatures are over the header.
fn name_host(request: &mut Request<Body>) {
    if request.headers().contains_key(HOST) {
        return;
    }
    let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
}

/// Runs the requests of an HTTP/2 connection. They end with it, or when taken back, or when their answer is not
/// taken.
#[derive(Clone, Debug)]
struct Streams {
    tasks: TaskTracker,
    ends: Ends,
    limit: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, work: F) {
        let (limit, peer) = (self.limit, self.ends.peer);
        self.tasks.spawn(async move {
            if !uptake::stream(work, limit).await {
                tracing::debug!(%peer, "an answer was reset: it is not taken");
            }
        });
    }
}
