"""Invoking another function: the request to the node's API, and what its answer means."""

import json
import socket
import time
from urllib.parse import quote, urlsplit

from quell_runtime.errors import InvocationCanceled, SubInvocationError
from quell_runtime.http1 import BadResponse, ResponseParser, encode_request

READ_BYTES = 64 * 1024


class Call:
    """One sub-invocation, ready to be sent by whoever moves the bytes."""

    __slots__ = ("host", "port", "bytes")

    def __init__(self, settings, token, function, event, operation, detached=False):
        parts = urlsplit(settings.endpoint)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError("QUELL_API_ENDPOINT is not an http address: %r" % settings.endpoint)
        self.host = parts.hostname
        self.port = parts.port or 80
        path = "/v2/%s/fgs/functions/%s/%s" % (
            quote(settings.project_id, safe=""), quote(function, safe=""), operation)
        headers = [("X-Auth-Token", token), ("Content-Type", "application/json"), ("Connection", "close")]
        if detached:
            headers.append(("X-Quell-Detached", "true"))
        body = json.dumps({} if event is None else event).encode("utf-8")
        self.bytes = encode_request("POST", path, parts.netloc, headers, body)


def result_of(response):
    """The decoded JSON of a 2xx answer, or its text. Raises SubInvocationError for others."""
    text = response.body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if 200 <= response.status < 300:
        return value
    told = value if isinstance(value, dict) else {}
    code = told.get("error_code", told.get("code", ""))
    message = told.get("error_msg", told.get("message", text))
    raise SubInvocationError(response.status, str(code), str(message))


def request_id_of(response):
    """The request id an accepted asynchronous invocation got. Raises SubInvocationError."""
    accepted = result_of(response)
    if not isinstance(accepted, dict) or "request_id" not in accepted:
        raise SubInvocationError(response.status, "", "the answer has no request_id")
    return accepted["request_id"]


class OpenCalls:
    """The sockets of one request's blocking sub-invocations, in whichever thread they wait.

    Closing them ends the waits when the request is cancelled: the exception
    reaches only the main thread.
    """

    def __init__(self, reason):
        self._reason = reason
        self._sockets = set()

    def perform(self, call, timeout):
        """The response. Raises OSError, TimeoutError, or InvocationCanceled."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with socket.create_connection((call.host, call.port), timeout=timeout) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.add(connection)
            try:
                if self._reason() is not None:  # after `add`: `abort` may have come before
                    raise InvocationCanceled(self._reason())
                connection.sendall(call.bytes)
                return _receive(connection, deadline)
            except (OSError, BadResponse) as error:
                if self._reason() is not None:
                    raise InvocationCanceled(self._reason()) from None
                if isinstance(error, socket.timeout):
                    raise TimeoutError("sub-invocation took longer than %s s" % timeout) from error
                raise
            finally:
                self._sockets.discard(connection)

    def abort(self):
        """Ends all waits."""
        for connection in list(self._sockets):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed meanwhile


def _receive(connection, deadline):
    parser = ResponseParser()
    while True:
        if deadline is not None:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
        data = connection.recv(READ_BYTES)
        response = parser.feed(data) if data else parser.end()
        if response is not None:
            return response
        if not data:
            raise ConnectionError("the node closed the connection of a sub-invocation")


async def perform_async(call, timeout):
    """The response, without blocking the loop; cancelling the task closes the connection."""
    import asyncio

    return await asyncio.wait_for(_exchange(call), timeout)


async def _exchange(call):
    import asyncio

    reader, writer = await asyncio.open_connection(call.host, call.port)
    try:
        writer.write(call.bytes)
        parser = ResponseParser()
        while True:
            data = await reader.read(READ_BYTES)
            response = parser.feed(data) if data else parser.end()
            if response is not None:
                return response
            if not data:
                raise ConnectionError("the node closed the connection of a sub-invocation")
    finally:
        writer.transport.abort()
