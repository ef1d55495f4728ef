#!/usr/bin/env python3
"""A custom runtime that the test plays: it carries bytes between the test's bell and the Runtime API.

Each line rings the bell and waits for the first byte of the test; with that it is connected to the
Runtime API, and the next line is hung. When either side hangs up, so does the other.
"""

import json
import os
import socket
import threading

BELL = "\0quell-bell-" + json.loads(os.environ["RUNTIME_USERDATA"])["port"]
HOST, _, PORT = os.environ["RUNTIME_API_ADDR"].rpartition(":")


def hang():
    line = socket.socket(socket.AF_UNIX)
    line.connect(BELL)
    facts = {"tag": "line", "instance": os.environ["QUELL_INSTANCE_ID"]}
    line.sendall((json.dumps(facts) + "\n").encode())
    first = line.recv(65536)
    threading.Thread(target=hang).start()
    if first:
        api = socket.create_connection((HOST, int(PORT)))
        api.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        api.sendall(first)
        threading.Thread(target=carry, args=(line, api)).start()
        carry(api, line)


def carry(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for side in (source, sink):
        try:
            side.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


hang()
