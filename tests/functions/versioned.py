"""A function that says which version of it runs, and by which alias; it waits at the bell if it is given one.

Told a result by the node, it finds the bell of the event that the result is of.
"""

import json
import os
import socket

CODE = "one"


def handler(event, context):
    facts = {
        "code": CODE,
        "version": context.getVersion(),
        "alias": context.getAlias(),
        "told_version": os.environ["RUNTIME_FUNC_VERSION"],
        "colour": context.getUserData("colour"),
        "function": context.getFunctionName(),
        "request": context.getRequestID(),
    }
    port = event.get("port") or event.get("request_payload", {}).get("port")
    if port:
        line = socket.socket(socket.AF_UNIX)
        line.connect("\0quell-bell-%d" % port)
        line.sendall((json.dumps(facts) + "\n").encode())
        if line.recv(100) == b"leave":
            os._exit(3)
    return facts
