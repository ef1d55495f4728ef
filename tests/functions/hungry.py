"""A function that takes more than it may, or tries to."""

import json
import os
import socket
import time

HELD = []


def handler(event, context):
    return globals()[event["take"]](event)


def memory(event):
    """Touches this many MiB, and keeps them if they are given."""
    for _ in range(event["mib"]):
        HELD.append(bytearray(os.urandom(1)) * (1 << 20))
    return {"held": len(HELD)}


def memory_in_a_child(event):
    """The child is ended for it; this process lives, and says how its child ended."""
    child = os.fork()
    if child == 0:
        try:
            memory(event)
        finally:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    return {"child": os.waitstatus_to_exitcode(status)}


def exit_beside_a_starved_child(event):
    memory_in_a_child(event)
    os._exit(3)


def processes(event):
    """Forks until it may not, at most this many times; ends them all."""
    children = []
    try:
        while len(children) < event["most"]:
            child = os.fork()
            if child == 0:
                time.sleep(300)
                os._exit(0)
            children.append(child)
        refused = False
    except OSError:
        refused = True
    for child in children:
        os.kill(child, 9)
    for child in children:
        os.waitpid(child, 0)
    return {"forked": len(children), "refused": refused}


def room(event):
    """Writes this many MiB into /tmp; how many there was room for."""
    written = 0
    with open("/tmp/full", "wb") as file:
        try:
            for _ in range(event["mib"]):
                file.write(bytes(1 << 20))
                file.flush()
                written += 1
        except OSError:
            pass
    os.truncate("/tmp/full", 0)
    return {"written": written}


def leave_memory(event):
    """Leaves a file of shared memory; what it found there of others."""
    found = os.listdir("/dev/shm")
    with open("/dev/shm/left", "wb") as file:
        file.write(bytes(1 << 20))
    return {"found": found}


def wait(event):
    line = socket.socket(socket.AF_UNIX)
    line.connect("\0quell-bell-%d" % event["port"])
    line.sendall((json.dumps({"me": "%s/%d" % (os.environ["QUELL_INSTANCE_ID"], os.getpid())}) + "\n").encode())
    return {"told": line.recv(100).decode()}


def initialize(context):
    memory({"mib": 400})
