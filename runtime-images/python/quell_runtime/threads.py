"""Threads that user code started: code of the request too, and Python cannot kill them."""

import sys
import threading

from quell_runtime.errors import InvocationCanceled

RECHECK_S = 0.01
"""A pool's thread is done when it waits for its next job, which nothing reports."""


def baseline():
    """The threads that exist now."""
    return frozenset(threading.enumerate()) if threading.active_count() > 1 else frozenset()


def running_since(before):
    """Live threads that are not in `before`, ours, or pool threads without a job."""
    if threading.active_count() <= 1:
        return []
    frames = sys._current_frames()
    # Ours would refer to itself through this, and keep all that its callers hold.
    frames.pop(threading.get_ident(), None)
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before
        and thread is not threading.main_thread()
        and not getattr(thread, "quell_own", False)
        and not _is_idle_pool_thread(frames.get(thread.ident))
    ]


def _is_idle_pool_thread(frame):
    return (
        frame is not None
        and frame.f_code.co_name == "_worker"
        and frame.f_code.co_filename.endswith("concurrent/futures/thread.py")
    )


def interrupt(threads):
    """Raises InvocationCanceled in each, between two bytecodes: blocking calls go on."""
    if not threads:
        return
    import ctypes

    for thread in threads:
        if thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident), ctypes.py_object(InvocationCanceled)
            )


def end_all_since(before, interrupted=()):
    """Returns when no thread started since `before` runs; for ever if one does not end.

    Then nothing is acknowledged, and the node kills the instance after the grace.
    """
    done = set(interrupted)
    while True:
        running = running_since(before)
        if not running:
            return
        fresh = [thread for thread in running if thread not in done]
        interrupt(fresh)
        done.update(fresh)
        running[0].join(RECHECK_S)
