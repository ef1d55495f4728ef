//! What `/proc` says of processes. Being unable to read is never taken for "gone": a proof rests on it.

use std::{fs, io};

use rustix::{io::Errno, process::Pid};

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

/// The fields of `/proc/PID/stat` that are used here.
#[derive(Debug)]
pub(super) struct Stat {
    pub(super) comm: String,
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) pgrp: i32,
    pub(super) threads: u32,
    pub(super) start_time: u64,
}

impl Stat {
    /// `None` if the process is gone; an error if that cannot be told.
    pub(super) fn of(pid: u32) -> io::Result<Option<Self>> {
        let text = match fs::read(format!("/proc/{pid}/stat")) {
            Ok(text) => text,
            // It may go between the opening and the reading: then it is ESRCH.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return Ok(None),
            Err(error) => return Err(error),
        };
        let odd = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat"));
        Self::parse(&String::from_utf8_lossy(&text)).map(Some).ok_or_else(odd)
    }

    fn parse(text: &str) -> Option<Self> {
        // The name may hold anything, spaces and brackets included; the last bracket ends it.
        let (head, tail) = text.rsplit_once(')')?;
        let comm = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        Some(Self {
            comm,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            pgrp: fields.get(2)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            start_time: fields.get(19)?.parse().ok()?,
        })
    }

    /// A zombie with more threads than its dead main one still runs code (`containment.md` F1).
    pub(super) fn is_alive(&self) -> bool {
        !matches!(self.state, 'Z' | 'X') || self.threads > 1
    }
}

/// The process as a member, if it lives.
pub(super) fn member(pid: u32) -> Option<Member> {
    let stat = Stat::of(pid).ok()?.filter(Stat::is_alive)?;
    Some(Member { pid, comm: stat.comm, state: stat.state })
}

/// The cgroup v2 path of a process, as `/proc/PID/cgroup` has it.
pub(super) fn cgroup_of(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// The paths of a process in the hierarchies of cgroup v1; none if it is gone.
pub(super) fn v1_cgroups_of(pid: u32) -> Vec<String> {
    v1_lines(pid).into_iter().map(|(_, path)| path).collect()
}

/// Its path in the hierarchy that has this controller.
pub(super) fn v1_cgroup_of(pid: u32, controller: &str) -> Option<String> {
    let has = |names: &str| names.split(',').any(|name| name == controller);
    v1_lines(pid).into_iter().find_map(|(names, path)| has(&names).then_some(path))
}

fn v1_lines(pid: u32) -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let parts = |line: &str| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        (!names.is_empty()).then(|| (names.to_owned(), path.to_owned()))
    };
    text.lines().filter_map(parts).collect()
}

/// The living members of a process group other than its leader. One pass over `/proc`; an error means
/// that it could not be made whole.
pub(super) fn group_members(pgrp: Pid) -> io::Result<Vec<u32>> {
    let pgrp = pgrp.as_raw_nonzero().get();
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid.cast_signed() != pgrp
            && Stat::of(pid)?.is_some_and(|stat| stat.pgrp == pgrp && stat.is_alive())
        {
            members.push(pid);
        }
    }
    Ok(members)
}

/// The living processes below one, parents first, at most `limit`. A picture: what comes while it is
/// taken may be missed, so nothing is proven by it.
pub(super) fn below(pid: u32, limit: usize) -> Vec<u32> {
    let mut found: Vec<u32> = children(pid);
    let mut at = 0;
    while at < found.len() && found.len() < limit {
        found.extend(children(found[at]));
        at += 1;
    }
    found.truncate(limit);
    found.retain(|pid| Stat::of(*pid).ok().flatten().is_some_and(|stat| stat.is_alive()));
    found
}

/// The children of all threads of a process; none if it is gone.
fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let line = "12 (a) R 1 (b) Z 1 34 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 2 0 777 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.comm.as_str(), stat.state, stat.pgrp), ("a) R 1 (b", 'Z', 34));
        assert_eq!((stat.threads, stat.start_time), (2, 777));
        assert!(stat.is_alive(), "a zombie with a second thread");
        assert!(!Stat::parse(&line.replace(" 2 0 777", " 1 0 777")).unwrap().is_alive());
        assert!(Stat::parse("12 (x").is_none());
    }

    #[test]
    fn a_process_that_is_gone_is_told_from_one_that_cannot_be_read() {
        assert!(Stat::of(std::process::id()).unwrap().is_some());
        assert!(Stat::of(u32::MAX).unwrap().is_none());
    }
}
