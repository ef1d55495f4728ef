"""Requests nobody cancels: events in, results and errors out, starting and failing to."""

import json
import os

from tests.case import FUNCTIONS, RuntimeCase
from tests.stub_node import LIMIT_S


class OrdinaryRequests(RuntimeCase):
    def test_an_event_reaches_the_handler_and_its_result_the_node(self):
        self.start("plain.echo")
        request = self.node.submit({"a": ["ü", 1.5, None]})
        answer = self.node.answer_of(request)
        self.assertEqual(answer.kind, "response")
        self.assertEqual(answer.json, {"a": ["ü", 1.5, None]})
        self.assertEqual(answer.content_type, "application/json")
        self.assertEqual(answer.invocation_id, request.invocation_id)

    def test_an_event_that_is_not_json_arrives_as_bytes(self):
        self.start("plain.represent")
        answer = self.node.call(b"\x01\x02", content_type="application/octet-stream")
        self.assertEqual(answer.body.decode(), repr(b"\x01\x02"))
        self.assertEqual(self.node.call(b"{broken").body.decode(), repr(b"{broken"))

    def test_str_and_bytes_go_as_they_are_and_the_rest_as_json(self):
        self.start("results.pick")
        cases = {
            "dict": (json.dumps({"ü": [1, None, True]}, ensure_ascii=False).encode(), "application/json"),
            "str": ("grüße".encode(), "text/plain; charset=utf-8"),
            "bytes": (b"\x00\xff", "application/octet-stream"),
            "none": (b"null", "application/json"),
            "number": (b"7", "application/json"),
        }
        for name, (body, kind) in cases.items():
            with self.subTest(name):
                answer = self.node.call(name)
                self.assertEqual((answer.kind, answer.body, answer.content_type), ("response", body, kind))

    def test_a_result_json_cannot_express_is_an_error(self):
        self.start("results.pick")
        self.assertEqual(self.node.call("set").error_type, "TypeError")
        self.assertEqual(self.node.call("nan").error_type, "ValueError")

    def test_a_large_event_passes_at_any_concurrency(self):
        event = "x" * (6 * 1024 * 1024)
        for concurrency in (1, 2):
            with self.subTest(concurrency):
                self.restart("plain.echo", concurrency)
                self.assertEqual(self.node.call(event).body, event.encode())

    def test_an_exception_is_posted_with_the_frames_of_user_code_only(self):
        self.start("plain.fail")
        answer = self.node.call()
        self.assertEqual(answer.error_type, "LookupError")
        self.assertEqual(answer.json["errorMessage"], "nothing there")
        self.assertEqual(len(answer.json["stackTrace"]), 1)
        self.assertIn("plain.py", answer.json["stackTrace"][0])

    def test_sys_exit_fails_the_request_and_not_the_instance(self):
        process = self.start("plain.leave")
        self.assertEqual(self.node.call().error_type, "SystemExit")
        self.assertEqual(self.node.call().error_type, "SystemExit")
        self.assertIsNone(process.poll())

    def test_the_context_tells_what_the_node_told(self):
        self.start("plain.describe")
        headers = {"X-CFF-Access-Key": "ak", "X-CFF-Secret-Key": "sk", "X-CFF-Security-Token": "st",
                   "X-Quell-Deadline-Ms": str(10**15), "X-Quell-Alias": "prod"}
        request = self.node.submit(headers=headers)
        told = self.node.answer_of(request).json
        self.assertGreater(told.pop("remaining"), 10**13)
        self.assertEqual(told, {
            "id": request.request_id, "timeout": 30, "colour": "blue", "missing": "round",
            "name": "function", "version": "latest", "memory": 256, "cpu": 400, "project": "project",
            "package": "default", "token": "token-" + request.request_id, "ak": "ak", "sk": "sk",
            "st": "st", "alias": "prod", "cancelled": False, "cwd": FUNCTIONS,
        })
        printed = self.printed()
        self.assertRegex(printed, r"T[0-9:.]+Z INFO %s one of 2\n" % request.request_id)
        self.assertIn("printed by the function\n", printed)

    def test_a_plain_function_may_return_a_coroutine(self):
        self.start("plain.wrapped")
        self.assertEqual(self.node.call().body, b"from a coroutine")

    def test_a_handler_is_found_below_folders(self):
        for handler in ("deep/er/index.handler", "deep.er.index.handler"):
            with self.subTest(handler):
                self.restart(handler)
                self.assertEqual(self.node.call().body, b"deep")

    def test_a_file_named_like_a_library_module_in_use_is_the_users(self):
        self.start("signal.handler", RUNTIME_CODE_ROOT=os.path.join(FUNCTIONS, "shadow"))
        self.assertEqual(self.node.call().body, b"shadow")

    def test_processes_of_a_finished_request_are_left_alone(self):
        self.start("plain.left_behind")
        request = self.node.submit()
        child = self.report(hold=True)["child_pidfd"]
        self.node.watch_at_answer(request, [child])
        self.reports.release_all()
        self.assertEqual(self.node.answer_of(request).kind, "response")
        self.assertEqual(request.alive_at_answer, [child])


