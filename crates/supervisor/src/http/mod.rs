//! The accept loop of the listeners: bounded connections, limits for what is slow, a bounded end.
//!
//! `axum::serve` has none of these (`dependencies.md`, HTTP). Dropping the returned future stops
//! accepting at once and leaves open connections to their tasks.
//!
//! A connection waits for nobody: [`connection`] has what each of its stages may take, [`places`] who may
//! have how many, [`answer`], [`uptake`] and [`arriving`] what is on its way out and in.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Router, http::Uri};
use nix::sys::resource::{Resource, getrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod activity;
mod answer;
mod arriving;
mod begun;
mod certificates;
mod connection;
mod handed;
mod places;
mod prompt;
mod uptake;

pub use arriving::TooSlow;
pub use certificates::{CertificateFault, Certificates};
pub use handed::{HandedFault, handed_over, handing_on};

use activity::Activity;
use connection::Connection;
use places::{Place, Places};

/// The two ends of a connection, put into every request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Ours: on the Runtime API it names the instance.
    pub local: SocketAddr,
    /// Theirs.
    pub peer: SocketAddr,
}

/// What lives as long as a connection: dropped when that ends.
pub trait Companion: fmt::Debug + Send + Sync {
    /// A request was read, and nothing of it done. If the connection ends right behind it, nothing ever is.
    fn asked(&self, target: &Uri);
}

/// Where a request leaves a companion with its connection. In the extensions of every request of a listener for
/// runtimes.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<OnceLock<Box<dyn Companion>>>);

impl Kept {
    /// Keeps this, unless there is one already.
    pub fn keep(&self, make: impl FnOnce() -> Box<dyn Companion>) {
        self.0.get_or_init(make);
    }

    fn asked(&self, target: &Uri) {
        if let Some(companion) = self.0.get() {
            companion.asked(target);
        }
    }
}

/// How a listener is served.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Connections at once; more wait in the kernel's backlog.
    pub max_connections: usize,
    /// At the end, how long open connections may finish what they are doing.
    pub end_limit: Duration,
    /// What holds where anybody may connect: HTTP/2 beside HTTP/1.1, and limits. `None`: HTTP/1.1 without
    /// any, for runtimes, whose polls are held for as long as there is no work.
    pub strangers: Option<Strangers>,
}

/// How those are served of whom nothing is known.
#[derive(Clone, Debug)]
pub struct Strangers {
    /// Connections that one address may have at once; this machine itself may have more.
    pub peer_connections: usize,
    /// A TLS handshake takes no longer.
    pub handshake_limit: Duration,
    /// A connection that has not sent a whole request head after this is closed, and an answer of which nothing
    /// is taken ends, on HTTP/1.1 with its connection.
    pub head_limit: Duration,
    /// An event arrives within this; each further 6 MiB of a larger body have as long again.
    pub body_limit: Duration,
    /// Speak TLS with these; `None`: in the clear.
    pub certificates: Option<Arc<Certificates>>,
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
    let room = Room::new(&serving);
    let connections = TaskTracker::new();
    // Cancelled at the end of `end_limit`: what is still open then is dropped.
    let cut = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = end.cancelled() => break,
            accepted = room.next(&listener) => accepted,
        };
        let Some((stream, ends, permit)) = accepted else { continue };
        let Some(admitted) = admit(ends) else { continue };
        let activity = Arc::new(Activity::default());
        let Some(place) = room.place(ends, &activity) else { continue };
        let connection = Connection {
            ends,
            router: router.clone(),
            activity,
            streams: connections.clone(),
            end: end.clone(),
        };
        let (strangers, cut) = (serving.strangers.clone(), cut.clone());
        connections.spawn(async move {
            tokio::select! {
                () = cut.cancelled() => {}
                () = place.lost() => tracing::debug!(peer = %ends.peer, "gave its place to a newer connection"),
                () = connection.serve(stream, strangers) => {}
            }
            drop((permit, place, admitted));
        });
    }
    connections.close();
    if tokio::time::timeout(serving.end_limit, connections.wait()).await.is_err() {
        cut.cancel();
        connections.wait().await;
    }
}

/// Who may still come in.
struct Room {
    permits: Arc<Semaphore>,
    places: Places,
}

impl Room {
    fn new(serving: &Serving) -> Self {
        let most = serving.max_connections;
        let places = match &serving.strangers {
            Some(strangers) => Places::new(strangers.peer_connections, most),
            None => Places::unbounded(),
        };
        Self { permits: Arc::new(Semaphore::new(most)), places }
    }

    /// The next connection, and its part of the total. `None` where it came to nothing.
    async fn next(&self, listener: &TcpListener) -> Option<(TcpStream, Ends, OwnedSemaphorePermit)> {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer was gone already. The listener stays readable, so
                // without a pause this would spin; there is no event for "a descriptor is free".
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
                return None;
            }
        };
        let ends = Ends { local: stream.local_addr().ok()?, peer };
        if self.permits.available_permits() == 0 {
            // Where all have requests under way, the new one waits, and the next ones in the backlog.
            self.places.free_one();
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        Some((stream, ends, permit))
    }

    fn place(&self, ends: Ends, activity: &Arc<Activity>) -> Option<Place> {
        let place = self.places.enter(ends.peer.ip(), activity);
        if place.is_none() {
            tracing::debug!(peer = %ends.peer, "refused: its address has as many connections as it may, all at work");
        }
        place
    }
}
