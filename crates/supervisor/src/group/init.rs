//! The helper in front of a runtime: joins its leaf, waits for "go", and becomes the runtime or watches
//! over it. Runs in a process of its own, before anything else of the program, single-threaded.
//!
//! It is bound to the node: by PDEATHSIG, which survives exec, or by the end of its line. A node that
//! dies takes its runtimes with it, and the next life sweeps the leaves.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::Write as _,
    os::{
        fd::{AsFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    process::ExitCode,
};

use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, Signal},
    },
    unistd::{Pid, getppid, write},
};

use super::{
    helper_order::HelperOrder,
    inherited,
    lease::Lease,
    namespace::{Inside, be_init_with_network, hold_init},
    warden::{Role, Runtime, first_order, watch_over, watch_over_waiting},
};

/// The node closed the line without "go": nothing was executed.
pub(super) const NEVER_WENT: u8 = 125;
/// The helper could not do its part; it says which on stderr.
pub(super) const HELPER_FAILED: u8 = 124;
/// There is no such program.
pub(super) const NOT_FOUND: u8 = 127;
/// The program cannot be executed.
pub(super) const CANNOT_EXECUTE: u8 = 126;
/// The byte that lets the runtime be executed.
pub(super) const GO: u8 = b'g';
/// The byte that has the soft signal sent.
pub(super) const TERMINATE: u8 = b't';
/// The byte that has the same sent to the runtime alone, which is to end by itself.
pub(super) const RETIRE: u8 = b'r';
/// The first descriptor after the standard three.
const FIRST_OF_ITS_OWN: i32 = 3;
/// The first argument of a helper that watches over a runtime which is there already.
pub(super) const WATCH: &str = "watch";
/// The same for one that is handed a lease.
pub(super) const WATCH_LEASED: &str = "watch-leased";
/// What such a helper says on its line when it is there.
pub(super) const READY: &[u8] = b"r";
/// Open files of a runtime, unless it raises that itself: more makes programs slow that close all they
/// might have.
const OPEN_FILES: u64 = 1_024;
/// Put before the name of each variable that is meant for the runtime. The helper's dynamic loader and
/// C library obey names such as `LD_PRELOAD`: unhidden, a function's environment could have its code
/// run in the helper, before "go" and outside the leaf.
const HIDING: &str = "_";

/// The name under which a runtime's variable waits in the helper.
pub(super) fn hidden(name: &OsStr) -> OsString {
    let mut hidden = OsString::from(HIDING);
    hidden.push(name);
    hidden
}

fn revealed(hidden: &OsStr) -> Option<&OsStr> {
    hidden.as_bytes().strip_prefix(HIDING.as_bytes()).map(OsStr::from_bytes)
}

/// The environment that was hidden from the helper.
pub(super) fn revealed_environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter_map(|(name, value)| Some((revealed(&name)?.to_owned(), value)))
}

/// What becomes of the helper once it may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HelperMode {
    /// It becomes the runtime.
    Exec,
    /// It stays, as a child subreaper.
    Reaper,
    /// It stays, and is PID 1 of a namespace.
    Namespace,
    /// It stays, and so does PID 1 of a namespace that it makes in a user namespace, which needs no
    /// privilege.
    UserNamespace,
}

impl HelperMode {
    pub(super) const ALL: [Self; 4] = [Self::Exec, Self::Reaper, Self::Namespace, Self::UserNamespace];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Reaper => "reaper",
            Self::Namespace => "namespace",
            Self::UserNamespace => "user-namespace",
        }
    }
}

/// Its arguments are a [`HelperOrder`]. One that stays tells how the runtime ended by its last word on its
/// line, and ends with 0. Else: as the runtime ended, 127 if there is no such program, 126 if it cannot be
/// executed, 125 if it was never let go; 124 if the helper could not do its part.
pub fn instance_init(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut args = args.peekable();
    if let Some(watch) = args.next_if(|first| first == WATCH || first == WATCH_LEASED) {
        return match watch_forked(args, watch == WATCH_LEASED) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => say(HELPER_FAILED, &why),
        };
    }
    let order = match HelperOrder::parse(args) {
        Ok(order) => order,
        Err(what) => return say(HELPER_FAILED, &format!("bad arguments: {what}")),
    };
    if let Err(why) = prepare(&order) {
        return say(HELPER_FAILED, &why);
    }
    // After what is closed by exec was marked, before anything else of the line is read.
    let lease = match order.leased.then(|| Lease::receive(std::io::stdin())).transpose() {
        Ok(lease) => lease,
        Err(why) => return say(HELPER_FAILED, &why),
    };
    let HelperOrder { mode, user, tmp, processes, keep, listen, program, args, .. } = order;
    let inside = Inside { processes, tmp, keep, listen };
    let runtime = Runtime { program, args, user };
    let ended = match mode {
        HelperMode::Exec => return become_runtime(&runtime),
        HelperMode::Reaper => watch_over(Role::Reaper, &runtime, lease, None),
        HelperMode::Namespace => be_init_with_network(&inside, &runtime, lease),
        HelperMode::UserNamespace => hold_init(&inside, &runtime, lease),
    };
    match ended {
        // How the runtime ended was told through the line; an orderly end vouches for the word.
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => say(HELPER_FAILED, &why),
    }
}

