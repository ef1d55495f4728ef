"""From the environment to serving: import, initialize, choose the mode."""

import os
import sys

from quell_runtime import wire
from quell_runtime.client import NodeConnection
from quell_runtime.errors import NodeGone
from quell_runtime.loader import is_async, load
from quell_runtime.pre_stop import prepare
from quell_runtime.process import become_subreaper, end_instance
from quell_runtime.settings import Settings


def main():
    """The life of an instance; does not return."""
    run(None)


def run(imported):
    """The life of an instance that has its environment; does not return. `imported`: by a fork server."""
    try:
        settings = Settings()
    except (KeyError, ValueError) as error:
        print("quell: unusable environment: %r" % (error,), file=sys.stderr)
        sys.exit(1)
    connection = NodeConnection(settings.api_host, settings.api_port)
    become_subreaper()
    try:
        function = imported or import_function(settings)
        loop = _initialized_loop(settings, function)
        pre_stop = prepare(settings)
    except BaseException as error:
        _fail(connection, error, settings)
    if loop is not None:
        from quell_runtime import aio

        aio.serve(settings, function.handler, loop, pre_stop)
    elif settings.concurrency > 1:
        from quell_runtime import dispatch

        dispatch.serve(settings, function.handler, connection, pre_stop)
    else:
        from quell_runtime import single

        single.serve(settings, function.handler, connection, pre_stop)


class Function:
    """What an import of user code came to."""

    __slots__ = ("handler", "initializer")

    def __init__(self, handler, initializer):
        self.handler = handler
        self.initializer = initializer


def import_function(settings):
    """Imports user code; runs none of its functions. Raises whatever user code raises."""
    os.chdir(settings.code_root)
    sys.path.insert(0, settings.code_root)
    handler = load(settings.code_root, settings.handler)
    initializer = load(settings.code_root, settings.initializer) if settings.initializer else None
    return Function(handler, initializer)


def _initialized_loop(settings, function):
    """The event loop of an async handler (None: it is none), when the initializer has run."""
    loop = None
    if is_async(function.handler):
        from quell_runtime import aio

        loop = aio.new_loop()
    if function.initializer is not None:
        _initialize(settings, function.initializer, loop)
    return loop


def _initialize(settings, initializer, loop):
    from quell_runtime.context import Context

    result = initializer(Context(settings))
    if not hasattr(result, "__await__"):
        return

    async def wait():
        await result

    if loop is not None:
        loop.run_until_complete(wait())
    else:
        import asyncio

        asyncio.run(wait())


def _fail(connection, error, settings):
    """Reports that this instance cannot start, and ends it."""
    import json
    import traceback

    traceback.print_exception(type(error), error, error.__traceback__)
    body = json.loads(wire.describe_error(error))
    where = "handler %s" % settings.handler
    if settings.initializer:
        where += ", initializer %s" % settings.initializer
    message = "%s: %s" % (where, body["errorMessage"])
    try:
        connection.post_init_error(wire.error_body(body["errorType"], message, body["stackTrace"]))
    except NodeGone as gone:
        print("quell: the failed start was not reported: %s" % gone, file=sys.stderr)
    end_instance()
