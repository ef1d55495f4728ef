//! `quell plan`, and `quell cancel --dry-run`: what would be stopped, and who else would be touched.

use std::process::ExitCode;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::json;
use supervisor::{InstanceRow, PlanView};

use super::{
    bulk,
    cancel::{Over, over},
};
use crate::{
    args::{Output, PlanArgs},
    client::{Client, ClientError, encode},
    config::ClientConfig,
    output,
};

pub(crate) async fn plan(args: &PlanArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(&args.node)?)?;
    let Some(request) = &args.request else { return bulk::show_plan_of(args, &client).await };
    let plan = match fetch_plan(&client, request, args.recursive, args.force).await {
        Ok(plan) => plan,
        Err(error) => return not_planned(&client, request, error, args.node.output).await,
    };
    if args.node.output == Output::Json {
        output::line(serde_json::to_string(&plan)?);
        return Ok(ExitCode::SUCCESS);
    }
    let now = output::now_ms();
    let rows: Vec<[String; 5]> = plan
        .stops
        .iter()
        .map(|stop| {
            let how = match &stop.at_grace_end {
                Some(then) => format!("{}, then {then}", stop.how),
                None => stop.how.clone(),
            };
            let on = stop.node.as_ref().map(|node| format!("on node {node}"));
            [
                stop.request_id.clone(),
                output::function(&stop.function, &stop.version),
                if stop.created_ms == 0 { String::new() } else { output::age(stop.created_ms, now) },
                how,
                stop.instance.clone().or(on).unwrap_or_default(),
            ]
        })
        .collect();
    output::table(["WOULD STOP", "FUNCTION", "AGE", "HOW", "INSTANCE"], &rows);
    for instance in &plan.kills {
        output::line(format_args!("would kill instance {}: {}", instance.instance, processes(instance)));
    }
    for request in &plan.collateral {
        output::line(format_args!("would end with 4208 as a co-tenant: {request}"));
    }
    for request in &plan.requeued {
        output::line(format_args!("would wait again: {request}"));
    }
    bulk::elsewhere(plan.elsewhere).into_iter().for_each(output::line);
    Ok(ExitCode::SUCCESS)
}

/// Why there is no plan, for whoever named a request that is over: what its cancel would say, with the same exit code.
async fn not_planned(
    client: &Client,
    request: &str,
    error: anyhow::Error,
    how: Output,
) -> anyhow::Result<ExitCode> {
    if !matches!(error.downcast_ref(), Some(ClientError::Refused { status: 400 | 404, .. })) {
        return Err(error);
    }
    let path = format!("/quell/v1/requests/{}", encode(request));
    let kept = match client.json(Method::GET, &path, None).await {
        Ok(kept) => kept,
        Err(ClientError::Refused { status: 404, .. }) => {
            let hint =
                "`quell ls` shows the requests that live; of synchronous ones that are over nothing is kept";
            return Err(
                error.context(format!("this project has no request {request} that the node knows ({hint})"))
            );
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(cancel) = kept["cancel_id"].as_str() {
        match how {
            Output::Json => {
                output::line(json!({ "stops": [], "kills": [], "collateral": [], "requeued": [] }))
            }
            Output::Table => output::line(format_args!(
                "request {request} is cancelled already, and nothing of it is left to stop: quell receipt {cancel}"
            )),
        }
        return Ok(ExitCode::SUCCESS);
    }
    // One that is over and above live ones is told as they are, any other as the store keeps it.
    let status = kept["status"].as_str().or_else(|| match kept["code"].as_i64()? {
        0 => Some("SUCCESS"),
        _ => Some("FAIL"),
    });
    match status {
        Some(status) => Err(Over(over(request, status)).into()),
        None => Err(error),
    }
}

/// What a cancel of one request would do now.
pub(super) async fn fetch_plan(
    client: &Client,
    request: &str,
    recursive: bool,
    force: bool,
) -> anyhow::Result<PlanView> {
    let path = format!("/quell/v1/requests/{}/plan?recursive={recursive}&force={force}", encode(request));
    let plan = client.json(Method::GET, &path, None).await?;
    serde_json::from_value(plan).context("the node's answer is not a plan")
}

pub(super) fn processes(instance: &InstanceRow) -> String {
    let names = instance.processes.iter().map(|process| format!("{} ({})", process.comm, process.pid));
    names.collect::<Vec<_>>().join(", ")
}
