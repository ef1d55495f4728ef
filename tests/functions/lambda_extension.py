#!/usr/bin/env python3
"""An executable that registers an extension beside itself and tells, as its result, what it was answered."""

import http.client
import json
import os
import select

API = os.environ["AWS_LAMBDA_RUNTIME_API"]


def exchange(method, path, headers=None, body=None):
    line = http.client.HTTPConnection(API)
    line.request(method, path, body, headers or {})
    answer = line.getresponse()
    return answer.status, dict((name.lower(), value) for name, value in answer.getheaders()), answer.read()


def say(method, path, headers=None, body=None):
    """Status, and the JSON that came with it."""
    status, _, body = exchange(method, path, headers, body)
    return [status, json.loads(body)]


EXTENSION = "/2020-01-01/extension/"
status, headers, body = exchange(
    "POST", EXTENSION + "register", {"Lambda-Extension-Name": "watcher"}, '{"events":["INVOKE","SHUTDOWN"]}')
identifier = {"Lambda-Extension-Identifier": headers["lambda-extension-identifier"]}
told = {
    "registered": [status, json.loads(body)],
    "nameless": say("POST", EXTENSION + "register", None, '{"events":[]}'),
    "eventless": say("POST", EXTENSION + "register", {"Lambda-Extension-Name": "x"}, '{"events":["LUNCH"]}'),
    "stranger": say("GET", EXTENSION + "event/next"),
    "exit": say("POST", EXTENSION + "exit/error", identifier, "{}"),
    "unknown": say("GET", EXTENSION + "event/previous", identifier),
    "logs": say("PUT", "/2020-08-15/logs", identifier, "{}"),
    "telemetry": say("PUT", "/2022-07-01/telemetry", identifier, "{}"),
    "restored": exchange("GET", "/2018-06-01/runtime/restore/next")[0],
}
events = http.client.HTTPConnection(API)
events.request("GET", EXTENSION + "event/next", headers=identifier)
while True:
    _, headers, _ = exchange("GET", "/2018-06-01/runtime/invocation/next")
    answered = bool(select.select([events.sock], [], [], 0)[0])
    request = headers["lambda-runtime-aws-request-id"]
    path = "/2018-06-01/runtime/invocation/%s/response" % request
    exchange("POST", path, None, json.dumps({**told, "event": answered}))
