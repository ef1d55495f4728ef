"""From the function's handler to one that can be cancelled.

The client runs one request at a time in this process, on the main thread, and never looks at signals
while it waits. A side thread (`listener`) hears of cancellations and sends SIGUSR1; the signal handler
raises in the main thread if code of exactly that invocation is running, and nowhere else.
"""

import json
import os
import signal
import sys
import threading

from quell_lambda import leftovers
from quell_lambda.errors import InvocationCanceled, Reported, let_go
from quell_lambda.listener import Listener

SWITCH = "QUELL_CANCELLATION"
"""In the function's user_data: "off" leaves cancelling to signals and kills."""

REMEMBERED = 256
"""Cancelled invocations of which the reason is kept: more than can be on their way to one process."""

RESEND_S = 0.02
"""Until a signal is sent again whose exception a destructor swallowed."""


class Guard:
    """Runs user code so that a cancellation of its invocation ends it: once, and only there."""

    def __init__(self):
        self._reasons = {}
        self._armed = False
        self._fired = False
        self._key = None
        self._main = threading.get_ident()
        self._pid = os.getpid()

    def install(self):
        """Takes SIGUSR1 over; in the main thread."""
        signal.signal(signal.SIGUSR1, self._on_signal)
        sys.unraisablehook = self._on_unraisable

    def note(self, key, reason):
        """The listener: this invocation is cancelled. Noted before the key is looked at; `run` sets the
        key before it looks for a reason: one of the two sees the other."""
        self._reasons[key] = reason
        if len(self._reasons) > REMEMBERED:
            del self._reasons[next(iter(self._reasons))]

    def wants(self, key):
        """Whether code of this invocation runs and was not interrupted yet."""
        return self._key == key and not self._fired

    def interrupt(self):
        """Sends the signal; from any thread."""
        signal.pthread_kill(self._main, signal.SIGUSR1)

    def run(self, key, call):
        """What `call()` returns or raises; if the invocation was cancelled, what is reported of that."""
        if signal.getsignal(signal.SIGUSR1) != self._on_signal:
            self.install()  # user code took the signal
        before = leftovers.Before()
        value = error = None
        self._fired = False
        self._key = key
        # The exception comes only while armed. Every point where that is so lies inside the outer try, the
        # edges of the inner one too.
        try:
            try:
                self._armed = True
                self._raise_if_cancelled()
                value = call()
                self._armed = False
            except BaseException as raised:
                self._armed = False
                error = raised
        except InvocationCanceled as raised:
            error = raised
        reason = self._reasons.get(key)
        self._key = None
        if os.getpid() != self._pid:
            os._exit(0)  # a child that user code forked came back: the answer is not its to give
        if reason is not None:
            let_go(error)
            error = None
            before.end_what_came_since()
            raise Reported("function invocation canceled (%s)" % reason)
        if error is not None:
            raise error
        return value

    def _on_signal(self, _number, _frame):
        self._raise_if_cancelled()

    def _raise_if_cancelled(self):
        if self._armed and self._reasons.get(self._key) is not None:
            self._armed = False
            self._fired = True
            raise InvocationCanceled(self._reasons[self._key])

    def _on_unraisable(self, args):
        """A destructor swallowed the exception, inside the same call still: armed again."""
        ours = issubclass(args.exc_type, InvocationCanceled)
        if ours and self._key is not None and self._fired and threading.get_ident() == self._main:
            self._fired = False
            self._armed = True
            again = threading.Timer(RESEND_S, self.interrupt)
            again.daemon = True
            again.quell_own = True
            again.start()
            return
        sys.__unraisablehook__(args)


def _load():
    """The function's own handler, found as the client finds it, with the client's errors."""
    from awslambdaric.bootstrap import _get_handler

    return _get_handler(os.environ["_HANDLER"])


def _is_on():
    try:
        user_data = json.loads(os.environ.get("RUNTIME_USERDATA") or "{}")
    except ValueError:
        return True
    return user_data.get(SWITCH) != "off"


def _cancellable(own):
    guard = Guard()
    guard.install()
    leftovers.become_subreaper()
    shared = "AWS_LAMBDA_MAX_CONCURRENCY" in os.environ
    listener = Listener(os.environ["AWS_LAMBDA_RUNTIME_API"], guard, shared)
    listener.start()

    def handler(event, context):
        key = context.client_context.custom["quell-invocation-id"]
        listener.serving(key)
        return guard.run(key, lambda: own(event, context))

    return handler


handler = _load()
if _is_on():
    handler = _cancellable(handler)
