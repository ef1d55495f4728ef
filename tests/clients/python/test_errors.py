"""Errors as the SDK's exceptions, and the traps of its transport."""

import json
import unittest
import urllib.parse
import urllib.request

from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkfunctiongraph import v2 as fg

from case import UNKNOWN_ID, ClientCase, source


class Errors(ClientCase):
    def test_a_second_function_of_a_name_is_a_conflict(self):
        self.create("twice", source("plain.py"))
        error = self.refused(409, "FSS.1061", self.create, "twice", source("plain.py"))
        self.assertEqual(error.error_msg, "The function has existed")

    def test_each_bad_field_of_a_function_has_its_code(self):
        for code, field in (("FSS.1002", {"func_name": "9 bad"}), ("FSS.1003", {"handler": "nodot"}),
                            ("FSS.1005", {"runtime": "Cobol"}), ("FSS.1007", {"memory_size": 3}),
                            ("FSS.1008", {"timeout": 0}), ("FSS.1006", {"code_type": "obs"})):
            with self.subTest(code):
                self.refused(400, code, self.create, "bad", source("plain.py"), **field)

    def test_what_is_not_there_is_1051_for_the_operations_on_functions(self):
        name = "nowhere"
        self.refused(404, "FSS.1051", self.invoke, name)
        self.refused(404, "FSS.1051", self.invoke_async, name, {})
        self.refused(404, "FSS.1051", self.client.show_function_code, fg.ShowFunctionCodeRequest(name))
        self.refused(404, "FSS.1051", self.strategy, name, 1, 1)

    def test_a_malformed_urn_has_its_code(self):
        self.refused(400, "FSS.1309", self.invoke, "urn:fss:a:b:c:d:e:f:g:h:i")

    def test_a_bad_page_is_named_on_a_get(self):
        for filters in ({"maxitems": "-1"}, {"marker": "x"}):
            self.refused(400, "FSS.1001", self.client.list_functions, fg.ListFunctionsRequest(**filters))

    def test_what_a_node_does_not_have_is_a_server_exception(self):
        request = fg.ShowProjectAsyncStatusLogInfoRequest()
        self.refused(501, "FSS.0501", self.client.show_project_async_status_log_info, request)

    def test_a_urn_may_be_raw_or_percent_encoded(self):
        """The SDK of Python encodes, those of Node and Go do not."""
        self.create("raw", source("plain.py"))
        for urn in (self.urn("raw"), urllib.parse.quote(self.urn("raw"), safe="")):
            path = "/v2/%s/fgs/functions/%s/config" % (self.node.project, urn)
            request = urllib.request.Request(self.node.endpoint + path, headers={"X-Auth-Token": self.node.token})
            with urllib.request.urlopen(request, timeout=30) as answer:
                self.assertEqual(json.load(answer)["func_urn"], self.urn("raw"))

    def test_a_tree_that_is_too_deep_is_refused_with_its_code(self):
        self.create("deep", b"def handler(event, context):\n    return context.invoke('deep', event)\n")
        self.strategy("deep", -1, 1, memory_size=128, timeout=60)
        # Every level waits for the next; the deepest is refused, and each hands on what it was told.
        error = self.refused(500, "FSS.4002", self.invoke, "deep", {})
        self.assertIn("FSS.0429", error.error_msg)


class TooMany(ClientCase):
    """A node that takes two requests a second of one credential."""

    OPTIONS = ("--rate-limit", "2")

    def until_refused(self, call, request):
        while True:
            try:
                call(request)
            except ClientRequestException as error:
                if error.status_code == 429:
                    return error

    def test_429_on_a_post_keeps_its_code(self):
        request = fg.InvokeFunctionRequest(function_urn="nowhere", body={})
        error = self.until_refused(self.client.invoke_function, request)
        self.assertEqual(error.error_code, "FSS.0429")
        self.assertIn("api is busy now", error.error_msg)

    def test_429_on_a_get_loses_its_body_in_this_sdk_and_is_429_still(self):
        error = self.until_refused(self.client.list_functions, fg.ListFunctionsRequest())
        self.assertEqual(error.error_code, "429")
        self.assertIn("too many 429 error responses", error.error_msg)


class WrongProject(ClientCase):
    def test_another_project_is_forbidden_and_tells_nothing(self):
        client = self.node.client(project="elsewhere")
        self.refused(403, "FSS.0403", client.list_functions, fg.ListFunctionsRequest())
        body = fg.CancelAsyncInvocationRequestBody(request_id=UNKNOWN_ID)
        self.refused(403, "FSS.0403", client.cancel_async_invocation,
                     fg.CancelAsyncInvocationRequest(function_urn="f", body=body))


if __name__ == "__main__":
    unittest.main()
