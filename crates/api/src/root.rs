//! `GET /`: where to go from here, for whoever opens the address of a node.

use axum::Json;
use serde_json::{Value, json};

/// Told to everybody: it says nothing of this node.
pub(crate) async fn root() -> Json<Value> {
    Json(json!({
        "what": "a node of quell: functions whose invocations really stop",
        "console": "/console",
        "health": "/quell/v1/health",
        "openapi": "/quell/v1/openapi.json",
        "docs": "docs/api.md of its source; `quell --help`",
    }))
}
