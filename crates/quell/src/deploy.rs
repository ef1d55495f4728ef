//! `quell deploy DIR`: a folder with function.toml becomes a function.

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    args::NodeArgs,
    client::{Client, ClientError},
    config::ClientConfig,
    output,
    terminal::Progress,
};

/// The API takes packages up to 50 MB; a folder larger than this is most likely the wrong one.
const MAX_FOLDER_BYTES: u64 = 512 << 20;

/// `function.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionFile {
    name: String,
    #[serde(default = "default_package")]
    package: String,
    runtime: String,
    handler: String,
    /// Seconds.
    timeout: u32,
    /// MiB.
    #[serde(default = "default_memory")]
    memory_size: u32,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    initializer: Option<String>,
    /// Seconds.
    #[serde(default)]
    initializer_timeout: Option<u32>,
    #[serde(default)]
    pre_stop: Option<String>,
    /// Seconds.
    #[serde(default)]
    pre_stop_timeout: Option<u32>,
    /// Requests per instance.
    #[serde(default)]
    concurrency: Option<u32>,
    #[serde(default)]
    max_instances: Option<i32>,
    #[serde(default)]
    user_data: BTreeMap<String, String>,
    /// Passed on as it is: grace_ms, on_grace_expired, on_collateral, on_disconnect, start_timeout_s, network, fork_server.
    #[serde(default)]
    quell: BTreeMap<String, Value>,
}

fn default_package() -> String {
    "default".to_owned()
}

fn default_memory() -> u32 {
    128
}

/// Deploys and says what was done.
pub(crate) async fn deploy(dir: &Path, node: &NodeArgs) -> anyhow::Result<ExitCode> {
    let client = Client::new(ClientConfig::of(node)?)?;
    let urn = deploy_folder(&client, dir).await?;
    output::line(urn);
    Ok(ExitCode::SUCCESS)
}

/// Creates the function of a folder, or updates it if it is there. Returns its URN.
pub(crate) async fn deploy_folder(client: &Client, dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("function.toml");
    let text = fs::read_to_string(&path).with_context(|| {
        let hint = "it says what the folder is, e.g. name = \"hello\", runtime = \"Python3.10\", handler = \"index.handler\", \
                    timeout = 30, a line each";
        format!("{} cannot be read ({hint})", path.display())
    })?;
    let function: FunctionFile =
        toml::from_str(&text).with_context(|| format!("{} is not understood", path.display()))?;
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

impl FunctionFile {
    fn config(&self) -> Value {
        let mut config = json!({
            "func_name": self.name,
            "package": self.package,
            "runtime": self.runtime,
            "handler": self.handler,
            "timeout": self.timeout,
            "memory_size": self.memory_size,
        });
        let mut set = |name: &str, value: Value| {
            if let Some(config) = config.as_object_mut() {
                config.insert(name.to_owned(), value);
            }
        };
        if let Some(description) = &self.description {
            set("description", json!(description));
        }
        if let Some(initializer) = &self.initializer {
            set("initializer_handler", json!(initializer));
        }
        if let Some(limit) = self.initializer_timeout {
            set("initializer_timeout", json!(limit));
        }
        if let Some(handler) = &self.pre_stop {
            set("pre_stop_handler", json!(handler));
        }
        if let Some(limit) = self.pre_stop_timeout {
            set("pre_stop_timeout", json!(limit));
        }
        if !self.user_data.is_empty() {
            // The API wants an object written as a string.
            set("user_data", json!(json!(self.user_data).to_string()));
        }
        if self.concurrency.is_some() || self.max_instances.is_some() {
            let strategy = json!({
                "concurrency": self.max_instances.unwrap_or(400),
                "concurrent_num": self.concurrency.unwrap_or(1),
            });
            set("strategy_config", strategy);
        }
        if !self.quell.is_empty() {
            set("quell", json!(self.quell));
        }
        config
    }
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
            bail!("{} holds more than {MAX_FOLDER_BYTES} bytes; is it the right folder?", dir.display());
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
    fn a_misspelt_key_of_function_toml_is_named_with_its_line() {
        let error = toml::from_str::<FunctionFile>(
            "name = \"f\"\nruntime = \"Python3.10\"\nhandler = \"index.handler\"\ntimeout = 3\nmemroy_size = 128\n",
        );
        let message = error.unwrap_err().to_string();
        assert!(message.contains("line 5") && message.contains("memroy_size"), "{message}");
    }

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
