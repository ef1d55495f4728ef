//! A PID namespace around a runtime: the kernel's own promise that whoever was born in it dies with it.
//!
//! The helper outside makes the namespace, forks PID 1 into it and waits; PID 1 watches over the runtime
//! (`warden`). Either's end is the end of all: PID 1 dies with the helper (PDEATHSIG), and everything
//! inside dies with PID 1 before anybody sees that it has.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{prctl, signal::Signal, stat::Mode},
    unistd::{ForkResult, Pid, getgid, getuid, pipe, write},
};

use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{
    privileges::drop_most,
    warden::{Ended, Role, Runtime, complain, watch_over},
};

const TMP: &str = "/tmp";
/// Of `/tmp` of one instance: what FunctionGraph and others give. It counts as memory of the machine.
const TMP_BYTES: u64 = 512 << 20;

/// What a mount may forbid besides writing, by its name in mountinfo.
const KEPT: [(&str, MsFlags); 3] =
    [("nosuid", MsFlags::MS_NOSUID), ("nodev", MsFlags::MS_NODEV), ("noexec", MsFlags::MS_NOEXEC)];

/// Runs the program in a namespace of its own. In the helper outside it returns how the program ended;
/// in PID 1 it does not return.
pub(super) fn run_inside(with_user: bool, keep: &[PathBuf], runtime: &Runtime) -> Result<Ended, String> {
    make(with_user)?;
    let (told, tell) = pipe().map_err(|error| format!("pipe: {error}"))?;
    // SAFETY: the helper is single-threaded, so the child may go on as if it were the only one; it
    // shares nothing with its parent but open descriptors.
    #[expect(unsafe_code, reason = "fork has no safe form; there is no thread that could hold a lock")]
    #[expect(clippy::disallowed_methods, reason = "the helper is single-threaded and small")]
    let forked = unsafe { nix::unistd::fork() };
    match forked.map_err(|error| format!("fork: {error}"))? {
        ForkResult::Child => {
            drop(told);
            let ended = be_init(keep, runtime);
            say(tell, ended.unwrap_or_else(|why| complain(&why)));
            // The kernel ends whatever is left inside before this end is seen.
            end_here()
        }
        ForkResult::Parent { child } => {
            drop(tell);
            // To the node, which pins it by a pidfd before it lets anything be executed.
            let words = format!("i{child}\n");
            write(io::stdin(), words.as_bytes()).map_err(|error| format!("its line: {error}"))?;
            wait_for(child, told)
        }
    }
}

#[expect(clippy::exit, reason = "PID 1 has nothing to drain: its end ends everything inside")]
fn end_here() -> ! {
    std::process::exit(0)
}

fn make(with_user: bool) -> Result<(), String> {
    let (uid, gid) = (getuid(), getgid());
    let mut flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
    if with_user {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(|error| format!("unshare: {error}"))?;
    if with_user {
        let own =
            |path: &str, text: String| fs::write(path, text).map_err(|error| format!("{path}: {error}"));
        // The same user inside as outside: nothing is gained but the namespace.
        own("/proc/self/setgroups", "deny".to_owned())?;
        own("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        own("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    Ok(())
}

fn be_init(keep: &[PathBuf], runtime: &Runtime) -> Result<Ended, String> {
    // Its parent is outside, so there is no asking whether it lives still; if it died before this line,
    // the end of the helper's line to the node ends PID 1 as well.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("PDEATHSIG: {error}"))?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(|error| format!("private mounts: {error}"))?;
    read_only_cgroups()?;
    // Programs look themselves up in /proc by the numbers that hold inside.
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), plain, nothing).map_err(|error| format!("/proc: {error}"))?;
    private_tmp(keep).map_err(|error| format!("a /tmp of its own: {error}"))?;
    drop_most()?;
    watch_over(Role::Init, runtime)
}

/// What is written in the cgroup hierarchies ends or freezes others: not for those inside. (In a user
/// namespace that may be refused, and then nothing there can be written either.)
fn read_only_cgroups() -> Result<(), String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| format!("mountinfo: {error}"))?;
    for line in mounts.lines() {
        let Some((mount_point, kind)) = line.split_once(" - ") else { continue };
        let mut fields = mount_point.split(' ').skip(4);
        let (Some(path), Some(options), true) = (fields.next(), fields.next(), kind.starts_with("cgroup"))
        else {
            continue;
        };
        // What is forbidden there must stay so: in a user namespace the whole is refused otherwise, and a
        // cgroup that was delegated to this user stays writable.
        let forbidden = |name: &str| options.split(',').any(|option| option == name);
        let kept = KEPT.into_iter().filter(|(name, _)| forbidden(name)).map(|(_, flag)| flag);
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept.collect();
        match mount(None::<&str>, path, None::<&str>, flags, None::<&str>) {
            Ok(()) => {}
            Err(_) if !nix::unistd::getuid().is_root() => {}
            Err(error) => return Err(format!("{path} read-only: {error}")),
        }
    }
    Ok(())
}

/// An empty `/tmp` that nobody else sees, bounded, and gone with the namespace. What the runtime needs
/// and happens to lie below `/tmp` stays where it is.
fn private_tmp(keep: &[PathBuf]) -> io::Result<()> {
    let here = std::env::current_dir()?;
    let kept = keep.iter().map(PathBuf::as_path).chain([here.as_path()]);
    let mut held = Vec::new();
    for folder in kept.filter(|folder| folder.starts_with(TMP) && *folder != Path::new(TMP)) {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        held.push((folder, open(folder, flags, Mode::empty())?));
    }
    let data = format!("size={TMP_BYTES},mode=1777");
    mount(Some("tmpfs"), TMP, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(data.as_str()))?;
    for (folder, fd) in &held {
        fs::create_dir_all(folder)?;
        let from = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(from.as_str()), *folder, None::<&str>, bind, None::<&str>)?;
    }
    // By the path, which leads into the new mounts.
    std::env::set_current_dir(&here)
}

/// Tells the helper outside how it ended, in a word that fits a pipe.
#[allow(clippy::print_stderr)] // its stderr is the instance's captured output
fn say(tell: OwnedFd, ended: Ended) {
    if let Err(error) = File::from(tell).write_all(&ended.word()) {
        eprintln!("quell instance: its end cannot be told: {error}");
    }
}

/// Waits for PID 1, and so for everything inside; then reads what it said last.
fn wait_for(init: Pid, told: OwnedFd) -> Result<Ended, String> {
    let init = rustix::process::Pid::from_raw(init.as_raw()).ok_or("no PID 1")?;
    loop {
        match waitid(WaitId::Pid(init), WaitIdOptions::EXITED) {
            Ok(Some(_)) => break,
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("waiting for PID 1: {error}")),
        }
    }
    let mut word = Vec::new();
    File::from(told).read_to_end(&mut word).map_err(|error| format!("its last word: {error}"))?;
    // Without a word it was killed before it could say one.
    let word = <[u8; 2]>::try_from(word).ok().and_then(Ended::of_word);
    Ok(word.unwrap_or(Ended::KILLED))
}
