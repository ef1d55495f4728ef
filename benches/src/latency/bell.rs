//! Where functions say that they are at the point that is to be measured from.

use std::{
    io::Read as _,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    sync::atomic::{AtomicU64, Ordering},
};

/// An abstract socket: it is reached from any mount and PID namespace.
pub(crate) struct Bell {
    listener: UnixListener,
    pub(crate) name: String,
}

/// Whoever rang; its line closes with it.
pub(crate) struct Rang(#[expect(dead_code, reason = "held open, so that nobody finds it closed")] UnixStream);

impl Bell {
    pub(crate) fn hang() -> anyhow::Result<Self> {
        static BELLS: AtomicU64 = AtomicU64::new(0);
        let number = BELLS.fetch_add(1, Ordering::Relaxed);
        let name = format!("quell-bench-{}-{number}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        Ok(Self { listener, name })
    }

    /// Waits for the next ring.
    pub(crate) fn ring(&self) -> anyhow::Result<Rang> {
        tokio::task::block_in_place(|| {
            let (mut line, _) = self.listener.accept()?;
            line.read_exact(&mut [0])?;
            Ok(Rang(line))
        })
    }
}
