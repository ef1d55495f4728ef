//! What a URN names on this node: a version of a function, whose aliases decide for whoever names one.

use std::sync::{Arc, PoisonError};

use axum::http::StatusCode;
use cancel::RequestId;
use store::{AliasRecord, FunctionFilter, FunctionKey, FunctionRecord, LATEST};
use supervisor::FunctionSpec;

use crate::{
    error::ApiError,
    registry::Api,
    urn::{Named, Urn},
};

/// What serves a new request: a version, and the alias by which it was found.
pub(crate) type Serving = (Arc<FunctionSpec>, Option<Arc<str>>);

impl Api {
    /// What serves a new request of this project. An alias with two versions gives each its share; the
    /// request's own id draws, which is random, so that whoever tries it again finds the same one.
    ///
    /// # Errors
    /// 404 that says whether the function, its version or its alias is missing.
    pub(crate) fn serving(&self, urn: &Urn, project: &str, request: RequestId) -> Result<Serving, ApiError> {
        let Named::Alias(alias) = &urn.named else { return Ok((self.version(urn, project)?, None)) };
        let found = self.aliases(&urn.key, |aliases| {
            let (name, record) = aliases.get_key_value(alias.as_str())?;
            Some((Arc::clone(name), urn.key.at(drawn(record, request))))
        });
        let (name, key) = found.flatten().ok_or_else(|| self.missing(urn, project))?;
        let function = self.ready_version(&key, project).ok_or_else(|| self.missing(urn, project))?;
        Ok((function, Some(name)))
    }

    /// The version a URN of this project names; of an alias the one that it names first.
    ///
    /// # Errors
    /// As for [`Api::serving`].
    pub(crate) fn version(&self, urn: &Urn, project: &str) -> Result<Arc<FunctionSpec>, ApiError> {
        let found = match &urn.named {
            Named::Whole | Named::Version => self.ready_version(&urn.key, project),
            Named::Alias(alias) => {
                self.alias(&urn.key, alias).and_then(|alias| self.ready_version(&alias.function, project))
            }
        };
        found.ok_or_else(|| self.missing(urn, project))
    }

    /// The stored record of the same.
    ///
    /// # Errors
    /// As for [`Api::serving`]; and when the store cannot be read.
    pub(crate) async fn record(&self, urn: &Urn, project: &str) -> Result<FunctionRecord, ApiError> {
        let key = match &urn.named {
            Named::Whole | Named::Version => Some(urn.key.clone()),
            Named::Alias(alias) => self.alias(&urn.key, alias).map(|alias| alias.function),
        };
        let key = key.filter(|key| key.project == project).ok_or_else(|| self.missing(urn, project))?;
        self.store.function(key).await?.ok_or_else(|| self.missing(urn, project))
    }

    /// Which requests a URN means where requests are looked for; nothing if it names an alias that is not
    /// there. A version, or a function, need not be there any more.
    pub(crate) fn requests_of(&self, urn: &Urn) -> Option<FunctionFilter> {
        let key = urn.key.clone();
        match &urn.named {
            Named::Whole => Some(FunctionFilter::whole(key)),
            Named::Version => Some(FunctionFilter::exactly(key)),
            Named::Alias(alias) => {
                let AliasRecord { function, additional, .. } = self.alias(&key, alias)?;
                let mut filter = FunctionFilter::exactly(function);
                filter.versions.extend(additional.map(|share| share.version));
                Some(filter)
            }
        }
    }

    /// An alias of a function, which the key names in its latest version.
    pub(crate) fn alias(&self, key: &FunctionKey, alias: &str) -> Option<AliasRecord> {
        self.aliases(key, |aliases| aliases.get(alias).cloned()).flatten()
    }

    /// What is not there of what a URN names.
    fn missing(&self, urn: &Urn, project: &str) -> ApiError {
        let (code, message) = match &urn.named {
            _ if urn.key.project != project || !self.has(&urn.key.at(LATEST)) => {
                return ApiError::no_function();
            }
            Named::Alias(_) => ("FSS.1053", "Not found the function alias"),
            Named::Version | Named::Whole => ("FSS.1052", "Not found the function version"),
        };
        ApiError::new(StatusCode::NOT_FOUND, code, message)
    }

    fn ready_version(&self, key: &FunctionKey, project: &str) -> Option<Arc<FunctionSpec>> {
        if key.project != project {
            return None;
        }
        self.functions.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }
}

/// The version an alias gives a request to.
fn drawn(alias: &AliasRecord, request: RequestId) -> &str {
    match &alias.additional {
        Some(share) if request.0 % 100 < u128::from(share.percent) => &share.version,
        _ => &alias.function.version,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Share;

    fn count(percent: u8) -> usize {
        let function =
            FunctionKey { project: "p".into(), package: "k".into(), name: "f".into(), version: "v1".into() };
        let alias = AliasRecord {
            function,
            name: "a".into(),
            additional: Some(Share { version: "v2".into(), percent }),
            description: String::new(),
            created_ms: 0,
            modified_ms: 0,
        };
        let ids = (0..1000).map(|_| RequestId(uuid::Uuid::new_v4().as_u128()));
        ids.filter(|id| drawn(&alias, *id) == "v2").count()
    }

    #[test]
    fn a_share_of_all_is_all_and_a_share_of_none_is_none() {
        assert_eq!((count(0), count(100)), (0, 1000));
    }

    #[test]
    fn half_of_many_is_about_half() {
        // Beyond eleven standard deviations on either side.
        assert!((320..=680).contains(&count(50)), "{}", count(50));
    }
}
