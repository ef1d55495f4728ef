"""`async def` handlers: one event loop, a task a request, cancelled by `task.cancel()`."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

from quell_runtime import descendants, ownership, threads, wire
from quell_runtime.aio_client import AnswerPool, AsyncConnection
from quell_runtime.cancellation import Notices
from quell_runtime.context import Context
from quell_runtime.errors import let_go
from quell_runtime.loops import Loop
from quell_runtime.process import end_instance

SECOND_CANCEL_SHARE = 0.8
"""Of the grace, after which a task that swallowed the first cancellation gets another."""


def new_loop():
    """The loop that initializer and handler share, with everything started on it tracked."""
    loop = Loop()
    asyncio.set_event_loop(loop)
    loop.set_task_factory(ownership.task_factory)
    loop.set_default_executor(ownership.TrackingExecutor())
    ownership.install_popen()
    ownership.install_threads()
    return loop


def serve(settings, handler, loop, pre_stop=None):
    """Serves requests until the node is gone; does not return."""
    try:
        loop.run_until_complete(AsyncServer(settings, handler, pre_stop).run())
    except BaseException as error:
        print("quell: ending the instance: %r" % (error,), file=sys.stderr)
    finally:
        end_instance()


class Attempt:
    """One request in work."""

    def __init__(self, invocation, spared):
        self.invocation = invocation
        self.owned = ownership.Owned(invocation.invocation_id)
        self.spared = spared
        self.threads_before = threads.Snapshot()
        self.reason = None
        self.ending = False
        self.context = None
        self.task = None
        self.insist = None


class AsyncServer:
    """Takes up to N requests, and passes cancellations on, on one loop."""

    def __init__(self, settings, handler, pre_stop=None):
        self._settings = settings
        self._handler = handler
        self._pre_stop = pre_stop
        self._notices = Notices()
        self._live = {}
        self._tasks = set()  # asyncio itself holds tasks weakly: the collector would take them
        self._capacity = asyncio.Semaphore(settings.concurrency)
        self._answers = AnswerPool(settings.api_host, settings.api_port)
        # Held while a sweep takes unmarked processes for those of the one request
        # that runs: between fork and exec those of a new one have no mark either.
        self._start_gate = asyncio.Lock()
        # Waiting for a process to die must not take a thread from user code.
        self._sweeper = ThreadPoolExecutor(1, "quell-sweeper", threads.be_ours)

    async def run(self):
        """Runs until something fails, then raises that (NodeGone when the node is gone)."""
        polls = AsyncConnection(self._settings.api_host, self._settings.api_port)
        await polls.begin("GET", wire.CANCELLATION_PATH)
        self._failure = asyncio.get_running_loop().create_future()
        if self._pre_stop is not None:
            self._pre_stop.is_idle = lambda: not self._live
            self._pre_stop.install_on(asyncio.get_running_loop())
        self._spawn(self._hold_cancellations(polls))
        self._spawn(self._hold_requests())
        await self._failure

    def _spawn(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._report)

    def _report(self, task):
        """A task of ours that fails ends the instance: nothing is left half-served."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def _hold_cancellations(self, polls):
        while True:
            self._on_notice(wire.Cancellation.from_response(await polls.finish()))
            await polls.begin("GET", wire.CANCELLATION_PATH)

    async def _hold_requests(self):
        connection = AsyncConnection(self._settings.api_host, self._settings.api_port)
        while True:
            await self._capacity.acquire()
            await connection.begin("GET", wire.REQUEST_PATH)
            invocation = wire.Invocation.from_response(await connection.finish())
            async with self._start_gate:
                attempt = Attempt(invocation, descendants.baseline())
            self._live[invocation.invocation_id] = attempt
            attempt.reason = self._notices.reason_of(invocation.invocation_id)
            self._spawn(self._serve(attempt))

    def _on_notice(self, notice):
        attempt = self._live.get(notice.invocation_id)
        if attempt is None:
            self._notices.note(notice.invocation_id, notice.reason)
            return
        if attempt.reason is not None:
            return
        attempt.reason = notice.reason
        if attempt.task is None:
            return
        attempt.context._abort_calls()  # of threads: the task's own wait ends by itself
        attempt.task.cancel()
        delay = notice.grace_ms / 1000 * SECOND_CANCEL_SHARE
        attempt.insist = asyncio.get_running_loop().call_later(delay, attempt.task.cancel)

    async def _serve(self, attempt):
        encoded = error = None
        async with self._start_gate:
            pass
        if attempt.reason is None:
            attempt.context = Context(self._settings, attempt.invocation, lambda: attempt.reason)
            attempt.task = asyncio.get_running_loop().create_task(self._call(attempt))
            await asyncio.wait({attempt.task})
            if not attempt.task.cancelled():
                encoded, error = attempt.task.result()
        if attempt.insist is not None:
            attempt.insist.cancel()
        failure = wire.describe_error(error) if error is not None and attempt.reason is None else None
        let_go(error)
        if attempt.reason is not None:
            await self._end_all(attempt)
            answer = self._answers.post_error(attempt.invocation, wire.canceled_body(attempt.reason))
        elif failure is not None:
            answer = self._answers.post_error(attempt.invocation, failure)
        else:
            answer = self._answers.post_response(attempt.invocation, *encoded)
        # Before the post: a notice from now on finds nothing to cancel.
        del self._live[attempt.invocation.invocation_id]
        attempt.owned.live = False
        await answer
        self._capacity.release()
        if self._pre_stop is not None:
            self._pre_stop.run_on_if_due(asyncio.get_running_loop())

    async def _call(self, attempt):
        """The task of user code; gives (encoded, error), whatever it raises."""
        ownership.OWNER.set(attempt.owned)
        try:
            result = await self._handler(attempt.invocation.event(), attempt.context)
            return wire.encode_result(result), None
        except BaseException as error:
            return None, error

    async def _end_all(self, attempt):
        """Returns when no task, thread job or process of the request runs."""
        owned = attempt.owned
        attempt.ending = True
        cancelled = set()
        while owned.tasks or owned.jobs:
            for task in list(owned.tasks):
                if task not in cancelled:
                    cancelled.add(task)
                    task.cancel()
            jobs = [asyncio.wrap_future(job) for job in list(owned.jobs) if not job.cancel()]
            waits = list(owned.tasks) + jobs
            if waits:
                await asyncio.wait(waits)
            await asyncio.sleep(0)  # lets the callbacks that shrink the sets run
        loop = asyncio.get_running_loop()
        threads.disarm_timers()
        told = set()
        while True:
            await asyncio.sleep(0)  # what they have on their last steps
            quiet = not loop.end_callbacks(owned) and not owned.tasks
            quiet = not self._threads_run(attempt, told) and quiet
            quiet = await self._processes_gone(attempt) and quiet
            if quiet:
                return
            await asyncio.sleep(threads.RECHECK_S)

    def _threads_run(self, attempt, told):
        """Whether threads run that are this request's, or may be; the former are interrupted once."""
        before, alone = attempt.threads_before, not self._others(attempt)
        maybe = False
        for ident in before.running():
            owner = ownership.owner_of(ident)
            if owner is not None and owner is not attempt.owned and owner.live:
                continue
            maybe = True
            mine = owner is attempt.owned or (alone and before.may_interrupt(ident))
            if mine and ident not in told:
                told.add(ident)
                threads.interrupt([ident])
        return maybe or before.has_new_natives()

    def _others(self, attempt):
        """What may be of others: of requests that run, and are not ending themselves."""
        return [other.owned for other in self._live.values() if other is not attempt and not other.ending]

    async def _processes_gone(self, attempt):
        if not descendants.has_children():
            return True
        async with self._start_gate:
            others = self._others(attempt)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._sweeper, ownership.kill_owned, attempt.owned, not others, attempt.spared, others)
