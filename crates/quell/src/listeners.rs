//! Where the API is reached: one listener for everybody, with TLS or without, and beside TLS one in the clear
//! for the runtimes of this node. The first may be a socket that a service manager had bound.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use axum::Router;
use supervisor::http::{self, Certificates, Serving, Strangers};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::settings::NodeSettings;

/// API connections at once; more wait in the kernel's backlog.
const API_CONNECTIONS: usize = 4_096;
/// The same of the listener for runtimes, where there is one: an invocation is a connection there.
const RUNTIME_CONNECTIONS: usize = 2_048;
/// Connections that wait to be accepted. The usual 128 are over in a few milliseconds of a burst, and whoever
/// comes then tries again after a second; the kernel takes less where `net.core.somaxconn` is less.
const BACKLOG: u32 = 4_096;
/// A handshake is two round trips and a few KB.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A client that has not sent a whole request head after this is cut off, and one that takes nothing of its
/// answer.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// At the end, answers under way get this long: what was waited for is over by then.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How the API speaks TLS.
pub(crate) struct Tls {
    certificates: Arc<Certificates>,
    /// The file of the certificates. Not where its links lead today: they are how many exchange it.
    chain: PathBuf,
}

impl Tls {
    /// Reads the files that the options name; `None` if they name none.
    pub(crate) fn of(args: &NodeSettings) -> anyhow::Result<Option<Self>> {
        let (Some(chain), Some(key)) = (&args.tls_cert, &args.tls_key) else { return Ok(None) };
        let certificates = Certificates::open(chain, key).context("no TLS")?;
        let chain = std::path::absolute(chain)?;
        Ok(Some(Self { certificates: Arc::new(certificates), chain }))
    }
}

/// The ports of the API, bound.
pub(crate) struct Listeners {
    api: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    /// For runtimes, beside TLS: they need no certificates then, and what they send stays on this machine.
    runtimes: Option<(TcpListener, SocketAddr)>,
}

impl Listeners {
    /// Binds them. `handed`: what a service manager had bound; it takes the place of `--listen`.
    pub(crate) fn bind(
        args: &NodeSettings,
        tls: Option<Tls>,
        handed: Option<std::net::TcpListener>,
    ) -> anyhow::Result<Self> {
        let api = match handed {
            Some(handed) => {
                TcpListener::from_std(handed).context("cannot listen on the socket handed over")?
            }
            None => listen(args.listen).map_err(|error| unbound(error, args.listen, "listen"))?,
        };
        let address = api.local_addr()?;
        if tls.is_none() && !address.ip().is_loopback() {
            tracing::warn!(
                %address,
                "the API speaks plain HTTP; give --tls-cert and --tls-key, or put a TLS proxy in front of it"
            );
        }
        let runtimes = match tls {
            None => None,
            Some(_) => {
                let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)))
                    .context("cannot listen on 127.0.0.1 for the runtimes")?;
                let address = listener.local_addr()?;
                tracing::info!(%address, "runtimes reach the API here, without TLS");
                Some((listener, address))
            }
        };
        Ok(Self { api, address, tls, runtimes })
    }

    /// The API's socket once more, for a next life in this process.
    pub(crate) fn handed_on(&self) -> std::io::Result<OwnedFd> {
        self.api.as_fd().try_clone_to_owned()
    }

    /// The address of the API.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// How clients on this machine reach the API.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme(), reachable(self.address))
    }

    /// How runtimes reach it.
    pub(crate) fn runtime_endpoint(&self) -> String {
        match &self.runtimes {
            Some((_, address)) => format!("http://{address}"),
            None => self.endpoint(),
        }
    }

    /// What people are told once it serves.
    pub(crate) fn status(&self) -> String {
        format!("listening on {}://{}", self.scheme(), self.address)
    }

    /// What is to be read again when somebody says that files have changed.
    pub(crate) fn certificates(&self) -> Option<Arc<Certificates>> {
        self.tls.as_ref().map(|tls| Arc::clone(&tls.certificates))
    }

    /// What a client on this machine needs to trust the node.
    pub(crate) fn ca(&self) -> Option<PathBuf> {
        self.tls.as_ref().map(|tls| tls.chain.clone())
    }

    /// Serves until `end`, and then what is under way, for a moment.
    pub(crate) fn serve(self, router: Router, args: &NodeSettings, end: CancellationToken) -> JoinHandle<()> {
        let strangers = Strangers {
            peer_connections: usize::try_from(args.peer_connections).unwrap_or(usize::MAX),
            handshake_limit: HANDSHAKE_LIMIT,
            head_limit: HEAD_LIMIT,
            body_limit: args.body_timeout,
            certificates: None,
        };
        // A quarter of the descriptors in all: never so many that a cancel finds none left. The Runtime API has
        // half of them, so two listeners share what one would have.
        let parts = if self.runtimes.is_some() { 8 } else { 4 };
        let serving = |most, strangers| Serving {
            max_connections: http::share_of_descriptors(parts, most),
            end_limit: ANSWER_LIMIT,
            strangers: Some(strangers),
        };
        let runtimes = self.runtimes.map(|(listener, _)| {
            let serving = serving(RUNTIME_CONNECTIONS, strangers.clone());
            http::serve(listener, router.clone(), serving, |_| Some(()), end.clone())
        });
        let certificates = self.tls.as_ref().map(|tls| Arc::clone(&tls.certificates));
        let serving = serving(API_CONNECTIONS, Strangers { certificates, ..strangers });
        let api = http::serve(self.api, router, serving, |_| Some(()), end.clone());
        tokio::spawn(async {
            tokio::join!(api, maybe(runtimes));
        })
    }
}

async fn maybe(work: Option<impl Future<Output = ()>>) {
    if let Some(work) = work {
        work.await;
    }
}

/// The one socket of a service manager that is the API's, if this process was handed any. To be called before
/// anything else listens.
pub(crate) fn handed_over(args: &NodeSettings) -> anyhow::Result<Option<std::net::TcpListener>> {
    let mut handed = http::handed_over()?;
    let one = handed.pop();
    if !handed.is_empty() {
        let addresses: Vec<_> =
            handed.iter().chain(&one).flat_map(std::net::TcpListener::local_addr).collect();
        bail!("{} sockets were handed over ({addresses:?}); the API has one address", addresses.len());
    }
    let Some(one) = one else { return Ok(None) };
    let address = one.local_addr()?;
    if address == args.listen {
        tracing::info!(%address, "the API's socket was handed over");
    } else {
        let listen = args.listen;
        tracing::warn!(%address, %listen, "the API's socket was handed over: its address counts, --listen does not");
    }
    Ok(Some(one))
}

/// Binds an address for a server.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?; // connections of the last life may linger on the port
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Why an address could not be bound, and what to do: the setting that names it.
pub(crate) fn unbound(error: std::io::Error, address: SocketAddr, setting: &str) -> anyhow::Error {
    let flag = setting.replace('_', "-");
    let what_to_do = match error.kind() {
        ErrorKind::AddrInUse => {
            "another program has this port, perhaps a node that runs already: give another one"
        }
        ErrorKind::AddrNotAvailable => "this machine has no such address: give one of its own",
        ErrorKind::PermissionDenied => "the node's user may not have this port: give one above 1023",
        _ => "give another one",
    };
    anyhow::Error::new(error).context(format!(
        "cannot listen on {address} ({what_to_do}, by --{flag} or `{setting}` in quell.toml)"
    ))
}

/// Clients that read client.json, and runtimes, are on this machine: a wildcard address is reached through
/// loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    SocketAddr::from(([127, 0, 0, 1], address.port()))
}
