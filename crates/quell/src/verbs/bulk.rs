//! `quell cancel --where`: the plan, a question, and then how it goes.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};
use supervisor::{Bulk, BulkPlan, FirstIds};

use super::{look::requests_table, plan::processes};
use crate::{
    args::{CallOffArgs, CancelArgs, Output, PlanArgs},
    client::{Client, ClientError, encode},
    config::ClientConfig,
    output::{self, Usage},
    signals::EndSignals,
    terminal::{self, Answer, Progress},
};

const PATH: &str = "/quell/v1/cancels";
/// Between two looks at how it stands: often enough for a line that moves.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Requests of a plan that are shown.
const SHOWN: usize = 10;

pub(super) async fn cancel(args: &CancelArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(&args.of.node)?)?;
    let key = args.key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let mut body = body_of(&args.of);
    body["key"] = json!(key);
    // Of one that began already there is nothing to plan, nor to ask.
    if args.key.is_none() || !is_known(&client, &key).await? {
        let plan = fetch(&client, &body).await?;
        for line in plan_text(&plan) {
            match args.of.node.output {
                Output::Table => output::line(line),
                Output::Json => output::note(line), // stdout is for the result
            }
        }
        if plan.selected == 0 {
            output::note("quell: nothing to cancel");
            return Ok(ExitCode::SUCCESS);
        }
        let answer = if args.yes { Answer::Yes } else { may(plan.selected).await? };
        if answer != Answer::Yes {
            output::note("quell: nothing was cancelled");
            let code = if answer == Answer::No { output::REFUSED } else { output::INTERRUPTED };
            return Ok(ExitCode::from(code));
        }
        body["as_of"] = json!(plan.as_of);
    }
    body["reason"] = json!(args.reason);
    body["rate"] = json!(args.rate);
    // Only from here on: until now nothing has begun that would have to be told of.
    let mut signals = EndSignals::listen()?;
    let carried_out = async {
        client.json(Method::POST, PATH, Some(&body)).await?;
        follow(&client, &key).await
    };
    tokio::select! {
        bulk = carried_out => report(&bulk?, args.of.node.output),
        () = signals.next() => {
            output::note(format_args!(
                "quell: the node goes on with it; the same command with --key {key} tells how it stands, and `quell call-off \
                 {key}` leaves alone whoever it has not reached"
            ));
            Ok(ExitCode::from(output::INTERRUPTED))
        }
    }
}

/// What is asked, as the node takes it.
fn body_of(args: &PlanArgs) -> Value {
    json!({ "where": args.selection, "recursive": args.recursive, "force": args.force })
}

