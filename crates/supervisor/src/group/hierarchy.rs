//! Where in the cgroup v2 hierarchies of this machine a node may have a folder of its own.

use std::{
    fs, io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
};

use rustix::process::{Signal, pidfd_send_signal};

use super::{
    aside,
    init::HelperMode,
    leaf::Leaf,
    process,
    spawner::{HelperProgram, SpawnOrder},
    start::{Helper, Joins, start_helper},
};

/// The folders that the node of this name may have, best first.
pub(super) fn folders(node: &str) -> Result<Vec<PathBuf>, String> {
    let mounts = cgroup2_mounts().map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    if mounts.is_empty() {
        return Err("no cgroup v2 hierarchy is mounted".to_owned());
    }
    let own = process::cgroup_of(std::process::id()).unwrap_or_default();
    let mut folders = Vec::new();
    for mount in mounts {
        // First where the node already is (a delegated subtree), then the top, which root may write.
        for place in [mount.join(aside::put_into(&own).trim_start_matches('/')), mount] {
            let folder = place.join(format!("quell-{node}"));
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    Ok(folders)
}

/// The groups right below a folder; none if it is not there.
pub(super) fn groups_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut groups = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            groups.push(entry.path());
        }
    }
    Ok(groups)
}

/// Removes a group in which nothing is; that it is gone already is as good.
pub(super) fn remove_group(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The mount points of cgroup v2 hierarchies.
fn cgroup2_mounts() -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let cgroup2 = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        (kind.split(' ').next()? == "cgroup2").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    };
    Ok(text.lines().filter_map(cgroup2).collect())
}

/// The first folder in which everything that an instance will need works; else every reason why not.
pub(super) fn first_usable(folders: &[PathBuf], helper: &HelperProgram) -> Result<PathBuf, String> {
    let mut troubles = Vec::new();
    for folder in folders {
        match try_in(folder, || try_leaf_in(folder, helper)) {
            Ok(()) => return Ok(folder.clone()),
            Err(error) => troubles.push(format!("{}: {error}", folder.display())),
        }
    }
    Err(troubles.join("; "))
}

/// Tries something in a folder of the node, made if it is not there; one that is of no use is removed again.
pub(super) fn try_in(folder: &Path, attempt: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let made = match fs::create_dir(folder) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let tried = attempt();
    if tried.is_err()
        && made
        && let Err(error) = fs::remove_dir(folder)
    {
        tracing::warn!(%error, folder = %folder.display(), "a folder that is of no use is left behind");
    }
    tried
}

/// Where in a folder something is tried. Not named by the pid: in a container every life has the same, and
/// one that was killed while it probed left its own for the sweep.
pub(super) fn probe_in(folder: &Path) -> PathBuf {
    folder.join(format!("probe-{}", uuid::Uuid::new_v4().simple()))
}

/// Does once what every instance will need: a leaf, a process moved into it, its kill, its removal.
fn try_leaf_in(folder: &Path, helper: &HelperProgram) -> io::Result<()> {
    let leaf = Leaf::make(probe_in(folder))?;
    let tried = try_leaf(&leaf, helper);
    let removed = leaf.remove();
    tried.and(removed)
}

fn try_leaf(leaf: &Leaf, helper: &HelperProgram) -> io::Result<()> {
    // Never let go: it waits in the helper until it is killed, and nothing is executed.
    let Helper { mut child, pidfd, line, .. } =
        start_helper(helper, Joins::default(), HelperMode::Exec, SpawnOrder::probe())?;
    let killed = leaf.adopt(child.id()).and_then(|()| leaf.kill());
    if killed.is_err() {
        pidfd_send_signal(&pidfd, Signal::KILL)?;
    }
    // So that it ends by itself should the kill have missed it.
    drop(line);
    let status = child.wait()?;
    killed?;
    if status.signal() != Some(Signal::KILL.as_raw()) {
        return Err(io::Error::other(format!("cgroup.kill did not kill: {status}")));
    }
    if leaf.populated()? {
        return Err(io::Error::other("populated stays 1 after everything was killed"));
    }
    Ok(())
}
