//! `quell tree`, `ls`, `functions`, `instances`: what there is.

use std::process::ExitCode;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};
use supervisor::{InstanceRow, NodeView, RequestRow, TreeView};

use super::plan::processes;
use crate::{
    args::{NodeArgs, Output},
    client::{Client, encode},
    config::ClientConfig,
    output,
};

pub(crate) async fn tree(request: &str, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let tree = fetch_tree(&client, request).await?;
    match node.output {
        Output::Json => output::line(serde_json::to_string(&tree)?),
        Output::Table => show_tree(&tree),
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn fetch_tree(client: &Client, request: &str) -> anyhow::Result<TreeView> {
    let path = format!("/quell/v1/requests/{}/tree", encode(request));
    let tree = client.json(Method::GET, &path, None).await?;
    serde_json::from_value(tree).context("the node's answer is not a tree")
}

/// Prints a tree, one request a line, indented by depth.
pub(crate) fn show_tree(tree: &TreeView) {
    let rows: Vec<[String; 6]> = tree
        .requests
        .iter()
        .map(|row| {
            let indent = "  ".repeat(usize::from(row.depth));
            let pid = row.pid.map(|pid| pid.to_string()).unwrap_or_default();
            [
                format!("{indent}{}", row.request_id),
                output::function(&row.function, &row.version),
                state(row),
                row.instance.clone().unwrap_or_default(),
                pid,
                output::labels(&row.labels),
            ]
        })
        .collect();
    output::table(["REQUEST", "FUNCTION", "STATE", "INSTANCE", "PID", "LABELS"], &rows);
    if tree.truncated {
        output::line("... and more");
    }
}

/// Where a request stands, in words.
pub(super) fn state(row: &RequestRow) -> String {
    let kind = if row.asynchronous { "async" } else { "sync" };
    match (&row.stopping, row.code) {
        (_, Some(code)) => format!("{} {code}", row.state),
        (Some(level), None) => format!("{} {kind}, stopping ({level})", row.state),
        (None, None) => format!("{} {kind}", row.state),
    }
}

pub(crate) async fn ls(selection: Option<&str>, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    if let Some(selection) = selection {
        return ls_of(&client, selection, node.output).await;
    }
    let view = fetch_node(&client).await?;
    if node.output == Output::Json {
        output::line(serde_json::to_string(&view)?);
        return Ok(ExitCode::SUCCESS);
    }
    show_requests(&view.requests);
    output::line("");
    show_instances(&view.instances);
    if view.truncated {
        output::line(format_args!("... {} live requests in all", view.live));
    }
    Ok(ExitCode::SUCCESS)
}

/// Those that have something in common: the first 500.
async fn ls_of(client: &Client, selection: &str, how: Output) -> anyhow::Result<ExitCode> {
    let path = format!("/quell/v1/requests?limit=500&where={}", encode(selection));
    let page = client.json(Method::GET, &path, None).await?;
    if how == Output::Json {
        output::line(page);
        return Ok(ExitCode::SUCCESS);
    }
    let count = page["count"].as_u64().unwrap_or_default();
    let rows: Vec<RequestRow> =
        serde_json::from_value(page["requests"].clone()).context("the node's answer is not a list")?;
    show_requests(&rows);
    if count > rows.len() as u64 {
        output::line(format_args!("... {count} in all"));
    }
    Ok(ExitCode::SUCCESS)
}

fn show_requests(rows: &[RequestRow]) {
    requests_table(rows).into_iter().for_each(output::line);
}

/// Requests, one a line.
pub(super) fn requests_table(rows: &[RequestRow]) -> Vec<String> {
    let rows: Vec<[String; 6]> = rows
        .iter()
        .map(|row| {
            let parent = row.parent.clone().unwrap_or_else(|| "-".to_owned());
            let instance = row.instance.clone().unwrap_or_default();
            let function = output::function(&row.function, &row.version);
            [row.request_id.clone(), function, state(row), instance, parent, output::labels(&row.labels)]
        })
        .collect();
    output::table_lines(["REQUEST", "FUNCTION", "STATE", "INSTANCE", "PARENT", "LABELS"], &rows)
}

fn show_instances(rows: &[InstanceRow]) {
    let rows: Vec<[String; 5]> = rows
        .iter()
        .map(|row| {
            let load = format!("{}/{}", row.requests.len(), row.capacity);
            let function = output::function(&row.function, &row.version);
            [row.instance.clone(), function, row.state.clone(), load, processes(row)]
        })
        .collect();
    output::table(["INSTANCE", "FUNCTION", "STATE", "REQUESTS", "PROCESSES"], &rows);
}

pub(crate) async fn instances(node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let view = fetch_node(&client).await?;
    match node.output {
        Output::Json => {
            output::line(json!({ "instances": view.instances, "fork_servers": view.fork_servers }))
        }
        Output::Table => show_instances(&view.instances),
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn functions(node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let (mut functions, mut marker) = (Vec::new(), 0);
    loop {
        let path = format!("{}?marker={marker}", client.functions());
        let page = client.json(Method::GET, &path, None).await?;
        functions.extend(page["functions"].as_array().cloned().unwrap_or_default());
        let next = page["next_marker"].as_u64().unwrap_or_default();
        if next <= marker {
            break; // 0 after the last; a marker that stays would never end
        }
        marker = next;
    }
    if node.output == Output::Json {
        output::line(json!({ "functions": functions }));
        return Ok(ExitCode::SUCCESS);
    }
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_i64().map(|number| number.to_string()).unwrap_or_default();
    let rows = functions.iter().map(|row| {
        let name = format!("{}:{}", text(row, "package"), text(row, "func_name"));
        let most = match row["strategy_config"]["concurrency"].as_i64() {
            Some(-1) => "any".to_owned(),
            Some(0) => "0 (disabled)".to_owned(),
            _ => number(&row["strategy_config"]["concurrency"]),
        };
        let at_once = number(&row["strategy_config"]["concurrent_num"]);
        let (timeout, memory) = (number(&row["timeout"]), number(&row["memory_size"]));
        [name, text(row, "runtime"), timeout, memory, most, at_once, text(row, "last_modified")]
    });
    let header = ["FUNCTION", "RUNTIME", "TIMEOUT S", "MEMORY MIB", "INSTANCES", "REQUESTS EACH", "CHANGED"];
    output::table(header, &rows.collect::<Vec<_>>());
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn fetch_node(client: &Client) -> anyhow::Result<NodeView> {
    let view = client.json(Method::GET, "/quell/v1/node", None).await?;
    serde_json::from_value(view).context("the node's answer is not a node")
}
