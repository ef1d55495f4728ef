"""When a cancellation reaches the handler, and when it does not. The client is not needed for it."""

import os
import signal
import sys
import threading
import types
import unittest

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What the shim finds the function's handler with; it is not installed here.
client = types.ModuleType("awslambdaric")
client.bootstrap = types.ModuleType("awslambdaric.bootstrap")
client.bootstrap._get_handler = lambda name: None
sys.modules["awslambdaric"] = client
sys.modules["awslambdaric.bootstrap"] = client.bootstrap
os.environ.update(_HANDLER="none.none", RUNTIME_USERDATA='{"QUELL_CANCELLATION": "off"}')

from quell_lambda.bootstrap import REMEMBERED, RESEND_S, Guard  # noqa: E402
from quell_lambda.errors import InvocationCanceled, Reported  # noqa: E402

LIMIT_S = 30


class Cancelling(unittest.TestCase):
    def setUp(self):
        self.guard = Guard()
        self.guard.install()
        self.addCleanup(setattr, sys, "unraisablehook", sys.__unraisablehook__)
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.SIG_DFL)

    def cancel(self, key, times=1):
        """As the listener does, in its thread. Python runs what a signal is for before the next line of the main
        thread that is at work, so whatever is to happen has happened when this returns there."""

        def listener():
            self.guard.note(key, "cancel")
            for _ in range(times):
                self.guard.interrupt()

        thread = threading.Thread(target=listener)
        thread.quell_own = True
        thread.start()
        thread.join(LIMIT_S)

    def assert_canceled(self, call, key="mine"):
        with self.assertRaises(Reported) as raised:
            self.guard.run(key, call)
        self.assertEqual(type(raised.exception).__name__, "InvocationCanceled")
        self.assertEqual(str(raised.exception), "function invocation canceled (cancel)")

    def test_what_is_not_cancelled_returns_and_raises_as_it_does(self):
        self.assertEqual(self.guard.run("mine", lambda: 7), 7)
        for error in (ValueError("x"), SystemExit(3), KeyboardInterrupt()):

            def fail(error=error):
                raise error

            with self.assertRaises(type(error)) as raised:
                self.guard.run("mine", fail)
            self.assertIs(raised.exception, error)

    def test_a_cancellation_ends_a_blocking_call_and_the_next_request_runs(self):
        read, write = os.pipe()
        at_work, stopped = threading.Event(), threading.Event()

        def listener():
            at_work.wait(LIMIT_S)
            self.guard.note("mine", "cancel")
            while not stopped.wait(RESEND_S):
                self.guard.interrupt()

        def handler():
            at_work.set()
            os.read(read, 1)

        thread = threading.Thread(target=listener)
        thread.quell_own = True
        thread.start()
        self.assert_canceled(handler)
        stopped.set()
        thread.join()
        self.assertEqual(self.guard.run("next", lambda: 7), 7)
        os.close(read)
        os.close(write)

    def test_one_that_came_before_its_request_lets_nothing_of_it_run(self):
        self.cancel("mine")
        self.assert_canceled(lambda: self.fail("it ran"))

    def test_signals_of_another_request_or_of_none_are_nobodys(self):
        self.cancel("another", times=3)
        self.guard.interrupt()

        def handler():
            self.cancel("another", times=3)
            self.guard.interrupt()
            return 7

        self.assertEqual(self.guard.run("mine", handler), 7)
        self.guard.interrupt()

    def test_it_comes_once_and_never_into_what_cleans_up(self):
        seen = []

        def handler():
            try:
                self.cancel("mine")
            finally:
                for _ in range(50):
                    self.cancel("mine")
                seen.append("cleaned")

        self.assert_canceled(handler)
        self.assertEqual(seen, ["cleaned"])
        self.assertFalse(self.guard.wants("mine"))

    def test_except_exception_does_not_swallow_it_and_who_swallows_all_is_cancelled_too(self):
        def careless():
            try:
                self.cancel("mine")
            except Exception:
                self.fail("swallowed")

        def swallows():
            try:
                self.cancel("mine")
            except BaseException as error:
                self.assertIsInstance(error, InvocationCanceled)
            return 7

        self.assert_canceled(careless)
        self.assert_canceled(swallows, key="mine")

    def test_one_that_a_destructor_swallowed_comes_again(self):
        class Sticky:
            def __del__(inner):
                self.cancel("mine")

        def handler():
            sticky = Sticky()
            del sticky
            threading.Event().wait(LIMIT_S)
            self.fail("it was forgotten")

        self.assert_canceled(handler)

    def test_a_signal_handler_of_the_functions_is_replaced_for_the_next_request(self):
        self.guard.run("first", lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN))

        def handler():
            self.cancel("mine")
            self.fail("not interrupted")

        self.assert_canceled(handler)

    def test_a_child_that_comes_back_ends_instead_of_answering(self):
        child = self.guard.run("mine", os.fork)
        self.assertNotEqual(child, 0, "a child came back")
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)

    def test_what_a_cancelled_request_started_is_gone_and_what_was_there_stays(self):
        import subprocess

        self.addCleanup(setattr, threading, "excepthook", threading.excepthook)
        threading.excepthook = lambda args: None  # how that thread ends is what is tested
        before = subprocess.Popen(["sleep", "300"])
        started = []

        def handler():
            started.append(subprocess.Popen(["sleep", "300"]))
            stop = threading.Event()
            started.append(threading.Thread(target=self.spin, args=[stop], daemon=True))
            started[1].start()
            self.cancel("mine")

        self.assert_canceled(handler)
        self.assertFalse(started[1].is_alive())
        self.assertIsNotNone(started[0].poll())
        self.assertIsNone(before.poll())
        before.kill()
        before.wait()

    @staticmethod
    def spin(stop):
        while not stop.is_set():
            pass

    def test_of_old_cancellations_so_many_are_remembered(self):
        for at in range(2 * REMEMBERED):
            self.guard.note(str(at), "cancel")
        self.assertEqual(len(self.guard._reasons), REMEMBERED)
        self.assertEqual(self.guard.run("0", lambda: 7), 7)


if __name__ == "__main__":
    unittest.main()
