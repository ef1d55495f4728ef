//! One node: its lease is the real `cluster::Membership`, the rest of it a simple model of its engine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::{Act, Ask, Asked, Failure, Membership, Outcome, PartNews, PartState, Timing, Waiting};

use crate::database::{Cancel, Fence, Handed, Hint, Id, NodeId, Part, Said, Scope, Status, Want};
use crate::fault::Fault;

/// How many attempts a node runs at once, and how many requests it takes on.
const RUNS: usize = 4;
const HOLDS: usize = 8;

/// What happens to a node's daemon.
#[derive(Clone, Debug)]
pub(crate) enum In {
    Tick,
    Said(u64, Said),
    Lost(u64),
    Hint(Hint),
    /// The attempt of this request ended by itself, or is proven dead.
    RunOver {
        id: Id,
        killed: bool,
    },
    GraceOver(Id),
    /// A new request: of a client, or of a request that runs here.
    Invoked {
        id: Id,
        parent: Option<Id>,
        sync: bool,
        anywhere: bool,
    },
    Cancel {
        cancel: Cancel,
        target: Id,
        scope: Scope,
        kill: bool,
    },
    /// Nothing that this node started is alive.
    AllEnded,
    Drain,
}

/// What a node's daemon does to the world.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    Send {
        number: u64,
        epoch: i64,
        want: Want,
    },
    Start(Id),
    Kill(Id),
    Grace(Id),
    /// Until when its machine's switches let its instances run.
    Until(Duration),
    KillAll,
    Accepted(Id),
    Answer(Cancel, Reply),
}

/// What whoever asked for a cancel is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Stopped,
    Unknown,
    Finished,
    /// 503: nothing is promised.
    Unavailable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    /// Its end is told to the database until that has it.
    Settling(Status, bool),
    Releasing,
}

struct Held {
    above: Vec<Id>,
    /// `None`: a synchronous one, which the database does not know.
    version: Option<u64>,
    state: State,
    fenced: bool,
}

struct Working {
    part: Part,
    here: bool,
    reporting: bool,
}

struct Asking {
    fence: Fence,
    around: bool,
    waiting: Option<Waiting>,
}

/// What an ask is about, for when its answer comes, or does not.
#[derive(Clone, Debug)]
enum Job {
    Join(Ask),
    Renew(Ask),
    Owned,
    Claim,
    Accept { id: Id, above: Vec<Id>, anywhere: bool },
    Release(Id, u64),
    Settle(Id),
    Fence(Cancel),
    Around(Cancel),
    PartsOf(Cancel),
    Report(i64),
    TakeOver,
    Leave,
}

pub(crate) struct Node {
    id: NodeId,
    fault: Option<Fault>,
    membership: Membership,
    until: Option<Duration>,
    numbers: u64,
    jobs: BTreeMap<u64, Job>,
    /// Renewals that nobody waits for any longer; they may still be answered.
    late: BTreeMap<u64, Ask>,
    held: BTreeMap<Id, Held>,
    /// Versions that this life had and gave up: an older answer does not bring them back.
    gone: BTreeSet<(Id, u64)>,
    bans: BTreeMap<Id, Scope>,
    parts: BTreeMap<i64, Working>,
    asked: BTreeMap<Cancel, Asking>,
    /// What it owns is not what it knows of, perhaps.
    unsure: bool,
    /// A notification said that there are parts.
    hinted: bool,
    draining: bool,
    /// It asked to leave, which may have taken effect: it starts nothing more.
    leaving: bool,
    pub(crate) left: bool,
}

impl Node {
    /// A daemon that starts; nothing of an older life of it is alive. Its numbers go on where that one's ended.
    pub(crate) fn new(id: NodeId, fault: Option<Fault>, timing: Timing, now: Duration, numbers: u64) -> Self {
        Self {
            id,
            fault,
            membership: Membership::new(timing, now),
            until: None,
            numbers,
            jobs: BTreeMap::new(),
            late: BTreeMap::new(),
            held: BTreeMap::new(),
            gone: BTreeSet::new(),
            bans: BTreeMap::new(),
            parts: BTreeMap::new(),
            asked: BTreeMap::new(),
            unsure: false,
            hinted: false,
            draining: false,
            leaving: false,
            left: false,
        }
    }

