//! `quell receipts` and `quell receipt`: what was stopped, why, and on what evidence.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::Context as _;
use reqwest::Method;
use supervisor::{NodePart, Receipt};

use crate::{
    args::{NodeArgs, Output, ReceiptsArgs},
    client::{Client, encode},
    config::ClientConfig,
    output,
};

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

pub(crate) async fn receipts(args: &ReceiptsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(&args.node)?)?;
    let mut path = format!("/quell/v1/cancels?limit={}", args.limit);
    if let Some(function) = &args.function {
        path.push_str(&format!("&function={}", encode(&client.named(function))));
    }
    let page = client.json(Method::GET, &path, None).await?;
    if args.node.output == Output::Json {
        output::line(page);
        return Ok(ExitCode::SUCCESS);
    }
    let receipts: Vec<Receipt> =
        serde_json::from_value(page["receipts"].clone()).context("the node's answer is not a list")?;
    let rows = receipts.iter().map(|receipt| {
        let first = receipt.asked_by.first();
        let why = first.and_then(|asked| asked.reason.clone()).unwrap_or_default();
        let bulk =
            first.and_then(|asked| asked.bulk.as_ref()).map(|key| format!("{key}: ")).unwrap_or_default();
        let how = format!("{} {}", receipt.level, receipt.scope);
        let touched = format!("{}+{}", receipt.requests.len(), receipt.co_tenants.len());
        let (cancel, request) = (receipt.cancel_id.clone(), receipt.request_id.clone());
        [
            cancel,
            time(receipt.fenced_ms),
            request,
            how,
            receipt.result.clone(),
            touched,
            format!("{bulk}{why}"),
        ]
    });
    let header = ["CANCEL", "WHEN", "REQUEST", "HOW", "RESULT", "STOPPED+TOUCHED", "WHY"];
    output::table(header, &rows.collect::<Vec<_>>());
    Ok(ExitCode::SUCCESS)
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
    if receipt.parts.is_empty() || !receipt.requests.is_empty() {
        show_touched_requests(receipt);
    }
    show_touched_instances(receipt);
    show_parts(receipt);
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

/// What other nodes stopped; each has a receipt of its own, whose id is the detail.
fn show_parts(receipt: &Receipt) {
    let row = |part: &NodePart| {
        [part.request_id.clone(), part.node.clone(), part.result.clone(), part.detail.clone()]
    };
    let rows: Vec<[String; 4]> = receipt.parts.iter().map(row).collect();
    if !rows.is_empty() {
        output::table(["REQUEST", "ON NODE", "RESULT", "THAT NODE'S RECEIPT, OR WHY"], &rows);
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
