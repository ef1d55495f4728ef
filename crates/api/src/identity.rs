//! `POST /v3/auth/tokens`: a token for a password or another token, in the shape of the identity service, so
//! that the documented way to obtain one works against a node.
//!
//! The user is a credential with a login; domains mean nothing here and are taken as they come. The token is
//! in `X-Subject-Token` and speaks for the credential until it expires.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Instant,
};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _},
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderName, Method, StatusCode},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use store::CredentialRecord;
use tokio::sync::Semaphore;

use crate::{
    auth::{Head, Refusal, Scopes, secrets},
    body,
    error::ApiError,
    registry::Api,
    response::set,
};

const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");
/// A token of a login lasts as long as the service's.
const TOKEN_LIFE_MS: i64 = 24 * 3_600 * 1_000;
/// Names, a password, a scope, or a token.
const MAX_BODY: usize = 16 << 10;
/// A password that is longer is no password; hashing it costs by its length.
pub(crate) const MAX_PASSWORD: usize = 1_024;
/// Passwords that are checked at once: each takes 19 MiB and tens of milliseconds of a core.
const CHECKS: usize = 2;
/// Checks that may wait for one of these.
const WAITING: usize = 32;

static CHECKING: Semaphore = Semaphore::const_new(CHECKS);
static QUEUE: Semaphore = Semaphore::const_new(CHECKS + WAITING);

#[derive(Debug, Deserialize)]
struct Ask {
    auth: Auth,
}

#[derive(Debug, Deserialize)]
struct Auth {
    identity: Identity,
    scope: Option<Scope>,
}

#[derive(Debug, Deserialize)]
struct Identity {
    methods: Vec<String>,
    password: Option<Password>,
    token: Option<Token>,
}

#[derive(Debug, Deserialize)]
struct Password {
    user: User,
}

#[derive(Debug, Deserialize)]
struct User {
    name: String,
    password: String,
    domain: Option<Named>,
}

#[derive(Debug, Deserialize)]
struct Token {
    id: String,
}

#[derive(Debug, Deserialize)]
struct Scope {
    project: Option<Named>,
}

#[derive(Debug, Default, Deserialize)]
struct Named {
    id: Option<String>,
    name: Option<String>,
}

/// What the identity service answers where it does not like something: not in the shape of the functions'.
#[derive(Debug)]
pub(crate) struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let title = self.0.canonical_reason().unwrap_or_default();
        let error = json!({ "code": self.0.as_u16(), "message": self.1, "title": title });
        (self.0, Json(json!({ "error": error }))).into_response()
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self(error.status, error.message)
    }
}

/// CreateToken.
pub(crate) async fn create_token(
    State(api): State<Arc<Api>>,
    head: Head,
    body: Body,
) -> Result<Response, Refused> {
    let body = body::read(body, MAX_BODY).await?;
    let bad = |why: String| Refused(StatusCode::BAD_REQUEST, why);
    let ask: Ask = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    let Auth { identity, scope } = ask.auth;
    let (kept, until, domain) = match identity.methods.as_slice() {
        [method] if method == "password" => {
            let Some(Password { user }) = identity.password else {
                return Err(bad("method password needs auth.identity.password".to_owned()));
            };
            let kept = by_password(&api, &user.name, user.password, head.peer()).await?;
            (kept, None, user.domain.and_then(|domain| domain.name))
        }
        [method] if method == "token" => {
            let Some(Token { id }) = identity.token else {
                return Err(bad("method token needs auth.identity.token".to_owned()));
            };
            let (kept, until) = by_token(&api, &id).await?;
            (kept, until, None)
        }
        methods => {
            return Err(bad(format!("methods {methods:?}: a node knows [\"password\"] and [\"token\"]")));
        }
    };
    let now = Timestamp::now();
    let kept = kept.filter(|kept| kept.expires_ms.is_none_or(|expires| expires > now.as_millisecond()));
    let asked = scope.and_then(|scope| scope.project).and_then(|project| project.id.or(project.name));
    let kept = kept.filter(|kept| asked.is_none_or(|asked| asked == kept.project));
    let Some(kept) = kept else {
        let refusal = Refusal {
            peer: head.peer(),
            credential: None,
            method: &Method::POST,
            path: "/v3/auth/tokens",
            why: "no such login, password or token, or another project",
        };
        api.guard.refused(&refusal);
        api.guard.may_be_told(head.peer())?;
        return Err(Refused(StatusCode::UNAUTHORIZED, "The username or password is wrong.".to_owned()));
    };
    Ok(issued(&api, &kept, now, until, identity.methods, domain))
}

