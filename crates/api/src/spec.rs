//! A function's configuration: read from a body field by field, each with the API's own error code;
//! kept as JSON; shown in the API's shape; turned into what the supervisor runs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use store::{FunctionRecord, NodeLabels};
use supervisor::{AsyncPolicy, FunctionSpec, Network, OnDisconnect, PreStop, RuntimeImage};

use crate::{
    error::ApiError,
    refusals,
    settings::{MAX_DESCRIPTION, MAX_GRACE_MS},
    urn,
};

/// What an instance may have, in MB (`functiongraph.md` 2.1, 2.5).
pub(crate) const MEMORY_SIZES: [u64; 15] =
    [128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 8192, 10240];
const MAX_USER_DATA: usize = 4096;
const MAX_USER_DATA_ENTRIES: usize = 20;
const DEFAULT_GRACE_MS: u64 = 2_000;
const DEFAULT_START_S: u64 = 30;
/// Where a handler comes without a limit; the service names no default.
const DEFAULT_PRE_STOP_S: u64 = 10;
const MAX_PRE_STOP_S: u64 = 90;
/// As a handler may be (`functiongraph.md` 2.5).
const MAX_HOOK: usize = 128;
const DEFAULT_INSTANCES: i64 = 400;

/// A function's configuration as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FunctionConfig {
    pub(crate) runtime: String,
    pub(crate) handler: String,
    pub(crate) timeout: u64,
    pub(crate) memory_size: u64,
    pub(crate) description: String,
    pub(crate) user_data: String,
    pub(crate) initializer_handler: String,
    pub(crate) initializer_timeout: Option<u64>,
    /// What an instance runs before it is released; empty: nothing.
    #[serde(default)]
    pub(crate) pre_stop_handler: String,
    #[serde(default)]
    pub(crate) pre_stop_timeout: Option<u64>,
    pub(crate) code_type: String,
    pub(crate) code_filename: String,
    /// -1 unlimited, 0 disabled.
    pub(crate) max_instances: i64,
    /// What it was before it was disabled; of one that is not, nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_instances_before: Option<i64>,
    pub(crate) concurrent_num: u32,
    /// Instances that are kept without work; set by an operation of its own.
    #[serde(default)]
    pub(crate) reserved: u32,
    pub(crate) quell: QuellOptions,
    /// What its publisher says of a version; nothing for `latest`.
    #[serde(default)]
    pub(crate) version_description: String,
}

/// What the API of the cloud has no words for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuellOptions {
    grace_ms: u64,
    on_grace_expired: String,
    on_collateral: String,
    on_disconnect: String,
    start_timeout_s: u64,
    #[serde(default = "auto")]
    network: String,
    /// Instances are forked from a process that has imported the code, where that is possible.
    #[serde(default)]
    fork_server: bool,
    /// A node must have all of these to run it. A store that nodes share reads them, by this name, of what is kept.
    #[serde(default)]
    node_labels: Vec<String>,
}

fn auto() -> String {
    "auto".to_owned()
}

impl Default for QuellOptions {
    fn default() -> Self {
        Self {
            grace_ms: DEFAULT_GRACE_MS,
            on_grace_expired: "drain".to_owned(),
            on_collateral: "fail".to_owned(),
            on_disconnect: "continue".to_owned(),
            start_timeout_s: DEFAULT_START_S,
            network: auto(),
            fork_server: false,
            node_labels: Vec::new(),
        }
    }
}

