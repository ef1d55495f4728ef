//! Contexts: nodes by names of one's own, so that nobody pastes endpoints and tokens.
//!
//! One file, `contexts.toml` in `$XDG_CONFIG_HOME/quell` or `~/.config/quell` (or `QUELL_CONTEXTS`), which may hold
//! tokens: it is made readable by its owner only, and refused if it is not.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{config::ClientConfig, output::Usage};

/// A token is some 70 bytes; a file that is longer than this holds something else.
const MAX_TOKEN_FILE: u64 = 4_096;

/// One node, one project, one credential.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// The data folder of a node on this machine: its client.json says the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<PathBuf>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that is meant where nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Named>,
}

/// Where they are kept; `None` where nobody has a home.
pub(crate) fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = || set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    set("QUELL_CONTEXTS").or_else(|| Some(config()?.join("quell/contexts.toml")))
}

impl Contexts {
    /// Reads the file; none if there is none.
    pub(crate) fn read() -> anyhow::Result<Self> {
        match path() {
            Some(path) => Self::read_from(&path),
            None => Ok(Self::default()),
        }
    }

    fn read_from(path: &Path) -> anyhow::Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Usage(format!("{} cannot be read: {error}", path.display())).into()),
        };
        must_be_private(path)?;
        let contexts = toml::from_str(&text);
        Ok(contexts.map_err(|error| Usage(format!("{} is not understood: {error}", path.display())))?)
    }

    /// Writes the file whole or not at all.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let path = path().context("contexts have no place: neither HOME nor XDG_CONFIG_HOME is set")?;
        self.write_to(&path)
    }

    fn write_to(&self, path: &Path) -> anyhow::Result<()> {
        let failed = || format!("{} cannot be written", path.display());
        let folder = path.parent().with_context(failed)?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(failed)?;
        let new = path.with_extension("toml.new");
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&new).with_context(failed)?;
        file.write_all(toml::to_string(self)?.as_bytes()).with_context(failed)?;
        file.sync_all().with_context(failed)?;
        fs::rename(&new, path).with_context(failed)
    }

    /// One by its name.
    ///
    /// # Errors
    /// [`Usage`] that says which there are.
    pub(crate) fn named(&self, name: &str) -> anyhow::Result<&Named> {
        let unknown = || {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known = if known.is_empty() {
                "there is none yet".to_owned()
            } else {
                format!("there are: {}", known.join(", "))
            };
            Usage(format!("there is no context {name:?}; {known}; `quell context add` makes one"))
        };
        Ok(self.contexts.get(name).ok_or_else(unknown)?)
    }
}

impl Named {
    /// What it says of a node.
    pub(crate) fn config(&self, name: &str) -> anyhow::Result<ClientConfig> {
        if let Some(data) = &self.data {
            let kept = ClientConfig::read(data)?;
            let none = || {
                Usage(format!(
                    "context {name:?} is of the node in {}, and there is no client.json",
                    data.display()
                ))
            };
            return Ok(kept.ok_or_else(none)?);
        }
        let no_endpoint = || Usage(format!("context {name:?} says no endpoint"));
        let endpoint = self.endpoint.clone().ok_or_else(no_endpoint)?;
        let token = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => read_token(file)?,
            (None, None) => {
                return Err(Usage(format!("context {name:?} says no token; add it again")).into());
            }
        };
        Ok(ClientConfig {
            endpoint,
            token,
            project: self.project.clone().unwrap_or_else(|| "default".to_owned()),
            access_key: String::new(),
            secret_key: String::new(),
            ca: self.ca.clone(),
            is_project_named: self.project.is_some(),
        })
    }
}

/// The first line of a file that nobody else may read.
pub(crate) fn read_token(file: &Path) -> Result<String, Usage> {
    let wrong = |why: String| Usage(format!("{} {why}", file.display()));
    let unread = |error| Usage(format!("the token cannot be read from {}: {error}", file.display()));
    let size = fs::metadata(file).map_err(unread)?.len();
    if size > MAX_TOKEN_FILE {
        return Err(wrong("is too long to hold a token".to_owned()));
    }
    must_be_private(file)?;
    let text = fs::read_to_string(file).map_err(unread)?;
    let token = text.lines().next().unwrap_or_default().trim();
    if token.is_empty() {
        return Err(wrong("holds no token".to_owned()));
    }
    Ok(token.to_owned())
}

fn must_be_private(path: &Path) -> Result<(), Usage> {
    let unseen = |error| Usage(format!("{} cannot be looked at: {error}", path.display()));
    let mode = fs::metadata(path).map_err(unseen)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let why = "may hold a token, and others may read it (its mode is";
    Err(Usage(format!("{0} {why} {mode:o}): chmod 600 {0}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Contexts {
        let named = Named { endpoint: Some("http://n".into()), token: Some("t".into()), ..Named::default() };
        Contexts { current: Some("n".into()), contexts: BTreeMap::from([("n".to_owned(), named)]) }
    }

    #[test]
    fn contexts_come_back_from_a_file_of_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/contexts.toml");
        assert_eq!(Contexts::read_from(&path).unwrap(), Contexts::default());
        some().write_to(&path).unwrap();
        assert_eq!(Contexts::read_from(&path).unwrap(), some());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Contexts::read_from(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && error.contains("640"), "{error}");
    }

    #[test]
    fn an_unknown_name_is_told_with_those_there_are_and_a_misspelt_key_with_its_line() {
        let error = some().named("m").unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("there are: n"), "{error}");
        assert!(Contexts::default().named("m").unwrap_err().to_string().contains("none yet"));
        let error = toml::from_str::<Contexts>("[contexts.n]\nendpiont = \"http://n\"\n").unwrap_err();
        assert!(error.to_string().contains("endpiont") && error.to_string().contains("line 2"), "{error}");
    }
}
