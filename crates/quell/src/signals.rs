//! SIGTERM and Ctrl-C: the first drains, a second stops now. SIGHUP: read configuration and certificates again.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The two signals that mean "end".
pub(crate) struct EndSignals {
    term: Signal,
    interrupt: Signal,
}

impl EndSignals {
    /// From here on neither of them ends the process by itself.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves with the next one. Cancellation-safe: one that came meanwhile is not lost.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The signal that means "your files have changed". Listened for only where there are such files, or a service
/// manager that may send it: else it ends the process, as the end of a terminal should.
pub(crate) struct HangUps(Signal);

impl HangUps {
    /// From here on none of them ends the process.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Resolves with the next one. Cancellation-safe, as above.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}
