//! What a helper inherits through exec and must not pass on to a runtime.

use nix::{
    errno::Errno,
    libc,
    sys::signal::{SigHandler, Signal, signal},
};

/// Lets every signal do what it does by default: a node below `nohup`, or below a parent that ignores
/// SIGCHLD or SIGTERM, would otherwise hand that to runtimes, which then cannot wait for their children
/// or do not hear the soft signal.
pub(super) fn default_signals() -> Result<(), Errno> {
    for each in Signal::iterator().filter(|each| !matches!(each, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: installs no handler, so no code of ours can run in a signal; the helper is
        // single-threaded and has nothing that relies on another disposition.
        #[expect(unsafe_code, reason = "nix has no safe form, not even for the default action")]
        unsafe { signal(each, SigHandler::SigDfl) }?;
    }
    Ok(())
}

/// Marks every descriptor but the standard three to be closed by exec: a library of the node may have
/// opened one without.
pub(super) fn close_at_exec() -> Result<(), Errno> {
    // SAFETY: closes nothing now and touches no memory; a descriptor that is closed by exec is not
    // used after it.
    #[expect(unsafe_code, reason = "neither nix nor rustix has a safe form")]
    let marked = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(marked).map(drop)
}