    pub(crate) fn numbers(&self) -> u64 {
        self.numbers
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.membership.deadline()
    }

    /// Takes in one thing and does what follows of it.
    pub(crate) fn take(&mut self, now: Duration, what: In, out: &mut Vec<Out>) {
        if self.left {
            return;
        }
        match what {
            In::Tick => {}
            In::Said(number, said) => self.said(now, number, said, out),
            In::Lost(number) => self.lost(now, number),
            In::Hint(hint) => self.hint(now, hint, out),
            In::RunOver { id, killed } => self.run_over(id, killed, out),
            In::GraceOver(id) => self.strike(id, out),
            In::Invoked { id, parent, sync, anywhere } => {
                self.invoked(now, id, parent, (sync, anywhere), out)
            }
            In::Cancel { cancel, target, scope, kill } => self.cancel(now, cancel, target, scope, kill, out),
            In::AllEnded => self.membership.stopped(now),
            In::Drain => {
                self.draining = true;
                self.membership.drain();
            }
        }
        self.go_on(now, out);
    }

    fn go_on(&mut self, now: Duration, out: &mut Vec<Out>) {
        while let Some(act) = self.membership.next(now) {
            match act {
                Act::Join(ask) => self.send(Want::Join, Job::Join(ask), out),
                Act::Renew(ask) => self.send(Want::Renew, Job::Renew(ask), out),
                Act::StopEverything(_) => self.stop_everything(now, out),
            }
        }
        if self.until != self.membership.run_until() {
            self.until = self.membership.run_until();
            out.extend(self.until.map(Out::Until));
        }
        if self.membership.may_start(now) && !self.leaving {
            self.start(out);
        }
        self.report(out);
        self.answer(out);
        self.left |= self.membership.over();
    }

    fn send(&mut self, want: Want, job: Job, out: &mut Vec<Out>) {
        self.numbers += 1;
        let epoch = self.membership.epoch().unwrap_or(0);
        self.jobs.insert(self.numbers, job);
        out.push(Out::Send { number: self.numbers, epoch, want });
    }

    /// Whoever waits for this node is told that it can promise nothing; what it knew is read again in its next life.
    fn stop_everything(&mut self, now: Duration, out: &mut Vec<Out>) {
        for cancel in std::mem::take(&mut self.asked).into_keys() {
            out.push(Out::Answer(cancel, Reply::Unavailable));
        }
        self.jobs.clear();
        self.late.clear();
        self.held.clear();
        self.gone.clear();
        self.parts.clear();
        self.unsure = false;
        out.push(Out::KillAll);
        if self.fault == Some(Fault::RejoinBeforeProof) {
            self.membership.stopped(now);
        }
    }

    fn start(&mut self, out: &mut Vec<Out>) {
        let mut room = RUNS.saturating_sub(self.running().count());
        for (id, held) in &mut self.held {
            // A synchronous one has its caller waiting, perhaps in one of the places.
            let place = held.version.is_none() || room > 0;
            if held.state == State::Waiting && !held.fenced && place {
                room = room.saturating_sub(usize::from(held.version.is_some()));
                held.state = State::Running;
                out.push(Out::Start(*id));
            }
        }
    }

    fn running(&self) -> impl Iterator<Item = (&Id, &Held)> {
        self.held.iter().filter(|(_, held)| held.state == State::Running)
    }

