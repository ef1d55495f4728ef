//! `quell plan`, and `quell cancel --dry-run`: what would be stopped, and who else would be touched.

use std::process::ExitCode;

use anyhow::Context as _;
use reqwest::Method;
use supervisor::{InstanceRow, PlanView};

use super::bulk;
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
        Err(error) => return Err(not_planned(&client, request, error).await),
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
            [
                stop.request_id.clone(),
                output::function(&stop.function, &stop.version),
                if stop.created_ms == 0 { String::new() } else { output::age(stop.created_ms, now) },
                how,
                stop.instance.clone().unwrap_or_default(),
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
    Ok(ExitCode::SUCCESS)
}

/// Why there is no plan, for whoever named a request that is over.
async fn not_planned(client: &Client, request: &str, error: anyhow::Error) -> anyhow::Error {
    if !matches!(error.downcast_ref(), Some(ClientError::Refused { status: 404, .. })) {
        return error;
    }
    let path = format!("/quell/v1/requests/{}", encode(request));
    let kept = client.json(Method::GET, &path, None).await.unwrap_or_default();
    match kept["status"].as_str() {
        Some(status) => error.context(format!("{request} is over ({status}): nothing of it is left to stop")),
        None => error,
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
