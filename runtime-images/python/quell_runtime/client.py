"""The blocking client of the node: one kept connection."""

import socket

from quell_runtime import wire
from quell_runtime.errors import NodeGone
from quell_runtime.http1 import BadResponse, ResponseParser, encode_request

READ_BYTES = 64 * 1024


class NodeConnection:
    """One HTTP/1.1 connection to the node, used by one thread at a time."""

    def __init__(self, host, port):
        self._address = (host, port)
        self._host = "%s:%d" % (host, port)
        self._socket = None

    def begin(self, method, path, headers=(), body=b""):
        """Sends a request, on a new connection if there is none. Raises NodeGone."""
        try:
            if self._socket is None:
                self._socket = connect(self._address)
            self._socket.sendall(encode_request(method, path, self._host, headers, body))
        except OSError as error:
            self.close()
            raise NodeGone("%s %s: %s" % (method, path, error)) from error

    def finish(self):
        """The response of what `begin` sent; waits for it without limit. Raises NodeGone."""
        parser = ResponseParser()
        try:
            response = None
            while response is None:
                data = self._socket.recv(READ_BYTES)
                response = parser.feed(data) if data else parser.end()
                if not data and response is None:
                    raise NodeGone("the node closed the connection")
        except (OSError, BadResponse) as error:
            self.close()
            raise NodeGone(str(error)) from error
        except BaseException:
            self.close()
            raise
        if not response.keep_alive:
            self.close()
        return response

    def post(self, path, headers, body):
        """Posts an answer; the node's status does not matter, it drops late ones itself.

        A kept connection may have been closed as idle while a handler ran, so
        a failure on one is tried once more on a new one: answers carry the
        invocation id, the second of two is dropped. Raises NodeGone.
        """
        kept = self._socket is not None
        try:
            self.begin("POST", path, headers, body)
            return self.finish()
        except NodeGone:
            if not kept:
                raise
        self.begin("POST", path, headers, body)
        return self.finish()

    def next_invocation(self):
        """Holds the request poll. Raises NodeGone."""
        self.begin("GET", wire.REQUEST_PATH)
        return wire.Invocation.from_response(self.finish())

    def post_response(self, invocation, content_type, body):
        """Hands in a result. Raises NodeGone."""
        path = wire.RESPONSE_PATH + invocation.request_id
        self.post(path, wire.post_headers(invocation, content_type), body)

    def post_error(self, invocation, body):
        """Hands in an error or an acknowledgement. Raises NodeGone."""
        self.post(wire.ERROR_PATH + invocation.request_id, wire.post_headers(invocation), body)

    def post_init_error(self, body):
        """Tells that this instance cannot start. Raises NodeGone."""
        self.post(wire.INIT_ERROR_PATH, (("Content-Type", "application/json"),), body)

    def close(self):
        """Closes the connection; the next request opens a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def connect(address):
    """A connected socket without Nagle's delay. Raises OSError."""
    # Explicit: user code may have set a default timeout, and polls are held.
    connection = socket.create_connection(address, timeout=None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
