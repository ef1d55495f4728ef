//! What keeps guessing and flooding small: limits by credential and address, locks after wrong secrets,
//! and the audit log of refusals.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{Extensions, Method};
use cancel::RequestId;
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use supervisor::http::Ends;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Caller, Identity};
use crate::error::ApiError;

/// Wrong secrets in a row for one key from one address; the next one locks it (`functiongraph.md` 4.1).
const FAILURES: u32 = 5;
/// For so long.
const LOCKED: Duration = Duration::from_secs(5 * 60);
/// Keys with wrong secrets that are remembered, with their addresses. One costs about 100 bytes, and whoever
/// fills it has paid for each with a signature or a password to be checked.
const MAX_LOCKS: usize = 10_000;
/// Lines of the audit log in a second: who floods must not fill the disk. The rest is counted.
const AUDIT_LINES: NonZeroU32 = NonZeroU32::new(50).unwrap();
/// Bodies of signed requests that are held before it is known whether the signature is right.
const UNPROVEN_BYTES: usize = 256 << 20;
/// After so many looks at a limit, keys that have not been seen for a while are forgotten.
const FORGET_EVERY: u64 = 16_384;
/// A path in the audit log is cut here.
const SHOWN_PATH: usize = 300;

/// How much one credential or one address may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests a second of one credential, and of one address with a valid one; `None`: as many as come.
    pub requests: Option<NonZeroU32>,
    /// The same of one running request with its own credentials.
    pub running: Option<NonZeroU32>,
    /// Requests a second with wrong credentials that one address is told so; beyond it is only told that
    /// it is too much.
    pub refusals: Option<NonZeroU32>,
}

/// Where a request came from.
pub(super) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<Ends>().map(|ends| ends.peer.ip())
}

/// The limits of requests at work.
struct Limits {
    of: RateLimits,
    credentials: Option<DefaultKeyedRateLimiter<String>>,
    running: Option<DefaultKeyedRateLimiter<RequestId>>,
    addresses: Option<DefaultKeyedRateLimiter<IpAddr>>,
    refusals: Option<DefaultKeyedRateLimiter<IpAddr>>,
}

impl Limits {
    fn new(of: RateLimits) -> Self {
        Self {
            of,
            credentials: of.requests.map(keyed),
            running: of.running.map(keyed),
            addresses: of.requests.map(keyed),
            refusals: of.refusals.map(keyed),
        }
    }

    fn forget(&self) {
        if let Some(limit) = &self.credentials {
            limit.retain_recent();
        }
        if let Some(limit) = &self.running {
            limit.retain_recent();
        }
        for limit in [&self.addresses, &self.refusals].into_iter().flatten() {
            limit.retain_recent();
        }
    }
}

/// What keeps guessing and flooding small on this node.
pub(crate) struct Guard {
    /// Exchanged as a whole when the limits change; read for each request, and written as good as never.
    limits: RwLock<Arc<Limits>>,
    looks: AtomicU64,
    audit: DefaultDirectRateLimiter,
    unsaid: AtomicU64,
    pub(super) signatures: Locks,
    unproven: Arc<Semaphore>,
}

impl Guard {
    pub(crate) fn new(limits: RateLimits) -> Self {
        Self {
            limits: RwLock::new(Arc::new(Limits::new(limits))),
            looks: AtomicU64::new(0),
            audit: RateLimiter::direct(Quota::per_second(AUDIT_LINES)),
            unsaid: AtomicU64::new(0),
            signatures: Locks::default(),
            unproven: Arc::new(Semaphore::new(UNPROVEN_BYTES)),
        }
    }

