//! Reserved instances: how many of a function are kept warm, and the lists that show them.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::FunctionKey;
use supervisor::FunctionSpec;

use crate::{
    auth::{Head, Right},
    body,
    error::ApiError,
    functions::number,
    registry::{Api, config},
    spec::{Fields, FunctionConfig, bad},
    urn::{Named, Urn},
};

/// Of a body: a number and a few words.
const MAX_BODY: usize = 64 << 10;
/// Instances a function may reserve at most, as many as it may have (`functiongraph.md` 2.5).
const MAX_RESERVED: u64 = 1_000;
/// Rows of the list of reserved instances, the most and the default (the API's own).
const MAX_ROWS: usize = 400;
/// Rows of the list of configurations, the most and the default (the API's own).
const MAX_CONFIGS: usize = 500;
const DEFAULT_CONFIGS: usize = 100;

/// UpdateFunctionReservedInstancesCount, of any version: what was published stays as it is. No new revision:
/// instances that are there stay.
pub(crate) async fn put(
    State(api): State<Arc<Api>>,
    Path((project, urn)): Path<(String, String)>,
    head: Head,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let caller = api.caller(&head, &project, Right::Admin)?;
    let body = api.body(&caller, body, MAX_BODY).await?;
    body::must_be_json(&head)?;
    let object: Map<String, Value> = body::object(&body).map_err(body::not_json)?;
    let urn = Urn::parse(&urn, &project)?;
    if let Named::Alias(alias) = &urn.named {
        return Err(bad("FSS.1014", format!("!{alias} is an alias: name the version")));
    }
    let _changing = api.changing.lock().await;
    let mut record = api.record(&urn, &project).await?;
    let before = config(&record)?;
    let reserved = count(&Fields(&object))?;
    api.has_room(&record.key, &before, reserved)?;
    let config = FunctionConfig { reserved, ..before };
    record.config = serde_json::to_string(&config).map_err(|error| ApiError::internal(error.to_string()))?;
    if !api.store.update_function(record.clone(), None).await? {
        return Err(ApiError::no_function());
    }
    api.ready(&record, None).await?;
    Ok(Json(json!({ "count": reserved, "idle_mode": false, "tactics_config": {} })))
}

