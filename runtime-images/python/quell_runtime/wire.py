"""The node's runtime protocol as paths, headers and bodies (README.md, and docs/api.md of the node)."""

import json
import sys

from quell_runtime.errors import InvocationCanceled, NodeGone

REQUEST_PATH = "/v1/runtime/invocation/request"
CANCELLATION_PATH = "/v1/runtime/invocation/cancellation/next"
RESPONSE_PATH = "/v1/runtime/invocation/response/"
ERROR_PATH = "/v1/runtime/invocation/error/"
INIT_ERROR_PATH = "/v1/runtime/init/error"

INVOCATION_ID = "X-Quell-Invocation-Id"

MAX_MESSAGE_CHARS = 64 * 1024
"""Of an error message: enough for any diagnosis, and an exception can hold a whole body."""

MAX_STACK_FRAMES = 100
"""Of a stack trace: endless recursion has a thousand frames that say the same."""


class Invocation:
    """One request as received: its ids, its credentials and its event."""

    __slots__ = ("headers", "body", "request_id", "invocation_id", "deadline_ms")

    def __init__(self, headers, body):
        self.headers = headers
        self.body = body
        self.request_id = headers.get("x-cff-request-id", "")
        self.invocation_id = headers.get("x-quell-invocation-id") or self.request_id
        deadline = headers.get("x-quell-deadline-ms", "")
        self.deadline_ms = int(deadline) if deadline.isdigit() else None

    @classmethod
    def from_response(cls, response):
        """Raises NodeGone if the answer of the poll is not a request."""
        if response.status != 200 or not response.headers.get("x-cff-request-id"):
            raise NodeGone("request poll answered %d" % response.status)
        return cls(response.headers, response.body)

    def event(self):
        """The decoded event; the bytes as they are if they are not (valid) JSON."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return self.body
        if not self.body:
            return None
        try:
            return json.loads(self.body)
        except ValueError:
            return self.body


class Cancellation:
    """One notice: which invocation, why, and how long the node waits (ms)."""

    __slots__ = ("invocation_id", "reason", "grace_ms")

    def __init__(self, invocation_id, reason, grace_ms):
        self.invocation_id = invocation_id
        self.reason = reason
        self.grace_ms = grace_ms

    @classmethod
    def from_response(cls, response):
        """Raises NodeGone if the answer of the poll is not a notice."""
        if response.status != 200:
            raise NodeGone("cancellation poll answered %d" % response.status)
        try:
            told = json.loads(response.body)
            invocation_id = told.get("invocationId") or told["requestId"]
            return cls(invocation_id, told.get("reason", "cancel"), int(told.get("graceMs", 0)))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise NodeGone("unreadable cancellation: %r" % response.body[:200]) from None


def encode_result(value):
    """(content type, body) of what a handler returned.

    str and bytes go as they are, the rest as JSON. Raises TypeError or
    ValueError for what JSON cannot express.
    """
    if isinstance(value, str):
        return "text/plain; charset=utf-8", value.encode("utf-8")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "application/octet-stream", bytes(value)
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return "application/json", text.encode("utf-8")


def describe_error(error):
    """The error body of an exception that left user code."""
    import traceback

    kind = type(error).__name__
    if isinstance(error, InvocationCanceled):
        # Nobody cancelled: user code raised it. The name is the acknowledgement, so not that one.
        kind = "HandlerRaised" + kind
    try:
        message = str(error)
    except Exception as broken:
        message = "its message could not be built: %r" % (broken,)
    own = __file__.rpartition("/")[0] + "/"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(own)]
    stack = [line.rstrip("\n") for line in traceback.format_list(frames[-MAX_STACK_FRAMES:])]
    # Whoever wrote the function looks for this in its output; in one write, so that it stays together.
    sys.stderr.write("\n".join(stack + ["%s: %s" % (kind, message[:MAX_MESSAGE_CHARS])]) + "\n")
    return error_body(kind, message, stack)


def canceled_body(reason):
    """The acknowledgement: the code of this request, and what it started, has ended."""
    return error_body("InvocationCanceled", "the invocation was cancelled: " + reason)


def error_body(kind, message, stack=()):
    """The bytes of an error post."""
    body = {"errorType": kind, "errorMessage": message[:MAX_MESSAGE_CHARS], "stackTrace": list(stack)}
    return json.dumps(body).encode("ascii")


def post_headers(invocation, content_type="application/json"):
    """The headers of a response or error post; the nonce lets the node drop a late one."""
    return ((INVOCATION_ID, invocation.invocation_id), ("Content-Type", content_type))
