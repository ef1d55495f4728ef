//! What an instance may take of the machine: the figures, and the control groups that hold it to them.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{
    controllers::{Controllers, Means},
    hierarchy::remove_group,
    leaf::{Leaf, holds, is_removed, read_pids},
    process,
    rounds::{self, Members},
};

/// Of `/tmp` of one instance, unless it is set: what FunctionGraph and others give.
const TMP_BYTES: u64 = 512 << 20;
/// The helper and PID 1 of its namespace count as well.
pub(super) const HELPERS: u32 = 2;
/// More than any file of events holds.
const EVENTS_BYTES: usize = 512;
/// The digits of any 64-bit number, and a line feed.
const FIGURE_BYTES: usize = 21;

/// What one instance may take. Memory is everything the kernel charges to it: of its processes, of what
/// it wrote into its `/tmp`, of the files it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory; `None`: as much as there is.
    pub memory: Option<u64>,
    /// Processes and threads at once; `None`: as many as there may be.
    pub processes: Option<u32>,
    /// Bytes of its own `/tmp`, where it has one.
    pub tmp: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: None, processes: None, tmp: TMP_BYTES }
    }
}

/// The kernel ended processes of an instance because of its limit of memory: the evidence of a 4205.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// Processes it ended so far.
    pub killed: u64,
    /// The limit, in bytes.
    pub limit: u64,
    /// Where the kernel counts them.
    source: &'static str,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { killed, limit, source } = self;
        write!(
            f,
            "the kernel ended {killed} of its processes at {} MiB ({source}: oom_kill {killed})",
            limit >> 20
        )
    }
}

/// The limits of one instance as they were set, and what watches them. Everything that a stop needs is
/// open.
#[derive(Debug, Default)]
pub(super) struct Limited {
    /// Groups beside its leaf, one for each controller of cgroup v1.
    own: Vec<OwnGroup>,
    /// `pids.max`: with 0 in it, nothing is forked any more.
    fork_stop: Option<File>,
    oom: Option<Counter>,
    /// What is charged to its limit of memory now.
    usage: Option<File>,
}

/// Where the kernel counts whom it ended for want of memory.
#[derive(Debug)]
struct Counter {
    file: File,
    source: &'static str,
    limit: u64,
}

impl Limited {
    /// Sets the limits for one instance before it has a process. Nothing is left of a failure.
    pub(super) fn make(
        controllers: &Controllers,
        name: &str,
        leaf: Option<&Leaf>,
        limits: &Limits,
    ) -> io::Result<Self> {
        let mut limited = Self::default();
        let set = limited
            .limit_memory(&controllers.memory, name, leaf, limits.memory)
            .and_then(|()| limited.limit_processes(&controllers.processes, name, leaf, limits.processes));
        match set {
            Ok(()) => Ok(limited),
            Err(error) => {
                limited.remove();
                Err(error)
            }
        }
    }

    fn limit_memory(
        &mut self,
        means: &Means,
        name: &str,
        leaf: Option<&Leaf>,
        limit: Option<u64>,
    ) -> io::Result<()> {
        let Some(limit) = limit else { return Ok(()) };
        let usage = if matches!(means, Means::Leaf) { "memory.current" } else { "memory.usage_in_bytes" };
        let (dir, max, swap, source) = match (means, leaf) {
            (Means::Leaf, Some(leaf)) => (leaf.path(), "memory.max", "memory.swap.max", "memory.events"),
            (Means::Own(folder), _) => {
                let dir = self.own_group(folder.join(name))?;
                (dir, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control")
            }
            _ => return Ok(()),
        };
        fs::write(dir.join(max), limit.to_string())?;
        // The one is for memory and swap, the other for swap alone; a kernel without swap has neither.
        let swap_limit = if matches!(means, Means::Leaf) { 0 } else { limit };
        match fs::write(dir.join(swap), swap_limit.to_string()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = File::open(dir.join(source))?;
        let usage = File::open(dir.join(usage)).ok(); // for people only: no reason not to start
        self.oom = Some(Counter { file, source, limit });
        self.usage = usage;
        Ok(())
    }

    fn limit_processes(
        &mut self,
        means: &Means,
        name: &str,
        leaf: Option<&Leaf>,
        limit: Option<u32>,
    ) -> io::Result<()> {
        let Some(limit) = limit else { return Ok(()) };
        let dir = match (means, leaf) {
            (Means::Leaf, Some(leaf)) => leaf.path(),
            (Means::Own(folder), _) => self.own_group(folder.join(name))?,
            _ => return Ok(()),
        };
        let max = File::options().write(true).open(dir.join("pids.max"))?;
        max.write_all_at(limit.saturating_add(HELPERS).to_string().as_bytes(), 0)?;
        self.fork_stop = Some(max);
        Ok(())
    }

    fn own_group(&mut self, path: PathBuf) -> io::Result<&Path> {
        // Two controllers may share a hierarchy, and then they share the group.
        let known = self.own.iter().position(|group| group.0 == path);
        let at = match known {
            Some(at) => at,
            None => {
                fs::create_dir(&path)?;
                self.own.push(OwnGroup(path));
                self.own.len() - 1
            }
        };
        Ok(&self.own[at].0)
    }

    /// The groups that a helper has to join besides its leaf.
    pub(super) fn joined(&self) -> impl Iterator<Item = &Path> {
        self.own.iter().map(|group| group.0.as_path())
    }

    /// One of them, in which nothing may be left alive: the last, whose removal costs least.
    pub(super) fn last_group(&self) -> Option<OwnGroup> {
        self.own.last().cloned()
    }

    /// Lets nothing be forked any more, where processes are counted.
    pub(super) fn stop_forks(&self) -> io::Result<()> {
        let Some(max) = &self.fork_stop else { return Ok(()) };
        match max.write_all_at(b"0", 0) {
            Err(error) if is_removed(&error) => Ok(()),
            written => written,
        }
    }

    /// Whom the kernel has ended so far for want of memory; `None` if nobody, or nothing counts it.
    pub(super) fn out_of_memory(&self) -> io::Result<Option<OutOfMemory>> {
        let Some(Counter { file, source, limit }) = &self.oom else { return Ok(None) };
        let mut buffer = [0; EVENTS_BYTES];
        let read = match file.read_at(&mut buffer, 0) {
            Err(error) if is_removed(&error) => return Ok(None),
            read => read?,
        };
        let text = String::from_utf8_lossy(&buffer[..read]);
        let killed = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0);
        Ok((killed > 0).then_some(OutOfMemory { killed, limit: *limit, source }))
    }

    /// Bytes that are charged to its limit of memory now; `None` if nothing counts them.
    pub(super) fn memory_used(&self) -> Option<u64> {
        let mut buffer = [0; FIGURE_BYTES];
        let read = self.usage.as_ref()?.read_at(&mut buffer, 0).ok()?;
        std::str::from_utf8(&buffer[..read]).ok()?.trim().parse().ok()
    }

    /// Removes its groups, in which nothing is alive. One that cannot be removed is left to the sweep of
    /// the next life: nothing is limited or proven by it any more.
    pub(super) fn remove(&self) {
        for group in &self.own {
            if let Err(error) = remove_group(&group.0) {
                tracing::warn!(%error, group = %group.0.display(), "a group that limited is left behind");
            }
        }
    }
}

/// A group of a cgroup v1 hierarchy. It limits; and as processes stay in it that may have left their leaf,
/// it is looked at too before an instance is said to be gone.
#[derive(Clone, Debug)]
pub(super) struct OwnGroup(pub(super) PathBuf);

impl OwnGroup {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Ends whoever is in it, and removes it: the proof that nobody is.
    pub(super) async fn end(&self, seen: &mut HashSet<u32>) -> io::Result<()> {
        loop {
            // Nearly always nobody is, and this needs no descriptor.
            match remove_group(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    rounds::empty(self, seen).await?
                }
                removed => return removed,
            }
        }
    }
}

