//! A PID namespace around a runtime: the kernel's own promise that whoever was born in it dies with it.
//!
//! With privilege the helper is born as PID 1 of it. Without, a helper outside makes a user namespace, forks
//! PID 1 into it and waits. PID 1 watches over the runtime (`warden`); its end is the end of all: everything
//! inside dies with it before anybody sees that it has.

use std::{
    fs::{self, File},
    io,
    net::SocketAddrV4,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    process::{Child, Command},
};

use nix::{
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::{Signal, raise},
        stat::Mode,
    },
    unistd::{ForkResult, Pid, getgid, getuid, write},
};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{
    init::{HELPER_FAILED, say},
    lease::Lease,
    network::{self, Opened, SocketMaker},
    privileges::drop_most,
    warden::{Role, Runtime, watch_over},
};

const TMP: &str = "/tmp";
const SHM: &str = "/dev/shm";

/// What a mount may forbid besides writing, by its name in mountinfo.
const KEPT: [(&str, MsFlags); 3] =
    [("nosuid", MsFlags::MS_NOSUID), ("nodev", MsFlags::MS_NODEV), ("noexec", MsFlags::MS_NOEXEC)];

/// What the namespace of an instance is like.
pub(super) struct Inside {
    /// Processes of its user; `None`: others see to that. Only counted for itself in a user namespace.
    pub(super) processes: Option<u64>,
    /// Bytes of its `/tmp`, which count as memory of the machine.
    pub(super) tmp: u64,
    /// Folders that stay where they are although `/tmp` is another.
    pub(super) keep: Vec<PathBuf>,
    /// Where the node is reached in a network of its own; nowhere: it has the node's.
    pub(super) listen: Vec<SocketAddrV4>,
}

impl Inside {
    fn network(&self) -> Result<Option<Opened>, String> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        network::open(&self.listen).map(Some).map_err(|error| format!("a network of its own: {error}"))
    }
}

/// Spawns a command as PID 1 of a new PID namespace. The calling thread makes children in its own again
/// afterwards; it must not make threads meanwhile, which it does not.
///
/// # Errors
/// When that takes privilege that is missing, or the command cannot be spawned. A thread that cannot go
/// back to its own namespace makes no child any more: every later try fails.
pub(super) fn spawn_as_init(command: &mut Command) -> io::Result<Child> {
    let own = File::open("/proc/thread-self/ns/pid")?;
    unshare(CloneFlags::CLONE_NEWPID)?;
    let spawned = command.spawn();
    match (setns(&own, CloneFlags::CLONE_NEWPID), spawned) {
        (Ok(()), spawned) => spawned,
        (Err(error), Err(_)) => Err(error.into()),
        (Err(error), Ok(mut child)) => {
            child.kill()?;
            child.wait()?;
            Err(error.into())
        }
    }
}

/// The helper outside: makes the namespaces, forks PID 1, waits for it. In PID 1 it does not return.
pub(super) fn hold_init(inside: &Inside, runtime: &Runtime, lease: Option<Lease>) -> Result<(), String> {
    enter_user_namespace()?;
    if let Some(processes) = inside.processes {
        setrlimit(Resource::RLIMIT_NPROC, processes, processes)
            .map_err(|error| format!("RLIMIT_NPROC: {error}"))?;
    }
    let opened = inside.network()?;
    // SAFETY: the helper is single-threaded, so the child may go on as if it were the only one; it
    // shares nothing with its parent but open descriptors.
    #[expect(unsafe_code, reason = "fork has no safe form; there is no thread that could hold a lock")]
    #[expect(clippy::disallowed_methods, reason = "the helper is single-threaded and small")]
    let forked = unsafe { nix::unistd::fork() };
    match forked.map_err(|error| format!("fork: {error}"))? {
        ForkResult::Child => {
            // Its parent is outside, so there is no asking whether it lives still; if it died before
            // this line, the end of the helper's line to the node ends PID 1 as well.
            let bound = prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("PDEATHSIG: {error}"));
            let maker = opened.map(Opened::into_maker);
            end_here(bound.and_then(|()| be_init(inside, runtime, lease, maker.as_ref())))
        }
        ForkResult::Parent { child } => {
            // To the node, which pins it by a pidfd before it lets anything be executed.
            let words = format!("i{child}\n");
            write(io::stdin(), words.as_bytes()).map_err(|error| format!("its line: {error}"))?;
            // PID 1 has the maker; what is handed out is not kept.
            opened.map(|opened| opened.hand_out(io::stdin().as_fd())).transpose()?;
            wait_for(child)
        }
    }
}

