"""Asynchronous invocations and the two lists that show them."""

import datetime
import unittest

from huaweicloudsdkfunctiongraph import v2 as fg

from case import UNKNOWN_ID, ClientCase, source

UTC = datetime.timezone.utc


class Lists(ClientCase):
    """One function with one request that runs, two that wait, and three that are over."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        case = cls()
        case.create("f", source("waits.py"))
        case.create("other", source("plain.py"))
        case.strategy("f", 1, 1)
        cls.bell = case.bell()
        event = {"port": cls.bell.port}
        cls.done = [case.invoke_async("f", event)]
        cls.bell.ring().tell()
        cls.done_row = case.settled("f", cls.done[0])
        cls.failed = case.invoke_async("f", {})
        case.settled("f", cls.failed)
        cls.running = case.invoke_async("f", event)
        cls.line = cls.bell.ring()
        cls.waiting = [case.invoke_async("f", event) for _ in range(2)]
        cls.dropped = case.invoke_async("f", event)
        case.cancel("f", cls.dropped)
        cls.active = {cls.running, *cls.waiting}
        cls.all = cls.active | {cls.done[0], cls.failed, cls.dropped}
        cls.addClassCleanup(cls.line.line.close)

    def ids(self, **filters):
        request = fg.ListAsyncInvocationsRequest(function_urn="f", **filters)
        return {row.request_id for row in self.client.list_async_invocations(request).invocations}

    def active_ids(self, **filters):
        request = fg.ListActiveAsyncInvocationsRequest(function_urn="f", **filters)
        return {row.request_id for row in self.client.list_active_async_invocations(request).invocations}

    def test_the_list_has_every_request_and_says_how_it_ended(self):
        self.assertEqual(self.ids(), self.all)
        row = self.done_row
        self.assertEqual((row.status, row.error_code, row.error_message), ("SUCCESS", 0, ""))
        self.assertTrue(row.start_time)
        self.assertRegex(row.end_time, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$")
        failed = self.listed("f", self.failed)
        self.assertEqual((failed.status, failed.error_code), ("FAIL", 4002))
        self.assertIsInstance(failed.error_code, int)
        dropped = self.listed("f", self.dropped)
        self.assertEqual((dropped.status, dropped.error_code), ("DISCARD", 4208))
        self.assertEqual(dropped.error_message, "function invocation canceled")

    def test_the_list_is_filtered_by_each_status(self):
        for status, wanted in (("WAIT", set(self.waiting)), ("RUNNING", {self.running}),
                               ("SUCCESS", set(self.done)), ("FAIL", {self.failed}),
                               ("DISCARD", {self.dropped})):
            with self.subTest(status):
                self.assertEqual(self.ids(status=status), wanted)
        request = fg.ListAsyncInvocationsRequest(function_urn="f", status="CANCELED")
        self.refused(400, "FSS.1001", self.client.list_async_invocations, request)

    def test_the_list_is_read_in_pages(self):
        seen, marker, pages = [], "0", 0
        while True:
            request = fg.ListAsyncInvocationsRequest(function_urn="f", marker=marker, limit="4")
            page = self.client.list_async_invocations(request)
            self.assertEqual(page.count, len(self.all))
            seen += [row.request_id for row in page.invocations]
            pages += 1
            if not page.next_marker:
                break
            marker = str(page.next_marker)
        self.assertEqual((set(seen), len(seen), pages), (self.all, len(self.all), 2))

    def test_the_list_is_filtered_by_time_naive_or_with_a_zone(self):
        now = datetime.datetime.now(UTC)
        hour, text = datetime.timedelta(hours=1), "%Y-%m-%dT%H:%M:%S"
        east = datetime.timezone(2 * hour)
        for before, after in ((now - hour, now + hour),
                              ((now - hour).replace(tzinfo=None), (now + hour).replace(tzinfo=None)),
                              ((now - hour).astimezone(east), (now + hour).astimezone(east)),
                              ((now - hour).strftime(text), (now + hour).strftime(text))):
            with self.subTest(str(before)):
                self.assertEqual(self.ids(query_begin_time=before, query_end_time=after), self.all)
                self.assertEqual(self.ids(query_begin_time=after), set())
                self.assertEqual(self.ids(query_end_time=before, query_begin_time=before), set())
                self.assertEqual(self.active_ids(query_begin_time=before, query_end_time=after), self.active)
                self.assertEqual(self.active_ids(query_begin_time=after), set())

    def test_an_empty_time_is_none(self):
        self.assertEqual(self.ids(query_begin_time="", query_end_time=""), self.all)
        self.assertEqual(self.active_ids(query_begin_time=""), self.active)

    def test_a_time_that_is_none_is_named(self):
        request = fg.ListAsyncInvocationsRequest(function_urn="f", query_begin_time="yesterday")
        error = self.refused(400, "FSS.1001", self.client.list_async_invocations, request)
        self.assertIn("yesterday", error.error_msg)

    def test_one_request_is_found_by_its_id_and_not_below_another_function(self):
        self.assertEqual(self.ids(request_id=self.running), {self.running})
        self.assertEqual(self.ids(request_id=UNKNOWN_ID), set())
        other = fg.ListAsyncInvocationsRequest(function_urn="other", request_id=self.running)
        self.assertEqual(self.client.list_async_invocations(other).invocations, [])

    def test_the_active_list_has_what_waits_and_runs(self):
        self.assertEqual(self.active_ids(), self.active)
        self.assertEqual(self.active_ids(status="RUNNING"), {self.running})
        self.assertEqual(self.active_ids(status="WAIT"), set(self.waiting))
        self.assertEqual(self.active_ids(status="SUCCESS"), set())

    def test_the_active_list_takes_ten_ids_joined_by_commas(self):
        named = [self.running, self.waiting[0], self.done[0]] + [UNKNOWN_ID] * 7
        self.assertEqual(self.active_ids(requests=",".join(named)), {self.running, self.waiting[0]})
        self.assertEqual(self.active_ids(requests=UNKNOWN_ID), set())

    def test_the_active_list_is_read_in_pages(self):
        seen = set()
        for marker in ("0", "1", "2"):
            page = self.active_ids(marker=marker, limit="1")
            self.assertEqual(len(page), 1)
            seen |= page
        self.assertEqual(seen, self.active)
        self.assertEqual(self.active_ids(marker="3", limit="1"), set())

    def test_a_list_of_an_unknown_function_is_a_client_exception(self):
        self.refused(404, "FSS.0404", self.client.list_async_invocations,
                     fg.ListAsyncInvocationsRequest(function_urn="nowhere"))
        self.refused(404, "FSS.0404", self.client.list_active_async_invocations,
                     fg.ListActiveAsyncInvocationsRequest(function_urn="nowhere"))


class Accepting(ClientCase):
    def test_an_accept_is_202_with_a_request_id(self):
        self.create("f", source("plain.py"))
        for body in ({"k": "v"}, {}, None):
            with self.subTest(str(body)):
                request = fg.AsyncInvokeFunctionRequest(function_urn="f", body=body, x_cff_instance_memory="256")
                accepted = self.client.async_invoke_function(request)
                self.assertEqual(accepted.status_code, 202)
                self.assertEqual(self.settled("f", accepted.request_id).status, "SUCCESS")

    def test_an_event_that_is_too_large_is_refused(self):
        self.create("f", source("plain.py"))
        self.refused(413, "FSS.1201", self.invoke_async, "f", {"text": "x" * (300 << 10)})


if __name__ == "__main__":
    unittest.main()
