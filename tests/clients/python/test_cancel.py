"""Cancel: the operation all of this is for."""

import json
import threading
import unittest

from huaweicloudsdkcore.exceptions.exceptions import ServerResponseException
from huaweicloudsdkfunctiongraph import v2 as fg

from case import UNKNOWN_ID, ClientCase, source

KINDS = (None, "recursive", "force")


class Cancel(ClientCase):
    def setUp(self):
        super().setUp()
        self.ringing = self.bell()
        for name in ("f", "other"):
            self.create(name, source("waits.py"))
            self.strategy(name, 4, 1)

    def run_one(self, **more):
        """A request that runs, and the line to its code."""
        request = self.invoke_async("f", {"port": self.ringing.port, **more})
        return request, self.ringing.ring()

    def test_each_kind_of_cancel_ends_a_running_request_before_it_answers(self):
        for kind in KINDS:
            with self.subTest(str(kind)):
                request, line = self.run_one()
                answer = self.cancel("f", request, kind)
                self.assertEqual((answer.status_code, answer.raw_content), (200, b"null"))
                line.assert_gone()
                row = self.listed("f", request)
                self.assertEqual((row.status, row.error_code), ("FAIL", 4208))
                self.assertEqual(row.error_message, "function invocation canceled")

    def test_each_kind_of_cancel_takes_a_waiting_request_out(self):
        self.strategy("f", 1, 1)
        running, line = self.run_one()
        for kind in KINDS:
            with self.subTest(str(kind)):
                request = self.invoke_async("f", {"port": self.ringing.port})
                self.assertEqual(self.cancel("f", request, kind).status_code, 200)
                row = self.listed("f", request)
                self.assertEqual((row.status, row.error_code), ("DISCARD", 4208))
        line.tell()
        self.assertEqual(self.settled("f", running).status, "SUCCESS")

    def test_recursive_reaches_the_children_and_no_type_does_not(self):
        for kind, over in ((None, "SUCCESS"), ("recursive", "FAIL")):
            with self.subTest(str(kind)):
                child = {"function": "other", "port": self.ringing.port, "tag": "child"}
                parent = self.invoke_async("f", {"port": self.ringing.port, "tag": "parent", "children": [child]})
                lines = [self.ringing.ring(), self.ringing.ring()]
                by_tag = {line.said["tag"]: line for line in lines}
                self.assertEqual(self.cancel("f", parent, kind).status_code, 200)
                by_tag["parent"].assert_gone()
                if kind is None:
                    by_tag["child"].tell()
                else:
                    by_tag["child"].assert_gone()
                row = self.settled("other", by_tag["child"].said["request"])
                self.assertEqual(row.status, over)

    def test_both_booleans_in_a_plain_object_end_the_whole_tree_by_force(self):
        child = {"function": "other", "port": self.ringing.port, "tag": "child"}
        parent = self.invoke_async("f", {"port": self.ringing.port, "tag": "parent", "children": [child]})
        lines = [self.ringing.ring(), self.ringing.ring()]
        body = {"request_id": parent, "recursive": True, "force": True}
        request = fg.CancelAsyncInvocationRequest(function_urn="f", body=body)
        self.assertEqual(self.client.cancel_async_invocation(request).status_code, 200)
        for line in lines:
            line.assert_gone()
        receipt = self.quell("cancels?function=f")["receipts"][0]
        self.assertEqual((receipt["request_id"], receipt["scope"], receipt["level"]), (parent, "subtree", "kill"))

    def test_force_ends_the_others_of_the_instance_with_4208(self):
        self.strategy("f", 1, 2)
        request, line = self.run_one()
        neighbour, beside = self.run_one()
        self.assertEqual(self.cancel("f", request, "force").status_code, 200)
        for gone in (line, beside):
            gone.assert_gone()
        for one in (request, neighbour):
            self.assertEqual(self.settled("f", one).error_code, 4208)

    def test_a_cancel_is_answered_twice_and_a_harder_one_after_it(self):
        request, line = self.run_one()
        for kind in (None, None, "force"):
            self.assertEqual(self.cancel("f", request, kind).status_code, 200)
        line.assert_gone()

    def test_a_synchronous_caller_of_a_cancelled_request_gets_4208(self):
        caught = []

        def call():
            try:
                self.node.client().invoke_function(
                    fg.InvokeFunctionRequest(function_urn="f", body={"port": self.ringing.port}))
            except ServerResponseException as error:
                caught.append((error.status_code, error.error_code, error.error_msg, error.request_id))

        caller = threading.Thread(target=call)
        caller.start()
        line = self.ringing.ring()
        request = line.said["request"]
        self.assertEqual(self.cancel("f", request).status_code, 200)
        line.assert_gone()
        caller.join()
        self.assertEqual(caught, [(500, "FSS.4208", "function invocation canceled", request)])

    def test_an_unknown_request_is_a_bad_one(self):
        for kind in KINDS:
            error = self.refused(400, "FSS.0400", self.cancel, "f", UNKNOWN_ID, kind)
            self.assertEqual(error.error_msg, "Invalid RequestId")

    def test_a_finished_request_is_a_bad_one_and_the_message_says_how_it_ended(self):
        request, line = self.run_one()
        line.tell()
        self.settled("f", request)
        for kind in KINDS:
            error = self.refused(400, "FSS.0400", self.cancel, "f", request, kind)
            self.assertEqual(error.error_msg, "Invalid RequestId: SUCCESS")

    def test_a_request_of_another_function_is_a_bad_one_and_goes_on(self):
        request, line = self.run_one()
        error = self.refused(400, "FSS.0400", self.cancel, "other", request, "force")
        self.assertEqual(error.error_msg, "Invalid RequestId")
        line.tell()
        self.assertEqual(self.settled("f", request).status, "SUCCESS")

    def test_a_function_that_is_not_there_is_not_found(self):
        error = self.refused(404, "FSS.0404", self.cancel, "nowhere", UNKNOWN_ID)
        self.assertEqual(error.error_msg, "can not find function")

    def test_what_the_sdk_does_not_check_the_node_does(self):
        request, line = self.run_one()
        self.refused(400, "FSS.0400", self.cancel, "f", request, "bogus")
        for bad in (None, "", "no-id", "x" * 65):
            error = self.refused(400, "FSS.0400", self.cancel, "f", bad)
            self.assertEqual(error.error_msg, "Invalid RequestId")
        self.refused(400, "FSS.0400", self.client.cancel_async_invocation,
                     fg.CancelAsyncInvocationRequest(function_urn="f"))
        line.tell()
        self.assertEqual(self.settled("f", request).status, "SUCCESS")

    def test_a_cancel_by_each_form_of_the_urn(self):
        for urn in ("f", "default:f", self.urn("f"), self.urn("f", "")):
            with self.subTest(urn):
                request, line = self.run_one()
                self.assertEqual(self.cancel(urn, request).status_code, 200)
                line.assert_gone()

    def test_the_receipt_names_the_request_and_a_reason_in_a_header_is_kept(self):
        request, line = self.run_one()
        body = fg.CancelAsyncInvocationRequestBody(request_id=request)
        sent = fg.CancelAsyncInvocationRequest(function_urn="f", body=body)
        self.client.cancel_async_invocation(sent, X_Quell_Reason="wrong input")
        line.assert_gone()
        receipts = self.quell("cancels?function=f")["receipts"]
        self.assertEqual(receipts[0]["request_id"], request)
        self.assertIn("wrong input", json.dumps(receipts[0]))


if __name__ == "__main__":
    unittest.main()
