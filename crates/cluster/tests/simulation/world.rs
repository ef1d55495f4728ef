//! Time, machines, the network and everything that goes wrong: one queue of events, one seed.

use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use cluster::Timing;

use crate::database::{Cancel, Database, Hint, Id, NodeId, Said, Scope, Time, Want};
use crate::fault::Fault;
use crate::laws::Laws;
use crate::machine::Machine;
use crate::node::{In, Node, Out, Reply};
use crate::random::Random;

pub(crate) const MS: Time = 1_000;
pub(crate) const SECOND: Time = 1_000 * MS;
/// Things go wrong, and clients come, until this.
const FAULTS_END: Time = 30 * SECOND;
/// By then everything is settled and answered.
const END: Time = FAULTS_END + 60 * SECOND;
/// Fifty nodes have a tenth of this in a run.
const MOST_EVENTS: u64 = 600_000;
/// A node waits so long for an answer of the database.
const PATIENCE: Time = 2 * SECOND;

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// To a node's daemon, in the life that it is meant for.
    Daemon(NodeId, u32, In),
    /// To the database.
    Ask {
        node: NodeId,
        life: u32,
        number: u64,
        epoch: i64,
        want: Want,
    },
    /// An attempt ends by itself.
    Ends(usize),
    Dead(usize),
    Switch(NodeId),
    MachineResumes(NodeId),
    Boot(NodeId),
    /// Somebody invokes, or a running attempt does.
    Invoke,
    InvokeBelow(usize),
    CancelSomething,
    Trouble,
    Look,
}

struct Planned {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Planned {}
impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Planned {
    /// The earliest is the greatest: it is popped first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// One attempt: its effects happen from its start until it is over.
pub(crate) struct Run {
    pub(crate) node: NodeId,
    pub(crate) id: Id,
    life: u32,
    pub(crate) active: bool,
    killing: bool,
}

pub(crate) struct World {
    pub(crate) now: Time,
    order: u64,
    queue: BinaryHeap<Planned>,
    random: Random,
    fault: Option<Fault>,
    timing: Timing,
    pub(crate) database: Database,
    database_down: Time,
    nodes: Vec<Option<Node>>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) runs: Vec<Run>,
    alive: BTreeMap<NodeId, Vec<usize>>,
    asked_at: BTreeMap<Cancel, NodeId>,
    ids: Id,
    cancels: Cancel,
    pub(crate) laws: Laws,
    trace: Option<Vec<String>>,
    pub(crate) events: u64,
}

impl World {
    pub(crate) fn new(seed: u64, fault: Option<Fault>, count: usize, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let second = Duration::from_secs(1);
        // The margin at its least in half of the worlds: what is allowed has to hold.
        let least = Duration::from_millis(1_100);
        let margin = if random.chance(500) { least } else { 3 * second };
        let timing = Timing { lease: 10 * second, heartbeat: second, margin }.checked().expect("it fits");
        let kept = match fault {
            Some(Fault::NoLeaseMargin) => Timing { margin: Duration::ZERO, ..timing },
            _ => timing,
        };
        let machines = (0..count).map(|_| Machine::new(&mut random)).collect();
        let mut world = Self {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            random,
            fault,
            timing: kept,
            database: Database::new(fault, 10 * SECOND),
            database_down: 0,
            nodes: (0..count).map(|_| None).collect(),
            machines,
            runs: Vec::new(),
            alive: BTreeMap::new(),
            asked_at: BTreeMap::new(),
            ids: 0,
            cancels: 0,
            laws: Laws::default(),
            trace: traced.then(Vec::new),
            events: 0,
        };
        world.set_up(count);
        world
    }

    fn set_up(&mut self, count: usize) {
        for node in 0..count {
            let at = self.random.between(0, SECOND);
            self.plan(at, Event::Boot(node));
        }
        for kind in [Event::Invoke, Event::CancelSomething, Event::Trouble] {
            self.plan(2 * SECOND, kind);
        }
        self.plan(FAULTS_END, Event::Look);
    }

