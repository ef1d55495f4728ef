"""The function of the chaos harness: it writes down that it starts, what it starts, and that it is done.

One line is one write to a file opened for appending, so lines are whole and their order in the file
is the order in which they were written. A line begins and ends with a line break: one that a kill
tore in two spoils no other.
"""

import hashlib
import os
import subprocess
import time


class Pen:
    """Writes the lines of one attempt."""

    def __init__(self, context):
        self._file = os.open(context.getUserData("ledger"), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._function = context.getFunctionName()
        self._request = context.getRequestID()
        # Each attempt has a token of its own; the token itself is nobody else's business.
        self._attempt = hashlib.sha256(context.getToken().encode()).hexdigest()[:16]
        # Whoever starts the node puts the life's number there; it reaches every process below it.
        token = next(folder for folder in os.environ["PATH"].split(":") if folder.startswith("/quell-chaos-"))
        self._life = token.rpartition("-")[2]

    def write(self, mark, how="-", other="-", function=None):
        words = (mark, self._life, os.getpid(), time.clock_gettime_ns(time.CLOCK_BOOTTIME),
                 function or self._function, self._request, self._attempt, how, other, ".")
        os.write(self._file, ("\n%s\n" % " ".join(map(str, words))).encode())

    def close(self):
        os.close(self._file)


def handler(event, context):
    pen = Pen(context)
    try:
        pen.write("start", event.get("how", "root"), event.get("parent", "-"))
        for child in event.get("children", []):
            invoke(pen, context, child)
        DEEDS[event["do"]](event["ms"] / 1000)
        if event["do"] == "fail":
            pen.write("fail")
            raise ValueError("as the schedule says")
        pen.write("finish")
    finally:
        pen.close()


def invoke(pen, context, child):
    how, function = child["how"], child["function"]
    event = dict(child["event"], how=how)
    if how != "detached":
        event["parent"] = context.getRequestID()
    try:
        if how == "sync":
            context.invoke(function, event)
        else:
            request = context.invoke_async(function, event, detached=how == "detached")
            pen.write("child", how, request, function)
    except Exception:
        pass  # refused, or the node is ending: the schedule goes on without it


def stubborn(seconds):
    """Swallows everything it can."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(max(0, end - time.monotonic()))
        except BaseException:
            pass


def setsid(seconds):
    subprocess.run(["sleep", str(seconds)], check=True, start_new_session=True)


DEEDS = {"work": time.sleep, "fail": time.sleep, "setsid": setsid, "stubborn": stubborn}
