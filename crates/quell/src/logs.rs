//! `quell logs`: what a request, an instance or a function printed, and what it goes on to print.

use std::{io::IsTerminal as _, process::ExitCode};

use anyhow::Context as _;
use cancel::RequestId;
use jiff::Timestamp;
use reqwest::Method;
use supervisor::{LogLine, Stream};

use crate::{
    args::{LogsArgs, Output},
    client::{Client, ClientError, encode},
    config::ClientConfig,
    output::{self, Usage},
    signals::EndSignals,
    terminal, verbs,
};

/// A line of the node's answer that is longer than this is none of a log.
const MAX_LINE: usize = 1 << 20;

pub(crate) async fn logs(args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let mut signals = EndSignals::listen()?;
    let client = Client::new(ClientConfig::of(&args.node)?)?;
    let path = path(&client, args)?;
    tokio::select! {
        shown = show(&client, &path, args) => shown,
        // Whoever has seen enough of it says so.
        () = signals.next() => Ok(ExitCode::SUCCESS),
    }
}

fn path(client: &Client, args: &LogsArgs) -> anyhow::Result<String> {
    let what = match (&args.function, &args.what) {
        (Some(function), _) => format!("functions/{}", encode(&client.named(function))),
        (None, Some(what)) if is_instance(what) => format!("instances/{}", encode(what)),
        (None, Some(what)) if RequestId::parse(what).is_some() => format!("requests/{}", encode(what)),
        (None, Some(what)) => {
            let why = format!(
                "{what:?} is neither a request id nor an instance (`quell ls` shows those that live); if it is a function, \
                 it is: quell logs --function {what}"
            );
            return Err(Usage(why).into());
        }
        (None, None) => {
            let why = "name a request, an instance, or a function with --function";
            return Err(Usage(why.to_owned()).into());
        }
    };
    let mut path = format!("/quell/v1/{what}/log?follow={}", args.follow);
    if let Some(tail) = args.tail {
        path.push_str(&format!("&tail={tail}"));
    }
    if let Some(since) = args.since {
        path.push_str(&format!("&since={since}"));
    }
    Ok(path)
}

fn is_instance(what: &str) -> bool {
    what.strip_prefix('i').is_some_and(|number| number.parse::<u64>().is_ok())
}

/// A time, or how long ago one was, in milliseconds since the Unix epoch.
///
/// # Errors
/// In words, how it is written.
pub(crate) fn since(text: &str) -> Result<i64, String> {
    since_ms(text, Timestamp::now())
}

fn since_ms(text: &str, now: Timestamp) -> Result<i64, String> {
    let seconds = |text: &str, of: i64| text.parse::<u32>().ok().map(|count| i64::from(count) * of);
    let ago = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let ago = ago.iter().find_map(|(unit, of)| seconds(text.strip_suffix(unit)?, *of));
    if let Some(ago) = ago {
        return Ok(now.as_millisecond() - ago * 1_000);
    }
    let at = text.parse::<Timestamp>().or_else(|_| format!("{text}Z").parse());
    at.map(Timestamp::as_millisecond).map_err(|_| {
        "it is neither a time like 2026-01-31T23:59:59 nor so long ago, like 90s, 15m, 2h, 1d".to_owned()
    })
}

async fn show(client: &Client, path: &str, args: &LogsArgs) -> anyhow::Result<ExitCode> {
    let mut answer = match client.open(Method::GET, path).await {
        Ok(answer) => answer,
        Err(error @ ClientError::Refused { status: 404, .. }) if args.function.is_some() => {
            let function = args.function.as_deref().unwrap_or_default();
            return Err(verbs::not_there(client, function, error.into()).await);
        }
        Err(error @ ClientError::Refused { status: 404, .. }) => {
            let what = args.what.clone().unwrap_or_default();
            let hint =
                "`quell ls` shows what is live, and what is over has no log after --keep-days of the node";
            return Err(anyhow::Error::new(error).context(format!("the node has no log of {what}; {hint}")));
        }
        Err(error) => return Err(error.into()),
    };
    let at_terminal = std::io::stdout().is_terminal();
    let mut begun = Vec::new();
    while let Some(piece) =
        answer.chunk().await.context("the node's answer broke off; is it still running?")?
    {
        begun.extend_from_slice(&piece);
        let Some(end) = begun.iter().rposition(|byte| *byte == b'\n') else {
            if begun.len() > MAX_LINE {
                return Err(ClientError::Garbled("a line of a log without an end".to_owned()).into());
            }
            continue;
        };
        let rest = begun.split_off(end + 1);
        for line in begun.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if !print(line, args, at_terminal)? {
                return Ok(ExitCode::SUCCESS);
            }
        }
        begun = rest;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a line; whether anybody still reads.
fn print(line: &[u8], args: &LogsArgs, at_terminal: bool) -> anyhow::Result<bool> {
    if args.node.output == Output::Json {
        return Ok(output::wanted_line(String::from_utf8_lossy(line)));
    }
    let line: LogLine =
        serde_json::from_slice(line).map_err(|error| ClientError::Garbled(error.to_string()))?;
    // What a function prints must not reach into the terminal of whoever looks; a file gets it as it is.
    let text = if at_terminal { terminal::escaped(&line.text) } else { line.text };
    let text = match line.stream {
        Stream::Node => format!("quell: {text}"),
        Stream::Stdout | Stream::Stderr => text,
    };
    Ok(match args.function {
        Some(_) => output::wanted_line(format_args!("{} {text}", line.instance)),
        None => output::wanted_line(text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        let now = Timestamp::from_millisecond(100_000_000_000).unwrap();
        assert_eq!(since_ms("90s", now).unwrap(), 99_999_910_000);
        assert_eq!(since_ms("2h", now).unwrap(), 99_992_800_000);
        assert_eq!(since_ms("1970-01-01T00:00:01", now).unwrap(), 1_000);
        assert_eq!(since_ms("1970-01-01T01:00:01+01:00", now).unwrap(), 1_000);
        for wrong in ["", "m", "-5m", "yesterday", "5w"] {
            assert!(since_ms(wrong, now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_instance_is_told_from_a_request() {
        assert!(is_instance("i12"));
        assert!(!is_instance("i") && !is_instance("1b4e28ba-2fa1-41d2-883f-0016d3cca427"));
    }
}
