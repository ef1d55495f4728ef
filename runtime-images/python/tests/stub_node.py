"""A node as a runtime sees it: hands out requests and notices, collects answers.

Everything a test waits for is a condition here, with a hard limit.
"""

import json
import select
import socket
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIMIT_S = 20
"""Nothing a test waits for takes a second; this only turns a hang into a failure."""


class Request:
    """One request of a test, and what became of it."""

    def __init__(self, event, content_type="application/json", headers=None):
        self.request_id = str(uuid.uuid4())
        self.invocation_id = uuid.uuid4().hex
        self.body = event if isinstance(event, bytes) else json.dumps(event).encode()
        self.content_type = content_type
        self.headers = headers or {}
        self.answer = None
        self.watched = []
        self.alive_at_answer = None


class Answer:
    """A post of the runtime."""

    def __init__(self, kind, body, content_type, invocation_id):
        self.kind = kind
        self.body = body
        self.content_type = content_type
        self.invocation_id = invocation_id

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error_type(self):
        assert self.kind == "error", (self.kind, self.body)
        return self.json["errorType"]


class StubNode:
    def __init__(self):
        self.changed = threading.Condition()
        self.queue = []
        self.notices = []
        self.held_requests = 0
        self.held_cancellations = 0
        self.accepted = []
        self.polls = {}
        self.requests = {}
        self.init_error = None
        self.api_calls = []
        self.api_answer = (200, {}, b"null")
        self.unknown_posts = []
        self.closed = False
        self.connections = set()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.node = self
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def wait(self, condition, what):
        with self.changed:
            if not self.changed.wait_for(condition, LIMIT_S):
                raise AssertionError("waited in vain for " + what)

    def prepare(self, event=None, **options):
        request = Request(event, **options)
        with self.changed:
            self.requests[request.request_id] = request
        return request

    def enqueue(self, request):
        with self.changed:
            self.queue.append(request)
            self.changed.notify_all()

    def submit(self, event=None, **options):
        request = self.prepare(event, **options)
        self.enqueue(request)
        return request

    def answer_of(self, request):
        self.wait(lambda: request.answer is not None, "an answer")
        return request.answer

    def call(self, event=None, **options):
        return self.answer_of(self.submit(event, **options))

    def cancel(self, request, reason="cancel", grace_ms=15000):
        self.notify(request.request_id, request.invocation_id, reason, grace_ms)

    def notify(self, request_id, invocation_id, reason="cancel", grace_ms=15000):
        notice = {"requestId": request_id, "invocationId": invocation_id,
                  "reason": reason, "graceMs": grace_ms}
        with self.changed:
            self.notices.append(notice)
            self.changed.notify_all()

    def wait_notices_taken(self):
        """The notices have been read: the next poll is held again."""
        self.wait(lambda: not self.notices and self.held_cancellations == 1, "the notices to be taken")

    def watch_at_answer(self, request, pidfds):
        """Has it noted which of these processes live when the answer arrives."""
        request.watched = list(pidfds)

    def close(self):
        """The node dies: every connection is closed, new ones are refused."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def process_request(self, request, client_address):
        self.node.accepted.append(client_address)  # in the order of connecting
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        # A runtime that was killed resets its connections.
        if not self.node.closed and not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024

    def log_message(self, *_):
        pass

    def setup(self):
        super().setup()
        self.server.node.connections.add(self.connection)

    def finish(self):
        self.server.node.connections.discard(self.connection)
        try:
            super().finish()
        except OSError:
            pass

    def peer_left(self):
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable)

    def do_GET(self):
        node = self.server.node
        if self.path == "/v1/runtime/invocation/request":
            self.hold("held_requests", node.queue, self.send_request)
        elif self.path == "/v1/runtime/invocation/cancellation/next":
            self.hold("held_cancellations", node.notices, self.send_notice)
        else:
            self.reply(404, {}, b"")

    def hold(self, counter, source, send):
        node = self.server.node
        with node.changed:
            node.polls[self.client_address] = counter
            setattr(node, counter, getattr(node, counter) + 1)
            node.changed.notify_all()
            node.changed.wait_for(lambda: node.closed or source)
            setattr(node, counter, getattr(node, counter) - 1)
            if node.closed:
                self.close_connection = True
                return
            item = source.pop(0)
            node.changed.notify_all()
        send(item)

    def send_request(self, request):
        headers = {
            "Content-Type": request.content_type,
            "X-Cff-Request-Id": request.request_id,
            "X-CFF-Auth-Token": "token-" + request.request_id,
            "X-CFF-Invoke-Type": "sync",
            "X-Quell-Invocation-Id": request.invocation_id,
        }
        headers.update(request.headers)
        self.reply(200, headers, request.body)

    def send_notice(self, notice):
        # Chunked, to have that read too.
        body = json.dumps(notice).encode()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        half = len(body) // 2
        for part in (body[:half], body[half:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    def do_POST(self):
        node = self.server.node
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/v2/"):
            with node.changed:
                node.api_calls.append((self.path, dict(self.headers), body))
                node.changed.notify_all()
                answer = node.api_answer
                if answer is None:
                    node.changed.wait_for(lambda: node.closed or self.peer_left(), LIMIT_S)
                    self.close_connection = True
                    return
            self.reply(*answer)
            return
        self.take_answer(node, body)
        self.reply(202, {}, b"")

    def take_answer(self, node, body):
        kind, _, request_id = self.path[len("/v1/runtime/"):].rpartition("/")
        answer = Answer(kind.rpartition("/")[2], body, self.headers.get("Content-Type"),
                        self.headers.get("X-Quell-Invocation-Id"))
        with node.changed:
            request = node.requests.get(request_id)
            if self.path == "/v1/runtime/init/error":
                node.init_error = json.loads(body)
            elif request is None or request.answer is not None:
                node.unknown_posts.append((self.path, body))
            else:
                request.alive_at_answer = [fd for fd in request.watched if is_alive(fd)]
                request.answer = answer
            node.changed.notify_all()

    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def is_alive(pidfd):
    """Whether that process runs: a pidfd is readable from its death on."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return not poller.poll(0)


def await_death(pidfd):
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    if not poller.poll(LIMIT_S * 1000):
        raise AssertionError("the process lives on")
