"""The fork server against a node's side of its socket: what is forked, and what is not."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

from tests.case import FUNCTIONS, RuntimeCase
from tests.stub_node import LIMIT_S, StubNode, await_death

HELPER = """
import os, sys
runtime, go = int(sys.argv[1]), int(sys.argv[2])
os.write(0, b"r")
if os.read(0, 1) == b"g":
    os.write(go, b"g")
    os.close(go)
    _, status = os.waitpid(runtime, 0)
    os.write(0, b"c%d" % os.waitstatus_to_exitcode(status))
"""
"""The node's helper, as far as a runtime can tell."""


class Forked:
    """An instance that was asked for, with a node of its own."""

    def __init__(self, case, name):
        self.node = StubNode()
        case.addCleanup(self.node.close)
        self.line, its_end = socket.socketpair()
        self.line.settimeout(LIMIT_S)
        case.addCleanup(self.line.close)
        env = case.environment("forkable.tell", RUNTIME_API_ADDR="127.0.0.1:%d" % self.node.port,
                               QUELL_INSTANCE_ID=name)
        env.update(case.instance_env)
        order = json.dumps({"env": env, "helper": ["-c", HELPER], "namespace": None}).encode()
        program = os.open(shutil.which(sys.executable), os.O_PATH)
        handed = [its_end.fileno(), case.output.fileno(), case.output.fileno(), program]
        socket.send_fds(case.control, [order], handed)
        os.close(program)
        its_end.close()

    def show(self):
        """The pidfd of what was forked."""
        _, handed, _, _ = socket.recv_fds(self.line, 1, 1)
        return handed[0]

    def move(self):
        self.line.sendall(b"m")
        assert self.line.recv(1) == b"r"

    def go(self):
        self.line.sendall(b"g")


