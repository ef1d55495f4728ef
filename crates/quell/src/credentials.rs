//! `quell credentials` and `quell backup`: who may do what, and a copy of it all.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    args::{CredentialsCommand, NewCredentialArgs, NodeArgs, Output},
    client::{Client, Reply, encode},
    config::ClientConfig,
    output::{self, Usage},
    terminal::Progress,
};

const PATH: &str = "/quell/v1/credentials";
/// A password on stdin; the node's own limit is the same.
const MAX_PASSWORD: u64 = 1_024;

pub(crate) async fn credentials(command: CredentialsCommand) -> anyhow::Result<ExitCode> {
    match command {
        CredentialsCommand::Create(args) => create(&args).await,
        CredentialsCommand::List { node } => list(&node).await,
        CredentialsCommand::Revoke { key, node } => {
            let client = Client::new(ClientConfig::of(&node)?)?;
            let reply = client.send(Method::DELETE, &format!("{PATH}/{}", encode(&key)), &[], None).await?;
            done_with(&key, reply)?;
            output::note(format_args!("quell: {key} opens nothing any more"));
            Ok(ExitCode::SUCCESS)
        }
        CredentialsCommand::Rotate { key, node } => rotate(&key, &node).await,
    }
}

async fn create(args: &NewCredentialArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(&args.node)?)?;
    let mut body = json!({ "scopes": args.scopes, "note": args.note });
    if let Some(project) = &args.for_project {
        body["project"] = json!(project);
    }
    if let Some(days) = args.expires_days {
        body["expires_in_s"] = json!(days.saturating_mul(24 * 3_600));
    }
    if let Some(login) = &args.login {
        body["login"] = json!(login);
        body["password"] = json!(password()?);
    }
    let reply = client.send(Method::POST, PATH, &[], Some(body.to_string().into_bytes())).await?;
    show_secrets(&done(reply)?.json()?, args.node.output);
    Ok(ExitCode::SUCCESS)
}

/// The first line of stdin: arguments are seen by other users of the machine.
fn password() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_PASSWORD + 2)
        .read_to_string(&mut text)
        .context("--login reads its password from stdin, and that failed")?;
    let password = text.lines().next().unwrap_or_default();
    ensure!(!password.is_empty(), "--login reads its password from stdin, and nothing came");
    Ok(password.to_owned())
}

async fn list(node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let list = done(client.send(Method::GET, PATH, &[], None).await?)?.json()?;
    if node.output == Output::Json {
        output::line(&list);
        return Ok(ExitCode::SUCCESS);
    }
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or("-").to_owned();
    let rows = list["credentials"].as_array().cloned().unwrap_or_default();
    let rows = rows.iter().map(|row| {
        let scopes: Vec<&str> =
            row["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let (key, project, login) = (text(row, "key_id"), text(row, "project"), text(row, "login"));
        let (created, expires) = (text(row, "created"), text(row, "expires"));
        [key, project, scopes.join(","), login, created, expires, text(row, "note")]
    });
    let header = ["KEY", "PROJECT", "SCOPES", "LOGIN", "CREATED", "EXPIRES", "NOTE"];
    output::table(header, &rows.collect::<Vec<_>>());
    Ok(ExitCode::SUCCESS)
}

async fn rotate(key: &str, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let config = ClientConfig::of(node)?;
    let client = Client::new(config.clone())?;
    let reply = client.send(Method::POST, &format!("{PATH}/{}/rotate", encode(key)), &[], None).await?;
    let made = done_with(key, reply)?.json()?;
    // The file this command found the node by would open nothing any more.
    let data = node.data_folder();
    let kept = ClientConfig::read(&data)?.filter(|kept| kept.token == config.token);
    match kept.filter(|kept| kept.access_key == key) {
        Some(kept) => {
            let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
            let (token, secret_key) = (text("token"), text("secret_key"));
            ClientConfig { token, secret_key, ..kept }.write(&data)?;
            output::note(format_args!(
                "quell: rotated; {} has the new secrets",
                data.join("client.json").display()
            ));
        }
        None => show_secrets(&made, node.output),
    }
    Ok(ExitCode::SUCCESS)
}

fn show_secrets(made: &Value, how: Output) {
    if how == Output::Json {
        return output::line(made);
    }
    for name in ["key_id", "project", "token", "access_key", "secret_key"] {
        output::line(format_args!("{name:<11} {}", made[name].as_str().unwrap_or_default()));
    }
    output::note("quell: this is shown once; the node keeps no token");
}

fn done(reply: Reply) -> anyhow::Result<Reply> {
    if reply.is_success() { Ok(reply) } else { Err(reply.refusal().into()) }
}

/// The same of what names a credential.
fn done_with(key: &str, reply: Reply) -> anyhow::Result<Reply> {
    let is_unknown = reply.status == 404;
    done(reply).map_err(|error| match is_unknown {
        true => error
            .context(format!("there is no credential {key}; `quell credentials list` shows those there are")),
        false => error,
    })
}

/// Writes a copy of everything to a new file, whole or not at all.
pub(crate) async fn backup(to: &Path, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let wrong = |why: &str| Usage(format!("{} {why}", to.display()));
    if to.exists() {
        return Err(
            wrong("is there already; a backup replaces nothing: name a file that is not there").into()
        );
    }
    let name = to.file_name().ok_or_else(|| wrong("names no file"))?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(wrong(&format!("cannot be made: there is no folder {}", folder.display())).into());
    }
    let part = to.with_file_name(format!(".{}.part", name.to_string_lossy()));
    let client = Client::new(ClientConfig::of(node)?)?;
    let size = match fetch(&client, &part).await {
        Ok(size) => size,
        Err(error) => {
            drop(std::fs::remove_file(&part)); // half a backup is worse than none
            return Err(error);
        }
    };
    std::fs::rename(&part, to).with_context(|| format!("{} cannot be made", to.display()))?;
    File::open(folder)?.sync_all().with_context(|| format!("{} is not synced", folder.display()))?;
    output::note(format_args!(
        "quell: {size} bytes in {}; to restore, put it as quell.db into an empty data folder. Keep it secret.",
        to.display()
    ));
    Ok(ExitCode::SUCCESS)
}

async fn fetch(client: &Client, part: &Path) -> anyhow::Result<u64> {
    let failed = || format!("{} cannot be written", part.display());
    let mut answer = client.open(Method::GET, "/quell/v1/backup").await?;
    let expected = answer.content_length();
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(part)
        .with_context(failed)?;
    let (mut size, mut progress) = (0, Progress::new());
    while let Some(piece) = answer.chunk().await.context("the node's answer broke off")? {
        file.write_all(&piece).with_context(failed)?;
        size += piece.len() as u64;
        progress.say(format!("{} MiB of {} MiB", size >> 20, expected.unwrap_or(size) >> 20));
    }
    if expected.is_some_and(|expected| expected != size) {
        bail!("the node's answer broke off after {size} bytes");
    }
    file.sync_all().with_context(failed)?;
    Ok(size)
}
