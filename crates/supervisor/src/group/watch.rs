//! Waiting for a pidfd.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a pidfd with the reactor; it becomes readable when its process has ended.
pub(super) fn watch(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is a valid open descriptor until it is dropped, its number never changes,
    // and it is moved into the `AsyncFd`, which alone can drop it.
    #[expect(unsafe_code, reason = "tokio's safe constructor takes any AsRawFd and is deprecated for that")]
    let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    registered.map_err(io::Error::from)
}
