"""Invokes another function with the vendor's SDK and nothing but what its own context gives it."""

import json
import os
import socket
import sys

sdk = None


def initialize(context):
    """The SDK lies outside of the package; where, the test says in the user data."""
    global sdk
    sys.path.insert(0, context.getUserData("site"))
    os.environ["HOME"] = "/dev/null"  # the SDK would keep an application id there; it goes on without
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkfunctiongraph import v2 as sdk

    sdk.BasicCredentials = BasicCredentials


def client_of(context):
    """A client and the headers it needs: signed by the temporary keys where there are any, else the token."""
    keys = (context.getSecurityAccessKey(), context.getSecuritySecretKey())
    signed = all(keys) and context.getUserData("mode") == "signed"
    credentials = sdk.BasicCredentials(*(keys if signed else ("none", "none")), context.getProjectID())
    headers = {}
    if signed:
        if context.getSecurityToken():
            credentials.with_security_token(context.getSecurityToken())
    else:
        headers = {"X-Auth-Token": context.getToken(), "Authorization": "none"}
    builder = sdk.FunctionGraphClient.new_builder().with_credentials(credentials)
    return builder.with_endpoint(os.environ["QUELL_API_ENDPOINT"]).build(), headers


def invoke(context, function, event, asynchronous=False):
    client, headers = client_of(context)
    kind = sdk.AsyncInvokeFunctionRequest if asynchronous else sdk.InvokeFunctionRequest
    request = kind(function_urn=function, body=event)
    if not asynchronous:
        request.x_cff_request_version = "v1"
    invoker = (client.async_invoke_function_invoker if asynchronous else client.invoke_function_invoker)(request)
    for name, value in headers.items():
        invoker.add_header(name, value)
    return invoker.invoke()


def handler(event, context):
    """Waits for its child and returns what that returned."""
    child = {"port": event["port"], "tag": "child of %s" % event["tag"]}
    answer = invoke(context, "child", child)
    signed = not client_of(context)[1]
    return {"tag": event["tag"], "request": context.getRequestID(), "child": json.loads(answer.result),
            "mode": "signed" if signed else "token"}


def stubborn(event, context):
    """Rings, swallows its own cancel and says so, and tries to start a child once the test tells it to."""
    line = socket.create_connection(("127.0.0.1", event["port"]))
    line.sendall((json.dumps({"tag": event["tag"], "request": context.getRequestID()}) + "\n").encode())
    try:
        line.recv(100)
        return "nobody cancelled it"
    except BaseException:
        line.sendall(b'{"swallowed": true}\n')
    outcomes = [line.recv(100).decode()]
    for asynchronous in (False, True):
        try:
            invoke(context, "child", {"tag": "must not be", "port": event["port"]}, asynchronous)
            outcomes.append("started")
        except BaseException as refused:
            outcomes.append("%s %s" % (getattr(refused, "status_code", ""), getattr(refused, "error_code", refused)))
    line.sendall((json.dumps({"outcomes": outcomes}) + "\n").encode())
    line.recv(100)