/// The count of a body, in which nothing else may be asked for.
fn count(fields: &Fields<'_>) -> Result<u32, ApiError> {
    let refused = |what: &str, why: &str| {
        Err(bad("FSS.0400", format!("{what} is not supported by a node: {why}; leave it out")))
    };
    if fields.flag("idle_mode", "FSS.0400")? == Some(true) {
        return refused("idle_mode", "a reserved instance runs, and its processes are not frozen");
    }
    let tactics = fields.object("tactics_config", "FSS.0400")?;
    if tactics.is_some_and(|tactics| tactics.values().any(is_something)) {
        return refused("tactics_config", "the number of reserved instances follows no clock and no load");
    }
    let count = fields.count("count", "FSS.0400", 0, MAX_RESERVED)?;
    let count = count.ok_or_else(|| bad("FSS.0400", "count is missing".into()))?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

impl Api {
    /// Whether a function may have so many reserved instances: within its own maximum, and with those of
    /// all others within the node's.
    fn has_room(&self, key: &FunctionKey, config: &FunctionConfig, reserved: u32) -> Result<(), ApiError> {
        if config.max_instances >= 0 && i64::from(reserved) > config.max_instances {
            let most = config.max_instances;
            let why =
                format!("count {reserved} is more than the {most} instances that the function may have");
            return Err(bad("FSS.1026", why));
        }
        let most = self.handle.limits().max_instances;
        let others: usize = self
            .all_functions()
            .iter()
            .filter(|other| *other.key != *key)
            .map(|other| other.reserved as usize)
            .sum();
        if reserved > 0 && others + reserved as usize > most {
            let why = format!(
                "count {reserved} is more than the node has room for: {most} instances, of which {others} are reserved"
            );
            return Err(bad("FSS.1026", why));
        }
        Ok(())
    }

    /// The functions of a project that reserve instances, by name; one of them if it is named.
    fn reserving(&self, project: &str, urn: Option<&str>) -> Result<Vec<Arc<FunctionSpec>>, ApiError> {
        let named = match urn.filter(|urn| !urn.is_empty()) {
            None => None,
            Some(urn) => Some(Arc::clone(&self.version(&Urn::parse(urn, project)?, project)?.key)),
        };
        let fits = |function: &Arc<FunctionSpec>| {
            let own = function.key.project == project && function.reserved > 0;
            own && named.as_ref().is_none_or(|named| function.key == *named)
        };
        let mut functions: Vec<_> = self.all_functions().into_iter().filter(fits).collect();
        functions.sort_unstable_by(|one, other| one.urn.cmp(&other.urn));
        Ok(functions)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    marker: Option<String>,
    limit: Option<String>,
    urn: Option<String>,
    function_urn: Option<String>,
}

/// ListFunctionReservedInstances: those that are ready now, which is fewer than were asked for while they
/// start.
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Path(project): Path<String>,
    Query(query): Query<ListQuery>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    api.caller(&head, &project, Right::Read)?;
    let page = Page::read(&query, MAX_ROWS, MAX_ROWS)?;
    let functions = api.reserving(&project, query.urn.as_deref())?;
    let counts = api.handle.instance_counts(project).await;
    let counts: HashMap<_, _> = counts.into_iter().map(|count| (count.function.clone(), count)).collect();
    let row = |function: &Arc<FunctionSpec>| {
        let ready = counts.get(&*function.key).map_or(0, |count| count.ready.min(count.reserved));
        json!({ "func_urn": function.urn, "count": ready })
    };
    Ok(Json(page.show("reservedinstances", &functions, row)))
}

/// ListReservedInstanceConfigs: what was asked for.
pub(crate) async fn list_configs(
    State(api): State<Arc<Api>>,
    Path(project): Path<String>,
    Query(query): Query<ListQuery>,
    head: Head,
) -> Result<Json<Value>, ApiError> {
    api.caller(&head, &project, Right::Read)?;
    let page = Page::read(&query, DEFAULT_CONFIGS, MAX_CONFIGS)?;
    let functions = api.reserving(&project, query.function_urn.as_deref())?;
    let row = |function: &Arc<FunctionSpec>| {
        json!({
            "function_urn": function.urn,
            "qualifier_type": "version",
            "qualifier_name": function.key.version,
            "min_count": function.reserved,
            "idle_mode": false,
            "tactics_config": {},
        })
    };
    Ok(Json(page.show("reserved_instances", &functions, row)))
}

/// Where a page begins and how long it is.
struct Page {
    marker: usize,
    limit: usize,
}

impl Page {
    fn read(query: &ListQuery, default: usize, most: usize) -> Result<Self, ApiError> {
        let marker = number(query.marker.as_deref(), "marker")?.unwrap_or(0);
        let limit = match number(query.limit.as_deref(), "limit")? {
            None | Some(0) => default,
            Some(limit) => limit.min(most),
        };
        Ok(Self { marker, limit })
    }

    fn show<T>(&self, name: &str, all: &[T], row: impl Fn(&T) -> Value) -> Value {
        let page: Vec<Value> = all.iter().skip(self.marker).take(self.limit).map(row).collect();
        let next = self.marker.saturating_add(page.len());
        json!({
            name: page,
            "count": all.len(),
            "page_info": {
                "next_marker": if next < all.len() { next } else { 0 },
                "previous_marker": self.marker.saturating_sub(self.limit),
                "current_count": page.len(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<u32, ApiError> {
        count(&Fields(body.as_object().unwrap()))
    }

    #[test]
    fn what_asks_for_nothing_more_than_a_count_is_taken() {
        for body in [
            json!({ "count": 3 }),
            json!({ "count": 3, "idle_mode": false, "tactics_config": null }),
            json!({ "count": 3, "idle_mode": null, "tactics_config": {} }),
            json!({ "count": 3, "tactics_config": { "cron_configs": [], "metric_configs": null } }),
        ] {
            assert_eq!(read(body.clone()), Ok(3), "{body}");
        }
        assert_eq!(read(json!({ "count": 0 })), Ok(0));
    }

    #[test]
    fn what_asks_for_more_is_refused_and_says_so() {
        let cron = json!({ "cron_configs": [{ "name": "a", "cron": "0 1 * * * *", "count": 1 }] });
        for (body, word) in [
            (json!({}), "count is missing"),
            (json!({ "count": -1 }), "between 0 and 1000"),
            (json!({ "count": 1_001 }), "between 0 and 1000"),
            (json!({ "count": "1" }), "not an integer"),
            (json!({ "count": 1.5 }), "not an integer"),
            (json!({ "count": 1, "idle_mode": true }), "idle_mode is not supported"),
            (json!({ "count": 1, "idle_mode": "no" }), "idle_mode is neither"),
            (json!({ "count": 1, "tactics_config": cron }), "tactics_config is not supported"),
            (json!({ "count": 1, "tactics_config": [] }), "tactics_config is not an object"),
        ] {
            let error = read(body.clone()).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code.as_str()), (400, "FSS.0400"), "{body}");
            assert!(error.message.contains(word), "{body}: {}", error.message);
        }
    }

    #[test]
    fn pages_follow_each_other_and_the_last_has_no_next() {
        let all: Vec<usize> = (0..5).collect();
        let show = |marker, limit| Page { marker, limit }.show("rows", &all, |row| json!(row));
        let first = show(0, 2);
        assert_eq!((&first["rows"], &first["count"]), (&json!([0, 1]), &json!(5)));
        assert_eq!(first["page_info"], json!({ "next_marker": 2, "previous_marker": 0, "current_count": 2 }));
        assert_eq!(
            show(4, 2)["page_info"],
            json!({ "next_marker": 0, "previous_marker": 2, "current_count": 1 })
        );
        assert_eq!(show(9, 2)["rows"], json!([]));
    }
}