    fn said(&mut self, now: Duration, number: u64, said: Said, out: &mut Vec<Out>) {
        let Some(job) = self.jobs.remove(&number) else {
            if let (Some(ask), Said::Beat { .. }) = (self.late.remove(&number), &said) {
                self.membership.renewed(now, ask);
            }
            return;
        };
        if let Said::Lapsed = said {
            match job {
                Job::Renew(ask) => self.membership.renewal_failed(now, ask, Failure::Lapsed),
                _ => self.membership.epoch().into_iter().for_each(|epoch| self.membership.lapsed(epoch)),
            }
            return;
        }
        match (job, said) {
            (Job::Join(ask), Said::Joined(epoch)) if self.membership.joined(now, ask, epoch) => {
                self.send(Want::Owned, Job::Owned, out);
            }
            (Job::Renew(ask), Said::Beat { lapsed, parts, waiting, owns }) => {
                self.membership.renewed(now, ask);
                // An ask that was given up may take effect long after: only the count tells.
                self.unsure |= owns != self.held.values().filter(|held| held.version.is_some()).count();
                self.beat(now, lapsed, parts, waiting, out);
            }
            (Job::Owned | Job::Claim, Said::Owned(handed)) => {
                handed.into_iter().for_each(|one| self.hand(one));
            }
            (Job::Accept { id, above, anywhere }, Said::Accepted(version)) => {
                out.push(Out::Accepted(id));
                if !anywhere {
                    self.hand(Handed { id, version, above, fenced: false });
                }
            }
            (Job::Release(id, version), said) => self.released(id, version, matches!(said, Said::Done)),
            (Job::Settle(id), _) => self.forget(id),
            (Job::Fence(cancel) | Job::Around(cancel) | Job::PartsOf(cancel), said) => {
                self.asked_said(cancel, said, out);
            }
            (Job::Report(part), _) => {
                if let Some(working) = self.parts.remove(&part) {
                    self.reported(&working.part);
                }
            }
            (Job::Leave, _) => self.left = true,
            _ => {}
        }
    }

    /// No answer: whether it took effect is not known.
    fn lost(&mut self, now: Duration, number: u64) {
        match self.jobs.remove(&number) {
            Some(Job::Join(ask)) => self.membership.join_failed(now, ask),
            Some(Job::Renew(ask)) => {
                self.late.insert(number, ask);
                self.membership.renewal_failed(now, ask, Failure::Unreachable);
            }
            Some(Job::Claim | Job::Accept { .. } | Job::Owned) => self.unsure = true,
            Some(Job::Report(part)) => {
                self.parts.entry(part).and_modify(|working| working.reporting = false);
            }
            _ => {}
        }
    }

    fn doing(&self, what: impl Fn(&Job) -> bool) -> bool {
        self.jobs.values().any(what)
    }

    /// A heartbeat: everything that a notification or an answer may have missed is looked at again.
    fn beat(
        &mut self,
        now: Duration,
        lapsed: Vec<NodeId>,
        parts: Vec<Part>,
        waiting: bool,
        out: &mut Vec<Out>,
    ) {
        for node in lapsed {
            self.send(Want::TakeOver(node), Job::TakeOver, out);
        }
        let hinted = std::mem::take(&mut self.hinted);
        if hinted || self.fault != Some(Fault::NoHeartbeatReread) {
            parts.into_iter().for_each(|part| self.hear(part, out));
            self.ask_again(out);
        }
        if self.unsure
            && self.fault != Some(Fault::NoReadOfOwned)
            && !self.doing(|job| matches!(job, Job::Owned))
        {
            self.unsure = false;
            self.send(Want::Owned, Job::Owned, out);
        }
        self.tell_again(out);
        if waiting {
            self.claim(now, out);
        }
        let busy = |held: &Held| matches!(held.state, State::Running | State::Settling(..));
        self.leaving |= self.draining && !self.held.values().any(busy);
        if self.leaving && !self.doing(|job| matches!(job, Job::Leave)) {
            self.send(Want::Leave, Job::Leave, out);
        }
    }

