//! `quell receipts` and `quell receipt`: what was stopped, why, and on what evidence.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::Value;
use supervisor::{NodePart, Receipt};

use super::functions::not_there;
use crate::{
    args::{NodeArgs, Output, ReceiptsArgs},
    client::{Client, ClientError, encode},
    config::ClientConfig,
    output,
};

/// Receipts that are looked through for a request's; as many as the node gives at once.
const LOOKED_THROUGH: u32 = 500;

pub(crate) async fn receipt(cancel: &str, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let receipt = match fetch_receipt(&client, cancel).await {
        Ok(receipt) => receipt,
        Err(error) => return Err(no_receipt(&client, cancel, error).await),
    };
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

/// Why there is none: whoever named a request is told its cancel.
async fn no_receipt(client: &Client, id: &str, error: anyhow::Error) -> anyhow::Error {
    if !matches!(error.downcast_ref(), Some(ClientError::Refused { status: 404, .. })) {
        return error;
    }
    let path = format!("/quell/v1/requests/{}", encode(id));
    let request = client.json(Method::GET, &path, None).await.ok();
    let mut cancel = request.as_ref().and_then(|row| row["cancel_id"].as_str()).map(str::to_owned);
    if request.is_none() {
        // A synchronous one that is over is kept nowhere else.
        let page = fetch_receipts(client, LOOKED_THROUGH, None).await;
        let of = |receipt: &&Receipt| receipt.requests.iter().any(|row| row.request_id == id);
        cancel = page.ok().and_then(|(_, page)| Some(page.iter().find(of)?.cancel_id.clone()));
    }
    error.context(match (cancel, request) {
        (Some(cancel), _) => format!("{id} is a request; the receipt of its cancel: quell receipt {cancel}"),
        (None, Some(_)) => format!("{id} is a request, and was not cancelled; `quell tree {id}` shows it"),
        (None, None) => format!("there is no receipt {id}; `quell receipts` shows the last ones"),
    })
}

/// A page of receipts: as it came, and as they are.
async fn fetch_receipts(
    client: &Client,
    limit: u32,
    function: Option<&str>,
) -> anyhow::Result<(Value, Vec<Receipt>)> {
    let mut path = format!("/quell/v1/cancels?limit={limit}");
    if let Some(function) = function {
        path.push_str(&format!("&function={}", encode(&client.named(function))));
    }
    let page = client.json(Method::GET, &path, None).await?;
    let receipts = serde_json::from_value(page["receipts"].clone());
    Ok((page, receipts.context("the node's answer is not a list")?))
}

/// Whether a function is there; of one that has no receipts nobody knows it from the list.
async fn must_be_there(client: &Client, function: &str) -> anyhow::Result<()> {
    let path = client.function(function, "/config");
    match client.json(Method::GET, &path, None).await {
        Err(error @ ClientError::Refused { status: 404, .. }) => {
            Err(not_there(client, function, error.into()).await)
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

pub(crate) async fn receipts(args: &ReceiptsArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(&args.node)?)?;
    let (page, receipts) = fetch_receipts(&client, args.limit, args.function.as_deref()).await?;
    if let (true, Some(function)) = (receipts.is_empty(), &args.function) {
        must_be_there(&client, function).await?;
    }
    if args.node.output == Output::Json {
        output::line(page);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = receipts.iter().map(|receipt| {
        let first = receipt.asked_by.first();
        let why = first.and_then(|asked| asked.reason.clone()).unwrap_or_default();
        let bulk =
            first.and_then(|asked| asked.bulk.as_ref()).map(|key| format!("{key}: ")).unwrap_or_default();
        let how = format!("{} {}", receipt.level, receipt.scope);
        let (cancel, request) = (receipt.cancel_id.clone(), receipt.request_id.clone());
        [
            cancel,
            time(receipt.fenced_ms),
            request,
            how,
            receipt.result.clone(),
            touched(receipt),
            format!("{bulk}{why}"),
        ]
    });
    let header = ["CANCEL", "WHEN", "REQUEST", "HOW", "RESULT", "STOPPED+TOUCHED", "WHY"];
    output::table(header, &rows.collect::<Vec<_>>());
    Ok(ExitCode::SUCCESS)
}

/// Requests stopped, and those they took with them; and the parts that nodes were asked for, whose requests
/// their own receipts count.
fn touched(receipt: &Receipt) -> String {
    let (stopped, taken) = (receipt.requests.len(), receipt.co_tenants.len());
    let parts = match receipt.parts.len() {
        0 => return format!("{stopped}+{taken}"),
        1 => "1 part".to_owned(),
        many => format!("{many} parts"),
    };
    if stopped + taken == 0 { parts } else { format!("{stopped}+{taken}, {parts}") }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_counts_what_a_cancel_has_on_other_nodes() {
        for (requests, parts, said) in
            [(0, 0, "0+0"), (4, 0, "4+0"), (0, 1, "1 part"), (0, 5, "5 parts"), (2, 3, "2+0, 3 parts")]
        {
            let receipt = Receipt {
                requests: vec![supervisor::TouchedRequest::default(); requests],
                parts: vec![NodePart::default(); parts],
                ..Receipt::default()
            };
            assert_eq!(touched(&receipt), said);
        }
    }
}
