//! Who would not die, and why, as far as the kernel tells.

use std::{fmt, fs};

use super::process::{self, Stat};

/// Where every distribution with cgroup v1 mounts it.
const V1_FREEZER: &str = "/sys/fs/cgroup/freezer";

/// A process that could not be killed in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot: with the number it names it for good.
    pub start_time: u64,
    /// Its name.
    pub comm: String,
    /// Its state letter: of its main thread, or, where that is gone, of the thread that cannot be ended.
    pub state: char,
    /// Where in the kernel the same thread waits.
    pub wchan: String,
    /// Who traces it; 0 nobody.
    pub tracer: u32,
    /// Whose it is.
    pub uid: u32,
    /// Its cgroup v2 path.
    pub cgroup: String,
    /// Whether a freezer of cgroup v1 holds it: the kernel shows no other trace of that.
    pub frozen: bool,
}

/// Why a process that was sent SIGKILL is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SurvivorCause {
    /// Its freezer has to be thawed first.
    Frozen,
    /// A tracer holds it at its exit; a second SIGKILL does not help.
    Traced {
        /// Which process traces it.
        by: u32,
    },
    /// It waits in the kernel for something that cannot be interrupted: a disk, a network file system.
    Uninterruptible,
    /// Its main thread is gone and another lives.
    ZombieLeader,
    /// Nothing that can be told.
    Unknown,
}

impl fmt::Display for SurvivorCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen => write!(f, "frozen, dies when thawed"),
            Self::Traced { by } => write!(f, "held by its tracer, pid {by}"),
            Self::Uninterruptible => write!(f, "uninterruptible, waits in the kernel"),
            Self::ZombieLeader => write!(f, "its main thread is gone, another lives"),
            Self::Unknown => write!(f, "alive; it was sent SIGKILL"),
        }
    }
}

impl Survivor {
    /// Everything that is known of a process that will not die; `None` if it is gone after all.
    pub(super) fn look(pid: u32) -> Option<Self> {
        let stat = Stat::of(pid).ok()??;
        // A main thread that is gone tells nothing of what holds another one.
        let held = if stat.state == 'Z' { held_thread(pid) } else { None };
        let (thread, state) = held.unwrap_or((pid, stat.state));
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        Some(Self {
            pid,
            start_time: stat.start_time,
            comm: stat.comm,
            state,
            wchan: fs::read_to_string(format!("/proc/{thread}/wchan")).unwrap_or_default(),
            tracer: number("TracerPid:"),
            uid: number("Uid:"),
            cgroup: process::cgroup_of(pid).unwrap_or_default(),
            frozen: is_v1_frozen(pid),
        })
    }

    /// Why it is alive, as far as can be told.
    pub fn cause(&self) -> SurvivorCause {
        match self.state {
            _ if self.frozen => SurvivorCause::Frozen,
            // `__refrigerator` is the v1 freezer, `do_freezer_trap` the v2 one.
            _ if self.wchan.contains("refrigerator") || self.wchan.contains("freezer") => {
                SurvivorCause::Frozen
            }
            _ if self.tracer != 0 => SurvivorCause::Traced { by: self.tracer },
            'D' => SurvivorCause::Uninterruptible,
            'Z' => SurvivorCause::ZombieLeader,
            _ => SurvivorCause::Unknown,
        }
    }
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, comm, state, wchan, uid, cgroup, .. } = self;
        let cause = self.cause();
        write!(f, "{comm} pid {pid} uid {uid} state {state} wchan {wchan} cgroup {cgroup}: {cause}")
    }
}

/// A thread that the kernel or a tracer keeps from dying, and its state letter.
fn held_thread(pid: u32) -> Option<(u32, char)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut threads = tasks.filter_map(|task| {
        let thread = task.file_name().to_str()?.parse().ok()?;
        Some((thread, Stat::of(thread).ok()??.state))
    });
    threads.find(|(_, state)| matches!(state, 'D' | 't'))
}

/// Asks the freezer group a process is in; where there is none, nothing holds it.
fn is_v1_frozen(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let group = text.lines().find_map(|line| line.split_once(":freezer:").map(|(_, group)| group));
    let state = group.map(|group| format!("{V1_FREEZER}{group}/freezer.state"));
    state.is_some_and(|state| fs::read_to_string(state).is_ok_and(|state| state.trim() != "THAWED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survivor(state: char, wchan: &str, tracer: u32) -> Survivor {
        let (comm, cgroup) = ("worker".to_owned(), "/quell/i1".to_owned());
        let wchan = wchan.to_owned();
        Survivor { pid: 7, start_time: 1, comm, state, wchan, tracer, uid: 0, cgroup, frozen: false }
    }

    #[test]
    fn a_survivor_says_why_it_is_alive() {
        assert_eq!(survivor('D', "__refrigerator", 0).cause(), SurvivorCause::Frozen);
        assert_eq!(survivor('S', "do_freezer_trap", 0).cause(), SurvivorCause::Frozen);
        assert_eq!(survivor('D', "request_wait_answer", 0).cause(), SurvivorCause::Uninterruptible);
        assert_eq!(survivor('t', "ptrace_stop", 9).cause(), SurvivorCause::Traced { by: 9 });
        assert_eq!(survivor('Z', "0", 9).cause(), SurvivorCause::Traced { by: 9 });
        assert_eq!(survivor('Z', "0", 0).cause(), SurvivorCause::ZombieLeader);
        assert_eq!(survivor('R', "0", 0).cause(), SurvivorCause::Unknown);
        let frozen = Survivor { frozen: true, ..survivor('D', "hrtimer_nanosleep", 0) };
        assert_eq!(frozen.cause(), SurvivorCause::Frozen);
        assert!(survivor('D', "request_wait_answer", 0).to_string().contains("pid 7 uid 0 state D"));
    }
}
