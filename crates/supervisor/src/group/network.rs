//! A network namespace around a runtime: a loopback device that nobody else has, and no way out but
//! through the node.
//!
//! The helper makes it, before anything of the runtime is executed: it raises the loopback device, listens
//! where the node is to be reached from inside, and hands the node those listeners and a line on which it
//! makes sockets in there on demand. So the node needs neither privilege nor a thread that enters the
//! namespace, and holds nothing of it but sockets that it closes with the instance.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{SocketAddr, SocketAddrV4, TcpListener},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{self, MsgFlags, SockProtocol},
};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socket_with, socketpair,
    },
};
use tokio::{
    io::unix::AsyncFd,
    net::{TcpSocket, TcpStream},
    sync::Mutex,
};

use super::watch::watch;

/// Listeners that an instance's network may have: the Runtime API's and the API's.
pub(super) const MAX_LISTENERS: usize = 4;
/// What is handed out says so by this byte, and is not to be confused with other words on the line.
const HANDED_OUT: u8 = b'n';
/// "Make a socket", the socket, and that there is none.
const MAKE: u8 = b'm';
const MADE: u8 = b's';
const FAILED: u8 = b'!';

/// A network of its own, in the helper, with what the node is to be given of it.
pub(super) struct Opened {
    listeners: Vec<TcpListener>,
    nodes_end: OwnedFd,
    maker: SocketMaker,
}

/// The helper's end of the line on which the node asks for sockets.
pub(super) struct SocketMaker(OwnedFd);

/// Steps into a new network and listens in it.
pub(super) fn open(listen: &[SocketAddrV4]) -> Result<Opened, String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("unshare: {error}"))?;
    raise_loopback().map_err(|error| format!("the loopback device: {error}"))?;
    let bind =
        |at: &SocketAddrV4| TcpListener::bind(at).map_err(|error| format!("listening on {at}: {error}"));
    let listeners = listen.iter().map(bind).collect::<Result<_, _>>()?;
    let (nodes_end, own) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|error| format!("a line for sockets: {error}"))?;
    Ok(Opened { listeners, nodes_end, maker: SocketMaker(own) })
}

impl Opened {
    /// Hands the node its part, and keeps the other.
    pub(super) fn hand_out(self, line: BorrowedFd<'_>) -> Result<SocketMaker, String> {
        let Self { listeners, nodes_end, maker } = self;
        let mut given: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
        given.push(nodes_end.as_fd());
        send(line, HANDED_OUT, &given).map_err(|error| format!("its line: {error}"))?;
        Ok(maker)
    }

    /// What stays with whoever does not hand it out.
    pub(super) fn into_maker(self) -> SocketMaker {
        self.maker
    }
}

impl SocketMaker {
    /// Answers one question, which is there. False once nobody asks any more.
    pub(super) fn answer(&self) -> bool {
        let mut word = [0; 1];
        match rustix::net::recv(&self.0, &mut word, RecvFlags::DONTWAIT) {
            Ok((_, 1)) if word[0] == MAKE => {}
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Ok(_) | Err(_) => return false,
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let made = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
        let sent = match &made {
            Ok(socket) => send(self.0.as_fd(), MADE, &[socket.as_fd()]),
            Err(_) => send(self.0.as_fd(), FAILED, &[]),
        };
        // The node reads what it asked for before it asks again, so there is room.
        sent.is_ok()
    }
}

impl AsFd for SocketMaker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `RTM_NEWLINK`, `NLMSG_ERROR`, the flags of a request that wants an answer, and `IFF_UP` of
/// linux/rtnetlink.h, linux/netlink.h and linux/if.h.
const NEWLINK: u16 = 16;
const ERROR: u16 = 2;
const REQUEST_ACK: u16 = 1 | 4;
const UP: u32 = 1;
/// The loopback device is the first of every network.
const LOOPBACK_INDEX: i32 = 1;

/// A netlink header and `struct ifinfomsg`: the loopback device up.
fn raise_loopback() -> io::Result<()> {
    let kind = socket::SockType::Raw;
    let flags = socket::SockFlag::SOCK_CLOEXEC;
    let kernel = socket::socket(socket::AddressFamily::Netlink, kind, flags, SockProtocol::NetlinkRoute)?;
    let mut body = vec![0, 0, 0, 0]; // any family, any type
    body.extend(LOOPBACK_INDEX.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    body.extend(UP.to_ne_bytes()); // of the flags only that one
    let size = u32::try_from(16 + body.len()).unwrap_or(0);
    let mut message = size.to_ne_bytes().to_vec();
    message.extend(NEWLINK.to_ne_bytes());
    message.extend(REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]); // sequence and port
    message.extend(body);
    socket::send(kernel.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 256];
    let size = socket::recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "an answer of rtnetlink is not understood");
    let part = |at: usize, length: usize| answer[..size].get(at..at + length);
    if part(4, 2) != Some(&ERROR.to_ne_bytes()[..]) {
        return Err(odd());
    }
    let number: [u8; 4] = part(16, 4).and_then(|bytes| bytes.try_into().ok()).ok_or_else(odd)?;
    match i32::from_ne_bytes(number) {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(-number)),
    }
}

