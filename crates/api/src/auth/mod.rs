//! Who asks, and what they may.
//!
//! A request is identified once, before its handler: by a token of a credential (`qk.`), of a login (`qt.`),
//! of a running request (`qa.`), or by a signature. Each speaks for exactly one project (I11). What may be
//! done is decided where it is done, by [`Api::caller`] and its like; every refusal goes to the audit log.

use std::{net::IpAddr, ops::Deref};

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, Method, Uri, request::Parts},
};
use bytes::Bytes;
use cancel::RequestId;

use crate::{body, error::ApiError, registry::Api};

mod guard;
mod identify;
pub(crate) mod secrets;
pub(crate) mod signature;

pub use guard::RateLimits;
pub(crate) use guard::{Guard, Locks, Refusal};
pub(crate) use identify::authenticate;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Look at functions, requests, receipts.
    Read,
    /// Invoke.
    Invoke,
    /// Stop.
    Cancel,
    /// Change functions of the project.
    Admin,
    /// Change credentials: of the project, or an operator's of every one.
    Credentials,
    /// What goes beyond one project: its credentials, a copy of everything.
    Operate,
}

impl Right {
    /// The scope that opens this, and the least of them.
    fn scope(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Invoke => "invoke",
            Self::Cancel => "cancel",
            Self::Admin | Self::Credentials => "admin",
            Self::Operate => "operator",
        }
    }
}

/// Why somebody may not. Whoever is known is told: it is his own credential, and he tells nobody else of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denied {
    /// It is not known who asks.
    Nobody,
    /// The credential opens another project.
    Elsewhere,
    /// It lacks the scope for this.
    Lacks(Right),
}

impl From<Denied> for ApiError {
    fn from(why: Denied) -> Self {
        let mut error = Self::invalid_token();
        match why {
            Denied::Nobody => {}
            Denied::Elsewhere => error.message.push_str(": it opens another project"),
            Denied::Lacks(right) => {
                error.message.push_str(": it lacks the scope ");
                error.message.push_str(right.scope());
            }
        }
        error
    }
}

/// What a credential may do in its project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scopes(u8);

/// The words of scopes, in the order of their bits.
const WORDS: [(&str, u8); 5] = [("read", 1), ("invoke", 2), ("cancel", 4), ("admin", 8), ("operator", 16)];

/// The words themselves, for whoever offers them.
pub const SCOPES: [&str; 5] = [WORDS[0].0, WORDS[1].0, WORDS[2].0, WORDS[3].0, WORDS[4].0];

impl Scopes {
    /// Of a running request: it looks and invokes.
    pub(crate) const RUNNING: Self = Self(1 | 2);
    /// Everything in its project.
    pub(crate) const ADMIN: Self = Self(1 | 2 | 4 | 8);
    /// Everything.
    pub(crate) const OPERATOR: Self = Self(1 | 2 | 4 | 8 | 16);

    /// As the store keeps them; bits that nobody knows open nothing.
    pub(crate) fn from_bits(bits: u8) -> Self {
        Self(bits & Self::OPERATOR.0)
    }

    pub(crate) fn bits(self) -> u8 {
        self.0
    }

    /// Whether they include a right. `admin` includes all but the operator's.
    pub(crate) fn include(self, right: Right) -> bool {
        let (admin, operator) = (8, 16);
        let bits = match right {
            Right::Read => 1 | admin,
            Right::Invoke => 2 | admin,
            Right::Cancel => 4 | admin,
            Right::Admin => admin,
            Right::Credentials => admin | operator,
            Right::Operate => operator,
        };
        self.0 & bits != 0
    }

    /// Whether whoever has these may give those.
    pub(crate) fn may_give(self, given: Self) -> bool {
        let all = if self.include(Right::Admin) { self.0 | Self::ADMIN.0 } else { self.0 };
        given.0 & !all == 0
    }

    /// Reads one word.
    pub(crate) fn word(word: &str) -> Option<Self> {
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, bit)| Self(*bit))
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn words(self) -> Vec<&'static str> {
        WORDS.iter().filter(|(_, bit)| self.0 & bit != 0).map(|(word, _)| *word).collect()
    }
}

/// Who asks, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The one project it may touch.
    pub(crate) project: String,
    /// The public half of its credential, or which request it is.
    pub(crate) credential: String,
    /// The running request it is, if it is one.
    pub(crate) request: Option<RequestId>,
    pub(crate) scopes: Scopes,
    /// Which secrets of the credential these were.
    generation: u32,
    /// When the credential, or the login, expires.
    pub(crate) until_ms: Option<i64>,
}

/// The header in which a client says which project it means, where the path does not: the command line's `--project`
/// must not be lost on routes that take the credential's own.
const PROJECT: &str = "x-quell-project";

/// What came of the identification of one request.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    Known(Caller),
    /// Why not, for the audit log.
    Unknown(&'static str),
}

/// The head of a request: its headers, and who sent it.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    headers: HeaderMap,
    identity: Identity,
    method: Method,
    uri: Uri,
    peer: Option<IpAddr>,
}

