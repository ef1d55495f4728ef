//! Spawning: one dedicated thread that lives as long as the spawner, because PDEATHSIG is tied to the
//! thread that made the child, and because a spawn may block on a slow disk.

use std::{
    ffi::OsString,
    io,
    net::SocketAddrV4,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cancel::InstanceId;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Signal, pidfd_send_signal},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    containment::{Containment, GroupError},
    controllers::Means,
    forking::Forked,
    init::HelperMode,
    leaf::Leaf,
    lease::LeaseClock,
    limits::{HELPERS, Limited, Limits},
    running::Group,
    start::{Helper, Joins, start_helper},
};

/// Orders that may wait for the thread; each is a fraction of a millisecond of work.
const ORDERS: usize = 1_024;
/// A spawn that has not returned after this (a program on a dead network disk) is given up; if it
/// returns after all, what it made is ended.
const SPAWN_LIMIT: Duration = Duration::from_secs(10);

/// An unused helper that lives after this is given up; the next life's sweep ends it.
const UNUSED_LIMIT: Duration = Duration::from_secs(2);
/// Tries to remove the leaf of a failed start, and the pause between two: half a second.
const REMOVALS: u32 = 500;
const REMOVAL_PAUSE: Duration = Duration::from_millis(1);
/// The program that becomes a runtime: this binary under a hidden argument.
#[derive(Clone, Debug)]
pub struct HelperProgram {
    /// The program.
    pub program: PathBuf,
    /// Arguments before the helper's own.
    pub args: Vec<OsString>,
    /// As which user and group runtimes run; `None`: as the node. Only root can choose.
    pub user: Option<u32>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct SpawnOrder {
    /// For which instance; names its leaf.
    pub instance: InstanceId,
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Folders it must see where they are, besides that one, although its `/tmp` may be its own.
    pub keep: Vec<PathBuf>,
    /// What it may take.
    pub limits: Limits,
    /// Where the node is reached in a network of its own, at loopback addresses; nowhere: it has the node's
    /// network.
    pub listen: Vec<SocketAddrV4>,
}

impl SpawnOrder {
    /// A program that ends at once, to see what works here.
    pub(super) fn probe() -> Self {
        Self {
            instance: InstanceId(0),
            program: OsString::from("true"),
            args: Vec::new(),
            env: std::env::var_os("PATH").map(|path| ("PATH".into(), path)).into_iter().collect(),
            cwd: PathBuf::from("/"),
            keep: Vec::new(),
            limits: Limits::default(),
            listen: Vec::new(),
        }
    }
}

/// Why nothing was spawned. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The leaf could not be made.
    #[error("cannot make the cgroup leaf {path}: {error}")]
    Leaf {
        /// Which.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// What it may take could not be limited.
    #[error("cannot limit what it may take: {0}")]
    Limits(io::Error),
    /// The process could not be made.
    #[error("cannot spawn: {0}")]
    Spawn(#[from] io::Error),
    /// It took too long.
    #[error("spawning took longer than {} s", SPAWN_LIMIT.as_secs())]
    TimedOut,
    /// The spawner has ended.
    #[error("the spawner has ended")]
    Ended,
}

/// The spawner thread's front. The thread lives until the spawner and every group it made are gone:
/// the main processes die with it (PDEATHSIG).
pub struct Spawner {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) helper: Arc<HelperProgram>,
    pub(super) containment: Arc<Containment>,
    pub(super) lease: Option<LeaseClock>,
}

/// An order, and who waits for what it makes.
pub(super) enum Order {
    Spawn {
        order: Box<SpawnOrder>,
        answer: oneshot::Sender<Result<Unclaimed, SpawnError>>,
    },
    /// To remove what is left of an instance that is proven gone: it limits nothing any more, and what proves
    /// the next end must not wait for that.
    Forget(Leftovers),
}

/// What an instance that is proven gone leaves behind.
#[derive(Debug)]
pub(super) struct Leftovers {
    /// The groups that limited it; nothing is in them.
    pub(super) limited: Limited,
    /// The mounts it had for itself; closing them unmounts them, which takes the kernel a while.
    pub(super) mounts: Option<OwnedFd>,
}

impl Spawner {
    /// Starts the thread. With a lease, whatever is made ends by itself once that is over: its helper sees to
    /// it, so there is one that stays (a subreaper at least) also where the containment has none. Without,
    /// nothing is other than it was.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn start(
        helper: HelperProgram,
        containment: Arc<Containment>,
        lease: Option<LeaseClock>,
    ) -> Result<Self, GroupError> {
        let (orders, mut inbox) = mpsc::channel::<Order>(ORDERS);
        let known = Arc::clone(&containment);
        let helper = Arc::new(helper);
        let program = Arc::clone(&helper);
        let limit = lease.clone();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                while let Some(order) = inbox.blocking_recv() {
                    match order {
                        Order::Forget(Leftovers { limited, mounts }) => {
                            drop(mounts);
                            limited.remove();
                        }
                        Order::Spawn { answer, .. } if answer.is_closed() => {}
                        // Ends what it made if nobody waits for it any more.
                        Order::Spawn { order, answer } => {
                            drop(answer.send(make(&helper, &containment, limit.clone(), *order)));
                        }
                    }
                }
            })
            .map_err(GroupError::Thread)?;
        Ok(Self { orders, helper: program, containment: known, lease })
    }

    /// What contains what it makes.
    pub fn containment(&self) -> &Containment {
        &self.containment
    }

    /// Makes a process that waits for [`Group::go`] inside its leaf. Dropping the future ends what it
    /// may have made, now or later.
    ///
    /// # Errors
    /// See [`SpawnError`]; nothing is left of a failed spawn.
    pub async fn spawn(&self, order: SpawnOrder) -> Result<Group, SpawnError> {
        let instance = order.instance;
        let (answer, made) = oneshot::channel();
        let spawned = async {
            let order = Order::Spawn { order: Box::new(order), answer };
            self.orders.send(order).await.map_err(|_| SpawnError::Ended)?;
            made.await.map_err(|_| SpawnError::Ended)?
        };
        let made = tokio::time::timeout(SPAWN_LIMIT, spawned).await.map_err(|_| SpawnError::TimedOut)??;
        Group::of(instance, made, self.orders.clone())
    }
}

