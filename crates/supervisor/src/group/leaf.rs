//! One cgroup v2 leaf: made for one instance, killed as a whole, removed as the proof.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

/// Deepest nesting of groups a runtime can make that is still walked; the kernel's own limit is set by
/// `cgroup.max.depth`, and nothing sensible comes near this.
const MAX_NESTING: usize = 64;
/// More than any `cgroup.events` holds.
const EVENTS_BYTES: usize = 256;

/// A leaf, with everything the kill path needs already open: it works with a full table of
/// descriptors.
#[derive(Debug)]
pub(super) struct Leaf {
    path: PathBuf,
    kill: File,
    events: File,
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
        Ok(Self { path, kill, events })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// SIGKILL to everything in it and below, atomically against fork.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.kill.write_at(b"1", 0).map(drop)
    }

    /// Moves a process in.
    pub(super) fn adopt(&self, pid: u32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// Whether anything alive is in it or below; zombies do not count.
    pub(super) fn populated(&self) -> io::Result<bool> {
        let mut buffer = [0; EVENTS_BYTES];
        let read = self.events.read_at(&mut buffer, 0)?;
        let text = String::from_utf8_lossy(&buffer[..read]);
        match text.lines().find_map(|line| line.strip_prefix("populated ")) {
            Some("0") => Ok(false),
            Some(_) => Ok(true),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "cgroup.events without populated")),
        }
    }

    /// The processes in it and below, at most `limit`.
    pub(super) fn processes(&self, limit: usize) -> Vec<u32> {
        let mut pids = Vec::new();
        for dir in groups(&self.path) {
            // A group that is gone has no processes.
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            if pids.len() >= limit {
                pids.truncate(limit);
                break;
            }
        }
        pids
    }

    /// Whether `cgroup`, a path from `/proc/PID/cgroup`, is this leaf or below it.
    pub(super) fn holds(&self, cgroup: &str) -> bool {
        let below = |ending: &str| {
            // Seen from another mount or namespace the front may differ; the node's own part does not.
            cgroup.find(ending).is_some_and(|at| {
                let rest = &cgroup[at + ending.len()..];
                rest.is_empty() || rest.starts_with('/')
            })
        };
        let mut parts = self.path.iter().rev().take(2).filter_map(|part| part.to_str()).collect::<Vec<_>>();
        parts.reverse();
        below(&format!("/{}", parts.join("/")))
    }

    /// Removes it, nested groups first. Succeeds only if nothing is in it: that is the proof.
    pub(super) fn remove(&self) -> io::Result<()> {
        for dir in groups(&self.path).iter().rev() {
            match fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A group and all below it, parents before children.
fn groups(top: &Path) -> Vec<PathBuf> {
    let mut found = vec![top.to_owned()];
    let mut at = 0;
    let depth = top.iter().count();
    while let Some(dir) = found.get(at).cloned() {
        at += 1;
        if dir.iter().count() - depth >= MAX_NESTING {
            continue;
        }
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(below.map(|entry| entry.path()));
    }
    found
}
