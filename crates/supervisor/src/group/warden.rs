//! The helper that stays: parent of the runtime, reaper of everything it leaves, and its end.
//!
//! Runs in a process of its own, single-threaded, as PID 1 of a namespace or as a child subreaper. It
//! knows six things: a byte "go", a byte "terminate", a byte "retire", the end of its line (kill
//! everything), the end of the node's lease (the same, where there is one), and that a child has ended. When the runtime ends, everything below ends with it, and then the helper does.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::{fs::FileExt as _, process::CommandExt as _},
    },
    process::{Command, Stdio},
};

use super::{
    handing,
    init::{
        CANNOT_EXECUTE, GO, HELPER_FAILED, NEVER_WENT, NOT_FOUND, RETIRE, TERMINATE, revealed_environment,
    },
    lease::{Lease, LeaseTimer},
    network::SocketMaker,
};
use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{Pid, read, write},
};

/// How a runtime, or the helper in its place, ended. Signals by number: there are more than have names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Code(u8),
    Signal(u8),
    /// The helper ended it, or did not let it go: the node's lease was over.
    LeaseOver,
}

impl Ended {
    const KILLED: Self = Self::Signal(libc::SIGKILL as u8);

    /// In two bytes, as it is told through a line.
    pub(super) fn word(self) -> [u8; 2] {
        match self {
            Self::Code(code) => [b'c', code],
            Self::Signal(signal) => [b's', signal],
            Self::LeaseOver => [b'l', 0],
        }
    }

    pub(super) fn of_word(word: [u8; 2]) -> Option<Self> {
        match word {
            [b'c', code] => Some(Self::Code(code)),
            [b's', signal] => Some(Self::Signal(signal)),
            [b'l', 0] => Some(Self::LeaseOver),
            _ => None,
        }
    }
}

/// The program and as whom it runs.
pub(super) struct Runtime {
    pub(super) program: OsString,
    pub(super) args: Vec<OsString>,
    pub(super) user: Option<u32>,
}

impl Runtime {
    /// `by_shell`: a script without an interpreter line, which `exec` alone refuses. `stdin`: what came with
    /// "go", if anything did.
    pub(super) fn command(&self, by_shell: bool, stdin: Option<&OwnedFd>) -> io::Result<Command> {
        let mut command = match by_shell {
            false => Command::new(&self.program),
            true => Command::new("/bin/sh"),
        };
        if by_shell {
            command.arg(&self.program);
        }
        let stdin = stdin.map(OwnedFd::try_clone).transpose()?.map_or_else(Stdio::null, Stdio::from);
        command.args(&self.args).env_clear().envs(revealed_environment()).stdin(stdin);
        if let Some(user) = self.user {
            // Root's other groups go as well: the library sees to that when root becomes somebody else.
            command.uid(user).gid(user);
        }
        Ok(command)
    }
}

/// What the helper is to the processes below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// PID 1: its own end is the end of all.
    Init,
    /// A child subreaper: it has to end all before it ends.
    Reaper,
}

/// Waits for "go", runs the program to its end, ends everything below, and tells how it ended in its last
/// word. (As PID 1 it tells it first: everything below ends with it, before anybody sees that it has.)
///
/// Meanwhile it makes sockets of its network for the node, where that is another one.
pub(super) fn watch_over(
    role: Role,
    runtime: &Runtime,
    lease: Option<Lease>,
    maker: Option<&SocketMaker>,
) -> Result<(), String> {
    watch(role, lease, |orders, stdin| run(orders, runtime, stdin.as_ref(), maker))
}

/// The same for a runtime that is there already, as a child that waits: it goes when `go` is written to.
pub(super) fn watch_over_waiting(
    role: Role,
    runtime: Pid,
    go: OwnedFd,
    lease: Option<Lease>,
) -> Result<(), String> {
    watch(role, lease, |orders, _| {
        let signals = hear_children()?;
        write(&go, &[GO]).map_err(told("letting it go"))?;
        drop(go);
        until_ended(runtime, orders, &signals, None)
    })
}

fn watch(
    role: Role,
    lease: Option<Lease>,
    start: impl FnOnce(&Orders<'_>, Option<OwnedFd>) -> Result<Ended, String>,
) -> Result<(), String> {
    // Nothing interrupts it; what it must hear it reads.
    block(&SigSet::all())?;
    // Opened now: whoever may limit its descriptors later does not keep it from its work.
    let children = Children::open().map_err(|error| format!("its children cannot be listed: {error}"))?;
    if role == Role::Reaper {
        prctl::set_child_subreaper(true).map_err(told("PR_SET_CHILD_SUBREAPER"))?;
    }
    // A runtime of the same user must not trace it.
    prctl::set_dumpable(false).map_err(told("PR_SET_DUMPABLE"))?;
    let stdin = io::stdin();
    let line = stdin.as_fd();
    let lease = lease.map(Lease::into_timer).transpose().map_err(|error| format!("the lease: {error}"))?;
    let orders = Orders { line, lease: lease.as_ref() };
    let ended = match orders.first() {
        Ok(First::Over) => Ok(Ended::LeaseOver),
        Ok(First::Order(GO, stdin)) => start(&orders, stdin),
        Ok(First::Order(..)) => Ok(Ended::Code(NEVER_WENT)),
        Err(why) => Err(why),
    };
    if role == Role::Reaper {
        // Whatever happened: a reaper ends everything before it ends.
        children.end_all().map_err(|error| format!("what it left cannot be ended: {error}"))?;
    }
    let ended = ended.unwrap_or_else(|why| complain(&why));
    write(line, &ended.word()).map(drop).map_err(told("its last word"))
}

#[allow(clippy::print_stderr)] // its stderr is the instance's captured output
fn complain(why: &str) -> Ended {
    eprintln!("quell instance: {why}");
    Ended::Code(HELPER_FAILED)
}

fn told(what: &str) -> impl Fn(Errno) -> String {
    move |error| format!("{what}: {error}")
}

fn block(signals: &SigSet) -> Result<(), String> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(signals), None).map_err(told("signal mask"))
}

