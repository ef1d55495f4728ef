"""A function that opens connections to its own Runtime API and keeps them."""

import json
import os
import socket
import time

KEPT = []


def handler(event, context):
    host, _, port = os.environ["RUNTIME_API_ADDR"].rpartition(":")
    for _ in range(event["connections"]):
        connection = socket.create_connection((host, int(port)))
        connection.sendall(b"GET /v1/runtime/nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            if connection.recv(1):
                KEPT.append(connection)
        except ConnectionError:
            pass
    line = socket.socket(socket.AF_UNIX)
    line.connect("\0quell-bell-%d" % event["port"])
    line.sendall((json.dumps({"kept": len(KEPT)}) + "\n").encode())
    time.sleep(300)
