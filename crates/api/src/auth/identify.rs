//! Finds out who sends a request, before anybody decides what he may.

use std::{net::IpAddr, sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, header, header::ToStrError, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use store::CredentialRecord;

use super::{
    Caller, Identity, Scopes, guard,
    secrets::{self, LOGIN_PREFIX},
    signature::{Signature, SignatureError},
};
use crate::{
    body,
    error::ApiError,
    registry::Api,
    settings::{MAX_FUNCTION_BODY, MAX_SYNC_EVENT},
};

/// It brings no credentials at all.
pub(super) const NONE: &str = "no credentials";
const SECURITY_TOKEN: &str = "x-security-token";

/// Puts an [`Identity`] into every request, within the limits of whoever it is.
pub(crate) async fn authenticate(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let peer = guard::peer(request.extensions());
    let (mut request, identity) = match api.identify(request, peer).await {
        Ok(identified) => identified,
        Err(error) => return error.into_response(),
    };
    if let Err(error) = api.guard.admit(&identity, peer) {
        return error.into_response();
    }
    request.extensions_mut().insert(identity);
    next.run(request).await
}

/// The token of `Authorization: Bearer`, which is how collectors of metrics send one.
fn bearer(headers: &HeaderMap) -> Option<Result<&str, ToStrError>> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    text.strip_prefix("Bearer ").map(|token| Ok(token.trim()))
}

impl Api {
    /// A valid token counts, whatever stands beside it; else a signature.
    async fn identify(
        &self,
        request: Request,
        peer: Option<IpAddr>,
    ) -> Result<(Request, Identity), ApiError> {
        let by_token = self.by_token(request.headers()).await?;
        let authorization = request.headers().get(header::AUTHORIZATION).and_then(|text| text.to_str().ok());
        match (by_token, authorization.filter(|text| Signature::is_one(text))) {
            (Identity::Unknown(_), Some(authorization)) => {
                let authorization = authorization.to_owned();
                self.by_signature(request, &authorization, peer).await
            }
            (identity, _) => Ok((request, identity)),
        }
    }

    async fn by_token(&self, headers: &HeaderMap) -> Result<Identity, ApiError> {
        let Some(token) = headers.get("x-auth-token").map(HeaderValue::to_str).or_else(|| bearer(headers))
        else {
            return Ok(Identity::Unknown(NONE));
        };
        let Ok(token) = token else { return Ok(Identity::Unknown("unreadable token")) };
        if supervisor::is_attempt_token(token) {
            let identity = self.handle.identify(token).map(running);
            return Ok(identity.unwrap_or(Identity::Unknown("the request of the token has ended")));
        }
        if token.starts_with(LOGIN_PREFIX) {
            return self.by_login(token).await;
        }
        let Some((key_id, secret)) = secrets::split(token) else { return Ok(Identity::Unknown("no token")) };
        let Some(kept) = self.store.credential(key_id).await? else {
            return Ok(Identity::Unknown("no such credential"));
        };
        if !secrets::opens(&kept, secret) {
            return Ok(Identity::Unknown("another secret"));
        }
        Ok(known(&kept))
    }

    async fn by_login(&self, token: &str) -> Result<Identity, ApiError> {
        let Some(login) = self.key.read_login(token) else { return Ok(Identity::Unknown("no login")) };
        let kept = self.store.credential(&login.key_id).await?;
        let Some(kept) = kept.filter(|kept| kept.generation == login.generation) else {
            return Ok(Identity::Unknown("the credential of the login is gone"));
        };
        if login.expires_ms <= Timestamp::now().as_millisecond() {
            return Ok(Identity::Unknown("the login has expired"));
        }
        Ok(match known(&kept) {
            Identity::Known(caller) => {
                let until_ms = caller.until_ms.map_or(login.expires_ms, |until| until.min(login.expires_ms));
                Identity::Known(Caller { until_ms: Some(until_ms), ..caller })
            }
            unknown => unknown,
        })
    }

