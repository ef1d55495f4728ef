//! Cancels at a fixed rate while the node works at 70 % of what it can, beside the same on an idle node.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;

use super::{
    bell::Bell,
    figure::{At, Figure, Found, Target::AtMost, Title},
    load::{Done, Goes, Load, Schedule},
    measure::Effort,
    ordinary::ECHOES,
    progress,
    values::Values,
};
use crate::node::BenchNode;

/// Runtimes of the function that makes the load.
const RUNTIMES: usize = 8;
/// Of what the node can.
const SHARE: f64 = 0.7;
/// Clients that look what it can: one works while another's answer is on its way.
const CLIENTS: usize = 2 * RUNTIMES;
/// How long they look.
const LOOK: Duration = Duration::from_millis(1_000);
/// Forces of a runtime and cancels of a request that waits, in turn.
const CANCELS_A_SECOND: f64 = 20.0;
/// Most samples of a round: each forced runtime stands before the round begins.
const MOST_A_ROUND: usize = 40;
/// After the last cancel was to begin: the load goes on until all are answered.
const TAIL: Duration = Duration::from_millis(500);

const STANDS: &str = "import socket, time
def handler(event, context):
    line = socket.socket(socket.AF_UNIX)
    line.connect('\\0' + event['bell'])
    line.sendall(b'.')
    time.sleep(300)
";

/// What is cancelled, and how: a runtime that works, by force; a request that waits.
const KINDS: [(&str, &str); 2] = [("victim", "force"), ("busy", "")];

struct UnderLoad {
    node: Arc<BenchNode>,
    bell: Bell,
    goes: Goes,
    /// Cancels of each kind in a round.
    samples: usize,
}

impl UnderLoad {
    async fn start(samples: usize) -> anyhow::Result<Self> {
        let (node, bell) = (Arc::new(BenchNode::start()?), Bell::hang()?);
        let instances =
            |most: usize| json!({ "strategy_config": { "concurrency": most, "concurrent_num": 1 } });
        node.deploy("echo", ECHOES, instances(RUNTIMES)).await?;
        node.deploy("victim", STANDS, instances(MOST_A_ROUND)).await?;
        node.deploy("busy", STANDS, instances(1)).await?;
        // Its one instance is busy from now on.
        node.accepted("busy", &json!({ "bell": bell.name })).await?;
        bell.ring().await?;
        let url = format!("{}/v2/default/fgs/functions/echo/invocations", node.endpoint);
        let goes = Goes { url, token: node.token.clone() };
        Ok(Self { node, bell, goes, samples: samples.min(MOST_A_ROUND) })
    }

    /// Cancels at their times, while the node idles or works at this rate.
    async fn round(&self, rate: Option<f64>) -> anyhow::Result<([Values; 2], Option<Done>)> {
        let (mut turns, mut rings) = (Vec::new(), Vec::new());
        for _ in 0..self.samples {
            for (kind, (function, _)) in KINDS.iter().enumerate() {
                let event = json!({ "bell": self.bell.name });
                turns.push((kind, self.node.accepted(function, &event).await?));
            }
            rings.push(self.bell.ring().await?); // of the one to be forced; the other waits
        }
        let time = Duration::from_secs_f64(turns.len() as f64 / CANCELS_A_SECOND) + TAIL;
        let load = rate.map(|rate| Load::steady(&self.goes, rate, time)).transpose()?;
        let schedule = Schedule::new(Instant::now(), CANCELS_A_SECOND);
        let mut tasks: JoinSet<anyhow::Result<(usize, Duration)>> = JoinSet::new();
        for (number, (kind, id)) in (1..).zip(turns) {
            let intended = schedule.at(number);
            wait_until(intended);
            let node = Arc::clone(&self.node);
            tasks.spawn(async move {
                let (function, how) = KINDS[kind];
                let body = if how.is_empty() { json!({}) } else { json!({ "type": how }) };
                node.cancel(function, &id, &body).await?;
                Ok((kind, intended.elapsed()))
            });
        }
        let mut values = [Values::new()?, Values::new()?];
        while let Some(done) = tasks.join_next().await {
            let (kind, took) = done??;
            values[kind].add_time(took)?;
        }
        Ok((values, load.map(Load::done).transpose()?))
    }
}

