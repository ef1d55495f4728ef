"""A function that keeps invoking itself until it is stopped."""

import json
import os
import socket
import threading


def handler(event, context):
    if event.get("port"):
        line = socket.create_connection(("127.0.0.1", event["port"]))
        line.sendall((json.dumps({"pid": os.getpid()}) + "\n").encode())
    depth = event["depth"]
    while depth > 0:
        try:
            context.invoke_async(context.getFunctionName(), {"depth": depth - 1})
        except Exception:
            pass  # refused: try again, as a runaway would
    threading.Event().wait()