    /// Reads the body, which is part of what is signed: but not before all else is in order.
    async fn by_signature(
        &self,
        request: Request,
        authorization: &str,
        peer: Option<IpAddr>,
    ) -> Result<(Request, Identity), ApiError> {
        let (parts, body) = request.into_parts();
        let unknown = |parts, body, why| Ok((Request::from_parts(parts, body), Identity::Unknown(why)));
        let signature = match Signature::parse(authorization) {
            Ok(signature) => signature,
            Err(error) => return unknown(parts, body, word(error)),
        };
        let statement = match signature.statement(&parts.method, &parts.uri, &parts.headers, Timestamp::now())
        {
            Ok(statement) => statement,
            Err(error) => return unknown(parts, body, word(error)),
        };
        let (secret, identity) = match self.signer(&signature, &parts.headers).await? {
            Ok(signer) => signer,
            Err(why) => return unknown(parts, body, why),
        };
        let locks = &self.guard.signatures;
        if locks.is_locked(signature.access_key, peer, Instant::now()) {
            return unknown(parts, body, "locked after too many wrong signatures");
        }
        let limit = limit(&parts);
        let mut held = None;
        let body = body::read_counted(body, limit, |more| self.guard.unproven(&mut held, more)).await?;
        let verified = signature.verify(&statement, &body, &secret);
        drop(held);
        let identity = match verified {
            Ok(()) => {
                locks.succeeded(signature.access_key, peer);
                identity
            }
            Err(error) => {
                locks.failed(signature.access_key, peer, Instant::now());
                Identity::Unknown(word(error))
            }
        };
        Ok((Request::from_parts(parts, Body::from(body)), identity))
    }

    /// The secret of an access key, and whose it is; else why there is none.
    async fn signer(
        &self,
        signature: &Signature<'_>,
        headers: &HeaderMap,
    ) -> Result<Result<(String, Identity), &'static str>, ApiError> {
        if let Some(signer) = self.handle.signer(signature.access_key) {
            // Temporary keys go with their token, and it must be signed too.
            let token = headers.get(SECURITY_TOKEN).and_then(|token| token.to_str().ok());
            let identity = token.filter(|_| signature.covers(SECURITY_TOKEN));
            let identity = identity.and_then(|token| self.handle.identify(token));
            let own = identity.filter(|identity| identity.request == signer.request);
            return Ok(match own {
                Some(identity) => Ok((signer.secret_key, running(identity))),
                None => Err("no security token of this access key"),
            });
        }
        let Some(kept) = self.store.credential(signature.access_key).await? else {
            return Ok(Err("no such access key"));
        };
        Ok(Ok((self.key.secret_key(&kept), known(&kept))))
    }
}

fn known(kept: &CredentialRecord) -> Identity {
    if kept.expires_ms.is_some_and(|expires| expires <= Timestamp::now().as_millisecond()) {
        return Identity::Unknown("the credential has expired");
    }
    Identity::Known(Caller {
        project: kept.project.clone(),
        credential: kept.key_id.clone(),
        request: None,
        scopes: Scopes::from_bits(kept.scopes),
        generation: kept.generation,
        until_ms: kept.expires_ms,
    })
}

fn running(identity: supervisor::AttemptIdentity) -> Identity {
    Identity::Known(Caller {
        project: identity.project,
        credential: format!("request {}", identity.request),
        request: Some(identity.request),
        scopes: Scopes::RUNNING,
        generation: 0,
        until_ms: None,
    })
}

fn word(error: SignatureError) -> &'static str {
    match error {
        SignatureError::Unreadable => "unreadable signature",
        SignatureError::NoDate => "no date in the signature",
        SignatureError::NotBound => "host or date not signed",
        SignatureError::HeaderMissing => "a signed header is missing",
        SignatureError::Skewed => "the clocks differ by more than 15 minutes",
        SignatureError::TooMany => "too many parameters to sign",
        SignatureError::Wrong => "wrong signature",
    }
}

/// The largest body that the operation takes.
fn limit(parts: &Parts) -> usize {
    let path = parts.uri.path().trim_end_matches('/');
    let uploads = match parts.method {
        Method::POST => path.ends_with("/functions"),
        Method::PUT => path.ends_with("/code"),
        _ => false,
    };
    if uploads { MAX_FUNCTION_BODY } else { MAX_SYNC_EVENT }
}
