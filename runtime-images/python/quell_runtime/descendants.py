"""The processes below this one: who they are, and how all of them end.

As a subreaper this process inherits every orphan, so "no child but those of
before" means that nothing a request started is alive, however it detached.
A process is (pid, start time): a number that was reused is another process.
"""

import os
import select
import signal

WALL = 0x40000000
"""__WALL of waitpid: also children made by clone without SIGCHLD."""

LAST_STRIKE_ROUNDS = 16
"""Of `strike_all`, which must not hang: a bomb that outruns these is ended by the node."""


def has_children():
    """Whether this process has any child, dead ones not yet reaped included: one system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def baseline():
    """All processes below this one now. Cheap if there are none, the usual case."""
    if not has_children():
        return frozenset()
    return frozenset(_tree(children_of("self")))


def children_of(pid):
    """The (pid, start time) of the direct children of `pid` ("self" for this process)."""
    found = []
    try:
        tasks = os.listdir("/proc/%s/task" % pid)
    except OSError:
        return found
    for task in tasks:
        try:
            with open("/proc/%s/task/%s/children" % (pid, task), "rb") as file:
                numbers = file.read().split()
        except OSError:
            continue
        for number in numbers:
            start = start_time(int(number))
            if start is not None:
                found.append((int(number), start))
    return found


def start_time(pid):
    """When `pid` started, in clock ticks since boot; None if there is no such process."""
    fields = stat_fields(pid)
    return None if fields is None else fields[19]


def stat_fields(pid):
    """The fields of /proc/PID/stat from the state on; None if there is no such process."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as file:
            # The name may hold spaces and brackets, the last bracket ends it.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


def _tree(roots):
    """`roots` and everything below them, parents first."""
    found = list(roots)
    seen = set(found)
    for process in found:  # grows while it runs
        for child in children_of(process[0]):
            if child not in seen:
                seen.add(child)
                found.append(child)
    return found


def kill_trees(roots):
    """SIGKILLs `roots` and all below them; returns when each of those is dead.

    What they forked meanwhile is left to the caller's next round.
    """
    struck = []
    try:
        for process in _tree(roots):
            handle = _strike(process)
            if handle is not None:
                struck.append(handle)
        for handle in struck:
            # Readable when dead. Without limit: to return early would be to lie.
            poller = select.poll()
            poller.register(handle, select.POLLIN)
            poller.poll()
    finally:
        for handle in struck:
            os.close(handle)


def _strike(process):
    """SIGKILL through a pidfd, which cannot hit a reused number; the pidfd, or None if gone."""
    pid, start = process
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if start_time(pid) != start:
        os.close(handle)
        return None
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass  # dead already, the pidfd says so too
    except PermissionError:
        pass  # another user's: we wait for its end and acknowledge nothing before
    return handle


def kill_all_but(spared):
    """SIGKILLs and reaps every descendant not in `spared` ((pid, start time) pairs).

    Returns when the kernel lists none, or says that there is no child at all.
    """
    while has_children():
        strangers = [child for child in children_of("self") if child not in spared]
        if not strangers:
            return
        kill_trees(strangers)
        for pid, _ in strangers:
            reap(pid)


def reap(pid):
    """Collects a dead or dying child; harmless if somebody else did."""
    try:
        os.waitpid(pid, WALL)
    except ChildProcessError:
        pass


def strike_all():
    """SIGKILLs all descendants without waiting: for the last moment of this process."""
    for _ in range(LAST_STRIKE_ROUNDS):
        alive = False
        for process in _tree(children_of("self")):
            fields = stat_fields(process[0])
            if fields is None or fields[0] in (b"Z", b"X"):
                continue
            alive = True
            handle = _strike(process)
            if handle is not None:
                os.close(handle)
        if not alive:
            return
