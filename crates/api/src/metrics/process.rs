//! What the node's own process takes, from `/proc/self`.

use std::fs;

use nix::{
    sys::resource::{Resource, UsageWho, getrlimit, getrusage},
    sys::time::TimeVal,
};

/// Bytes of a kilobyte of `/proc`.
const KIB: u64 = 1_024;

/// At one moment. Without the runtimes: they are processes of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_s: f64,
    pub(super) resident_bytes: u64,
    pub(super) threads: u64,
    pub(super) open_files: u64,
    pub(super) max_files: u64,
}

impl Process {
    /// `None` where there is no `/proc`.
    pub(super) fn look() -> Option<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let number = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let (max_files, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
        Some(Self {
            cpu_s: seconds(usage.user_time()) + seconds(usage.system_time()),
            resident_bytes: number("VmRSS:")? * KIB,
            threads: number("Threads:")?,
            // One of them is the folder that is being read.
            open_files: (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1),
            max_files,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "CPU seconds: exact for as long as machines last")]
fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_something_of_everything() {
        let seen = Process::look().unwrap();
        assert!(seen.cpu_s >= 0.0 && seen.resident_bytes > 1 << 20 && seen.threads > 0, "{seen:?}");
        assert!(seen.open_files > 2 && seen.open_files <= seen.max_files, "{seen:?}");
    }
}
