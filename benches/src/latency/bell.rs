//! Where functions say that they are at the point that is to be measured from.

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener as StdListener},
    },
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::Context as _;
use tokio::{
    io::AsyncReadExt as _,
    net::{UnixListener, UnixStream},
};

use crate::node::LIMIT;

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
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)?, name })
    }

    /// Waits for the next ring.
    pub(crate) async fn ring(&self) -> anyhow::Result<Rang> {
        let ring = async {
            let (mut line, _) = self.listener.accept().await?;
            line.read_exact(&mut [0]).await?;
            anyhow::Ok(Rang(line))
        };
        tokio::time::timeout(LIMIT, ring).await.context("nobody rings")?
    }
}
