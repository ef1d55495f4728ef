//! The node out of the way of its own instances: cgroup v2 wants processes in the leaves alone.
//!
//! A service manager puts the node into the group it delegates. As long as the node is there, the kernel refuses to
//! give the groups below it a controller such as memory; and one such as pids it gives at a price: they become
//! threads' groups, into which no process can be put any more.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::hierarchy::remove_group;

/// Where the node itself goes, below the group it was put into.
const ASIDE: &str = "quell-itself";

/// The group that the node was put into, by the one it is in.
pub(super) fn put_into(own: &str) -> &str {
    match own.strip_suffix(ASIDE).and_then(|rest| rest.strip_suffix('/')) {
        Some("") => "/",
        Some(rest) => rest,
        None => own,
    }
}

/// Moves the node below `folder`, if it is in there, so that controllers can be handed down from it.
///
/// # Errors
/// When somebody else is in there too: whoever that is was not asked, and nothing has been moved then.
pub(super) fn step_aside(folder: &Path) -> io::Result<()> {
    // Only the top of a hierarchy has no type. There processes may be.
    if !folder.join("cgroup.type").try_exists()? {
        return Ok(());
    }
    let own = std::process::id().to_string();
    let members = fs::read_to_string(folder.join("cgroup.procs"))?;
    if let Some(other) = members.lines().find(|pid| *pid != own) {
        return Err(io::Error::other(format!("process {other} is in {} as well", folder.display())));
    }
    if members.is_empty() {
        return Ok(());
    }
    let aside = folder.join(ASIDE);
    match fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::write(aside.join("cgroup.procs"), own),
    }
}

/// Undoes that, once nothing else is below `folder`: whoever made it finds it as it was.
pub(super) fn step_back(folder: &Path) -> io::Result<()> {
    let aside = folder.join(ASIDE);
    let own = std::process::id().to_string();
    match fs::read_to_string(aside.join("cgroup.procs")) {
        Ok(members) if members.lines().any(|pid| pid == own) => {}
        // It is not there, or its pids are of a namespace that we do not see.
        _ => return Ok(()),
    }
    let control: PathBuf = folder.join("cgroup.subtree_control");
    for name in fs::read_to_string(&control)?.split_whitespace() {
        fs::write(&control, format!("-{name}"))?;
    }
    fs::write(folder.join("cgroup.procs"), own)?;
    remove_group(&aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_that_a_node_was_put_into_is_the_one_above_where_it_went() {
        assert_eq!(put_into("/system.slice/quell.service/quell-itself"), "/system.slice/quell.service");
        assert_eq!(put_into("/system.slice/quell.service"), "/system.slice/quell.service");
        assert_eq!(put_into("/quell-itself"), "/");
        assert_eq!(put_into("/"), "/");
        assert_eq!(put_into("/not-quell-itself"), "/not-quell-itself");
    }

    #[test]
    fn whoever_else_is_in_a_group_is_left_alone_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        step_aside(folder.path()).unwrap(); // it has no type: the top of a hierarchy
        fs::write(file("cgroup.type"), "domain\n").unwrap();
        let own = std::process::id();
        fs::write(file("cgroup.procs"), format!("1\n{own}\n")).unwrap();
        let error = step_aside(folder.path()).unwrap_err().to_string();
        assert!(error.contains("process 1 is in"), "{error}");
        assert!(!file(ASIDE).exists());
        fs::write(file("cgroup.procs"), "").unwrap();
        step_aside(folder.path()).unwrap();
        assert!(!file(ASIDE).exists(), "there is nobody to move");
        fs::write(file("cgroup.procs"), format!("{own}\n")).unwrap();
        step_aside(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(file(ASIDE).join("cgroup.procs")).unwrap(), own.to_string());
    }
}
