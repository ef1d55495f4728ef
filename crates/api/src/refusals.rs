//! What of the API has no meaning on a node: refused with the reason, and never answered as if it were done.

use std::sync::Arc;

use axum::{Router, routing::any};
use serde_json::Value;

use crate::{
    error::ApiError,
    registry::Api,
    spec::{Fields, bad},
};

const TRIGGERS: &str = "there are no triggers; whatever has events invokes the function itself";
const WORKFLOWS: &str =
    "there are no workflows; a function can invoke others, and a recursive cancel reaches them";
const DEPENDENCIES: &str = "there are no dependency packages; put what a function needs into its code";
const APPLICATIONS: &str = "there are no applications and no templates";
const TAGS: &str = "functions have no tags";
const EVENTS: &str = "no test events are kept; send them with the invocation";
const LTS: &str = "there is no log service; a tail of the log goes with a synchronous invocation, and \
                   /quell/v1/requests/{id}/log shows what a request printed";
const NETWORK: &str = "the network of the node is that of its machine";
const EXPORT: &str =
    "read the configuration and the code with GET .../config and GET .../code, and create with them";
const SNAPSHOTS: &str = "instances have no snapshots; reserve some to have them ready";
const TRACING: &str = "there is no tracing service";

/// Operations, by the path after the project, and why they are refused. Where a path ends in a wildcard
/// nothing below it is served.
const OPERATIONS: [(&str, &str); 32] = [
    ("/fgs/triggers/{urn}", TRIGGERS),
    ("/fgs/triggers/{urn}/{*rest}", TRIGGERS),
    ("/fgs/workflows", WORKFLOWS),
    ("/fgs/workflows/{*rest}", WORKFLOWS),
    ("/fgs/workflow-statistic", WORKFLOWS),
    ("/fgs/workflow-statistic/{urn}", WORKFLOWS),
    ("/fgs/dependencies", DEPENDENCIES),
    ("/fgs/dependencies/{*rest}", DEPENDENCIES),
    ("/fgs/applications", APPLICATIONS),
    ("/fgs/applications/{id}", APPLICATIONS),
    ("/fgs/application/templates", APPLICATIONS),
    ("/fgs/application/templates/{id}", APPLICATIONS),
    ("/fgs/templates", APPLICATIONS),
    ("/fgs/templates/{id}", APPLICATIONS),
    ("/fgs/vpc-endpoint", NETWORK),
    ("/fgs/vpc-endpoint/{*rest}", NETWORK),
    ("/fgs/servicebridge/version", NETWORK),
    ("/fgs/functions/{urn}/servicebridge/relation", NETWORK),
    ("/fgs/functions/{urn}/events", EVENTS),
    ("/fgs/functions/{urn}/events/{id}", EVENTS),
    ("/fgs/functions/{urn}/export", EXPORT),
    ("/fgs/functions/{urn}/snapshots/{action}", SNAPSHOTS),
    ("/fgs/functions/{urn}/collect/{state}", "there is no list to put a function on top of"),
    ("/fgs/functions/{urn}/tracing", TRACING),
    ("/fgs/functions/{urn}/lts-log-detail", LTS),
    ("/fgs/functions/enable-lts-logs", LTS),
    ("/fgs/functions/enable-async-status-logs", LTS),
    ("/fgs/functions/async-status-log-detail", LTS),
    ("/fgs/functions/import", EXPORT),
    ("/{kind}/tags", TAGS),
    ("/{kind}/{id}/tags", TAGS),
    ("/{kind}/resource-instances/{action}", TAGS),
];

/// Further paths of tags: the router wants them apart from the one they begin with.
const BELOW_TAGS: [&str; 2] = ["/{kind}/{id}/tags/create", "/{kind}/{id}/tags/delete"];

/// The routes of what is refused, by whatever method.
pub(crate) fn routes() -> Router<Arc<Api>> {
    let all = OPERATIONS.into_iter().chain(BELOW_TAGS.map(|path| (path, TAGS)));
    all.fold(Router::new(), |router, (path, why)| {
        let refuse = move || async move { ApiError::unsupported_because(why) };
        router.route(&format!("/v2/{{project}}{path}"), any(refuse))
    })
}