#[expect(clippy::exit, reason = "PID 1 has nothing to drain: its end ends everything inside")]
fn end_here(ended: Result<(), String>) -> ! {
    if let Err(why) = ended {
        say(HELPER_FAILED, &why);
        std::process::exit(HELPER_FAILED.into());
    }
    std::process::exit(0)
}

fn enter_user_namespace() -> Result<(), String> {
    let (uid, gid) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUSER)
        .map_err(|error| format!("unshare: {error}"))?;
    let own = |path: &str, text: String| fs::write(path, text).map_err(|error| format!("{path}: {error}"));
    // The same user inside as outside: nothing is gained but the namespace.
    own("/proc/self/setgroups", "deny".to_owned())?;
    own("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    own("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// The helper as PID 1: the same, with a network of its own first where there is to be one.
pub(super) fn be_init_with_network(
    inside: &Inside,
    runtime: &Runtime,
    lease: Option<Lease>,
) -> Result<(), String> {
    let maker = match inside.network()? {
        Some(opened) => Some(opened.hand_out(io::stdin().as_fd())?),
        None => None,
    };
    be_init(inside, runtime, lease, maker.as_ref())
}

/// PID 1: gives what is inside its own mounts, and watches over the runtime.
fn be_init(
    inside: &Inside,
    runtime: &Runtime,
    lease: Option<Lease>,
    maker: Option<&SocketMaker>,
) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC)
        .map_err(|error| format!("unshare: {error}"))?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .map_err(|error| format!("private mounts: {error}"))?;
    read_only_cgroups()?;
    // Programs look themselves up in /proc by the numbers that hold inside.
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), plain, nothing).map_err(|error| format!("/proc: {error}"))?;
    private_shm(inside.tmp).map_err(|error| format!("a /dev/shm of its own: {error}"))?;
    private_tmp(inside).map_err(|error| format!("a /tmp of its own: {error}"))?;
    drop_most()?;
    watch_over(Role::Init, runtime, lease, maker)
}

/// What is written in the cgroup hierarchies ends or freezes others: not for those inside.
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
            Err(error) => return Err(format!("{path} read-only: {error}")),
        }
    }
    Ok(())
}

/// Memory that is shared by name is shared inside alone, and ends with the instance.
fn private_shm(bytes: u64) -> io::Result<()> {
    if !Path::new(SHM).is_dir() {
        return Ok(());
    }
    let data = format!("size={bytes},mode=1777");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("tmpfs"), SHM, Some("tmpfs"), flags, Some(data.as_str()))?)
}

/// An empty `/tmp` that nobody else sees, bounded, and gone with the namespace. What the runtime needs
/// and happens to lie below `/tmp` stays where it is.
fn private_tmp(inside: &Inside) -> io::Result<()> {
    let here = std::env::current_dir()?;
    let kept = inside.keep.iter().map(PathBuf::as_path).chain([here.as_path()]);
    let mut held = Vec::new();
    for folder in kept.filter(|folder| folder.starts_with(TMP) && *folder != Path::new(TMP)) {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        held.push((folder, open(folder, flags, Mode::empty())?));
    }
    let data = format!("size={},mode=1777", inside.tmp);
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

/// Waits for PID 1, and so for everything inside. Its last word is told by an orderly end, and only then.
fn wait_for(init: Pid) -> Result<(), String> {
    let init = rustix::process::Pid::from_raw(init.as_raw()).ok_or("no PID 1")?;
    loop {
        match waitid(WaitId::Pid(init), WaitIdOptions::EXITED) {
            Ok(Some(status)) if status.exit_status() == Some(0) => return Ok(()),
            // Killed before it could say a word: whoever collects the helper is to see that.
            Ok(Some(_)) => raise(Signal::SIGKILL).map_err(|error| format!("SIGKILL: {error}"))?,
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("waiting for PID 1: {error}")),
        }
    }
}
