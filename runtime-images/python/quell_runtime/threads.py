"""Threads that run code of a request: Python cannot kill them, so they are told, and waited for.

What counts is where each thread stands. One that is new since a request began, or
that has left the place where it stood then, runs something. Perhaps for this request:
and with a "perhaps" nobody may say that its code has ended. (A thread of a pool that
waits for its next job runs nothing, wherever it stood before.)
"""

import os
import signal
import sys
import threading
import time

from quell_runtime.errors import InvocationCanceled

RECHECK_S = 0.01
"""A thread is done when it waits for its next job, which nothing reports."""

DEEPEST = 100
"""Frames of a stack that are compared: where a thread waits shows in the last few."""

TASKS = "/proc/self/task"

TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)


class Snapshot:
    """The threads of this process, and where each of them stands."""

    __slots__ = ("places", "natives")

    def __init__(self):
        frames = _others()
        self.places = {ident: _place(frame) for ident, frame in frames.items()}
        self.natives = _native_threads(len(frames))

    def running(self):
        """The idents of threads that are new or have left their place, and run something."""
        return [
            ident
            for ident, frame in _others().items()
            if not _is_idle_pool_thread(frame) and self.places.get(ident) != _place(frame)
        ]

    def has_new_natives(self):
        """Whether there are more threads without a Python frame than there were: who knows what they do."""
        return _native_threads(len(_others())) > self.natives

    def may_interrupt(self, ident, frame=None):
        """Whether a thread that runs is the request's for sure: it is new, or a pool's at a new job."""
        frame = frame or sys._current_frames().get(ident)
        return frame is not None and (ident not in self.places or _is_pool_thread(frame))


def be_ours():
    """Has the calling thread count as one of this package's."""
    threading.current_thread().quell_own = True


def _others():
    """The frames of all threads but this one and those of this package."""
    own = [t.ident for t in threading.enumerate() if getattr(t, "quell_own", False)]
    frames = sys._current_frames()
    # Ours would refer to itself through this, and keep all that its callers hold.
    for ident in (threading.get_ident(), *own):
        frames.pop(ident, None)
    return frames


def _native_threads(others):
    own = sum(1 for t in threading.enumerate() if getattr(t, "quell_own", False))
    # A folder has a link for itself, one from above, and one from each folder in it.
    return os.stat(TASKS).st_nlink - 2 - 1 - own - others


def _place(frame):
    place = []
    while frame is not None and len(place) < DEEPEST:
        place.append((frame.f_code, frame.f_lasti))
        frame = frame.f_back
    return tuple(place)


def _is_idle_pool_thread(frame):
    return frame.f_code.co_name == "_worker" and frame.f_code.co_filename.endswith(
        "concurrent/futures/thread.py"
    )


def _is_pool_thread(frame):
    while frame is not None:
        if _is_idle_pool_thread(frame):
            return True
        frame = frame.f_back
    return False


def interrupt(idents):
    """Raises InvocationCanceled in each, between two bytecodes: blocking calls go on."""
    if not idents:
        return
    import ctypes

    for ident in idents:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(ident), ctypes.py_object(InvocationCanceled)
        )


def end_all_since(before, interrupted=()):
    """Returns when no thread runs anything that did not run at `before`.

    If that never comes nothing is acknowledged, and the node kills the instance after the grace.
    """
    disarm_timers()
    done = set(interrupted)
    while True:
        running = before.running()
        if not running and not before.has_new_natives():
            return
        fresh = [ident for ident in running if ident not in done and before.may_interrupt(ident)]
        interrupt(fresh)
        done.update(fresh)
        time.sleep(RECHECK_S)


def disarm_timers():
    """Stops the timers whose signals would run the request's handlers. In the main thread."""
    for timer in TIMERS:
        if signal.getitimer(timer)[0]:
            signal.setitimer(timer, 0)
