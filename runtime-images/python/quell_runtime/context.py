"""The `context` a handler gets: FunctionGraph's methods, and ours for cancelling and invoking."""

import time

from quell_runtime import subinvoke
from quell_runtime.log import RequestLogger


class Context:
    """One request as user code sees it. With no invocation: what an initializer gets."""

    def __init__(self, settings, invocation=None, reason=lambda: None):
        self._settings = settings
        self._headers = invocation.headers if invocation else {}
        self._request_id = invocation.request_id if invocation else ""
        self._reason = reason
        self._calls = subinvoke.OpenCalls(reason)
        deadline = invocation.deadline_ms if invocation else None
        self._deadline_ms = deadline or (time.time() + settings.timeout_s) * 1000

    @property
    def cancelled(self):
        """Whether this request has been cancelled."""
        return self._reason() is not None

    @property
    def cancel_reason(self):
        """"cancel", "deadline" or "disconnect"; None while it is not cancelled."""
        return self._reason()

    def invoke(self, function, event=None, timeout=None):
        """Invokes a function (name or URN) and waits for its result, decoded if it is JSON.

        Raises SubInvocationError if it is refused or fails, TimeoutError after
        `timeout` seconds, and InvocationCanceled if this request is cancelled.
        """
        call = self._call(function, event, "invocations")
        return subinvoke.result_of(self._calls.perform(call, timeout))

    def invoke_async(self, function, event=None, detached=False):
        """Has a function invoked later; its request id. `detached`: not as a child of this request.

        Raises what `invoke` raises.
        """
        call = self._call(function, event, "invocations-async", detached)
        return subinvoke.request_id_of(self._calls.perform(call, None))

    async def ainvoke(self, function, event=None, timeout=None):
        """`invoke` for `async def` handlers. Raises asyncio.TimeoutError after `timeout` seconds."""
        call = self._call(function, event, "invocations")
        return subinvoke.result_of(await subinvoke.perform_async(call, timeout))

    async def ainvoke_async(self, function, event=None, detached=False):
        """`invoke_async` for `async def` handlers."""
        call = self._call(function, event, "invocations-async", detached)
        return subinvoke.request_id_of(await subinvoke.perform_async(call, None))

    def _call(self, function, event, operation, detached=False):
        return subinvoke.Call(self._settings, self.getToken(), function, event, operation, detached)

    def _abort_calls(self):
        self._calls.abort()

    def getRequestID(self):
        """The id of this request."""
        return self._request_id

    def getRemainingTimeInMilliSeconds(self):
        """How long the function may still run, in ms; 0 when the time is over."""
        return max(0, int(self._deadline_ms - time.time() * 1000))

    def getRunningTimeInSeconds(self):
        """The timeout of the function, in s."""
        return self._settings.timeout_s

    def getUserData(self, key, default=None):
        """A value of the function's user data."""
        return self._settings.user_data.get(key, default)

    def getFunctionName(self):
        """The name of the function."""
        return self._settings.function

    def getVersion(self):
        """The version of the function."""
        return self._settings.version

    def getAlias(self):
        """The alias it was invoked by; "" if by version."""
        return self._headers.get("x-quell-alias", "")

    def getTraceparent(self):
        """The W3C trace context of this request: what is begun in it is below that; "" if it is in no trace."""
        return self._headers.get("traceparent", "")

    def getTracestate(self):
        """The tracestate that goes with it."""
        return self._headers.get("tracestate", "")

    def getMemorySize(self):
        """The memory of the function, in MB."""
        return self._settings.memory_mb

    def getCPUNumber(self):
        """The CPU share of the function, in the unit the node tells."""
        return self._settings.cpu

    def getProjectID(self):
        """The project the function belongs to."""
        return self._settings.project_id

    def getPackage(self):
        """The package (application) of the function."""
        return self._settings.package

    def getToken(self):
        """The token of this attempt: what is invoked with it is a child of this request."""
        return self._headers.get("x-cff-auth-token", "")

    def getLogger(self):
        """A logger with debug, info, warning and error."""
        return RequestLogger(self._request_id)

    def getSecurityAccessKey(self):
        """The temporary access key of this attempt; "" if the node gave none."""
        return self._headers.get("x-cff-access-key", "")

    def getSecuritySecretKey(self):
        """The temporary secret key of this attempt."""
        return self._headers.get("x-cff-secret-key", "")

    def getSecurityToken(self):
        """The security token that goes with the temporary keys."""
        return self._headers.get("x-cff-security-token", "")

    getAccessKey = getSecurityAccessKey
    getSecretKey = getSecuritySecretKey