fn send(line: BorrowedFd<'_>, word: u8, given: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LISTENERS + 1))];
    let mut with = SendAncillaryBuffer::new(&mut room);
    if !given.is_empty() && !with.push(SendAncillaryMessage::ScmRights(given)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let word = [word];
    Ok(sendmsg(line, &[IoSlice::new(&word)], &mut with, SendFlags::NOSIGNAL).map(drop)?)
}

/// One word and the descriptors that came with it.
fn receive(line: BorrowedFd<'_>, flags: RecvFlags) -> Result<(Option<u8>, Vec<OwnedFd>), Errno> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LISTENERS + 1))];
    let mut with = RecvAncillaryBuffer::new(&mut room);
    let mut word = [0];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(line, &mut [IoSliceMut::new(&mut word)], &mut with, flags)?;
    let mut given = Vec::new();
    for message in with.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            given.extend(fds);
        }
    }
    Ok(((received.bytes == 1).then_some(word[0]), given))
}

/// What the node was handed of an instance's network, not watched yet.
pub(super) struct HandedOut {
    listeners: Vec<OwnedFd>,
    maker: OwnedFd,
}

impl HandedOut {
    /// Reads it from a helper's line, whose limit of time is set.
    pub(super) fn read(line: &UnixStream, listeners: usize) -> io::Result<Self> {
        let (word, mut given) = loop {
            match receive(line.as_fd(), RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(received) => break received,
            }
        };
        match (word, given.len() == listeners + 1, given.pop()) {
            (Some(HANDED_OUT), true, Some(maker)) => Ok(Self { listeners: given, maker }),
            (None, ..) => Err(io::Error::other("the helper ended before it had a network")),
            _ => Err(io::Error::other("the helper did not hand out its network")),
        }
    }

    /// Made ready for use.
    ///
    /// # Errors
    /// When one of them cannot be watched.
    pub(super) fn watched(self) -> io::Result<Network> {
        let mut listeners = Vec::new();
        for listener in self.listeners {
            let listener = TcpListener::from(listener);
            listener.set_nonblocking(true)?;
            listeners.push(tokio::net::TcpListener::from_std(listener)?);
        }
        let sockets = Sockets { line: watch(self.maker)?, owed: Mutex::new(false) };
        Ok(Network { listeners, sockets })
    }
}

/// An instance's network, as the node reaches into it. It lives as long as anything of this does, but no
/// process is in it once the instance is gone.
pub struct Network {
    /// Where it is listened for those inside, in the order of [`super::SpawnOrder::listen`].
    pub listeners: Vec<tokio::net::TcpListener>,
    /// Ways in.
    pub sockets: Sockets,
}

/// Makes connections inside an instance's network.
#[derive(Debug)]
pub struct Sockets {
    line: AsyncFd<OwnedFd>,
    /// A socket was asked for and not taken: whoever did gave up.
    owed: Mutex<bool>,
}

impl Sockets {
    /// Connects to an address inside. Cancellation-safe.
    ///
    /// # Errors
    /// When nobody listens there, or the helper makes no socket (any more).
    pub async fn connect(&self, to: SocketAddrV4) -> io::Result<TcpStream> {
        let socket = {
            let mut owed = self.owed.lock().await;
            if !*owed {
                // One question at a time: there is always room for it.
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                rustix::net::send(self.line.get_ref(), &[MAKE], flags)?;
                *owed = true;
            }
            let take = |line: &OwnedFd| Ok(receive(line.as_fd(), RecvFlags::DONTWAIT)?);
            let (word, mut given) = self.line.async_io(tokio::io::Interest::READABLE, take).await?;
            *owed = false;
            match (word, given.pop()) {
                (Some(MADE), Some(socket)) => socket,
                (None, _) => return Err(io::ErrorKind::BrokenPipe.into()),
                _ => return Err(io::Error::other("the helper could not make a socket")),
            }
        };
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
        let stream = socket.connect(SocketAddr::V4(to)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