/// The fields of a body; absent and null are the same.
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, name: &str, code: &str) -> Result<Option<&str>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(bad(code, format!("{name} is not a string"))),
        }
    }

    /// A description of whatever the body is about.
    pub(crate) fn description(&self) -> Result<Option<&str>, ApiError> {
        match self.text("description", "FSS.1019")? {
            Some(text) if text.chars().count() > MAX_DESCRIPTION => {
                Err(bad("FSS.1019", format!("description is longer than {MAX_DESCRIPTION} characters")))
            }
            text => Ok(text),
        }
    }

    /// True or false.
    pub(crate) fn flag(&self, name: &str, code: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(bad(code, format!("{name} is neither true nor false"))),
        }
    }

    /// An object in it.
    pub(crate) fn object(&self, name: &str, code: &str) -> Result<Option<&Map<String, Value>>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(bad(code, format!("{name} is not an object"))),
        }
    }

    pub(crate) fn required_text(&self, name: &str, code: &str) -> Result<&str, ApiError> {
        self.text(name, code)?.ok_or_else(|| bad(code, format!("{name} is missing")))
    }

    fn integer(&self, name: &str, code: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name).map(Value::as_i64) {
            None => Ok(None),
            Some(Some(number)) => Ok(Some(number)),
            Some(None) => Err(bad(code, format!("{name} is not an integer"))),
        }
    }

    /// An integer within bounds.
    pub(crate) fn count(&self, name: &str, code: &str, from: u64, to: u64) -> Result<Option<u64>, ApiError> {
        let Some(number) = self.integer(name, code)? else { return Ok(None) };
        match u64::try_from(number) {
            Ok(number) if (from..=to).contains(&number) => Ok(Some(number)),
            _ => Err(bad(code, format!("{name} {number} is not between {from} and {to}"))),
        }
    }
}

pub(crate) fn bad(code: &str, message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code, message)
}

