"""A function that keeps invoking itself until it is stopped."""

import socket
import threading


def handler(event, context):
    if event.get("port"):
        line = socket.socket(socket.AF_UNIX)
        line.connect("\0quell-bell-%d" % event["port"])
        line.sendall(b"{}\n")
    depth = event["depth"]
    while depth > 0:
        try:
            context.invoke_async(context.getFunctionName(), {"depth": depth - 1})
        except Exception:
            pass  # refused: try again, as a runaway would
    threading.Event().wait()
