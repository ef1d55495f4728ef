//! The operations on aliases. Every one is of the function, not of a version: a URN names it without one.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
};
use jiff::Timestamp;
use serde_json::{Map, Value};
use store::{AliasRecord, FunctionKey};

use crate::{
    alias::{self, Says},
    auth::{Caller, Head, Right},
    body,
    error::ApiError,
    registry::Api,
    settings::{MAX_ALIASES, MAX_SMALL_BODY},
    spec::Fields,
    urn::Urn,
};

/// The function in its latest version; it must be there.
fn function(api: &Api, project: &str, urn: &str) -> Result<FunctionKey, ApiError> {
    let urn = Urn::parse(urn, project)?;
    urn.must_be_latest()?;
    Ok(FunctionKey::clone(&api.version(&urn, project)?.key))
}

fn no_alias() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "FSS.1053", "Not found the function alias")
}

fn no_version(version: &str) -> ApiError {
    let why = format!("Not found the function version: {version:?}");
    ApiError::new(StatusCode::NOT_FOUND, "FSS.1052", why)
}

async fn read(api: &Api, caller: &Caller, head: &Head, body: Body) -> Result<Map<String, Value>, ApiError> {
    let body = api.body(caller, body, MAX_SMALL_BODY).await?;
    body::must_be_json(head)?;
    body::object(&body).map_err(body::not_json)
}

/// Keeps an alias whose versions are there, and has it decide from here on.
async fn keep(api: &Api, alias: AliasRecord) -> Result<Json<Value>, ApiError> {
    let additional = alias.additional.iter().map(|share| &share.version);
    for version in std::iter::once(&alias.function.version).chain(additional) {
        if !api.has(&alias.function.at(version)) {
            return Err(no_version(version));
        }
    }
    if !api.store.put_alias(alias.clone()).await? {
        return Err(no_version(&alias.function.version));
    }
    let shown = alias::show(&alias, &api.settings.region);
    api.keep_alias(alias);
    Ok(Json(shown))
}

/// CreateVersionAlias.
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let caller = api.caller(&head, &project, Right::Admin)?;
    let object = read(&api, &caller, &head, body).await?;
    let fields = Fields(&object);
    let (name, says) = (alias::name(&fields)?, Says::read(&fields)?);
    let _changing = api.changing.lock().await;
    let key = function(&api, &project, &urn)?;
    if api.alias(&key, &name).is_some() {
        let why = format!("alias {name:?} has existed");
        return Err(ApiError::new(StatusCode::CONFLICT, "FSS.1063", why));
    }
    if api.aliases(&key, |aliases| aliases.len()).unwrap_or(0) >= MAX_ALIASES {
        let why = format!("a function has at most {MAX_ALIASES} aliases");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "FSS.1043", why));
    }
    let now = Timestamp::now().as_millisecond();
    keep(&api, says.record(&key, &name, now, now)).await
}

/// UpdateVersionAlias: replaces all but the name.
pub(crate) async fn update(
    State(api): State<Arc<Api>>,
    Path((project, urn, name)): Path<(String, String, String)>,
    head: Head,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let caller = api.caller(&head, &project, Right::Admin)?;
    let object = read(&api, &caller, &head, body).await?;
    let says = Says::read(&Fields(&object))?;
    let _changing = api.changing.lock().await;
    let key = function(&api, &project, &urn)?;
    let before = api.alias(&key, &name).ok_or_else(no_alias)?;
    keep(&api, says.record(&key, &name, before.created_ms, Timestamp::now().as_millisecond())).await
}

/// ShowVersionAlias.
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path((project, urn, name)): Path<(String, String, String)>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    api.caller(&head, &project, Right::Read)?;
    let key = function(&api, &project, &urn)?;
    let alias = api.alias(&key, &name).ok_or_else(no_alias)?;
    Ok(Json(alias::show(&alias, &api.settings.region)))
}

/// ListVersionAliases: a bare array, by name.
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
) -> Result<Json<Vec<Value>>, ApiError> {
    api.caller(&head, &project, Right::Read)?;
    let key = function(&api, &project, &urn)?;
    let region = &api.settings.region;
    let shown = api.aliases(&key, |all| all.values().map(|alias| alias::show(alias, region)).collect());
    Ok(Json(shown.unwrap_or_default()))
}

/// DeleteVersionAlias.
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    Path((project, urn, name)): Path<(String, String, String)>,
    head: Head,
) -> Result<StatusCode, ApiError> {
    api.caller(&head, &project, Right::Admin)?;
    let _changing = api.changing.lock().await;
    let key = function(&api, &project, &urn)?;
    if api.alias(&key, &name).is_none() || !api.store.delete_alias(key.clone(), name.clone()).await? {
        return Err(no_alias());
    }
    api.forget_aliases(&key, Some(&name));
    Ok(StatusCode::NO_CONTENT)
}
