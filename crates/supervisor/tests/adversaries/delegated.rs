//! A cgroup that root gave to a user, as systemd does by `Delegate=yes`.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd as _,
        unix::fs::{FileExt as _, chown},
    },
    path::{Path, PathBuf},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::fresh_name;

/// Where the second hierarchy of a hybrid machine is, and where the only one is.
const TOPS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
/// What systemd gives as well.
const GIVEN: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];

/// Killed and removed with everything in it when dropped.
pub(crate) struct Delegated(PathBuf);

impl Delegated {
    /// `None`, and says so, where no cgroup v2 is writable.
    pub(crate) fn to(user: u32) -> Option<Self> {
        let is_there = |top: &&&str| Path::new(top).join("cgroup.procs").exists();
        let top = TOPS.iter().find(is_there).copied().unwrap_or_default();
        let path = Path::new(top).join(format!("quell-delegated-{}", fresh_name()));
        if top.is_empty() || fs::create_dir(&path).is_err() {
            println!("no cgroup v2 that can be written here, so none is given away");
            return None;
        }
        let delegated = Self(path);
        let give = |path: &Path| chown(path, Some(user), Some(user)).unwrap();
        give(&delegated.0);
        GIVEN.iter().for_each(|file| give(&delegated.0.join(file)));
        Some(delegated)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let ended = fs::write(self.0.join("cgroup.kill"), "1").and_then(|()| until_empty(&self.0));
        if let Err(error) = ended.and_then(|()| remove(&self.0)) {
            println!("{} stays: {error}", self.0.display());
        }
    }
}

/// The kernel says when nothing lives in it or below.
fn until_empty(group: &Path) -> io::Result<()> {
    let events = File::open(group.join("cgroup.events"))?;
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    loop {
        let mut text = [0; 256];
        let size = events.read_at(&mut text, 0)?;
        if String::from_utf8_lossy(&text[..size]).contains("populated 0") {
            return Ok(());
        }
        let mut fds = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)];
        if poll(&mut fds, Some(&limit))? == 0 {
            return Err(io::Error::other("something in it lives"));
        }
    }
}

fn remove(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
