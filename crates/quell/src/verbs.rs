//! The verbs of the client: invoke, cancel, tree, ls, receipt, doctor.

use std::{collections::BTreeSet, io::Read as _, path::Path, process::ExitCode};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};
use supervisor::{
    InstanceRow, NodeView, PlanView, Receipt, RequestRow, TreeView,
    group::{Containment, Isolation},
};

use crate::{
    cli::{CancelArgs, NodeArgs, Output},
    client::{Client, ClientError, Reply, encode},
    config::ClientConfig,
    images, output,
    runtime_user::{self, RuntimeUser},
    serve,
};

pub(crate) async fn invoke(
    function: &str,
    event: &str,
    asynchronous: bool,
    labels: &[String],
    node: &NodeArgs,
) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let mut event = event.to_owned();
    if event == "-" {
        event.clear();
        std::io::stdin().read_to_string(&mut event).context("the event could not be read from stdin")?;
    }
    let verb = if asynchronous { "/invocations-async" } else { "/invocations" };
    let path = client.function(function, verb);
    let labels = labels.join(",");
    let headers = [("X-Quell-Labels", labels.as_str())];
    let headers = if labels.is_empty() { &headers[..0] } else { &headers[..] };
    let reply = client.send(Method::POST, &path, headers, Some(event.into_bytes())).await?;
    if asynchronous {
        let id = reply.json()?.get("request_id").and_then(Value::as_str).map(str::to_owned);
        output::line(id.context("the node's answer has no request_id")?);
        return Ok(ExitCode::SUCCESS);
    }
    if reply.is_success() {
        output::line(String::from_utf8_lossy(&reply.body));
        return Ok(ExitCode::SUCCESS);
    }
    let error = reply.refusal();
    if reply.header("X-Func-Err-Code").is_some_and(|code| code != "0") {
        output::note(format_args!("quell: {error}"));
        return Ok(ExitCode::from(output::FUNCTION_FAILED));
    }
    Err(error.into())
}

pub(crate) async fn cancel(args: &CancelArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(&args.node)?)?;
    if args.dry_run {
        return plan(args, &client).await;
    }
    let function = match &args.function {
        Some(function) => function.clone(),
        None => function_of(&client, &args.request).await?,
    };
    let mut body = json!({
        "request_id": args.request,
        "recursive": args.recursive,
        "force": args.force,
    });
    if let (Some(reason), Some(body)) = (&args.reason, body.as_object_mut()) {
        body.insert("reason".to_owned(), json!(reason));
    }
    let path = client.function(&function, "/cancel");
    let reply = client.send(Method::POST, &path, &[], Some(body.to_string().into_bytes())).await?;
    report(args, &client, &reply).await
}

/// Says what a cancel came to, with the evidence from its receipt.
async fn report(args: &CancelArgs, client: &Client, reply: &Reply) -> anyhow::Result<ExitCode> {
    let stop = reply.header("X-Quell-Stop").unwrap_or_default().to_owned();
    let Some(cancel) = reply.header("X-Quell-Cancel-Id") else { return Err(reply.refusal().into()) };
    let receipt = fetch_receipt(client, cancel).await?;
    match args.node.output {
        Output::Json => output::line(serde_json::to_string(&receipt)?),
        Output::Table => {
            output::line(format_args!("{stop}  receipt {cancel}"));
            show_receipt(&receipt);
        }
    }
    if !reply.is_success() && stop != "unkillable" {
        return Err(reply.refusal().into());
    }
    Ok(match stop.as_str() {
        "unkillable" => {
            output::note(format_args!("quell: {}", reply.refusal()));
            ExitCode::from(output::UNKILLABLE)
        }
        "draining" => ExitCode::from(output::DRAINING),
        _ => ExitCode::SUCCESS,
    })
}

