"""What Linux is asked of a process that runs user code, and its sudden end."""

import os
import signal

from quell_runtime import descendants

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

EXIT_NODE_GONE = 1


def become_subreaper():
    """Makes orphaned descendants children of this process, also after setsid or a double fork.

    False where the system refuses: then only processes still below us are found.
    """
    return _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent_pid):
    """Has the kernel kill this process when its parent ends; ends it if that already happened."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(EXIT_NODE_GONE)


def _prctl(option, argument):
    try:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        return libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) == 0
    except (ImportError, OSError, AttributeError):
        return False


def end_instance(status=EXIT_NODE_GONE):
    """Kills all descendants and ends this process at once, from any thread."""
    try:
        descendants.strike_all()
    finally:
        os._exit(status)
