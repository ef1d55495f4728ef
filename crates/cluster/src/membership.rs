//! A node's lease, as the node sees it: when to renew, what it may do meanwhile, when to stop everything.

use std::time::Duration;

use crate::Timing;

/// One ask to the database, to join or to renew. It is made before the ask is sent and handed back with the answer:
/// so an answer that comes late or out of order extends nothing beyond what its own ask gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    number: u64,
    sent: Duration,
}

impl Ask {
    /// The node's time before this was sent.
    pub fn sent(self) -> Duration {
        self.sent
    }
}

/// What the node's task is to do. Each is said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Begin a life in the database. After [`Membership::joined`], and before anything is started, read what this node
    /// owns and its open parts.
    Join(Ask),
    /// Renew the lease. Older renewals may still be under way; whoever drops one may, and says
    /// [`Failure::Unreachable`].
    Renew(Ask),
    /// Kill everything that this node runs, prove it, and only then say [`Membership::stopped`].
    StopEverything(Why),
}

/// Why everything is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It could not renew in time.
    #[error("it could not be renewed in time")]
    Margin,
    /// The database says that another took this node's work, or that a newer life of it began.
    #[error("the database says so: another node took over, or a newer life of this one began")]
    Lapsed,
}

/// How an ask failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Refused: this life is over.
    Lapsed,
    /// No answer; whether it took effect is not known.
    Unreachable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not in the database; nothing runs. The next try is due at this time.
    Out { due: Duration },
    /// Asked to join.
    Joining { ask: Ask },
    /// A member with this epoch.
    In { epoch: i64 },
    /// Everything is being killed.
    Stopping { why: Why, said: bool },
    /// Ended in order.
    Left,
}

/// A node's lease. Drive it so: whenever something happened, and at [`Membership::deadline`], call
/// [`Membership::next`] until it gives nothing more.
#[derive(Clone, Debug)]
pub struct Membership {
    timing: Timing,
    phase: Phase,
    draining: bool,
    asks: u64,
    /// The number of the join that this life began with: answers to older asks are of another life.
    life: u64,
    /// When the newest ask of this life that was confirmed was sent.
    confirmed: Duration,
    /// When the newest renewal was sent.
    sent: Duration,
    /// When the newest renewal that failed was sent, and when it failed.
    failed: Option<(Duration, Duration)>,
    /// A renewal is due whatever the pace says.
    hurry: bool,
}

impl Membership {
    /// A node that wants to join at once. Only once what an older life of it left running is proven ended.
    /// `timing` should have been [`Timing::checked`].
    pub fn new(timing: Timing, now: Duration) -> Self {
        Self {
            timing,
            phase: Phase::Out { due: now },
            draining: false,
            asks: 0,
            life: 0,
            confirmed: now,
            sent: now,
            failed: None,
            hurry: false,
        }
    }

    /// What is to be done now, one at a time; the ask in it counts as sent from `now` on, so send it after.
    pub fn next(&mut self, now: Duration) -> Option<Act> {
        self.look_at_the_clock(now);
        match self.phase {
            Phase::Out { due } if due <= now && !self.draining => {
                let ask = self.ask(now);
                self.phase = Phase::Joining { ask };
                Some(Act::Join(ask))
            }
            Phase::In { .. } if self.renewal_due() <= now => {
                self.hurry = false;
                self.sent = now;
                Some(Act::Renew(self.ask(now)))
            }
            Phase::Stopping { why, said: false } => {
                self.phase = Phase::Stopping { why, said: true };
                Some(Act::StopEverything(why))
            }
            _ => None,
        }
    }

