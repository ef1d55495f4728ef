//! What functions print, on the disk: for each instance a log in parts, within bounds, written by a thread of its
//! own. Whoever prints or kills never waits for it: what it cannot take is lost, counted, and marked in the log.

mod files;
mod follow;
mod line;
mod read;
mod shelf;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use cancel::InstanceId;
use store::FunctionKey;
use tokio::sync::{Semaphore, oneshot, watch};

pub(crate) use self::{
    follow::Live,
    line::{Printed, marked},
    read::Named,
};
pub use self::{
    follow::{Follower, LogError},
    line::{LogLine, Stream},
    read::{LogOf, LogQuery},
};
use crate::shell::now_ms;

/// Bytes of lines on their way to the disk: what a runtime prints while a disk is slow for a moment.
const WAITING_BYTES: usize = 8 << 20;
/// Batches of lines on their way: each has at least a line, most a pipe's worth.
const WAITING: usize = 4_096;
/// What a line costs on its way besides its text.
const LINE_COST: usize = 64;
/// How long whoever reads waits for what is on its way; a disk that hangs must not hang readers.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// Between two tries to get into a full queue.
const FLUSH_AGAIN: Duration = Duration::from_millis(5);
/// Readers of files at once: more would only make each slower.
const READERS: usize = 4;
/// Who may follow at once: each costs a look at the disk whenever something was written.
const FOLLOWERS: usize = 64;

/// Where logs are kept, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Their folder; made if it is not there.
    pub dir: PathBuf,
    /// Bytes of one instance; the oldest go first, as for the other bounds.
    pub instance_bytes: u64,
    /// Bytes of all instances of one version of a function.
    pub function_bytes: u64,
    /// Bytes of all.
    pub total_bytes: u64,
    /// A part that nothing was written to for so long is forgotten.
    pub keep: Duration,
}

impl LogSettings {
    /// Half a million lines of an instance, and a disk that logs do not fill.
    pub const INSTANCE_BYTES: u64 = 64 << 20;
    /// So that no function takes the room of the others.
    pub const FUNCTION_BYTES: u64 = 256 << 20;
    /// A part of the smallest disk that nodes have.
    pub const TOTAL_BYTES: u64 = 1 << 30;

    /// The usual bounds.
    pub fn at(dir: PathBuf) -> Self {
        Self {
            dir,
            instance_bytes: Self::INSTANCE_BYTES,
            function_bytes: Self::FUNCTION_BYTES,
            total_bytes: Self::TOTAL_BYTES,
            keep: Duration::from_secs(7 * 24 * 3_600),
        }
    }
}

/// The logs of a node. Cheap to clone; the writer ends with the last clone.
#[derive(Clone)]
pub struct Logs {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    queue: mpsc::SyncSender<Order>,
    /// Bytes in the queue.
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    /// Changes when something was written.
    written: watch::Receiver<u64>,
    readers: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

/// What the writer is to do.
enum Order {
    Lines { log: Arc<Name>, ms: i64, lines: Vec<Printed>, cost: usize },
    Closed(Arc<Name>),
    Flushed(oneshot::Sender<()>),
}

/// Whose log it is.
struct Name {
    stem: String,
    instance: String,
    folder: PathBuf,
    /// The number of the last line that was printed.
    printed: AtomicU64,
    /// Nothing more comes.
    closed: AtomicBool,
}

impl Logs {
    /// Finds what is there and starts the writer.
    ///
    /// # Errors
    /// When the folder cannot be made or read, or the thread not started.
    pub fn open(settings: LogSettings) -> io::Result<Self> {
        files::make_folder(&settings.dir)?;
        let (queue, orders) = mpsc::sync_channel(WAITING);
        let (waiting, lost) = (Arc::<AtomicUsize>::default(), Arc::<AtomicU64>::default());
        let (changes, written) = watch::channel(0);
        let dir = settings.dir.clone();
        let writer = writer::Writer::new(settings, Arc::clone(&waiting), Arc::clone(&lost), changes);
        std::thread::Builder::new().name("quell-logs".to_owned()).spawn(move || writer.run(&orders))?;
        let readers = Arc::new(Semaphore::new(READERS));
        let followers = Arc::new(Semaphore::new(FOLLOWERS));
        Ok(Self { shared: Arc::new(Shared { dir, queue, waiting, lost, written, readers, followers }) })
    }

    /// Lines that were printed and are not in a log.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// The log of a new instance.
    pub(crate) fn of(&self, instance: InstanceId, function: &FunctionKey) -> InstanceLog {
        let instance = instance.to_string();
        let name = Name {
            stem: files::stem(now_ms(), &instance),
            instance,
            folder: files::folder(&self.shared.dir, function),
            printed: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        };
        InstanceLog { logs: self.clone(), name: Arc::new(name) }
    }

    /// Resolves when what was printed until now is on the disk, or lost; or after a while. Cancellation-safe.
    pub async fn flush(&self) {
        let flushed = async {
            let (tell, told) = oneshot::channel();
            let mut order = Order::Flushed(tell);
            // Not by a blocking send: on a disk that hangs it would keep the node from its end.
            while let Err(mpsc::TrySendError::Full(back)) = self.shared.queue.try_send(order) {
                order = back;
                tokio::time::sleep(FLUSH_AGAIN).await;
            }
            told.await.ok(); // the writer has ended: nothing more will be written
        };
        if tokio::time::timeout(FLUSH_LIMIT, flushed).await.is_err() {
            tracing::debug!("the disk of the logs is slow; what is there is shown");
        }
    }
}

/// The log of one instance. Closed when it is dropped.
pub(crate) struct InstanceLog {
    logs: Logs,
    name: Arc<Name>,
}

impl InstanceLog {
    /// The name of its files.
    pub(crate) fn stem(&self) -> &str {
        &self.name.stem
    }

    /// Hands lines to the writer, or drops them if it has enough to do. Never waits.
    pub(crate) fn put(&self, lines: Vec<Printed>) {
        let Some(last) = lines.last() else { return };
        self.name.printed.store(last.n, Ordering::Relaxed);
        let shared = &self.logs.shared;
        let count = lines.len();
        let cost = lines.iter().map(|line| line.text.len() + LINE_COST).sum();
        let order = Order::Lines { log: Arc::clone(&self.name), ms: now_ms(), lines, cost };
        let before = shared.waiting.fetch_add(cost, Ordering::Relaxed);
        if before > WAITING_BYTES || shared.queue.try_send(order).is_err() {
            shared.waiting.fetch_sub(cost, Ordering::Relaxed);
            let lost = shared.lost.fetch_add(count as u64, Ordering::Relaxed);
            if lost == 0 {
                tracing::warn!(
                    "functions print more than the disk of the logs takes; lines are lost, see GET /quell/v1/node"
                );
            }
        }
    }
}

impl Drop for InstanceLog {
    fn drop(&mut self) {
        self.name.closed.store(true, Ordering::Release);
        // Full: the writer finds it closed when it next looks.
        drop(self.logs.shared.queue.try_send(Order::Closed(Arc::clone(&self.name))));
    }
}