impl Deref for Head {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        &self.headers
    }
}

impl<S: Sync> FromRequestParts<S> for Head {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let identity = parts.extensions.get::<Identity>().cloned();
        Ok(Self {
            headers: parts.headers.clone(),
            identity: identity.unwrap_or(Identity::Unknown("nobody looked who it is")),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            peer: guard::peer(&parts.extensions),
        })
    }
}

impl Head {
    /// Where it came from.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// The project that is meant, if that is said. What is no text is the name of none.
    fn meant_project(&self) -> Option<&str> {
        Some(self.headers.get(PROJECT)?.to_str().unwrap_or_default())
    }
}

impl Api {
    /// A caller with this right in this project; else 401 or 403 as the operations on functions say.
    pub(crate) fn caller(&self, head: &Head, project: &str, right: Right) -> Result<Caller, ApiError> {
        self.permitted(head, Some(project), right).map_err(|why| match why {
            Denied::Nobody => ApiError::not_permitted(),
            _ => why.into(),
        })
    }

    /// The same for cancel and the lists, which know no 401 (`functiongraph.md` section 1).
    pub(crate) fn caller_or_403(&self, head: &Head, project: &str, right: Right) -> Result<Caller, ApiError> {
        Ok(self.permitted(head, Some(project), right)?)
    }

    /// A caller of Quell's own routes, whose paths name no project: it is the caller's own, and the one that he means
    /// if he says which in [`PROJECT`].
    pub(crate) fn any_caller(&self, head: &Head, right: Right) -> Result<Caller, ApiError> {
        Ok(self.permitted(head, head.meant_project(), right)?)
    }

    /// The same of what is open to operators alone.
    pub(crate) fn operator(&self, head: &Head) -> Result<Caller, ApiError> {
        self.any_caller(head, Right::Operate)
    }

    /// Whether the caller is still who he was when his request began: a body may take long, and what was
    /// revoked meanwhile opens nothing. (A running request is looked at again by the engine.)
    pub(crate) async fn still(&self, caller: &Caller) -> Result<(), ApiError> {
        if caller.request.is_some() {
            return Ok(());
        }
        let kept = self.store.credential(&caller.credential).await?;
        let same = kept.is_some_and(|kept| kept.generation == caller.generation);
        let now = jiff::Timestamp::now().as_millisecond();
        if same && caller.until_ms.is_none_or(|until| until > now) {
            return Ok(());
        }
        Err(ApiError::invalid_token())
    }

    /// Reads the body of a caller's request, and looks whether he is still who he was.
    pub(crate) async fn body(&self, caller: &Caller, body: Body, limit: usize) -> Result<Bytes, ApiError> {
        let body = body::read(body, limit).await?;
        self.still(caller).await?;
        Ok(body)
    }

    fn permitted(&self, head: &Head, project: Option<&str>, right: Right) -> Result<Caller, Denied> {
        let (who, why, denied) = match &head.identity {
            Identity::Known(caller) if project.is_some_and(|project| project != caller.project) => {
                (Some(caller), "another project", Denied::Elsewhere)
            }
            Identity::Known(caller) if !caller.scopes.include(right) => {
                (Some(caller), "not in its scopes", Denied::Lacks(right))
            }
            Identity::Known(caller) => return Ok(caller.clone()),
            Identity::Unknown(why) => (None, *why, Denied::Nobody),
        };
        self.guard.refused(&Refusal {
            peer: head.peer,
            credential: who.map(|caller| caller.credential.as_str()),
            method: &head.method,
            path: head.uri.path(),
            why,
        });
        Err(denied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_is_its_right_and_admin_is_all_of_a_project() {
        let rights = [Right::Read, Right::Invoke, Right::Cancel, Right::Admin, Right::Operate];
        let of = |word| rights.map(|right| Scopes::word(word).unwrap().include(right));
        assert_eq!(of("read"), [true, false, false, false, false]);
        assert_eq!(of("invoke"), [false, true, false, false, false]);
        assert_eq!(of("cancel"), [false, false, true, false, false]);
        assert_eq!(of("admin"), [true, true, true, true, false]);
        assert_eq!(of("operator"), [false, false, false, false, true]);
        assert_eq!(Scopes::word("root"), None);
        assert_eq!(Scopes::from_bits(0xff), Scopes::OPERATOR);
        assert_eq!(Scopes::RUNNING.words(), ["read", "invoke"]);
    }

    #[test]
    fn nobody_gives_what_he_has_not() {
        let [read, admin] = ["read", "admin"].map(|word| Scopes::word(word).unwrap());
        assert!(admin.may_give(read) && admin.may_give(Scopes::ADMIN) && !admin.may_give(Scopes::OPERATOR));
        assert!(read.may_give(read) && !read.may_give(admin) && !Scopes::RUNNING.may_give(admin));
        assert!(Scopes::OPERATOR.may_give(Scopes::OPERATOR));
    }
}
