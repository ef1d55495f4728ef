//! What a node holds: idle, and for each request that waits, runs, or is over.

use std::time::{Duration, Instant};

use anyhow::ensure;
use cancel::Engine;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    bell::Bell,
    figure::{At, Figure, Found, Target::AtMost, Title},
    load::{Goes, Load},
    measure::Effort,
    ordinary::ECHOES,
    progress,
    values::Unit,
};
use crate::{
    accept,
    node::{BenchNode, LIMIT},
};

/// Requests that wait; quickly a fifth of them.
const WAITING: usize = 100_000;
/// Accepted before the first look: connections, threads and the store's pages are there then.
const BEFORE: usize = 2_000;
const CLIENTS: usize = 64;
/// Requests that run, on runtimes of so many each.
const RUNNING: usize = 2_000;
const EACH: usize = 500;

const WAITS: &str = "import asyncio, socket
async def handler(event, context):
    line = socket.socket(socket.AF_UNIX)
    line.connect('\\0' + event['bell'])
    line.sendall(b'.')
    line.close()
    await asyncio.sleep(600)
";

fn bytes_each(title: Title, before_kib: u64, after_kib: u64, requests: usize) -> anyhow::Result<Figure> {
    let grown = after_kib as f64 - before_kib as f64;
    let note = format!(
        "VmRSS of the node: {before_kib} KiB before, {after_kib} KiB after {requests} of them. What is below 0 counts \
         as 0."
    );
    let reading = (grown * 1024.0 / requests as f64).max(0.0);
    Figure::read(title.counted_in(Unit::Bytes).noted(note), &[reading])
}

fn idle(found: &mut Found) -> anyhow::Result<()> {
    let node = BenchNode::start()?;
    let resident = node.resident_kib()? as f64 / 1024.0;
    let title = Title::new("memory.idle", "an idle node: resident").counted_in(Unit::Mebibytes);
    found.push(Figure::read(title.goal(At::Max, AtMost(20.0)), &[resident])?);
    for (id, what, count) in [
        ("memory.threads", "an idle node: threads", node.threads()?),
        ("memory.fds", "an idle node: open descriptors", node.descriptors()?),
    ] {
        found.push(Figure::read(Title::new(id, what).counted_in(Unit::Count), &[count as f64])?);
    }
    Ok(())
}

async fn waiting(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    let count = if effort.samples >= 20 { WAITING } else { WAITING / 5 };
    let node = BenchNode::start()?;
    let one = json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } });
    node.deploy("f", accept::SOURCE, one).await?;
    let url = format!("{}/v2/default/fgs/functions/f/invocations-async", node.endpoint);
    let accept = async |count| accept::rate(&node.http, &url, &node.token, CLIENTS, count).await;
    accept(BEFORE).await?;
    let before = node.resident_kib()?;
    progress::show("requests that wait", 0, count);
    accept(count).await?;
    let title = Title::new("memory.queued", "held for each request that waits");
    let title = title.goal(At::Median, AtMost(200.0));
    found.push(bytes_each(title, before, node.resident_kib()?, count)?);
    Ok(())
}

async fn running(found: &mut Found) -> anyhow::Result<()> {
    let engine =
        Title::new("memory.engine", "held by the engine for each live request").counted_in(Unit::Bytes);
    let engine = engine.goal(At::Median, AtMost(400.0)).noted("By the sizes of its types, not measured.");
    found.push(Figure::read(engine, &[Engine::BYTES_PER_REQUEST as f64])?);
    let (node, bell) = (BenchNode::start()?, Bell::hang()?);
    let strategy = json!({ "concurrency": RUNNING / EACH, "concurrent_num": EACH });
    let more = json!({ "handler": "index.handler", "memory_size": 512, "strategy_config": strategy });
    node.deploy("waits", WAITS, more).await?;
    let event = json!({ "bell": bell.name });
    // All runtimes are full but for one place each at the first look: their connections are there.
    let mut before = 0;
    for number in 0..RUNNING {
        if number == RUNNING / 2 {
            before = node.resident_kib()?;
        }
        if number % 100 == 0 {
            progress::show("requests that run", number, RUNNING);
        }
        node.accepted("waits", &event).await?;
        bell.ring().await?;
    }
    let title = Title::new("memory.running", "held for each request that runs");
    let figure = bytes_each(title, before, node.resident_kib()?, RUNNING / 2)?;
    let note = format!(
        "{} With what its runtime's open polls hold: {EACH} requests of a runtime at once.",
        figure.title.note.clone().unwrap_or_default()
    );
    found.push(Figure { title: figure.title.noted(note), ..figure });
    Ok(())
}

async fn over(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    let node = BenchNode::start()?;
    let several = json!({ "strategy_config": { "concurrency": 4, "concurrent_num": 1 } });
    node.deploy("echo", ECHOES, several).await?;
    let url = format!("{}/v2/default/fgs/functions/echo/invocations", node.endpoint);
    let goes = Goes { url, token: node.token.clone() };
    let time = Duration::from_millis(effort.samples as u64 * 100);
    Load::capacity(&goes, 8, time)?;
    let before = node.resident_kib()?;
    progress::show("requests that are over", 0, 1);
    let done = Load::capacity(&goes, 8, time)?;
    let title = Title::new("memory.over", "held for each request that is over");
    found.push(bytes_each(title, before, node.resident_kib()?, done.count)?);
    settled(&node).await
}

/// Nothing lives that was to be over.
async fn settled(node: &BenchNode) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let view: Value = node.send(Method::GET, "/quell/v1/node", None).await?.json().await?;
        if view["requests"].as_array().is_none_or(Vec::is_empty) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "requests that were answered still live: {view}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn measure(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    idle(found)?;
    waiting(effort, found).await?;
    running(found).await?;
    over(effort, found).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_in_bytes_of_each_and_shrinking_is_none() {
        let each = |before, after| {
            let title = Title::new("x", "").goal(At::Median, AtMost(200.0));
            bytes_each(title, before, after, 1_024).unwrap()
        };
        assert!((each(1_000, 1_100).ours.quantile(0.5) - 100.0).abs() < 0.1);
        assert_eq!((each(1_000, 1_300).meets(), each(1_000, 900).meets()), (Some(false), Some(true)));
    }
}
