//! The operations on what functions say of their asynchronous requests.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::{AsyncConfigRecord, FunctionKey};
use supervisor::FunctionSpec;

use crate::{
    async_config::AsyncConfig,
    auth::{Head, Right},
    body,
    error::ApiError,
    functions::number,
    registry::Api,
    spec::{Fields, bad},
    urn::{Named, Urn},
};

/// Of a body: each of its fields is small.
const MAX_BODY: usize = 64 << 10;
const DEFAULT_ROWS: usize = 10;
const MAX_ROWS: usize = 100;

impl Api {
    async fn asked(&self, head: &Head, named: &(String, String)) -> Result<Arc<FunctionSpec>, ApiError> {
        self.caller(head, &named.0, Right::Read)?;
        self.named(named)
    }

    fn named(&self, (project, urn): &(String, String)) -> Result<Arc<FunctionSpec>, ApiError> {
        self.version(&Urn::parse(urn, project)?, project)
    }

    /// The version to change: an alias has no configuration of its own.
    fn changed(&self, (project, urn): &(String, String)) -> Result<Arc<FunctionSpec>, ApiError> {
        let urn = Urn::parse(urn, project)?;
        if let Named::Alias(alias) = &urn.named {
            return Err(bad("FSS.1014", format!("!{alias} is an alias: name the version")));
        }
        self.version(&urn, project)
    }

    async fn kept(&self, function: &FunctionSpec) -> Result<AsyncConfigRecord, ApiError> {
        let kept = self.store.async_config(FunctionKey::clone(&function.key)).await?;
        kept.ok_or_else(|| ApiError::not_found("the configuration of asynchronous requests"))
    }

    fn shown(&self, record: &AsyncConfigRecord) -> Result<Value, ApiError> {
        Ok(AsyncConfig::kept(record)?.show(record, &self.settings.region))
    }
}

/// ShowFunctionAsyncInvokeConfig.
pub(crate) async fn show(
    State(api): State<Arc<Api>>,
    Path(named): Path<(String, String)>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    let function = api.asked(&head, &named).await?;
    Ok(Json(api.shown(&api.kept(&function).await?)?))
}

/// UpdateFunctionAsyncInvokeConfig: replaces the whole.
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Path(named): Path<(String, String)>,
    head: Head,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let caller = api.caller(&head, &named.0, Right::Admin)?;
    let body = api.body(&caller, body, MAX_BODY).await?;
    body::must_be_json(&head)?;
    let object: Map<String, Value> = body::object(&body).map_err(body::not_json)?;
    let _changing = api.changing.lock().await;
    let function = api.changed(&named)?;
    let config = AsyncConfig::read(&Fields(&object), &function.key, |key| api.has(key))?;
    let text = serde_json::to_string(&config).map_err(|error| ApiError::internal(error.to_string()))?;
    let now = jiff::Timestamp::now().as_millisecond();
    if !api.store.put_async_config(FunctionKey::clone(&function.key), text, now).await? {
        return Err(ApiError::no_function());
    }
    api.set_policy(&function, config.policy(&function.key.project)).await;
    Ok(Json(api.shown(&api.kept(&function).await?)?))
}

/// DeleteFunctionAsyncInvokeConfig: the defaults hold again.
pub(crate) async fn delete(
    State(api): State<Arc<Api>>,
    Path(named): Path<(String, String)>,
    head: Head,
) -> Result<StatusCode, ApiError> {
    api.caller(&head, &named.0, Right::Admin)?;
    let _changing = api.changing.lock().await;
    let function = api.changed(&named)?;
    api.kept(&function).await?;
    api.store.delete_async_config(FunctionKey::clone(&function.key)).await?;
    api.set_policy(&function, supervisor::AsyncPolicy::default()).await;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    marker: Option<String>,
    limit: Option<String>,
}

/// ListFunctionAsyncInvokeConfig: one for each version that has one.
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Path(named): Path<(String, String)>,
    Query(query): Query<ListQuery>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    api.asked(&head, &named).await?;
    let marker = number(query.marker.as_deref(), "marker")?.unwrap_or(0);
    let limit = match number(query.limit.as_deref(), "limit")? {
        None | Some(0) => DEFAULT_ROWS,
        Some(limit) => limit.min(MAX_ROWS),
    };
    let of = api.requests_of(&Urn::parse(&named.1, &named.0)?).ok_or_else(ApiError::no_function)?;
    let kept = api.store.async_configs(of).await?;
    let count = kept.len();
    let page = kept.iter().skip(marker).take(limit).map(|kept| api.shown(kept));
    let page = page.collect::<Result<Vec<_>, _>>()?;
    let next = marker + page.len();
    Ok(Json(json!({
        "count": count,
        "page_info": {
            "next_marker": if next < count { next } else { 0 },
            "previous_marker": marker.saturating_sub(limit),
            "current_count": page.len(),
        },
        "async_invoke_configs": page,
    })))
}
