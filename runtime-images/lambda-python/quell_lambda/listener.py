"""Hears which invocations are to stop (the node's docs/runtime-protocol.md).

An instance of one request at a time is one process, which holds a poll for whatever is cancelled on it. Of
an instance of several each process has a request of its own: it polls for that invocation by name, so the
node's word reaches the process that has it, and the poll is answered when the invocation is over.
"""

import json
import queue
import socket
import sys
import threading
import time

PATH = "/v1/runtime/invocation/cancellation/next"

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
        self._line.get(PATH + "?invocation=")
        thread = threading.Thread(target=self._listen, daemon=True, name="quell")
        thread.quell_own = True
        thread.start()

    def serving(self, key):
        """The main thread: this invocation begins."""
        if self._serving is not None:
            self._serving.put(key)

    def _listen(self):
        try:
            while True:
                path = PATH
                if self._serving is not None:
                    path += "?invocation=" + self._serving.get()
                status, body = self._line.get(path)
                if status == 200:
                    self._stop(json.loads(body))
                elif status != 204:
                    raise ConnectionError("the node answered %d" % status)
        except Exception as error:
            # The client sees as well that the node is gone. If it is not, its grace ends in a kill.
            print("quell: no more cancellations are heard: %r" % (error,), file=sys.stderr)

    def _stop(self, notice):
        key = notice["invocationId"]
        self._guard.note(key, notice["reason"])
        while self._guard.wants(key):
            self._guard.interrupt()
            time.sleep(RESEND_S)


class _Line:
    """One kept connection to the node, and GET."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._host = host
        self._socket = socket.create_connection((host, int(port)))
        self._socket.settimeout(None)  # whatever default user code sets: a poll is held for hours

    def get(self, path):
        """(status, body)."""
        self._socket.sendall(("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (path, self._host)).encode())
        head, body = b"", b""
        while b"\r\n\r\n" not in head and len(head) < MAX_HEAD:
            head += self._receive()
        head, _, body = head.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        size = int(headers.get("content-length", 0))
        while len(body) < size:
            body += self._receive()
        return int(lines[0].split(" ")[1]), body

    def _receive(self):
        part = self._socket.recv(MAX_HEAD)
        if not part:
            raise ConnectionError("the node closed the connection")
        return part
