//! `/quell/v1/credentials`: who may do what. Secrets are shown once, when they are made.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    http::StatusCode,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::{CredentialRecord, StoreError};
use utoipa::{IntoParams, ToSchema};

use crate::{
    auth::{
        Caller, Head, Right, Scopes,
        secrets::{self, NewCredential, Secrets},
    },
    body,
    error::ApiError,
    identity::{self, MAX_PASSWORD},
    list_invocations,
    openapi::{ErrorBody, Refusals},
    registry::Api,
};

/// A few short fields.
const MAX_BODY: usize = 16 << 10;
/// Of one project, unless an operator makes them: no project fills the node.
const MAX_OF_PROJECT: usize = 1_000;
/// Credentials of a node. Each call looks one up in memory; a few hundred bytes each.
const MAX_CREDENTIALS: usize = 10_000;
const MAX_NOTE: usize = 512;
/// A project, a login: as long as the parts of a URN may be.
const MAX_NAME: usize = 64;
const MIN_PASSWORD: usize = 8;
/// A hundred years: longer is a mistake of units.
const MAX_LIFE_S: u64 = 100 * 365 * 24 * 3_600;

/// A credential that is to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct New {
    /// The project it opens; the caller's own if not said. Another one only by an operator.
    project: Option<String>,
    /// What it is for.
    #[serde(default)]
    #[schema(max_length = 512)]
    note: String,
    /// One or more of `read`, `invoke`, `cancel`, `admin`, `operator`.
    #[schema(min_items = 1)]
    scopes: Vec<String>,
    /// A name to log in with; goes together with `password`.
    login: Option<String>,
    /// 8 to 1,024 bytes.
    #[schema(min_length = 8, max_length = 1024)]
    password: Option<String>,
    /// It opens nothing after so many seconds.
    #[schema(minimum = 1, maximum = 3_153_600_000_u64)]
    expires_in_s: Option<u64>,
}

/// A credential, without its secrets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CredentialRow {
    /// Its public half, and the access key of signatures.
    key_id: String,
    project: String,
    note: String,
    scopes: Vec<&'static str>,
    login: Option<String>,
    /// How often its secrets were exchanged.
    generation: u32,
    created: String,
    expires: Option<String>,
}

/// A credential with its secrets, shown once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeCredential {
    #[serde(flatten)]
    credential: CredentialRow,
    #[serde(flatten)]
    secrets: Secrets,
}

/// Credentials, the oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CredentialsPage {
    count: usize,
    credentials: Vec<CredentialRow>,
}

/// Makes a credential.
#[utoipa::path(post, path = "/quell/v1/credentials", tag = "credentials", request_body = New, responses(
    (status = 201, body = MadeCredential), (status = 409, description = "another one has this login",
     body = ErrorBody), (status = 413, description = "the body is too large", body = ErrorBody), Refusals))]
pub(crate) async fn create(
    State(api): State<Arc<Api>>,
    head: Head,
    body: Body,
) -> Result<(StatusCode, Json<MadeCredential>), ApiError> {
    let caller = api.any_caller(&head, Right::Credentials)?;
    let body = body::read(body, MAX_BODY).await?;
    let new: New = serde_json::from_slice(&body).map_err(|error| ApiError::invalid(error.to_string()))?;
    let mut made = checked(&caller, &new)?;
    let password = match new.password {
        Some(password) => Some(identity::hash_password(password).await?),
        None => None,
    };
    let _one_at_a_time = api.changing.lock().await;
    api.still(&caller).await?;
    let all = api.store.credentials(None).await?;
    let own = all.iter().filter(|kept| kept.project == made.project).count();
    let full = own >= MAX_OF_PROJECT && !caller.scopes.include(Right::Operate);
    if all.len() >= MAX_CREDENTIALS || full {
        let message =
            format!("at most {MAX_OF_PROJECT} credentials of a project, {MAX_CREDENTIALS} of a node");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "FSS.0403", message));
    }
    made.password = password;
    let (record, secrets) = secrets::make(made, &api.key)?;
    kept(&api, &record).await?;
    tracing::info!(target: "audit", by = caller.credential, credential = record.key_id,
                   project = record.project, "audit: credential made");
    Ok((StatusCode::CREATED, Json(MadeCredential { credential: show(&record), secrets })))
}

fn checked(caller: &Caller, new: &New) -> Result<NewCredential, ApiError> {
    let project = new.project.clone().unwrap_or_else(|| caller.project.clone());
    if project != caller.project && !caller.scopes.include(Right::Operate) {
        return Err(ApiError::invalid_token());
    }
    let name = |name: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        (1..=MAX_NAME).contains(&name.len()) && name.chars().all(fits)
    };
    if !name(&project) {
        return Err(ApiError::invalid(format!("project: 1 to {MAX_NAME} letters, digits, - _ . @")));
    }
    let nothing = Scopes::from_bits(0);
    let scopes = new.scopes.iter().try_fold(nothing, |all, word| Some(all.and(Scopes::word(word)?)));
    let scopes = scopes
        .filter(|scopes| *scopes != nothing)
        .ok_or_else(|| ApiError::invalid("scopes: one or more of read, invoke, cancel, admin, operator"))?;
    if !caller.scopes.may_give(scopes) {
        return Err(ApiError::invalid_token());
    }
    if new.note.len() > MAX_NOTE {
        return Err(ApiError::invalid(format!("note: at most {MAX_NOTE} bytes")));
    }
    match (&new.login, &new.password) {
        (None, None) => {}
        (Some(login), Some(password)) if name(login) => {
            if !(MIN_PASSWORD..=MAX_PASSWORD).contains(&password.len()) {
                return Err(ApiError::invalid(format!("password: {MIN_PASSWORD} to {MAX_PASSWORD} bytes")));
            }
        }
        _ => {
            return Err(ApiError::invalid("login and password go together; login: letters, digits, - _ . @"));
        }
    }
    let expires_ms = match new.expires_in_s {
        None => None,
        Some(seconds @ 1..=MAX_LIFE_S) => {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            Some(Timestamp::now().as_millisecond().saturating_add(seconds.saturating_mul(1_000)))
        }
        Some(_) => return Err(ApiError::invalid(format!("expires_in_s: 1 to {MAX_LIFE_S}"))),
    };
    // Nobody makes one that outlives himself.
    let expires_ms = match (expires_ms, caller.until_ms) {
        (Some(expires), Some(until)) => Some(expires.min(until)),
        (expires, until) => expires.or(until),
    };
    let (note, login) = (new.note.clone(), new.login.clone());
    Ok(NewCredential { project, note, scopes: scopes.bits(), login, password: None, expires_ms })
}

