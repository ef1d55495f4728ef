//! `POST /v2/{project}/fgs/functions`: CreateFunction.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::StatusCode,
};
use serde_json::Value;
use store::{FunctionKey, FunctionRecord, LATEST, StoreError};

use crate::{
    auth::{Head, Right},
    body, code,
    error::ApiError,
    package,
    registry::Api,
    settings::MAX_FUNCTION_BODY,
    spec::{Fields, FunctionConfig, bad},
    urn::DEFAULT_PACKAGE,
};

pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    Path(project): Path<String>,
    head: Head,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let caller = api.caller(&head, &project, Right::Admin)?;
    let body = api.body(&caller, body, MAX_FUNCTION_BODY).await?;
    body::must_be_json(&head)?;
    let object = body::object(&body).map_err(body::not_json)?;
    let fields = Fields(&object);
    let (package, name) = (package_name(&fields)?, name(&fields)?);
    let key = FunctionKey { project, package, name, version: LATEST.to_owned() };
    let mut config = FunctionConfig::read(&fields, None)?;
    let code = code::read(&fields)?.named_for(&config.runtime);
    (config.code_type, config.code_filename) = (code.kind, code.filename);
    api.image(&config.runtime)?;
    api.must_be_placeable(&config, None)?;
    let now = jiff::Timestamp::now().as_millisecond();
    let record = FunctionRecord {
        key,
        // By the clock, so that a function made again under its old name is never taken for the old.
        revision: now.cast_unsigned(),
        config: serde_json::to_string(&config).map_err(|error| ApiError::internal(error.to_string()))?,
        code_digest: package::digest(&code.bytes),
        code_size: code.bytes.len() as u64,
        created_ms: now,
        modified_ms: now,
    };
    let _changing = api.changing.lock().await;
    // Unpacked first: a package that cannot be is refused before anything is kept.
    api.unpacked(&record, &config, Some(code.bytes.clone())).await?;
    match api.store.create_function(record.clone(), code.bytes.clone()).await {
        Ok(()) => {}
        Err(StoreError::Exists) => {
            return Err(ApiError::new(StatusCode::CONFLICT, "FSS.1061", "The function has existed"));
        }
        Err(error) => return Err(error.into()),
    }
    api.ready(&record, Some(code.bytes)).await?;
    Ok(Json(config.show(&record, &api.settings.region)))
}

/// 1 to 60 letters, digits, `-` and `_`; begins with a letter, ends with a letter or digit.
fn name(fields: &Fields<'_>) -> Result<String, ApiError> {
    let name = fields.required_text("func_name", "FSS.1002")?;
    if is_name(name, 60) {
        return Ok(name.to_owned());
    }
    Err(bad(
        "FSS.1002",
        format!("func_name {name:?} is not 1 to 60 letters, digits, - and _ that begin with a letter"),
    ))
}

fn package_name(fields: &Fields<'_>) -> Result<String, ApiError> {
    let package = fields.text("package", "FSS.1004")?.unwrap_or(DEFAULT_PACKAGE);
    if is_name(package, 60) {
        return Ok(package.to_owned());
    }
    Err(bad("FSS.1027", format!("package {package:?} is not a name")))
}

/// Letters, digits, `-` and `_`; begins with a letter, ends with a letter or digit.
pub(crate) fn is_name(name: &str, longest: usize) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    name.len() <= longest
        && name.chars().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_first_and_plain() {
        for good in ["f", "a-b_c9", &"x".repeat(60)] {
            assert!(is_name(good, 60), "{good}");
        }
        for bad in ["", "9a", "a-", "a b", "a/b", "a:b", "é", &"x".repeat(61)] {
            assert!(!is_name(bad, 60), "{bad}");
        }
    }
}
