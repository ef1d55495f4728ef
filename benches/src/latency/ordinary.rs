//! The ordinary path: warm invocations beside a bare handler that hands the body to the poll of the same
//! runtime and returns its answer, and what is accepted and started beside the least that takes.

use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Client;
use serde_json::json;

use super::{
    bell::Bell,
    figure::{
        At, Figure, Found,
        Target::{AtLeast, AtMost},
        Title,
    },
    floors::{BareServer, ECHO_PYTHON, Sleeper},
    load::{Goes, Load},
    measure::{Effort, Sample, Scenario, figure},
    pass_through::{Image, Runtime, Server},
    progress,
    values::Unit,
};
use crate::{accept, node::BenchNode};

pub(crate) const ECHOES: &str = "def handler(event, context):\n    return event\n";
const RINGS: &str = "import socket
def handler(event, context):
    line = socket.socket(socket.AF_UNIX)
    line.connect('\\0' + event['bell'])
    line.sendall(b'.')
";
const PYTHON: Image =
    Image { program: "python3", bootstrap: "python/bootstrap.py", code: ("index.py", ECHOES) };
/// Runtimes of the function whose rate is measured, and of the bare pass-through.
const RUNTIMES: usize = 4;
/// One works while another's answer is on its way.
const CLIENTS: usize = 2 * RUNTIMES;
/// The parts of the path, sampled so many times as often as a cancel: they are that much faster.
const OFTEN: usize = 10;

struct Warm<'a> {
    node: &'a BenchNode,
    bare: &'a BareServer,
    url: String,
    http: Client,
}

impl Warm<'_> {
    async fn post(&self, url: &str) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let request = self.http.post(url).header("X-Auth-Token", &self.node.token);
        let reply = request.json(&json!({ "n": 1 })).send().await?;
        ensure!(reply.status() == 200, "{}", reply.status());
        let body = reply.bytes().await?;
        let took = start.elapsed();
        ensure!(serde_json::from_slice::<serde_json::Value>(&body)?["n"] == 1, "an answer of another");
        Ok(took)
    }
}

impl Scenario for Warm<'_> {
    const BESIDE: Option<&'static str> = Some("an empty HTTP round trip");

    async fn floor(&mut self) -> anyhow::Result<Duration> {
        self.post(&self.url).await
    }

    async fn beside(&mut self) -> anyhow::Result<Option<Duration>> {
        Ok(Some(self.bare.round_trip().await?))
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        let url = format!("{}/v2/default/fgs/functions/echo/invocations", self.node.endpoint);
        Ok(self.post(&url).await?.into())
    }
}

/// What the node adds to an invocation, in round trips: medians, since no sample of one belongs to one of another.
fn added(warm: &Figure) -> anyhow::Result<Option<Figure>> {
    let (Some(floor), Some((what, trip))) = (&warm.floor, &warm.beside) else { return Ok(None) };
    let (ours, trip) = (warm.ours.quantile(0.5) - floor.quantile(0.5), trip.quantile(0.5));
    let title = Title::new("warm.added", "what the node adds to a warm invocation").over(*what);
    let title = title.goal(At::Median, AtMost(0.5)).noted("The difference of the two medians above.");
    Ok(Some(Figure::pairs(title, &[(ours, trip)])?))
}

async fn warm(effort: Effort, bare: &BareServer, found: &mut Found) -> anyhow::Result<()> {
    let node = BenchNode::start()?;
    let one = json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } });
    node.deploy("echo", ECHOES, one).await?;
    let mut server = Server::start()?;
    let _runtime = server.runtime(node.data(), PYTHON).await?;
    let http = Client::builder().no_proxy().build()?;
    let mut warm = Warm { node: &node, bare, url: server.url(), http };
    let title = Title::new("warm", "a warm synchronous invocation, Python")
        .over("a bare pass-through to the same runtime")
        .goal(At::Median, AtMost(1.25));
    let many = Effort { samples: effort.samples * OFTEN, ..effort };
    let warm = figure(title, many, &mut warm).await?;
    let added = added(&warm)?;
    found.push(warm);
    added.into_iter().for_each(|added| found.push(added));
    Ok(())
}