    fn ask_again(&mut self, out: &mut Vec<Out>) {
        let mut wants = Vec::new();
        for (cancel, asking) in &self.asked {
            let about =
                |job: &Job| matches!(job, Job::Fence(c) | Job::Around(c) | Job::PartsOf(c) if c == cancel);
            if !self.doing(about) {
                wants.push(match asking.waiting {
                    Some(_) => (Want::PartsOf(*cancel), Job::PartsOf(*cancel)),
                    None => (Want::Fence(asking.fence.clone()), Job::Fence(*cancel)),
                });
            }
        }
        wants.into_iter().for_each(|(want, job)| self.send(want, job, out));
    }

    fn tell_again(&mut self, out: &mut Vec<Out>) {
        let mut wants = Vec::new();
        for (id, held) in &self.held {
            let about = |job: &Job| matches!(job, Job::Settle(one) | Job::Release(one, _) if one == id);
            let Some(version) = held.version else { continue };
            match held.state {
                State::Settling(status, tail) if !self.doing(about) => {
                    wants.push((Want::Settle { id: *id, version, status, tail }, Job::Settle(*id)));
                }
                State::Releasing if !self.doing(about) => {
                    wants.push((Want::Release(*id, version), Job::Release(*id, version)));
                }
                _ => {}
            }
        }
        wants.into_iter().for_each(|(want, job)| self.send(want, job, out));
    }

    fn hint(&mut self, now: Duration, hint: Hint, out: &mut Vec<Out>) {
        match hint {
            Hint::Parts(_) => {
                self.hinted = true;
                self.membership.hurry();
            }
            Hint::Reported(cancel) => {
                let waits = self.asked.get(&cancel).is_some_and(|asking| asking.waiting.is_some());
                // One look at a time; what comes after it is seen at the next heartbeat.
                if waits && !self.doing(|job| matches!(job, Job::PartsOf(one) if *one == cancel)) {
                    self.send(Want::PartsOf(cancel), Job::PartsOf(cancel), out);
                }
            }
            Hint::Queue => self.claim(now, out),
        }
    }

    fn claim(&mut self, now: Duration, out: &mut Vec<Out>) {
        let room = HOLDS.saturating_sub(self.held.len());
        if room > 0 && self.membership.may_claim(now) && !self.doing(|job| matches!(job, Job::Claim)) {
            self.send(Want::Claim(room.min(3)), Job::Claim, out);
        }
    }

    /// A request that this node owns comes into its hands.
    fn hand(&mut self, handed: Handed) {
        let Handed { id, version, above, fenced } = handed;
        // One that was given back may have been claimed again before that is answered: the newer version counts.
        let known = self.held.get(&id).is_some_and(|held| held.version.is_none_or(|ours| ours >= version));
        if known || self.gone.contains(&(id, version)) {
            return;
        }
        let fenced = fenced || self.under_a_ban(id, &above);
        let state = if fenced { State::Settling(Status::Canceled, false) } else { State::Waiting };
        self.held.insert(id, Held { above, version: Some(version), state, fenced });
    }

    fn under_a_ban(&self, id: Id, above: &[Id]) -> bool {
        self.bans.contains_key(&id) || above.iter().any(|up| self.bans.get(up) == Some(&Scope::Subtree))
    }

    fn forget(&mut self, id: Id) {
        if let Some(Held { version: Some(version), .. }) = self.held.remove(&id) {
            self.gone.insert((id, version));
        }
    }

    /// The store settled what was reported.
    fn reported(&mut self, part: &Part) {
        let over = |held: &Held| held.fenced && held.state != State::Running;
        if !part.around && self.held.get(&part.request).is_some_and(over) {
            self.forget(part.request);
        }
    }

    fn released(&mut self, id: Id, version: u64, went: bool) {
        self.gone.insert((id, version));
        if self.held.get(&id).is_none_or(|held| held.version != Some(version)) {
            return;
        }
        if went {
            self.forget(id);
        } else if let Some(held) = self.held.get_mut(&id) {
            held.state = if held.fenced { State::Settling(Status::Canceled, false) } else { State::Waiting };
        }
    }

