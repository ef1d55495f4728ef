//! What contains runtimes on this machine: probed once by doing it, not by asking for versions.

use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use cancel::InstanceId;

use super::{
    aside::step_back,
    controllers::{Controllers, LimitKind, Means, earlier_folders},
    helpers, hierarchy,
    init::HelperMode,
    proof::NotProven,
    spawner::HelperProgram,
};

/// How runtimes are to be contained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// The strongest that works here.
    #[default]
    Auto,
    /// A cgroup leaf per instance, and no namespace; or not at all.
    Cgroup,
    /// A child subreaper per instance, and neither cgroup nor namespace: needs no privilege.
    Subreaper,
    /// Process groups only.
    ProcessGroup,
}

/// What contains an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanism {
    pub(super) leaf: bool,
    pub(super) helper: HelperMode,
    /// A template forked it, and where to.
    pub(super) forked: Option<ForkedInto>,
}

/// Which PID namespace a forked instance is in, besides its leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForkedInto {
    /// One of its own, below that of its template: its main process is PID 1 of it.
    Own,
    /// That of its template, with all that this one has forked.
    OfTemplate,
    /// None, as its template.
    Nowhere,
}

impl ForkedInto {
    /// What its main process is to the others.
    pub(super) fn helper(self) -> HelperMode {
        match self {
            Self::Own => HelperMode::Namespace,
            Self::OfTemplate | Self::Nowhere => HelperMode::Reaper,
        }
    }
}

impl Mechanism {
    /// Whether it was forked from a template.
    pub fn is_forked(self) -> bool {
        self.forked.is_some()
    }

    /// Whether the instance has a cgroup leaf of its own.
    pub fn has_leaf(self) -> bool {
        self.leaf
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.forked {
            Some(ForkedInto::Own) => return f.write_str("cgroup + pid namespace, forked"),
            Some(ForkedInto::OfTemplate) => {
                return f.write_str("cgroup + subreaper, forked, in the pid namespace of its fork server");
            }
            Some(ForkedInto::Nowhere) => return f.write_str("cgroup + subreaper, forked"),
            None => {}
        }
        f.write_str(match (self.leaf, self.helper) {
            (false, HelperMode::Exec) => "process group",
            (true, HelperMode::Exec) => "cgroup",
            (false, HelperMode::Reaper) => "subreaper",
            (true, HelperMode::Reaper) => "cgroup + subreaper",
            (false, HelperMode::Namespace | HelperMode::UserNamespace) => "pid namespace",
            (true, HelperMode::Namespace | HelperMode::UserNamespace) => "cgroup + pid namespace",
        })
    }
}

/// Why a group could not be made, signalled or watched.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// A cgroup was demanded and none can be used.
    #[error("no cgroup v2 hierarchy can be used: {0}")]
    NoCgroup(String),
    /// The helper does not work here.
    #[error("the helper cannot be used: {0}")]
    NoHelper(String),
    /// The spawner's thread could not be made.
    #[error("cannot start the spawner thread: {0}")]
    Thread(io::Error),
    /// The runtime could not be let go.
    #[error("cannot let the runtime go: {0}")]
    Go(io::Error),
    /// The kernel refused a signal.
    #[error("signal refused: {0}")]
    Signal(io::Error),
    /// The kernel refused to say how a process ended.
    #[error("cannot wait for a process: {0}")]
    Wait(io::Error),
    /// What an earlier life left could not be ended.
    #[error("left from an earlier life and not proven dead: {0}")]
    Sweep(NotProven),
    /// Another node of this name is on this machine.
    #[error(
        "another node of this name runs on this machine and holds {0}: one of the two data folders is a copy of the other, and \
         would end what that one runs"
    )]
    Namesake(String),
    /// What an earlier life left could not be looked at.
    #[error("cannot look at what an earlier life left in {path}: {error}")]
    Look {
        /// Where.
        path: String,
        /// Why.
        error: io::Error,
    },
}

/// One layer of containment, and whether it is active.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name in the design: `L0`, `L2`.
    pub id: &'static str,
    /// What it is.
    pub name: &'static str,
    /// Whether it is used here.
    pub active: bool,
    /// What it guarantees if active; else why it is not, and what to do to get it.
    pub detail: String,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.active { "active" } else { "not active" };
        write!(f, "{} {} ({state}): {}", self.id, self.name, self.detail)
    }
}

/// What was probed.
#[derive(Debug)]
pub struct Containment {
    /// The node's own folder in the hierarchy, if it can be used.
    base: Option<PathBuf>,
    /// Everywhere an earlier life may have had it.
    folders: Vec<PathBuf>,
    /// The same for the groups that limit.
    limit_folders: Vec<PathBuf>,
    mode: HelperMode,
    controllers: Controllers,
    own_network: bool,
    layers: Vec<Layer>,
    /// The folders, held so that no other node of this name sweeps them.
    pub(super) held: OnceLock<Vec<File>>,
}

