//! Stops that need no runtime: of a request that waits, and answered as soon as it is fenced and recorded.

use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    figure::{At, Found, Target::AtMost, Title},
    floors::BareServer,
    measure::{Effort, Sample, Scenario, figure},
};
use crate::node::BenchNode;

const SLEEPS: &str = "import time\ndef handler(event, context):\n    time.sleep(300)\n";

struct Queued<'a>(&'a BenchNode, &'a BareServer);

impl Scenario for Queued<'_> {
    async fn floor(&mut self) -> anyhow::Result<Duration> {
        self.1.commit().await
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        let id = self.0.accepted("busy", &json!({})).await?;
        let (took, _) = self.0.cancel("busy", &id, &json!({})).await?;
        Ok(took.into())
    }
}

struct RespondAsync<'a>(&'a BenchNode, &'a BareServer);

impl Scenario for RespondAsync<'_> {
    async fn floor(&mut self) -> anyhow::Result<Duration> {
        self.1.commit().await
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        let node = self.0;
        let id = node.running("sleeper", &json!({})).await?;
        let url = format!("{}/v2/default/fgs/functions/sleeper/cancel", node.endpoint);
        let request =
            node.http.post(url).header("X-Auth-Token", &node.token).header("Prefer", "respond-async");
        let start = Instant::now();
        let reply = request.json(&json!({ "request_id": id })).send().await?;
        ensure!(reply.status() == 200, "{}", reply.status());
        drop(reply.bytes().await?);
        let took = start.elapsed();
        // It is stopped before the next begins: a cancel of what is cancelled says so.
        node.cancel("sleeper", &id, &Value::Object(serde_json::Map::default())).await?;
        Ok(took.into())
    }
}

pub(crate) async fn measure(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    let (node, bare) = (BenchNode::start()?, BareServer::start()?);
    let one = json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } });
    node.deploy("busy", SLEEPS, one.clone()).await?;
    node.deploy("sleeper", SLEEPS, one).await?;
    let busy = node.running("busy", &json!({})).await?;
    let title = |id: &str, what: &str| {
        let title = Title::new(id, what).over("request + one row committed by a group commit");
        title.goal(At::Median, AtMost(1.5))
    };
    let queued = title("queued", "of a request that waits");
    found.push(figure(queued, effort, &mut Queued(&node, &bare)).await?);
    let early = title("respond_async", "answered when fenced and recorded");
    found.push(figure(early, effort, &mut RespondAsync(&node, &bare)).await?);
    let health = node.send(Method::GET, "/quell/v1/health", None).await?;
    ensure!(health.status() == 200, "health: {}", health.status());
    node.cancel("busy", &busy, &json!({ "type": "force" })).await?;
    Ok(())
}