    fn run_over(&mut self, id: Id, killed: bool, out: &mut Vec<Out>) {
        let tail = self.has_tail(id);
        let Some(held) = self.held.get_mut(&id) else { return };
        match (held.version, held.fenced, killed) {
            (None, ..) => {
                self.held.remove(&id);
            }
            // The switch struck: the attempt is lost, the request is not.
            (Some(_), false, true) => held.state = State::Waiting,
            (Some(_), fenced, _) => {
                let status = if fenced { Status::Canceled } else { Status::Succeeded };
                held.state = State::Settling(status, tail);
                self.tell_again(out);
            }
        }
    }

    /// Whether synchronous requests below it run here, of which the store does not know.
    fn has_tail(&self, id: Id) -> bool {
        self.running().any(|(_, held)| held.version.is_none() && held.above.contains(&id))
    }

    fn strike(&mut self, id: Id, out: &mut Vec<Out>) {
        if self.held.get(&id).is_some_and(|held| held.state == State::Running) {
            out.push(Out::Kill(id));
        }
    }

    fn invoked(
        &mut self,
        now: Duration,
        id: Id,
        parent: Option<Id>,
        (sync, anywhere): (bool, bool),
        out: &mut Vec<Out>,
    ) {
        let mut above = Vec::new();
        if let Some(parent) = parent {
            match self.held.get(&parent) {
                Some(held) if held.state == State::Running && !held.fenced => {
                    above.push(parent);
                    if held.version.is_none() {
                        above.extend(&held.above);
                    }
                }
                _ => return,
            }
        }
        if !self.membership.accepts_new(now) || (parent.is_none() && self.held.len() >= HOLDS) {
            return;
        }
        if sync {
            self.held.insert(id, Held { above, version: None, state: State::Waiting, fenced: false });
        } else {
            let want = Want::Accept { id, above: above.clone(), anywhere };
            self.send(want, Job::Accept { id, above, anywhere }, out);
        }
        // Now and then what waits here goes where there is room.
        let spare = self.held.iter().find(|(one, held)| {
            **one % 3 == 0 && held.state == State::Waiting && held.version.is_some() && !held.fenced
        });
        if let Some(spare) = spare.map(|(one, _)| *one) {
            self.held.entry(spare).and_modify(|held| held.state = State::Releasing);
            self.tell_again(out);
        }
    }

    fn cancel(
        &mut self,
        now: Duration,
        cancel: Cancel,
        target: Id,
        scope: Scope,
        kill: bool,
        out: &mut Vec<Out>,
    ) {
        if !self.membership.may_start(now) {
            out.push(Out::Answer(cancel, Reply::Unavailable));
            return;
        }
        let mine = self.held.contains_key(&target);
        if !self.in_scope(target, scope).is_empty() {
            self.fence(target, scope, kill, out);
        }
        let fence = Fence { cancel, target, scope, mine };
        self.send(Want::Fence(fence.clone()), Job::Fence(cancel), out);
        self.asked.insert(cancel, Asking { fence, around: false, waiting: None });
    }

    /// Whether this node's engine has this request in the scope.
    fn in_scope(&self, target: Id, scope: Scope) -> Vec<Id> {
        let mut found = BTreeSet::new();
        // Ids rise with time, so that whoever is above comes first.
        for (id, held) in &self.held {
            let below =
                scope == Scope::Subtree && held.above.iter().any(|up| *up == target || found.contains(up));
            if *id == target || below {
                found.insert(*id);
            }
        }
        found.into_iter().collect()
    }

    fn fence(&mut self, target: Id, scope: Scope, kill: bool, out: &mut Vec<Out>) {
        let ban = self.bans.entry(target).or_insert(scope);
        if scope == Scope::Subtree {
            *ban = scope;
        }
        for id in self.in_scope(target, scope) {
            let held = self.held.get_mut(&id).expect("it is in scope");
            let first = !std::mem::replace(&mut held.fenced, true);
            match (held.state, held.version) {
                (State::Running, _) if kill => out.push(Out::Kill(id)),
                (State::Running, _) if first => out.push(Out::Grace(id)),
                (State::Waiting, Some(_)) => held.state = State::Settling(Status::Canceled, false),
                (State::Waiting, None) => {
                    self.held.remove(&id);
                }
                _ => {}
            }
        }
    }

