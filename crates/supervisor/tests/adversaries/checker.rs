//! The checker: outside the supervisor, it believes nobody and looks at every process of the machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{deaf_disk::DeafDisk, tracer::tracer};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The variable every process of a run carries.
pub(crate) const VARIABLE: &str = "QUELL_ADVERSARY";

/// The living processes of a run: by its token in their environment, or, for the one that scrubs it, by
/// the name it goes by. A zombie has no environment and no code.
pub(crate) fn alive(token: &str) -> Vec<u32> {
    let entry = format!("{VARIABLE}={token}");
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let carries =
            |text: Vec<u8>, what: &str| text.split(|byte| *byte == 0).any(|part| part == what.as_bytes());
        carries(read("environ"), &entry) || carries(read("cmdline"), token) || leaderless(*pid, &entry)
    })
    .collect()
}

/// A process whose main thread has ended shows no environment under its own number.
fn leaderless(pid: u32, entry: &str) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().any(|task| {
        let text = fs::read(task.path().join("environ")).unwrap_or_default();
        text.split(|byte| *byte == 0).any(|part| part == entry.as_bytes())
    })
}

/// Ends what a run left, so that the next one finds a clean machine.
pub(crate) fn kill_all(token: &str) {
    loop {
        let left = alive(token);
        let mut struck = 0;
        for pid in &left {
            let Ok(pidfd) = pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()) else {
                continue;
            };
            // Pinned; still the one that carries the token.
            if alive_one(*pid, token) && pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
                struck += 1;
                let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
                let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
                rustix::event::poll(&mut fds, Some(&limit)).unwrap();
            }
        }
        if struck == 0 {
            return;
        }
    }
}

fn alive_one(pid: u32, token: &str) -> bool {
    alive(token).contains(&pid)
}

/// A process tree beside the runs, of the same user, that has nothing to do with them.
pub(crate) struct Witness(Child);

impl Witness {
    pub(crate) fn start() -> Self {
        let script = "sleep 1000 & setsid sleep 1000 & wait";
        Self(Command::new("setsid").args(["-w", "sh", "-c", script]).stdin(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn lives(&self) -> bool {
        let mut found = vec![self.0.id()];
        let mut at = 0;
        while at < found.len() {
            let list = format!("/proc/{}/task/{}/children", found[at], found[at]);
            let text = fs::read_to_string(list).unwrap_or_default();
            found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            at += 1;
        }
        // The shell may have become one of them; the two sleepers are there in any case.
        let sleeps =
            |pid: &&u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == "sleep\n");
        found.iter().filter(sleeps).count() == 2
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let mut found = vec![self.0.id()];
        let mut at = 0;
        while at < found.len() {
            let text =
                fs::read_to_string(format!("/proc/{0}/task/{0}/children", found[at])).unwrap_or_default();
            found.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            at += 1;
        }
        for pid in found.iter().rev() {
            if let Ok(pidfd) = pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()) {
                pidfd_send_signal(&pidfd, Signal::KILL).ok(); // it may have ended with its parent
            }
        }
        drop(self.0.wait());
    }
}

/// Behaviours that the world outside keeps from ending, where it can do that.
pub(crate) const TROUBLED: [&str; 3] = ["v1_frozen", "foreign_tracer", "fuse_d_state"];

/// What the world outside does to a run, for as long as it lives.
pub(crate) struct Trouble(Option<Kind>);

enum Kind {
    /// Frozen by the freezer of cgroup v1: SIGKILL waits.
    Frozen(PathBuf),
    /// The same freezer, open; it can be removed when what was in it has died.
    Thawed(PathBuf),
    /// Held at its exit by a tracer that is not of the run.
    Traced(Child),
    /// Waiting for a disk that does not answer.
    Deaf(DeafDisk),
    /// A process that a daemon outside started for the run.
    Daemon(Child),
}

impl Trouble {
    /// What must be there before the run: its namespace sees no disk that is mounted later.
    pub(crate) fn prepare(behaviour: &str) -> Self {
        let disk = (behaviour == "fuse_d_state").then(DeafDisk::mount).flatten();
        Self(disk.map(Kind::Deaf))
    }

    /// What the program of the run must be told of it.
    pub(crate) fn argument(&self) -> Option<String> {
        match &self.0 {
            Some(Kind::Deaf(disk)) => Some(disk.file()),
            _ => None,
        }
    }

    /// Begins, now that the run stands.
    pub(crate) fn begin(&mut self, behaviour: &str, token: &str) {
        let victim = || alive(token).into_iter().max().expect("the run has processes");
        let begun = match behaviour {
            "v1_frozen" => freeze(victim()),
            "foreign_tracer" => tracer(victim()).map(Kind::Traced),
            "asks_a_daemon" => Some(Kind::Daemon(
                Command::new("sleep").arg("1000").env(VARIABLE, token).stdin(Stdio::null()).spawn().unwrap(),
            )),
            _ => None,
        };
        if let Some(Kind::Deaf(disk)) = &self.0 {
            disk.asked();
        }
        self.0 = self.0.take().or(begun);
    }

    /// Whether it keeps an end from being proven.
    pub(crate) fn holds(&self) -> bool {
        matches!(self.0, Some(Kind::Frozen(_) | Kind::Traced(_) | Kind::Deaf(_)))
    }

    /// Processes with the token that are not the supervisor's to end.
    pub(crate) fn outside(&self, token: &str) -> usize {
        match &self.0 {
            Some(Kind::Daemon(child)) => usize::from(alive(token).contains(&child.id())),
            _ => 0,
        }
    }

    pub(crate) fn end(&mut self) {
        match self.0.take() {
            None => {}
            Some(Kind::Deaf(disk)) => drop(disk),
            Some(Kind::Frozen(group)) => {
                fs::write(group.join("freezer.state"), "THAWED").unwrap();
                self.0 = Some(Kind::Thawed(group));
            }
            Some(Kind::Thawed(group)) => remove(&group),
            Some(Kind::Traced(mut child) | Kind::Daemon(mut child)) => {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        while self.0.is_some() {
            self.end();
        }
    }
}

/// Once what was in it has been reaped; its last process may be on its way out.
fn remove(group: &Path) {
    for _ in 0..1_000 {
        match fs::remove_dir(group) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => std::thread::yield_now(),
            removed => return removed.unwrap(),
        }
    }
}

fn freeze(pid: u32) -> Option<Kind> {
    let group = PathBuf::from(format!("/sys/fs/cgroup/freezer/quell-test-{pid}"));
    if fs::create_dir(&group).is_err() {
        println!("no v1 freezer here, so nothing is frozen");
        return None;
    }
    fs::write(group.join("cgroup.procs"), pid.to_string()).unwrap();
    fs::write(group.join("freezer.state"), "FROZEN").unwrap();
    while fs::read_to_string(group.join("freezer.state")).unwrap().trim() != "FROZEN" {}
    Some(Kind::Frozen(group))
}