class Starting(RuntimeCase):
    def test_the_initializer_runs_once_before_any_request(self):
        self.start("plain.initialized", RUNTIME_INITIALIZER_HANDLER="plain.initializer")
        self.assertEqual(self.node.call().json, ["function"])
        self.assertEqual(self.node.call().json, ["function"])

    def test_the_initializer_runs_once_for_all_workers(self):
        self.start("plain.initialized", 4, RUNTIME_INITIALIZER_HANDLER="plain.initializer")
        requests = [self.node.submit() for _ in range(8)]
        self.assertEqual([self.node.answer_of(r).json for r in requests], [["function"]] * 8)

    def test_the_cancellation_poll_is_opened_before_the_first_request_poll(self):
        for handler, concurrency in (("plain.pid", 1), ("plain.pid", 3), ("async_functions.pid", 3)):
            with self.subTest(handler=handler, concurrency=concurrency):
                self.restart(handler, concurrency)
                self.node.wait(lambda: self.node.held_requests == 1, "the request poll")
                self.node.wait(lambda: self.node.held_cancellations == 1, "the cancellation poll")
                self.assertEqual(self.node.polls[self.node.accepted[0]], "held_cancellations")

    def assert_does_not_start(self, *parts, **options):
        process = self.start(**options)
        self.node.wait(lambda: self.node.init_error is not None, "the init error")
        self.assertEqual(process.wait(LIMIT_S), 1)
        for part in parts:
            self.assertIn(part, self.node.init_error["errorMessage"])
        self.assertEqual(self.node.polls, {})

    def test_a_missing_module_is_named(self):
        self.assert_does_not_start("nowhere", "nowhere.handler", handler="nowhere.handler")

    def test_a_missing_function_is_named(self):
        self.assert_does_not_start("plain", "nothing", handler="plain.nothing")

    def test_a_handler_without_a_dot_is_named(self):
        self.assert_does_not_start("'plain'", handler="plain")

    def test_a_module_that_raises_is_named(self):
        self.assert_does_not_start("broken.handler", "at import", handler="broken.handler")

    def test_an_initializer_that_raises_is_named(self):
        self.assert_does_not_start("plain.broken_initializer", "no database", handler="plain.echo",
                                   RUNTIME_INITIALIZER_HANDLER="plain.broken_initializer")


class SubInvocations(RuntimeCase):
    def test_invoke_sends_the_token_and_decodes_the_result(self):
        self.node.api_answer = (200, {}, b'{"sum": 3}')
        self.start("invoking.sync")
        request = self.node.submit({"function": "urn:fss:a:b:function:default:child:latest"})
        self.assertEqual(self.node.answer_of(request).json, {"sum": 3})
        path, headers, body = self.node.api_calls[0]
        self.assertEqual(path, "/v2/project/fgs/functions/"
                         "urn%3Afss%3Aa%3Ab%3Afunction%3Adefault%3Achild%3Alatest/invocations")
        self.assertEqual(headers["X-Auth-Token"], "token-" + request.request_id)
        self.assertNotIn("X-Quell-Detached", headers)
        self.assertEqual(json.loads(body), {"n": 1})

    def test_invoke_async_gives_the_request_id_and_may_be_detached(self):
        self.node.api_answer = (202, {}, b'{"request_id": "r1"}')
        self.start("invoking.detached")
        self.assertEqual(self.node.call().body, b"r1")
        path, headers, _ = self.node.api_calls[0]
        self.assertTrue(path.endswith("/child/invocations-async"))
        self.assertEqual(headers["X-Quell-Detached"], "true")

    def test_a_refusal_is_an_error_with_its_code(self):
        self.node.api_answer = (500, {}, b'{"error_code": "FSS.4208", "error_msg": "canceled"}')
        self.start("invoking.refused")
        self.assertEqual(self.node.call().json, [500, "FSS.4208", "canceled", True, True])

    def test_an_async_handler_invokes_without_blocking(self):
        self.node.api_answer = (200, {}, b"text")
        self.start("async_functions.run", 2)
        self.assertEqual(self.node.call({"how": "invoking"}).body, b"text")
        self.node.api_answer = (202, {}, b'{"request_id": "r1"}')
        self.assertEqual(self.node.call({"how": "accepted"}).body, b"r1")