async fn warm_rate(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    let node = BenchNode::start()?;
    let several = json!({ "strategy_config": { "concurrency": RUNTIMES, "concurrent_num": 1 } });
    node.deploy("echo", ECHOES, several).await?;
    let mut server = Server::start()?;
    let mut runtimes: Vec<Runtime> = Vec::new();
    for _ in 0..RUNTIMES {
        runtimes.push(server.runtime(node.data(), PYTHON).await?);
    }
    let url = format!("{}/v2/default/fgs/functions/echo/invocations", node.endpoint);
    let ours = Goes { url, token: node.token.clone() };
    let bare = Goes { url: server.url(), token: "none".to_owned() };
    let time = Duration::from_millis(if effort.samples >= 20 { 2_000 } else { 700 });
    for goes in [&ours, &bare] {
        Load::capacity(goes, CLIENTS, time)?; // connections are made, runtimes started
    }
    let mut pairs = Vec::new();
    for round in 1..=effort.rounds {
        progress::show("warm invocations a second", round, effort.rounds);
        let floor = Load::capacity(&bare, CLIENTS, time)?.rate;
        pairs.push((Load::capacity(&ours, CLIENTS, time)?.rate, floor));
    }
    let what = format!("warm invocations a second, {RUNTIMES} runtimes, {CLIENTS} clients");
    let title = Title::new("warm.rate", what)
        .over("a bare pass-through to as many runtimes")
        .counted_in(Unit::PerSecond)
        .goal(At::Median, AtLeast(0.8));
    found.push(Figure::pairs(title, &pairs)?);
    Ok(())
}

async fn accepted(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    let (node, floor) = (BenchNode::start()?, accept::Floor::start()?);
    // Its one instance is busy: what is measured is the acceptance.
    let one = json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } });
    node.deploy("f", accept::SOURCE, one).await?;
    let url = format!("{}/v2/default/fgs/functions/f/invocations-async", node.endpoint);
    let bare_url = format!("{}/accept", floor.base());
    for clients in accept::CLIENTS {
        let each = effort.samples * if clients == 1 { 20 } else { 150 };
        let mut pairs = Vec::new();
        for round in 0..=effort.rounds {
            progress::show("accepted a second", round, effort.rounds);
            let bare = accept::rate(&node.http, &bare_url, "", clients, each).await?;
            let pair = (accept::rate(&node.http, &url, &node.token, clients, each).await?, bare);
            // The first makes the connections.
            pairs.extend((round > 0).then_some(pair));
        }
        let what = format!("accepted a second, {clients} client{}", if clients == 1 { "" } else { "s" });
        let mut title = Title::new(format!("accept.{clients}"), what)
            .over("a bare handler that commits one row by the same group commit")
            .counted_in(Unit::PerSecond);
        if clients > 1 {
            title = title.goal(At::Median, AtLeast(0.8));
        }
        found.push(Figure::pairs(title, &pairs)?);
    }
    Ok(())
}

/// From the ask to the first line of the handler.
struct Dispatch<'a> {
    node: &'a BenchNode,
    bare: &'a BareServer,
    bell: Bell,
    sleeper: Sleeper,
}

impl Scenario for Dispatch<'_> {
    async fn floor(&mut self) -> anyhow::Result<Duration> {
        Ok(self.bare.commit().await? + self.sleeper.wake()?)
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        let event = json!({ "bell": self.bell.name });
        let start = Instant::now();
        let (accepted, rang) = tokio::join!(self.node.accepted("rings", &event), self.bell.ring());
        let took = start.elapsed();
        accepted?;
        rang?;
        Ok(took.into())
    }
}

async fn dispatched(effort: Effort, bare: &BareServer, found: &mut Found) -> anyhow::Result<()> {
    let (node, bell) = (BenchNode::start()?, Bell::hang()?);
    let one = json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } });
    node.deploy("rings", RINGS, one).await?;
    let sleeper = Sleeper::start(std::process::Command::new("python3").args(["-c", ECHO_PYTHON]))?;
    let mut dispatch = Dispatch { node: &node, bare, bell, sleeper };
    let title = Title::new("dispatch", "accepted, and a warm handler has begun")
        .over("request + one row committed by a group commit + one wake of such a runtime");
    found.push(figure(title, effort, &mut dispatch).await?);
    Ok(())
}

pub(crate) async fn measure(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    let bare = BareServer::start()?;
    warm(effort, &bare, found).await?;
    warm_rate(effort, found).await?;
    accepted(effort, found).await?;
    dispatched(effort, &bare, found).await?;
    super::cold::measure(effort, found).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_adds_is_told_in_round_trips() {
        let figure = |ours, floor, trip| {
            let warm = Figure::pairs(Title::new("warm", ""), &[(ours, floor)]).unwrap();
            let trip = Figure::read(Title::default(), &[trip]).unwrap().ours;
            added(&Figure { beside: Some(("a trip", trip)), ..warm }).unwrap().unwrap()
        };
        let half = figure(150.0, 100.0, 100.0);
        assert!((half.ratio(0.5).unwrap() - 0.5).abs() < 0.001 && half.meets() == Some(true), "{half:?}");
        assert_eq!(figure(160.0, 100.0, 100.0).meets(), Some(false));
        assert_eq!(figure(90.0, 100.0, 100.0).meets(), Some(true), "faster than the floor");
    }
}
