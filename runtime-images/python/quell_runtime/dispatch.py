"""Sync handler, several requests at once: a single-threaded parent and forked workers.

The parent never runs user code after the initializer, so that neither a long
handler nor a crash keeps it from passing on a cancellation.
"""

import gc
import selectors
import sys

from quell_runtime import wire
from quell_runtime.cancellation import Notices
from quell_runtime.client import READ_BYTES, connect
from quell_runtime.errors import NodeGone
from quell_runtime.http1 import BadResponse, ResponseParser, encode_request
from quell_runtime.process import end_instance
from quell_runtime.workers import TooManyDeaths, WorkerPool


def serve(settings, handler, connection, pre_stop=None):
    """Serves requests until the node is gone; does not return."""
    connection.close()  # not to be shared with the workers
    try:
        Dispatcher(settings, handler, connection).run(pre_stop)
    except (NodeGone, TooManyDeaths, OSError) as error:
        print("quell: ending the instance: %r" % (error,), file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        end_instance()


class HeldPoll:
    """A long poll on a connection of its own, read when the selector says so."""

    def __init__(self, settings, path, selector, on_response):
        self._address = (settings.api_host, settings.api_port)
        self._request = encode_request("GET", path, "%s:%d" % self._address)
        self._selector = selector
        self._on_response = on_response
        self._socket = None
        self._parser = None

    @property
    def held(self):
        """Whether an answer is awaited."""
        return self._parser is not None

    def send(self):
        """Sends the poll. Raises OSError."""
        if self._socket is None:
            self._socket = connect(self._address)
            self._selector.register(self._socket, selectors.EVENT_READ, self._on_readable)
        self._parser = ResponseParser()
        self._socket.sendall(self._request)

    def close(self):
        """Closes the connection; `send` opens a new one."""
        if self._socket is not None:
            try:
                self._selector.unregister(self._socket)
            except (KeyError, ValueError):
                pass
            self._socket.close()
            self._socket = None

    def close_in_child(self):
        """After fork: only the descriptor, the selector is the parent's."""
        if self._socket is not None:
            self._socket.close()

    def _on_readable(self):
        data = self._socket.recv(READ_BYTES)
        if not self.held:
            if data:
                raise NodeGone("an answer that nobody asked for")
            self.close()  # closed as idle; the held polls tell if the node is gone
            return
        try:
            response = self._parser.feed(data) if data else self._parser.end()
        except BadResponse as error:
            raise NodeGone(str(error)) from error
        if response is None:
            if not data:
                raise NodeGone("the node closed a held poll")
            return
        self._parser = None
        if not response.keep_alive:
            self.close()
        self._on_response(response)


class Dispatcher:
    """The event loop: two held polls, the workers' channels and their deaths."""

    def __init__(self, settings, handler, connection):
        self._selector = selectors.DefaultSelector()
        self._notices = Notices()
        self._connection = connection
        self._requests = HeldPoll(settings, wire.REQUEST_PATH, self._selector, self._on_request)
        self._cancellations = HeldPoll(settings, wire.CANCELLATION_PATH, self._selector, self._on_notice)
        gc.collect()
        gc.freeze()  # the collector then leaves the shared pages alone
        self._pool = WorkerPool(settings, handler, self._selector, self._in_child, connection.post_error)

    def run(self, pre_stop=None):
        """Runs until the node is gone. Raises NodeGone, OSError or TooManyDeaths."""
        if pre_stop is not None:
            pre_stop.is_idle = self._pool.is_idle
            pre_stop.install()
        self._cancellations.send()
        while True:
            if not self._requests.held and self._pool.has_capacity():
                self._requests.send()
            for key, _ in self._selector.select(self._pool.wait_s()):
                key.data()
            self._pool.tick()
            if pre_stop is not None:
                pre_stop.run_if_due()

    def _on_request(self, response):
        invocation = wire.Invocation.from_response(response)
        reason = self._notices.reason_of(invocation.invocation_id)
        if reason is not None:
            self._connection.post_error(invocation, wire.canceled_body(reason))
            return
        self._pool.assign(invocation)

    def _on_notice(self, response):
        notice = wire.Cancellation.from_response(response)
        if not self._pool.cancel(notice):
            # Perhaps the request is on its way on the other connection.
            self._notices.note(notice.invocation_id, notice.reason)
        self._cancellations.send()

    def _in_child(self):
        self._requests.close_in_child()
        self._cancellations.close_in_child()
        self._connection.close()
        self._selector.close()
