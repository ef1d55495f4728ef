"""The function of the end-to-end tests: it says where it is by ringing the test's bell.

Every behaviour first connects to the test's listener and writes one line of JSON; the connection
stays open, so its end tells the test that the process (or at least this code) is gone, and a byte
from the test lets a waiting behaviour go on.
"""

import asyncio
import json
import os
import socket
import subprocess
import threading
import time


BELL = "\0quell-bell-%d"
"""An abstract socket: it is reached from any mount and PID namespace, and tells who rang."""


def ring(port, **facts):
    line = connect(port)
    tell(line, facts)
    return line


def connect(port):
    line = socket.socket(socket.AF_UNIX)
    line.connect(BELL % port)
    return line


def tell(line, facts):
    line.sendall((json.dumps({"me": me(), **facts}) + "\n").encode())


def me():
    """This process by a name that no other of the node has: numbers begin anew in each namespace."""
    return "%s/%d" % (os.environ["QUELL_INSTANCE_ID"], os.getpid())


def handler(event, context):
    if not isinstance(event, dict) or "do" not in event:
        return {"me": me(), "event": event}
    print("the handler begins", flush=True)
    children = [invoke_child(context, child) for child in event.get("children", [])]
    facts = {"tag": event.get("tag"), "request": context.getRequestID(), "children": children,
             "api": os.environ["RUNTIME_API_ADDR"], "token": context.getToken(),
             "access_key": context.getSecurityAccessKey(), "secret_key": context.getSecuritySecretKey()}
    line = connect(event["port"])
    if event["do"] in GUARDED:
        return GUARDED[event["do"]](line, facts)
    tell(line, facts)
    return BEHAVIOURS[event["do"]](event, line)


def invoke_child(context, child):
    return context.invoke_async(child.pop("function", context.getFunctionName()), child,
                                detached=child.pop("detached", False))


def wait(event, line):
    """Waits for the test in a system call; returns what it is told."""
    told = line.recv(100).decode()
    if not told:
        raise RuntimeError("the test went away")
    return {"me": me(), "told": told, "tag": event.get("tag")}


def disk(event, line):
    os.stat(event["path"])


def loop(event, line):
    count = 0
    while True:
        count += 1


def subprocess_run(event, line):
    with line:
        subprocess.run(["sleep", "300"], check=False)


def setsid(event, line):
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    more = ring(event["port"], tag="setsid", child=child.pid)
    child.wait()
    more.close()


def stubborn(line, facts):
    """Swallows everything it can, from the moment the test hears of it."""
    while True:
        try:
            if facts:
                tell(line, facts)
                facts = None
            line.recv(1)
            time.sleep(300)
        except BaseException:
            pass


def cleanup(line, facts):
    try:
        tell(line, facts)
        time.sleep(300)
    finally:
        line.sendall(b"cleaned\n")


def fail(event, line):
    raise ValueError("as the test asked")


def leave(event, line):
    os._exit(3)


def big(event, line):
    return "x" * event["bytes"]


def thread(event, line):
    """A thread of the handler's that would speak after the end."""
    threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
    return wait(event, line)


GUARDED = {"stubborn": stubborn, "cleanup": cleanup}
"""These tell the test themselves: what comes as soon as it has heard must find them ready."""
BEHAVIOURS = {
    "wait": wait,
    "disk": disk,
    "loop": loop,
    "subprocess": subprocess_run,
    "setsid": setsid,
    "fail": fail,
    "leave": leave,
    "big": big,
    "thread": thread,
}


async def ahandler(event, context):
    if event["do"] == "block":
        ring(event["port"], tag=event.get("tag"), request=context.getRequestID())
        time.sleep(300)
    reader, writer = await asyncio.open_unix_connection(BELL % event["port"])
    facts = {"me": me(), "tag": event.get("tag"), "request": context.getRequestID()}
    writer.write((json.dumps(facts) + "\n").encode())
    await writer.drain()
    try:
        told = await reader.read(100)
        return {"me": me(), "told": told.decode(), "tag": event.get("tag")}
    except asyncio.CancelledError:
        writer.write(b"cleaned\n")
        raise
    finally:
        writer.close()
