//! How the node reaches the server of an instance.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use tokio::net::TcpStream;

use crate::{doors::Doors, group::Sockets};

/// How connections to one instance's server are made.
pub(crate) enum Way {
    /// Inside its own network.
    Inside(Sockets),
    /// Over the loopback device of all, where somebody else may sit at its port: whoever answers must be
    /// of the instance at this address of the Runtime API.
    Shared(Doors, Ipv4Addr),
}

impl Way {
    /// Connects to the server. Cancellation-safe.
    ///
    /// # Errors
    /// When nobody of the instance listens there.
    pub(super) async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let (doors, address) = match self {
            Self::Inside(sockets) => return sockets.connect(to).await,
            Self::Shared(doors, address) => (doors, *address),
        };
        let stream = TcpStream::connect(to).await?;
        let SocketAddr::V4(own) = stream.local_addr()? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        if !doors.is_of(address, to, own) {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("port {port} is somebody else's, not this instance's"),
            ));
        }
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
