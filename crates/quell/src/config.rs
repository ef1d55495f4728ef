//! `client.json`: how commands on the same machine find a node without anything being typed.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::{args::NodeArgs, contexts::Contexts, output::Usage};

/// How to reach a node. Holds a credential: the file is readable by its owner only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientConfig {
    pub(crate) endpoint: String,
    pub(crate) token: String,
    pub(crate) project: String,
    /// For clients that sign, such as the service's own SDKs. Empty in what an earlier version wrote.
    #[serde(default)]
    pub(crate) access_key: String,
    #[serde(default)]
    pub(crate) secret_key: String,
    /// Certificates, one of which the node must show or have been signed by. `None`: as this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// Whether somebody said which project is meant: then the node must refuse if the credential opens another.
    #[serde(skip)]
    pub(crate) is_project_named: bool,
}

const FILE: &str = "client.json";
/// Where `quell serve` keeps its data if nothing is said.
const DATA: &str = "quell-data";

impl ClientConfig {
    /// Reads the file of a data folder; `None` if there is none.
    pub(crate) fn read(data: &Path) -> anyhow::Result<Option<Self>> {
        let path = data.join(FILE);
        match fs::read(&path) {
            Ok(text) => {
                let config = serde_json::from_slice(&text).map_err(|error| {
                    Usage(format!(
                        "{} is damaged ({error}): move it away, and the next start of the node writes another with a new \
                         credential; or say --endpoint and --token",
                        path.display()
                    ))
                });
                Ok(Some(config?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let hint = "give --data with the folder of a node, or --endpoint and --token";
                Err(Usage(format!("{} cannot be read ({error}): {hint}", path.display())).into())
            }
        }
    }

    /// Writes the file whole or not at all.
    pub(crate) fn write(&self, data: &Path) -> anyhow::Result<()> {
        let path = data.join(FILE);
        let new = data.join(".client.json.new");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&new).with_context(|| format!("{} cannot be written", new.display()))?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        file.sync_all().with_context(|| format!("{} cannot be written", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// What the command line says; where it says nothing the context, or the file of a node on this machine.
    pub(crate) fn of(args: &NodeArgs) -> anyhow::Result<Self> {
        let (kept, of_context) = Self::kept(args)?;
        let missing = |what: &str| {
            Usage(format!(
                "no {what}: give --{what} (or QUELL_{}), or --context with a name of `quell context list`, or --data with \
                 the folder of a node that `quell serve` runs on this machine (there is no {})",
                what.to_uppercase(),
                args.data_folder().join(FILE).display()
            ))
        };
        let endpoint = args.endpoint.clone().or_else(|| kept.as_ref().map(|kept| kept.endpoint.clone()));
        let endpoint = endpoint.ok_or_else(|| missing("endpoint"))?;
        check(&endpoint)?;
        // The credential of a context is for its own node: no other one learns it.
        let mine = |kept: &&Self| !of_context || kept.endpoint == endpoint;
        let token = args.token.clone().or_else(|| kept.as_ref().filter(mine).map(|kept| kept.token.clone()));
        // A token of one's own may open another project than the file's: that one was not named for it.
        let is_project_named = args.project.is_some()
            || args.token.is_none() && kept.as_ref().is_some_and(|kept| kept.is_project_named);
        let project = args.project.clone().or_else(|| kept.as_ref().map(|kept| kept.project.clone()));
        // The file's is that of its own node: for any other, nobody else would be trusted.
        let kept_ca = kept.as_ref().filter(|kept| kept.endpoint == endpoint).and_then(|kept| kept.ca.clone());
        Ok(Self {
            endpoint,
            token: token.ok_or_else(|| missing("token"))?,
            project: project.unwrap_or_else(|| "default".to_owned()),
            access_key: kept.as_ref().map(|kept| kept.access_key.clone()).unwrap_or_default(),
            secret_key: kept.map(|kept| kept.secret_key).unwrap_or_default(),
            ca: args.ca.clone().or(kept_ca),
            is_project_named,
        })
    }

    /// The context that is named, else the data folder that is named, else the current context, else the data
    /// folder of the default; and whether it is a context.
    fn kept(args: &NodeArgs) -> anyhow::Result<(Option<Self>, bool)> {
        if let Some(name) = &args.context {
            return Ok((Some(Contexts::read()?.named(name)?.config(name)?), true));
        }
        // Whoever says all that there is to say needs no file, and stumbles over none.
        let said = args.endpoint.is_some() && args.token.is_some();
        if args.data.is_none() && !said {
            let contexts = Contexts::read()?;
            if let Some(name) = &contexts.current {
                return Ok((Some(contexts.named(name)?.config(name)?), true));
            }
        }
        Ok((Self::read(&args.data_folder())?, false))
    }
}

/// Whether this can be the address of a node: what cannot is told before anything is asked of anybody.
fn check(endpoint: &str) -> Result<(), Usage> {
    let like = "it is like http://127.0.0.1:7171 (--endpoint or QUELL_ENDPOINT, or the context's)";
    if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
        return Err(Usage(format!("endpoint {endpoint:?} begins with neither http:// nor https://: {like}")));
    }
    let parsed = reqwest::Url::parse(endpoint);
    parsed.map(drop).map_err(|error| Usage(format!("endpoint {endpoint:?} is no address ({error}): {like}")))
}

impl NodeArgs {
    /// The data folder of a node on this machine, if it is one.
    pub(crate) fn data_folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| PathBuf::from(DATA))
    }
}