async fn is_known(client: &Client, key: &str) -> anyhow::Result<bool> {
    match client.json(Method::GET, &format!("{PATH}/bulk/{}", encode(key)), None).await {
        Ok(_) => Ok(true),
        Err(ClientError::Refused { status: 404, .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn fetch(client: &Client, body: &Value) -> anyhow::Result<BulkPlan> {
    let mut body = body.clone();
    body["dry_run"] = json!(true);
    let plan = client.json(Method::POST, PATH, Some(&body)).await?;
    serde_json::from_value(plan).context("the node's answer is not a plan")
}

/// Whether whoever is there wants it.
async fn may(selected: u32) -> anyhow::Result<Answer> {
    if !terminal::somebody_is_there() {
        let why = "to cancel many it asks first, and nobody is there to answer; say --yes if the plan above is what \
                   you mean";
        return Err(Usage(why.to_owned()).into());
    }
    terminal::ask(&format!("Cancel {}?", requests(selected)), &mut EndSignals::listen()?).await
}

/// Prints what a cancel of many would do.
pub(super) async fn show_plan_of(args: &PlanArgs, client: &Client) -> anyhow::Result<ExitCode> {
    let plan = fetch(client, &body_of(args)).await?;
    match args.node.output {
        Output::Json => output::line(serde_json::to_string(&plan)?),
        Output::Table => plan_text(&plan).into_iter().for_each(output::line),
    }
    Ok(ExitCode::SUCCESS)
}

fn requests(count: u32) -> String {
    if count == 1 { "1 request".to_owned() } else { format!("{count} requests") }
}

fn plan_text(plan: &BulkPlan) -> Vec<String> {
    if plan.selected == 0 {
        return vec!["no live request matches".to_owned()];
    }
    let mut lines = requests_table(&plan.first[..plan.first.len().min(SHOWN)], plan.elsewhere > 0);
    let more = plan.selected as usize - plan.first.len().min(SHOWN).min(plan.selected as usize);
    if more > 0 {
        lines.push(format!("... and {more} more"));
    }
    let BulkPlan { selected, waiting, running, draining, .. } = plan;
    lines.push(format!("{}: {waiting} waiting, {running} running, {draining} draining", requests(*selected)));
    let BulkPlan { removed, asked, killed, stopping, kills, .. } = plan;
    lines.push(format!(
        "would be taken out of queues: {removed}; asked to stop: {asked}; killed: {killed}, with {kills} instances; \
         stopping already: {stopping}"
    ));
    for instance in plan.first_kills.iter().take(SHOWN) {
        lines.push(format!("would kill instance {}: {}", instance.instance, processes(instance)));
    }
    let mut others = |what: &str, ids: &FirstIds| {
        if ids.count > 0 {
            let first: Vec<&str> = ids.first.iter().take(SHOWN).map(String::as_str).collect();
            let dots = if ids.count as usize > first.len() { ", ..." } else { "" };
            lines.push(format!("{what}: {} ({}{dots})", ids.count, first.join(", ")));
        }
    };
    others("would be stopped too, being below them", &plan.below);
    others("would end with 4208 as co-tenants", &plan.collateral);
    others("would wait again", &plan.requeued);
    lines.extend(elsewhere(plan.elsewhere));
    lines
}

/// What a plan does not know where several nodes share a store.
pub(super) fn elsewhere(count: u32) -> Option<String> {
    let them = if count == 1 { "1 of them is".to_owned() } else { format!("{count} of them are") };
    (count > 0)
        .then(|| format!("{them} on other nodes or wait for any: whom else that touches is seen there"))
}

/// Leaves alone whoever it has not reached, and tells how it ended; or lists those that there are.
pub(crate) async fn call_off(args: &CallOffArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(&args.node)?)?;
    let Some(key) = &args.key else { return list(&client, args.node.output).await };
    match client.json(Method::DELETE, &format!("{PATH}/bulk/{}", encode(key)), None).await {
        Ok(_) => report(&follow(&client, key).await?, args.node.output),
        Err(error @ ClientError::Refused { status: 404, .. }) => Err(no_such_key(&client, key, error).await),
        Err(error) => Err(error.into()),
    }
}

/// Those that the node remembers, the newest first.
async fn fetch_all(client: &Client) -> anyhow::Result<Vec<Bulk>> {
    let page = client.json(Method::GET, &format!("{PATH}/bulk"), None).await?;
    serde_json::from_value(page["bulks"].clone())
        .context("the node's answer is not a list of cancels of many")
}

async fn list(client: &Client, how: Output) -> anyhow::Result<ExitCode> {
    let bulks = fetch_all(client).await?;
    if how == Output::Json {
        output::line(json!({ "bulks": bulks }));
        return Ok(ExitCode::SUCCESS);
    }
    let now = output::now_ms();
    let rows = bulks.iter().map(|bulk| {
        let done = format!("{}/{}", bulk.done, bulk.selected);
        let (key, state) = (bulk.key.clone(), bulk.state.clone());
        [key, state, output::age(bulk.asked_ms, now), done, bulk.failed.to_string(), bulk.selection.clone()]
    });
    output::table(["KEY", "STATE", "AGE", "DONE", "FAILED", "WHERE"], &rows.collect::<Vec<_>>());
    Ok(ExitCode::SUCCESS)
}

/// Why none was called off, with the keys that there are.
async fn no_such_key(client: &Client, key: &str, error: ClientError) -> anyhow::Error {
    let running = fetch_all(client).await.unwrap_or_default();
    let running: Vec<&str> = running
        .iter()
        .filter(|bulk| bulk.state == "running")
        .map(|bulk| bulk.key.as_str())
        .take(SHOWN)
        .collect();
    let there = if running.is_empty() {
        "none runs".to_owned()
    } else {
        format!("those that run: {}", running.join(", "))
    };
    let hint = format!(
        "no cancel of many has the key {key:?} ({there}; `quell call-off --list` shows all there are)"
    );
    anyhow::Error::new(error).context(hint)
}

/// Shows how it goes until it is done.
async fn follow(client: &Client, key: &str) -> anyhow::Result<Bulk> {
    let mut progress = Progress::new();
    loop {
        let bulk = client.json(Method::GET, &format!("{PATH}/bulk/{}", encode(key)), None).await?;
        let bulk: Bulk = serde_json::from_value(bulk).context("the node's answer is not a cancel of many")?;
        if bulk.state != "running" {
            return Ok(bulk);
        }
        progress.say(format!("stopping: {} of {}, {} failed", bulk.done, bulk.selected, bulk.failed));
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn report(bulk: &Bulk, how: Output) -> anyhow::Result<ExitCode> {
    match how {
        Output::Json => output::line(serde_json::to_string(bulk)?),
        Output::Table => show(bulk),
    }
    Ok(match (bulk.failed, bulk.draining) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(output::DRAINING),
        _ => ExitCode::from(output::REFUSED),
    })
}

fn show(bulk: &Bulk) {
    let rows = bulk.draining_requests.iter().map(|row| [row.request_id.clone(), row.cancel_id.clone()]);
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        output::table(["STILL DRAINS", "RECEIPT"], &rows);
    }
    let rows = bulk.failures.iter().map(|row| {
        let receipt = row.cancel_id.clone().unwrap_or_default();
        [row.request_id.clone(), row.function.clone(), row.error_code.clone(), row.error_msg.clone(), receipt]
    });
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        output::table(["FAILED", "FUNCTION", "CODE", "WHY", "RECEIPT"], &rows);
    }
    if bulk.state == "called_off" {
        output::line(format_args!(
            "called off: {} left alone",
            requests(bulk.selected.saturating_sub(bulk.done))
        ));
    }
    let Bulk { key, selected, stopped, draining, over, failed, asked_ms, ended_ms, .. } = bulk;
    let took = ended_ms.unwrap_or(*asked_ms).saturating_sub(*asked_ms);
    output::line(format_args!(
        "{}: {stopped} stopped, {draining} draining, {over} over before, {failed} failed, in {took} ms; key {key}",
        requests(*selected)
    ));
    output::line("each has a receipt: `quell receipts`");
}
