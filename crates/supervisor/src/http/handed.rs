//! Listening sockets that whoever started this process had bound and handed over (systemd's `sd_listen_fds(3)`).
//!
//! They outlive the process: what connects while there is none waits in the kernel's backlog for the next one.

use std::{
    ffi::OsString,
    fs, io,
    net::TcpListener,
    os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{SockType, getsockopt, sockopt},
};

/// The first descriptor that is handed over; the others follow it. Fixed by the protocol.
const FIRST: RawFd = 3;
/// Names the process whose standard input is the listening socket of its own last life.
const KEPT: &str = "QUELL_KEPT_SOCKET_OF";
/// More are a mistake: a node has one API.
const MOST: u32 = 64;

/// Why sockets that were handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HandedFault {
    /// A variable of the protocol holds something else.
    #[error("{name} is {value:?}, which is not a number")]
    NotANumber {
        /// Which one.
        name: &'static str,
        /// What it holds.
        value: OsString,
    },
    /// Nobody means so many.
    #[error("LISTEN_FDS names {0} sockets; at most {MOST} are taken")]
    TooMany(u32),
    /// A descriptor is something else than the protocol says.
    #[error("descriptor {descriptor}, which LISTEN_FDS says is a socket, {what}")]
    NotASocket {
        /// Its number.
        descriptor: RawFd,
        /// What it is, in words.
        what: String,
    },
    /// The kernel refused.
    #[error("descriptor {descriptor}, which was handed over: {error}")]
    System {
        /// Its number.
        descriptor: RawFd,
        /// Why.
        error: io::Error,
    },
    /// There is only one of each.
    #[error("the sockets that were handed over have been taken already")]
    Taken,
}

/// Takes the TCP listeners that this process was handed, in their order; none if it was not. Once: they are
/// the caller's from then on. They do not block, and are closed by exec.
///
/// # Errors
/// When the environment says that there are some, and one of them is no listening TCP socket.
pub fn handed_over() -> Result<Vec<TcpListener>, HandedFault> {
    if let Some(kept) = of_an_earlier_life()? {
        return Ok(vec![kept]);
    }
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let count = count(|name| std::env::var_os(name), std::process::id())?;
    if count == 0 {
        return Ok(Vec::new());
    }
    if TAKEN.swap(true, SeqCst) {
        return Err(HandedFault::Taken);
    }
    (FIRST..).take(count as usize).map(take).collect()
}

/// Says to the program that takes this one's place that its listening socket is its standard input.
pub fn handing_on(command: &mut std::process::Command) {
    command.env(KEPT, std::process::id().to_string());
    // Its own, if it had any, were taken by this life.
    command.env_remove("LISTEN_PID").env_remove("LISTEN_FDS");
}

/// The socket that an earlier life in this very process left as its standard input, which is nothing afterwards.
fn of_an_earlier_life() -> Result<Option<TcpListener>, HandedFault> {
    let own = std::process::id().to_string();
    if std::env::var_os(KEPT).is_none_or(|meant| meant != *own) {
        return Ok(None);
    }
    let system = |error: io::Error| HandedFault::System { descriptor: 0, error };
    let kept = TcpListener::from(io::stdin().as_fd().try_clone_to_owned().map_err(system)?);
    kept.local_addr().map_err(system)?;
    kept.set_nonblocking(true).map_err(system)?;
    let nothing = fs::File::open("/dev/null").map_err(system)?;
    nix::unistd::dup2_stdin(nothing).map_err(|error| system(error.into()))?;
    Ok(Some(kept))
}

/// How many were handed to the process with this id.
fn count(variable: impl Fn(&str) -> Option<OsString>, own: u32) -> Result<u32, HandedFault> {
    let number = |name: &'static str| {
        let Some(value) = variable(name) else { return Ok(None) };
        match value.to_str().and_then(|text| text.parse::<u32>().ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(HandedFault::NotANumber { name, value }),
        }
    };
    let (Some(meant), Some(count)) = (number("LISTEN_PID")?, number("LISTEN_FDS")?) else { return Ok(0) };
    if meant != own {
        // So says the protocol: they are some ancestor's. But where a wrapper was put between a service manager
        // and the node, nobody would see why the node binds a port of its own.
        tracing::warn!(meant, own, "sockets were handed to another process than this one: not taken");
        return Ok(0);
    }
    if count > MOST { Err(HandedFault::TooMany(count)) } else { Ok(count) }
}