    /// Whether a request may go on to its handler.
    pub(super) fn admit(&self, identity: &Identity, peer: Option<IpAddr>) -> Result<(), ApiError> {
        if self.looks.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limits().forget();
        }
        let limits = self.limits();
        let within = match identity {
            Identity::Known(Caller { request: Some(request), .. }) => {
                limits.running.as_ref().is_none_or(|limit| limit.check_key(request).is_ok())
            }
            Identity::Known(caller) => {
                limits.credentials.as_ref().is_none_or(|limit| limit.check_key(&caller.credential).is_ok())
                    && below(limits.addresses.as_ref(), peer)
            }
            // What brings no credentials costs nothing, and some routes want none.
            Identity::Unknown(why) => *why == super::identify::NONE || below(limits.refusals.as_ref(), peer),
        };
        if within { Ok(()) } else { Err(ApiError::busy("api is busy now: too many requests")) }
    }

    fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has these limits hold from now on. Whoever was at a limit begins anew.
    pub(crate) fn limit(&self, to: RateLimits) {
        let mut limits = self.limits.write().unwrap_or_else(PoisonError::into_inner);
        if limits.of != to {
            *limits = Arc::new(Limits::new(to));
        }
    }

    /// Room for so much more of the body of a request whose signature is not checked yet; it is given back
    /// when `held` is dropped. For what has come and not for what was announced: to announce costs nothing.
    pub(super) fn unproven(
        &self,
        held: &mut Option<OwnedSemaphorePermit>,
        bytes: usize,
    ) -> Result<(), ApiError> {
        let bytes = u32::try_from(bytes.min(UNPROVEN_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.unproven).try_acquire_many_owned(bytes);
        let room = room.map_err(|_| ApiError::unavailable("too many large signed requests at once"))?;
        match held {
            Some(held) => held.merge(room),
            None => *held = Some(room),
        }
        Ok(())
    }

    /// Whether whoever sent wrong credentials from here is told so; else it is too much.
    pub(crate) fn may_be_told(&self, peer: Option<IpAddr>) -> Result<(), ApiError> {
        let told = below(self.limits().refusals.as_ref(), peer);
        if told { Ok(()) } else { Err(ApiError::busy("api is busy now: too many requests")) }
    }

    /// One line of the audit log.
    pub(crate) fn refused(&self, refusal: &Refusal<'_>) {
        if self.audit.check().is_err() {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let unsaid = self.unsaid.swap(0, Ordering::Relaxed);
        let Refusal { peer, credential, method, path, why } = refusal;
        let path: String = path.chars().take(SHOWN_PATH).collect();
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        tracing::warn!(target: "audit", peer, credential, %method, path, why, unsaid, "audit: refused");
    }
}

fn keyed<K: Clone + std::hash::Hash + Eq>(per_second: NonZeroU32) -> DefaultKeyedRateLimiter<K> {
    RateLimiter::keyed(Quota::per_second(per_second))
}

fn below(limit: Option<&DefaultKeyedRateLimiter<IpAddr>>, peer: Option<IpAddr>) -> bool {
    limit.zip(peer).is_none_or(|(limit, peer)| limit.check_key(&peer).is_ok())
}

/// A request that was refused for who sent it.
pub(crate) struct Refusal<'a> {
    pub(crate) peer: Option<IpAddr>,
    pub(crate) credential: Option<&'a str>,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) why: &'a str,
}

/// Wrong secrets by key and address. A key is locked for the address they came from and for no other, so
/// that nobody locks out the one whose key it is.
#[derive(Default)]
pub(crate) struct Locks(Mutex<HashMap<(String, Option<IpAddr>), Failures>>);

struct Failures {
    count: u32,
    /// The last one.
    at: Instant,
}

impl Locks {
    pub(crate) fn is_locked(&self, key: &str, peer: Option<IpAddr>, now: Instant) -> bool {
        let mut failures = self.lock();
        let place = (key.to_owned(), peer);
        let Some(known) = failures.get(&place) else { return false };
        if now.duration_since(known.at) >= LOCKED {
            failures.remove(&place);
            return false;
        }
        known.count > FAILURES
    }

