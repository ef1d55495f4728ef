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
/// How long they look, and before that until all runtimes have started.
const RAMP: Duration = Duration::from_millis(1_500);

const LOOK: Duration = Duration::from_secs(2);
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

fn title(kind: usize, offered: f64, capacity: f64, done: &[f64]) -> Title {
    let (id, what) =
        [("load.force", "force, Python, under load"), ("load.queued", "of a request that waits, under load")]
            [kind];
    let done = done.iter().sum::<f64>() / done.len().max(1) as f64;
    let title = Title::new(id, what).over("the same at the same times on the idle node");
    title.goal(At::P99, AtMost(3.0)).noted(format!(
        "{CANCELS_A_SECOND} cancels a second, each counted from when it was to be sent. Meanwhile {offered:.0} \
         invocations a second are sent, {:.0} % of the {capacity:.0} that this node and the sender can on this \
         machine; {done:.0} were done.",
        SHARE * 100.0
    ))
}

pub(crate) async fn measure(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    let bench = UnderLoad::start(effort.samples).await?;
    progress::show("what the node can", 0, 1);
    Load::capacity(&bench.goes, CLIENTS, RAMP)?; // its runtimes are started
    let capacity = Load::capacity(&bench.goes, CLIENTS, LOOK)?;
    let offered = capacity.rate * SHARE;
    let (mut idle, mut loaded) = ([Values::new()?, Values::new()?], [Values::new()?, Values::new()?]);
    let (mut rounds, mut done, mut latencies) = ([Vec::new(), Vec::new()], Vec::new(), Vec::new());
    for round in 1..=effort.rounds {
        progress::show("cancels under load", round, effort.rounds);
        let (quiet, _) = bench.round(None).await?;
        let (busy, load) = bench.round(Some(offered)).await?;
        for kind in 0..KINDS.len() {
            rounds[kind].push(busy[kind].quantile(0.5) / quiet[kind].quantile(0.5));
            idle[kind].merge(&quiet[kind])?;
            loaded[kind].merge(&busy[kind])?;
        }
        if let Some(load) = load {
            done.push(load.rate);
            latencies.push(load.p99_us);
        }
    }
    for (kind, ((ours, floor), rounds)) in loaded.into_iter().zip(idle).zip(rounds).enumerate() {
        let title = title(kind, offered, capacity.rate, &done);
        found.push(Figure { title, ours, floor: Some(floor), beside: None, rounds, phases: Vec::new() });
    }
    let title = Title::new("load.invocations", "an invocation at that load: its p99, by round");
    found.push(Figure::read(title, &latencies)?);
    Ok(())
}
