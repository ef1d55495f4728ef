//! `quell cancel` of one request.

use std::process::ExitCode;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    bulk,
    plan::plan,
    receipts::{fetch_receipt, show_receipt},
};
use crate::{
    args::{CancelArgs, Output},
    client::{Client, ClientError, Reply, encode},
    config::ClientConfig,
    output,
    signals::EndSignals,
};

pub(crate) async fn cancel(args: &CancelArgs) -> anyhow::Result<ExitCode> {
    if args.dry_run {
        return plan(&args.of).await;
    }
    let Some(request) = &args.of.request else { return bulk::cancel(args).await };
    let client = Client::new(ClientConfig::of(&args.of.node)?)?;
    let function = match &args.function {
        Some(function) => function.clone(),
        None => function_of(&client, request).await?,
    };
    let mut body = json!({
        "request_id": request,
        "recursive": args.of.recursive,
        "force": args.of.force,
    });
    if let (Some(reason), Some(body)) = (&args.reason, body.as_object_mut()) {
        body.insert("reason".to_owned(), json!(reason));
    }
    let path = client.function(&function, "/cancel");
    let mut signals = EndSignals::listen()?;
    let reply = tokio::select! {
        reply = client.send(Method::POST, &path, &[], Some(body.to_string().into_bytes())) => reply?,
        () = signals.next() => {
            output::note(format_args!(
                "quell: the node goes on with the cancel of {request}: `quell tree {request}` tells how it stands, `quell \
                 receipts` what it came to"
            ));
            return Ok(ExitCode::from(output::INTERRUPTED));
        }
    };
    report(args, &client, request, &reply).await
}

/// Says what a cancel came to, with the evidence from its receipt.
async fn report(
    args: &CancelArgs,
    client: &Client,
    request: &str,
    reply: &Reply,
) -> anyhow::Result<ExitCode> {
    let stop = reply.header("X-Quell-Stop").unwrap_or_default().to_owned();
    let Some(cancel) = reply.header("X-Quell-Cancel-Id") else {
        return Err(not_cancelled(request, reply.refusal(), args.of.node.output));
    };
    // What the node has said holds, whether or not it can say more: a drain may end with this very cancel.
    let receipt = fetch_receipt(client, cancel).await.inspect_err(|error| {
        output::note(format_args!(
            "quell: its receipt cannot be read now ({error:#}); later: quell receipt {cancel}"
        ));
    });
    match (args.of.node.output, receipt) {
        (Output::Json, Ok(receipt)) => output::line(serde_json::to_string(&receipt)?),
        (Output::Json, Err(_)) => {
            output::line(json!({ "cancel_id": cancel, "request_id": request, "result": stop }));
        }
        (Output::Table, receipt) => {
            output::line(format_args!("{stop}  receipt {cancel}"));
            receipt.iter().for_each(show_receipt);
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

/// Why nothing was cancelled, in words for whoever did not expect that; programs get the node's code as well.
pub(super) fn not_cancelled(request: &str, refusal: ClientError, how: Output) -> anyhow::Error {
    let ClientError::Refused { status: 400, message, .. } = &refusal else { return refusal.into() };
    let Some(said) = message.strip_prefix("Invalid RequestId") else { return refusal.into() };
    let Some(status) = said.strip_prefix(": ") else {
        let hint = format!("that function has no request {request}, or the node has forgotten it");
        return anyhow::Error::new(refusal).context(hint);
    };
    let hint = over(request, status);
    match how {
        Output::Json => anyhow::Error::new(refusal).context(hint),
        Output::Table => Over(hint).into(),
    }
}

/// It ended before it could be cancelled; in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Over(pub(super) String);

/// The same words for whoever cancels and whoever only plans to.
pub(super) fn over(request: &str, status: &str) -> String {
    format!("request {request} has already ended: {status}; nothing to cancel")
}

/// The function of a request, live or stored.
async fn function_of(client: &Client, request: &str) -> anyhow::Result<String> {
    let path = format!("/quell/v1/requests/{}", encode(request));
    let row = match client.json(Method::GET, &path, None).await {
        Ok(row) => row,
        Err(error @ ClientError::Refused { status: 404, .. }) => {
            return Err(anyhow::Error::new(error).context(format!(
                "this project has no request {request} that the node knows (`quell ls` shows those that live); if it is a \
                 synchronous one that is over, or of another node, name its function with --function"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    let function = row.get("function").and_then(Value::as_str).filter(|function| !function.is_empty());
    Ok(function.context("the node's answer names no function")?.to_owned())
}
