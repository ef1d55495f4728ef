"""A function whose every attempt rings and does what it is told: return, raise, or leave.

Told a result by the node, it finds the bell of the event that the result is of.
"""

import json
import os
import socket


def handler(event, context):
    first = event
    while "port" not in first:
        first = first["request_payload"]
    line = socket.socket(socket.AF_UNIX)
    line.connect("\0quell-bell-%d" % first["port"])
    facts = {"request": context.getRequestID(), "function": context.getFunctionName(), "event": event}
    line.sendall((json.dumps(facts) + "\n").encode())
    told = first["tell"] if "tell" in first else line.recv(100).decode()
    if told == "raise":
        raise ValueError("as it was told")
    if told == "leave":
        os._exit(3)
    return {"told": told}
