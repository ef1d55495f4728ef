//! Which means this machine has to limit memory and processes, found by trying each once.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::{
    aside::step_aside,
    containment::Layer,
    hierarchy::{probe_in, try_in},
    init::HelperMode,
    process,
};

/// How one kind of thing is limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// By a controller of cgroup v2, in each instance's leaf.
    Leaf,
    /// By a controller of cgroup v1: a group for each instance in this folder.
    Own(PathBuf),
    /// By the kernel's limits of each process.
    PerProcess,
    /// Not at all, and why.
    None(String),
}

/// How memory and processes are limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Controllers {
    pub(super) memory: Means,
    pub(super) processes: Means,
}

/// What is limited on this machine and how, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitKind {
    /// What is limited.
    pub name: &'static str,
    /// Whether an instance as a whole is held to its limit.
    pub active: bool,
    /// How; or why not, and what to do to get it.
    pub detail: String,
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.active { "active" } else { "not active" };
        write!(f, "limit of {} ({state}): {}", self.name, self.detail)
    }
}

const MEMORY: Controller = Controller { name: "memory", v1_max: "memory.limit_in_bytes", probed: "67108864" };
const PIDS: Controller = Controller { name: "pids", v1_max: "pids.max", probed: "64" };
const TO_GET_IT: &str = "to get it run the node in a cgroup of its own with the controllers memory and pids (systemd: \
                         Delegate=yes)";

struct Controller {
    name: &'static str,
    v1_max: &'static str,
    /// Set in a probe's group; any figure will do that can be set.
    probed: &'static str,
}

impl Controllers {
    /// `base`: the node's folder in cgroup v2, if it has one.
    pub(super) fn probe(node: &str, base: Option<&Path>, mode: HelperMode) -> Self {
        let memory = match find(&MEMORY, node, base) {
            Err(_) => Means::PerProcess,
            Ok(means) => means,
        };
        let processes = match find(&PIDS, node, base) {
            // The kernel's own limit counts a user's processes, and only in a user namespace are those
            // the instance's and nobody else's.
            Err(_) if mode == HelperMode::UserNamespace => Means::PerProcess,
            Err(why) => Means::None(why),
            Ok(means) => means,
        };
        Self { memory, processes }
    }

    /// Without control groups.
    pub(super) fn none(mode: HelperMode) -> Self {
        let processes = match mode {
            HelperMode::UserNamespace => Means::PerProcess,
            _ => Means::None("control groups are not asked for".to_owned()),
        };
        Self { memory: Means::PerProcess, processes }
    }

    /// The layer that comes with a limit of processes.
    pub(super) fn fork_stop(&self) -> Layer {
        let active = matches!(self.processes, Means::Leaf | Means::Own(_));
        let detail = match &self.processes {
            Means::Leaf | Means::Own(_) => {
                "pids.max is set to 0 with the first strike: nothing is forked after it".to_owned()
            }
            Means::PerProcess => format!("no pids controller can be used; {TO_GET_IT}"),
            Means::None(why) => format!("{why}; {TO_GET_IT}"),
        };
        Layer { id: "L4", name: "fork stop", active, detail }
    }

    /// Folders of the node in hierarchies of cgroup v1.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        [&self.memory, &self.processes].into_iter().filter_map(|means| match means {
            Means::Own(folder) => Some(folder.as_path()),
            _ => None,
        })
    }

    pub(super) fn kinds(&self) -> Vec<LimitKind> {
        let memory = match &self.memory {
            Means::Leaf => {
                "memory_size of the function, by the memory controller of its leaf; out of memory is told \
                            as 4205"
                    .to_owned()
            }
            Means::Own(folder) => format!(
                "memory_size of the function, by a cgroup v1 group in {}; out of memory is told as 4205",
                folder.display()
            ),
            Means::PerProcess | Means::None(_) => format!(
                "only what each process may map by itself, twice memory_size (RLIMIT_DATA), and the kernel does not \
                 tell who met that; {TO_GET_IT}"
            ),
        };
        let processes = match &self.processes {
            Means::Leaf => "by the pids controller of its leaf".to_owned(),
            Means::Own(folder) => format!("by a cgroup v1 group in {}", folder.display()),
            Means::PerProcess => "by RLIMIT_NPROC in its user namespace".to_owned(),
            Means::None(why) => format!("{why}; {TO_GET_IT}"),
        };
        let whole = |means: &Means| matches!(means, Means::Leaf | Means::Own(_));
        let no_pids = matches!(self.processes, Means::None(_));
        vec![
            LimitKind { name: "memory", active: whole(&self.memory), detail: memory },
            LimitKind { name: "processes", active: !no_pids, detail: processes },
        ]
    }
}

