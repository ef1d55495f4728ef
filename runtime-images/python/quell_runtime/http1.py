"""HTTP/1.1 without I/O: requests to bytes, bytes to responses.

The three clients (blocking, selector, asyncio) differ only in how they move
bytes, so that what is easy to get wrong is here once.
"""

MAX_HEAD_BYTES = 64 * 1024
"""Status line and headers; the node's largest header is a token of a few hundred bytes."""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Ten times FunctionGraph's 6 MiB limit of events and results: only a broken peer sends more."""


class BadResponse(Exception):
    """The peer does not speak HTTP/1.1, or exceeds a bound."""


class Response:
    """One whole response; header names are in lower case."""

    __slots__ = ("status", "headers", "body", "keep_alive")

    def __init__(self, status, headers, body, keep_alive):
        self.status = status
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive


def encode_request(method, path, host, headers=(), body=b""):
    """The bytes of one request. `headers` are (name, value) pairs."""
    lines = ["%s %s HTTP/1.1" % (method, path), "Host: " + host]
    for name, value in headers:
        if "\r" in value or "\n" in value:
            raise ValueError("line break in header " + name)
        lines.append("%s: %s" % (name, value))
    if method != "GET":
        lines.append("Content-Length: %d" % len(body))
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class ResponseParser:
    """Collects the bytes of one response; `feed` and `end` give it when it is whole."""

    def __init__(self):
        self._buffer = bytearray()
        self._head = None
        self._length = None
        self._chunked = False
        self._body = bytearray()

    @property
    def started(self):
        """Whether any byte of the response has arrived."""
        return self._head is not None or bool(self._buffer)

    def feed(self, data):
        """The Response once it is whole, else None. Raises BadResponse."""
        self._buffer += data
        while self._head is None:
            if not self._read_head():
                return None
        if self._chunked:
            return self._read_chunks()
        if self._length is not None and self._length > MAX_BODY_BYTES:
            raise BadResponse("body of %d bytes" % self._length)
        if self._length is None:
            self._body += self._buffer
            self._buffer.clear()
            self._check_body()
            return None
        if len(self._buffer) < self._length:
            return None
        return self._whole(bytes(self._buffer[: self._length]))

    def end(self):
        """The peer closed: the Response if that is how its end is marked, else None."""
        if self._head is None or self._chunked or self._length is not None:
            return None
        return self._whole(bytes(self._body), keep_alive=False)

    def _read_head(self):
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadResponse("headers too long")
            return False
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        parts = lines[0].split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
            raise BadResponse("not HTTP/1: %r" % lines[0][:80])
        status = int(parts[1])
        if 100 <= status < 200:
            return bool(self._buffer)  # interim; the real head follows
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        self._set_framing(status, headers)
        keep = headers.get("connection", "").lower() != "close" and parts[0] != "HTTP/1.0"
        self._head = (status, headers, keep)
        return True

    def _set_framing(self, status, headers):
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        if status in (204, 304):
            self._chunked, self._length = False, 0
        elif length is not None and not self._chunked:
            if not length.isdigit():
                raise BadResponse("content-length %r" % length)
            self._length = int(length)

    def _read_chunks(self):
        while True:
            line_end = self._buffer.find(b"\r\n")
            if line_end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise BadResponse("chunk size line too long")
                return None
            try:
                size = int(bytes(self._buffer[:line_end]).split(b";")[0], 16)
            except ValueError:
                raise BadResponse("chunk size %r" % bytes(self._buffer[:line_end])) from None
            if size == 0:
                return self._read_trailers(line_end)
            if size > MAX_BODY_BYTES:
                raise BadResponse("chunk of %d bytes" % size)
            end = line_end + 2 + size
            if len(self._buffer) < end + 2:
                return None
            self._body += self._buffer[line_end + 2 : end]
            del self._buffer[: end + 2]
            self._check_body()

    def _read_trailers(self, line_end):
        # The last chunk and the trailers end at the first empty line.
        if self._buffer.find(b"\r\n\r\n", line_end) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadResponse("trailers too long")
            return None
        return self._whole(bytes(self._body))

    def _check_body(self):
        if len(self._body) > MAX_BODY_BYTES:
            raise BadResponse("body over %d bytes" % MAX_BODY_BYTES)

    def _whole(self, body, keep_alive=None):
        status, headers, keep = self._head
        return Response(status, headers, body, keep if keep_alive is None else keep_alive)
