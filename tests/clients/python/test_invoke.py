"""Synchronous invocations, both forms of the answer."""

import json
import unittest

from huaweicloudsdkfunctiongraph import v2 as fg

from case import ClientCase, source

UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


class Invoke(ClientCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        case = cls()
        code = source("plain.py")
        case.create("plain", code)
        case.create("text", code, handler="index.text")
        case.create("nothing", code, handler="index.nothing")

    def test_v1_wraps_the_result_and_says_the_request_id_twice(self):
        event = {"k": "v", "u": "\u00e9\u4e2d", "n": [1, None, {"deep": True}]}
        answer = self.invoke("plain", event)
        self.assertEqual((answer.status_code, answer.status), (200, 200))
        self.assertIsInstance(answer.result, str)
        self.assertIsInstance(answer.log, str)
        result = json.loads(answer.result)
        self.assertEqual((result["event"], result["request"]), (event, answer.request_id))
        self.assertRegex(answer.request_id, UUID)
        self.assertEqual(answer.x_cff_request_id, answer.request_id)

    def test_v0_is_the_result_as_such(self):
        answer = self.invoke("plain", {"k": 1}, version="v0")
        self.assertEqual(json.loads(answer.raw_content)["event"], {"k": 1})
        self.assertRegex(answer.x_cff_request_id, UUID)
        self.assertIsNone(answer.result)

    def test_v0_is_what_a_request_gets_that_names_no_version(self):
        answer = self.client.invoke_function(fg.InvokeFunctionRequest(function_urn="plain", body={"k": 2}))
        self.assertEqual(json.loads(answer.raw_content)["event"], {"k": 2})

    def test_v0_text_that_is_no_json_is_in_the_raw_content(self):
        answer = self.invoke("text", version="v0")
        self.assertIn("\u00e9\u4e2d", answer.raw_content.decode())
        self.assertRegex(answer.x_cff_request_id, UUID)

    def test_v0_null_is_no_error(self):
        answer = self.invoke("nothing", version="v0")
        self.assertEqual((answer.status_code, answer.raw_content), (200, b"null"))

    def test_v1_of_text_and_of_null_are_strings(self):
        self.assertIn("\u00e9\u4e2d", self.invoke("text").result)
        self.assertEqual(self.invoke("nothing").result, "null")

    def test_a_tail_of_the_log_can_be_asked_for(self):
        answer = self.invoke("plain", {"k": 1}, x_cff_log_type="tail")
        self.assertEqual(json.loads(answer.result)["event"], {"k": 1})
        self.assertIsInstance(answer.log, str)
        if not answer.log:
            self.skipTest("this node does not support it: the tail of the log")
        self.assertIn("Start invoke request '%s'" % answer.request_id, answer.log)
        self.assertIn("Finish invoke request '%s'" % answer.request_id, answer.log)
        self.assertLessEqual(len(answer.log.encode()), 2000)
        self.assertEqual(self.invoke("plain", {"k": 1}).log, "")

    def test_an_empty_body_is_an_empty_event(self):
        answer = self.client.invoke_function(
            fg.InvokeFunctionRequest(function_urn="plain", x_cff_request_version="v1"))
        self.assertEqual(json.loads(answer.result)["event"], {})

    def test_a_memory_size_can_be_named(self):
        self.assertEqual(self.invoke("plain", x_cff_instance_memory="256").status, 200)

    def test_a_function_that_raises_is_a_server_exception_with_its_code(self):
        for version in ("v0", "v1"):
            with self.subTest(version):
                error = self.refused(500, "FSS.4002", self.invoke, "plain", {"raise": "as asked"}, version=version)
                self.assertIn("as asked", error.error_msg)

    def test_an_answer_close_to_the_limit_comes_through(self):
        event = {"text": "x" * (5 << 20)}
        self.assertEqual(len(json.loads(self.invoke("plain", event).result)["event"]["text"]), 5 << 20)

    def test_one_connection_serves_many_requests(self):
        ids = {self.invoke("plain", number).request_id for number in range(50)}
        self.assertEqual(len(ids), 50)


if __name__ == "__main__":
    unittest.main()