impl Members for OwnGroup {
    fn alive(&self, limit: usize) -> io::Result<Option<Vec<u32>>> {
        // Opened anew: what an open file of cgroup v1 lists is a picture of up to a second ago.
        let alive = match File::open(self.0.join("cgroup.procs")) {
            Ok(procs) => read_pids(&procs, limit)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok((!alive.is_empty()).then_some(alive))
    }

    fn holds(&self, pid: u32) -> io::Result<bool> {
        Ok(process::v1_cgroups_of(pid).iter().any(|cgroup| holds(&self.0, cgroup)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like a leaf whose hierarchy has the controllers: this machine's may not.
    fn leaf() -> (tempfile::TempDir, Leaf) {
        let dir = tempfile::tempdir().unwrap();
        for file in ["cgroup.kill", "cgroup.events", "cgroup.procs", "memory.swap.max", "pids.max"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        fs::write(dir.path().join("memory.events"), "low 0\noom 0\noom_kill 0\noom_group_kill 0\n").unwrap();
        let leaf = Leaf::open(dir.path().to_owned()).unwrap();
        (dir, leaf)
    }

    #[test]
    fn where_leaves_have_the_controllers_limits_are_set_in_the_leaf() {
        let (dir, leaf) = leaf();
        let has = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        let controllers = Controllers { memory: Means::Leaf, processes: Means::Leaf };
        let limits = Limits { memory: Some(128 << 20), processes: Some(30), tmp: 0 };
        let limited = Limited::make(&controllers, "i1", Some(&leaf), &limits).unwrap();
        assert_eq!((has("memory.max"), has("memory.swap.max")), ("134217728".into(), "0".into()));
        assert_eq!(has("pids.max"), "32");
        assert_eq!(limited.joined().count(), 0, "the leaf is joined anyway");
        assert_eq!(limited.out_of_memory().unwrap(), None);
        fs::write(dir.path().join("memory.events"), "oom 3\noom_kill 2\noom_group_kill 0\n").unwrap();
        let seen = limited.out_of_memory().unwrap().unwrap();
        assert_eq!(
            seen.to_string(),
            "the kernel ended 2 of its processes at 128 MiB (memory.events: oom_kill 2)"
        );
        limited.stop_forks().unwrap();
        assert!(has("pids.max").starts_with('0'), "the kernel takes each write as a whole");
    }

    #[test]
    fn what_is_not_limited_needs_nothing() {
        let controllers = Controllers { memory: Means::Leaf, processes: Means::None(String::new()) };
        let limited = Limited::make(&controllers, "i1", None, &Limits::default()).unwrap();
        assert_eq!(limited.out_of_memory().unwrap(), None);
        limited.stop_forks().unwrap();
        assert!(limited.last_group().is_none());
    }

    #[test]
    fn a_limit_that_cannot_be_set_is_an_error_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        // A folder that is no hierarchy: there is no pids.max in what is made in it.
        let means = |name: &str| Means::Own(dir.path().join(name));
        fs::create_dir(dir.path().join("pids")).unwrap();
        let controllers = Controllers { memory: Means::PerProcess, processes: means("pids") };
        let limits = Limits { processes: Some(1), ..Limits::default() };
        assert!(Limited::make(&controllers, "i1", None, &limits).is_err());
        assert!(!dir.path().join("pids/i1").exists());
    }
}
