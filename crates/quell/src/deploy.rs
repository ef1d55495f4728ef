//! `quell deploy DIR`: a folder with function.toml becomes a function.

use std::{
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use base64::Engine as _;
use reqwest::Method;
use serde_json::{Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    args::NodeArgs,
    client::{Client, ClientError},
    config::ClientConfig,
    function_file::FunctionFile,
    output::{self, Usage},
    terminal::Progress,
};

/// The API takes packages up to 50 MB; a folder larger than this is most likely the wrong one.
const MAX_FOLDER_BYTES: u64 = 512 << 20;

/// Deploys and says what was done.
pub(crate) async fn deploy(dir: &Path, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let function = FunctionFile::of(dir)?; // what is wrong with a folder needs no node to be told
    let client = Client::new(ClientConfig::of(node)?)?;
    let urn = send(&client, dir, &function).await?;
    output::line(urn);
    Ok(ExitCode::SUCCESS)
}

/// Creates the function of a folder, or updates it if it is there. Returns its URN.
pub(crate) async fn deploy_folder(client: &Client, dir: &Path) -> anyhow::Result<String> {
    send(client, dir, &FunctionFile::of(dir)?).await
}

async fn send(client: &Client, dir: &Path, function: &FunctionFile) -> anyhow::Result<String> {
    let mut progress = Progress::new();
    progress.say(format!("packing {}", dir.display()));
    let package = base64::engine::general_purpose::STANDARD.encode(zip_folder(dir)?);
    progress.say(format!("sending {} KiB, and waiting for the node to unpack them", package.len() >> 10));
    let code = json!({ "code_type": "zip", "code_filename": "code.zip", "func_code": { "file": package } });
    let config = function.config();
    let mut create = config.clone();
    merge(&mut create, &code);
    let created = client.json(Method::POST, &client.functions(), Some(&create)).await;
    let answer = match created {
        Ok(answer) => answer,
        Err(ClientError::Refused { status: 409, .. }) => {
            let urn = format!("{}:{}", function.package, function.name);
            client.json(Method::PUT, &client.function(&urn, "/code"), Some(&code)).await?;
            client.json(Method::PUT, &client.function(&urn, "/config"), Some(&config)).await?
        }
        Err(error) => return Err(error.into()),
    };
    let urn = answer.get("func_urn").and_then(Value::as_str);
    Ok(urn.context("the node's answer has no func_urn")?.to_owned())
}

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
}

/// Packs a folder, without hidden files and by-products.
fn zip_folder(dir: &Path) -> anyhow::Result<Vec<u8>> {
    let mut files = Vec::new();
    collect(dir, &mut files)?;
    files.sort();
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut total = 0;
    for file in files {
        let name = file.strip_prefix(dir)?.to_str().with_context(|| format!("{file:?} is not UTF-8"))?;
        let contents = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        total += contents.len() as u64;
        if total > MAX_FOLDER_BYTES {
            let why = format!(
                "{} holds more than {MAX_FOLDER_BYTES} bytes; is it the right folder?",
                dir.display()
            );
            return Err(Usage(why).into());
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file)?.permissions());
        zip.start_file(name, SimpleFileOptions::default().unix_permissions(mode & 0o777))?;
        zip.write_all(&contents)?;
    }
    Ok(zip.finish()?.into_inner())
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("{} cannot be read", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') || name == "__pycache__" {
            continue;
        }
        if path.is_dir() {
            collect(&path, into)?;
        } else {
            into.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_and_by_products_stay_out_of_the_package() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("__pycache__")).unwrap();
        fs::write(dir.path().join("__pycache__/x.pyc"), "").unwrap();
        fs::write(dir.path().join(".secret"), "").unwrap();
        fs::create_dir(dir.path().join("lib")).unwrap();
        fs::write(dir.path().join("lib/a.py"), "a").unwrap();
        fs::write(dir.path().join("index.py"), "b").unwrap();
        let package = zip_folder(dir.path()).unwrap();
        let zip = zip::ZipArchive::new(Cursor::new(package)).unwrap();
        let names: Vec<_> = zip.file_names().map(Result::unwrap).collect();
        assert_eq!(names, ["index.py", "lib/a.py"]);
    }
}
