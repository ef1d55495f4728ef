//! The ordinary path: a warm synchronous invocation, beside a bare handler that hands the body to the
//! poll of the same runtime and returns its answer.

use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Client;
use serde_json::json;

use super::{
    measure::{Effort, Figure, Sample, Scenario, Title, figure},
    pass_through::{Image, Server},
};
use crate::node::BenchNode;

const ECHOES: &str = "def handler(event, context):\n    return event\n";
const PYTHON: Image =
    Image { program: "python3", bootstrap: "python/bootstrap.py", code: ("index.py", ECHOES) };

struct Warm<'a> {
    node: &'a BenchNode,
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
    async fn floor(&mut self) -> anyhow::Result<Duration> {
        self.post(&self.url).await
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        let url = format!("{}/v2/default/fgs/functions/echo/invocations", self.node.endpoint);
        Ok(self.post(&url).await?.into())
    }
}

pub(crate) async fn measure(effort: Effort, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    let node = BenchNode::start()?;
    node.deploy("echo", ECHOES, json!({ "strategy_config": { "concurrency": 1, "concurrent_num": 1 } }))
        .await?;
    let mut bare = Server::start()?;
    let _runtime = bare.runtime(node.data(), PYTHON).await?;
    let mut warm = Warm { node: &node, url: bare.url(), http: Client::builder().no_proxy().build()? };
    let title = Title {
        id: "warm".to_owned(),
        what: "a warm synchronous invocation, Python".to_owned(),
        floor: "a bare pass-through to the same runtime".to_owned(),
        target: Some(1.25),
        target_p99: None,
    };
    let many = Effort { samples: effort.samples * 10, ..effort };
    figures.push(figure(title, many, &mut warm).await?);
    Ok(())
}
