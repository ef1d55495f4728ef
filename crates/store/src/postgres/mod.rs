//! The shared store: one PostgreSQL database, and as many nodes as one likes.

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
        mpsc as blocking,
    },
    time::Duration,
};

use deadpool_postgres::{Object, Pool, PoolError};
use futures_util::future::BoxFuture;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Semaphore, broadcast, oneshot},
};

use crate::{News, StoreError, StoreFuture, StoreMetrics, fault::unopenable, folder};
use connection::{CONNECT, Connector, Db, within};
use credentials::Known;
use fault::{Fault, words};
use group::Opening;
use news::Listener;
use queue::{Change, Needs, Queue};
use writer::{Epoch, Writer};

mod bulks;
mod cancels;
mod claims;
mod connection;
mod credentials;
mod fault;
mod functions;
mod group;
pub(crate) mod import;
mod invocations;
mod news;
mod nodes;
mod parts;
mod queue;
mod receipts;
mod schema;
mod selects;
mod shared;
mod store;
mod tls;
mod writer;

/// Reads that wait: more is a caller that asks faster than any human reads.
const READS: usize = 1_024;
/// One read, after it has a connection.
const READ: Duration = Duration::from_secs(12);
/// What dropping waits for at most; the writes that wait then are lost with a server that does not answer.
const DROPPED: Duration = Duration::from_secs(60);

