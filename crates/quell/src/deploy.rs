//! `quell deploy DIR`: a folder with function.toml becomes a function.

use std::{
    collections::BTreeMap,
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use base64::Engine as _;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    args::NodeArgs,
    client::{Client, ClientError},
    config::ClientConfig,
    output::{self, Usage},
    terminal::Progress,
};

/// The API takes packages up to 50 MB; a folder larger than this is most likely the wrong one.
const MAX_FOLDER_BYTES: u64 = 512 << 20;

/// `function.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FunctionFile {
    /// As the folder, if it is not given.
    #[serde(default)]
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

impl FunctionFile {
    /// Reads that of a folder.
    fn of(dir: &Path) -> Result<Self, Usage> {
        if !dir.is_dir() {
            let why = if dir.exists() { "is no folder" } else { "is not there" };
            return Err(Usage(format!(
                "{} {why}: give the folder of a function, with its function.toml and code",
                dir.display()
            )));
        }
        let path = dir.join("function.toml");
        let text = fs::read_to_string(&path).map_err(|error| {
            let hint = "it says what the folder is, e.g. name = \"hello\", runtime = \"Python3.10\", handler = \
                        \"index.handler\", timeout = 30, a line each";
            Usage(format!("{} cannot be read ({hint}): {error}", path.display()))
        })?;
        let function: Result<Self, _> = toml::from_str(&text);
        let mut function =
            function.map_err(|error| Usage(format!("{} is not understood: {error}", path.display())))?;
        if function.name.is_empty() {
            // Not `dir` itself: that may be `.` or end with `..`.
            let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
            let name = whole.file_name().and_then(|name| name.to_str());
            name.ok_or_else(|| {
                Usage(format!(
                    "{} has no name, and its folder none either: say name = \"...\"",
                    path.display()
                ))
            })?
            .clone_into(&mut function.name);
        }
        Ok(function)
    }

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
    fn a_misspelt_key_of_function_toml_is_named_with_its_line() {
        let error = toml::from_str::<FunctionFile>(
            "name = \"f\"\nruntime = \"Python3.10\"\nhandler = \"index.handler\"\ntimeout = 3\nmemroy_size = 128\n",
        );
        let message = error.unwrap_err().to_string();
        assert!(message.contains("line 5") && message.contains("memroy_size"), "{message}");
    }

    #[test]
    fn a_function_is_called_as_its_folder_unless_it_says_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("resize");
        fs::create_dir(&folder).unwrap();
        let rest = "runtime = \"Python3.10\"\nhandler = \"index.handler\"\ntimeout = 3\n";
        for (text, name) in [(rest.to_owned(), "resize"), (format!("name = \"other\"\n{rest}"), "other")] {
            fs::write(folder.join("function.toml"), text).unwrap();
            for path in [folder.clone(), folder.join("."), folder.join("../resize")] {
                assert_eq!(FunctionFile::of(&path).unwrap().name, name);
            }
        }
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
