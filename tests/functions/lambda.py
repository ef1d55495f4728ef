"""A handler for the Lambda client in Python: it rings the bell of the test and does what the event says."""

import json
import os
import socket
import time
import urllib.request

def handler(event, context):
    known = {"request": context.aws_request_id, "tag": event.get("tag"), "me": me(),
             "client": os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "one")}
    return globals()["do_" + event["do"]](event, context, known)


def me():
    return "%s/%d" % (os.environ["QUELL_INSTANCE_ID"], os.getpid())


def ring(event, known):
    line = socket.socket(socket.AF_UNIX)
    line.connect(event["bell"])
    line.sendall((json.dumps(known) + "\n").encode())
    return line


def do_echo(event, context, known):
    left = context.get_remaining_time_in_millis()
    return {**known, "size": len(event.get("pad", "")), "urn": context.invoked_function_arn,
            "left": left, "memory": context.memory_limit_in_mb, "stream": context.log_stream_name}


def do_wait(event, context, known):
    for child in event.get("children", []):
        invoke(child, context)
    line = ring(event, known)
    try:
        told = line.recv(100).decode()
        if not told:
            raise RuntimeError("the test went away")
        return {**known, "told": told}
    except BaseException as error:
        if type(error).__name__ == "InvocationCanceled":
            line.sendall(b"cleaned\n")
        raise


def do_loop(event, context, known):
    """Does not stop for anybody who asks."""
    line = ring(event, known)
    while True:
        try:
            if line.recv(100):
                return known
            time.sleep(300)
        except BaseException:
            pass


def do_tidy(event, context, known):
    """Takes as long to clean up as it is told to."""
    line = ring(event, known)
    try:
        line.recv(100)
    finally:
        line.sendall(b"cleaning\n")
        line.recv(100)
        line.sendall(b"cleaned\n")


def do_careless(event, context, known):
    """Goes on whatever goes wrong."""
    line = ring(event, known)
    while True:
        try:
            line.recv(100)
        except Exception:
            pass


def do_leave(event, context, known):
    os._exit(3)


def do_raw(event, context, known):
    return b"\x00 no JSON \xff"


def do_fail(event, context, known):
    raise ValueError(event.get("words", "as the test asked"))


def do_big(event, context, known):
    return "x" * event["bytes"]


def do_spawn(event, context, known):
    """A process that detaches, and the handler waits for it."""
    import subprocess
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    ring(event, {**known, "child": child.pid})
    child.wait()


def invoke(event, context):
    url = "%s/v2/default/fgs/functions/%s/invocations-async" % (
        os.environ["QUELL_API_ENDPOINT"], event["function"])
    headers = {"X-Auth-Token": context.client_context.custom["quell-token"],
               "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(event).encode(), headers)) as answer:
        answer.read()