    /// When [`Membership::next`] is to be called again if nothing happens before; `None`: only when something does.
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Out { due } => (!self.draining).then_some(due),
            Phase::In { .. } => Some(self.renewal_due().min(self.end())),
            Phase::Stopping { said: false, .. } => Some(Duration::ZERO),
            Phase::Joining { .. } | Phase::Stopping { .. } | Phase::Left => None,
        }
    }

    /// The database took this life up, with this epoch. False: the answer came too late to be of use, and the node
    /// is no member (it joins again).
    pub fn joined(&mut self, now: Duration, ask: Ask, epoch: i64) -> bool {
        if self.phase != (Phase::Joining { ask }) {
            return false;
        }
        if now >= ask.sent + self.timing.run_for() {
            self.phase = Phase::Out { due: now };
            return false;
        }
        self.phase = Phase::In { epoch };
        self.life = ask.number;
        self.confirmed = ask.sent;
        self.sent = ask.sent;
        self.failed = None;
        self.hurry = false;
        true
    }

    /// The join failed, or nobody waits for its answer any longer: there is another after a heartbeat.
    pub fn join_failed(&mut self, now: Duration, ask: Ask) {
        if self.phase == (Phase::Joining { ask }) {
            self.phase = Phase::Out { due: now + self.timing.heartbeat };
        }
    }

    /// This renewal took effect. Whatever order answers come in, they never shorten what an earlier one gave.
    /// One that comes when everything should have been stopped already does not take that back.
    pub fn renewed(&mut self, now: Duration, ask: Ask) {
        self.look_at_the_clock(now);
        if matches!(self.phase, Phase::In { .. }) && ask.number > self.life {
            self.confirmed = self.confirmed.max(ask.sent);
        }
    }

    /// This renewal failed.
    pub fn renewal_failed(&mut self, now: Duration, ask: Ask, failure: Failure) {
        self.look_at_the_clock(now);
        if !matches!(self.phase, Phase::In { .. }) || ask.number <= self.life {
            return;
        }
        match failure {
            Failure::Lapsed => self.stop(Why::Lapsed),
            Failure::Unreachable if self.failed.is_none_or(|(sent, _)| sent <= ask.sent) => {
                self.failed = Some((ask.sent, now));
            }
            Failure::Unreachable => {}
        }
    }

    /// Another write of this node was refused as [`Failure::Lapsed`]. `epoch` is the one it was sent under: what
    /// an older life is told says nothing about this one.
    pub fn lapsed(&mut self, epoch: i64) {
        if self.phase == (Phase::In { epoch }) {
            self.stop(Why::Lapsed);
        }
    }

    /// Everything this node ran is proven ended, after [`Act::StopEverything`]: it may join again.
    pub fn stopped(&mut self, now: Duration) {
        // What was not asked for yet is not proven: that was another stop.
        if matches!(self.phase, Phase::Stopping { said: true, .. }) {
            self.phase = Phase::Out { due: now };
        }
    }

    /// Renew at once: a connection came back, or there is news that the renewal would tell of.
    pub fn hurry(&mut self) {
        self.hurry = true;
    }

    /// Nothing new from now on. It goes on renewing for what still runs; if that ends by force it does not join again.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The node ended in order, everything proven ended: nothing more is to be done.
    pub fn left(&mut self) {
        self.phase = Phase::Left;
    }

    /// Whether nothing is to be done here ever again: it left, or it drains, is no member and runs nothing. What it may
    /// still own in the database is taken away when its lease is over.
    pub fn over(&self) -> bool {
        match self.phase {
            Phase::Left => true,
            Phase::Out { .. } => self.draining,
            Phase::Joining { .. } | Phase::In { .. } | Phase::Stopping { .. } => false,
        }
    }

    /// The epoch of this life, while it is a member and may run things.
    pub fn epoch(&self) -> Option<i64> {
        match self.phase {
            Phase::In { epoch } => Some(epoch),
            _ => None,
        }
    }

    /// Until when what this node started may run, by its clock: every dead man's switch gets this, each time it
    /// rises. `None`: nothing may run.
    pub fn run_until(&self) -> Option<Duration> {
        matches!(self.phase, Phase::In { .. }).then(|| self.end())
    }

    /// Whether an attempt of what this node owns may start now.
    pub fn may_start(&self, now: Duration) -> bool {
        self.run_until().is_some_and(|until| now < until)
    }

    /// Whether the node takes new requests; if not it answers 503. It does not while it drains, nor while its newest
    /// renewal failed or is late, which is well before it has to stop.
    pub fn accepts_new(&self, now: Duration) -> bool {
        let failed = self.failed.is_some_and(|(sent, _)| sent > self.confirmed);
        let late = now >= self.confirmed + self.timing.late_after();
        !self.draining && !failed && !late && self.may_start(now)
    }

    /// Whether the node may claim from the shared queue: whenever it takes new requests.
    pub fn may_claim(&self, now: Duration) -> bool {
        self.accepts_new(now)
    }

    fn ask(&mut self, now: Duration) -> Ask {
        self.asks += 1;
        Ask { number: self.asks, sent: now }
    }

    fn end(&self) -> Duration {
        self.confirmed + self.timing.run_for()
    }

    fn renewal_due(&self) -> Duration {
        if self.hurry {
            return Duration::ZERO;
        }
        let paced = self.sent + self.timing.heartbeat;
        match self.failed {
            // Only the failure of the newest renewal brings the next one forward: an old one says nothing new.
            Some((sent, at)) if sent == self.sent && sent > self.confirmed => {
                paced.min(at + self.timing.heartbeat / crate::RETRY_DIVISOR)
            }
            _ => paced,
        }
    }

    /// The clock may have jumped, as after a pause: the switches have struck by now, and so nothing goes on.
    fn look_at_the_clock(&mut self, now: Duration) {
        if self.run_until().is_some_and(|until| now >= until) {
            self.stop(Why::Margin);
        }
    }

    fn stop(&mut self, why: Why) {
        self.phase = Phase::Stopping { why, said: false };
    }
}
