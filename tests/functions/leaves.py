"""A function with a pre-stop handler that rings the test's bell, and does what its user data says."""

import json
import os
import socket
import time


def ring(context, tag, **facts):
    line = socket.socket(socket.AF_UNIX)
    line.connect("\0quell-bell-%s" % context.getUserData("bell"))
    line.sendall((json.dumps({"tag": tag, **facts}) + "\n").encode())
    return line


def handler(event, context):
    if event.get("do") == "wait":
        ring(context, "handler").recv(1)
    if event.get("do") == "stubborn":
        swallow(ring(context, "handler"))
    return {"answered": True}


def swallow(line):
    while True:
        try:
            line.recv(1)
            time.sleep(300)
        except BaseException:
            pass


async def ahandler(event, context):
    return {"answered": True}


def leave(context):
    how = context.getUserData("leave", "return")
    if how == "raise":
        raise ValueError("as the test asked")
    if how == "crash":
        os._exit(3)
    line = ring(context, "leave", function=context.getFunctionName(), request=context.getRequestID(),
                limit=os.environ["PRE_STOP_TIMEOUT"], handler=os.environ["PRE_STOP_HANDLER"])
    line.recv(1)
    line.sendall(b"cleaned\n")


async def aleave(context):
    leave(context)


def initialize(context):
    how = context.getUserData("initialize", "")
    if how == "raise":
        raise ValueError("as the test asked")
    if how == "hang":
        time.sleep(300)
