//! What a function says of its asynchronous requests (`functiongraph.md` 2.4): how old they may become, how
//! often they are tried again, where their results go. Read from the API's JSON, kept as JSON, and made into
//! the policy that the supervisor follows.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use store::{AsyncConfigRecord, FunctionKey, LATEST};
use supervisor::AsyncPolicy;

use crate::{
    error::ApiError,
    list_invocations::shown_time,
    spec::{Fields, bad},
    urn::{self, Named, Urn},
};

/// No code of the wire is for these fields; this is that of a parameter that is not understood.
const CODE: &str = "FSS.1001";
const MAX_AGE_S: u64 = 86_400;
const DEFAULT_AGE_S: u64 = 3_600;
const MAX_RETRIES: u64 = 3;
const DEFAULT_RETRIES: u64 = 1;
/// The only place a node can send results to.
const FUNCTION: &str = "FunctionGraph";
/// Kept and given back: the names of where logs would go in the cloud.
const LOG_FIELDS: [&str; 4] = ["log_group_id", "log_group_name", "log_stream_id", "log_stream_name"];
/// Of one of them.
const MAX_LOG_FIELD: usize = 256;

/// As it is kept: only what was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AsyncConfig {
    #[serde(default)]
    max_age_s: Option<u64>,
    #[serde(default)]
    retries: Option<u64>,
    #[serde(default)]
    on_success: Option<Destination>,
    #[serde(default)]
    on_failure: Option<Destination>,
    #[serde(default)]
    status_log: Option<bool>,
    #[serde(default)]
    logs: Map<String, Value>,
}

/// A function that results go to, and the text by which it was named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Destination {
    package: String,
    name: String,
    #[serde(default = "latest")]
    version: String,
    param: String,
}

/// What a destination that was kept without a version means.
fn latest() -> String {
    LATEST.to_owned()
}

impl Destination {
    fn key(&self, project: &str) -> FunctionKey {
        FunctionKey {
            project: project.to_owned(),
            package: self.package.clone(),
            name: self.name.clone(),
            version: self.version.clone(),
        }
    }
}

impl AsyncConfig {
    /// Reads a body for the function `own`; `exists` says whether a function of its project is there.
    pub(crate) fn read(
        fields: &Fields<'_>,
        own: &FunctionKey,
        exists: impl Fn(&FunctionKey) -> bool,
    ) -> Result<Self, ApiError> {
        let (mut on_success, mut on_failure) = (None, None);
        if let Some(destinations) = fields.object("destination_config", CODE)? {
            for (name, to) in [("on_success", &mut on_success), ("on_failure", &mut on_failure)] {
                if let Some(destination) = Fields(destinations).object(name, CODE)? {
                    *to = read_destination(name, &Fields(destination), own, &exists)?;
                }
            }
        }
        let mut logs = Map::new();
        for name in LOG_FIELDS {
            if let Some(text) = fields.text(name, CODE)? {
                if text.len() > MAX_LOG_FIELD {
                    return Err(bad(CODE, format!("{name} is longer than {MAX_LOG_FIELD} bytes")));
                }
                logs.insert(name.to_owned(), text.into());
            }
        }
        Ok(Self {
            max_age_s: fields.count("max_async_event_age_in_seconds", CODE, 1, MAX_AGE_S)?,
            retries: fields.count("max_async_retry_attempts", CODE, 0, MAX_RETRIES)?,
            on_success,
            on_failure,
            status_log: fields.flag("enable_async_status_log", CODE)?,
            logs,
        })
    }

    /// From what is kept.
    pub(crate) fn kept(record: &AsyncConfigRecord) -> Result<Self, ApiError> {
        serde_json::from_str(&record.body).map_err(|error| {
            ApiError::internal(format!(
                "the stored configuration of asynchronous requests is damaged: {error}"
            ))
        })
    }

    /// What the supervisor follows.
    pub(crate) fn policy(&self, project: &str) -> AsyncPolicy {
        AsyncPolicy {
            max_age: Duration::from_secs(self.max_age_s.unwrap_or(DEFAULT_AGE_S)),
            retries: u8::try_from(self.retries.unwrap_or(DEFAULT_RETRIES)).unwrap_or(0),
            // Its owner spoke of retries, and so of errors too.
            retry_own_errors: self.retries.is_some(),
            on_success: self.on_success.as_ref().map(|to| to.key(project)),
            on_failure: self.on_failure.as_ref().map(|to| to.key(project)),
        }
    }

    /// In the API's own shape.
    pub(crate) fn show(&self, record: &AsyncConfigRecord, region: &str) -> Value {
        let destination = |to: &Option<Destination>| match to {
            Some(to) => json!({ "destination": FUNCTION, "param": to.param }),
            None => json!({}),
        };
        let mut shown = json!({
            "func_urn": urn::long(region, &record.key),
            "max_async_event_age_in_seconds": self.max_age_s.unwrap_or(DEFAULT_AGE_S),
            "max_async_retry_attempts": self.retries.unwrap_or(DEFAULT_RETRIES),
            "destination_config": {
                "on_success": destination(&self.on_success),
                "on_failure": destination(&self.on_failure),
            },
            "enable_async_status_log": self.status_log.unwrap_or(false),
            "created_time": shown_time(record.created_ms),
            "last_modified": shown_time(record.modified_ms),
        });
        if let Some(shown) = shown.as_object_mut() {
            shown.extend(self.logs.clone());
        }
        shown
    }
}

