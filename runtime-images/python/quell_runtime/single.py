"""Sync handler, one request at a time: everything in this process."""

import sys

from quell_runtime.attempt import SyncRunner
from quell_runtime.cancellation import Guard, Listener, Notices
from quell_runtime.client import NodeConnection
from quell_runtime.errors import NodeGone
from quell_runtime.process import end_instance


def serve(settings, handler, connection, pre_stop=None):
    """Serves requests until the node is gone; does not return."""
    notices = Notices()
    guard = Guard(notices.reason_of)
    guard.install()
    runner = SyncRunner(settings, handler, guard, connection)
    polls = NodeConnection(settings.api_host, settings.api_port)
    if pre_stop is not None:
        pre_stop.is_idle = lambda: guard.key is None
        pre_stop.install()
    Listener(polls, guard, notices, _node_gone).start()
    try:
        while True:
            if pre_stop is not None:
                pre_stop.run_if_due()
            invocation = connection.next_invocation()
            runner.run(invocation, invocation.invocation_id, notices.reason_of)
    except NodeGone as error:
        _node_gone(error)


def _node_gone(error):
    print("quell: ending the instance: %r" % (error,), file=sys.stderr)
    end_instance()
