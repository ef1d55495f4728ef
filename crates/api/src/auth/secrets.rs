//! What opens a project: made, derived, recognised.
//!
//! A credential has one random secret of 256 bits, of which only the SHA-256 is kept: its token is
//! `qk.<key>.<secret>`. A signature can only be checked by who has its secret, so the secret key is derived
//! from the node's own key, which the store keeps; the same key makes the tokens of logins (`qt.`), which
//! therefore need no row each. All of them are void when their credential is revoked, has expired, or (but
//! for the credential itself) was rotated.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use store::{CredentialRecord, Store};
use subtle::ConstantTimeEq as _;

use super::Scopes;
use crate::error::ApiError;

/// Of credentials.
pub(crate) const KEY_PREFIX: &str = "qk.";
/// Of logins.
pub(crate) const LOGIN_PREFIX: &str = "qt.";
const KEY_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// The fact under which the store keeps the node's key.
const NODE_KEY: &str = "key";

/// The node's own key: whoever has it can sign as anybody.
pub struct NodeKey([u8; SECRET_BYTES]);

impl NodeKey {
    /// The node's key, made at its first start.
    ///
    /// # Errors
    /// When there is no randomness, or the store cannot be read or written.
    pub async fn of(store: &dyn Store) -> Result<Self, ApiError> {
        let mut key = [0; SECRET_BYTES];
        let kept = match store.fact(NODE_KEY).await? {
            Some(kept) => kept,
            None => {
                random(&mut key)?;
                // Nodes that share a store have one key, whoever made it.
                store.keep_fact(NODE_KEY, hex::encode(key)).await?
            }
        };
        let read = hex::decode_to_slice(kept, &mut key);
        read.map_err(|_| ApiError::internal("the node's key in the store is damaged"))?;
        Ok(Self(key))
    }

    /// The secret key of a credential's access key, which is its key id.
    pub(crate) fn secret_key(&self, credential: &CredentialRecord) -> String {
        self.mac("secret key", &format!("{}.{}", credential.key_id, credential.generation))
    }

    /// A token of a login, valid until `expires_ms`.
    pub(crate) fn login_token(&self, credential: &CredentialRecord, expires_ms: i64) -> String {
        let what = format!("{}.{}.{expires_ms}", credential.key_id, credential.generation);
        format!("{LOGIN_PREFIX}{what}.{}", self.mac("login", &what))
    }

    /// What a login token says, if the node made it. Compares in constant time.
    pub(crate) fn read_login(&self, token: &str) -> Option<Login> {
        let (what, mac) = token.strip_prefix(LOGIN_PREFIX)?.rsplit_once('.')?;
        let genuine = self.mac("login", what).as_bytes().ct_eq(mac.as_bytes());
        let mut parts = what.split('.');
        let login = Login {
            key_id: parts.next()?.to_owned(),
            generation: parts.next()?.parse().ok()?,
            expires_ms: parts.next()?.parse().ok()?,
        };
        bool::from(genuine).then_some(login)
    }

    fn mac(&self, purpose: &str, of: &str) -> String {
        // HMAC takes a key of any length: this cannot fail, and an empty one would verify nothing.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(purpose.as_bytes());
        mac.update(b"\n");
        mac.update(of.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey")
    }
}

/// What a token of a login says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) key_id: String,
    pub(crate) generation: u32,
    pub(crate) expires_ms: i64,
}

/// What whoever makes a credential is told, this once.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Secrets {
    /// For `X-Auth-Token`.
    pub token: String,
    /// The public half of a signature: the key id.
    pub access_key: String,
    /// The other half.
    pub secret_key: String,
}

/// A credential that is to be made.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewCredential {
    pub(crate) project: String,
    pub(crate) note: String,
    pub(crate) scopes: u8,
    pub(crate) login: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) expires_ms: Option<i64>,
}

/// Makes a credential, which is not kept yet.
pub(crate) fn make(new: NewCredential, key: &NodeKey) -> Result<(CredentialRecord, Secrets), ApiError> {
    let mut id = [0; KEY_BYTES];
    random(&mut id)?;
    let NewCredential { project, note, scopes, login, password, expires_ms } = new;
    let blank = CredentialRecord {
        key_id: hex::encode(id),
        secret_hash: [0; 32],
        project,
        note,
        created_ms: jiff::Timestamp::now().as_millisecond(),
        scopes,
        login,
        password,
        expires_ms,
        generation: 0,
    };
    seal(blank, key)
}

