//! Ports for HTTP servers on the loopback device of all.
//!
//! A port is free until its server listens, so two nodes of one machine would give out the same. Whoever gives one
//! out holds a name for it, which the kernel gives to one at a time and takes back with its holder; and only who
//! holds the name looks whether the port is free, since looking takes it for a moment.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

/// Those that are given out: below those that the kernel gives to connections.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;
/// Ports in a row that may be somebody else's.
const TRIES: usize = 100;

/// Gives out ports, one after the other.
#[derive(Debug)]
pub(crate) struct Ports {
    next: u16,
}

/// A port that no other node of this machine gives out while this lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    /// Without a file: the name goes with it, however the node ends.
    _name: UnixDatagram,
}

impl Port {
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// `None` where it is somebody else's.
    fn claim(number: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("quell-port-{number}"));
        let name = name.and_then(|name| UnixDatagram::bind_addr(&name)).ok()?;
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).ok()?;
        Some(Self { number, _name: name })
    }
}

impl Ports {
    /// Begins anywhere, as other nodes do: so they seldom meet.
    pub(crate) fn new() -> Self {
        let anywhere = getrandom::u32().unwrap_or(0) % u32::from(COUNT);
        Self { next: u16::try_from(anywhere).unwrap_or(0) }
    }

    /// A port that nobody has now. Who is no node may take it before the instance does: then the instance cannot
    /// listen, and whoever answers there is not taken for it.
    ///
    /// # Errors
    /// When all that were tried are somebody else's.
    pub(crate) fn claim(&mut self) -> io::Result<Port> {
        for _ in 0..TRIES {
            let number = FIRST + self.next;
            self.next = (self.next + 1) % COUNT;
            if let Some(port) = Port::claim(number) {
                return Ok(port);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{TRIES} ports in a row are taken")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_out_once_until_it_is_given_back_and_none_that_is_taken() {
        let (mut one, mut other) = (Ports::new(), Ports::new());
        other.next = one.next;
        let first = one.claim().unwrap();
        let second = other.claim().unwrap();
        assert_ne!(first.number(), second.number(), "another node gives out another");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, second.number())).unwrap();
        assert!((FIRST..FIRST + COUNT).contains(&second.number()));
        let number = second.number();
        drop(second);
        assert!(Port::claim(number).is_none(), "somebody listens");
        drop(listener);
        assert!(Port::claim(first.number()).is_none(), "it is still held");
        assert!(Port::claim(number).is_some(), "given back");
    }

    #[test]
    fn the_last_port_is_followed_by_the_first() {
        let mut ports = Ports { next: COUNT - 1 };
        drop(ports.claim());
        assert!(ports.next < COUNT);
    }
}
