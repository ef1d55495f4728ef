"""A PID namespace for one forked instance, made without privilege: what the node's helper does for others.

The node asks the kernel whether there is one, and says of the instance what it has. Nothing here is a promise.
"""

import ctypes
import os

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18

CAPABILITY_VERSION_3 = 0x20080522

TMP = "/tmp"
SHM = "/dev/shm"

_libc = ctypes.CDLL(None, use_errno=True)


def make():
    """Has the next child of this process be PID 1 of a namespace; False where that is not allowed.

    In a user namespace, with the same user inside as outside.
    """
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC) != 0:
        return False
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", "%d %d 1" % (user, user))
    _write("/proc/self/gid_map", "%d %d 1" % (group, group))
    return True


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


def furnish(tmp, keep):
    """In PID 1: its own /proc, and its own /tmp and /dev/shm of `tmp` bytes, in which `keep` stay where they are."""
    here = os.getcwd()
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    size = "size=%d,mode=1777" % tmp
    if os.path.isdir(SHM):
        _mount("tmpfs", SHM, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, size)
    held = [(path, os.open(path, os.O_PATH | os.O_DIRECTORY)) for path in keep if path.startswith(TMP + "/")]
    _mount("tmpfs", TMP, "tmpfs", MS_NOSUID | MS_NODEV, size)
    for path, number in held:
        os.makedirs(path, exist_ok=True)
        _mount("/proc/self/fd/%d" % number, path, None, MS_BIND | MS_REC)
        os.close(number)
    os.chdir(here)  # by the path, which leads into the new mounts


def _mount(source, target, kind, flags, data=None):
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    if _libc.mount(*words, ctypes.c_ulong(flags), None if data is None else data.encode()) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), target)


def give_up_privileges():
    """What the user namespace gave this process it needs no more."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")
