"""A part of a tree whose parts are of all kinds of runtimes: it starts children, rings, and waits.

Event: {"bell": path, "tag": name, "children": [{"function", "sync", "event"}]}. Children that are not waited for are
started first; then it rings; then it waits for the one that is, or for a word from the test. Plain, as a coroutine, and
for the Lambda client in Python.
"""

import asyncio
import json
import os
import socket
import urllib.request


def connect(event):
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(event["bell"])
    except BaseException:
        line.close()
        raise
    return line


def tell(line, event, request):
    line.sendall((json.dumps({"tag": event["tag"], "request": request}) + "\n").encode())


def split(event):
    """(those not waited for, the one that is or None)"""
    waited = [child for child in event["children"] if child["sync"]]
    return [child for child in event["children"] if not child["sync"]], (waited or [None])[0]


def handler(event, context):
    others, waited = split(event)
    for child in others:
        context.invoke_async(child["function"], child["event"])
    # What an exception leaves to the collector of garbage is closed when that comes, and the test waits for it.
    with connect(event) as line:
        tell(line, event, context.getRequestID())
        if waited:
            context.invoke(waited["function"], waited["event"])
        else:
            line.recv(10)
    return {"tag": event["tag"]}


async def coroutine(event, context):
    others, waited = split(event)
    for child in others:
        await context.ainvoke_async(child["function"], child["event"])
    with connect(event) as line:
        line.setblocking(False)
        tell(line, event, context.getRequestID())
        if waited:
            await context.ainvoke(waited["function"], waited["event"])
        else:
            await asyncio.get_running_loop().sock_recv(line, 10)
    return {"tag": event["tag"]}


def on_lambda(event, context):
    token = context.client_context.custom["quell-token"]
    others, waited = split(event)
    for child in others:
        invoke(child, token, "invocations-async")
    with connect(event) as line:
        tell(line, event, context.aws_request_id)
        if waited:
            invoke(waited, token, "invocations")
        else:
            line.recv(10)
    return {"tag": event["tag"]}


def invoke(child, token, how):
    """As anybody would who has nothing but HTTP and the token of his request."""
    url = "%s/v2/default/fgs/functions/%s/%s" % (os.environ["QUELL_API_ENDPOINT"], child["function"], how)
    headers = {"X-Auth-Token": token, "Content-Type": "application/json"}
    body = json.dumps(child["event"]).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(urllib.request.Request(url, body, headers)).close()