class ForkServer(RuntimeCase):
    instance_env = {}

    def serve(self, handler="forkable.tell", concurrency=1, instance_env=None, **env):
        self.instance_env = dict(instance_env or {}, RUNTIME_HANDLER=handler, QUELL_CONCURRENCY=str(concurrency))
        self.instance_env.update({k: v for k, v in env.items() if k.startswith("RUNTIME_")})
        settings = self.environment(handler, concurrency, OF_THE_TEMPLATE="1", **env)
        for own in ("RUNTIME_API_ADDR", "QUELL_INSTANCE_ID"):
            settings.pop(own, None)
        self.output = open(os.path.join(self.folder, "output"), "w+b")
        self.addCleanup(self.output.close)
        self.control, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(LIMIT_S)
        self.addCleanup(self.control.close)
        process = subprocess.Popen(
            [sys.executable, "-u", os.path.join(self.image, "fork_server.py")], env=settings,
            stdin=its_end, stdout=self.output, stderr=subprocess.STDOUT, start_new_session=True)
        its_end.close()
        self.addCleanup(self.finish, process)
        return process

    def said(self):
        return json.loads(self.control.recv(65536))

    def start_one(self, name):
        forked = Forked(self, name)
        self.assertEqual(self.said(), "forked")
        pidfd = forked.show()
        self.handles.append(pidfd)
        forked.pidfd = pidfd
        forked.move()
        forked.go()
        return forked

    def test_instances_have_the_import_in_common_and_nothing_else(self):
        process = self.serve(RUNTIME_INITIALIZER_HANDLER="forkable.initializer")
        self.assertEqual(self.said(), "ready")
        told = [self.start_one(name).node.call().json for name in ("i1", "i2")]
        for name, each in zip(("i1", "i2"), told):
            self.assertEqual(each["imported_by"], process.pid)
            self.assertEqual(each["instance"], name)
            self.assertEqual(each["left"], [], "a variable of the fork server")
            self.assertIsNone(each["address_at_import"])
            self.assertEqual(each["calls"], ["initialized", "called"])
            self.assertEqual(each["group"], each["pid"], "its own process group")
            self.assertNotEqual(each["parent"], process.pid)
            # Its two polls; the line, the control socket and the helper are not its.
            sockets = [path for path in each["open"] if path.startswith("socket:")]
            self.assertEqual(len(sockets), 2, each["open"])
            self.assertEqual([p for p in each["open"] if "bin/" in p or "pidfd" in p], [])
        for ours, theirs in zip(told[0]["drawn"], told[1]["drawn"]):
            self.assertNotEqual(ours, theirs)

    def test_every_mode_of_serving_works_in_a_fork(self):
        for handler, concurrency in (("forkable.tell", 3), ("forkable.tell_async", 3)):
            with self.subTest(handler):
                process = self.serve(handler, concurrency)
                self.assertEqual(self.said(), "ready")
                self.assertEqual(self.start_one("i1").node.call().json["imported_by"], process.pid)

    def test_a_fork_is_cancelled_as_any_other_instance(self):
        self.serve("blocked.run")
        self.assertEqual(self.said(), "ready")
        forked = self.start_one("i1")
        self.node = forked.node
        for how in ("sleeping", "looping", "double_forked"):
            request = self.node.submit({"how": how})
            report = self.report()
            self.cancel_and_assert(request, [fd for key, fd in report.items() if key.endswith("_pidfd")])
        self.assertEqual(self.node.call({"how": "pid"}).kind, "response")

    def test_nothing_runs_before_it_was_moved_and_let_go(self):
        self.serve()
        self.assertEqual(self.said(), "ready")
        for at in ("forked", "moved"):
            with self.subTest(at):
                forked = Forked(self, "i1")
                self.assertEqual(self.said(), "forked")
                pidfd = forked.show()
                if at == "moved":
                    forked.move()
                forked.line.close()
                await_death(pidfd)
                os.close(pidfd)
                self.assertEqual(forked.node.polls, {})

    def test_it_serves_on_when_an_instance_dies_and_collects_it(self):
        process = self.serve("forkable.hang")
        self.assertEqual(self.said(), "ready")
        for name in ("i1", "i2"):
            forked = self.start_one(name)
            forked.node.submit()
            report = self.report()
            signal.pidfd_send_signal(report["pidfd"], signal.SIGKILL)
            await_death(forked.pidfd)
            self.assertEqual(forked.line.recv(8), b"c-9")
        self.start_one("i3")
        # Others are their parents, who collect them.
        with open("/proc/%d/task/%d/children" % (process.pid, process.pid)) as children:
            self.assertEqual(children.read(), "")

    def test_it_ends_when_the_node_closes_its_socket(self):
        process = self.serve()
        self.assertEqual(self.said(), "ready")
        self.control.close()
        self.assertEqual(process.wait(LIMIT_S), 0)

    def test_an_import_that_cannot_be_copied_is_refused_with_the_reason(self):
        cases = (("thread", "started a thread"), ("process", "started a process"), ("connection", "opened socket"))
        for name, reason in cases:
            with self.subTest(name):
                process = self.serve(name + ".handler",
                                     RUNTIME_CODE_ROOT=os.path.join(FUNCTIONS, "unfit"))
                self.assertIn(reason, self.said()["refused"])
                self.assertEqual(process.wait(LIMIT_S), 1)
                os.killpg(process.pid, signal.SIGKILL) if name == "process" else None

    def test_an_import_that_fails_is_refused_with_the_reason(self):
        process = self.serve("broken.handler")
        self.assertIn("at import", self.said()["refused"])
        self.assertEqual(process.wait(LIMIT_S), 1)

    def test_a_thread_that_came_later_is_found_before_the_next_fork(self):
        process = self.serve("later.handler", RUNTIME_CODE_ROOT=os.path.join(FUNCTIONS, "unfit"))
        self.assertEqual(self.said(), "ready")
        process.send_signal(signal.SIGUSR2)
        self.report()
        Forked(self, "i1")
        self.assertIn("a thread", self.said()["refused"])
