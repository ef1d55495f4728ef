//! Where an instance's server and its node meet: in a network of the instance's own, or on the loopback
//! device of all.

use std::{
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use tokio::{net::TcpStream, sync::Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    doors::{Doors, connections_of},
    group::{Group, Network as GroupNetwork},
    http::{self, Serving},
    http_function::{Driver, Way},
    ports::Port,
    shell::Shell,
    spec::{FunctionSpec, Network},
};

/// Where the node's API is reached in a network of an instance's own, at the instance's address.
const API_PORT: u16 = 80;

/// What an instance has besides its processes. Begun before it is let go.
pub(crate) struct Surroundings {
    /// Its address of the Runtime API.
    pub(crate) address: SocketAddrV4,
    /// Requests it may hold.
    pub(crate) concurrency: u32,
    /// What is served in its own network; `None`: it has the node's.
    pub(crate) inside: Option<Inside>,
    /// What delivers to its server; `None`: it polls by itself.
    pub(crate) driver: Option<Driver>,
}

/// What the node offers in an instance's network.
pub(crate) struct Inside {
    runtime_api: Router,
    /// The node's API outside; `None` where that is not known by its address.
    api: Option<SocketAddr>,
}

/// Surroundings that were begun. Dropped, they end.
pub(crate) struct Begun {
    /// To be cancelled when the main process was seen to have ended.
    pub(crate) exited: CancellationToken,
    _end: DropGuard,
}

impl Surroundings {
    /// Those of a process that serves nothing and asks for nothing.
    pub(crate) fn nothing(address: Ipv4Addr) -> Self {
        Self { address: SocketAddrV4::new(address, 0), concurrency: 1, inside: None, driver: None }
    }

    /// Where the node is to listen in a network of the instance's own.
    pub(crate) fn listen(&self) -> Vec<SocketAddrV4> {
        match self.inside {
            Some(_) => vec![self.address, SocketAddrV4::new(*self.address.ip(), API_PORT)],
            None => Vec::new(),
        }
    }

    /// What its environment has besides what every runtime's has.
    pub(crate) fn environment(&self) -> Vec<(OsString, OsString)> {
        let port = self.driver.as_ref().map(|driver| ("PORT".into(), driver.port.to_string().into()));
        let api = self.inside.as_ref().map(|_| {
            ("QUELL_API_ENDPOINT".into(), format!("http://{}:{API_PORT}", self.address.ip()).into())
        });
        port.into_iter().chain(api).collect()
    }

    /// Begins to serve and to drive it.
    ///
    /// # Errors
    /// When its network cannot be used.
    pub(crate) fn begin(self, group: &Group, doors: &Doors) -> io::Result<Begun> {
        let (end, exited) = (CancellationToken::new(), CancellationToken::new());
        let begun = Begun { exited: exited.clone(), _end: end.clone().drop_guard() };
        let way = match (group.take_network()?, self.inside) {
            (Some(GroupNetwork { listeners, sockets }), Some(inside)) => {
                let connections = connections_of(self.concurrency);
                for (at, listener) in listeners.into_iter().enumerate() {
                    inside.serve(at, listener, connections, doors, &end);
                }
                Way::Inside(sockets)
            }
            _ => Way::Shared(doors.clone(), *self.address.ip()),
        };
        if let Some(driver) = self.driver {
            tokio::spawn(async move {
                tokio::select! {
                    () = end.cancelled() => {}
                    () = driver.run(way, exited) => {}
                }
            });
        }
        Ok(begun)
    }
}

impl Inside {
    /// Serves the listener that is at this place of [`Surroundings::listen`].
    fn serve(
        &self,
        at: usize,
        listener: tokio::net::TcpListener,
        connections: usize,
        doors: &Doors,
        end: &CancellationToken,
    ) {
        let end = end.clone();
        match (at, self.api) {
            (0, _) => {
                let serving =
                    Serving { max_connections: connections, end_limit: Duration::ZERO, strangers: None };
                let doors = doors.clone();
                // Nobody else can be in there: no need to ask whose a socket is.
                let admit = move |ends| doors.admit_inside(ends);
                tokio::spawn(http::serve(listener, self.runtime_api.clone(), serving, admit, end));
            }
            (_, Some(api)) => drop(tokio::spawn(forward(listener, api, connections, end))),
            (_, None) => {}
        }
    }
}

/// Passes connections on, byte for byte, so many at once.
async fn forward(listener: tokio::net::TcpListener, to: SocketAddr, most: usize, end: CancellationToken) {
    let room = Arc::new(Semaphore::new(most));
    let passing = async {
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            let mut theirs = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors: no event tells when there are some again.
                    tracing::warn!(%error, "accept failed in an instance's network");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let end = end.clone();
            tokio::spawn(async move {
                let passed = async {
                    let mut ours = TcpStream::connect(to).await?;
                    ours.set_nodelay(true)?;
                    theirs.set_nodelay(true)?;
                    tokio::io::copy_bidirectional(&mut theirs, &mut ours).await
                };
                tokio::select! {
                    () = end.cancelled() => {}
                    // Either end may break off at any time; the other sees it.
                    passed = passed => if let Err(error) = passed {
                        tracing::debug!(%error, "a connection out of an instance's network broke off");
                    }
                }
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = passing => {}
    }
}

impl Shell {
    /// What one more instance of a function, at this address, will have around it, and the port of its server if
    /// that is one of all.
    ///
    /// # Errors
    /// What of it cannot be had here, in words.
    pub(crate) fn surroundings(
        &mut self,
        function: &Arc<FunctionSpec>,
        address: Ipv4Addr,
    ) -> Result<(Surroundings, Option<Port>), String> {
        let possible = self.spawner.containment().has_own_network();
        let http_port = function.image.http_port;
        let own = match function.network {
            Network::Own if !possible => {
                return Err("the function wants a network of its own, which this node cannot give it \
                            (quell doctor says why)"
                    .to_owned());
            }
            Network::Own => true,
            Network::Auto => possible && http_port.is_some(),
            Network::Node => false,
        };
        let address = SocketAddrV4::new(address, self.runtime_port);
        let claimed = match http_port {
            Some(_) if !own => {
                Some(self.ports.claim().map_err(|error| format!("no port is free for its server: {error}"))?)
            }
            _ => None,
        };
        let port = claimed.as_ref().map(Port::number).or(http_port);
        let inside = own.then(|| Inside {
            runtime_api: self.runtime_api.clone(),
            api: self.settings.api_endpoint.strip_prefix("http://").and_then(|at| at.parse().ok()),
        });
        let driver = port.map(|port| Driver {
            function: Arc::clone(function),
            address,
            port,
            inbox: self.inbox.clone(),
        });
        Ok((Surroundings { address, concurrency: function.concurrency, inside, driver }, claimed))
    }
}
