//! `quell context`: nodes by names of one's own.

use std::{io::Read as _, process::ExitCode};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    args::{ContextCommand, NewContextArgs, Output},
    contexts::{Contexts, Named, path, read_token},
    output::{self, Usage},
    terminal,
};

/// A token on stdin; longer than any.
const MAX_TOKEN: u64 = 4_096;

pub(crate) fn context(command: ContextCommand) -> anyhow::Result<ExitCode> {
    let mut kept = Contexts::read()?;
    match command {
        ContextCommand::List { output } => list(&kept, output),
        ContextCommand::Use { name } => {
            kept.named(&name)?;
            kept.current = Some(name.clone());
            kept.write()?;
            output::note(format_args!("quell: {name} is meant where nothing else is said"));
        }
        ContextCommand::Add(args) => add(kept, args)?,
        ContextCommand::Remove { name } => {
            kept.named(&name)?;
            kept.contexts.remove(&name);
            kept.current = kept.current.filter(|current| *current != name);
            kept.write()?;
            output::note(format_args!("quell: {name} is forgotten"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(kept: &Contexts, how: Output) {
    let is_current = |name: &str| kept.current.as_deref() == Some(name);
    if how == Output::Json {
        let rows: Vec<Value> = kept
            .contexts
            .iter()
            .map(|(name, named)| {
                let Named { endpoint, project, data, .. } = named;
                json!({
                    "name": name, "current": is_current(name), "endpoint": endpoint, "project": project, "data": data,
                })
            })
            .collect();
        return output::line(json!({ "contexts": rows }));
    }
    let rows = kept.contexts.iter().map(|(name, named)| {
        let at = named.data.as_ref().map(|data| data.display().to_string());
        let token = match (&named.data, &named.token, &named.token_file) {
            (Some(_), ..) => "of client.json".to_owned(),
            (None, Some(_), _) => "kept here".to_owned(),
            (None, None, Some(file)) => file.display().to_string(),
            (None, None, None) => "none".to_owned(),
        };
        let mark = if is_current(name) { "*" } else { "" };
        [
            mark.to_owned(),
            name.clone(),
            named.endpoint.clone().or(at).unwrap_or_default(),
            named.project.clone().unwrap_or_default(),
            token,
        ]
    });
    output::table(["", "CONTEXT", "NODE", "PROJECT", "TOKEN"], &rows.collect::<Vec<_>>());
}

fn add(mut kept: Contexts, args: NewContextArgs) -> anyhow::Result<()> {
    let NewContextArgs { name, endpoint, project, token_file, ca, data } = args;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        return Err(Usage(format!("{name:?} is no name: letters, digits, - and _")).into());
    }
    if endpoint.as_ref().is_some_and(|at| !at.starts_with("http://") && !at.starts_with("https://")) {
        return Err(Usage("--endpoint begins with http:// or https://".to_owned()).into());
    }
    // From wherever it is used: the folder of today is not the one of tomorrow.
    let whole = |path: std::path::PathBuf| {
        path.canonicalize().map_err(|error| Usage(format!("{} is not there: {error}", path.display())))
    };
    let (token_file, ca, data) =
        (token_file.map(whole).transpose()?, ca.map(whole).transpose()?, data.map(whole).transpose()?);
    let token = match (&token_file, &data) {
        (Some(file), _) => read_token(file).map(|_| None)?,
        (None, Some(_)) => None,
        (None, None) => Some(token_of_stdin()?),
    };
    let named = Named { endpoint, project, token, token_file, ca, data };
    if named.data.is_some() {
        named.config(&name)?;
    }
    kept.contexts.insert(name.clone(), named);
    kept.current.get_or_insert_with(|| name.clone());
    kept.write()?;
    let file = path().unwrap_or_default();
    let current = kept.current.as_deref() == Some(name.as_str());
    let hint = if current {
        "it is the current one".to_owned()
    } else {
        format!("`quell context use {name}` makes it current")
    };
    output::note(format_args!("quell: {name} is kept in {}; {hint}", file.display()));
    Ok(())
}

/// The first line of stdin: arguments are seen by other users of the machine.
fn token_of_stdin() -> anyhow::Result<String> {
    if terminal::somebody_is_there() {
        output::note("quell: the token, and then Enter (it is shown; a file by --token-file is not):");
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        return token_in(&line);
    }
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_TOKEN)
        .read_to_string(&mut text)
        .context("the token could not be read from stdin")?;
    token_in(&text)
}

fn token_in(text: &str) -> anyhow::Result<String> {
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() {
        let why = "no token came on stdin: pipe it in, or say --token-file FILE, or --data DIR for a node on this machine";
        return Err(Usage(why.to_owned()).into());
    }
    Ok(token.to_owned())
}