/// The helper of a runtime that a template forked (`forking`): its parent, executed in the place of a copy of
/// the template. What it joins it is in already, and what it may not do its template could not do either.
fn watch_forked(mut args: impl Iterator<Item = OsString>, leased: bool) -> Result<(), String> {
    let mut number = |what: &str, from: i32| {
        let text = args.next();
        let number = text.and_then(|text| text.to_str()?.parse().ok()).filter(|number| *number >= from);
        number.ok_or_else(|| format!("bad arguments: {what}"))
    };
    let runtime = Pid::from_raw(number("runtime", 1)?);
    let go = number("descriptor", FIRST_OF_ITS_OWN)?;
    inherited::default_signals().map_err(|error| format!("signals: {error}"))?;
    inherited::close_at_exec().map_err(|error| format!("descriptors: {error}"))?;
    // SAFETY: it was left open for this process alone, which is single-threaded and has opened nothing yet that
    // could have this number; if it is closed, its first use says so.
    #[expect(unsafe_code, reason = "a descriptor that comes through exec is a number")]
    let go = unsafe { OwnedFd::from_raw_fd(go) };
    let lease = leased.then(|| Lease::receive(std::io::stdin())).transpose()?;
    write(std::io::stdin(), READY).map_err(|error| format!("its line: {error}"))?;
    // The first of a namespace that was made for it, which the node does not take from it but from the kernel.
    let role = if std::process::id() == 1 { Role::Init } else { Role::Reaper };
    watch_over_waiting(role, runtime, go, lease)
}

fn become_runtime(runtime: &Runtime) -> ExitCode {
    let Ok((GO, stdin)) = first_order(std::io::stdin().as_fd()) else { return ExitCode::from(NEVER_WENT) };
    let error = match runtime.command(false, stdin.as_ref()) {
        Ok(mut command) => command.exec(),
        Err(error) => error,
    };
    let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE };
    say(code, &format!("{}: {error}", runtime.program.to_string_lossy()))
}

fn prepare(order: &HelperOrder) -> Result<(), String> {
    // A reaper must outlive the node to end what is below it: the end of its line tells it.
    if order.mode != HelperMode::Reaper {
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("PDEATHSIG: {error}"))?;
    }
    // The parent may have died before the line above. (PID 1 cannot see it, and has its line.)
    if order.mode != HelperMode::Namespace && getppid().as_raw().cast_unsigned() != order.parent {
        return Err("the node is gone".to_owned());
    }
    prctl::set_no_new_privs().map_err(|error| format!("NO_NEW_PRIVS: {error}"))?;
    for group in &order.groups {
        let procs = group.join("cgroup.procs");
        File::options()
            .write(true)
            .open(&procs)
            .and_then(|mut file| file.write_all(b"0"))
            .map_err(|error| format!("{}: {error}", procs.display()))?;
    }
    // A core dump of a big runtime takes seconds in which it cannot be proven dead.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|error| format!("RLIMIT_CORE: {error}"))?;
    // The node has raised its own to what is allowed; a runtime gets what programs expect.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| format!("RLIMIT_NOFILE: {error}"))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(OPEN_FILES), hard)
        .map_err(|error| format!("RLIMIT_NOFILE: {error}"))?;
    if let Some(mapped) = order.mapped {
        setrlimit(Resource::RLIMIT_DATA, mapped, mapped).map_err(|error| format!("RLIMIT_DATA: {error}"))?;
    }
    inherited::default_signals().map_err(|error| format!("signals: {error}"))?;
    inherited::close_at_exec().map_err(|error| format!("descriptors: {error}"))?;
    SigSet::empty().thread_set_mask().map_err(|error| format!("signal mask: {error}"))
}

#[allow(clippy::print_stderr)] // its stderr is the instance's captured output
pub(super) fn say(code: u8, why: &str) -> ExitCode {
    eprintln!("quell instance: {why}");
    ExitCode::from(code)
}