fn user_layer(helper: &HelperProgram) -> Layer {
    let detail = match helper.user {
        Some(user) => format!(
            "runtimes run as user and group {user}: they cannot read the node's files, signal it or its \
             helpers, or leave their cgroup; with no_new_privs"
        ),
        None => {
            "runtimes run as the node's own user, with no_new_privs; to get it run as root, and see that \
                 others reach the data folder and the interpreters (--runtime-user)"
                .to_owned()
        }
    };
    Layer { id: "L5", name: "another user", active: helper.user.is_some(), detail }
}

impl Containment {
    /// Tries what works here, for the node of this name. Blocking: some tens of milliseconds, at start
    /// only.
    ///
    /// # Errors
    /// When `isolation` demands what cannot be used.
    pub fn probe(node: &str, isolation: Isolation, helper: &HelperProgram) -> Result<Self, GroupError> {
        let folders = hierarchy::folders(node);
        let found = match (isolation, &folders) {
            (Isolation::ProcessGroup | Isolation::Subreaper, _) => Err("not asked for".to_owned()),
            (Isolation::Auto | Isolation::Cgroup, Ok(folders)) => hierarchy::first_usable(folders, helper),
            (Isolation::Auto | Isolation::Cgroup, Err(why)) => Err(why.clone()),
        };
        if let (Isolation::Cgroup, Err(why)) = (isolation, &found) {
            return Err(GroupError::NoCgroup(why.clone()));
        }
        let (mode, [reaper, namespace]) = helpers::probe(isolation, helper)?;
        let network = helpers::network(mode, helper);
        let controllers = match isolation {
            Isolation::Auto | Isolation::Cgroup => {
                Controllers::probe(node, found.as_ref().ok().map(PathBuf::as_path), mode)
            }
            Isolation::Subreaper | Isolation::ProcessGroup => Controllers::none(mode),
        };
        let group = Layer {
            id: "L0",
            name: "process group",
            active: true,
            detail: "the soft stop and the first strike; proves nothing of processes that leave the group"
                .to_owned(),
        };
        let leaf = match &found {
            Ok(base) => format!(
                "a leaf per instance in {}: whatever an instance starts is killed with it, and its end is \
                 proven (populated 0, leaf removed)",
                base.display()
            ),
            Err(why) => format!("{why}; to get it run as root, or delegate a cgroup (systemd: Delegate=yes)"),
        };
        let leaf = Layer { id: "L2", name: "cgroup v2 leaf", active: found.is_ok(), detail: leaf };
        let layers = vec![group, reaper, leaf, namespace, controllers.fork_stop(), user_layer(helper)];
        let own_network = network.active;
        let layers = layers.into_iter().chain([network]).collect();
        let (folders, limit_folders) = (folders.unwrap_or_default(), earlier_folders(node));
        let held = OnceLock::new();
        Ok(Self { base: found.ok(), folders, limit_folders, mode, controllers, own_network, layers, held })
    }

    /// What becomes of each instance's helper.
    pub(super) fn mode(&self) -> HelperMode {
        self.mode
    }

    /// Whether an instance can have a network of its own.
    pub fn has_own_network(&self) -> bool {
        self.own_network
    }

    /// Removes the node's own folder, which is empty once every instance was ended. To be called when
    /// nothing will be spawned any more; a node that dies without leaves it to its next life.
    ///
    /// # Errors
    /// When something is left in it.
    pub fn close(&self) -> io::Result<()> {
        for folder in self.controllers.folders() {
            // The last instances' groups may not have been removed yet; nothing is in them.
            for group in hierarchy::groups_in(folder)? {
                hierarchy::remove_group(&group)?;
            }
            hierarchy::remove_group(folder)?;
        }
        let Some(base) = &self.base else { return Ok(()) };
        hierarchy::remove_group(base)?;
        base.parent().map_or(Ok(()), step_back)
    }

    /// Why no instance can be forked from a template here; `None`: it can. The leaf is what proves the end of
    /// one, and limits must count it alone.
    pub fn cannot_fork(&self) -> Option<&'static str> {
        if self.base.is_none() {
            return Some("there is no cgroup leaf for each instance here (quell doctor)");
        }
        let namespaced = self.mode == HelperMode::UserNamespace;
        if namespaced && self.controllers.processes == Means::PerProcess {
            return Some(
                "processes are counted by user namespace here, in which all of one version would be",
            );
        }
        None
    }

    /// How memory and processes are limited here.
    pub(super) fn controllers(&self) -> &Controllers {
        &self.controllers
    }

    /// What is limited here and how, for people.
    pub fn limits(&self) -> Vec<LimitKind> {
        self.controllers.kinds()
    }

    /// What is used here, and what is not and why.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The node's own folder, in which each instance gets its leaf, if there are leaves.
    pub fn base(&self) -> Option<&Path> {
        self.base.as_deref()
    }

    /// Everywhere an earlier life of this node may have had its folder.
    pub(super) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The same for the groups that limit.
    pub(super) fn limit_folders(&self) -> &[PathBuf] {
        &self.limit_folders
    }

    /// Where an instance's leaf is made, if there are leaves.
    pub(super) fn leaf_path(&self, instance: InstanceId) -> Option<PathBuf> {
        self.base.as_ref().map(|base| base.join(instance.to_string()))
    }
}
