//! The helper that stays: parent of the runtime, reaper of everything it leaves, and its end.
//!
//! Runs in a process of its own, single-threaded, as PID 1 of a namespace or as a child subreaper. It
//! knows four things: a byte "go", a byte "terminate", the end of its line (kill everything), and that
//! a child has ended. When the runtime ends, everything below ends with it, and then the helper does.

use std::{
    collections::HashSet,
    fs, io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, SigmaskHow, Signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, read, write},
};

use super::init::{CANNOT_EXECUTE, CLEAN, GO, NEVER_WENT, NOT_FOUND, TERMINATE};

/// How a runtime, or the helper in its place, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Code(u8),
    Signal(Signal),
}

/// What the helper is to the processes below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// PID 1: its own end is the end of all.
    Init,
    /// A child subreaper: it has to end all before it ends.
    Reaper,
}

/// Waits for "go", runs the program to its end, ends everything below. Returns how it ended.
pub(super) fn watch_over(role: Role, runtime: &mut Command) -> Result<Ended, String> {
    // Nothing interrupts it; what it must hear it reads.
    block(&SigSet::all())?;
    if role == Role::Reaper {
        prctl::set_child_subreaper(true).map_err(told("PR_SET_CHILD_SUBREAPER"))?;
        children().map_err(|error| format!("its children cannot be listed: {error}"))?;
    }
    // A runtime of the same user must not trace it.
    prctl::set_dumpable(false).map_err(told("PR_SET_DUMPABLE"))?;
    let stdin = io::stdin();
    let line = stdin.as_fd();
    let ended = match next_order(line).map_err(told("its line"))? {
        Some(GO) => run(line, runtime)?,
        Some(_) | None => Ended::Code(NEVER_WENT),
    };
    if role == Role::Reaper {
        end_all().map_err(|error| format!("what it left cannot be ended: {error}"))?;
        write(line, &[CLEAN]).map_err(told("its last word"))?;
    }
    Ok(ended)
}

fn told(what: &str) -> impl Fn(Errno) -> String {
    move |error| format!("{what}: {error}")
}

fn block(signals: &SigSet) -> Result<(), String> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(signals), None).map_err(told("signal mask"))
}

fn run(line: BorrowedFd<'_>, runtime: &mut Command) -> Result<Ended, String> {
    let mut child_ended = SigSet::empty();
    child_ended.add(Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&child_ended, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(told("signalfd"))?;
    // A mask is inherited, and a runtime must hear every signal.
    block(&SigSet::empty())?;
    let started = runtime.process_group(0).spawn();
    block(&SigSet::all())?;
    match started {
        Ok(child) => until_ended(Pid::from_raw(child.id().cast_signed()), line, &signals),
        Err(error) => Ok(not_executed(runtime, &error)),
    }
}

#[allow(clippy::print_stderr)] // its stderr is the instance's captured output
fn not_executed(runtime: &Command, error: &io::Error) -> Ended {
    eprintln!("quell instance: {}: {error}", runtime.get_program().to_string_lossy());
    let missing = error.kind() == io::ErrorKind::NotFound;
    Ended::Code(if missing { NOT_FOUND } else { CANNOT_EXECUTE })
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

/// Reaps whatever ends, passes on the soft signal, until the runtime has ended or the line has.
fn until_ended(runtime: Pid, line: BorrowedFd<'_>, signals: &SignalFd) -> Result<Ended, String> {
    loop {
        // First, too: what ended while no signal was blocked left none behind.
        while signals.read_signal().map_err(told("signalfd"))?.is_some() {}
        if let Some(ended) = reap(runtime).map_err(told("waitpid"))? {
            return Ok(ended);
        }
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(line, PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(told("poll")(error)),
        }
        if fds[1].revents().is_some_and(|events| !events.is_empty()) {
            match next_order(line).map_err(told("its line"))? {
                None => return Ok(Ended::Signal(Signal::SIGKILL)),
                // It has not been reaped, so its number and its group's are its own.
                Some(TERMINATE) => {
                    signal_group(runtime, Signal::SIGTERM).map_err(told("SIGTERM"))?;
                    signal_group(runtime, Signal::SIGCONT).map_err(told("SIGCONT"))?;
                }
                Some(_) => {}
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "its own child, which it alone reaps and has not: `reap`")]
fn signal_group(leader: Pid, signal: Signal) -> Result<(), Errno> {
    match nix::sys::signal::killpg(leader, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Collects every child that has ended; how the runtime did, if it is among them.
fn reap(runtime: Pid) -> Result<Option<Ended>, Errno> {
    let mut ended = None;
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == runtime => {
                ended = Some(Ended::Code(u8::try_from(code & 0xff).unwrap_or(0)));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == runtime => ended = Some(Ended::Signal(signal)),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(ended),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Kills children until the kernel says that there are none: as a subreaper it inherits whatever the
/// dead leave, so then no descendant is left (`containment.md` 2.4).
fn end_all() -> io::Result<()> {
    // Unreaped, so no other process can have one of these numbers.
    let mut struck = HashSet::new();
    loop {
        for child in children()? {
            if struck.insert(child) {
                kill_child(child)?;
            }
        }
        // Waits for one, and takes all that have ended by then: what they leave is struck next.
        let mut how = WaitPidFlag::__WALL;
        loop {
            match waitpid(None::<Pid>, Some(how)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(ended) => {
                    if let Some(pid) = ended.pid() {
                        struck.remove(&pid);
                    }
                    how |= WaitPidFlag::WNOHANG;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "its own child, which it alone reaps and has not")]
fn kill_child(child: Pid) -> io::Result<()> {
    match nix::sys::signal::kill(child, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The direct children, the dead included.
fn children() -> io::Result<Vec<Pid>> {
    let own = std::process::id();
    let text = fs::read_to_string(format!("/proc/self/task/{own}/children"))?;
    Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).collect())
}
