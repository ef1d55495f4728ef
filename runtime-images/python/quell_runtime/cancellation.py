"""How a cancellation reaches sync user code: a signal that raises, once, and only there.

Somebody who knows (a thread of this process, or the parent) records that the
attempt with some key is cancelled and sends SIGUSR1. The handler raises
InvocationCanceled if user code of that very attempt is running. A signal that
is late, early or meant for nobody changes nothing.
"""

import _thread
import signal
import sys
import threading

from quell_runtime.errors import InvocationCanceled

REMEMBERED = 256
"""Cancelled invocation ids kept: more than can be on their way to one instance."""

RESEND_S = 0.02
"""A signal that lands between Python's last check and a blocking system call only
sets a flag and is not noticed before that call ends; so it is sent again until it raised."""


class Notices:
    """The last cancelled invocation ids and their reasons. One thread writes, any reads."""

    def __init__(self):
        self._reasons = {}

    def note(self, invocation_id, reason):
        """Remembers a cancellation; the oldest one is forgotten beyond REMEMBERED."""
        self._reasons[invocation_id] = reason
        if len(self._reasons) > REMEMBERED:
            del self._reasons[next(iter(self._reasons))]

    def reason_of(self, invocation_id):
        """Why that invocation is cancelled; None if it is not."""
        return self._reasons.get(invocation_id)


class Guard:
    """Runs user code on the main thread so that a cancellation can end it, and nothing else.

    `reason_of(key)` tells why an attempt is cancelled (None: it is not).
    `on_fired(key, bool)` is told when the exception was raised, or got lost.
    """

    def __init__(self, reason_of, on_fired=None):
        self._reason_of = reason_of
        self._on_fired = on_fired or (lambda key, fired: None)
        self._main = _thread.get_ident()
        self._armed = False
        self._abort = None
        self.key = None
        self.fired = False

    def install(self):
        """Takes SIGUSR1 over, in the main thread."""
        signal.signal(signal.SIGUSR1, self._on_signal)
        sys.unraisablehook = self._on_unraisable
        threading.excepthook = _quiet_excepthook

    def run(self, key, call, abort):
        """Calls `call()`; gives (value, error, reason). `reason` is not None if cancelled.

        `abort()` is called from the signal handler just before it raises.
        """
        if signal.getsignal(signal.SIGUSR1) != self._on_signal:
            self.install()  # user code took the signal
        value = error = None
        self._abort = abort
        self.fired = False
        self.key = key
        # The exception comes at most once, and only while armed. Every point
        # where that is so lies inside the outer try, the edges of the inner one too.
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
        reason = self._reason_of(key)
        self.key = None
        self._abort = None
        return value, error, reason

    def _on_signal(self, _number, _frame):
        self._raise_if_cancelled()

    def _raise_if_cancelled(self):
        if not self._armed:
            return
        reason = self._reason_of(self.key)
        if reason is None:
            return
        self._armed = False
        self.fired = True
        self._on_fired(self.key, True)
        try:
            self._abort()
        except Exception as error:
            print("quell: aborting sub-invocations: %r" % (error,), file=sys.stderr)
        raise InvocationCanceled(reason)

    def _on_unraisable(self, args):
        """A destructor swallowed the exception: arm again, it will be sent again.

        Inside the same call of user code still, as the destructor is.
        """
        ours = issubclass(args.exc_type, InvocationCanceled)
        if ours and self.key is not None and self.fired and _thread.get_ident() == self._main:
            self.fired = False
            self._armed = True
            self._on_fired(self.key, False)
            return
        sys.__unraisablehook__(args)


def _quiet_excepthook(args):
    """A thread of a cancelled request that ends by the exception is no news."""
    if not issubclass(args.exc_type, InvocationCanceled):
        threading.__excepthook__(args)


class Listener:
    """The thread that holds the cancellation poll of a process running one request at a time."""

    def __init__(self, connection, guard, notices, on_gone):
        self._connection = connection
        self._guard = guard
        self._notices = notices
        self._on_gone = on_gone
        self._main = _thread.get_ident()
        self._opened = threading.Event()
        self._kick = threading.Condition()

    def start(self):
        """Returns when the poll has been sent: the node knows that we cooperate."""
        for target in (self._listen, self._insist):
            thread = threading.Thread(target=target, daemon=True, name="quell")
            thread.quell_own = True
            thread.start()
        self._opened.wait()

    def _listen(self):
        from quell_runtime import wire

        try:
            while True:
                self._connection.begin("GET", wire.CANCELLATION_PATH)
                self._opened.set()
                notice = wire.Cancellation.from_response(self._connection.finish())
                # Noted before the key is read; the guard sets the key before it
                # asks for the reason: one of the two sees the other.
                self._notices.note(notice.invocation_id, notice.reason)
                if self._guard.key == notice.invocation_id:
                    signal.pthread_kill(self._main, signal.SIGUSR1)
                    with self._kick:
                        self._kick.notify()
        except BaseException as error:
            self._on_gone(error)

    def _insist(self):
        """Sends the signal again while a cancelled attempt runs and has not been hit."""
        while True:
            with self._kick:
                key = self._guard.key
                waiting = key is not None and self._notices.reason_of(key) is not None
                self._kick.wait(RESEND_S if waiting else None)
            key = self._guard.key
            if key is not None and not self._guard.fired and self._notices.reason_of(key):
                signal.pthread_kill(self._main, signal.SIGUSR1)
