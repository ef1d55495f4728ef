//! Function URNs, long and short (`functiongraph.md` 2.8). The router has percent-decoded the segment.
//!
//! `urn:fss:<region>:<project>:function:<package>:<name>[:<version>|:!<alias>]`, and as a parameter also
//! `name`, `package:name`, `project:package:name`, `project:package:name:<version>|!<alias>`.

use std::fmt::{self, Display};

use axum::http::StatusCode;
use store::{FunctionKey, LATEST};

use crate::{error::ApiError, spec::bad};

/// The longest URN of the API.
const MAX_URN: usize = 269;
pub(crate) const DEFAULT_PACKAGE: &str = "default";
/// What an alias begins with where a version could stand.
const ALIAS: char = '!';

/// A function as somebody named it, before anybody looked whether it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Urn {
    /// The function, and the version that was named; `latest` if none was.
    pub(crate) key: FunctionKey,
    pub(crate) named: Named,
}

/// What a URN ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nothing: the function with all its versions, and its latest where one version is needed.
    Whole,
    /// A version, which may be `latest`.
    Version,
    /// An alias, without its `!`.
    Alias(String),
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
            [name] => (project, DEFAULT_PACKAGE, *name, None),
            [package, name] => (project, *package, *name, None),
            [project, package, name] => (*project, *package, *name, None),
            [project, package, name, version] => (*project, *package, *name, Some(*version)),
            ["urn", "fss", _, project, "function", package, name] => (*project, *package, *name, None),
            ["urn", "fss", _, project, "function", package, name, version] => {
                (*project, *package, *name, Some(*version))
            }
            _ => return Err(invalid()),
        };
        let alias = version.and_then(|version| version.strip_prefix(ALIAS));
        let last = alias.or(version).unwrap_or(LATEST);
        if [project, package, name, last].iter().any(|part| part.is_empty()) {
            return Err(invalid());
        }
        let (version, named) = match (version, alias) {
            (_, Some(alias)) => (LATEST, Named::Alias(alias.to_owned())),
            (Some(version), None) => (version, Named::Version),
            (None, None) => (LATEST, Named::Whole),
        };
        let key = FunctionKey {
            project: project.to_owned(),
            package: package.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
        };
        Ok(Self { key, named })
    }

    /// Refuses what names anything but the function or its latest version: only that one changes.
    ///
    /// # Errors
    /// 400 FSS.1015, FSS.1014 for an alias.
    pub(crate) fn must_be_latest(&self) -> Result<(), ApiError> {
        let instead = "name the function, or its version latest";
        match &self.named {
            Named::Alias(alias) => Err(bad("FSS.1014", format!("!{alias} is an alias: {instead}"))),
            Named::Version if !self.key.is_latest() => {
                let version = &self.key.version;
                Err(bad("FSS.1015", format!("version {version:?} is published and never changes: {instead}")))
            }
            Named::Version | Named::Whole => Ok(()),
        }
    }
}

/// The long form of a function's URN, with its version.
pub(crate) fn long(region: &str, key: &FunctionKey) -> String {
    Long { region, key, last: &key.version }.to_string()
}

/// The long form of an alias of a function.
pub(crate) fn of_alias(region: &str, key: &FunctionKey, alias: &str) -> String {
    Long { region, key, last: &format_args!("{ALIAS}{alias}") }.to_string()
}

struct Long<'a> {
    region: &'a str,
    key: &'a FunctionKey,
    last: &'a dyn Display,
}

impl Display for Long<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FunctionKey { project, package, name, .. } = self.key;
        write!(f, "urn:fss:{}:{project}:function:{package}:{name}:{}", self.region, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(project: &str, package: &str, name: &str, version: &str) -> FunctionKey {
        FunctionKey {
            project: project.into(),
            package: package.into(),
            name: name.into(),
            version: version.into(),
        }
    }

    #[test]
    fn every_form_names_the_same_function() {
        for (text, named) in [
            ("f", Named::Whole),
            ("default:f", Named::Whole),
            ("p:default:f", Named::Whole),
            ("p:default:f:latest", Named::Version),
            ("urn:fss:local:p:function:default:f", Named::Whole),
            ("urn:fss:elsewhere:p:function:default:f:latest", Named::Version),
            ("p:default:f:!prod", Named::Alias("prod".into())),
            ("urn:fss:local:p:function:default:f:!prod", Named::Alias("prod".into())),
        ] {
            let urn = Urn::parse(text, "p").unwrap();
            assert_eq!((urn.key, urn.named), (key("p", "default", "f", LATEST), named), "{text}");
        }
        let of_version = Urn::parse("p:default:f:v1", "p").unwrap();
        assert_eq!((of_version.key, of_version.named), (key("p", "default", "f", "v1"), Named::Version));
    }

    #[test]
    fn what_is_no_urn_is_refused() {
        let long = "x".repeat(270);
        for text in [
            "",
            ":",
            "a:",
            "a:b:c:d:e",
            "a:b:c:",
            "a:b:c:!",
            "urn:fss:r:p:func:k:f",
            "urn:obs:r:p:function:k:f",
            &long,
        ] {
            assert_eq!(Urn::parse(text, "p").unwrap_err().code, "FSS.1309", "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_long_form_reads_back(
            p in "[a-z0-9]{1,32}",
            k in "[a-z]{1,20}",
            n in "[a-z][a-z0-9_-]{0,58}",
            v in "[a-z0-9]([a-z0-9._-]{0,40}[a-z0-9])?",
        ) {
            let key = key(&p, &k, &n, &v);
            let urn = Urn::parse(&long("local", &key), "other").unwrap();
            prop_assert_eq!(urn, Urn { key: key.clone(), named: Named::Version });
            let urn = Urn::parse(&of_alias("local", &key, &v), "other").unwrap();
            prop_assert_eq!(urn, Urn { key: key.at(LATEST), named: Named::Alias(v) });
        }

        #[test]
        fn nothing_makes_it_panic(text in ".{0,300}") {
            let _outcome = Urn::parse(&text, "p");
        }
    }
}
