//! The accept loop of both listeners: bounded connections, a limit for slow headers, a bounded end.
//!
//! `axum::serve` has neither of these (`dependencies.md`, HTTP). Dropping the returned future stops
//! accepting at once and leaves open connections to their tasks.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// The two ends of a connection, put into every request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Ours: on the Runtime API it names the instance.
    pub local: SocketAddr,
    /// Theirs.
    pub peer: SocketAddr,
}

/// How a listener is served.
#[derive(Clone, Copy, Debug)]
pub struct Serving {
    /// Connections at once; more wait in the kernel's backlog.
    pub max_connections: usize,
    /// A connection that has not sent a whole request head after this is closed; `None` never.
    pub header_limit: Option<Duration>,
    /// At the end, how long open connections may finish what they are doing.
    pub end_limit: Duration,
}

/// Connections that a listener may have: one in `parts` of the descriptors there are, and at most `most`.
pub fn share_of_descriptors(parts: u64, most: usize) -> usize {
    let share = getrlimit(Resource::RLIMIT_NOFILE).map_or(most as u64, |(soft, _)| soft / parts);
    usize::try_from(share).unwrap_or(most).clamp(1, most)
}

/// Serves `router` on `listener` until `end` is cancelled, then lets connections finish within the
/// limit. `admit` decides by its two ends whether a connection is served at all; what it gives is
/// kept until the connection's end.
pub async fn serve<Admitted: Send + 'static>(
    listener: TcpListener,
    router: Router,
    serving: Serving,
    admit: impl Fn(Ends) -> Option<Admitted>,
    end: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(serving.max_connections));
    let connections = TaskTracker::new();
    // Cancelled at the end of `end_limit`: what is still open then is dropped.
    let cut = CancellationToken::new();
    loop {
        let permit = tokio::select! {
            () = end.cancelled() => break,
            permit = Arc::clone(&room).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = end.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer was gone already. The listener stays readable, so
                // without a pause this would spin; there is no event for "a descriptor is free".
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let Ok(local) = stream.local_addr() else { continue };
        let ends = Ends { local, peer };
        let Some(admitted) = admit(ends) else { continue };
        let (router, end, cut) = (router.clone(), end.clone(), cut.clone());
        connections.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = connection(stream, ends, router, serving, end) => {}
            }
            drop((permit, admitted));
        });
    }
    connections.close();
    if tokio::time::timeout(serving.end_limit, connections.wait()).await.is_err() {
        cut.cancel();
        connections.wait().await;
    }
}

async fn connection(stream: TcpStream, ends: Ends, router: Router, serving: Serving, end: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set: answers may be slower");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ends);
        router.clone().oneshot(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(serving.header_limit);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, peer = %ends.peer, "connection ended");
    }
}
