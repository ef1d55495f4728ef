//! `quell functions`: those of the project; and to delete, disable and enable one.

use std::process::ExitCode;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    args::{FunctionsArgs, FunctionsCommand, NodeArgs, Output},
    client::{Client, ClientError},
    config::ClientConfig,
    near::nearest,
    output::{self, Usage},
    signals::EndSignals,
    terminal::{self, Answer},
};

/// Instances of a function that was never enabled, if nothing is said: as of one that is deployed without a number.
const INSTANCES: i64 = 400;

pub(crate) async fn functions(args: &FunctionsArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        None => list(&args.node).await,
        Some(FunctionsCommand::Delete { name, yes, node }) => delete(name, *yes, node).await,
        Some(FunctionsCommand::Disable { name, node }) => disable(name, node).await,
        Some(FunctionsCommand::Enable { name, max_instances, node }) => {
            enable(name, *max_instances, node).await
        }
    }
}

/// All of the project, as the API lists them.
async fn fetch(client: &Client) -> Result<Vec<Value>, ClientError> {
    let (mut functions, mut marker) = (Vec::new(), 0);
    loop {
        let path = format!("{}?marker={marker}", client.functions());
        let page = client.json(Method::GET, &path, None).await?;
        functions.extend(page["functions"].as_array().cloned().unwrap_or_default());
        let next = page["next_marker"].as_u64().unwrap_or_default();
        if next <= marker {
            return Ok(functions); // 0 after the last; a marker that stays would never end
        }
        marker = next;
    }
}

async fn list(node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let functions = fetch(&client).await?;
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

/// Why a function is not there: its name, and the one that was probably meant. Whoever may not list functions is
/// told the first alone.
pub(crate) async fn not_there(client: &Client, function: &str, error: anyhow::Error) -> anyhow::Error {
    let functions = fetch(client).await.unwrap_or_default();
    let names = functions.iter().filter_map(|row| row["func_name"].as_str());
    let bare = bare(function);
    if let Some(near) = nearest(bare, names.clone().filter(|name| *name != bare)) {
        return error.context(format!("there is no function {function}; did you mean {near}?"));
    }
    if names.clone().any(|name| name == bare) {
        return error.context(format!("there is a function {bare}, and none that is {function}"));
    }
    error.context(format!("there is no function {function}"))
}

/// The name in any form of one.
fn bare(function: &str) -> &str {
    let parts: Vec<&str> = function.split(':').collect();
    let at = match parts.as_slice() {
        ["urn", ..] => 6,
        [_, last] if last.starts_with('!') => 0,
        [_] => 0,
        [_, _] => 1,
        _ => 2,
    };
    parts.get(at).copied().unwrap_or(function)
}

/// Sends a change; of a function that is not there it says so by its name.
async fn change(
    client: &Client,
    (method, name, rest): (Method, &str, &str),
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let body = body.map(|body| body.to_string().into_bytes());
    let reply = client.send(method, &client.function(name, rest), &[], body).await?;
    if reply.status == 404 {
        return Err(not_there(client, name, reply.refusal().into()).await);
    }
    if reply.is_success() && reply.body.is_empty() {
        return Ok(Value::Null); // 204
    }
    Ok(reply.json()?)
}

async fn delete(name: &str, yes: bool, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    // Whoever mistyped it is told so before he is asked.
    let shown = change(&client, (Method::GET, name, "/config"), None).await?;
    let urn = shown["func_urn"].as_str().unwrap_or(name).to_owned();
    if !yes {
        if !terminal::somebody_is_there() {
            let why = format!(
                "to delete {name} it asks first, and nobody is there to answer; say --yes if you mean it"
            );
            return Err(Usage(why).into());
        }
        let question = format!("Delete {urn}? What waits of it ends unrun.");
        let answer = terminal::ask(&question, &mut EndSignals::listen()?).await?;
        if answer != Answer::Yes {
            output::note("quell: nothing was deleted");
            let code = if answer == Answer::No { output::REFUSED } else { output::INTERRUPTED };
            return Ok(ExitCode::from(code));
        }
    }
    change(&client, (Method::DELETE, name, ""), None).await?;
    match node.output {
        Output::Json => output::line(json!({ "deleted": name })),
        Output::Table => output::line(format_args!("deleted {name}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// How many instances a function may have.
struct Instances {
    /// 0 is none: it is disabled.
    has: i64,
    /// How many it had before it was disabled, if it is.
    before: Option<i64>,
}

impl Instances {
    async fn of(client: &Client, name: &str) -> anyhow::Result<Self> {
        let config = change(client, (Method::GET, name, "/config"), None).await?;
        let strategy = &config["strategy_config"];
        let has = strategy["concurrency"].as_i64().context("the node's answer has no number of instances")?;
        Ok(Self { has, before: strategy["concurrency_before"].as_i64() })
    }
}

async fn set_instances(client: &Client, name: &str, count: i64) -> anyhow::Result<()> {
    let body = json!({ "max_instance_num": count });
    change(client, (Method::PUT, name, "/config-max-instance"), Some(&body)).await.map(drop)
}

async fn disable(name: &str, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let had = Instances::of(&client, name).await?.has;
    if had != 0 {
        set_instances(&client, name, 0).await?;
    }
    match node.output {
        Output::Json => output::line(json!({ "disabled": name, "max_instances_before": had })),
        Output::Table if had == 0 => output::line(format_args!("{name} is disabled already")),
        Output::Table => output::line(format_args!(
            "disabled {name}; as it was ({}): quell functions enable {name}",
            at_most(had)
        )),
    }
    Ok(ExitCode::SUCCESS)
}

async fn enable(name: &str, wanted: Option<i64>, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    if wanted == Some(0) {
        let why = format!("with 0 instances it would be disabled: quell functions disable {name}");
        return Err(Usage(why).into());
    }
    let client = Client::new(ClientConfig::of(node)?)?;
    let Instances { has, before } = Instances::of(&client, name).await?;
    let kept = if has == 0 { before.unwrap_or(INSTANCES) } else { has };
    let count = wanted.unwrap_or(kept);
    if count != has {
        set_instances(&client, name, count).await?;
    }
    match node.output {
        Output::Json => output::line(json!({ "enabled": name, "max_instances": count })),
        Output::Table => output::line(format_args!("enabled {name}: {}", at_most(count))),
    }
    Ok(ExitCode::SUCCESS)
}

fn at_most(instances: i64) -> String {
    if instances == -1 {
        return "any number of instances".to_owned();
    }
    format!("{instances} instances at most")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_in_each_form_of_one() {
        for function in [
            "f",
            "f:!prod",
            "k:f",
            "p:k:f",
            "p:k:f:v1",
            "p:k:f:!prod",
            "urn:fss:r:p:function:k:f:latest",
            "urn:fss:r:p:function:k:f",
        ] {
            assert_eq!(bare(function), "f", "{function}");
        }
    }
}
