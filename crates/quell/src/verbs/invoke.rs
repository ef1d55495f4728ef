//! `quell invoke`.

use std::{io::Read as _, process::ExitCode};

use anyhow::Context as _;
use reqwest::Method;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::functions::not_there;
use crate::{
    args::NodeArgs,
    client::Client,
    config::ClientConfig,
    output::{self, Usage},
    signals::EndSignals,
};

pub(crate) async fn invoke(
    function: &str,
    event: &str,
    asynchronous: bool,
    labels: &[String],
    node: &NodeArgs,
) -> anyhow::Result<ExitCode> {
    let mut event = event.to_owned();
    if event == "-" {
        event.clear();
        std::io::stdin().read_to_string(&mut event).context("the event could not be read from stdin")?;
    }
    check(&event)?;
    if let Some(data) = node.data.as_ref().and_then(|data| data.to_str()).filter(|data| is_event(data)) {
        let why = format!(
            "--data is the data folder of a node; the event is: quell invoke {function} --event '{data}'"
        );
        return Err(Usage(why).into());
    }
    let client = Client::new(ClientConfig::of(node)?)?;
    let verb = if asynchronous { "/invocations-async" } else { "/invocations" };
    let path = client.function(function, verb);
    let labels = labels.join(",");
    let headers = [("X-Quell-Labels", labels.as_str())];
    let headers = if labels.is_empty() { &headers[..0] } else { &headers[..] };
    let mut signals = EndSignals::listen()?;
    let reply = tokio::select! {
        reply = client.send(Method::POST, &path, headers, Some(event.into_bytes())) => reply?,
        () = signals.next() => {
            output::note(format_args!(
                "quell: the node has not said which request this is; if it has taken it, it goes on (unless its function \
                 stops for callers that go away): `quell ls --where function={function}` shows it, `quell cancel` stops it"
            ));
            return Ok(ExitCode::from(output::INTERRUPTED));
        }
    };
    if reply.status == 404 {
        return Err(not_there(&client, function, reply.refusal().into()).await);
    }
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

/// Whether this is meant as an event, wherever it was said.
fn is_event(text: &str) -> bool {
    text.starts_with(['{', '['])
}

/// Whether a node could take this as an event.
fn check(event: &str) -> Result<(), Usage> {
    if event.trim().is_empty() {
        return Ok(()); // to a node nothing is {}
    }
    serde_json::from_str::<IgnoredAny>(event).map(drop).map_err(|error| {
        Usage(format!(
            "the event is not JSON ({error}); in quotes for the shell it is like --event '{{\"name\": \"you\"}}', and --event - \
             reads it from stdin"
        ))
    })
}
