"""Hears which invocations are to stop (the node's docs/runtime-protocol.md).

An instance of one request at a time is one process, which holds a poll for whatever is cancelled on it. Of
an instance of several each process has a request of its own: it polls for that invocation by name, so the
node's word reaches the process that has it, and the poll is answered when the invocation is over. The
connection of these polls tells the node when the process has ended, which nobody replaces.
"""

import json
import queue
import socket
import sys
import threading
import time

PATH = "/v1/runtime/invocation/cancellation/next"

IS_PROCESS = "X-Quell-Connection: process\r\n"
"""This connection lives as long as this process does."""

RESEND_S = 0.02
"""A signal that lands between Python's last check and a blocking system call only sets a flag and is not
noticed before that call ends; so it is sent again until it raised."""

MAX_HEAD = 65536
"""Of an answer of the node, which has a few short headers."""


class Listener:
    """The side thread of a process."""

    def __init__(self, address, guard, shared):
        self._line = _Line(address)
        self._guard = guard
        self._serving = queue.SimpleQueue() if shared else None

    def start(self):
        """Returns when the node knows that this instance cooperates: before any request is taken."""
        self._line.ask(PATH + "?invocation=", "" if self._serving is None else IS_PROCESS)
        self._line.answer()
        thread = threading.Thread(target=self._listen, daemon=True, name="quell")
        thread.quell_own = True
        thread.start()

    def serving(self, key):
        """The main thread: this invocation begins. Asked here, so that the node knows whose it is before any of
        its code runs: that may end the process."""
        if self._serving is None:
            return
        try:
            self._line.ask(PATH + "?invocation=" + key)
        except OSError as error:
            return _deaf(error)
        self._serving.put(key)

    def _listen(self):
        try:
            while True:
                if self._serving is None:
                    self._line.ask(PATH)
                else:
                    self._serving.get()
                status, body = self._line.answer()
                if status == 200:
                    self._stop(json.loads(body))
                elif status != 204:
                    raise ConnectionError("the node answered %d" % status)
        except Exception as error:
            _deaf(error)

    def _stop(self, notice):
        key = notice["invocationId"]
        self._guard.note(key, notice["reason"])
        while self._guard.wants(key):
            self._guard.interrupt()
            time.sleep(RESEND_S)


def _deaf(error):
    """The client sees as well that the node is gone. If it is not, its grace ends in a kill."""
    print("quell: no more cancellations are heard: %r" % (error,), file=sys.stderr)


class _Line:
    """One kept connection to the node, on which one thread may ask and another read the answers."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._host = host
        self._read = b""
        self._socket = socket.create_connection((host, int(port)))
        self._socket.settimeout(None)  # whatever default user code sets: a poll is held for hours

    def ask(self, path, more=""):
        self._socket.sendall(("GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (path, self._host, more)).encode())

    def answer(self):
        """(status, body)."""
        while b"\r\n\r\n" not in self._read and len(self._read) < MAX_HEAD:
            self._receive()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        size = int(headers.get("content-length", 0))
        while len(self._read) < size:
            self._receive()
        body, self._read = self._read[:size], self._read[size:]  # the next answer may be here already
        return int(lines[0].split(" ")[1]), body

    def _receive(self):
        part = self._socket.recv(MAX_HEAD)
        if not part:
            raise ConnectionError("the node closed the connection")
        self._read += part
