"""Async handlers share one process: which request started which process, task or thread.

The request in whose context something is started owns it. A process also
carries its request in an environment variable, so that it is found when the
process between it and us is gone.
"""

import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

from quell_runtime import descendants

OWNER = ContextVar("quell_owner", default=None)

MARKER = "QUELL_INVOCATION"
"""The variable that names the invocation a process belongs to."""

ENV_POSITION = 10
"""Where `env` stands among Popen's arguments, for the rare call by position."""


class Owned:
    """What one request has started and may still run."""

    def __init__(self, invocation_id):
        self.invocation_id = invocation_id
        self.live = True
        self.processes = set()
        self.tasks = set()
        self.jobs = set()


def adopt(context):
    """Has what runs in this context belong to whoever hands it over, unless it belongs to somebody."""
    owner = OWNER.get()
    if owner is not None and context.get(OWNER) is None:
        context.run(OWNER.set, owner)


def install_threads():
    """Has threads belong to the request that starts them, and what they call back, too."""
    original = threading.Thread.start

    def start(thread):
        owner = OWNER.get()
        if owner is not None:
            run = thread.run

            def owned_run():
                OWNER.set(owner)
                run()

            thread.quell_owner = owner
            thread.run = owned_run
        original(thread)

    threading.Thread.start = start


def install_popen():
    """Puts the tracking class in the place of subprocess.Popen; asyncio uses it too."""
    original = subprocess.Popen

    class Popen(original):
        """subprocess.Popen that remembers for which request it was called."""

        def __init__(self, *args, **kwargs):
            owner = OWNER.get()
            if owner is not None and len(args) <= ENV_POSITION:
                kwargs["env"] = _marked(kwargs.get("env"), owner)
            super().__init__(*args, **kwargs)
            if owner is not None:
                owner.processes.add((self.pid, descendants.start_time(self.pid)))

    Popen.__name__ = Popen.__qualname__ = "Popen"
    subprocess.Popen = Popen


def _marked(env, owner):
    import os

    marked = dict(os.environ if env is None else env)
    marked[MARKER] = owner.invocation_id
    return marked


class TrackingExecutor(ThreadPoolExecutor):
    """The loop's default pool: remembers which request a job belongs to."""

    def submit(self, function, *args, **kwargs):
        """As the base class."""
        owner = OWNER.get()
        job = super().submit(_run_for, owner, function, args, kwargs)
        if owner is not None:
            owner.jobs.add(job)
            job.add_done_callback(owner.jobs.discard)
        return job


def _run_for(owner, function, args, kwargs):
    """A job on a thread of the default pool, which says for whom it runs while it does."""
    thread = threading.current_thread()
    thread.quell_owner = owner
    try:
        return function(*args, **kwargs)
    finally:
        thread.quell_owner = None


def owner_of(ident):
    """Whose code a thread runs, as far as is known."""
    for thread in threading.enumerate():
        if thread.ident == ident:
            return getattr(thread, "quell_owner", None)
    return None


def task_factory(loop, coroutine, **options):
    """Makes tasks that their owner knows of, until they are done."""
    import asyncio

    context = options.get("context")
    if context is not None:
        adopt(context)
    task = asyncio.Task(coroutine, loop=loop, **options)
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.tasks.add(task)
        task.add_done_callback(owner.tasks.discard)
    return task


def kill_owned(owned, alone, spared, others):
    """SIGKILLs what `owned` started, and waits for its death. Blocks: not for the loop's thread.

    Gives whether nothing is left that may be of `owned`: a process without a mark that none of
    `others`, who run as well, is known to have started, may be anybody's. `alone` tells whether no other request runs; then also what nobody's mark
    is on, except for `spared`. The dead whose Popen object may still be waited
    on are left to it.
    """
    while descendants.has_children():
        targets = []
        for child in descendants.children_of("self"):
            fields = descendants.stat_fields(child[0])
            if fields is None:
                continue
            tracked = child in owned.processes
            if fields[0] == b"Z" and tracked:
                continue
            mark = _mark_of(child[0])
            mine = tracked or mark == owned.invocation_id
            if mine or (alone and mark is None and child not in spared and fields[0] != b"Z"):
                targets.append((child, tracked))
        if not targets:
            return alone or not _strangers(spared, others)
        descendants.kill_trees([child for child, _ in targets])
        for child, tracked in targets:
            if not tracked:
                descendants.reap(child[0])
    return True


def _strangers(spared, others):
    """Living children that nobody's mark is on."""
    known = spared.union(*(other.processes for other in others))
    return [
        child
        for child in descendants.children_of("self")
        if child not in known and _mark_of(child[0]) is None
        and (descendants.stat_fields(child[0]) or [b"Z"])[0] != b"Z"
    ]


def _mark_of(pid):
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return None
    prefix = MARKER.encode() + b"="
    for variable in variables:
        if variable.startswith(prefix):
            return variable[len(prefix):].decode("utf-8", "replace")
    return None
