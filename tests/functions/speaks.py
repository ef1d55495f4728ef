"""A function that prints, as its event says, and rings the test's bell."""

import json
import os
import socket
import sys


def ring(port, **facts):
    line = socket.socket(socket.AF_UNIX)
    line.connect("\0quell-bell-%d" % port)
    line.sendall((json.dumps(facts) + "\n").encode())
    return line


def handler(event, context):
    for line in event.get("print", []):
        print(line)
    for line in event.get("log", []):
        context.getLogger().info(line)
    for line in event.get("stderr", []):
        print(line, file=sys.stderr)
    os.write(1, bytes(event.get("bytes", [])))
    if "flood" in event:
        flood(event["flood"])
    if "port" in event:
        line = ring(event["port"], request=context.getRequestID(), tag=event.get("tag"))
        obey(line)
    return {"done": True}


def obey(line):
    """Prints what the test says, a line each, until it lets go."""
    told = ""
    while told != "go":
        more = line.recv(1_000).decode()
        if not more:
            return
        told += more
        while "\n" in told:
            word, _, told = told.partition("\n")
            while word == "flood":
                flood(1)
            print(word, flush=True)


def flood(mib):
    part = b"".join(b"%01023d\n" % number for number in range(1_024))
    for _ in range(mib):
        left = part
        while left:
            left = left[os.write(1, left):]