/// Fields of a function, the code they are refused with, and why. One that asks for nothing (null, false, 0,
/// empty) is taken.
const FIELDS: [(&str, &str, &str); 22] = [
    ("func_vpc", "FSS.0400", NETWORK),
    ("domain_names", "FSS.0400", NETWORK),
    ("network_controller", "FSS.0400", NETWORK),
    ("peering_cidr", "FSS.0400", NETWORK),
    ("mount_config", "FSS.1039", "nothing is mounted for a function"),
    ("custom_image", "FSS.1034", "runtimes are started as processes, and not from container images"),
    ("encrypted_user_data", "FSS.1009", "a node has no key to encrypt it with; use user_data"),
    ("user_data_encrypt_kms_key_id", "FSS.0400", "there is no key service"),
    ("code_encrypt_kms_key_id", "FSS.0400", "there is no key service"),
    ("depend_version_list", "FSS.1024", DEPENDENCIES),
    ("depend_list", "FSS.1024", DEPENDENCIES),
    ("enable_lts_log", "FSS.0400", LTS),
    ("log_config", "FSS.0400", LTS),
    ("lts_custom_tag", "FSS.0400", LTS),
    ("gpu_memory", "FSS.0400", "no share of a GPU can be given to a function"),
    ("gpu_type", "FSS.0400", "no share of a GPU can be given to a function"),
    ("is_stateful_function", "FSS.0400", "an instance serves whoever comes"),
    ("enable_dynamic_memory", "FSS.1007", "every instance of a function has its memory_size"),
    ("heartbeat_handler", "FSS.0400", "the processes of an instance are watched, and not a handler"),
    ("restore_hook_handler", "FSS.0400", SNAPSHOTS),
    ("enable_auth_in_header", "FSS.0400", "a runtime gets the token of its request, and no keys"),
    ("enable_class_isolation", "FSS.0400", "no runtime of the node has classes to isolate"),
];

/// MB of `/tmp` that a function has without asking for them (`functiongraph.md` 2.5).
const USUAL_STORAGE: u64 = 512;

/// Whether a body asks for nothing that a node cannot give.
pub(crate) fn check_fields(fields: &Fields<'_>) -> Result<(), ApiError> {
    for (name, code, why) in FIELDS {
        if fields.0.get(name).is_some_and(asks) {
            return Err(unsupported_field(name, code, why));
        }
    }
    let storage = fields.0.get("ephemeral_storage").filter(|value| asks(value));
    if storage.is_some_and(|value| value.as_u64() != Some(USUAL_STORAGE)) {
        let why = "the size of /tmp is set for the node (--tmp-size)";
        return Err(unsupported_field("ephemeral_storage", "FSS.0400", why));
    }
    Ok(())
}

/// An error that names a field and says why a node has no use for it.
pub(crate) fn unsupported_field(name: &str, code: &str, why: &str) -> ApiError {
    bad(code, format!("{name} is not supported by a node: {why}"))
}

fn asks(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => list.iter().any(asks),
        Value::Object(object) => {
            object.get("enabled") != Some(&Value::Bool(false)) && object.values().any(asks)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_that_asks_for_something_is_refused_by_its_name() {
        for (name, code, _) in FIELDS {
            let body = json!({ name: { "any": ["thing"] } });
            let error = check_fields(&Fields(body.as_object().unwrap())).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code.as_str()), (400, code), "{name}");
            assert!(error.message.starts_with(&format!("{name} is not supported by a node: ")), "{error}");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_taken() {
        for body in [
            json!({ "func_vpc": null, "gpu_memory": 0, "encrypted_user_data": "", "enable_lts_log": false }),
            json!({ "func_vpc": { "vpc_id": "", "subnet_id": null }, "depend_version_list": [] }),
            json!({ "custom_image": { "enabled": false, "image": "left over" } }),
            json!({ "network_controller": { "disable_public_network": false, "trigger_access_vpcs": [] } }),
            json!({ "ephemeral_storage": 512, "xrole": "somebody", "tags": "a" }),
        ] {
            assert_eq!(check_fields(&Fields(body.as_object().unwrap())), Ok(()), "{body}");
        }
        let more = json!({ "ephemeral_storage": 10_240 });
        let error = check_fields(&Fields(more.as_object().unwrap())).unwrap_err();
        assert!(error.message.contains("--tmp-size"), "{error}");
    }
}