/// A store in a PostgreSQL database (14 or later), speaking for one node.
///
/// Where it differs from [`Embedded`](crate::Embedded):
///
/// - What was acknowledged is as durable as the server makes a commit. `synchronous_commit=off` is turned on for our
///   connections; `fsync=off` is the server's own business, and so is whether a standby has it.
/// - Writes of a node take effect in the order of its calls. Before [`join`](crate::Shared::join) only those go that belong to no
///   node: functions, what is said of them, credentials and facts. Anything else gets [`StoreError::Lapsed`].
/// - [`StoreError::Unwritable`] leaves nothing behind, but for one case: the connection broke while COMMIT was under way **and**
///   the server could not be reached for ten seconds after it. Then what was asked for may be there. Asked for again it is
///   recognised: an accept gets [`StoreError::Exists`], a settlement false. Joining, leaving, taking over, asking around, and whatever is
///   written before joining, are told so at once when the connection broke at that moment: they have no number to ask for.
/// - A call fails when the server has not answered for ten seconds or so (a minute for fences and takeovers). It never waits
///   for ever, and the next one connects again.
/// - A credential is believed for a second after it was looked up. What is revoked opens nothing on this node once
///   `delete_credential` resolved; on the others once they have heard of it, which is at once, or a second later if their
///   connection for notifications is down.
/// - Facts are shared by all nodes, but `node`, which is this node's name and never stored.
/// - PostgreSQL has no NUL in its texts: U+FFFD stands for one in messages, labels and bodies.
/// - [`bulks`](crate::Store::bulks), open receipts and unsettled requests are listed for this node alone.
///
/// It has threads of its own (two): a node that is busy still renews its lease. Dropping it without
/// [`Store::close`](crate::Store::close) blocks until all that was asked for is written, or failed.
pub struct Postgres {
    node: Arc<str>,
    /// Where its data folder is.
    place: Arc<str>,
    epoch: Epoch,
    queue: Queue,
    metrics: Arc<StoreMetrics>,
    pool: Pool,
    reads: Arc<Semaphore>,
    known: Arc<Known>,
    news: broadcast::Sender<News>,
    connector: Connector,
    /// Answered when the writer is through.
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    over: Mutex<blocking::Receiver<()>>,
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Postgres {
    /// Connects to a server, and brings its tables up to date. Blocking, for seconds at most; may be called anywhere.
    ///
    /// `config` is a connection string as libpq has it (`host=a,b user=quell dbname=quell`, `postgres://...`). Of several
    /// hosts the one that takes writes is used, and looked for again when a connection is lost. With `sslmode=require`, or
    /// with `prefer` and an `authority` (a PEM file), the connection is encrypted and the server's certificate checked;
    /// without an authority against those that the machine trusts. `prefer` without one is the clear.
    ///
    /// `password` is the user's, where `config` does not say it.
    ///
    /// `node` is the name to speak for: 32 hexadecimal digits. `dir` is the node's data folder: it is locked, so that two
    /// processes never speak for one node.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has the folder; [`StoreError::Unreadable`] if no server answers, so that a
    /// later try may succeed; [`StoreError::Unopenable`] if it refuses, or its database is of a newer program, or not ours.
    pub fn connect(
        config: &str,
        password: Option<&str>,
        authority: Option<&Path>,
        node: String,
        dir: &Path,
    ) -> Result<Self, StoreError> {
        if node.len() != 32 || !node.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(StoreError::Unopenable(format!("{node:?} is no name of a node")));
        }
        let lock = folder::lock(dir)?;
        let place = folder::place(&lock).map_err(|error| unopenable(dir, error))?;
        let connector = Connector::new(config, password, authority)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("store-postgres")
            .enable_all()
            .build()
            .map_err(|error| unopenable(dir, error))?;
        let handle = runtime.handle().clone();
        let begun = connector.clone();
        let db = blocking_on(&handle, async move { within(2 * CONNECT, begun.open()).await?.map(Box::new) })
            .and_then(|db| blocking_on(&handle, async move { schema::migrate(&db).await.map(|()| db) }));
        let (db, pool) = match db.and_then(|db| Ok((db, connector.pool()?))) {
            Ok(opened) => opened,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        Self::started(runtime, connector, *db, pool, (node.into(), place.into()), lock)
    }

    fn started(
        runtime: Runtime,
        connector: Connector,
        db: Db,
        pool: Pool,
        (node, place): (Arc<str>, Arc<str>),
        lock: File,
    ) -> Result<Self, StoreError> {
        let handle = runtime.handle().clone();
        let (epoch, metrics, known) = (Arc::new(AtomicI64::new(0)), Arc::default(), Arc::<Known>::default());
        let (news, _) = broadcast::channel(news::KEPT);
        let (queue, inbox) = Queue::new();
        let writer =
            Writer::new(connector.clone(), db, Arc::clone(&node), Arc::clone(&epoch), Arc::clone(&metrics));
        let ((end, ended), (through, over)) = (oneshot::channel(), blocking::channel());
        handle.spawn(async move {
            writer.run(inbox).await;
            drop(lock);
            end.send(()).ok(); // nobody may wait
            through.send(()).ok();
        });
        let listener = Listener {
            connector: connector.clone(),
            node: Arc::clone(&node),
            news: news.clone(),
            known: Arc::clone(&known),
        };
        let (listening, heard) = oneshot::channel();
        handle.spawn(listener.run(listening));
        let store = Self {
            node,
            place,
            epoch,
            queue,
            metrics,
            pool,
            reads: Arc::new(Semaphore::new(READS)),
            known,
            news,
            connector,
            ended: Mutex::new(Some(ended)),
            over: Mutex::new(over),
            handle: handle.clone(),
            runtime: Some(runtime),
        };
        // From here on nothing that happens is missed.
        blocking_on(&handle, async move {
            within(2 * CONNECT, heard).await?.map_err(|_| Fault::Gone("the listener ended".into()))
        })?;
        Ok(store)
    }

    /// Starts a read now; it sees every write that was acknowledged before.
    fn read<T: Send + 'static>(
        &self,
        work: impl for<'a> FnOnce(&'a Db) -> BoxFuture<'a, Result<T, Fault>> + Send + 'static,
    ) -> StoreFuture<T> {
        if self.queue.is_closed() {
            return Box::pin(std::future::ready(Err(StoreError::Closed)));
        }
        let Ok(place) = Arc::clone(&self.reads).try_acquire_owned() else {
            return Box::pin(std::future::ready(Err(StoreError::Busy)));
        };
        let (pool, moved) = (self.pool.clone(), self.connector.moved());
        let reading = self.handle.spawn(async move {
            let _place = place;
            let client = pool.get().await.map_err(unconnected)?;
            let read = within(READ, work(&client)).await.and_then(|read| read);
            if read.as_ref().is_err_and(Fault::is_read_only) {
                moved.by(&client);
            }
            if read.as_ref().is_err_and(|fault| !fault.is_answer()) {
                drop(Object::take(client)); // what it still may hear is not for the next one
            }
            read
        });
        Box::pin(async move { reading.await.map_err(|_| StoreError::Closed)?.map_err(Fault::unreadable) })
    }

    /// Queues a change that shares its transaction with others.
    fn change(&self, change: Change, bytes: Option<usize>) -> StoreFuture<bool> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have stopped waiting; the write stands.
        self.queue.change(change, bytes, move |outcome| drop(answer.send(outcome)));
        Box::pin(async { answered.await.unwrap_or(Err(StoreError::Closed)) })
    }

    /// Queues work with a transaction of its own.
    fn alone<T: Send + 'static>(
        &self,
        needs: Needs,
        work: impl for<'a> FnOnce(&'a Db, Opening<'a>) -> BoxFuture<'a, Result<T, Fault>> + Send + 'static,
    ) -> StoreFuture<T> {
        self.queue.alone(needs, None, work, |_| ())
    }

    fn epoch(&self) -> i64 {
        self.epoch.load(Ordering::Acquire)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.queue.close();
        let over = self.over.get_mut().unwrap_or_else(PoisonError::into_inner);
        if over.recv_timeout(DROPPED).is_err() {
            tracing::error!("the store's writer was not through when it was dropped");
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn unconnected(error: PoolError) -> Fault {
    match error {
        PoolError::Backend(error) => Fault::Gone(words(&error)),
        other => Fault::Gone(other.to_string()),
    }
}

/// Carries work out on threads of the store's own, and waits for it here, wherever here is.
fn blocking_on<T: Send + 'static>(
    handle: &Handle,
    work: impl Future<Output = Result<T, Fault>> + Send + 'static,
) -> Result<T, StoreError> {
    let (answer, answered) = blocking::channel();
    handle.spawn(async move {
        answer.send(work.await).ok(); // whoever asked waits below
    });
    let done = answered.recv().map_err(|_| StoreError::Closed)?;
    done.map_err(|fault| match fault.is_absence() {
        // Not there, or not yet: somebody may try again.
        true => fault.unreadable(),
        false => match fault.unwritable() {
            StoreError::Unwritable(why) => StoreError::Unopenable(why),
            other => other,
        },
    })
}
