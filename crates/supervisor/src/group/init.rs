//! The helper that becomes a runtime: joins its leaf, waits for "go", executes. Runs in a process of
//! its own, before anything else of the program, single-threaded.
//!
//! It is bound to the node by PDEATHSIG, which survives exec: a node that dies takes its runtimes'
//! main processes with it, and the next life sweeps the leaves.

use std::{
    ffi::OsString,
    fs::File,
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::{SigSet, Signal},
    },
    unistd::getppid,
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
/// Stands for "no leaf" in the arguments.
pub(super) const NO_LEAF: &str = "-";

/// `<parent pid> <leaf or -> <program> <args...>`. Returns only if the runtime was not executed.
pub fn instance_init(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(parent), Some(leaf), Some(program)) = (args.next(), args.next(), args.next()) else {
        return say(HELPER_FAILED, "bad arguments");
    };
    if let Err(why) = prepare(&parent, &leaf) {
        return say(HELPER_FAILED, &why);
    }
    let mut byte = [0];
    match std::io::stdin().read(&mut byte) {
        Ok(1) if byte[0] == GO => {}
        Ok(_) | Err(_) => return ExitCode::from(NEVER_WENT),
    }
    let error = Command::new(&program).args(args).stdin(Stdio::null()).exec();
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
    SigSet::empty().thread_set_mask().map_err(|error| format!("signal mask: {error}"))
}

#[allow(clippy::print_stderr)] // its stderr is the instance's captured output
fn say(code: u8, why: &str) -> ExitCode {
    eprintln!("quell instance: {why}");
    ExitCode::from(code)
}