    /// A part of a cancel for this node, perhaps not for the first time.
    fn hear(&mut self, part: Part, out: &mut Vec<Out>) {
        if self.parts.contains_key(&part.part) || part.state != PartState::Open {
            return;
        }
        let here = !self.in_scope(part.request, part.scope).is_empty();
        // What a fence found may be on its way here: an answer to a claim that is not in yet. It must not start then.
        if here || (!part.around && self.fault != Some(Fault::NoBanOnNotHere)) {
            self.fence(part.request, part.scope, part.part % 2 == 0, out);
        }
        self.parts.insert(part.part, Working { part, here, reporting: false });
    }

    fn report(&mut self, out: &mut Vec<Out>) {
        if self.parts.is_empty() || self.membership.epoch().is_none() {
            return;
        }
        let quiet = |working: &Working| {
            let ids = self.in_scope(working.part.request, working.part.scope);
            ids.iter().all(|id| self.held[id].state != State::Running)
        };
        let ready = |(number, working): (&i64, &Working)| {
            let due = !working.reporting && quiet(working);
            let state = if working.here { PartState::Stopped } else { PartState::NotHere };
            due.then_some((*number, state))
        };
        let ready: Vec<(i64, PartState)> = self.parts.iter().filter_map(ready).collect();
        for (number, state) in ready {
            self.parts.entry(number).and_modify(|working| working.reporting = true);
            let tail = self.has_tail(self.parts[&number].part.request);
            self.send(Want::Report { part: number, state, tail }, Job::Report(number), out);
        }
    }

    fn asked_said(&mut self, cancel: Cancel, said: Said, out: &mut Vec<Out>) {
        let Some(asking) = self.asked.get_mut(&cancel) else { return };
        match said {
            Said::Unknown => {
                let fence = asking.fence.clone();
                asking.around = true;
                self.send(Want::Around(fence), Job::Around(cancel), out);
            }
            Said::Finished(status) => {
                self.asked.remove(&cancel);
                let reply = if status == Status::Canceled { Reply::Stopped } else { Reply::Finished };
                out.push(Out::Answer(cancel, reply));
            }
            Said::Parts(parts) => {
                let asked = if asking.around { Asked::Around } else { Asked::Owners };
                let waiting = asking.waiting.get_or_insert_with(|| Waiting::new(asked, []));
                for part in &parts {
                    let node = format!("node{}", part.node);
                    let request = cancel::RequestId(part.request.into());
                    waiting.hear(PartNews { part: part.part, node, request, state: part.state });
                }
                let mine: Vec<Part> = parts.into_iter().filter(|part| part.node == self.id).collect();
                mine.into_iter().for_each(|part| self.hear(part, out));
            }
            _ => {}
        }
    }

    fn answer(&mut self, out: &mut Vec<Out>) {
        let mut over = Vec::new();
        for (cancel, asking) in &self.asked {
            let Some(waiting) = &asking.waiting else { continue };
            let ids = self.in_scope(asking.fence.target, asking.fence.scope);
            let quiet = ids.iter().all(|id| self.held[id].state != State::Running);
            let reply = match waiting.done() {
                _ if self.fault == Some(Fault::AnswerBeforeParts) => Reply::Stopped,
                Some(done) if quiet => match done.outcome {
                    Outcome::Unknown => Reply::Unknown,
                    Outcome::Finished => Reply::Finished,
                    _ => Reply::Stopped,
                },
                _ => continue,
            };
            over.push((*cancel, reply));
        }
        for (cancel, reply) in over {
            self.asked.remove(&cancel);
            out.push(Out::Answer(cancel, reply));
        }
    }
}
