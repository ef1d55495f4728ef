//! One cgroup v2 leaf: made for one instance, killed as a whole, removed as the proof.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use super::hierarchy::remove_group;

/// More than any `cgroup.events` holds.
const EVENTS_BYTES: usize = 256;
/// One read of `cgroup.procs`; the kernel gives about a page at once.
const PROCS_BYTES: usize = 4096;

/// A leaf, with everything the kill path needs already open: it works with a full table of
/// descriptors.
#[derive(Debug)]
pub(super) struct Leaf {
    path: PathBuf,
    id: u64,
    kill: File,
    events: File,
    procs: File,
}

impl Leaf {
    /// Makes a leaf that must not exist yet.
    pub(super) fn make(path: PathBuf) -> io::Result<Self> {
        fs::create_dir(&path)?;
        Self::open(path.clone()).inspect_err(|_| {
            if let Err(error) = fs::remove_dir(&path) {
                tracing::warn!(%error, leaf = %path.display(), "an unusable leaf is left behind");
            }
        })
    }

    /// Opens one that exists.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let kill = File::options().write(true).open(path.join("cgroup.kill"))?;
        let events = File::open(path.join("cgroup.events"))?;
        let procs = File::open(path.join("cgroup.procs"))?;
        // The inode of a cgroup's folder is its id.
        let id = fs::metadata(&path)?.ino();
        Ok(Self { path, id, kill, events, procs })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// SIGKILL to everything in it and below, atomically against fork.
    pub(super) fn kill(&self) -> io::Result<()> {
        match self.kill.write_at(b"1", 0) {
            Err(error) if is_removed(&error) => Ok(()),
            written => written.map(drop),
        }
    }

    /// Moves a process in.
    pub(super) fn adopt(&self, pid: u32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// Whether anything alive is in it or below; zombies do not count.
    pub(super) fn populated(&self) -> io::Result<bool> {
        let mut buffer = [0; EVENTS_BYTES];
        match self.events.read_at(&mut buffer, 0) {
            Ok(read) => populated(&buffer[..read]),
            // Somebody removed it, which the kernel allows only when nothing lives in it.
            Err(error) if is_removed(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The processes in it, not below it, at most `limit`. Needs no further descriptor.
    pub(super) fn own_processes(&self, limit: usize) -> io::Result<Vec<u32>> {
        read_pids(&self.procs, limit)
    }

    /// The processes in it and below, at most `limit`. Only groups in which something lives are
    /// entered, so that the empty ones a runtime may have made by the thousand cost nothing.
    pub(super) fn processes(&self, limit: usize) -> io::Result<Vec<u32>> {
        let mut found = self.own_processes(limit)?;
        let mut unseen = populated_below(&self.path)?;
        while let Some(group) = unseen.pop().filter(|_| found.len() < limit) {
            // A group that is gone has no processes.
            let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            found.extend(pids(&text).take(limit - found.len()));
            unseen.extend(populated_below(&group)?);
        }
        Ok(found)
    }

    /// Whether `cgroup`, a path from `/proc/PID/cgroup`, is this leaf or below it.
    pub(super) fn holds(&self, cgroup: &str) -> bool {
        holds(&self.path, cgroup)
    }

    /// Removes it, groups below it first. Succeeds only if nothing is in it: that is the proof.
    pub(super) fn remove(&self) -> io::Result<()> {
        // Nearly always there is nothing below, and this needs no descriptor.
        match remove_group(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            removed => return removed,
        }
        // Down to a group with none below, remove it, up again: without a list that a runtime could
        // make long, and with one descriptor, however deep.
        let mut at = self.path.clone();
        loop {
            match first_below(&at)? {
                Some(below) => at = below,
                None => {
                    remove_group(&at)?;
                    if at == self.path || !at.pop() {
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// What an open `cgroup.procs` lists, at most `limit`; nothing if the group is gone.
pub(super) fn read_pids(procs: &File, limit: usize) -> io::Result<Vec<u32>> {
    let mut text = Vec::new();
    let mut buffer = [0; PROCS_BYTES];
    let mut lines = 0;
    while lines < limit {
        let read = match procs.read_at(&mut buffer, text.len() as u64) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if is_removed(&error) => break,
            // A group with threaded groups in it lists its processes only at its top.
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => break,
            Err(error) => return Err(error),
        };
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
        text.extend_from_slice(&buffer[..read]);
    }
    Ok(pids(&String::from_utf8_lossy(&text)).take(limit).collect())
}

/// Reading or writing a file of a group that was removed says ENODEV.
pub(super) fn is_removed(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

fn pids(text: &str) -> impl Iterator<Item = u32> {
    text.lines().filter_map(|line| line.parse().ok())
}

fn populated(events: &[u8]) -> io::Result<bool> {
    let text = String::from_utf8_lossy(events);
    match text.lines().find_map(|line| line.strip_prefix("populated ")) {
        Some("0") => Ok(false),
        Some(_) => Ok(true),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "cgroup.events without populated")),
    }
}

fn first_below(group: &Path) -> io::Result<Option<PathBuf>> {
    for entry in below(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn populated_below(group: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in below(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let path = entry.path();
            // One that goes away meanwhile has nothing in it.
            if fs::read(path.join("cgroup.events")).is_ok_and(|text| populated(&text).unwrap_or(true)) {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// What is in a group's folder; nothing if the group is gone.
fn below(group: &Path) -> io::Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    match fs::read_dir(group) {
        Ok(entries) => Ok(Some(entries).into_iter().flatten()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None.into_iter().flatten()),
        Err(error) => Err(error),
    }
}

/// By the last two names, the node's folder and the leaf: seen from another mount or cgroup namespace
/// the front of a path differs, and these do not.
pub(super) fn holds(leaf: &Path, cgroup: &str) -> bool {
    let names = |path: &Path| path.iter().map(|name| name.to_os_string()).collect::<Vec<_>>();
    let (leaf, cgroup) = (names(leaf), names(Path::new(cgroup)));
    let Some(own) = leaf.len().checked_sub(2).map(|front| &leaf[front..]) else { return false };
    cgroup.windows(own.len()).any(|part| part == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_holds_itself_and_what_is_below_and_no_neighbour() {
        let leaf = Path::new("/sys/fs/cgroup/unified/own/quell-node/i1");
        for inside in ["/own/quell-node/i1", "/quell-node/i1/a/b", "/quell-node/i10/quell-node/i1"] {
            assert!(holds(leaf, inside), "{inside}");
        }
        for outside in ["/", "", "/quell-node", "/quell-node/i10", "/quell-node/i2", "/i1", "/other/i1"] {
            assert!(!holds(leaf, outside), "{outside}");
        }
    }

    #[test]
    fn events_that_cannot_be_understood_prove_nothing() {
        assert!(!populated(b"populated 0\nfrozen 0\n").unwrap());
        assert!(populated(b"frozen 0\npopulated 1\n").unwrap());
        assert!(populated(b"frozen 0\n").is_err());
    }
}
