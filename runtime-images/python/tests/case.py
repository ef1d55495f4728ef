"""An instance of the image against a stub node, and a way for handlers to report."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

from tests.stub_node import LIMIT_S, StubNode, await_death

IMAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FUNCTIONS = os.path.join(IMAGE, "tests", "functions")


class Reports:
    """A socket handlers connect to, to say where they are (functions/report.py)."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "reports")
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(self.path)
        self.listener.listen(64)
        self.listener.settimeout(LIMIT_S)
        self.held = []

    def next(self, hold=False):
        """The next report. With `hold` its reporter waits until `release_all`."""
        connection, _ = self.listener.accept()
        connection.settimeout(LIMIT_S)
        data = b""
        while not data.endswith(b"\n"):
            part = connection.recv(4096)
            if not part:
                raise AssertionError("a report was cut off: %r" % data)
            data += part
        message = json.loads(data)
        # The reporter waits for the reply: the numbers still name living processes.
        for key in [k for k in message if k.endswith("pid")]:
            message[key + "fd"] = os.pidfd_open(message[key])
        self.held.append(connection)
        if not hold:
            self.release_all()
        return message

    def release_all(self):
        for connection in self.held:
            connection.close()
        self.held.clear()

    def close(self):
        self.release_all()
        self.listener.close()


class RuntimeCase(unittest.TestCase):
    """Starts instances; whatever is left of one at the end of a test is killed."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="quell-python-image-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.node = StubNode()
        self.addCleanup(self.node.close)
        self.reports = Reports(self.folder)
        self.addCleanup(self.reports.close)
        self.handles = []
        self.addCleanup(self.close_handles)
        # Anywhere but where it was written: it is unpacked from a binary.
        self.image = os.path.join(self.folder, "image")
        os.mkdir(self.image)
        for entry in ("bootstrap.py", "fork_server.py"):
            shutil.copy(os.path.join(IMAGE, entry), self.image)
        shutil.copytree(os.path.join(IMAGE, "quell_runtime"), os.path.join(self.image, "quell_runtime"),
                        ignore=shutil.ignore_patterns("__pycache__"))

    def environment(self, handler, concurrency=1, **env):
        settings = {
            "PATH": os.environ["PATH"],
            "RUNTIME_API_ADDR": "127.0.0.1:%d" % self.node.port,
            "RUNTIME_CODE_ROOT": FUNCTIONS,
            "RUNTIME_HANDLER": handler,
            "RUNTIME_TIMEOUT": "30",
            "RUNTIME_MEMORY": "256",
            "RUNTIME_CPU": "400",
            "RUNTIME_USERDATA": '{"colour": "blue"}',
            "RUNTIME_PROJECT_ID": "project",
            "RUNTIME_FUNC_NAME": "function",
            "RUNTIME_FUNC_VERSION": "latest",
            "RUNTIME_PACKAGE": "default",
            "QUELL_CONCURRENCY": str(concurrency),
            "QUELL_API_ENDPOINT": "http://127.0.0.1:%d" % self.node.port,
            "REPORTS": self.reports.path,
        }
        settings.update(env)
        return settings

    def start(self, handler, concurrency=1, **env):
        settings = self.environment(handler, concurrency, **env)
        self.output = open(os.path.join(self.folder, "output"), "w+b")
        self.addCleanup(self.output.close)
        process = subprocess.Popen(
            [os.sys.executable, "-u", os.path.join(self.image, "bootstrap.py")],
            env=settings, stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT,
            start_new_session=True)
        self.addCleanup(self.finish, process)
        return process

    def restart(self, *arguments, **options):
        """Another instance, with a node of its own: requests cannot reach an earlier one."""
        self.node.close()
        self.node = StubNode()
        self.addCleanup(self.node.close)
        return self.start(*arguments, **options)

    def finish(self, process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(LIMIT_S)
        if self.failed():
            print("output of the runtime in %s:\n%s" % (self.id(), self.printed()))

    def failed(self):
        outcome = self._outcome
        return not outcome.success or any(test is self for test, _ in outcome.result.errors)

    def printed(self):
        self.output.seek(0)
        return self.output.read().decode("utf-8", "replace")

    def report(self, hold=False):
        message = self.reports.next(hold)
        self.handles += [value for key, value in message.items() if key.endswith("pidfd")]
        return message

    def close_handles(self):
        for handle in self.handles:
            try:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.close(handle)

    def assert_canceled(self, request, pidfds=()):
        """It is acknowledged, with the nonce, and none of these lived at that moment."""
        answer = self.node.answer_of(request)
        self.assertEqual(answer.error_type, "InvocationCanceled")
        self.assertEqual(answer.invocation_id, request.invocation_id)
        self.assertEqual(request.alive_at_answer, [])
        for pidfd in pidfds:
            await_death(pidfd)

    def cancel_and_assert(self, request, pidfds=(), **options):
        self.node.watch_at_answer(request, pidfds)
        self.node.cancel(request, **options)
        self.assert_canceled(request, pidfds)