async fn kept(api: &Api, record: &CredentialRecord) -> Result<(), ApiError> {
    match api.store.put_credential(record.clone()).await {
        Err(StoreError::Exists) => {
            Err(ApiError::new(StatusCode::CONFLICT, "FSS.0409", "another credential has this login"))
        }
        other => Ok(other?),
    }
}

/// Whose.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListQuery {
    /// Of this project, if not of all the caller may see.
    project: Option<String>,
}

/// Those of the caller's project; an operator's of every project, or of the one named.
#[utoipa::path(get, path = "/quell/v1/credentials", tag = "credentials", params(ListQuery),
               responses((status = 200, body = CredentialsPage), Refusals))]
pub(crate) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<ListQuery>,
    head: Head,
) -> Result<Json<CredentialsPage>, ApiError> {
    let caller = api.any_caller(&head, Right::Credentials)?;
    let project = match query.project {
        Some(project) if project == caller.project => Some(project),
        Some(_) | None if caller.scopes.include(Right::Operate) => query.project,
        None => Some(caller.project),
        Some(_) => return Err(ApiError::invalid_token()),
    };
    let credentials = api.store.credentials(project).await?;
    Ok(Json(CredentialsPage {
        count: credentials.len(),
        credentials: credentials.iter().map(show).collect(),
    }))
}

/// Revokes one: from the answer on it opens nothing, nor do its logins and keys.
#[utoipa::path(delete, path = "/quell/v1/credentials/{id}", tag = "credentials",
               params(("id" = String, Path, description = "its key")),
               responses((status = 204, description = "it opens nothing any more"), Refusals))]
pub(crate) async fn revoke(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    head: Head,
) -> Result<StatusCode, ApiError> {
    let caller = api.any_caller(&head, Right::Credentials)?;
    let _one_at_a_time = api.changing.lock().await;
    api.still(&caller).await?;
    let old = own(&api, &caller, &id).await?;
    if !api.store.delete_credential(old.key_id.clone()).await? {
        return Err(ApiError::not_found("credential"));
    }
    tracing::info!(target: "audit", by = caller.credential, credential = old.key_id, "audit: credential revoked");
    Ok(StatusCode::NO_CONTENT)
}

/// Gives one other secrets: from the answer on the old ones open nothing.
#[utoipa::path(post, path = "/quell/v1/credentials/{id}/rotate", tag = "credentials",
               params(("id" = String, Path, description = "its key")),
               responses((status = 200, body = MadeCredential), Refusals))]
pub(crate) async fn rotate(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    head: Head,
) -> Result<Json<MadeCredential>, ApiError> {
    let caller = api.any_caller(&head, Right::Credentials)?;
    let _one_at_a_time = api.changing.lock().await;
    api.still(&caller).await?;
    let old = own(&api, &caller, &id).await?;
    // Its new secrets would outlive him who is given them.
    if caller.until_ms.is_some_and(|until| old.expires_ms.is_none_or(|expires| expires > until)) {
        return Err(ApiError::invalid_token());
    }
    let (record, secrets) = secrets::rotate(&old, &api.key)?;
    kept(&api, &record).await?;
    tracing::info!(target: "audit", by = caller.credential, credential = record.key_id, "audit: credential rotated");
    Ok(Json(MadeCredential { credential: show(&record), secrets }))
}

/// A credential the caller may change: of its project, and with nothing that the caller has not.
async fn own(api: &Api, caller: &Caller, id: &str) -> Result<Arc<CredentialRecord>, ApiError> {
    let kept = api.store.credential(id).await?;
    let operates = caller.scopes.include(Right::Operate);
    let kept = kept.filter(|kept| operates || kept.project == caller.project);
    let kept = kept.ok_or_else(|| ApiError::not_found("credential"))?;
    if !caller.scopes.may_give(Scopes::from_bits(kept.scopes)) {
        return Err(ApiError::invalid_token());
    }
    Ok(kept)
}

fn show(record: &CredentialRecord) -> CredentialRow {
    CredentialRow {
        key_id: record.key_id.clone(),
        project: record.project.clone(),
        note: record.note.clone(),
        scopes: Scopes::from_bits(record.scopes).words(),
        login: record.login.clone(),
        generation: record.generation,
        created: list_invocations::shown_time(record.created_ms),
        expires: record.expires_ms.map(list_invocations::shown_time),
    }
}