fn hear_children() -> Result<SignalFd, String> {
    let mut child_ended = SigSet::empty();
    child_ended.add(Signal::SIGCHLD);
    SignalFd::with_flags(&child_ended, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(told("signalfd"))
}

/// From where it hears what to do.
struct Orders<'a> {
    line: BorrowedFd<'a>,
    /// Where the node has a lease.
    lease: Option<&'a LeaseTimer>,
}

/// What it hears first.
enum First {
    Order(u8, Option<OwnedFd>),
    Over,
}

impl Orders<'_> {
    fn lease_is_over(&self) -> Result<bool, String> {
        let over = self.lease.map_or(Ok(false), LeaseTimer::is_over);
        over.map_err(|error| format!("the lease: {error}"))
    }

    /// Waits for the first order, and looks at the lease before it is heeded.
    fn first(&self) -> Result<First, String> {
        if let Some(lease) = self.lease {
            loop {
                // Looked at first: that sets the timer.
                if self.lease_is_over()? {
                    return Ok(First::Over);
                }
                let watched = [self.line, lease.as_fd()];
                let mut fds = watched.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
                wait(&mut fds, PollTimeout::NONE)?;
                if is_ready(&fds, Some(0)) && !self.lease_is_over()? {
                    break;
                }
            }
        }
        let (byte, stdin) = first_order(self.line).map_err(|error| format!("its line: {error}"))?;
        Ok(First::Order(byte, stdin))
    }
}

fn wait(fds: &mut [PollFd<'_>], limit: PollTimeout) -> Result<(), String> {
    match poll(fds, limit) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(told("poll")(error)),
    }
}

/// Whether there is something to read at this place, or nothing ever will be.
fn is_ready(fds: &[PollFd<'_>], at: Option<usize>) -> bool {
    at.and_then(|at| fds.get(at)?.revents()).is_some_and(|events| !events.is_empty())
}

fn run(
    orders: &Orders<'_>,
    runtime: &Runtime,
    stdin: Option<&OwnedFd>,
    maker: Option<&SocketMaker>,
) -> Result<Ended, String> {
    let signals = hear_children()?;
    // A mask is inherited, and a runtime must hear every signal.
    block(&SigSet::empty())?;
    let start = |by_shell| runtime.command(by_shell, stdin)?.process_group(0).spawn();
    let mut started = start(false);
    if started.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENOEXEC)) {
        started = start(true);
    }
    block(&SigSet::all())?;
    match started {
        Ok(child) => until_ended(Pid::from_raw(child.id().cast_signed()), orders, &signals, maker),
        Err(error) => {
            let missing = error.kind() == io::ErrorKind::NotFound;
            complain(&format!("{}: {error}", runtime.program.to_string_lossy()));
            Ok(Ended::Code(if missing { NOT_FOUND } else { CANNOT_EXECUTE }))
        }
    }
}

/// The first byte of its line, and what was handed over with it. A line that has ended says 0.
pub(super) fn first_order(line: BorrowedFd<'_>) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut byte = [0];
    let (_, handed) = handing::receive(line, &mut byte)?;
    Ok((byte[0], handed.into_iter().next()))
}

