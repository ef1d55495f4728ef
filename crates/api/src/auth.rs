//! Who asks: tokens of people (`qk.`) and of running requests (`qa.`).
//!
//! Secrets are 256 random bits and are kept as their SHA-256 only; they are compared in constant
//! time. A token opens exactly one project (I11). Signed requests come with a later version; an
//! `Authorization` header beside a token is ignored.

use axum::http::HeaderMap;
use cancel::RequestId;
use sha2::{Digest as _, Sha256};
use store::{CredentialRecord, Store};
use subtle::ConstantTimeEq as _;

use crate::{error::ApiError, registry::Api};

const PREFIX: &str = "qk.";
const KEY_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;

/// Who asks, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The one project it may touch.
    pub(crate) project: String,
    /// The public half of its credential.
    pub(crate) credential: String,
    /// The running request it is, if it is one.
    pub(crate) request: Option<RequestId>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Look, invoke.
    Use,
    /// Change functions, cancel: not for running requests.
    Manage,
}

impl Api {
    /// Whoever carries the token, or nobody.
    ///
    /// # Errors
    /// When the store cannot be asked.
    async fn identify(&self, headers: &HeaderMap) -> Result<Option<Caller>, ApiError> {
        let Some(token) = headers.get("x-auth-token").and_then(|token| token.to_str().ok()) else {
            return Ok(None);
        };
        if supervisor::is_attempt_token(token) {
            let caller = self.handle.identify(token).map(|identity| Caller {
                project: identity.project,
                credential: format!("request {}", identity.request),
                request: Some(identity.request),
            });
            return Ok(caller);
        }
        let Some((key_id, secret)) = token.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')) else {
            return Ok(None);
        };
        let Some(kept) = self.store.credential(key_id.to_owned()).await? else { return Ok(None) };
        let given: [u8; 32] = Sha256::digest(secret.as_bytes()).into();
        if !bool::from(kept.secret_hash.ct_eq(&given)) {
            return Ok(None);
        }
        Ok(Some(Caller { project: kept.project, credential: kept.key_id, request: None }))
    }

    /// A caller with this right in this project; else 401 or 403 as the operations on functions say.
    pub(crate) async fn caller(
        &self,
        headers: &HeaderMap,
        project: &str,
        right: Right,
    ) -> Result<Caller, ApiError> {
        match self.identify(headers).await? {
            None => Err(ApiError::not_permitted()),
            Some(caller) if caller.may(project, right) => Ok(caller),
            Some(_) => Err(ApiError::invalid_token()),
        }
    }

    /// The same for cancel and the lists, which know no 401 (`functiongraph.md` section 1).
    pub(crate) async fn caller_or_403(
        &self,
        headers: &HeaderMap,
        project: &str,
        right: Right,
    ) -> Result<Caller, ApiError> {
        match self.identify(headers).await? {
            Some(caller) if caller.may(project, right) => Ok(caller),
            Some(_) | None => Err(ApiError::invalid_token()),
        }
    }

    /// A caller of Quell's own routes, which name no project.
    pub(crate) async fn any_caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        self.identify(headers).await?.ok_or_else(ApiError::invalid_token)
    }
}

impl Caller {
    fn may(&self, project: &str, right: Right) -> bool {
        self.project == project && (self.request.is_none() || right == Right::Use)
    }
}

/// Makes a credential of a project and keeps its hash. The token is returned this once.
///
/// # Errors
/// When there is no randomness, or the store cannot keep it.
pub async fn mint_credential(store: &dyn Store, project: &str, note: &str) -> Result<String, ApiError> {
    let (mut key, mut secret) = ([0; KEY_BYTES], [0; SECRET_BYTES]);
    let random = getrandom::fill(&mut key).and_then(|()| getrandom::fill(&mut secret));
    random.map_err(|error| ApiError::internal(format!("no randomness: {error}")))?;
    let (key_id, secret) = (hex::encode(key), hex::encode(secret));
    let credential = CredentialRecord {
        key_id: key_id.clone(),
        secret_hash: Sha256::digest(secret.as_bytes()).into(),
        project: project.to_owned(),
        note: note.to_owned(),
        created_ms: jiff::Timestamp::now().as_millisecond(),
    };
    store.put_credential(credential).await?;
    Ok(format!("{PREFIX}{key_id}.{secret}"))
}
