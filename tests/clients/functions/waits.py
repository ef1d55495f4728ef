"""Rings the test's bell and waits there: the end of the line tells the test that this code is gone."""

import json
import socket


def handler(event, context):
    children = [context.invoke_async(child.pop("function"), child) for child in event.get("children", [])]
    line = socket.create_connection(("127.0.0.1", event["port"]))
    rung = {"tag": event.get("tag"), "request": context.getRequestID(), "children": children}
    line.sendall((json.dumps(rung) + "\n").encode())
    told = line.recv(100).decode()
    if not told:
        raise RuntimeError("the test went away")
    return {"told": told, "tag": event.get("tag")}
