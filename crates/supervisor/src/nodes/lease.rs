//! The node's lease: renewed by a task that nothing else can hold up, and given to every runtime's helper as the
//! moment until which it may go on. `cluster::Membership` decides; this carries it out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cluster::{Act, Ask, Failure, Membership, Timing, Why};
use store::{Beat, Joining, NodeLabels, NodeState, StoreError};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Nodes, failing::Failing};
use crate::group::LeaseClock;

/// How often rows are looked at that a notification would have told of: as often as a node renews by default.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Renewals whose findings wait to be worked through. A later one has all that an earlier one found.
const BEATS: usize = 4;
/// Nodes with another lease that are named.
const NAMED: usize = 10;
/// Where nothing is due: looked at once more, for no reason but that a task should not sleep for ever.
const LONGEST_REST: Duration = Duration::from_secs(3_600);

/// How a node joins the others.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Of its lease.
    pub timing: Timing,
    /// Where others, and operators, reach its API.
    pub endpoint: String,
    /// The program's version.
    pub version: String,
    /// What functions may ask of their nodes, and this one has.
    pub labels: NodeLabels,
}

/// Why a node lost its lease.
pub type Lost = Why;

/// A lease that is being renewed.
pub struct Lease {
    /// Resolves when the lease is lost: everything is to be killed at once. Closed: it ended in order.
    pub lost: oneshot::Receiver<Lost>,
    pub(super) beats: mpsc::Receiver<Beat>,
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Lease {
    /// Stops renewing, after everything that ran under it is proven ended.
    pub async fn end(self) {
        self.end.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that renews the lease ended badly");
        }
    }

    /// What the renewals find, for whoever works it through; once.
    pub(super) fn take_beats(&mut self) -> mpsc::Receiver<Beat> {
        std::mem::replace(&mut self.beats, mpsc::channel(1).1)
    }
}

impl Nodes {
    /// Begins a life among the nodes: only once what an older life of this node left running is proven ended.
    ///
    /// # Errors
    /// When the store does not take it up, or took longer than a lease gives.
    pub async fn join(
        self: &Arc<Self>,
        settings: LeaseSettings,
        clock: LeaseClock,
    ) -> Result<Lease, StoreError> {
        let LeaseSettings { timing, endpoint, version, labels } = settings;
        let mut membership = Membership::new(timing, now());
        let Some(Act::Join(ask)) = membership.next(now()) else {
            return Err(StoreError::Closed); // cannot be: a new member's first act is to join
        };
        let lease_ms = u32::try_from(timing.lease.as_millis()).unwrap_or(u32::MAX);
        self.compare_leases(lease_ms).await;
        let epoch = self.shared.join(Joining { endpoint, version, lease_ms, labels }).await?;
        if !membership.joined(now(), ask, epoch) {
            return Err(StoreError::Lapsed);
        }
        tracing::info!(node = self.shared.node(), epoch, lease = ?timing.lease, "joined the nodes of this store");
        let (lose, lost) = oneshot::channel();
        let (found, beats) = mpsc::channel(BEATS);
        let end = CancellationToken::new();
        let failing = Failing::default();
        let keeper = Keeper { nodes: Arc::clone(self), membership, clock, found, failing, end: end.clone() };
        keeper.publish(now());
        let task = tokio::spawn(async move {
            if let Some(why) = keeper.keep().await {
                lose.send(why).ok(); // whoever would hear it has ended the node already
            }
        });
        Ok(Lease { lost, beats, end, task })
    }
}

impl Nodes {
    /// Says so if other nodes have another length of their leases: each node's work is taken over after its own, whatever
    /// whoever waits for it reckons with.
    async fn compare_leases(&self, own_ms: u32) {
        let nodes = match self.shared.nodes().await {
            Ok(nodes) => nodes,
            Err(error) => return tracing::debug!(%error, "the leases of the other nodes are not known"),
        };
        let own = self.shared.node();
        let others = nodes.into_iter().filter(|node| {
            let there = matches!(node.state, NodeState::Live | NodeState::Draining);
            there && node.node != own && node.lease_ms != own_ms
        });
        for other in others.take(NAMED) {
            tracing::warn!(
                node = other.node,
                endpoint = other.endpoint,
                lease_s = f64::from(other.lease_ms) / 1_000.0,
                own_lease_s = f64::from(own_ms) / 1_000.0,
                "another node has another lease_s than this one: give all nodes the same"
            );
        }
    }
}

/// A clock that cannot be read is taken for one that says that everything is over.
pub(super) fn now() -> Duration {
    LeaseClock::boottime_now().unwrap_or(Duration::MAX)
}

/// The task that renews.
struct Keeper {
    nodes: Arc<Nodes>,
    membership: Membership,
    clock: LeaseClock,
    found: mpsc::Sender<Beat>,
    failing: Failing,
    end: CancellationToken,
}

impl Keeper {
    /// Renews until the lease is lost, or the node has ended.
    async fn keep(mut self) -> Option<Lost> {
        let mut asked: JoinSet<(Ask, Result<Beat, StoreError>)> = JoinSet::new();
        loop {
            while let Some(act) = self.membership.next(now()) {
                match act {
                    Act::Renew(ask) => {
                        let renewed = self.nodes.shared.renew();
                        asked.spawn(async move { (ask, renewed.await) });
                    }
                    Act::StopEverything(why) => {
                        self.nodes.lapsed.store(true, Ordering::Relaxed);
                        self.publish(now());
                        return Some(why);
                    }
                    // Not in this life: the next one is another process image.
                    Act::Join(_) => {}
                }
            }
            let at = now();
            self.publish(at);
            let rest = self.membership.deadline().map_or(LONGEST_REST, |due| due.saturating_sub(at));
            tokio::select! {
                Some(done) = asked.join_next() => match done {
                    Ok((ask, told)) => self.told(ask, told),
                    Err(error) => tracing::error!(%error, "a renewal ended badly"),
                },
                () = sleep_until(Instant::now() + rest) => {}
                () = self.nodes.hurry.notified() => self.membership.hurry(),
                () = self.end.cancelled() => return None,
            }
        }
    }

    fn told(&mut self, ask: Ask, told: Result<Beat, StoreError>) {
        let at = now();
        match told {
            Ok(beat) => {
                if let Some(failed) = self.failing.over() {
                    tracing::info!(failed, "the lease is renewed again");
                }
                self.membership.renewed(at, ask);
                // Full: whoever works through them is behind, and the next one has all that this one has.
                drop(self.found.try_send(beat));
            }
            Err(StoreError::Lapsed) => self.membership.renewal_failed(at, ask, Failure::Lapsed),
            Err(error) => {
                if let Some(failed) = self.failing.again(at) {
                    tracing::warn!(failed, %error, "the lease could not be renewed");
                }
                self.membership.renewal_failed(at, ask, Failure::Unreachable);
            }
        }
    }

    /// Tells the helpers until when what they watch over may run, and the API whether new requests are taken.
    fn publish(&self, now: Duration) {
        // A lease that is lost before its end: what it was given may not be taken back, so the node itself kills.
        if let Some(until) = self.membership.run_until() {
            self.clock.run_until(until);
        }
        self.nodes.metrics.may_run_until(self.membership.run_until().unwrap_or_default());
        self.nodes.accepts.store(self.membership.accepts_new(now), Ordering::Relaxed);
    }
}
