"""The event loop of `async def` handlers: it knows whose every callback is, and can end them.

A callback belongs to the request in whose context it was scheduled. Timers that
arm themselves again, watched descriptors and open connections run code of their
request long after its task is over.
"""

import asyncio

from quell_runtime import ownership
from quell_runtime.ownership import OWNER


class Loop(asyncio.SelectorEventLoop):
    """The selector loop; what is scheduled in a context of its own still has its owner."""

    def call_soon(self, callback, *args, context=None):
        """As the base class."""
        if context is not None:
            ownership.adopt(context)
        return super().call_soon(callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        """As the base class."""
        if context is not None:
            ownership.adopt(context)
        return super().call_at(when, callback, *args, context=context)

    def end_callbacks(self, owned):
        """Cancels every callback of a request, and drops its connections; how many there were."""
        ended = 0
        for handle in [*self._scheduled, *self._ready]:
            if not handle.cancelled() and _is_of(handle, owned) and not _is_of_asyncio(handle):
                handle.cancel()
                ended += 1
        for key in list(self._selector.get_map().values()):
            for handle in filter(None, key.data or ()):
                if handle.cancelled() or not _is_of(handle, owned):
                    continue
                ended += 1
                transport = getattr(handle._callback, "__self__", None)
                if isinstance(transport, asyncio.BaseTransport):
                    transport.abort()
                else:
                    self.remove_reader(key.fd)
                    self.remove_writer(key.fd)
        return ended


def _is_of(handle, owned):
    return handle._context is not None and handle._context.get(OWNER) is owned


def _is_of_asyncio(handle):
    """Its own housekeeping, such as the last step of a connection that was closed."""
    return (getattr(handle._callback, "__module__", None) or "").startswith("asyncio")
