//! `quell nodes`: who shares the store, and how they stand.

use std::process::ExitCode;

use anyhow::Context as _;
use api::NodesView;
use reqwest::Method;

use crate::{
    args::{NodeArgs, Output},
    client::Client,
    config::ClientConfig,
    output,
};

pub(crate) async fn nodes(node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let answer = client.json(Method::GET, "/quell/v1/nodes", None).await?;
    if node.output == Output::Json {
        output::line(answer);
        return Ok(ExitCode::SUCCESS);
    }
    let NodesView { this, nodes } =
        serde_json::from_value(answer).context("the node's answer is not a list of nodes")?;
    let rows = nodes.into_iter().map(|node| {
        let lease = match node.state.as_str() {
            "live" | "draining" => format!("{:.1} s", node.lease_left_ms as f64 / 1_000.0),
            _ => "-".to_owned(),
        };
        let asked = if node.node == this { " *" } else { "" };
        [
            format!("{}{asked}", node.node),
            node.state,
            lease,
            node.owns.to_string(),
            node.epoch.to_string(),
            node.version,
            node.endpoint,
            node.labels.join(", "),
        ]
    });
    output::table(
        ["NODE", "STATE", "LEASE", "REQUESTS", "EPOCH", "VERSION", "ENDPOINT", "LABELS"],
        &rows.collect::<Vec<_>>(),
    );
    Ok(ExitCode::SUCCESS)
}
