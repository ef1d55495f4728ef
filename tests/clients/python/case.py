"""What every file of the suite does the same way: one node for each class, a hard limit for each test."""

import base64
import io
import json
import signal
import time
import unittest
import urllib.request
import zipfile

from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException, ServerResponseException
from huaweicloudsdkfunctiongraph import v2 as fg

import launcher

UNKNOWN_ID = "1167bf8c-87b0-43ab-8f5f-26b16c64f252"


def encoded(data):
    return base64.b64encode(data).decode()


def source(name):
    return (launcher.FUNCTIONS / name).read_bytes()


def zipped(files):
    """A zip of files by name, as bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


class ClientCase(unittest.TestCase):
    """Tests against one node, with the SDK in the mode of the run."""

    OPTIONS = ()
    """Of `quell serve`, besides the usual."""

    @classmethod
    def setUpClass(cls):
        cls.node = launcher.Node(*cls.OPTIONS)
        cls.addClassCleanup(cls.node.stop)
        cls.addClassCleanup(signal.alarm, 0)
        cls.client = cls.node.client()
        cls.limit()

    def setUp(self):
        self.limit()

    @classmethod
    def limit(cls):
        """The hard limit, from now on: of what a class prepares, and of each test."""
        def too_long(number, frame):
            raise TimeoutError("nothing after %d s; the node said:\n%s" % (launcher.LIMIT, cls.node.said()))

        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(launcher.LIMIT)

    def bell(self):
        bell = launcher.Bell()
        self.addCleanup(bell.close)
        return bell

    def urn(self, name, version=":latest"):
        return "urn:fss:local:%s:function:default:%s%s" % (self.node.project, name, version)

    def create(self, name, code, **more):
        """Creates a function from plain source or a zip."""
        fields = dict(func_name=name, package="default", runtime="Python3.10", handler="index.handler",
                      timeout=120, memory_size=128, code_type="inline",
                      func_code=fg.FuncCode(file=encoded(code)))
        fields.update(more)
        body = fg.CreateFunctionRequestBody(**fields)
        created = self.client.create_function(fg.CreateFunctionRequest(body=body))
        self.addCleanup(self.delete, name)
        return created

    def delete(self, name):
        try:
            self.client.delete_function(fg.DeleteFunctionRequest(function_urn=name))
        except ClientRequestException as error:
            if error.status_code != 404:
                raise

    def strategy(self, name, instances, each, **more):
        """Sets how many instances a function has, and how many requests each serves."""
        fields = dict(func_name=name, runtime="Python3.10", handler="index.handler", timeout=120, memory_size=128,
                      strategy_config=fg.StrategyConfig(concurrency=instances, concurrent_num=each))
        fields.update(more)
        body = fg.UpdateFunctionConfigRequestBody(**fields)
        return self.client.update_function_config(fg.UpdateFunctionConfigRequest(function_urn=name, body=body))

    def invoke(self, name, event=None, version="v1", **more):
        request = fg.InvokeFunctionRequest(
            function_urn=name, body={} if event is None else event, x_cff_request_version=version, **more)
        return self.client.invoke_function(request)

    def invoke_async(self, name, event):
        request = fg.AsyncInvokeFunctionRequest(function_urn=name, body=event)
        return self.client.async_invoke_function(request).request_id

    def cancel(self, name, request_id, kind=None):
        body = fg.CancelAsyncInvocationRequestBody(request_id=request_id, type=kind)
        request = fg.CancelAsyncInvocationRequest(function_urn=name, body=body)
        return self.client.cancel_async_invocation(request)

    def listed(self, name, request_id):
        """The row of one asynchronous request."""
        request = fg.ListAsyncInvocationsRequest(function_urn=name, request_id=request_id)
        rows = self.client.list_async_invocations(request).invocations
        self.assertEqual(len(rows), 1, rows)
        return rows[0]

    def settled(self, name, request_id):
        """The same once it is over. Nothing tells a client when that is, so it looks again."""
        while True:
            row = self.listed(name, request_id)
            if row.status not in ("WAIT", "RUNNING"):
                return row
            time.sleep(launcher.LOOK_AGAIN)

    def refused(self, status, code, call, *arguments, **named):
        """The exception of the SDK that a call ends with: its status, its code, its request id."""
        kind = ClientRequestException if status < 500 else ServerResponseException
        with self.assertRaises(kind) as caught:
            call(*arguments, **named)
        error = caught.exception
        self.assertEqual((error.status_code, error.error_code), (status, code), error.error_msg)
        self.assertTrue(error.error_msg)
        self.assertRegex(error.request_id, "^[0-9a-f-]{36}$")
        return error

    def quell(self, path):
        """One of Quell's own routes, which the SDK does not know."""
        request = urllib.request.Request(self.node.endpoint + "/quell/v1/" + path,
                                         headers={"X-Auth-Token": self.node.token})
        with urllib.request.urlopen(request, timeout=launcher.LIMIT) as answer:
            return json.load(answer)

    def supported(self, call, *arguments, **named):
        """Calls an operation; a test of one that this node does not have is skipped."""
        try:
            return call(*arguments, **named)
        except ServerResponseException as error:
            if error.status_code == 501:
                self.skipTest("this node does not support it: %s" % call_name(arguments))
            raise
        except ClientRequestException as error:
            if (error.status_code, error.error_msg) == (404, "no such operation") or error.status_code == 405:
                self.skipTest("this node does not support it: %s" % call_name(arguments))
            raise


def call_name(arguments):
    return type(arguments[0]).__name__.replace("Request", "") if arguments else "the operation"
