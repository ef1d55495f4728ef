//! What `/proc` says of a process: for looking, for naming survivors, never for deciding alone.

use std::{fmt, fs};

use rustix::process::Pid;

/// A living process of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number, as this node sees it.
    pub pid: u32,
    /// Its name, as it calls itself.
    pub comm: String,
    /// Its state letter, as in `/proc/PID/stat`.
    pub state: char,
}

/// A process that could not be killed in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since boot: with the number it names it for good.
    pub start_time: u64,
    /// Its name.
    pub comm: String,
    /// Its state letter.
    pub state: char,
    /// Where in the kernel it waits.
    pub wchan: String,
    /// Who traces it; 0 nobody.
    pub tracer: u32,
    /// Whose it is.
    pub uid: u32,
    /// Its cgroup v2 path.
    pub cgroup: String,
}

impl Survivor {
    /// Why it is alive, as far as can be told.
    pub fn why(&self) -> &'static str {
        match self.state {
            'D' => "uninterruptible, waits in the kernel",
            't' if self.tracer != 0 => "held by a tracer",
            'T' | 't' => "stopped",
            'Z' => "its main thread is gone, another lives or its tracer has not collected it",
            _ => "alive; it was sent SIGKILL",
        }
    }
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, comm, state, wchan, tracer, uid, .. } = self;
        write!(f, "{comm} pid {pid} state {state} wchan {wchan} tracer {tracer} uid {uid}: {}", self.why())
    }
}

/// The fields of `/proc/PID/stat` that are used here.
pub(super) struct Stat {
    pub(super) comm: String,
    pub(super) state: char,
    pub(super) pgrp: i32,
    pub(super) threads: u32,
    pub(super) start_time: u64,
}

impl Stat {
    /// `None` if the process is gone.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        // The name may hold anything, spaces and brackets included; the last bracket ends it.
        let (head, tail) = text.rsplit_once(')')?;
        let comm = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        Some(Self {
            comm,
            state: fields.first()?.chars().next()?,
            pgrp: fields.get(2)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }

    /// A zombie with more threads than its dead main one still runs code (`containment.md` F1).
    pub(super) fn is_alive(&self) -> bool {
        self.state != 'Z' || self.threads > 1
    }
}

/// The process as a member, if it lives.
pub(super) fn member(pid: u32) -> Option<Member> {
    let stat = Stat::of(pid).filter(Stat::is_alive)?;
    Some(Member { pid, comm: stat.comm, state: stat.state })
}

/// Everything that is known of a process that will not die; `None` if it is gone after all.
pub(super) fn survivor(pid: u32) -> Option<Survivor> {
    let stat = Stat::of(pid)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    Some(Survivor {
        pid,
        start_time: stat.start_time,
        comm: stat.comm,
        state: stat.state,
        wchan: fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default(),
        tracer: number("TracerPid:"),
        uid: number("Uid:"),
        cgroup: cgroup_of(pid).unwrap_or_default(),
    })
}

/// The cgroup v2 path of a process, as `/proc/PID/cgroup` has it.
pub(super) fn cgroup_of(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// The living members of a process group other than its leader. One pass over `/proc`.
pub(super) fn group_members(pgrp: Pid) -> Vec<u32> {
    let pgrp = pgrp.as_raw_nonzero().get();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let of_group = |pid: &u32| {
        pid.cast_signed() != pgrp && Stat::of(*pid).is_some_and(|stat| stat.pgrp == pgrp && stat.is_alive())
    };
    pids.filter(of_group).collect()
}
