//! A listener that asks nobody who he is, where there is one: figures, health and readiness, and nothing else.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use api::Api;
use supervisor::http::{self, Serving, Strangers};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::listeners;

/// A collector or two, and probes.
const CONNECTIONS: usize = 64;
/// Head, body and answer are small.
const SLOW: Duration = Duration::from_secs(10);

/// The port, bound.
pub(crate) struct OpenListener(TcpListener);

impl OpenListener {
    /// Binds it, if one is asked for.
    pub(crate) fn bind(address: Option<SocketAddr>) -> anyhow::Result<Option<Self>> {
        let Some(address) = address else { return Ok(None) };
        let listener = listeners::listen(address)
            .map_err(|error| listeners::unbound(error, address, "metrics_listen"))?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "whoever reaches this address sees the names of functions and what they do");
        }
        tracing::info!(%address, "figures, health and readiness, for everybody");
        Ok(Some(Self(listener)))
    }

    /// Serves until `end`.
    pub(crate) async fn serve(self, api: Arc<Api>, end: CancellationToken) {
        let strangers = Strangers {
            peer_connections: CONNECTIONS,
            handshake_limit: SLOW,
            head_limit: SLOW,
            body_limit: SLOW,
            certificates: None,
        };
        let serving =
            Serving { max_connections: CONNECTIONS, end_limit: Duration::ZERO, strangers: Some(strangers) };
        http::serve(self.0, api::open_router(api), serving, |_| Some(()), end).await;
    }
}