/// To the microsecond as far as the kernel does; the runtime's own timers know milliseconds.
#[expect(
    clippy::disallowed_methods,
    reason = "it waits for a time of the schedule, not for something to happen"
)]
fn wait_until(time: Instant) {
    tokio::task::block_in_place(|| std::thread::sleep(time.saturating_duration_since(Instant::now())));
}

/// What was going on meanwhile, over all rounds.
#[derive(Debug, Default)]
struct Meanwhile {
    capacity: f64,
    done: f64,
    shed: usize,
    rounds: f64,
}

impl Meanwhile {
    fn add(&mut self, capacity: f64, load: Done) {
        self.capacity += capacity;
        self.done += load.rate;
        self.shed += load.shed;
        self.rounds += 1.0;
    }

    fn note(&self) -> String {
        let (capacity, done) = (self.capacity / self.rounds, self.done / self.rounds);
        let mut note = format!(
            "{CANCELS_A_SECOND} cancels a second, each counted from when it was to be sent. Meanwhile {:.0} invocations a \
             second are sent, {:.0} % of the {capacity:.0} that node and sender did just before; {done:.0} were done.",
            capacity * SHARE,
            SHARE * 100.0
        );
        if self.shed > 0 {
            note += &format!(" {} were not sent: the machine became slower meanwhile.", self.shed);
        }
        note
    }
}

fn title(kind: usize, meanwhile: &Meanwhile) -> Title {
    let (id, what) = match KINDS[kind].0 {
        "victim" => ("load.force", "force, Python, under load"),
        _ => ("load.queued", "of a request that waits, under load"),
    };
    let title = Title::new(id, what).over("the same at the same times on the idle node");
    title.goal(At::P99, AtMost(3.0)).noted(meanwhile.note())
}

pub(crate) async fn measure(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    let bench = UnderLoad::start(effort.samples).await?;
    progress::show("cancels under load", 0, effort.rounds);
    Load::capacity(&bench.goes, CLIENTS, LOOK)?; // its runtimes are started
    let (mut idle, mut loaded) = ([Values::new()?, Values::new()?], [Values::new()?, Values::new()?]);
    let (mut rounds, mut latencies) = ([Vec::new(), Vec::new()], Vec::new());
    let mut meanwhile = Meanwhile::default();
    for round in 1..=effort.rounds {
        progress::show("cancels under load", round, effort.rounds);
        let (quiet, _) = bench.round(None).await?;
        // Just before: a machine that others use as well is not the same for long.
        let capacity = Load::capacity(&bench.goes, CLIENTS, LOOK)?.rate;
        let (busy, load) = bench.round(Some(capacity * SHARE)).await?;
        for kind in 0..KINDS.len() {
            rounds[kind].push(busy[kind].quantile(0.5) / quiet[kind].quantile(0.5));
            idle[kind].merge(&quiet[kind])?;
            loaded[kind].merge(&busy[kind])?;
        }
        if let Some(load) = load {
            meanwhile.add(capacity, load);
            latencies.push(load.p99_us);
        }
    }
    for (kind, ((ours, floor), rounds)) in loaded.into_iter().zip(idle).zip(rounds).enumerate() {
        let title = title(kind, &meanwhile);
        found.push(Figure { title, ours, floor: Some(floor), beside: None, rounds, phases: Vec::new() });
    }
    let title = Title::new("load.invocations", "an invocation at that load: its p99, by round");
    found.push(Figure::read(title, &latencies)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_sent_is_told_and_nothing_is_said_of_it_otherwise() {
        let mut meanwhile = Meanwhile::default();
        let load = Done { count: 700, rate: 700.0, shed: 0, p99_us: 1.0 };
        meanwhile.add(1_000.0, load);
        let note = meanwhile.note();
        assert!(note.contains("700 invocations a second are sent, 70 % of the 1000"), "{note}");
        assert!(!note.contains("not sent"), "{note}");
        meanwhile.add(3_000.0, Done { shed: 5, ..load });
        assert!(meanwhile.note().contains("70 % of the 2000"), "{}", meanwhile.note());
        assert!(meanwhile.note().contains("5 were not sent"), "{}", meanwhile.note());
    }
}