fn take(descriptor: RawFd) -> Result<TcpListener, HandedFault> {
    let other = |what: &str| HandedFault::NotASocket { descriptor, what: what.to_owned() };
    let system = |error: io::Error| HandedFault::System { descriptor, error };
    let link = fs::read_link(format!("/proc/self/fd/{descriptor}")).map_err(|_| other("is not open"))?;
    if !link.as_os_str().to_string_lossy().starts_with("socket:") {
        return Err(other(&format!("is {}", link.display())));
    }
    // SAFETY: it is open, as was just seen; nothing of this process closes a socket that it did not open, and
    // the borrow ends in this function.
    #[expect(unsafe_code, reason = "the protocol names descriptors by their numbers")]
    let socket = unsafe { BorrowedFd::borrow_raw(descriptor) };
    let stream = getsockopt(&socket, sockopt::SockType).map_err(|errno| system(errno.into()))?;
    let listens = getsockopt(&socket, sockopt::AcceptConn).map_err(|errno| system(errno.into()))?;
    if stream != SockType::Stream {
        return Err(other("is no stream socket (the unit of the socket needs ListenStream=)"));
    }
    if !listens {
        return Err(other("does not listen (the unit of the socket needs Accept=no)"));
    }
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|errno| system(errno.into()))?;
    // SAFETY: it was handed to this very process (LISTEN_PID), it is a listening socket, and `TAKEN` lets one
    // caller come here, once: nobody else owns it.
    #[expect(unsafe_code, reason = "the protocol names descriptors by their numbers")]
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let listener = TcpListener::from(owned);
    if listener.local_addr().is_err() {
        return Err(other("has no address of IP (the unit of the socket needs a port, not a path)"));
    }
    listener.set_nonblocking(true).map_err(system)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(pairs: &[(&str, &str)]) -> Result<u32, String> {
        let variable = |name: &str| {
            pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        count(variable, 7).map_err(|fault| fault.to_string())
    }

    #[test]
    fn sockets_are_taken_if_they_were_handed_to_this_very_process() {
        assert_eq!(counted(&[]), Ok(0));
        assert_eq!(counted(&[("LISTEN_FDS", "1")]), Ok(0), "the process is not named");
        assert_eq!(counted(&[("LISTEN_PID", "7")]), Ok(0));
        assert_eq!(counted(&[("LISTEN_PID", "8"), ("LISTEN_FDS", "1")]), Ok(0), "another's");
        assert_eq!(counted(&[("LISTEN_PID", "7"), ("LISTEN_FDS", "2")]), Ok(2));
        for (pairs, words) in [
            ([("LISTEN_PID", "seven"), ("LISTEN_FDS", "1")], "LISTEN_PID is \"seven\""),
            ([("LISTEN_PID", "7"), ("LISTEN_FDS", "-1")], "LISTEN_FDS is \"-1\""),
            ([("LISTEN_PID", "7"), ("LISTEN_FDS", "65")], "65 sockets"),
        ] {
            assert!(counted(&pairs).unwrap_err().contains(words), "{pairs:?}");
        }
    }

    #[test]
    fn what_is_no_listening_socket_is_refused_and_told() {
        use std::{net::TcpStream, os::fd::AsRawFd as _, os::unix::net::UnixStream};
        let file = tempfile::tempfile().unwrap();
        let words = take(file.as_raw_fd()).unwrap_err().to_string();
        assert!(words.contains("is /"), "{words}");
        let (one, _other) = UnixStream::pair().unwrap();
        let words = take(one.as_raw_fd()).unwrap_err().to_string();
        assert!(words.contains("does not listen"), "{words}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let words = take(connected.as_raw_fd()).unwrap_err().to_string();
        assert!(words.contains("does not listen"), "{words}");
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let words = take(datagrams.as_raw_fd()).unwrap_err().to_string();
        assert!(words.contains("no stream socket"), "{words}");
        let words = take(i32::MAX).unwrap_err().to_string();
        assert!(words.contains("is not open"), "{words}");
    }
}
