//! `quell tree`, `ls`, `instances`: what there is, and what became of a request.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};
use supervisor::{InstanceRow, NodeView, RequestRow, TreeView};

use super::plan::processes;
use crate::{
    args::{NodeArgs, Output},
    client::{Client, ClientError, encode},
    config::ClientConfig,
    output,
};

pub(crate) async fn tree(request: &str, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let tree = match fetch_tree(&client, request).await {
        Ok(tree) => tree,
        Err(error) if is_refused(&error, 404) => {
            return tree_of_one(&client, request, node.output, error).await;
        }
        Err(error) => return Err(error),
    };
    match node.output {
        Output::Json => output::line(serde_json::to_string(&tree)?),
        Output::Table => show_tree(&tree),
    }
    Ok(ExitCode::SUCCESS)
}

fn is_refused(error: &anyhow::Error, with: u16) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::Refused { status, .. }) if *status == with)
}

/// A request that is not live: if it was asynchronous the node keeps what became of it.
async fn tree_of_one(
    client: &Client,
    request: &str,
    how: Output,
    no_tree: anyhow::Error,
) -> anyhow::Result<ExitCode> {
    let kept = match client.json(Method::GET, &format!("/quell/v1/requests/{}", encode(request)), None).await
    {
        Ok(kept) => kept,
        Err(ClientError::Refused { status: 404, .. }) => {
            return Err(no_tree.context(format!(
                "{request} is not live, and not kept: only asynchronous requests are, for --keep-days of the node (`quell ls` \
                 shows those that live)"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    match how {
        Output::Json => output::line(kept),
        Output::Table => show_kept(&kept),
    }
    Ok(ExitCode::SUCCESS)
}

fn show_kept(kept: &Value) {
    let text = |name: &str| kept[name].as_str().unwrap_or_default().to_owned();
    let labels: BTreeMap<String, String> = serde_json::from_value(kept["labels"].clone()).unwrap_or_default();
    let row = [
        text("request_id"),
        output::function(&text("function"), &text("version")),
        text("status"),
        kept["error_code"].as_i64().map(|code| code.to_string()).unwrap_or_default(),
        text("start_time"),
        text("end_time"),
        output::labels(&labels),
    ];
    output::table(["REQUEST", "FUNCTION", "STATUS", "CODE", "BEGAN (UTC)", "ENDED (UTC)", "LABELS"], &[row]);
    let said = text("error_message");
    if !said.is_empty() {
        output::line(output::for_people(&said));
    }
    if let Some(cancel) = kept["cancel_id"].as_str() {
        output::line(format_args!("it was cancelled: quell receipt {cancel}"));
    }
}

pub(crate) async fn fetch_tree(client: &Client, request: &str) -> anyhow::Result<TreeView> {
    let path = format!("/quell/v1/requests/{}/tree", encode(request));
    let tree = client.json(Method::GET, &path, None).await?;
    serde_json::from_value(tree).context("the node's answer is not a tree")
}

/// Prints a tree, one request a line, indented by depth.
pub(crate) fn show_tree(tree: &TreeView) {
    let now = output::now_ms();
    let rows: Vec<[String; 7]> = tree
        .requests
        .iter()
        .map(|row| {
            let indent = "  ".repeat(usize::from(row.depth));
            let pid = row.pid.map(|pid| pid.to_string()).unwrap_or_default();
            [
                format!("{indent}{}", row.request_id),
                output::function(&row.function, &row.version),
                state(row),
                age(row, now),
                place(row),
                pid,
                output::labels(&row.labels),
            ]
        })
        .collect();
    output::table(["REQUEST", "FUNCTION", "STATE", "AGE", "INSTANCE", "PID", "LABELS"], &rows);
    if tree.truncated {
        output::line("... and more");
    }
}

/// The instance that a request is on, or the node if that is another one, or what a node must have.
fn place(row: &RequestRow) -> String {
    let node = row.node.as_ref().map(|node| format!("node {}", node.get(..8).unwrap_or(node)));
    row.instance.clone().or(node).or_else(|| waits_for(row)).unwrap_or_default()
}

/// The labels of a node that a request waits for, and whether there is one.
fn waits_for(row: &RequestRow) -> Option<String> {
    let wanted = row.waits_for.as_ref()?;
    let nobody = if wanted.live_nodes == Some(0) { " (no node)" } else { "" };
    Some(format!("needs {}{nobody}", wanted.node_labels.join(",")))
}

/// How old a request is; of one that is over and forgotten nobody knows.
pub(super) fn age(row: &RequestRow, now_ms: i64) -> String {
    row.created_ms.map(|created| output::age(created, now_ms)).unwrap_or_default()
}

/// Where a request stands, in words.
pub(super) fn state(row: &RequestRow) -> String {
    let kind = if row.asynchronous == Some(true) { "async" } else { "sync" };
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
    match view.node {
        // Where several nodes share a store the node shows itself alone, and its list all of them.
        Some(_) => show_page(&fetch_page(&client, "").await?)?,
        None => show_requests(&view.requests, None),
    }
    output::line("");
    show_instances(&view.instances);
    if view.node.is_none() && view.truncated {
        output::line(format_args!("... {} live requests in all", view.live));
    }
    Ok(ExitCode::SUCCESS)
}

/// Those that have something in common: the first 500.
async fn ls_of(client: &Client, selection: &str, how: Output) -> anyhow::Result<ExitCode> {
    let page = fetch_page(client, selection).await?;
    match how {
        Output::Json => output::line(page),
        Output::Table => show_page(&page)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetch_page(client: &Client, selection: &str) -> anyhow::Result<Value> {
    let path = format!("/quell/v1/requests?limit=500&where={}", encode(selection));
    Ok(client.json(Method::GET, &path, None).await?)
}

fn show_page(page: &Value) -> anyhow::Result<()> {
    let count = page["count"].as_u64().unwrap_or_default();
    let rows: Vec<RequestRow> =
        serde_json::from_value(page["requests"].clone()).context("the node's answer is not a list")?;
    show_requests(&rows, page["node"].as_str());
    if count > rows.len() as u64 {
        output::line(format_args!("... {count} in all"));
    }
    Ok(())
}

/// `asked`: the node that was asked, where several share its store.
fn show_requests(rows: &[RequestRow], asked: Option<&str>) {
    let elsewhere = asked.is_some() && rows.iter().any(|row| row.node.as_deref() != asked);
    requests_table(rows, elsewhere).into_iter().for_each(output::line);
}

/// Requests, one a line; `nodes`: with the node of each.
pub(super) fn requests_table(rows: &[RequestRow], nodes: bool) -> Vec<String> {
    let now = output::now_ms();
    let lines: Vec<[String; 7]> = rows
        .iter()
        .map(|row| {
            let parent = row.parent.clone().unwrap_or_else(|| "-".to_owned());
            let instance = row.instance.clone().or_else(|| waits_for(row)).unwrap_or_default();
            let function = output::function(&row.function, &row.version);
            let age = age(row, now);
            [row.request_id.clone(), function, state(row), age, instance, parent, output::labels(&row.labels)]
        })
        .collect();
    let head = ["REQUEST", "FUNCTION", "STATE", "AGE", "INSTANCE", "PARENT", "LABELS"];
    if !nodes {
        return output::table_lines(head, &lines);
    }
    let node = |row: &RequestRow| row.node.clone().unwrap_or_else(|| "any".to_owned());
    let with_node = |[request, function, state, age, rest @ ..]: [String; 7], node| {
        let [instance, parent, labels] = rest;
        [request, function, state, age, node, instance, parent, labels]
    };
    let lines: Vec<[String; 8]> =
        lines.into_iter().zip(rows).map(|(line, row)| with_node(line, node(row))).collect();
    output::table_lines(
        ["REQUEST", "FUNCTION", "STATE", "AGE", "NODE", "INSTANCE", "PARENT", "LABELS"],
        &lines,
    )
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

pub(crate) async fn fetch_node(client: &Client) -> anyhow::Result<NodeView> {
    let view = client.json(Method::GET, "/quell/v1/node", None).await?;
    serde_json::from_value(view).context("the node's answer is not a node")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_a_request_is_no_number_and_what_it_waits_for_is_said() {
        let row = |created: Value| -> RequestRow {
            let row = json!({
                "request_id": "a", "parent": null, "depth": 0, "function": "", "state": "settled", "code": 0,
                "asynchronous": null, "attempt": 1, "created_ms": created,
            });
            serde_json::from_value(row).unwrap()
        };
        assert_eq!(age(&row(Value::Null), 90_000), "");
        assert_eq!(age(&row(json!(1)), 90_001), "90s");
        assert_eq!(state(&row(Value::Null)), "settled 0");
        let waits = |live_nodes| {
            let node_labels = vec!["gpu".to_owned(), "zone=a".to_owned()];
            let waits_for = Some(supervisor::WaitsFor { node_labels, live_nodes });
            place(&RequestRow { waits_for, ..row(Value::Null) })
        };
        assert_eq!(waits(Some(0)), "needs gpu,zone=a (no node)");
        assert_eq!(waits(None), "needs gpu,zone=a");
    }
}