fn issued(
    api: &Api,
    kept: &CredentialRecord,
    now: Timestamp,
    until: Option<i64>,
    methods: Vec<String>,
    domain: Option<String>,
) -> Response {
    // A token for a token lives no longer than that one: else a stolen one would live for ever.
    let expires = now.as_millisecond() + TOKEN_LIFE_MS;
    let expires = [until, kept.expires_ms].into_iter().flatten().fold(expires, i64::min);
    let time = |ms: i64| {
        let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
        time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    };
    let domain = domain.unwrap_or_else(|| kept.project.clone());
    let domain = json!({ "id": domain, "name": domain });
    let roles: Vec<Value> = Scopes::from_bits(kept.scopes)
        .words()
        .into_iter()
        .map(|word| json!({ "id": word, "name": word }))
        .collect();
    let name = kept.login.clone().unwrap_or_else(|| kept.key_id.clone());
    let token = json!({
        "expires_at": time(expires),
        "issued_at": time(now.as_millisecond()),
        "methods": methods,
        "catalog": [],
        "roles": roles,
        "project": { "id": kept.project, "name": kept.project, "domain": domain },
        "user": { "id": kept.key_id, "name": name, "domain": domain, "password_expires_at": "" },
    });
    let mut response = (StatusCode::CREATED, Json(json!({ "token": token }))).into_response();
    set(&mut response, SUBJECT_TOKEN, &api.key.login_token(kept, expires));
    response
}

type Found = Option<Arc<CredentialRecord>>;

/// Whose token it is, and until when it is valid. A running request gets none: its own end with it.
async fn by_token(api: &Api, token: &str) -> Result<(Found, Option<i64>), ApiError> {
    if let Some(login) = api.key.read_login(token) {
        let kept = api.store.credential(&login.key_id).await?;
        let valid = login.expires_ms > Timestamp::now().as_millisecond();
        let kept = kept.filter(|kept| valid && kept.generation == login.generation);
        return Ok((kept, Some(login.expires_ms)));
    }
    let Some((key_id, secret)) = secrets::split(token) else { return Ok((None, None)) };
    let kept = api.store.credential(key_id).await?;
    Ok((kept.filter(|kept| secrets::opens(kept, secret)), None))
}

async fn by_password(
    api: &Api,
    login: &str,
    password: String,
    peer: Option<IpAddr>,
) -> Result<Found, ApiError> {
    if password.len() > MAX_PASSWORD || api.logins.is_locked(login, peer, Instant::now()) {
        return Ok(None);
    }
    let kept = api.store.credential_of(login).await?;
    // Somebody who is not there takes as long: what the time tells is not who has a login.
    let hash = kept.as_ref().and_then(|kept| kept.password.clone());
    let (exists, hash) = (hash.is_some(), hash.unwrap_or_else(|| NOBODY.clone()));
    let right =
        blocking(move || Argon2::default().verify_password(password.as_bytes(), hash.as_str()).is_ok());
    let right = right.await?;
    // Of many that came at once those after the lock count for nothing, right or wrong.
    if api.logins.is_locked(login, peer, Instant::now()) {
        return Ok(None);
    }
    if right && exists {
        api.logins.succeeded(login, peer);
        return Ok(kept);
    }
    api.logins.failed(login, peer, Instant::now());
    Ok(None)
}

/// The hash of a password nobody has.
static NOBODY: LazyLock<String> = LazyLock::new(|| hashed("").unwrap_or_default());

fn hashed(password: &str) -> Result<String, ApiError> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| ApiError::internal(format!("no hash: {error}")))
}

/// The hash of a new password (argon2id, the crate's defaults: 19 MiB, two passes).
pub(crate) async fn hash_password(password: String) -> Result<String, ApiError> {
    blocking(move || hashed(&password)).await?
}

/// Off the runtime's threads, few at once.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    let ended = |_| ApiError::internal("the check of a password ended badly");
    let _place = QUEUE.try_acquire().map_err(|_| ApiError::busy("too many logins at once"))?;
    let _turn = CHECKING.acquire().await.map_err(|_| ApiError::unavailable("the node is ending"))?;
    tokio::task::spawn_blocking(work).await.map_err(ended)
}