/// The next byte of its line; `None` at its end.
fn next_order(line: BorrowedFd<'_>) -> Result<Option<u8>, Errno> {
    let mut byte = [0];
    loop {
        match read(line, &mut byte) {
            Ok(0) => return Ok(None),
            // A line that was reset has ended.
            Err(Errno::ECONNRESET) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reaps whatever ends, passes on the soft signal, until the runtime has ended or the line has, or the lease.
///
/// A lease costs nothing: its timer is set to the end that was read last, and the page is read again only then,
/// so a helper wakes once in a lease, however often that is renewed.
fn until_ended(
    runtime: Pid,
    orders: &Orders<'_>,
    signals: &SignalFd,
    mut maker: Option<&SocketMaker>,
) -> Result<Ended, String> {
    loop {
        // First, too: what ended while no signal was blocked left none behind.
        signals.read_signal().map_err(told("signalfd"))?;
        let reaped = reap(runtime).map_err(told("waitpid"))?;
        if let Reaped::Runtime(ended) = reaped {
            return Ok(ended);
        }
        let limit = if matches!(reaped, Reaped::MoreToCome) { PollTimeout::ZERO } else { PollTimeout::NONE };
        let lease = orders.lease.map(|lease| lease.as_fd());
        let watched = [Some(signals.as_fd()), Some(orders.line), lease, maker.map(|maker| maker.as_fd())];
        let mut fds: Vec<PollFd<'_>> =
            watched.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        wait(&mut fds, limit)?;
        if is_ready(&fds, lease.map(|_| 2)) && orders.lease_is_over()? {
            return Ok(Ended::LeaseOver);
        }
        if is_ready(&fds, Some(1)) {
            match next_order(orders.line).map_err(told("its line"))? {
                None => return Ok(Ended::KILLED),
                // It has not been reaped, so its number and its group's are its own.
                Some(TERMINATE) => {
                    signal_group(runtime, Signal::SIGTERM).map_err(told("SIGTERM"))?;
                    signal_group(runtime, Signal::SIGCONT).map_err(told("SIGCONT"))?;
                }
                Some(RETIRE) => {
                    signal_child(runtime, Signal::SIGTERM).map_err(told("SIGTERM"))?;
                    signal_child(runtime, Signal::SIGCONT).map_err(told("SIGCONT"))?;
                }
                Some(_) => {}
            }
        }
        let asked = is_ready(&fds, maker.map(|_| 2 + usize::from(lease.is_some())));
        maker = maker.filter(|maker| !asked || maker.answer());
    }
}

#[expect(clippy::disallowed_methods, reason = "its own child, which it alone reaps and has not: `reap`")]
fn signal_group(leader: Pid, signal: Signal) -> Result<(), Errno> {
    match nix::sys::signal::killpg(leader, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error),
    }
}

/// One child that has ended, collected; `None` if there is none now, ECHILD if there is no child at all.
fn collect(how: libc::c_int) -> Result<Option<(Pid, Ended)>, Errno> {
    let mut status = 0;
    // SAFETY: writes one integer, which is ours.
    #[expect(unsafe_code, reason = "the safe form fails on a child that a realtime signal ended")]
    let pid = unsafe { libc::waitpid(-1, &raw mut status, how | libc::__WALL) };
    let pid = Errno::result(pid)?;
    let small = |number: i32| u8::try_from(number & 0xff).unwrap_or(0);
    let ended = match libc::WIFEXITED(status) {
        true => Ended::Code(small(libc::WEXITSTATUS(status))),
        false => Ended::Signal(small(libc::WTERMSIG(status))),
    };
    Ok((pid > 0).then(|| (Pid::from_raw(pid), ended)))
}

/// Children collected before its orders are looked at again: a runtime whose children end without a pause must
/// not keep it from them.
const REAPED_AT_ONCE: usize = 256;

enum Reaped {
    Runtime(Ended),
    Others,
    MoreToCome,
}

/// Collects children that have ended, a bounded number; how the runtime did, if it is among them.
fn reap(runtime: Pid) -> Result<Reaped, Errno> {
    for _ in 0..REAPED_AT_ONCE {
        match collect(libc::WNOHANG) {
            Ok(Some((pid, ended))) if pid == runtime => return Ok(Reaped::Runtime(ended)),
            Ok(Some(_)) | Err(Errno::EINTR) => {}
            Ok(None) | Err(Errno::ECHILD) => return Ok(Reaped::Others),
            Err(error) => return Err(error),
        }
    }
    Ok(Reaped::MoreToCome)
}

/// The kernel's list of this process' children, the dead included.
struct Children(File);

/// One read of it.
const LIST_BYTES: usize = 4_096;

impl Children {
    fn open() -> io::Result<Self> {
        let own = std::process::id();
        File::open(format!("/proc/self/task/{own}/children")).map(Self)
    }

    fn list(&self) -> io::Result<Vec<Pid>> {
        let (mut text, mut part) = (Vec::new(), [0; LIST_BYTES]);
        loop {
            match self.0.read_at(&mut part, text.len() as u64)? {
                0 => break,
                size => text.extend_from_slice(&part[..size]),
            }
        }
        let text = String::from_utf8_lossy(&text);
        Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).collect())
    }

    /// Kills children until the kernel says that there are none: as a subreaper it inherits whatever the
    /// dead leave, so then no descendant is left (`containment.md` 2.4).
    fn end_all(&self) -> io::Result<()> {
        // Unreaped, so no other process can have one of these numbers.
        let mut struck = HashSet::new();
        loop {
            for child in self.list()? {
                if struck.insert(child) {
                    signal_child(child, Signal::SIGKILL)?;
                }
            }
            // Waits for one, and takes all that have ended by then: what they leave is struck next.
            let mut how = 0;
            loop {
                match collect(how) {
                    Ok(None) => break,
                    Ok(Some((pid, _))) => {
                        struck.remove(&pid);
                        how = libc::WNOHANG;
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::ECHILD) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "its own child, which it alone reaps and has not")]
fn signal_child(child: Pid, signal: Signal) -> Result<(), Errno> {
    match nix::sys::signal::kill(child, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error),
    }
}