/// One destination; none if it is empty, as clients send it.
fn read_destination(
    name: &str,
    fields: &Fields<'_>,
    own: &FunctionKey,
    exists: &impl Fn(&FunctionKey) -> bool,
) -> Result<Option<Destination>, ApiError> {
    let kind = fields.text("destination", CODE)?.unwrap_or_default();
    let param = fields.text("param", CODE)?.unwrap_or_default();
    if kind.is_empty() && param.is_empty() {
        return Ok(None);
    }
    if kind != FUNCTION {
        let why =
            format!("{name}: a node sends results to another function ({FUNCTION}) only, not to {kind:?}");
        return Err(bad(CODE, why));
    }
    let named: Option<Value> = serde_json::from_str(param).ok();
    let text = named.as_ref().and_then(|named| named.get("func_urn")).and_then(Value::as_str);
    let text = text.ok_or_else(|| {
        bad(CODE, format!("{name}: param is not the text of a JSON object with a func_urn: {param:?}"))
    })?;
    let to = Urn::parse(text, &own.project)?;
    if let Named::Alias(alias) = &to.named {
        return Err(bad(CODE, format!("{name}: !{alias} is an alias: a node sends results to a version")));
    }
    if to.key.at(LATEST) == own.at(LATEST) {
        return Err(bad(CODE, format!("{name}: a function cannot be invoked with its own results")));
    }
    // A function of another project is as good as none: nothing is told of it.
    if to.key.project != own.project || !exists(&to.key) {
        return Err(bad(CODE, format!("{name}: there is no function {text:?}")));
    }
    let FunctionKey { package, name, version, .. } = to.key;
    Ok(Some(Destination { package, name, version, param: param.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> FunctionKey {
        FunctionKey {
            project: "p".into(),
            package: "default".into(),
            name: "f".into(),
            version: LATEST.into(),
        }
    }

    fn read(body: &Value) -> Result<AsyncConfig, ApiError> {
        AsyncConfig::read(&Fields(body.as_object().unwrap()), &own(), |key| {
            key.name == "g" && ["latest", "v1"].contains(&key.version.as_str())
        })
    }

    fn to(kind: &str, param: &str) -> Value {
        json!({ "destination_config": { "on_success": { "destination": kind, "param": param } } })
    }

    #[test]
    fn what_is_not_said_is_the_default_and_leaves_own_errors_alone() {
        let policy = read(&json!({})).unwrap().policy("p");
        assert_eq!(policy, AsyncPolicy::default());
        let policy = read(&json!({ "max_async_retry_attempts": 1 })).unwrap().policy("p");
        assert_eq!(policy, AsyncPolicy { retry_own_errors: true, ..AsyncPolicy::default() });
    }

    #[test]
    fn a_destination_is_another_function_of_the_same_project() {
        let urn = "{\"func_urn\":\"urn:fss:r:p:function:default:g\"}";
        let policy = read(&to(FUNCTION, urn)).unwrap().policy("p");
        let key = policy.on_success.unwrap();
        assert_eq!((key.name.as_str(), key.version.as_str()), ("g", LATEST));
        let of_version = "{\"func_urn\":\"p:default:g:v1\"}";
        let policy = read(&to(FUNCTION, of_version)).unwrap().policy("p");
        assert_eq!(policy.on_success.unwrap().version, "v1");
        assert_eq!(read(&to("", "")).unwrap(), AsyncConfig::default());
        for (kind, param) in [
            ("OBS", "{}"),
            ("SMN", urn),
            (FUNCTION, ""),
            (FUNCTION, "[]"),
            (FUNCTION, "{\"func_urn\":7}"),
            (FUNCTION, "{\"func_urn\":\"f\"}"),
            (FUNCTION, "{\"func_urn\":\"p:default:f:v1\"}"),
            (FUNCTION, "{\"func_urn\":\"p:default:g:v2\"}"),
            (FUNCTION, "{\"func_urn\":\"p:default:g:!prod\"}"),
            (FUNCTION, "{\"func_urn\":\"h\"}"),
            (FUNCTION, "{\"func_urn\":\"g:g:g:g:g:g\"}"),
            (FUNCTION, "{\"func_urn\":\"urn:fss:r:other:function:default:g\"}"),
        ] {
            assert_eq!(read(&to(kind, param)).unwrap_err().status.as_u16(), 400, "{kind} {param}");
        }
    }

    #[test]
    fn what_is_out_of_range_or_of_another_type_is_refused() {
        for body in [
            json!({ "max_async_event_age_in_seconds": 0 }),
            json!({ "max_async_event_age_in_seconds": 86_401 }),
            json!({ "max_async_retry_attempts": 4 }),
            json!({ "max_async_retry_attempts": "1" }),
            json!({ "enable_async_status_log": 1 }),
            json!({ "destination_config": [] }),
            json!({ "destination_config": { "on_failure": "x" } }),
            json!({ "log_group_id": 3 }),
            json!({ "log_group_id": "x".repeat(257) }),
        ] {
            assert_eq!(read(&body).unwrap_err().status.as_u16(), 400, "{body}");
        }
    }
}
