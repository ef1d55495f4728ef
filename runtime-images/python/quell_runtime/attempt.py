"""One attempt of a sync handler in this process, from the event to the posted answer."""

import os

from quell_runtime import descendants, threads, wire
from quell_runtime.context import Context
from quell_runtime.errors import let_go


class SyncRunner:
    """Runs attempts one after another on the main thread and answers for each."""

    def __init__(self, settings, handler, guard, connection):
        self._settings = settings
        self._handler = handler
        self._guard = guard
        self._connection = connection
        self._pid = os.getpid()

    def run(self, invocation, key, reason_of):
        """Runs the handler and posts the outcome; whether the code was not cancelled.

        `reason_of(key)` tells why this attempt is cancelled. Raises NodeGone.
        """
        context = Context(self._settings, invocation, lambda: reason_of(key))
        processes_before = descendants.baseline()
        threads_before = threads.Snapshot()
        interrupted = []

        def call():
            return wire.encode_result(self._settle(self._handler(invocation.event(), context)))

        def abort():
            context._abort_calls()
            running = threads_before.running()
            interrupted.extend(ident for ident in running if threads_before.may_interrupt(ident))
            threads.interrupt(interrupted)

        encoded, error, reason = self._guard.run(key, call, abort)
        if os.getpid() != self._pid:
            os._exit(0)  # a child that user code forked came back: the answer is not its to give
        failure = wire.describe_error(error) if error is not None and reason is None else None
        let_go(error)
        if reason is not None:
            threads.end_all_since(threads_before, interrupted)
            descendants.kill_all_but(processes_before)
            self._connection.post_error(invocation, wire.canceled_body(reason))
            return False
        if failure is not None:
            self._connection.post_error(invocation, failure)
        else:
            self._connection.post_response(invocation, *encoded)
        return True

    @staticmethod
    def _settle(value):
        """A plain function may wrap an `async def` one; then what it returns is still to be run."""
        if not hasattr(value, "__await__"):
            return value
        import asyncio

        async def wait():
            return await value

        return asyncio.run(wait())
