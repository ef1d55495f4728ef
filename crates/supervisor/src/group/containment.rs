//! What contains runtimes on this machine: probed once by doing it, not by asking for versions.

use std::{
    ffi::OsString,
    fmt, fs, io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use cancel::InstanceId;

use super::{
    ending::{self, NotProven},
    leaf::Leaf,
    process,
    spawner::{HelperProgram, SpawnOrder, spawn_child},
};

/// How runtimes are to be contained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// The strongest that works here.
    #[default]
    Auto,
    /// A cgroup leaf per instance, or not at all.
    Cgroup,
    /// Process groups only.
    ProcessGroup,
}

/// What contains an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A cgroup v2 leaf of its own, and a process group.
    Cgroup,
    /// A process group only.
    ProcessGroup,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cgroup => "cgroup",
            Self::ProcessGroup => "process group",
        })
    }
}

/// Why a group could not be made, signalled or watched.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// A cgroup was demanded and none can be used.
    #[error("no cgroup v2 hierarchy can be used: {0}")]
    NoCgroup(String),
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

/// What a sweep of earlier lives' leaves came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Leaves that were removed.
    pub leaves: u32,
    /// Processes that were found alive in them and ended.
    pub processes: u32,
}

/// What was probed.
#[derive(Debug)]
pub struct Containment {
    /// The node's own folder in the hierarchy.
    base: Option<PathBuf>,
    layers: Vec<Layer>,
}

impl Containment {
    /// Tries what works here, for the node of this name. Blocking: a few milliseconds, at start only.
    ///
    /// # Errors
    /// When `isolation` demands a cgroup and none can be used.
    pub fn probe(node: &str, isolation: Isolation, helper: &HelperProgram) -> Result<Self, GroupError> {
        let found = match isolation {
            Isolation::ProcessGroup => Err("not asked for".to_owned()),
            Isolation::Auto | Isolation::Cgroup => find_base(node, helper),
        };
        let group = Layer {
            id: "L0",
            name: "process group",
            active: true,
            detail: "the soft stop and the first strike; proves nothing of processes that leave the group"
                .to_owned(),
        };
        match found {
            Ok(base) => {
                let detail = format!(
                    "a leaf per instance in {}: whatever an instance starts is killed with it, and its end is \
                     proven (populated 0, leaf removed)",
                    base.display()
                );
                let leaf = Layer { id: "L2", name: "cgroup v2 leaf", active: true, detail };
                Ok(Self { base: Some(base), layers: vec![group, leaf] })
            }
            Err(why) if isolation == Isolation::Cgroup => Err(GroupError::NoCgroup(why)),
            Err(why) => {
                let detail =
                    format!("{why}; to get it run as root, or delegate a cgroup (systemd: Delegate=yes)");
                let leaf = Layer { id: "L2", name: "cgroup v2 leaf", active: false, detail };
                Ok(Self { base: None, layers: vec![group, leaf] })
            }
        }
    }

    /// What is used here, and what is not and why.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Where an instance's leaf is made, if there are leaves.
    pub(super) fn leaf_path(&self, instance: InstanceId) -> Option<PathBuf> {
        self.base.as_ref().map(|base| base.join(instance.to_string()))
    }

    /// Ends and removes every leaf an earlier life of this node left. Must run before anything is
    /// spawned, and while no other life can run (the store's lock).
    ///
    /// # Errors
    /// When something in them cannot be ended within `limit`, or the folder cannot be read.
    pub async fn sweep(&self, limit: Duration) -> Result<Swept, GroupError> {
        let mut swept = Swept::default();
        let Some(base) = &self.base else { return Ok(swept) };
        let look = |error| GroupError::Look { path: base.display().to_string(), error };
        for entry in fs::read_dir(base).map_err(look)? {
            let entry = entry.map_err(look)?;
            if !entry.file_type().map_err(look)?.is_dir() {
                continue;
            }
            let leaf = Leaf::open(entry.path()).map_err(look)?;
            swept.processes += ending::sweep(&leaf, limit).await.map_err(GroupError::Sweep)?;
            swept.leaves += 1;
        }
        Ok(swept)
    }
}

/// The folder of this node in the first hierarchy that works.
fn find_base(node: &str, helper: &HelperProgram) -> Result<PathBuf, String> {
    let mounts = cgroup2_mounts().map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    if mounts.is_empty() {
        return Err("no cgroup v2 hierarchy is mounted".to_owned());
    }
    let own = process::cgroup_of(std::process::id()).unwrap_or_default();
    let mut troubles = Vec::new();
    for mount in mounts {
        // First where the node already is (a delegated subtree), then the top, which root may write.
        let mut candidates = vec![mount.join(own.trim_start_matches('/'))];
        if candidates[0] != mount {
            candidates.push(mount);
        }
        for candidate in candidates {
            let base = candidate.join(format!("quell-{node}"));
            match try_base(&base, helper) {
                Ok(()) => return Ok(base),
                Err(error) => troubles.push(format!("{}: {error}", base.display())),
            }
        }
    }
    Err(troubles.join("; "))
}

/// The mount points of cgroup v2 hierarchies.
fn cgroup2_mounts() -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let cgroup2 = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        (kind.split(' ').next()? == "cgroup2")
            .then(|| PathBuf::from(mount.split(' ').nth(4).unwrap_or_default()))
    };
    Ok(text.lines().filter_map(cgroup2).collect())
}

/// Does once what every instance will need: a leaf, a process moved into it, its kill, its removal.
fn try_base(base: &Path, helper: &HelperProgram) -> io::Result<()> {
    match fs::create_dir(base) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let path = base.join(format!("probe-{}", std::process::id()));
    let leaf = Leaf::make(path)?;
    let tried = try_leaf(&leaf, helper);
    leaf.remove()?;
    tried
}

fn try_leaf(leaf: &Leaf, helper: &HelperProgram) -> io::Result<()> {
    let order = SpawnOrder {
        instance: InstanceId(0),
        program: OsString::from("true"),
        args: Vec::new(),
        env: Vec::new(),
        cwd: PathBuf::from("/"),
    };
    // Never let go: it waits in the helper until it is killed, and nothing is executed.
    let (mut child, pidfd) = spawn_child(helper, None, order)?;
    let killed = leaf.adopt(child.id()).and_then(|()| leaf.kill());
    if killed.is_err() {
        rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL)?;
    }
    let status = child.wait()?;
    killed?;
    if status.signal() != Some(9) {
        return Err(io::Error::other(format!("cgroup.kill did not kill: {status}")));
    }
    if leaf.populated()? {
        return Err(io::Error::other("populated stays 1 after everything was killed"));
    }
    Ok(())
}
