//! Credentials of attempts: who carries one is the request it was minted for (DESIGN section 6).
//!
//! A token is `qa.<request id>.<secret>`, and beside it there is a key to sign with, `QA<request id>`, which
//! goes with the token (as `X-Security-Token`): valid from the delivery of an attempt until its request is
//! fenced or settles. The map is the one thing here that two sides touch: the shell writes, the API
//! reads before it sends anything to the inbox. A reader that was just too early changes nothing,
//! because the engine refuses a child of a fenced or settled parent again, in order.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cancel::RequestId;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Bytes of a secret: 256 bits need no slow hash.
const SECRET_BYTES: usize = 32;
const PREFIX: &str = "qa.";
const KEY_PREFIX: &str = "QA";

/// Who an attempt token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptIdentity {
    /// The request the token was minted for.
    pub request: RequestId,
    /// The project of its function: the one project the token opens.
    pub project: String,
}

/// What an attempt is given to speak for itself. Not to be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AttemptSecrets {
    /// For `X-Auth-Token`, and the security token of the two keys.
    pub token: String,
    /// Names the request in a signature.
    pub access_key: String,
    /// What the signature is made with.
    pub secret_key: String,
}

/// Whose access key it is, and what it signs with.
#[derive(Clone, PartialEq, Eq)]
pub struct AttemptSigner {
    /// The request the key was minted for.
    pub request: RequestId,
    /// A signature can only be checked by who has it.
    pub secret_key: String,
}

struct Entry {
    project: String,
    secret_hash: [u8; 32],
    secret_key: String,
}

/// The live attempt credentials of this node. Bounded by the live requests.
#[derive(Default)]
pub struct AttemptCredentials {
    entries: Mutex<HashMap<RequestId, Entry>>,
}

impl AttemptCredentials {
    /// Mints the token of a delivery; an older one of the same request stops being valid.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub(crate) fn mint(&self, request: RequestId, project: &str) -> Result<AttemptSecrets, getrandom::Error> {
        let mut secrets = [0_u8; 2 * SECRET_BYTES];
        getrandom::fill(&mut secrets)?;
        let (secret, secret_key) = secrets.split_at(SECRET_BYTES);
        let (secret, secret_key) = (hex::encode(secret), hex::encode(secret_key));
        let project = project.to_owned();
        let entry = Entry { project, secret_hash: hash(&secret), secret_key: secret_key.clone() };
        self.lock().insert(request, entry);
        let token = format!("{PREFIX}{request}.{secret}");
        Ok(AttemptSecrets { token, access_key: format!("{KEY_PREFIX}{request}"), secret_key })
    }

    /// Who signs with this access key; `None` if it is none of a live attempt.
    pub fn signer(&self, access_key: &str) -> Option<AttemptSigner> {
        let request = RequestId::parse(access_key.strip_prefix(KEY_PREFIX)?)?;
        let secret_key = self.lock().get(&request)?.secret_key.clone();
        Some(AttemptSigner { request, secret_key })
    }

    /// From here on the token opens nothing.
    pub(crate) fn revoke(&self, request: RequestId) {
        self.lock().remove(&request);
    }

    /// Whom `token` speaks for; `None` if it is no live attempt token. Compares in constant time.
    pub fn identify(&self, token: &str) -> Option<AttemptIdentity> {
        let (request, secret) = token.strip_prefix(PREFIX)?.split_once('.')?;
        let request = RequestId::parse(request)?;
        let given = hash(secret);
        let entries = self.lock();
        let entry = entries.get(&request)?;
        bool::from(entry.secret_hash.ct_eq(&given))
            .then(|| AttemptIdentity { request, project: entry.project.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RequestId, Entry>> {
        // Nothing panics while it is held; if something ever does, the map is still whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `token` has the form of an attempt token, live or not.
pub fn is_attempt_token(token: &str) -> bool {
    token.starts_with(PREFIX)
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_project_until_it_is_revoked() {
        let credentials = AttemptCredentials::default();
        let token = credentials.mint(RequestId(7), "p").unwrap().token;
        assert_eq!(
            credentials.identify(&token),
            Some(AttemptIdentity { request: RequestId(7), project: "p".into() })
        );
        credentials.revoke(RequestId(7));
        assert_eq!(credentials.identify(&token), None);
    }

    #[test]
    fn a_token_of_an_older_attempt_opens_nothing() {
        let credentials = AttemptCredentials::default();
        let old = credentials.mint(RequestId(7), "p").unwrap().token;
        let new = credentials.mint(RequestId(7), "p").unwrap().token;
        assert_eq!(credentials.identify(&old), None);
        assert!(credentials.identify(&new).is_some());
    }

    #[test]
    fn what_was_not_minted_opens_nothing() {
        let credentials = AttemptCredentials::default();
        let token = credentials.mint(RequestId(7), "p").unwrap().token;
        let other = token.replace(&RequestId(7).to_string(), &RequestId(8).to_string());
        let cut = &token[..token.len() - 1];
        for bad in ["", "qa.", "qa.x.y", other.as_str(), cut] {
            assert_eq!(credentials.identify(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_key_signs_for_its_request_until_it_is_revoked() {
        let credentials = AttemptCredentials::default();
        let minted = credentials.mint(RequestId(7), "p").unwrap();
        let signer = credentials.signer(&minted.access_key).unwrap();
        assert!(signer == AttemptSigner { request: RequestId(7), secret_key: minted.secret_key });
        credentials.revoke(RequestId(7));
        for key in [minted.access_key.as_str(), "", "QA", "QA7", "qa.x"] {
            assert!(credentials.signer(key).is_none(), "{key}");
        }
    }
}
