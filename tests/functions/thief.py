"""A function that tries to reach what is the node's."""

import json
import os
import signal
import socket
import time


def handler(event, context):
    got = []
    for name in ("client.json", "quell.db", "lock"):
        attempt(got, name, lambda: open(os.path.join(event["data"], name)).close())
    attempt(got, "write to the code", lambda: open("stolen", "w").close())
    attempt(got, "write to the image", lambda: open(os.environ["RUNTIME_ROOT"] + "/stolen", "w").close())
    attempt(got, "stop the helper", lambda: os.kill(os.getppid(), signal.SIGSTOP))
    attempt(got, "become root", lambda: os.setuid(0))
    line = socket.socket(socket.AF_UNIX)
    line.connect("\0quell-bell-%d" % event["port"])
    uid = [os.getuid(), os.getgid(), os.getgroups()]
    line.sendall((json.dumps({"uid": uid, "got": got}) + "\n").encode())
    time.sleep(300)


def attempt(got, what, deed):
    try:
        deed()
        got.append(what)
    except OSError:
        pass