    /// A secret was wrong. While it is locked nothing is checked, so the lock ends.
    pub(crate) fn failed(&self, key: &str, peer: Option<IpAddr>, now: Instant) {
        let mut failures = self.lock();
        if failures.len() >= MAX_LOCKS {
            failures.retain(|_, known| now.duration_since(known.at) < LOCKED);
        }
        if failures.len() >= MAX_LOCKS {
            failures.clear(); // see MAX_LOCKS: this was dearer than what it gains
        }
        let known = failures.entry((key.to_owned(), peer)).or_insert(Failures { count: 0, at: now });
        known.count += 1;
        known.at = now;
    }

    pub(crate) fn succeeded(&self, key: &str, peer: Option<IpAddr>) {
        let mut failures = self.lock();
        if !failures.is_empty() {
            failures.remove(&(key.to_owned(), peer));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Option<IpAddr>), Failures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // each change is one call: it is whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)));

    #[test]
    fn the_sixth_wrong_secret_in_a_row_locks_a_key_for_its_address_for_five_minutes() {
        let (locks, now) = (Locks::default(), Instant::now());
        for _ in 0..FAILURES {
            locks.failed("ak", PEER, now);
            assert!(!locks.is_locked("ak", PEER, now));
        }
        locks.failed("ak", PEER, now);
        assert!(locks.is_locked("ak", PEER, now + LOCKED - Duration::from_secs(1)));
        assert!(!locks.is_locked("ak", None, now), "who comes from elsewhere is not locked out");
        assert!(!locks.is_locked("other", PEER, now));
        assert!(!locks.is_locked("ak", PEER, now + LOCKED));
        assert!(!locks.is_locked("ak", PEER, now), "and it begins anew");
    }

    #[test]
    fn a_right_secret_in_between_begins_the_count_anew() {
        let (locks, now) = (Locks::default(), Instant::now());
        for _ in 0..10 {
            for _ in 0..FAILURES {
                locks.failed("ak", PEER, now);
            }
            locks.succeeded("ak", PEER);
        }
        assert!(!locks.is_locked("ak", PEER, now));
    }

    #[test]
    fn the_memory_of_wrong_secrets_is_bounded() {
        let (locks, now) = (Locks::default(), Instant::now());
        for key in 0..3 * MAX_LOCKS {
            locks.failed(&key.to_string(), PEER, now);
        }
        assert!(locks.lock().len() <= MAX_LOCKS);
    }

    #[test]
    fn limits_hold_for_each_credential_and_address_by_itself() {
        let two = NonZeroU32::new(2);
        let guard = Guard::new(RateLimits { requests: two, running: two, refusals: two });
        let caller = |credential: &str| {
            Identity::Known(Caller {
                project: "p".into(),
                credential: credential.into(),
                request: None,
                scopes: super::super::Scopes::ADMIN,
                generation: 0,
                until_ms: None,
            })
        };
        let passed =
            |identity: &Identity, peer| (0..5).filter(|_| guard.admit(identity, peer).is_ok()).count();
        assert_eq!(passed(&caller("a"), None), 2);
        assert_eq!(passed(&caller("b"), PEER), 2);
        assert_eq!(passed(&caller("c"), PEER), 0, "the address has had its share");
        assert_eq!(passed(&Identity::Unknown("wrong"), PEER), 2);
        assert_eq!(passed(&Identity::Unknown(crate::auth::identify::NONE), PEER), 5);
        let running = |number| match caller("r") {
            Identity::Known(caller) => Identity::Known(Caller { request: Some(RequestId(number)), ..caller }),
            unknown => unknown,
        };
        assert_eq!((passed(&running(1), PEER), passed(&running(2), PEER)), (2, 2));
        let open = Guard::new(RateLimits { requests: None, running: None, refusals: None });
        assert!((0..9_999).all(|_| open.admit(&caller("a"), PEER).is_ok()));
    }
}
