//! The helper that becomes a runtime: joins its leaf, waits for "go", executes. Runs in a process of
//! its own, before anything else of the program, single-threaded.
//!
//! It is bound to the node by PDEATHSIG, which survives exec: a node that dies takes its runtimes'
//! main processes with it, and the next life sweeps the leaves.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read as _, Write as _},
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use nix::{
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigSet, Signal},
    },
    unistd::getppid,
};

use super::inherited;

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
/// Open files of a runtime, unless it raises that itself: more makes programs slow that close all they
/// might have.
const OPEN_FILES: u64 = 1_024;
/// Stands for "no leaf" in the arguments.
pub(super) const NO_LEAF: &str = "-";
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

/// `<parent pid> <leaf or -> <program> <args...>`. Returns only if the runtime was not executed: 127 if
/// there is no such program, 126 if it cannot be executed, 125 if it was never let go, 124 if the
/// helper could not do its part.
pub fn instance_init(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(parent), Some(leaf), Some(program)) = (args.next(), args.next(), args.next()) else {
        return say(HELPER_FAILED, "bad arguments");
    };
    if let Err(why) = prepare(&parent, &leaf) {
        return say(HELPER_FAILED, &why);
    }
    let mut byte = [0];
    match std::io::stdin().read_exact(&mut byte) {
        Ok(()) if byte[0] == GO => {}
        Ok(()) | Err(_) => return ExitCode::from(NEVER_WENT),
    }
    let env = std::env::vars_os().filter_map(|(name, value)| Some((revealed(&name)?.to_owned(), value)));
    let error = Command::new(&program).args(args).env_clear().envs(env).stdin(Stdio::null()).exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE };
    say(code, &format!("{}: {error}", program.to_string_lossy()))
}

fn prepare(parent: &OsString, leaf: &OsString) -> Result<(), String> {
    let parent: i32 = parent.to_str().and_then(|pid| pid.parse().ok()).ok_or("bad parent pid")?;
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("PDEATHSIG: {error}"))?;
    // The parent may have died before the line above.
    if getppid().as_raw() != parent {
        return Err("the node is gone".to_owned());
    }
    if leaf != NO_LEAF {
        let procs = Path::new(leaf).join("cgroup.procs");
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
    inherited::default_signals().map_err(|error| format!("signals: {error}"))?;
    inherited::close_at_exec().map_err(|error| format!("descriptors: {error}"))?;
    SigSet::empty().thread_set_mask().map_err(|error| format!("signal mask: {error}"))
}

#[allow(clippy::print_stderr)] // its stderr is the instance's captured output
fn say(code: u8, why: &str) -> ExitCode {
    eprintln!("quell instance: {why}");
    ExitCode::from(code)
}
