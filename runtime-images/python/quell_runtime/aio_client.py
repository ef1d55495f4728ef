"""The asyncio client of the node."""

import asyncio

from quell_runtime import wire
from quell_runtime.client import READ_BYTES
from quell_runtime.errors import NodeGone
from quell_runtime.http1 import BadResponse, ResponseParser, encode_request


class AsyncConnection:
    """One HTTP/1.1 connection to the node, used by one task at a time."""

    def __init__(self, host, port):
        self._address = (host, port)
        self._host = "%s:%d" % (host, port)
        self._reader = None
        self._writer = None

    async def begin(self, method, path, headers=(), body=b""):
        """Sends a request, on a new connection if there is none. Raises NodeGone."""
        try:
            if self._writer is None:
                # asyncio sets TCP_NODELAY by itself.
                self._reader, self._writer = await asyncio.open_connection(*self._address)
            self._writer.write(encode_request(method, path, self._host, headers, body))
            await self._writer.drain()
        except OSError as error:
            self.close()
            raise NodeGone("%s %s: %s" % (method, path, error)) from error

    async def finish(self):
        """The response of what `begin` sent; waits for it without limit. Raises NodeGone."""
        parser = ResponseParser()
        response = None
        try:
            while response is None:
                data = await self._reader.read(READ_BYTES)
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

    async def post(self, path, headers, body):
        """Posts an answer; once more on a new connection if a kept one was closed. Raises NodeGone."""
        kept = self._writer is not None
        try:
            await self.begin("POST", path, headers, body)
            return await self.finish()
        except NodeGone:
            if not kept:
                raise
        await self.begin("POST", path, headers, body)
        return await self.finish()

    def close(self):
        """Closes the connection; the next request opens a new one."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._reader = self._writer = None


class AnswerPool:
    """Connections for answers: as many as ever answered at once, at most the concurrency."""

    def __init__(self, host, port):
        self._address = (host, port)
        self._idle = []

    async def post_response(self, invocation, content_type, body):
        """Hands in a result. Raises NodeGone."""
        path = wire.RESPONSE_PATH + invocation.request_id
        await self._post(path, wire.post_headers(invocation, content_type), body)

    async def post_error(self, invocation, body):
        """Hands in an error or an acknowledgement. Raises NodeGone."""
        await self._post(wire.ERROR_PATH + invocation.request_id, wire.post_headers(invocation), body)

    async def _post(self, path, headers, body):
        connection = self._idle.pop() if self._idle else AsyncConnection(*self._address)
        await connection.post(path, headers, body)
        self._idle.append(connection)
