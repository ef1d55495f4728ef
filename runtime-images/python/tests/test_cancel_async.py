"""`async def` handlers: many on one loop, cancelled by task."""

from tests.case import RuntimeCase
from tests.stub_node import LIMIT_S, await_death


class AsyncHandlers(RuntimeCase):
    def start_async(self, concurrency=8):
        return self.start("async_functions.run", concurrency,
                          RUNTIME_INITIALIZER_HANDLER="async_functions.initializer")

    def hang(self, how, **event):
        request = self.node.submit(dict(event, how=how))
        return request, self.report()

    def test_the_initializer_runs_on_the_loop_of_the_handlers(self):
        self.start_async()
        self.assertIs(self.node.call({"how": "same_loop"}).json, True)

    def test_errors_and_exits_fail_the_request_only(self):
        process = self.start_async()
        self.assertEqual(self.node.call({"how": "fail"}).error_type, "LookupError")
        self.assertEqual(self.node.call({"how": "leave"}).error_type, "SystemExit")
        self.assertEqual(self.node.call({"how": "pid"}).json, process.pid)

    def test_8_run_at_once_and_cancelling_1_leaves_7_alone(self):
        process = self.start_async(8)
        requests = [self.hang("sleeping")[0] for _ in range(8)]
        self.assertEqual(self.node.held_requests, 0)
        cancelled = requests.pop(3)
        self.cancel_and_assert(cancelled)
        self.assertEqual([request.answer for request in requests], [None] * 7)
        self.assertEqual(self.node.call({"how": "pid"}).json, process.pid)
        for request in requests:
            self.cancel_and_assert(request)

    def test_the_result_of_a_handler_that_swallows_is_not_delivered(self):
        self.start_async()
        request, _ = self.hang("swallowing")
        self.node.cancel(request, reason="disconnect")
        told = self.report()
        self.assertEqual((told["at"], told["reason"]), ("swallowed", "disconnect"))
        self.assert_canceled(request)

    def test_a_second_cancel_comes_before_the_grace_ends(self):
        self.start_async()
        request, _ = self.hang("swallowing_first")
        self.cancel_and_assert(request, grace_ms=100)

    def test_processes_are_gone_before_the_acknowledgement_alone_or_not(self):
        for concurrency in (1, 4):
            for beside in (False, True):
                if concurrency == 1 and beside:
                    continue
                with self.subTest(concurrency=concurrency, beside=beside):
                    self.restart("async_functions.run", concurrency)
                    others = []
                    if beside:
                        neighbour, report = self.hang("process")
                        others.append(report["child_pidfd"])
                    for how in ("process", "popen_orphan"):
                        request, report = self.hang(how)
                        self.node.watch_at_answer(request, others + [report["child_pidfd"]])
                        self.node.cancel(request)
                        self.assertEqual(self.node.answer_of(request).error_type, "InvocationCanceled")
                        # Mine is dead, the neighbour's lives.
                        self.assertEqual(request.alive_at_answer, others)
                    if beside:
                        self.cancel_and_assert(neighbour, others)

    def test_tasks_it_left_running_end_before_the_acknowledgement(self):
        self.start_async()
        request, _ = self.hang("task_left")
        self.node.cancel(request)
        self.assertEqual(self.report()["at"], "background ended")
        self.assert_canceled(request)

    def test_a_thread_that_runs_on_holds_the_acknowledgement_back(self):
        self.start_async()
        request = self.node.submit({"how": "thread_job"})
        self.report(hold=True)
        self.node.cancel(request)
        self.node.wait_notices_taken()
        self.assertEqual(self.node.call({"how": "pid"}).kind, "response")
        self.assertIsNone(request.answer)
        self.reports.release_all()
        self.assert_canceled(request)

    def test_threads_and_pools_of_its_own_hold_the_acknowledgement_back(self):
        self.start_async()
        for beside in (False, True):
            neighbour = self.hang("sleeping")[0] if beside else None
            for how in ("own_thread", "own_pool"):
                with self.subTest(how, beside=beside):
                    request = self.node.submit({"how": how})
                    self.assertEqual(self.report(hold=True)["at"], "thread")
                    self.node.cancel(request)
                    self.node.wait_notices_taken()
                    self.assertEqual(self.node.call({"how": "pid"}).kind, "response")
                    self.assertIsNone(request.answer)
                    self.reports.release_all()
                    self.assert_canceled(request)
            if neighbour:
                self.assertIsNone(neighbour.answer)
                self.cancel_and_assert(neighbour)

    def test_callbacks_and_stray_tasks_end_before_the_acknowledgement(self):
        self.start_async()
        for how, more in (("ticking", {"fresh": False}), ("ticking", {"fresh": True}),
                          ("watching", {}), ("stray_task", {})):
            with self.subTest(how, **more):
                request, _ = self.hang(how, **more)
                self.cancel_and_assert(request)
                self.assertEqual(self.node.call({"how": "what_is_left"}).json, [0, 0, 0])

    def test_a_process_that_may_be_anybodys_holds_the_acknowledgement_back(self):
        self.start_async()
        neighbour, _ = self.hang("sleeping")
        request, report = self.hang("forked")
        self.node.cancel(request)
        self.node.wait_notices_taken()
        self.assertEqual(self.node.call({"how": "pid"}).kind, "response")
        self.assertIsNone(request.answer)
        # Alone again, it is this request's for sure.
        self.cancel_and_assert(neighbour)
        self.assert_canceled(request, [report["child_pidfd"]])

    def test_a_handler_blocked_in_a_sub_invocation_ends(self):
        self.start_async()
        self.node.api_answer = None
        request = self.node.submit({"how": "invoking"})
        self.node.wait(lambda: self.node.api_calls, "the sub-invocation")
        self.cancel_and_assert(request)

    def test_notices_for_nobody_or_too_early_do_no_harm(self):
        self.start_async()
        self.node.call({"how": "pid"})
        request = self.node.prepare({"how": "sleeping"})
        self.node.notify("r", "i")
        self.node.cancel(request)
        self.node.wait_notices_taken()
        self.node.enqueue(request)
        self.assert_canceled(request)

    def test_200_cancels_in_a_row_keep_the_process(self):
        process = self.start_async()
        for _ in range(200):
            request, report = self.hang("sleeping")
            self.assertEqual(report["pid"], process.pid)
            self.cancel_and_assert(request)
        self.assertEqual(self.node.unknown_posts, [])

    def test_when_the_node_closes_all_processes_end(self):
        process = self.start_async()
        _, report = self.hang("popen_orphan")
        self.node.close()
        self.assertEqual(process.wait(LIMIT_S), 1)
        await_death(report["child_pidfd"])
