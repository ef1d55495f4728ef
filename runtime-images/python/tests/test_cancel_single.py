"""Cancelling with one request at a time: every way to hang, and every way to miss."""

import os

from tests.case import RuntimeCase
from tests.stub_node import LIMIT_S


class CancelSingle(RuntimeCase):
    def hang(self, how, **event):
        request = self.node.submit(dict(event, how=how))
        return request, self.report()

    def assert_serves_on(self, process):
        self.assertEqual(self.node.call({"how": "pid"}).json, process.pid)

    def test_whatever_the_handler_waits_in_it_ends_and_the_process_serves_on(self):
        process = self.start("blocked.run")
        for how in ("sleeping", "looping", "receiving", "swallowing_exceptions", "swallowing_all"):
            with self.subTest(how):
                request, _ = self.hang(how)
                self.cancel_and_assert(request)
                self.assert_serves_on(process)

    def test_what_the_frames_of_a_request_held_is_free_before_its_answer(self):
        process = self.start("blocked.run")
        path = os.path.join(self.folder, "held")
        open(path, "w").close()
        for fail in (False, True):
            with self.subTest(fail=fail):
                request = self.node.submit({"how": "holding", "path": path, "fail": fail})
                self.report(hold=True)
                self.assertIn(path, open_files(process.pid))
                if not fail:
                    self.node.cancel(request)
                self.reports.release_all()
                self.assertEqual(self.node.answer_of(request).kind, "error")
                self.assertNotIn(path, open_files(process.pid))

    def test_processes_are_gone_before_the_acknowledgement(self):
        process = self.start("blocked.run")
        for how in ("shell", "detached", "double_forked"):
            with self.subTest(how):
                request, report = self.hang(how)
                others = [fd for key, fd in report.items() if key.endswith("_pidfd")]
                self.assertNotEqual(others, [])
                self.cancel_and_assert(request, others)
                self.assert_serves_on(process)

    def test_a_child_that_subprocess_run_waits_for_is_gone_before_the_acknowledgement(self):
        process = self.start("blocked.run")
        request, report = self.hang("subprocess_run")
        self.assertNotEqual(report["pid"], process.pid)
        self.cancel_and_assert(request, [report["pidfd"]])
        self.assert_serves_on(process)

    def test_processes_of_an_earlier_request_survive_a_cancel(self):
        self.start("mixed.run")
        self.node.submit("leave")
        earlier = self.report()["child_pidfd"]
        request = self.node.submit("hang")
        mine = self.report()["child_pidfd"]
        self.node.watch_at_answer(request, [earlier, mine])
        self.node.cancel(request)
        self.assertEqual(self.node.answer_of(request).error_type, "InvocationCanceled")
        self.assertEqual(request.alive_at_answer, [earlier])

    def test_user_code_is_told_and_may_clean_up(self):
        self.start("blocked.run")
        request, _ = self.hang("cleaning_up")
        self.node.cancel(request, reason="deadline")
        told = self.report()
        self.assertEqual((told["at"], told["reason"], told["cancelled"], told["told"]),
                         ("except", "deadline", True, "deadline"))
        self.assertIsNone(request.answer)
        self.assertEqual(self.report()["at"], "finally")
        self.assert_canceled(request)
        self.assertIn("deadline", request.answer.json["errorMessage"])

    def test_a_destructor_that_swallows_the_exception_does_not_save_the_request(self):
        process = self.start("blocked.run")
        request, _ = self.hang("destructor")
        self.cancel_and_assert(request)
        self.assert_serves_on(process)

    def test_threads_of_the_request_end_before_the_acknowledgement(self):
        process = self.start("blocked.run")
        request, _ = self.hang("thread")
        self.cancel_and_assert(request)
        self.assert_serves_on(process)

    def test_code_on_any_thread_holds_the_acknowledgement_back(self):
        process = self.start("blocked.run")
        self.node.call({"how": "warm_pool"})
        for how in ("raw_thread", "pool_job"):
            with self.subTest(how):
                request = self.node.submit({"how": how})
                self.assertEqual(self.report(hold=True)["at"], "thread")
                self.node.cancel(request)
                self.node.wait_notices_taken()
                self.assertIsNone(request.answer)
                self.reports.release_all()
                self.assert_canceled(request)
                self.assert_serves_on(process)

    def test_timers_of_the_request_are_disarmed(self):
        self.start("blocked.run")
        request, _ = self.hang("alarm")
        self.cancel_and_assert(request)
        self.assertEqual(self.node.call({"how": "alarm_left"}).json, 0)

    def test_a_handler_blocked_in_sub_invocations_ends(self):
        process = self.start("blocked.run")
        self.node.api_answer = None  # never answers
        for how, calls in (("invoking", 1), ("invoking_in_threads", 3)):
            with self.subTest(how):
                self.node.api_calls.clear()
                request = self.node.submit({"how": how})
                self.node.wait(lambda: len(self.node.api_calls) == calls, "the sub-invocations")
                self.cancel_and_assert(request)
                self.assert_serves_on(process)

    def test_notices_for_nobody_are_harmless(self):
        process = self.start("blocked.run")
        self.assert_serves_on(process)
        for number in range(400):  # more than are remembered
            self.node.notify("r%d" % number, "i%d" % number)
        self.node.wait_notices_taken()
        self.assert_serves_on(process)

    def test_a_notice_for_another_request_leaves_the_running_one_alone(self):
        self.start("blocked.run")
        request, _ = self.hang("sleeping")
        self.node.notify(request.request_id, "the nonce of an earlier attempt")
        self.node.wait_notices_taken()
        self.assertIsNone(request.answer)
        self.cancel_and_assert(request)

    def test_a_notice_that_comes_before_its_request_is_kept_for_it(self):
        process = self.start("blocked.run")
        self.assert_serves_on(process)
        request = self.node.prepare({"how": "sleeping"})
        self.node.cancel(request)
        self.node.wait_notices_taken()
        self.node.enqueue(request)
        self.assert_canceled(request)
        self.assert_serves_on(process)

    def test_a_signal_that_comes_from_anywhere_else_changes_nothing(self):
        import signal

        process = self.start("blocked.run")
        self.assert_serves_on(process)
        for _ in range(20):
            os.kill(process.pid, signal.SIGUSR1)
        request, _ = self.hang("sleeping")
        os.kill(process.pid, signal.SIGUSR1)
        self.cancel_and_assert(request)
        self.assert_serves_on(process)

    def test_cancelling_works_after_user_code_took_the_signal(self):
        self.start("mixed.run")
        self.node.call("take signal")
        request = self.node.submit("hang")
        mine = self.report()["child_pidfd"]
        self.cancel_and_assert(request, [mine])

    def test_200_cancels_in_a_row_keep_the_process(self):
        process = self.start("blocked.run")
        for number in range(200):
            request, report = self.hang("sleeping" if number % 2 else "looping")
            self.assertEqual(report["pid"], process.pid)
            self.cancel_and_assert(request)
        self.assert_serves_on(process)
        self.assertEqual(self.node.unknown_posts, [])

    def test_cancels_that_race_the_end_of_the_handler_leave_one_answer_each(self):
        process = self.start("mixed.run")
        for _ in range(200):
            request = self.node.submit("return at once")
            self.node.cancel(request)
            answer = self.node.answer_of(request)
            if answer.kind == "error":
                self.assertEqual(answer.error_type, "InvocationCanceled")
            else:
                self.assertEqual(answer.body, b"done")
        self.node.wait_notices_taken()
        self.assertEqual(self.node.call("pid").json, process.pid)
        self.assertEqual(self.node.unknown_posts, [])

    def test_code_that_never_ends_is_never_acknowledged(self):
        self.start("blocked.run")
        request, _ = self.hang("deaf")
        self.node.cancel(request)
        self.assertEqual(self.report()["at"], "deaf")
        # Raised once: what comes next in the poll is taken, and nothing is posted.
        self.node.notify(request.request_id, request.invocation_id)
        self.node.wait_notices_taken()
        self.assertIsNone(request.answer)

    def test_when_the_node_closes_all_processes_end(self):
        process = self.start("blocked.run")
        _, report = self.hang("double_forked")
        self.node.close()
        self.assertEqual(process.wait(LIMIT_S), 1)
        from tests.stub_node import await_death

        await_death(report["child_pidfd"])


def open_files(pid):
    """What the open descriptors of a process lead to."""
    found = set()
    for number in os.listdir("/proc/%d/fd" % pid):
        try:
            found.add(os.readlink("/proc/%d/fd/%s" % (pid, number)))
        except FileNotFoundError:
            pass  # closed since it was listed
    return found
