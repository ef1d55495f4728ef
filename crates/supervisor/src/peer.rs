//! Who is at the other end of a loopback connection: the cgroup in which its socket was made.
//!
//! Asked of the kernel by the two addresses of the connection (sock_diag, `INET_DIAG_CGROUP_ID`, Linux
//! 5.8): no walk over processes, about 10 us.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `SOCK_DIAG_BY_FAMILY`, `NLM_F_REQUEST`, `NLMSG_ERROR` of linux/sock_diag.h and linux/netlink.h.
const BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
const ERROR: u16 = 2;
/// `INET_DIAG_CGROUP_ID` of linux/inet_diag.h.
const CGROUP_ID: u16 = 21;
const AF_INET: u8 = 2;
const TCP: u8 = 6;
const NETLINK_HEADER: usize = 16;
/// `struct inet_diag_msg`; its attributes follow.
const DIAG_MESSAGE: usize = 72;
/// An answer about one socket is about 150 bytes.
const ANSWER: usize = 2_048;

/// A line to the kernel's socket tables.
#[derive(Debug)]
pub(crate) struct SocketTables(OwnedFd);

impl SocketTables {
    pub(crate) fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        let line = socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
        let tables = Self(line);
        tables.try_out()?;
        Ok(tables)
    }

    /// Asks for a socket that is there: a kernel without the part that knows TCP's says that there is none, as it
    /// does of one that is gone.
    fn try_out(&self) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        let (SocketAddr::V4(at), SocketAddr::V4(to)) = (stream.local_addr()?, stream.peer_addr()?) else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        match self.cgroup_of(at, to)? {
            Some(_) => Ok(()),
            None => Err(io::Error::other(
                "the kernel does not know its sockets of TCP (its modules tcp_diag and inet_diag)",
            )),
        }
    }

    /// The cgroup v2 id (the inode of its folder) of the socket that is at `at` and connected to `to`;
    /// `None` if there is no such socket any more.
    pub(crate) fn cgroup_of(&self, at: SocketAddrV4, to: SocketAddrV4) -> io::Result<Option<u64>> {
        let request = request(at, to);
        send(self.0.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answer = [0; ANSWER];
        let size = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        parse(&answer[..size])
    }
}

/// A netlink header and `struct inet_diag_req_v2` for exactly one socket.
fn request(at: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut body = vec![AF_INET, TCP, 0, 0];
    body.extend(u32::MAX.to_ne_bytes()); // in any state
    body.extend(at.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    for address in [at.ip(), to.ip()] {
        body.extend(address.octets());
        body.extend([0; 12]);
    }
    body.extend(0_u32.to_ne_bytes()); // on any device
    body.extend(u64::MAX.to_ne_bytes()); // whatever its cookie
    let size = u32::try_from(NETLINK_HEADER + body.len()).unwrap_or(0);
    let mut message = size.to_ne_bytes().to_vec();
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence and port
    message.extend(body);
    message
}

fn parse(answer: &[u8]) -> io::Result<Option<u64>> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "an answer of sock_diag is not understood");
    let short = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    match short(4).ok_or_else(odd)? {
        ERROR => {
            let number = answer.get(NETLINK_HEADER..NETLINK_HEADER + 4).ok_or_else(odd)?;
            let number = i32::from_ne_bytes(number.try_into().map_err(|_| odd())?);
            match io::Error::from_raw_os_error(-number) {
                gone if gone.kind() == io::ErrorKind::NotFound => Ok(None),
                error => Err(error),
            }
        }
        BY_FAMILY => {
            let mut at = NETLINK_HEADER + DIAG_MESSAGE;
            while let (Some(size), Some(kind)) = (short(at), short(at + 2)) {
                if kind == CGROUP_ID {
                    let id = answer.get(at + 4..at + 12).and_then(|id| id.try_into().ok()).ok_or_else(odd)?;
                    return Ok(Some(u64::from_ne_bytes(id)));
                }
                // Each begins on a multiple of four; one that says it has no size would never end.
                at += usize::from(size).max(4).next_multiple_of(4);
            }
            Err(odd())
        }
        _ => Err(odd()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(address: SocketAddr) -> SocketAddrV4 {
        match address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => panic!("{address}"),
        }
    }

    #[test]
    fn a_connection_of_our_own_is_of_our_own_cgroup_and_one_that_is_not_there_of_none() {
        let listener = TcpListener::bind("127.1.2.3:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (at, to) = (v4(client.local_addr().unwrap()), v4(client.peer_addr().unwrap()));
        let tables = SocketTables::open().unwrap();
        let own = tables.cgroup_of(at, to).unwrap();
        assert!(own.is_some());
        assert!(tables.cgroup_of(to, at).unwrap().is_some(), "the other end is a socket, too");
        let nobody = SocketAddrV4::new(*at.ip(), 1);
        assert_eq!(tables.cgroup_of(nobody, to).unwrap(), None);
    }

    #[test]
    fn what_is_no_answer_is_an_error_and_never_a_cgroup() {
        for bytes in [&[][..], &[0; 5], &[0; 16], &[0; 200]] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
        let mut endless = vec![0; 200];
        endless[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        assert!(parse(&endless).is_err());
    }
}