fn find(controller: &Controller, node: &str, base: Option<&Path>) -> Result<Means, String> {
    let in_leaf =
        base.ok_or_else(|| "no cgroup v2 leaf".to_owned()).and_then(|base| enable(controller, base));
    match in_leaf {
        Ok(()) => Ok(Means::Leaf),
        Err(no_leaf) => match v1_folder(controller, node) {
            Ok(folder) => Ok(Means::Own(folder)),
            Err(no_own) => Err(format!("cgroup v2: {no_leaf}; cgroup v1: {no_own}")),
        },
    }
}

/// Has a controller work in the leaves of the node's folder.
fn enable(controller: &Controller, base: &Path) -> Result<(), String> {
    let told = |error: io::Error| format!("{} cannot be enabled: {error}", controller.name);
    let has = |file: &str, folder: &Path| -> io::Result<bool> {
        let text = fs::read_to_string(folder.join(file))?;
        Ok(text.split_whitespace().any(|name| name == controller.name))
    };
    let add = |folder: &Path| -> io::Result<()> {
        match has("cgroup.subtree_control", folder)? {
            true => Ok(()),
            false => fs::write(folder.join("cgroup.subtree_control"), format!("+{}", controller.name)),
        }
    };
    if !has("cgroup.controllers", base).map_err(told)? {
        let above = base.parent().filter(|above| has("cgroup.controllers", above).unwrap_or(false));
        let above = above.ok_or_else(|| format!("the controller {} is not there", controller.name))?;
        step_aside(above).and_then(|()| add(above)).map_err(told)?;
    }
    add(base).map_err(told)
}

/// A folder of the node in the hierarchy that has the controller, tried.
fn v1_folder(controller: &Controller, node: &str) -> Result<PathBuf, String> {
    let mut troubles = Vec::new();
    for folder in v1_candidates(controller, node)? {
        match try_v1(&folder, controller) {
            Ok(()) => return Ok(folder),
            Err(error) => troubles.push(format!("{}: {error}", folder.display())),
        }
    }
    Err(troubles.join("; "))
}

/// Where in the hierarchy that has the controller the node may have its folder: first where the node
/// already is, whose limits then hold for its instances as well.
fn v1_candidates(controller: &Controller, node: &str) -> Result<Vec<PathBuf>, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let mount = mounts.lines().find_map(|line| v1_mount(line, controller.name));
    let mount = mount.ok_or_else(|| format!("no hierarchy with the controller {}", controller.name))?;
    let own = process::v1_cgroup_of(std::process::id(), controller.name).unwrap_or_default();
    let mut folders = [mount.join(own.trim_start_matches('/')), mount]
        .map(|place| place.join(format!("quell-{node}")))
        .to_vec();
    folders.dedup();
    Ok(folders)
}

/// Everywhere an earlier life of the node may have limited something in cgroup v1.
pub(super) fn earlier_folders(node: &str) -> Vec<PathBuf> {
    [MEMORY, PIDS].iter().flat_map(|controller| v1_candidates(controller, node).unwrap_or_default()).collect()
}

fn v1_mount(line: &str, controller: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let is_v1 = kind.next()? == "cgroup";
    let has = kind.next_back()?.split(',').any(|option| option == controller);
    (is_v1 && has).then(|| mount.split(' ').nth(4).map(PathBuf::from))?
}

/// Does once what every instance will need: a group, a limit, its removal.
fn try_v1(folder: &Path, controller: &Controller) -> io::Result<()> {
    try_in(folder, || {
        let probe = probe_in(folder);
        fs::create_dir(&probe)?;
        let set = fs::write(probe.join(controller.v1_max), controller.probed);
        fs::remove_dir(&probe).and(set)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v1_hierarchy_is_known_by_its_controller() {
        let both = "30 25 0:26 / /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids";
        assert_eq!(v1_mount(both, "pids"), Some(PathBuf::from("/sys/fs/cgroup/pids")));
        assert_eq!(v1_mount(both, "memory"), None);
        let v2 = "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,memory";
        assert_eq!(v1_mount(v2, "memory"), None);
    }
}
