"""The pre-stop handler: run once, on SIGTERM, when this instance serves nobody; then the instance ends.

The node sends the signal to the main process alone, and only when it holds no request
here; one that is served all the same is finished first. The node also sees to the limit.
"""

import os
import signal
import sys

from quell_runtime.process import end_instance


class PreStop:
    """The handler of an instance, in the process that installed it."""

    def __init__(self, settings, handler):
        self._settings = settings
        self._handler = handler
        self._pid = os.getpid()
        self._due = False
        self._begun = False
        self.is_idle = lambda: True
        """Whether no request is in work; whoever serves says how that is seen."""

    def install(self):
        """Takes SIGTERM over, in the main thread. What user code sets later stays."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def run_if_due(self):
        """Between two requests: runs the handler if the signal came meanwhile. Does not return then."""
        if self._due and self.is_idle():
            self._run()

    def _on_signal(self, number, _frame):
        if os.getpid() != self._pid:
            # A process that was forked from this one: for it the signal means what it always means.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self._due = True
        self.run_if_due()

    def _run(self):
        if self._begun:
            return
        self._begun = True
        status = 0
        try:
            result = self._handler(_context(self._settings))
            if hasattr(result, "__await__"):
                import asyncio

                asyncio.run(_wait(result))
        except BaseException as error:
            _report(error)
            status = 1
        end_instance(status)

    def install_on(self, loop):
        """The same for `async def` handlers: on their loop, in a task of its own."""
        loop.add_signal_handler(signal.SIGTERM, self._on_loop_signal, loop)

    def run_on_if_due(self, loop):
        """`run_if_due` on a loop; returns at once."""
        if self._due and not self._begun and self.is_idle():
            self._begun = True
            self._task = loop.create_task(self._run_on())

    def _on_loop_signal(self, loop):
        self._due = True
        self.run_on_if_due(loop)

    async def _run_on(self):
        status = 0
        try:
            result = self._handler(_context(self._settings))
            if hasattr(result, "__await__"):
                await result
        except BaseException as error:
            _report(error)
            status = 1
        end_instance(status)


def prepare(settings):
    """The pre-stop handler of the function, or None. Raises what loading it raises."""
    if not settings.pre_stop:
        return None
    from quell_runtime.loader import load

    return PreStop(settings, load(settings.code_root, settings.pre_stop))


def _context(settings):
    from quell_runtime.context import Context

    return Context(settings)


async def _wait(result):
    await result


def _report(error):
    import traceback

    print("quell: the pre-stop handler failed", file=sys.stderr)
    traceback.print_exception(type(error), error, error.__traceback__)
