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
    try:
        settings = Settings()
    except (KeyError, ValueError) as error:
        print("quell: unusable environment: %r" % (error,), file=sys.stderr)
        sys.exit(1)
    connection = NodeConnection(settings.api_host, settings.api_port)
    become_subreaper()
    try:
        handler, loop = _prepare(settings)
        pre_stop = prepare(settings)
    except BaseException as error:
        _fail(connection, error, settings)
    if loop is not None:
        from quell_runtime import aio

        aio.serve(settings, handler, loop, pre_stop)
    elif settings.concurrency > 1:
        from quell_runtime import dispatch

        dispatch.serve(settings, handler, connection, pre_stop)
    else:
        from quell_runtime import single

        single.serve(settings, handler, connection, pre_stop)


def _prepare(settings):
    """(handler, its event loop or None), initialized. Raises whatever user code raises."""
    os.chdir(settings.code_root)
    sys.path.insert(0, settings.code_root)
    handler = load(settings.code_root, settings.handler)
    loop = None
    if is_async(handler):
        from quell_runtime import aio

        loop = aio.new_loop()
    if settings.initializer:
        _initialize(settings, loop)
    return handler, loop


def _initialize(settings, loop):
    from quell_runtime.context import Context

    initializer = load(settings.code_root, settings.initializer)
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
