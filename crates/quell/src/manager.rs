//! The service manager that started this node, if one did and wants to hear of it: `sd_notify(3)`, for systemd and
//! what speaks like it. Without `NOTIFY_SOCKET` nothing here does anything.
//!
//! A few lines instead of a crate: what is needed is one datagram, and abstract addresses of sockets too.

use std::{
    ffi::{OsStr, OsString},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net::SocketAddr, net::UnixDatagram},
    },
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::time::MissedTickBehavior;

/// How often the core is asked within the time after which the manager takes the node for hung: one answer may
/// be late and one lost.
const LOOKS: u32 = 3;

/// Whom to tell. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manager {
    socket: Option<Arc<UnixDatagram>>,
    /// Unless it is told within this that the node is alive, the manager ends and restarts it.
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment says. One that cannot be told is warned of: it may be none of ours.
    pub(crate) fn of_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name);
        let Some(address) = variable("NOTIFY_SOCKET") else { return Self::default() };
        match connect(&address) {
            Ok(socket) => Self {
                socket: Some(Arc::new(socket)),
                watchdog: watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id()),
            },
            Err(error) => {
                tracing::warn!(
                    ?address,
                    "NOTIFY_SOCKET cannot be used, nobody is told how this node is: {error:#}"
                );
                Self::default()
            }
        }
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// The node serves; also after it has read its files again.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// It reads its files again.
    pub(crate) fn reloading(&self) {
        self.tell("RELOADING=1\nSTATUS=reading files again");
    }

    /// It takes no new requests, and is to be left alone for as long as it may take to end.
    pub(crate) fn stopping(&self, at_most: Duration) {
        let (seconds, limit) = (at_most.as_secs(), at_most.as_micros());
        self.tell(&format!("STOPPING=1\nSTATUS=draining, {seconds} s at most\nEXTEND_TIMEOUT_USEC={limit}"));
    }

    /// Tells that the node is alive for as long as its core answers. Ends with the core, and at once where there
    /// is no watchdog. `answers`: asks the core, and is over when that has answered; false if it has ended.
    pub(crate) async fn feed<A: Future<Output = bool>>(self, answers: impl Fn() -> A) {
        let Some(limit) = self.watchdog else { return };
        let mut looks = tokio::time::interval(limit / LOOKS);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            // Nothing limits the wait: who does not answer is alive when he does, and until then is not.
            if !answers().await {
                return;
            }
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, news: &str) {
        let Some(socket) = &self.socket else { return };
        // Nonblocking: a manager that does not read must not stop the node. It will hear the next word.
        if let Err(error) = socket.send(news.as_bytes()) {
            tracing::warn!(%error, news, "the service manager was not told");
        }
    }
}

fn connect(address: &OsStr) -> anyhow::Result<UnixDatagram> {
    let bytes = address.as_bytes();
    let address = match bytes.split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name),
        Some((b'/', _)) => SocketAddr::from_pathname(address),
        _ => bail!("it is neither a path nor an abstract address"),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address?).context("nobody is there")?;
    Ok(socket)
}

/// The time of the watchdog, if there is one and it watches the process with this id.
fn watchdog(limit: Option<OsString>, process: Option<OsString>, own: u32) -> Option<Duration> {
    let number = |value: OsString| value.to_str().and_then(|text| text.parse::<u64>().ok());
    let limit = limit.and_then(number).filter(|limit| *limit > 0)?;
    let other = process.is_some_and(|process| number(process) != Some(u64::from(own)));
    (!other).then(|| Duration::from_micros(limit))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A manager, and what it was told since it was looked at last.
    fn played() -> (Manager, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Manager { socket: Some(Arc::new(ours)), watchdog: Some(LIMIT) }, theirs)
    }

    fn told(ear: &UnixDatagram) -> Vec<String> {
        let (mut news, mut buffer) = (Vec::new(), [0; 512]);
        while let Ok(length) = ear.recv(&mut buffer) {
            news.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        news
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_while_the_core_answers_and_not_by_one_that_hangs() {
        let (manager, ear) = played();
        let hangs = Arc::new(AtomicBool::new(false));
        let core = Arc::clone(&hangs);
        let feeding = tokio::spawn(manager.feed(move || {
            let core = Arc::clone(&core);
            async move {
                while core.load(SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                true
            }
        }));
        for _ in 0..10 {
            tokio::time::sleep(LIMIT).await;
            assert!(!told(&ear).is_empty(), "at least once in the time of the watchdog");
        }
        hangs.store(true, SeqCst);
        tokio::time::sleep(LIMIT / LOOKS).await; // an answer that was given before
        told(&ear);
        tokio::time::sleep(LIMIT * 10).await;
        assert_eq!(told(&ear), [""; 0], "the rest of the process is alive, and the core is what counts");
        hangs.store(false, SeqCst);
        tokio::time::sleep(LIMIT / LOOKS).await;
        assert_eq!(told(&ear).first().map(String::as_str), Some("WATCHDOG=1"));
        feeding.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_not_fed_by_a_node_whose_core_has_ended() {
        let (manager, ear) = played();
        manager.feed(async || false).await;
        assert_eq!(told(&ear), [""; 0]);
    }

    #[test]
    fn the_watchdog_is_that_of_this_process() {
        let text = |text: &str| Some(OsString::from(text));
        assert_eq!(watchdog(text("30000000"), None, 7), Some(LIMIT));
        assert_eq!(watchdog(text("30000000"), text("7"), 7), Some(LIMIT));
        assert_eq!(watchdog(text("30000000"), text("8"), 7), None);
        for none in [None, text("0"), text("soon")] {
            assert_eq!(watchdog(none, text("7"), 7), None);
        }
    }

    #[test]
    fn a_manager_is_told_by_a_path_and_by_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        connect(path.as_os_str()).unwrap().send(b"READY=1").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(ear.recv(&mut buffer).unwrap(), 7);
        let name = format!("quell-test-{}", std::process::id());
        let ear = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        connect(OsStr::new(&format!("@{name}"))).unwrap().send(b"READY=1").unwrap();
        assert_eq!(ear.recv(&mut buffer).unwrap(), 7);
        for wrong in ["", "vsock:2:1", "/no/such/socket"] {
            assert!(connect(OsStr::new(wrong)).is_err(), "{wrong:?}");
        }
    }
}