/// A child as the thread made it. Ended when dropped: whoever waited for it may have gone at any time.
pub(super) struct Unclaimed(Option<Made>);

/// The main process of an instance.
pub(super) enum Main {
    /// A helper, the node's own child.
    Helper(Helper),
    /// Forked from a template.
    Forked(Forked),
}

/// A child that somebody answers for.
pub(super) struct Made {
    pub(super) main: Main,
    pub(super) leaf: Option<Leaf>,
    pub(super) limited: Limited,
}

impl Unclaimed {
    pub(super) fn of(made: Made) -> Self {
        Self(Some(made))
    }

    pub(super) fn claim(mut self) -> Option<Made> {
        self.0.take()
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        if let Some(made) = self.0.take() {
            end_unused(made);
        }
    }
}

fn make(
    helper: &HelperProgram,
    containment: &Containment,
    lease: Option<LeaseClock>,
    order: SpawnOrder,
) -> Result<Unclaimed, SpawnError> {
    let (leaf, limited) = make_room(containment, order.instance, &order.limits)?;
    let groups = leaf.as_ref().map(Leaf::path).into_iter().chain(limited.joined());
    let groups = groups.map(Path::to_path_buf).collect();
    let Limits { memory, processes, .. } = order.limits;
    let controllers = containment.controllers();
    // A process may map more than it ever touches: only what is far beyond is a mistake.
    let mapped =
        memory.filter(|_| controllers.memory == Means::PerProcess).map(|bytes| bytes.saturating_mul(2));
    let processes = processes.filter(|_| controllers.processes == Means::PerProcess);
    let processes = processes.map(|count| u64::from(count.saturating_add(HELPERS)));
    let mode = match (containment.mode(), &lease) {
        // Somebody has to be there who ends it, and needs no privilege for that.
        (HelperMode::Exec, Some(_)) => HelperMode::Reaper,
        (mode, _) => mode,
    };
    match start_helper(helper, Joins { groups, mapped, processes, lease }, mode, order) {
        Ok(helper) => Ok(Unclaimed::of(Made { main: Main::Helper(helper), leaf, limited })),
        Err(error) => {
            forget_unused(leaf.as_ref(), &limited);
            Err(error.into())
        }
    }
}

/// The leaf of an instance, where there are leaves, and the groups that limit it.
pub(super) fn make_room(
    containment: &Containment,
    instance: InstanceId,
    limits: &Limits,
) -> Result<(Option<Leaf>, Limited), SpawnError> {
    let leaf = match containment.leaf_path(instance) {
        None => None,
        Some(path) => Some(Leaf::make(path.clone()).map_err(|error| {
            let path = path.display().to_string();
            SpawnError::Leaf { path, error }
        })?),
    };
    match Limited::make(containment.controllers(), &instance.to_string(), leaf.as_ref(), limits) {
        Ok(limited) => Ok((leaf, limited)),
        Err(error) => {
            forget_unused(leaf.as_ref(), &Limited::default());
            Err(SpawnError::Limits(error))
        }
    }
}

pub(super) fn forget_unused(leaf: Option<&Leaf>, limited: &Limited) {
    if let Some(Err(error)) = leaf.map(remove_unused) {
        tracing::warn!(%error, "a leaf that was never used is left behind");
    }
    limited.remove();
}

/// Ends a helper that was never let go: nothing of a runtime was executed, so it is alone. Waits for
/// it, which takes a fraction of a millisecond.
pub(super) fn end_unused(made: Made) {
    let Made { main, leaf, limited } = made;
    let Helper { mut child, init, .. } = match main {
        Main::Helper(helper) => helper,
        Main::Forked(forked) => {
            forked.end_unused(leaf.as_ref());
            return forget_unused(leaf.as_ref(), &limited);
        }
    };
    let ended = child.kill().and_then(|()| child.wait());
    if let Some((_, init)) = init {
        match pidfd_send_signal(&init, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => await_end(&init),
            Err(error) => tracing::error!(%error, "PID 1 of an unused namespace could not be killed"),
        }
    }
    if let Err(error) = ended {
        tracing::error!(%error, "a spawn that nobody waits for could not be ended cleanly");
    }
    forget_unused(leaf.as_ref(), &limited);
}

pub(super) fn await_end(pidfd: &OwnedFd) {
    let limit = Timespec { tv_sec: UNUSED_LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    match poll(&mut fds, Some(&limit)) {
        Ok(ended) if ended > 0 => {}
        outcome => tracing::error!(?outcome, "an unused helper has not ended"),
    }
}

/// Removes a leaf in which only helpers were. One that was killed without being pinned may be on its
/// way out still, and no event tells when it is.
#[expect(
    clippy::disallowed_methods,
    reason = "bounded, on a thread of its own, and only after a failed start"
)]
fn remove_unused(leaf: &Leaf) -> io::Result<()> {
    leaf.kill()?;
    for _ in 0..REMOVALS {
        match leaf.remove() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(REMOVAL_PAUSE),
            removed => return removed,
        }
    }
    leaf.remove()
}
