"""What a cancelled request started and left: the node is told that its code has ended only when none is left."""

import ctypes
import os
import signal
import sys
import threading

from quell_lambda.errors import InvocationCanceled

PR_SET_CHILD_SUBREAPER = 36


def become_subreaper():
    """What a request's processes leave behind becomes our child, however it detached."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        print("quell: detached processes of cancelled requests are not seen", file=sys.stderr)


class Before:
    """Threads and processes there were when a request began."""

    def __init__(self):
        self._threads = set(sys._current_frames())
        self._children = _children()

    def end_what_came_since(self):
        """Returns when all of it is gone. A thread in a call that does not end holds this up, and the node
        ends the instance: rather a killed runtime than a false "stopped"."""
        self._end_threads()
        self._end_processes()

    def _end_threads(self):
        own = {thread.ident for thread in threading.enumerate() if hasattr(thread, "quell_own")}
        new = set(sys._current_frames()) - self._threads - own
        for ident in new:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(ident), ctypes.py_object(InvocationCanceled)
            )
        for thread in threading.enumerate():
            if thread.ident in new:
                thread.join()
        if new & set(sys._current_frames()):
            threading.Event().wait()  # one that nobody can wait for: the node decides

    def _end_processes(self):
        # What is killed leaves its own children to us: round after round, until there are none.
        while True:
            new = _children() - self._children
            if not new:
                return
            for pid in new:
                os.kill(pid, signal.SIGKILL)  # ours and not reaped: the number is its own
            for pid in new:
                try:
                    os.waitpid(pid, 0)
                except ChildProcessError:
                    pass  # reaped meanwhile by whoever of the process waits for its children


def _children():
    children = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open("/proc/self/task/%s/children" % task) as listed:
                children.update(int(pid) for pid in listed.read().split())
        except FileNotFoundError:
            pass  # a thread that has just ended; its children are another's now
    return children
