//! ListQuotas: what a node really holds its functions to, and how much of it is in use.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use serde_json::{Value, json};

use crate::{
    auth::{Head, Right},
    error::ApiError,
    registry::Api,
};

/// No bound but the disk's.
const UNBOUNDED: i64 = -1;
const MIB: u64 = 1 << 20;

pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Path(project): Path<String>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    api.caller(&head, &project, Right::Read)?;
    let records = api.store.functions(Some(project.clone())).await?;
    let functions = records.iter().filter(|record| record.key.is_latest()).count();
    // Versions with the same code share it.
    let packages: HashMap<_, _> =
        records.iter().map(|record| (&record.code_digest, record.code_size)).collect();
    let code: u64 = packages.into_values().sum();
    let counts = api.handle.instance_counts(project).await;
    let live: usize = counts.iter().map(|count| count.live).sum();
    let reserved: usize = counts.iter().map(|count| count.reserved).sum();
    let limits = api.handle.limits();
    let resource =
        |kind: &str, quota: Value, used: Value| json!({ "type": kind, "quota": quota, "used": used });
    let mut size = resource("fgs_func_code_size", json!(UNBOUNDED), json!(code.div_ceil(MIB)));
    size["unit"] = json!("MB");
    let resources = [
        resource("fgs_func_num", json!(UNBOUNDED), json!(functions)),
        size,
        // Reserved instances, of all projects together.
        resource("fgs_func_occurs", json!(limits.max_instances), json!(reserved)),
        // Instances, of all projects together.
        resource("fgs_func_qos_limit", json!(limits.max_instances), json!(live)),
        resource("fgs_on_demand_instance_limit", json!(limits.max_instances), json!(live)),
        resource("fgs_func_scale_down_timeout", json!(limits.idle_release.as_secs()), json!(0)),
        resource("fgs_workflow_num", json!(0), json!(0)),
    ];
    Ok(Json(json!({ "quotas": { "resources": resources } })))
}
