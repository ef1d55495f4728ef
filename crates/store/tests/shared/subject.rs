//! The store that the tests of the trait are run against here: one node of a database of its own, which has joined.

use std::time::Duration;

use store::{Joining, NodeLabels, Postgres, Shared as _, Store as _, StoreError, StoreFuture};
use tempfile::TempDir;

use crate::server;

/// The form of the store.
pub(crate) type Subject = Postgres;

/// Sequences of calls that are tried of it: each has a database of its own.
pub(crate) const CASES: u32 = 24;

/// What it lives in.
pub(crate) struct Home {
    pub(crate) config: String,
    /// The data folder of each node that was made, by number.
    pub(crate) folders: [TempDir; 4],
}

pub(crate) fn home() -> Home {
    home_on(server::shared())
}

/// The same on a server of its own.
pub(crate) fn home_on(server: &server::Server) -> Home {
    Home { config: server.database(), folders: std::array::from_fn(|_| tempfile::tempdir().unwrap()) }
}

/// The name of a node, by number.
pub(crate) fn name(number: usize) -> String {
    format!("{number:032x}")
}

/// How a node of the tests introduces itself.
pub(crate) fn joining(lease_ms: u32) -> Joining {
    Joining { endpoint: "http://here:1".into(), version: "0".into(), lease_ms, labels: NodeLabels::default() }
}

impl Home {
    /// A node that has not joined.
    pub(crate) fn open(&self, number: usize) -> Postgres {
        Postgres::connect(&self.config, None, None, name(number), self.folders[number].path()).unwrap()
    }

    /// The next life of the first node.
    pub(crate) async fn again_after(&self, life: Postgres) -> Postgres {
        life.close().await.unwrap();
        drop(life);
        self.node(0)
    }

    /// A node with a lease of a minute.
    pub(crate) fn node(&self, number: usize) -> Postgres {
        let store = self.open(number);
        wait(store.join(joining(60_000))).unwrap();
        store
    }
}

pub(crate) fn fresh() -> (Subject, Home) {
    let home = home();
    (home.node(0), home)
}

/// A new life of a store that was closed or dropped.
pub(crate) fn again(home: &Home) -> Subject {
    home.node(0)
}

/// Waits on a thread of its own: a test is a task already.
pub(crate) fn wait<T: Send + 'static>(answer: StoreFuture<T>) -> Result<T, StoreError> {
    let waiting = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), answer).await }).unwrap()
    };
    std::thread::spawn(waiting).join().unwrap()
}

/// Everything a test does, within a time that no healthy one needs.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), work).await.expect("it hangs")
}