    fn plan(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.queue.push(Planned { at, order: self.order, event });
    }

    fn after(&mut self, low: Time, high: Time, event: Event) {
        let at = self.now + self.random.between(low, high);
        self.plan(at, event);
    }

    fn note(&mut self, words: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10.3} ms  {}", self.now as f64 / 1e3, words()));
        }
    }

    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// Runs until a law is broken, everything has come to rest, or the time is over.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        while let Some(Planned { at, event, .. }) = self.queue.pop() {
            self.now = at;
            self.events += 1;
            if self.events > MOST_EVENTS {
                return Err(format!(
                    "more than {MOST_EVENTS} events: something goes round in circles, {event:?}"
                ));
            }
            if let Event::Look = event {
                let left = self.laws.unfinished(self);
                match left {
                    None => return Ok(()),
                    Some(what) if self.now >= END => return Err(what),
                    Some(_) => self.plan(self.now + SECOND, Event::Look),
                }
            } else if let Some(event) = self.not_now(event) {
                self.happen(event);
            }
            if let Some(broken) = self.laws.broken.take() {
                return Err(broken);
            }
        }
        Err("the world stood still".into())
    }

    fn calm(&self) -> bool {
        self.now >= FAULTS_END
    }

    /// What cannot happen while a process or a machine is paused happens after.
    fn not_now(&mut self, event: Event) -> Option<Event> {
        let (node, until) = match &event {
            Event::Daemon(node, ..) => (*node, self.machines[*node].daemon_paused_until()),
            Event::Switch(node) => (*node, self.machines[*node].frozen_until),
            Event::Ends(run) | Event::Dead(run) => {
                let node = self.runs[*run].node;
                (node, self.machines[node].frozen_until)
            }
            _ => return Some(event),
        };
        if until <= self.now {
            return Some(event);
        }
        // In any order, but after the machine itself is back.
        let at = until + self.random.between(1, 5 * MS);
        self.note(|| format!("node {node} paused: put off"));
        self.plan(at, event);
        None
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Daemon(node, life, what) => self.daemon(node, life, what),
            Event::Ask { node, life, number, epoch, want } => self.serve(node, life, number, epoch, want),
            Event::Ends(run) => self.over(run, false),
            Event::Dead(run) => self.over(run, true),
            Event::Switch(node) => self.switch(node),
            Event::MachineResumes(node) => self.resumed(node),
            Event::Boot(node) => self.boot(node),
            Event::Invoke => self.invoke(),
            Event::InvokeBelow(run) => self.invoke_below(run),
            Event::CancelSomething => self.cancel_something(),
            Event::Trouble => self.trouble(),
            Event::Look => {}
        }
    }

    fn daemon(&mut self, node: NodeId, life: u32, what: In) {
        if self.machines[node].life != life || self.nodes[node].is_none() {
            // Whoever asks a daemon that is gone by then sees his connection refused.
            if let In::Cancel { cancel, .. } = what {
                self.laws.answered(cancel, Reply::Unavailable, &self.runs, &self.machines, self.now);
            }
            return;
        }
        let local = self.machines[node].local(self.now);
        if !matches!(what, In::Tick) {
            let words = format!("node {node}: {what:?}");
            self.note(|| words);
        }
        let Some(daemon) = &mut self.nodes[node] else { return };
        let mut out = Vec::new();
        daemon.take(local, what, &mut out);
        let deadline = daemon.deadline();
        for one in out {
            self.note(|| format!("node {node} -> {one:?}"));
            self.carry_out(node, one);
        }
        if self.nodes[node].as_ref().is_some_and(|daemon| daemon.left) {
            self.end_daemon(node);
            self.after(SECOND, 10 * SECOND, Event::Boot(node));
        } else if let Some(deadline) = deadline {
            let machine = &mut self.machines[node];
            let at = machine.real(deadline).max(self.now + 1);
            if machine.tick_at <= self.now || at < machine.tick_at {
                machine.tick_at = at;
                let life = machine.life;
                self.plan(at, Event::Daemon(node, life, In::Tick));
            }
        }
    }

    fn carry_out(&mut self, node: NodeId, out: Out) {
        let life = self.machines[node].life;
        match out {
            Out::Send { number, epoch, want } => {
                self.plan(self.now + PATIENCE, Event::Daemon(node, life, In::Lost(number)));
                if let Some(delay) = self.delay(node) {
                    self.plan(self.now + delay, Event::Ask { node, life, number, epoch, want });
                }
            }
            Out::Start(id) => self.start(node, id),
            Out::Kill(id) => {
                let runs = self.alive.get(&node).cloned().unwrap_or_default();
                let of = |run: &usize| self.runs[*run].id == id && self.runs[*run].life == life;
                if let Some(run) = runs.into_iter().find(of) {
                    self.kill(run, 900 * MS);
                }
            }
            Out::Grace(id) => self.after(MS, 2 * SECOND, Event::Daemon(node, life, In::GraceOver(id))),
            Out::Until(until) => {
                let machine = &mut self.machines[node];
                machine.switch = until;
                let at = machine.real(until);
                self.plan(at.max(self.now), Event::Switch(node));
            }
            Out::KillAll => {
                // What the daemon was told of its runs it is not told again: only that all are gone.
                self.machines[node].life += 1;
                self.machines[node].tick_at = 0;
                self.machines[node].ending = true;
                self.strike(node, 900 * MS);
                self.all_ended(node);
            }
            Out::Accepted(id) => self.laws.accepted(id),
            Out::Answer(cancel, reply) => {
                self.laws.answered(cancel, reply, &self.runs, &self.machines, self.now)
            }
        }
    }

    /// How long a message between this node and the database takes; `None`: it is lost.
    fn delay(&mut self, node: NodeId) -> Option<Time> {
        let cut = self.machines[node].cut_until > self.now || self.database_down > self.now;
        let lost = !self.calm() && self.random.chance(10);
        let slow = !self.calm() && self.random.chance(30);
        let far = if self.random.chance(100) { 25 * SECOND } else { 3 * SECOND };
        let delay = if slow { self.random.between(MS, far) } else { self.random.between(MS / 2, 15 * MS) };
        (!cut && !lost).then_some(delay)
    }

    fn serve(&mut self, node: NodeId, life: u32, number: u64, epoch: i64, want: Want) {
        if self.database_down > self.now {
            return;
        }
        let words = format!("database <- node {node} epoch {epoch}: {want:?}");
        let said = self.database.serve(self.now, node, epoch, want);
        self.note(|| format!("{words} = {said:?}"));
        for change in std::mem::take(&mut self.database.changes) {
            self.laws.changed(change, &self.runs, &self.machines, self.now);
        }
        for hint in std::mem::take(&mut self.database.hints) {
            self.hint(hint);
        }
        self.reply(node, life, number, said);
    }

    fn reply(&mut self, node: NodeId, life: u32, number: u64, said: Said) {
        if let Some(delay) = self.delay(node) {
            self.plan(self.now + delay, Event::Daemon(node, life, In::Said(number, said)));
        }
    }

    fn hint(&mut self, hint: Hint) {
        let to = match hint {
            Hint::Parts(node) => node,
            Hint::Reported(cancel) => match self.asked_at.get(&cancel) {
                Some(node) => *node,
                None => return,
            },
            Hint::Queue => self.random.below(self.machines.len()),
        };
        let times = if self.random.chance(50) { 2 } else { 1 };
        for _ in 0..times {
            if self.random.chance(900)
                && let Some(delay) = self.delay(to)
            {
                let life = self.machines[to].life;
                self.plan(self.now + delay, Event::Daemon(to, life, In::Hint(hint)));
            }
        }
    }

    fn start(&mut self, node: NodeId, id: Id) {
        let life = self.machines[node].life;
        let run = self.runs.len();
        self.laws.starts(node, id, &self.runs, &self.machines, self.now);
        self.runs.push(Run { node, id, life, active: true, killing: false });
        self.alive.entry(node).or_default().push(run);
        let long = if self.random.chance(200) { 8 * SECOND } else { 2 * SECOND };
        let length = self.random.between(MS, long);
        self.plan(self.now + length, Event::Ends(run));
        if !self.calm() {
            for _ in 0..self.random.below(4) {
                let at = self.now + self.random.between(1, length);
                self.plan(at, Event::InvokeBelow(run));
            }
        }
    }

    /// Strikes an attempt: its effects may go on until it is dead, which takes up to `longest`.
    fn kill(&mut self, run: usize, longest: Time) {
        if self.runs[run].active && !std::mem::replace(&mut self.runs[run].killing, true) {
            let longest = if self.random.chance(300) { longest } else { longest / 20 };
            self.after(MS, longest, Event::Dead(run));
        }
    }

    fn strike(&mut self, node: NodeId, longest: Time) {
        for run in self.alive.get(&node).cloned().unwrap_or_default() {
            self.kill(run, longest);
        }
    }

    fn over(&mut self, run: usize, killed: bool) {
        if !std::mem::replace(&mut self.runs[run].active, false) {
            return;
        }
        let Run { node, id, life, .. } = self.runs[run];
        self.note(|| format!("attempt of {id} on node {node} is over, killed: {killed}"));
        self.alive.entry(node).or_default().retain(|one| *one != run);
        self.after(1, 10 * MS, Event::Daemon(node, life, In::RunOver { id, killed }));
        self.all_ended(node);
    }

    fn all_ended(&mut self, node: NodeId) {
        let machine = &mut self.machines[node];
        if machine.ending && self.alive.get(&node).is_none_or(Vec::is_empty) {
            machine.ending = false;
            let life = machine.life;
            self.after(1, 10 * MS, Event::Daemon(node, life, In::AllEnded));
        }
    }

    /// The dead man's switch of every runtime of this machine, by the machine's own clock.
    fn switch(&mut self, node: NodeId) {
        let machine = &self.machines[node];
        if machine.local(self.now) >= machine.switch {
            self.strike(node, 900 * MS);
        }
    }

    /// A machine that slept: its switches come first, before anything else of it goes on.
    fn resumed(&mut self, node: NodeId) {
        let machine = &self.machines[node];
        if machine.frozen_until > self.now {
            return;
        }
        let late = machine.local(self.now) >= machine.switch;
        self.note(|| format!("machine {node} is back, its switches strike: {late}"));
        for run in self.alive.get(&node).cloned().unwrap_or_default() {
            match late {
                true => self.over(run, true),
                false => self.laws.goes_on(run, &self.runs, &self.machines, self.now),
            }
        }
    }

    fn boot(&mut self, node: NodeId) {
        if self.machines[node].dead || self.nodes[node].is_some() {
            return;
        }
        if self.alive.get(&node).is_some_and(|runs| !runs.is_empty()) {
            // A new life first ends what the old one left.
            self.after(50 * MS, SECOND, Event::Boot(node));
            return;
        }
        let machine = &mut self.machines[node];
        machine.life += 1;
        machine.tick_at = 0;
        machine.ending = false;
        let (life, local, numbers) = (machine.life, machine.local(self.now), machine.numbers);
        self.nodes[node] = Some(Node::new(node, self.fault, self.timing, local, numbers));
        self.plan(self.now, Event::Daemon(node, life, In::Tick));
    }

    fn pick(&mut self) -> NodeId {
        self.random.below(self.machines.len())
    }

    fn tell_daemon(&mut self, node: NodeId, what: In) {
        let life = self.machines[node].life;
        self.after(1, 5 * MS, Event::Daemon(node, life, what));
    }

    fn invoke(&mut self) {
        if self.calm() {
            return;
        }
        let node = self.pick();
        let (sync, anywhere) = (self.random.chance(250), self.random.chance(500));
        self.ids += 1;
        let id = self.ids;
        self.laws.invoked(id, None, sync);
        self.tell_daemon(node, In::Invoked { id, parent: None, sync, anywhere });
        let pace = 4 * SECOND / self.machines.len() as u64;
        self.after(pace / 4, pace.max(100 * MS), Event::Invoke);
    }

    fn invoke_below(&mut self, run: usize) {
        let Run { node, id: parent, life, active, .. } = self.runs[run];
        if !active || self.machines[node].frozen_until > self.now || self.machines[node].life != life {
            return;
        }
        let (sync, anywhere) = (self.random.chance(300), self.random.chance(500));
        self.ids += 1;
        let id = self.ids;
        self.laws.invoked(id, Some(parent), sync);
        self.tell_daemon(node, In::Invoked { id, parent: Some(parent), sync, anywhere });
    }

    fn cancel_something(&mut self) {
        if self.calm() {
            return;
        }
        self.after(20 * MS, 800 * MS, Event::CancelSomething);
        let back = self.random.below(40) as Id;
        let target = self.ids.saturating_sub(back);
        // Nobody can name a request whose id nobody was told.
        let seen = self.database.rows.contains_key(&target) || self.runs.iter().any(|run| run.id == target);
        if !seen {
            return;
        }
        let scope = if self.random.chance(700) { Scope::Subtree } else { Scope::Request };
        let kill = self.random.chance(500);
        self.cancels += 1;
        let cancel = self.cancels;
        let holder = self.runs.iter().rev().find(|run| run.id == target).map(|run| run.node);
        let node = match holder {
            Some(node) if self.random.chance(400) => node,
            _ => self.pick(),
        };
        if self.nodes[node].is_none() {
            return;
        }
        self.asked_at.insert(cancel, node);
        self.laws.asked(cancel, target, scope);
        self.tell_daemon(node, In::Cancel { cancel, target, scope, kill });
    }

    fn end_daemon(&mut self, node: NodeId) {
        if let Some(daemon) = self.nodes[node].take() {
            self.machines[node].numbers = daemon.numbers();
        }
        self.machines[node].life += 1;
        self.laws.daemon_gone(&self.asked_at, node);
    }

    fn trouble(&mut self) {
        if self.calm() {
            return;
        }
        let pace = 20 * SECOND / self.machines.len() as u64;
        self.after(pace / 4, pace.max(500 * MS), Event::Trouble);
        let node = self.pick();
        let long = self.random.between(100 * MS, 16 * SECOND);
        let until = self.now + long;
        let kind = self.random.below(16);
        self.note(|| format!("trouble {kind} for node {node}, {} ms", long / MS));
        match kind {
            0..=4 => self.machines[node].paused_until = until,
            5 | 6 => {
                self.machines[node].frozen_until = until;
                self.plan(until, Event::MachineResumes(node));
            }
            7..=10 => self.machines[node].cut_until = until,
            11 | 12 => {
                // Its runtimes die with it, by the parent's death.
                self.end_daemon(node);
                self.strike(node, 100 * MS);
                self.after(100 * MS, 20 * SECOND, Event::Boot(node));
            }
            13 => {
                self.end_daemon(node);
                for run in self.alive.get(&node).cloned().unwrap_or_default() {
                    self.over(run, true);
                }
                let few =
                    self.machines.iter().filter(|machine| !machine.dead).count() * 2 <= self.machines.len();
                self.machines[node].dead = !few && self.random.chance(300);
                self.after(5 * SECOND, 25 * SECOND, Event::Boot(node));
            }
            14 => self.tell_daemon(node, In::Drain),
            _ => self.database_down = self.now + self.random.between(10 * MS, 4 * SECOND),
        }
    }
}
