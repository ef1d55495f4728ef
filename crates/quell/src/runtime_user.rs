//! As whom runtimes run: as somebody who can do nothing to the node, where that somebody can run them.

use std::{fmt, os::unix::fs::PermissionsExt as _, path::Path, str::FromStr, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use supervisor::{RuntimeImage, group::HelperProgram};

/// In the range that systemd's list of user numbers calls unused (60578 to 61183): nobody's, so that a
/// runtime cannot touch what another daemon of this machine runs or owns.
const SOMEBODY: u32 = 61_000;
/// In a command of an image: inside the package, so there is nothing to try yet.
const OF_THE_CODE: &str = "{code}";

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuntimeUser {
    /// As somebody else where the node is root and that works, else as the node.
    Auto,
    /// As the node.
    Node,
    /// As this one, or the node does not start.
    Number(u32),
}

impl FromStr for RuntimeUser {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            ("node", _) => Ok(Self::Node),
            (_, Ok(0)) => Err("root is no other user; `node` if that is meant".to_owned()),
            (_, Ok(number)) => Ok(Self::Number(number)),
            (_, Err(_)) => Err("neither `auto`, `node` nor the number of a user".to_owned()),
        }
    }
}

/// As whom runtimes run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// `None`: as the node.
    pub(crate) user: Option<u32>,
    why: String,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            Some(user) => write!(f, "runtimes run as user {user}: {}", self.why),
            None => write!(f, "runtimes run as the node's own user: {}", self.why),
        }
    }
}

/// Chooses, and tries it. `data`: the folder below which code will lie, if that is known.
///
/// # Errors
/// When a user was named and cannot be used.
pub(crate) fn choose(
    asked: RuntimeUser,
    data: Option<&Path>,
    images: &[Arc<RuntimeImage>],
    helper: impl Fn(Option<u32>) -> HelperProgram,
) -> anyhow::Result<Chosen> {
    let try_as = |user: u32| -> anyhow::Result<()> {
        ensure!(nix::unistd::geteuid().is_root(), "only root can run others' processes");
        if let Some(data) = data {
            passable(data)?;
        }
        for image in images {
            let first = image.interpreter.as_ref().or(image.command.first());
            let Some(program) = first.filter(|first| !first.contains(OF_THE_CODE)) else {
                continue;
            };
            let Err(why) = helper(Some(user)).try_program(program) else { continue };
            // What the node cannot run either is missing or broken: that is for the functions of this image
            // to hear, and says nothing of the user.
            if helper(None).try_program(program).is_ok() {
                return Err(why).with_context(|| format!("{program} of the image {}", image.name));
            }
            tracing::warn!(image = image.name, %why, "{program} cannot be run: functions of this image cannot start");
        }
        Ok(())
    };
    match asked {
        RuntimeUser::Node => Ok(Chosen { user: None, why: "as was asked for".to_owned() }),
        RuntimeUser::Number(user) => match try_as(user) {
            Ok(()) => Ok(Chosen { user: Some(user), why: "as was asked for".to_owned() }),
            Err(why) => bail!("--runtime-user {user}: {why:#}"),
        },
        RuntimeUser::Auto => Ok(match try_as(SOMEBODY) {
            Ok(()) => {
                Chosen { user: Some(SOMEBODY), why: "nobody's, which can do nothing to the node".to_owned() }
            }
            Err(why) => Chosen { user: None, why: format!("not as {SOMEBODY}, since {why:#}") },
        }),
    }
}

/// Whether others reach what lies below a folder.
fn passable(data: &Path) -> anyhow::Result<()> {
    for folder in data.ancestors() {
        let mode = folder.metadata().with_context(|| folder.display().to_string())?.permissions().mode();
        ensure!(
            mode & 0o001 != 0,
            "{} cannot be passed through by others (chmod o+x), and code lies below it",
            folder.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_auto_or_the_node_or_a_number_other_than_root() {
        assert_eq!("auto".parse(), Ok(RuntimeUser::Auto));
        assert_eq!("node".parse(), Ok(RuntimeUser::Node));
        assert_eq!("65534".parse(), Ok(RuntimeUser::Number(65_534)));
        for wrong in ["0", "-1", "root", "", "4294967296"] {
            assert!(wrong.parse::<RuntimeUser>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn where_code_cannot_be_reached_auto_is_the_node_and_a_number_is_refused() {
        let private = std::fs::Permissions::from_mode(0o700);
        let data = tempfile::Builder::new().permissions(private).tempdir().unwrap();
        let helper = |user| HelperProgram { program: "/no/such/helper".into(), args: Vec::new(), user };
        let auto = choose(RuntimeUser::Auto, Some(data.path()), &[], helper).unwrap();
        assert_eq!(auto.user, None);
        assert!(choose(RuntimeUser::Number(7), Some(data.path()), &[], helper).is_err());
        assert_eq!(choose(RuntimeUser::Node, Some(data.path()), &[], helper).unwrap().user, None);
    }
}
