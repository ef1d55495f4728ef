"""A tree of requests to cancel: it invokes itself, some of it asynchronously, and its leaves sleep.

Event: {"depth": 3, "width": 2, "sleep_s": 300}. Of the children of a request, the last is invoked
synchronously, and the request waits for it; the others are invoked asynchronously. Leaves sleep in
Python, in a `sleep` process, or in a `sleep` process that left its group and session by setsid.
"""

import subprocess
import time

DEPTH, WIDTH, SLEEP_S = 3, 2, 300
"""What an event without these gets."""

MAX_LEAVES = 256
"""Of one tree: more is taken for a mistake in the event."""


def handler(event, context):
    event = event if isinstance(event, dict) else {}
    depth, width = int(event.get("depth", DEPTH)), int(event.get("width", WIDTH))
    if depth < 0 or width < 1 or width**depth > MAX_LEAVES:
        raise ValueError("depth at least 0, width at least 1, and at most %d leaves" % MAX_LEAVES)
    number = int(event.get("number", 0))  # of this request on its level
    if depth == 0:
        return leaf(number, float(event.get("sleep_s", SLEEP_S)))
    children = [dict(event, depth=depth - 1, number=number * width + at) for at in range(width)]
    started = [context.invoke_async(context.getFunctionName(), child) for child in children[:-1]]
    context.getLogger().info("started %s, waiting for one more" % started)
    return {"started": started, "waited_for": context.invoke(context.getFunctionName(), children[-1])}


def leaf(number, seconds):
    how = ("python", "process", "setsid")[number % 3]
    if how == "python":
        time.sleep(seconds)
    else:
        subprocess.run(["sleep", str(seconds)], check=True, start_new_session=how == "setsid")
    return {"leaf": number, "slept_in": how}
