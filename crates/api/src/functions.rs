//! The other operations on functions: list, show, change, delete.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
};
use base64::Engine as _;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::FunctionRecord;

use crate::{
    auth::{Head, Right},
    body, code,
    error::ApiError,
    package,
    registry::{Api, config},
    settings::{MAX_FUNCTION_BODY, MAX_FUNCTIONS},
    spec::{Fields, FunctionConfig, bad, instances},
    urn::{Named, Urn},
    versions,
};

#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    marker: Option<String>,
    maxitems: Option<String>,
    package_name: Option<String>,
    func_name: Option<String>,
}

/// ListFunctions.
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Path(project): Path<String>,
    Query(query): Query<ListQuery>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    api.caller(&head, &project, Right::Read)?;
    let marker = number(query.marker.as_deref(), "marker")?.unwrap_or(0);
    let most = match number(query.maxitems.as_deref(), "maxitems")? {
        None | Some(0) => MAX_FUNCTIONS,
        Some(most) => most.min(MAX_FUNCTIONS),
    };
    let fits = |record: &FunctionRecord| {
        if !record.key.is_latest() {
            return false;
        }
        let package = query.package_name.as_deref().is_none_or(|package| record.key.package == package);
        package && query.func_name.as_deref().is_none_or(|name| record.key.name.contains(name))
    };
    let records = api.store.functions(Some(project)).await?;
    let mut shown = Vec::new();
    let matching: Vec<_> = records.into_iter().filter(fits).collect();
    for record in matching.iter().skip(marker).take(most) {
        shown.push(config(record)?.show(record, &api.settings.region));
    }
    let (count, next) = (shown.len(), marker + shown.len());
    let next = if next < matching.len() { next } else { 0 };
    Ok(Json(json!({ "functions": shown, "count": count, "next_marker": next })))
}

/// A count in a query; empty is absent (a client sends it so).
pub(crate) fn number(text: Option<&str>, name: &str) -> Result<Option<usize>, ApiError> {
    match text.map(str::trim).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(bad("FSS.1001", format!("{name} {text:?} is not a count"))),
        },
    }
}

/// ShowFunctionConfig.
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    api.caller(&head, &project, Right::Read)?;
    let record = api.record(&Urn::parse(&urn, &project)?, &project).await?;
    Ok(Json(config(&record)?.show(&record, &api.settings.region)))
}

/// ShowFunctionCode.
pub(crate) async fn show_code(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    api.caller(&head, &project, Right::Admin)?;
    let record = api.record(&Urn::parse(&urn, &project)?, &project).await?;
    let code = api.store.code(record.code_digest.clone()).await?;
    let code = code.ok_or_else(|| ApiError::internal("the code of the function is not in the store"))?;
    let file = base64::engine::general_purpose::STANDARD.encode(code);
    let mut shown = config(&record)?.show(&record, &api.settings.region);
    shown["func_code"] = json!({ "file": file, "link": "" });
    Ok(Json(shown))
}

/// UpdateFunctionConfig.
pub(crate) async fn update_config(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let change = |fields: &Fields<'_>, before: &FunctionConfig| {
        Ok((FunctionConfig::read(fields, Some(before))?, None))
    };
    update(&api, &project, &urn, &head, body, change).await
}

/// UpdateFunctionCode.
pub(crate) async fn update_code(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let change = |fields: &Fields<'_>, before: &FunctionConfig| {
        let code = code::read(fields)?;
        let code = code.named_for(&before.runtime);
        let (code_type, code_filename) = (code.kind, code.filename);
        Ok((FunctionConfig { code_type, code_filename, ..before.clone() }, Some(code.bytes)))
    };
    update(&api, &project, &urn, &head, body, change).await
}

/// UpdateFunctionMaxInstanceConfig.
pub(crate) async fn update_max_instances(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let change = |fields: &Fields<'_>, before: &FunctionConfig| {
        let number = fields.0.get("max_instance_num").and_then(Value::as_i64);
        let number = number.ok_or_else(|| bad("FSS.1026", "max_instance_num is not an integer".into()))?;
        Ok((FunctionConfig { max_instances: instances(number)?, ..before.clone() }, None))
    };
    update(&api, &project, &urn, &head, body, change).await
}

/// Reads, checks, changes, keeps, makes ready: one change at a time.
async fn update(
    api: &Api,
    project: &str,
    urn: &str,
    head: &Head,
    body: Body,
    change: impl FnOnce(&Fields<'_>, &FunctionConfig) -> Result<(FunctionConfig, Option<Bytes>), ApiError>,
) -> Result<Json<Value>, ApiError> {
    let caller = api.caller(head, project, Right::Admin)?;
    let body = api.body(&caller, body, MAX_FUNCTION_BODY).await?;
    body::must_be_json(head)?;
    let object: Map<String, Value> = body::object(&body).map_err(body::not_json)?;
    let urn = Urn::parse(urn, project)?;
    urn.must_be_latest()?;
    let _changing = api.changing.lock().await;
    let mut record = api.record(&urn, project).await?;
    let before = config(&record)?;
    let (config, code) = change(&Fields(&object), &before)?;
    let config = config.remembering(&before);
    api.image(&config.runtime)?;
    api.must_be_placeable(&config, Some(&before))?;
    let now = jiff::Timestamp::now().as_millisecond();
    record.revision = (record.revision + 1).max(now.cast_unsigned());
    record.modified_ms = now;
    record.config = serde_json::to_string(&config).map_err(|error| ApiError::internal(error.to_string()))?;
    if let Some(code) = &code {
        record.code_digest = package::digest(code);
        record.code_size = code.len() as u64;
        api.unpacked(&record, &config, Some(code.clone())).await?;
    }
    if !api.store.update_function(record.clone(), code.clone()).await? {
        return Err(ApiError::no_function());
    }
    api.ready(&record, code).await?;
    Ok(Json(config.show(&record, &api.settings.region)))
}

/// DeleteFunction: all of it, or one published version.
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
) -> Result<StatusCode, ApiError> {
    api.caller(&head, &project, Right::Admin)?;
    let urn = Urn::parse(&urn, &project)?;
    let whole = match &urn.named {
        Named::Whole => true,
        Named::Version if !urn.key.is_latest() => false,
        Named::Version => {
            let why = "version latest is not deleted alone: name the function without a version";
            return Err(bad("FSS.1015", why.to_owned()));
        }
        Named::Alias(alias) => {
            return Err(bad("FSS.1014", format!("!{alias} is an alias: delete .../aliases/{alias}")));
        }
    };
    let _changing = api.changing.lock().await;
    let key = api.record(&urn, &project).await?.key;
    let gone = if whole {
        let versions = api.store.versions(key.clone()).await?;
        api.store.delete_function(key.clone()).await?;
        api.forget_aliases(&key, None);
        versions.into_iter().map(|record| record.key).collect()
    } else {
        versions::must_be_unused(&api, &key)?;
        api.store.delete_version(key.clone()).await?;
        vec![key]
    };
    for key in gone {
        api.forget(&key);
        api.handle.function_deleted(key).await;
    }
    Ok(StatusCode::NO_CONTENT)
}
