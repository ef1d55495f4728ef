"""A function whose import can be told from its runs."""

import os
import random
import uuid

from report import report

IMPORTED_BY = os.getpid()
IMPORTED_WITH = dict(os.environ)
CALLS = []


def initializer(context):
    CALLS.append("initialized")


def tell(event, context):
    CALLS.append("called")
    return {
        "pid": os.getpid(), "group": os.getpgid(0), "parent": os.getppid(), "imported_by": IMPORTED_BY,
        "instance": os.environ.get("QUELL_INSTANCE_ID"),
        "left": sorted(set(os.environ) & {"OF_THE_TEMPLATE"}),
        "address_at_import": IMPORTED_WITH.get("RUNTIME_API_ADDR"),
        "drawn": [random.random(), str(uuid.uuid1()), str(uuid.uuid4())],
        "calls": CALLS, "open": sorted(os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd")
                                       if os.path.lexists("/proc/self/fd/" + n)),
    }


def hang(event, context):
    import time

    report()
    time.sleep(300)


async def tell_async(event, context):
    return tell(event, context)
