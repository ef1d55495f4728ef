//! `quell nodes`: who shares the store, and how they stand.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Context as _;
use api::{NodesView, SharedNode};
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
    let leases = leases(&nodes);
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
    if leases.len() > 1 {
        let each: Vec<String> = leases
            .into_iter()
            .map(|(ms, nodes)| format!("{} s on {}", f64::from(ms) / 1_000.0, nodes.join(", ")))
            .collect();
        output::note(format_args!("lease_s differs: {}; give all nodes the same", each.join("; ")));
    }
    Ok(ExitCode::SUCCESS)
}

/// Which lengths of leases the nodes that are there have, with their endpoints. A node of an older version does not say.
fn leases(nodes: &[SharedNode]) -> BTreeMap<u32, Vec<String>> {
    let mut leases = BTreeMap::<u32, Vec<String>>::new();
    for node in nodes {
        if matches!(node.state.as_str(), "live" | "draining") && node.lease_ms > 0 {
            leases.entry(node.lease_ms).or_default().push(node.endpoint.clone());
        }
    }
    leases
}