/// What may be said, for people.
pub(crate) fn listed<T: ToString>(all: &[T]) -> String {
    all.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

impl FunctionConfig {
    /// Reads a whole configuration. What is left out has its default, or what `before` had.
    pub(crate) fn read(fields: &Fields<'_>, before: Option<&Self>) -> Result<Self, ApiError> {
        refusals::check_fields(fields)?;
        let timeout = fields.count("timeout", "FSS.1008", 3, 259_200)?;
        let memory_size = fields.count("memory_size", "FSS.1007", 128, 10_240)?;
        let memory_size = memory_size.ok_or_else(|| bad("FSS.1007", "memory_size is missing".into()))?;
        if !MEMORY_SIZES.contains(&memory_size) {
            return Err(bad(
                "FSS.1007",
                format!("memory_size {memory_size} is not one of {}", listed(&MEMORY_SIZES)),
            ));
        }
        let kept = |text: fn(&Self) -> &String| before.map(text).cloned().unwrap_or_default();
        let (max_instances, concurrent_num) = strategy(fields, before)?;
        let (pre_stop_handler, pre_stop_timeout) = pre_stop(fields, before)?;
        Ok(Self {
            runtime: fields.required_text("runtime", "FSS.1005")?.to_owned(),
            handler: handler(fields)?,
            timeout: timeout.ok_or_else(|| bad("FSS.1008", "timeout is missing".into()))?,
            memory_size,
            description: match fields.description()? {
                Some(text) => text.to_owned(),
                None => kept(|config| &config.description),
            },
            user_data: match user_data(fields)? {
                Some(text) => text,
                None => kept(|config| &config.user_data),
            },
            initializer_handler: match hook(fields, "initializer_handler", "FSS.1404")? {
                Some(text) => text,
                None => kept(|config| &config.initializer_handler),
            },
            initializer_timeout: fields
                .count("initializer_timeout", "FSS.1405", 1, 300)?
                .or(before.and_then(|config| config.initializer_timeout)),
            pre_stop_handler,
            pre_stop_timeout,
            code_type: kept(|config| &config.code_type),
            code_filename: kept(|config| &config.code_filename),
            max_instances,
            max_instances_before: None,
            concurrent_num,
            reserved: before.map_or(0, |config| config.reserved),
            quell: options(fields, before)?,
            version_description: String::new(),
        })
    }

    /// One that comes after `before`: while it is disabled, it keeps what it had.
    pub(crate) fn remembering(mut self, before: &Self) -> Self {
        self.max_instances_before = match (self.max_instances, before.max_instances) {
            (0, 0) => before.max_instances_before,
            (0, had) => Some(had),
            _ => None,
        };
        self
    }

    /// Whether a published configuration is this one of `latest`, whatever its publisher said of it and
    /// however many instances either keeps.
    pub(crate) fn was_published_from(&self, latest: &Self) -> bool {
        let published = Self {
            version_description: String::new(),
            reserved: latest.reserved,
            max_instances_before: latest.max_instances_before,
            ..self.clone()
        };
        published == *latest
    }

    /// What the supervisor runs.
    pub(crate) fn spec(
        &self,
        record: &FunctionRecord,
        region: &str,
        image: Arc<RuntimeImage>,
        code_dir: PathBuf,
        asynchronous: AsyncPolicy,
    ) -> FunctionSpec {
        // An initializer's own limit is that of the whole initialization.
        let initializing = self.initializer_timeout.filter(|_| !self.initializer_handler.is_empty());
        let start = initializing.unwrap_or(self.quell.start_timeout_s);
        FunctionSpec {
            key: Arc::new(record.key.clone()),
            urn: urn::long(region, &record.key),
            revision: record.revision,
            image,
            code_dir,
            handler: self.handler.clone(),
            initializer: Some(self.initializer_handler.clone()).filter(|handler| !handler.is_empty()),
            pre_stop: Some(&self.pre_stop_handler).filter(|handler| !handler.is_empty()).map(|handler| {
                PreStop {
                    handler: handler.clone(),
                    timeout: Duration::from_secs(self.pre_stop_timeout.unwrap_or(DEFAULT_PRE_STOP_S)),
                }
            }),
            timeout: Duration::from_secs(self.timeout),
            start_timeout: Duration::from_secs(start),
            memory_mb: u32::try_from(self.memory_size).unwrap_or(u32::MAX),
            cpu_millis: self.cpu(),
            user_data: if self.user_data.is_empty() { "{}".to_owned() } else { self.user_data.clone() },
            concurrency: self.concurrent_num,
            max_instances: u32::try_from(self.max_instances).unwrap_or(u32::MAX), // -1: unlimited
            reserved: self.reserved,
            fork_server: self.quell.fork_server,
            node_labels: self.node_labels(),
            grace: Duration::from_millis(self.quell.grace_ms),
            on_grace: match self.quell.on_grace_expired.as_str() {
                "kill" => cancel::OnGrace::Kill,
                _ => cancel::OnGrace::Drain,
            },
            on_collateral: match self.quell.on_collateral.as_str() {
                "retry" => cancel::OnCollateral::Retry,
                _ => cancel::OnCollateral::Fail,
            },
            on_disconnect: match self.quell.on_disconnect.as_str() {
                "cancel" => OnDisconnect::Cancel,
                _ => OnDisconnect::Continue,
            },
            network: match self.quell.network.as_str() {
                "own" => Network::Own,
                "node" => Network::Node,
                _ => Network::Auto,
            },
            asynchronous,
        }
    }

    /// The labels that a node must have to run it.
    pub(crate) fn node_labels(&self) -> NodeLabels {
        NodeLabels::kept(self.quell.node_labels.clone())
    }

    /// Millicores (`functiongraph.md` 2.5: memory / 128 * 100 + 200).
    fn cpu(&self) -> u32 {
        u32::try_from(self.memory_size * 100 / 128 + 200).unwrap_or(u32::MAX)
    }

    /// The function as the API shows it.
    pub(crate) fn show(&self, record: &FunctionRecord, region: &str) -> Value {
        let mut strategy_config =
            json!({ "concurrency": self.max_instances, "concurrent_num": self.concurrent_num });
        if let Some(before) = self.max_instances_before {
            strategy_config["concurrency_before"] = json!(before);
        }
        json!({
            "func_urn": urn::long(region, &record.key),
            "func_name": record.key.name,
            "domain_id": record.key.project,
            "namespace": record.key.project,
            "project_name": record.key.project,
            "package": record.key.package,
            "runtime": self.runtime,
            "timeout": self.timeout,
            "handler": self.handler,
            "memory_size": self.memory_size,
            "cpu": self.cpu(),
            "code_type": self.code_type,
            "code_filename": self.code_filename,
            "code_size": record.code_size,
            "digest": record.code_digest,
            "version": record.key.version,
            "version_description": self.version_description,
            "image_name": format!("{}-{}", record.key.name, record.revision),
            "last_modified": modified(record.modified_ms),
            "description": self.description,
            "user_data": self.user_data,
            "initializer_handler": self.initializer_handler,
            "initializer_timeout": self.initializer_timeout.unwrap_or(0),
            "pre_stop_handler": self.pre_stop_handler,
            "pre_stop_timeout": self.pre_stop_timeout.unwrap_or(0),
            "strategy_config": strategy_config,
            "type": "v2",
            "quell": self.quell,
        })
    }
}

/// When something was last changed, as the API shows it.
pub(crate) fn modified(ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

fn handler(fields: &Fields<'_>) -> Result<String, ApiError> {
    let handler = fields.required_text("handler", "FSS.1003")?;
    let fits = (3..=128).contains(&handler.len()) && handler.contains('.') && !handler.contains("..");
    if !fits || handler.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err(bad(
            "FSS.1003",
            format!("handler {handler:?} is not file.function of 3 to 128 characters"),
        ));
    }
    Ok(handler.to_owned())
}

/// A further function of the code, by what it is for: `file.function`, or empty for none.
fn hook(fields: &Fields<'_>, name: &str, code: &str) -> Result<Option<String>, ApiError> {
    match fields.text(name, code)? {
        Some(text) if !text.is_empty() && !text.contains('.') => {
            Err(bad(code, format!("{name} {text:?} is not file.function")))
        }
        Some(text) if text.len() > MAX_HOOK || text.contains(char::is_control) => {
            Err(bad(code, format!("{name} is longer than {MAX_HOOK} bytes, or has a control character")))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

/// What an instance runs before it is released, and for how many seconds at most (`functiongraph.md` 2.5).
fn pre_stop(fields: &Fields<'_>, before: Option<&FunctionConfig>) -> Result<(String, Option<u64>), ApiError> {
    let handler = match hook(fields, "pre_stop_handler", "FSS.0400")? {
        Some(text) => text,
        None => before.map(|config| config.pre_stop_handler.clone()).unwrap_or_default(),
    };
    let limit = match fields.count("pre_stop_timeout", "FSS.0400", 0, MAX_PRE_STOP_S)? {
        // As it is shown of a function that has none.
        Some(0) if handler.is_empty() => None,
        Some(0) => {
            let why = format!("pre_stop_timeout 0 is not between 1 and {MAX_PRE_STOP_S}");
            return Err(bad("FSS.0400", why));
        }
        limit => limit.or(before.and_then(|config| config.pre_stop_timeout)),
    };
    Ok((handler, limit))
}

/// A JSON object written as a string, of strings.
fn user_data(fields: &Fields<'_>) -> Result<Option<String>, ApiError> {
    let Some(text) = fields.text("user_data", "FSS.1009")? else { return Ok(None) };
    if text.len() > MAX_USER_DATA {
        return Err(bad("FSS.1018", format!("user_data is larger than {MAX_USER_DATA} bytes")));
    }
    if text.is_empty() {
        return Ok(Some(String::new()));
    }
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(entries)) if entries.len() > MAX_USER_DATA_ENTRIES => {
            Err(bad("FSS.1017", format!("user_data has more than {MAX_USER_DATA_ENTRIES} entries")))
        }
        Ok(Value::Object(_)) => Ok(Some(text.to_owned())),
        Ok(_) | Err(_) => Err(bad("FSS.1009", "user_data is not a JSON object written as a string".into())),
    }
}

/// Instances and requests per instance.
fn strategy(fields: &Fields<'_>, before: Option<&FunctionConfig>) -> Result<(i64, u32), ApiError> {
    let kept = before.map_or((DEFAULT_INSTANCES, 1), |config| (config.max_instances, config.concurrent_num));
    let strategy = match fields.get("strategy_config") {
        None => return Ok(kept),
        Some(Value::Object(strategy)) => Fields(strategy),
        Some(_) => return Err(bad("FSS.1026", "strategy_config is not an object".into())),
    };
    let instances = instances(strategy.integer("concurrency", "FSS.1026")?.unwrap_or(kept.0))?;
    let each = strategy.count("concurrent_num", "FSS.1026", 1, 1000)?;
    Ok((instances, each.and_then(|each| u32::try_from(each).ok()).unwrap_or(kept.1)))
}

/// A maximum of instances: -1 unlimited, 0 disabled.
pub(crate) fn instances(number: i64) -> Result<i64, ApiError> {
    if (-1..=1000).contains(&number) {
        return Ok(number);
    }
    Err(bad("FSS.1026", format!("{number} instances: not between -1 and 1000")))
}

fn options(fields: &Fields<'_>, before: Option<&FunctionConfig>) -> Result<QuellOptions, ApiError> {
    let kept = before.map(|config| config.quell.clone()).unwrap_or_default();
    let given = match fields.get("quell") {
        None => return Ok(kept),
        Some(Value::Object(given)) => Fields(given),
        Some(_) => return Err(bad("FSS.0400", "quell is not an object".into())),
    };
    let known = [
        "grace_ms",
        "on_grace_expired",
        "on_collateral",
        "on_disconnect",
        "start_timeout_s",
        "network",
        "fork_server",
        "node_labels",
    ];
    // Our own object: a misspelt option here would be a promise silently not kept.
    if let Some(unknown) = given.0.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(bad("FSS.0400", format!("quell.{unknown} is not known; known are {}", listed(&known))));
    }
    let choice = |name: &str, choices: &[&str], kept: &str| -> Result<String, ApiError> {
        match given.text(name, "FSS.0400")? {
            None => Ok(kept.to_owned()),
            Some(choice) if choices.contains(&choice) => Ok(choice.to_owned()),
            Some(other) => {
                Err(bad("FSS.0400", format!("quell.{name} {other:?} is not one of {}", listed(choices))))
            }
        }
    };
    Ok(QuellOptions {
        grace_ms: given.count("grace_ms", "FSS.0400", 0, MAX_GRACE_MS)?.unwrap_or(kept.grace_ms),
        on_grace_expired: choice("on_grace_expired", &["drain", "kill"], &kept.on_grace_expired)?,
        on_collateral: choice("on_collateral", &["fail", "retry"], &kept.on_collateral)?,
        on_disconnect: choice("on_disconnect", &["continue", "cancel"], &kept.on_disconnect)?,
        start_timeout_s: given.count("start_timeout_s", "FSS.0400", 1, 900)?.unwrap_or(kept.start_timeout_s),
        network: choice("network", &["auto", "own", "node"], &kept.network)?,
        fork_server: match given.get("fork_server") {
            None => kept.fork_server,
            Some(Value::Bool(wanted)) => *wanted,
            Some(other) => {
                return Err(bad("FSS.0400", format!("quell.fork_server {other} is not true or false")));
            }
        },
        node_labels: node_labels(&given)?.unwrap_or(kept.node_labels),
    })
}

/// The labels that a node must have: in order, each once.
fn node_labels(given: &Fields<'_>) -> Result<Option<Vec<String>>, ApiError> {
    let wrong = |why: String| bad("FSS.0400", format!("quell.node_labels: {why}"));
    let Some(value) = given.get("node_labels") else { return Ok(None) };
    let list = value.as_array().ok_or_else(|| wrong(format!("{value} is not a list of texts")))?;
    let text = |label: &Value| {
        let text = label.as_str().map(str::to_owned);
        text.ok_or_else(|| wrong(format!("{label} is not a text")))
    };
    let labels = list.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(NodeLabels::new(labels).map_err(wrong)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<FunctionConfig, ApiError> {
        FunctionConfig::read(&Fields(body.as_object().unwrap()), None)
    }

    fn body(change: Value) -> Value {
        let mut body =
            json!({ "runtime": "Python3.10", "handler": "index.handler", "timeout": 3, "memory_size": 128 });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    }

    #[test]
    fn each_bad_field_has_its_own_code() {
        for (change, code) in [
            (json!({ "runtime": null }), "FSS.1005"),
            (json!({ "handler": "handler" }), "FSS.1003"),
            (json!({ "handler": 7 }), "FSS.1003"),
            (json!({ "handler": "../x.y" }), "FSS.1003"),
            (json!({ "timeout": 2 }), "FSS.1008"),
            (json!({ "timeout": "3" }), "FSS.1008"),
            (json!({ "memory_size": 129 }), "FSS.1007"),
            (json!({ "memory_size": null }), "FSS.1007"),
            (json!({ "description": "x".repeat(513) }), "FSS.1019"),
            (json!({ "user_data": "[]" }), "FSS.1009"),
            (json!({ "user_data": {} }), "FSS.1009"),
            (json!({ "user_data": "x".repeat(4097) }), "FSS.1018"),
            (json!({ "initializer_handler": "x" }), "FSS.1404"),
            (json!({ "initializer_timeout": 301 }), "FSS.1405"),
            (json!({ "initializer_timeout": 0 }), "FSS.1405"),
            (json!({ "pre_stop_handler": "x" }), "FSS.0400"),
            (json!({ "pre_stop_handler": ["x.y"] }), "FSS.0400"),
            (json!({ "pre_stop_handler": format!("{}.y", "x".repeat(128)) }), "FSS.0400"),
            (json!({ "pre_stop_handler": "x.y", "pre_stop_timeout": 0 }), "FSS.0400"),
            (json!({ "pre_stop_timeout": 91 }), "FSS.0400"),
            (json!({ "pre_stop_timeout": "10" }), "FSS.0400"),
            (json!({ "strategy_config": { "concurrency": 1001 } }), "FSS.1026"),
            (json!({ "strategy_config": { "concurrent_num": 0 } }), "FSS.1026"),
            (json!({ "quell": { "grace": 3 } }), "FSS.0400"),
            (json!({ "quell": { "on_collateral": "both" } }), "FSS.0400"),
            (json!({ "quell": { "fork_server": "yes" } }), "FSS.0400"),
            (json!({ "quell": { "node_labels": "gpu" } }), "FSS.0400"),
            (json!({ "quell": { "node_labels": ["gpu", 7] } }), "FSS.0400"),
            (json!({ "quell": { "node_labels": ["gpu,zone=a"] } }), "FSS.0400"),
        ] {
            let error = read(body(change.clone())).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code.as_str()), (400, code), "{change}: {error}");
        }
    }

    #[test]
    fn what_an_update_leaves_out_stays() {
        let first = read(body(json!({
            "user_data": "{\"a\":\"b\"}",
            "pre_stop_handler": "index.leave",
            "pre_stop_timeout": 90,
            "strategy_config": { "concurrency": 5, "concurrent_num": 7 },
            "quell": { "grace_ms": 10, "on_grace_expired": "kill", "node_labels": ["zone=a", "gpu", "gpu"] },
        })))
        .unwrap();
        let second =
            FunctionConfig::read(&Fields(body(json!({ "timeout": 9 })).as_object().unwrap()), Some(&first))
                .unwrap();
        assert_eq!(first.quell.node_labels, ["gpu", "zone=a"]);
        assert_eq!(second, FunctionConfig { timeout: 9, ..first.clone() });
        let none = body(json!({ "timeout": 9, "quell": { "node_labels": [] } }));
        let third = FunctionConfig::read(&Fields(none.as_object().unwrap()), Some(&first)).unwrap();
        assert!(third.node_labels().is_empty() && third.quell.grace_ms == 10);
    }
}
