#!/usr/bin/env python3
"""An HTTP function that does what its event says, and rings the test's bell."""
import base64
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SETTINGS = json.loads(os.environ["RUNTIME_USERDATA"])
API = "http://" + os.environ["RUNTIME_API_ADDR"]
# Cooperating: requests that are to stop, by their id.
stops = {}
initialized = threading.Event()


def bell_of(path, facts):
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    line.sendall((json.dumps(facts) + "\n").encode())
    return line


def call(url, headers, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, value, status=200):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def any_method(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/init":
            initialized.set()
            return self.answer({}, int(SETTINGS.get("init", "200")))
        if self.path != "/invoke":
            said = {
                "method": self.command,
                "path": self.path,
                "headers": [[name.lower(), value] for name, value in self.headers.items()],
                "body": base64.b64encode(body).decode(),
            }
            return self.answer(said, int(self.headers.get("X-Answer") or 200))
        event = json.loads(body)
        self.request_id = self.headers["X-CFF-Request-Id"]
        getattr(self, "do_" + event["do"])(event)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = any_method

    def ring(self, event, **more):
        facts = {"request": self.request_id, "tag": event.get("tag", ""), "pid": os.getpid(), **more}
        return bell_of(event["bell"], facts)

    def done(self, event, **more):
        self.answer({"tag": event.get("tag"), "request": self.request_id, "pid": os.getpid(), **more})

    def do_plain(self, event):
        self.done(event, initialized=initialized.is_set(), environ=dict(os.environ))

    def do_wait(self, event):
        line = self.ring(event)
        line.recv(16)
        self.done(event)

    def do_notice(self, event):
        """Waits for its connection to be closed, and says so."""
        line = self.ring(event)
        if self.connection.recv(1) == b"":
            line.sendall(b"closed")
        line.close()

    def do_cooperate(self, event):
        stop = stops.setdefault(self.request_id, threading.Event())
        line = self.ring(event)
        stop.wait()
        line.sendall(b"stopped")
        line.close()
        headers = {"X-Quell-Invocation-Id": self.headers["X-Quell-Invocation-Id"]}
        url = f"{API}/v1/runtime/invocation/error/{self.request_id}"
        body = json.dumps({"errorType": "InvocationCanceled", "errorMessage": ""}).encode()
        urllib.request.urlopen(urllib.request.Request(url, body, headers)).close()

    def do_parent(self, event):
        endpoint, project = os.environ["QUELL_API_ENDPOINT"], self.headers["X-CFF-Project-Id"]
        url = f"{endpoint}/v2/{project}/fgs/functions/{event['child']}/invocations"
        headers = {"X-Auth-Token": self.headers["X-CFF-Auth-Token"], "Content-Type": "application/json"}
        line = self.ring(event)
        child = call(url, headers, event["event"])
        line.close()
        self.done(event, child=child)

    def do_outside(self, event):
        """Whether it can reach an address of the test's."""
        try:
            socket.create_connection(("127.0.0.1", event["port"]), 5).close()
            reached = True
        except OSError:
            reached = False
        self.done(event, reached=reached)

    def do_crash(self, event):
        os._exit(3)

    def do_half(self, event):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        self.wfile.flush()
        self.hang_up()

    def do_half_chunked(self, event):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        self.hang_up()

    def do_half_crash(self, event):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        self.wfile.flush()
        os._exit(3)

    def do_unbounded(self, event):
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\nwhole or half?")
        self.hang_up()

    def do_garbage(self, event):
        self.wfile.write(b"\0\1\2 this is no HTTP\r\n\r\n")
        self.hang_up()

    def do_nothing(self, event):
        self.hang_up()

    def hang_up(self):
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def do_header(self, event):
        """A header without an end, until nobody reads it any more."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        try:
            while True:
                self.wfile.write(b"a" * 65536)
        except OSError:
            self.close_connection = True

    def do_huge(self, event):
        self.answer(b"a" * event["bytes"])

    def do_bytes(self, event):
        self.answer(bytes(range(256)))

    def do_drip(self, event):
        """A byte now and then, for ever."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        line = self.ring(event)
        try:
            while True:
                self.wfile.write(b"1\r\na\r\n")
                time.sleep(0.05)
        except OSError:
            line.sendall(b"closed")
            line.close()

    def do_status(self, event):
        self.answer({"why": "because"}, event["status"])


def listen_for_cancellations():
    while True:
        with urllib.request.urlopen(f"{API}/v1/runtime/invocation/cancellation/next") as answer:
            stops.setdefault(json.load(answer)["requestId"], threading.Event()).set()


class Server(ThreadingHTTPServer):
    request_queue_size = 128


def main():
    start = SETTINGS.get("start")
    if start == "exits":
        sys.exit("cannot start")
    if start == "never listens":
        threading.Event().wait()
    if "stubborn" in SETTINGS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "cooperates" in SETTINGS:
        threading.Thread(target=listen_for_cancellations, daemon=True).start()
    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


main()