async fn plan(args: &CancelArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let path = format!(
        "/quell/v1/requests/{}/plan?recursive={}&force={}",
        encode(&args.request),
        args.recursive,
        args.force
    );
    let plan = client.json(Method::GET, &path, None).await?;
    if args.node.output == Output::Json {
        output::line(plan);
        return Ok(ExitCode::SUCCESS);
    }
    let plan: PlanView = serde_json::from_value(plan).context("the node's answer is not a plan")?;
    let rows: Vec<[String; 4]> = plan
        .stops
        .iter()
        .map(|stop| {
            let how = match &stop.at_grace_end {
                Some(then) => format!("{}, then {then}", stop.how),
                None => stop.how.clone(),
            };
            [
                stop.request_id.clone(),
                output::function(&stop.function, &stop.version),
                how,
                stop.instance.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(["WOULD STOP", "FUNCTION", "HOW", "INSTANCE"], &rows);
    for instance in &plan.kills {
        output::line(format_args!("would kill instance {}: {}", instance.instance, processes(instance)));
    }
    for request in &plan.collateral {
        output::line(format_args!("would end with 4208 as a co-tenant: {request}"));
    }
    for request in &plan.requeued {
        output::line(format_args!("would wait again: {request}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn processes(instance: &InstanceRow) -> String {
    let names = instance.processes.iter().map(|process| format!("{} ({})", process.comm, process.pid));
    names.collect::<Vec<_>>().join(", ")
}

/// The function of a request, live or stored.
async fn function_of(client: &Client, request: &str) -> anyhow::Result<String> {
    let path = format!("/quell/v1/requests/{}", encode(request));
    let row = match client.json(Method::GET, &path, None).await {
        Ok(row) => row,
        Err(error @ ClientError::Refused { status: 404, .. }) => {
            return Err(anyhow::Error::new(error).context(format!(
                "the node knows no request {request}; if it is an old synchronous one, name its function with --function"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    let function = row.get("function").and_then(Value::as_str).filter(|function| !function.is_empty());
    Ok(function.context("the node's answer names no function")?.to_owned())
}

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
    let rows: Vec<[String; 5]> = tree
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
            ]
        })
        .collect();
    output::table(["REQUEST", "FUNCTION", "STATE", "INSTANCE", "PID"], &rows);
    if tree.truncated {
        output::line("... and more");
    }
}

fn state(row: &RequestRow) -> String {
    let kind = if row.asynchronous { "async" } else { "sync" };
    match (&row.stopping, row.code) {
        (_, Some(code)) => format!("{} {code}", row.state),
        (Some(level), None) => format!("{} {kind}, stopping ({level})", row.state),
        (None, None) => format!("{} {kind}", row.state),
    }
}

pub(crate) async fn ls(node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let view = fetch_node(&client).await?;
    if node.output == Output::Json {
        output::line(serde_json::to_string(&view)?);
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 5]> = view
        .requests
        .iter()
        .map(|row| {
            let parent = row.parent.clone().unwrap_or_else(|| "-".to_owned());
            let instance = row.instance.clone().unwrap_or_default();
            [
                row.request_id.clone(),
                output::function(&row.function, &row.version),
                state(row),
                instance,
                parent,
            ]
        })
        .collect();
    output::table(["REQUEST", "FUNCTION", "STATE", "INSTANCE", "PARENT"], &rows);
    output::line("");
    let rows: Vec<[String; 5]> = view
        .instances
        .iter()
        .map(|row| {
            let load = format!("{}/{}", row.requests.len(), row.capacity);
            [
                row.instance.clone(),
                output::function(&row.function, &row.version),
                row.state.clone(),
                load,
                processes(row),
            ]
        })
        .collect();
    output::table(["INSTANCE", "FUNCTION", "STATE", "REQUESTS", "PROCESSES"], &rows);
    if view.truncated {
        output::line(format_args!("... {} live requests in all", view.live));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn fetch_node(client: &Client) -> anyhow::Result<NodeView> {
    let view = client.json(Method::GET, "/quell/v1/node", None).await?;
    serde_json::from_value(view).context("the node's answer is not a node")
}

pub(crate) async fn receipt(cancel: &str, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let receipt = fetch_receipt(&client, cancel).await?;
    match node.output {
        Output::Json => output::line(serde_json::to_string(&receipt)?),
        Output::Table => show_receipt(&receipt),
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn fetch_receipt(client: &Client, cancel: &str) -> anyhow::Result<Receipt> {
    let path = format!("/quell/v1/receipts/{}", encode(cancel));
    let receipt = client.json(Method::GET, &path, None).await?;
    serde_json::from_value(receipt).context("the node's answer is not a receipt")
}

/// Prints a receipt: who asked and why, each request with its evidence, each instance with its proof.
pub(crate) fn show_receipt(receipt: &Receipt) {
    output::line(format_args!(
        "{} {}, {} {}, {}",
        receipt.level, receipt.request_id, receipt.scope, receipt.function_urn, receipt.cause
    ));
    for asked in &receipt.asked_by {
        let reason = asked.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let remote = asked.remote.as_deref().map(|remote| format!(" from {remote}")).unwrap_or_default();
        if !asked.credential.is_empty() {
            output::line(format_args!(
                "asked by {}{remote} at {} ({}, {}){reason}",
                asked.credential,
                time(asked.at_ms),
                asked.scope,
                asked.level
            ));
        }
    }
    show_touched_requests(receipt);
    show_touched_instances(receipt);
    let unseen: BTreeSet<&String> = receipt.instances.iter().flat_map(|row| &row.cannot_see).collect();
    for unseen in unseen {
        output::line(format_args!("this containment cannot see {unseen}"));
    }
    if let Some(took) = receipt.took_us {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of one cancel, shown to two digits")]
        let ms = took as f64 / 1000.0;
        output::line(format_args!("{} {ms:.2} ms after the fence", receipt.result));
    }
    if let Some(later) = receipt.stopped_later_ms {
        output::line(format_args!("everything of it is proven gone since {}", time(later)));
    }
}

fn show_touched_requests(receipt: &Receipt) {
    let rows: Vec<[String; 6]> = receipt
        .requests
        .iter()
        .map(|row| (row, "in scope"))
        .chain(receipt.co_tenants.iter().map(|row| (row, "co-tenant")))
        .map(|(row, why)| {
            [
                row.request_id.clone(),
                output::function(&row.function, &row.version),
                why.to_owned(),
                row.found.clone(),
                row.code.map(|code| code.to_string()).unwrap_or_default(),
                row.evidence.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(["REQUEST", "FUNCTION", "WHY", "FOUND", "CODE", "EVIDENCE"], &rows);
}

fn show_touched_instances(receipt: &Receipt) {
    let rows: Vec<[String; 5]> = receipt
        .instances
        .iter()
        .map(|row| {
            let killed = row.signals.iter().any(|signal| signal == "killed");
            let others = if killed { row.other_processes.to_string() } else { String::new() };
            let proof =
                if row.survivors.is_empty() { row.proof.join(", ") } else { row.survivors.join("; ") };
            [
                row.instance.clone(),
                row.signals.join(", "),
                row.exit.clone().unwrap_or_default(),
                others,
                proof,
            ]
        })
        .collect();
    if !rows.is_empty() {
        output::table(["INSTANCE", "SENT", "MAIN PROCESS", "OTHERS KILLED", "PROVEN BY"], &rows);
    }
}

/// Milliseconds since the epoch, for people: UTC, to the second.
fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|at| at.strftime("%FT%TZ").to_string()).unwrap_or_default()
}

/// Probes containment the way `serve` does and says what it found.
pub(crate) fn doctor(data: &Path) -> anyhow::Result<ExitCode> {
    // The folder may not be there yet; then what is above it must be passed through all the same.
    let there = data.ancestors().find_map(|folder| match folder.as_os_str().is_empty() {
        true => std::env::current_dir().ok(),
        false => folder.canonicalize().ok(),
    });
    let images = images::described(Path::new(""))?;
    let chosen = runtime_user::choose(RuntimeUser::Auto, there.as_deref(), &images, serve::helper)?;
    let containment = Containment::probe("doctor", Isolation::Auto, &serve::helper(chosen.user))?;
    for layer in containment.layers() {
        output::line(layer);
    }
    output::line(&chosen);
    for limit in containment.limits() {
        output::line(limit);
    }
    output::line(match containment.cannot_fork() {
        None => "fork servers (possible): for functions that ask for one; each row and receipt names what a forked \
                 instance has"
            .to_owned(),
        Some(why) => format!("fork servers (not possible): {why}; such functions are executed"),
    });
    containment.close().context("the probe's cgroup stays behind")?;
    Ok(ExitCode::SUCCESS)
}