/// The same credential with other secrets: the old ones are void once it is kept.
pub(crate) fn rotate(old: &CredentialRecord, key: &NodeKey) -> Result<(CredentialRecord, Secrets), ApiError> {
    seal(CredentialRecord { generation: old.generation.wrapping_add(1), ..old.clone() }, key)
}

fn seal(mut record: CredentialRecord, key: &NodeKey) -> Result<(CredentialRecord, Secrets), ApiError> {
    let mut secret = [0; SECRET_BYTES];
    random(&mut secret)?;
    let secret = hex::encode(secret);
    record.secret_hash = hash(&secret);
    let secrets = Secrets {
        token: format!("{KEY_PREFIX}{}.{secret}", record.key_id),
        access_key: record.key_id.clone(),
        secret_key: key.secret_key(&record),
    };
    Ok((record, secrets))
}

/// Makes an operator's credential of a project and keeps its hash. Its secrets are returned this once.
///
/// # Errors
/// When there is no randomness, or the store cannot keep it.
pub async fn mint_operator(
    store: &dyn Store,
    key: &NodeKey,
    project: &str,
    note: &str,
) -> Result<Secrets, ApiError> {
    let (project, note) = (project.to_owned(), note.to_owned());
    let new = NewCredential { project, note, scopes: Scopes::OPERATOR.bits(), ..NewCredential::default() };
    let (record, secrets) = make(new, key)?;
    store.put_credential(record).await?;
    Ok(secrets)
}

/// The secrets of a token that still opens something; `None` if it does not.
///
/// # Errors
/// When the store cannot be read.
pub async fn secrets_of(store: &dyn Store, key: &NodeKey, token: &str) -> Result<Option<Secrets>, ApiError> {
    let Some((key_id, secret)) = split(token) else { return Ok(None) };
    let kept = store.credential(key_id).await?.filter(|kept| opens(kept, secret));
    Ok(kept.map(|kept| Secrets {
        token: token.to_owned(),
        access_key: kept.key_id.clone(),
        secret_key: key.secret_key(&kept),
    }))
}

/// Key id and secret of a credential's token.
pub(crate) fn split(token: &str) -> Option<(&str, &str)> {
    token.strip_prefix(KEY_PREFIX)?.split_once('.')
}

/// Whether this is a credential's secret. In constant time: a hash tells nothing of where it differs.
pub(crate) fn opens(kept: &CredentialRecord, secret: &str) -> bool {
    bool::from(kept.secret_hash.ct_eq(&hash(secret)))
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

fn random(bytes: &mut [u8]) -> Result<(), ApiError> {
    getrandom::fill(bytes).map_err(|error| ApiError::internal(format!("no randomness: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> NodeKey {
        NodeKey([7; SECRET_BYTES])
    }

    fn made() -> (CredentialRecord, Secrets) {
        make(NewCredential { project: "p".to_owned(), ..NewCredential::default() }, &key()).unwrap()
    }

    #[test]
    fn a_token_opens_its_credential_and_no_other() {
        let (record, secrets) = made();
        let (id, secret) = split(&secrets.token).unwrap();
        assert_eq!(id, record.key_id);
        assert!(opens(&record, secret) && !opens(&made().0, secret));
        let kept = format!("{record:?}");
        assert!(!kept.contains(secret) && !kept.contains(&secrets.secret_key), "{kept}");
    }

    #[test]
    fn rotation_changes_every_secret_and_not_the_key() {
        let (record, before) = made();
        let (after, secrets) = rotate(&record, &key()).unwrap();
        assert_eq!(
            (after.key_id.as_str(), &secrets.access_key),
            (record.key_id.as_str(), &before.access_key)
        );
        assert!(!opens(&after, split(&before.token).unwrap().1));
        assert_ne!(secrets.secret_key, before.secret_key);
        assert_eq!(secrets.secret_key, key().secret_key(&after));
    }

    #[test]
    fn a_login_token_is_read_by_the_node_that_made_it_and_cannot_be_changed() {
        let (record, _) = made();
        let token = key().login_token(&record, 5_000);
        let login = Login { key_id: record.key_id.clone(), generation: 0, expires_ms: 5_000 };
        assert_eq!(key().read_login(&token), Some(login));
        assert_eq!(NodeKey([8; SECRET_BYTES]).read_login(&token), None);
        for changed in
            [token.replace("5000", "9000"), token.replace(".0.", ".1."), token[..token.len() - 1].into()]
        {
            assert_eq!(key().read_login(&changed), None, "{changed}");
        }
        for bad in ["", "qt.", "qt.a", "qt.a.b.c.d", "qt....", "qk.a.b"] {
            assert_eq!(key().read_login(bad), None, "{bad}");
        }
    }
}
