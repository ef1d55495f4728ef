//! Cold starts in short: `quell-bench cold-start` measures heavy imports as well.

use std::time::Duration;

use serde_json::json;

use super::{
    figure::{Found, Title},
    measure::{Effort, Sample, Scenario, figure},
};
use crate::{
    cold_start::{self, TRIVIAL, TRIVIAL_NODE},
    node::BenchNode,
};

struct Cold<'a> {
    node: &'a BenchNode,
    function: &'static str,
    /// The interpreter, started to do nothing.
    bare: Box<dyn Fn() -> anyhow::Result<Duration> + 'a>,
}

impl Scenario for Cold<'_> {
    async fn floor(&mut self) -> anyhow::Result<Duration> {
        (self.bare)()
    }

    async fn ours(&mut self) -> anyhow::Result<Sample> {
        Ok(self.node.cold_request(self.function).await?.into())
    }
}

pub(crate) async fn measure(effort: Effort, found: &mut Found) -> anyhow::Result<()> {
    let node = BenchNode::start_with(&["--idle", cold_start::IDLE])?;
    let python = cold_start::interpreter(&node).await?;
    for (name, fork) in [("executed", false), ("forked", true)] {
        let more = json!({ "memory_size": 256, "quell": { "fork_server": fork } });
        node.deploy(name, TRIVIAL, more).await?;
        let what = format!("cold start, Python, {name}");
        if fork && let Err(why) = node.forks(name).await? {
            found.skip(what, format!("nothing is forked here: {why}"));
            continue;
        }
        let bare = Box::new(|| cold_start::bare_start(&python, "pass"));
        let title = Title::new(format!("cold.python_{name}"), what).over("python3 -c pass, start to end");
        let mut cold = Cold { node: &node, function: name, bare };
        found.push(figure(title, effort.divided(4), &mut cold).await?);
    }
    let what = "cold start, Node.js";
    if let Err(why) = cold_start::bare_node() {
        found.skip(what, format!("there is no `node` on this machine: {why}"));
        return Ok(());
    }
    node.deploy("nodejs", TRIVIAL_NODE, json!({ "memory_size": 256, "runtime": "Node.js18.15" })).await?;
    let title = Title::new("cold.nodejs", what).over("node -e 0, start to end");
    let mut cold = Cold { node: &node, function: "nodejs", bare: Box::new(cold_start::bare_node) };
    found.push(figure(title, effort.divided(4), &mut cold).await?);
    Ok(())
}
