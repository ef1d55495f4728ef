//! Function URNs, long and short (`functiongraph.md` 2.8). The router has percent-decoded the segment.
//!
//! `urn:fss:<region>:<project>:function:<package>:<name>[:<version>]`, and as a parameter also
//! `name`, `package:name`, `project:package:name`, `project:package:name:version`.

use std::fmt;

use axum::http::StatusCode;
use store::FunctionKey;

use crate::error::ApiError;

/// The longest URN of the API.
const MAX_URN: usize = 269;
/// The one version a node knows.
pub(crate) const LATEST: &str = "latest";
pub(crate) const DEFAULT_PACKAGE: &str = "default";

/// A function as somebody named it, before anybody looked whether it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Urn {
    pub(crate) key: FunctionKey,
    /// `latest` if none was named.
    pub(crate) version: String,
}

impl Urn {
    /// Reads any form; `project` is that of the path, and fills in the short ones.
    pub(crate) fn parse(text: &str, project: &str) -> Result<Self, ApiError> {
        let invalid =
            || ApiError::new(StatusCode::BAD_REQUEST, "FSS.1309", format!("invalid function urn: {text:?}"));
        if text.len() > MAX_URN {
            return Err(invalid());
        }
        let parts: Vec<&str> = text.split(':').collect();
        let (project, package, name, version) = match parts.as_slice() {
            [name] => (project, DEFAULT_PACKAGE, *name, LATEST),
            [package, name] => (project, *package, *name, LATEST),
            [project, package, name] => (*project, *package, *name, LATEST),
            [project, package, name, version] => (*project, *package, *name, *version),
            ["urn", "fss", _, project, "function", package, name] => (*project, *package, *name, LATEST),
            ["urn", "fss", _, project, "function", package, name, version] => {
                (*project, *package, *name, *version)
            }
            _ => return Err(invalid()),
        };
        if [project, package, name, version].iter().any(|part| part.is_empty()) {
            return Err(invalid());
        }
        let key =
            FunctionKey { project: project.to_owned(), package: package.to_owned(), name: name.to_owned() };
        Ok(Self { key, version: version.to_owned() })
    }

    /// Whether it names what a node has: the latest version, no alias.
    pub(crate) fn is_latest(&self) -> bool {
        self.version == LATEST
    }
}

/// The long form of a function's URN, with its version.
pub(crate) fn long(region: &str, key: &FunctionKey) -> String {
    Long { region, key }.to_string()
}

struct Long<'a> {
    region: &'a str,
    key: &'a FunctionKey,
}

impl fmt::Display for Long<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FunctionKey { project, package, name } = self.key;
        write!(f, "urn:fss:{}:{project}:function:{package}:{name}:{LATEST}", self.region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(project: &str, package: &str, name: &str) -> FunctionKey {
        FunctionKey { project: project.into(), package: package.into(), name: name.into() }
    }

    #[test]
    fn every_form_names_the_same_function() {
        for text in [
            "f",
            "default:f",
            "p:default:f",
            "p:default:f:latest",
            "urn:fss:local:p:function:default:f",
            "urn:fss:elsewhere:p:function:default:f:latest",
        ] {
            let urn = Urn::parse(text, "p").unwrap();
            assert_eq!((urn.key.clone(), urn.is_latest()), (key("p", "default", "f"), true), "{text}");
        }
        let other = Urn::parse("p:default:f:!alias", "p").unwrap();
        assert!(!other.is_latest());
    }

    #[test]
    fn what_is_no_urn_is_refused() {
        let long = "x".repeat(270);
        for text in ["", ":", "a:", "a:b:c:d:e", "urn:fss:r:p:func:k:f", "urn:obs:r:p:function:k:f", &long] {
            assert_eq!(Urn::parse(text, "p").unwrap_err().code, "FSS.1309", "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_long_form_reads_back(p in "[a-z0-9]{1,32}", k in "[a-z]{1,20}", n in "[a-z][a-z0-9_-]{0,58}") {
            let key = key(&p, &k, &n);
            let urn = Urn::parse(&long("local", &key), "other").unwrap();
            prop_assert_eq!(urn.key.clone(), key);
            prop_assert!(urn.is_latest());
        }

        #[test]
        fn nothing_makes_it_panic(text in ".{0,300}") {
            let _outcome = Urn::parse(&text, "p");
        }
    }
}
