"""Requests that share a runtime: what one of them suffers by force, all suffer.

Event: {"sleep_s": 300}.
"""

import os
import time


def handler(event, context):
    time.sleep(float(event.get("sleep_s", 300) if isinstance(event, dict) else 300))
    return {"pid": os.getpid()}
