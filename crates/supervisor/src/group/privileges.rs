//! What a runtime that runs as root inside a namespace may not do: reach out of it.

use nix::{errno::Errno, libc};

/// Capabilities by their numbers in linux/capability.h: with one of these a process inside can undo its
/// mounts, enter other namespaces, trace or read others, or change the kernel under everybody.
const TAKEN: [(libc::c_ulong, &str); 13] = [
    (2, "DAC_READ_SEARCH"),
    (16, "SYS_MODULE"),
    (17, "SYS_RAWIO"),
    (18, "SYS_CHROOT"),
    (19, "SYS_PTRACE"),
    (21, "SYS_ADMIN"),
    (22, "SYS_BOOT"),
    (27, "MKNOD"),
    (32, "MAC_OVERRIDE"),
    (33, "MAC_ADMIN"),
    (38, "PERFMON"),
    (39, "BPF"),
    (40, "CHECKPOINT_RESTORE"),
];

/// Takes them from whatever is executed from now on. The helper itself keeps what it has.
pub(super) fn drop_most() -> Result<(), String> {
    for (number, name) in TAKEN {
        // SAFETY: takes a number and touches no memory of ours.
        #[expect(unsafe_code, reason = "neither nix nor rustix has a safe form")]
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        match Errno::result(dropped) {
            Ok(_) => {}
            // Unknown to an older kernel, or not ours to take: then it is not there to be used.
            Err(Errno::EINVAL | Errno::EPERM) => {}
            Err(error) => return Err(format!("capability {name}: {error}")),
        }
    }
    Ok(())
}
