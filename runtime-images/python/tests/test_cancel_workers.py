"""Sync handlers, several requests at once: parallel, cancelled one by one, replaced when dead."""

from tests.case import RuntimeCase
from tests.stub_node import LIMIT_S, await_death, is_alive


class Workers(RuntimeCase):
    def gated(self, count):
        """Starts `count` requests and waits until all run; they end at `release_all`."""
        requests = {n: self.node.submit({"how": "gated", "name": n}) for n in range(count)}
        reports = [self.report(hold=True) for _ in range(count)]
        return requests, {report["name"]: report for report in reports}

    def test_8_requests_run_at_once_in_8_processes(self):
        process = self.start("blocked.run", 8)
        requests, reports = self.gated(8)
        pids = {report["pid"] for report in reports.values()}
        self.assertEqual(len(pids), 8)
        self.assertNotIn(process.pid, pids)
        self.assertEqual(self.node.held_requests, 0)  # no poll for what nobody is free for
        self.reports.release_all()
        answers = [self.node.answer_of(request).json for request in requests.values()]
        self.assertEqual(set(answers), pids)

    def test_cancelling_1_of_8_leaves_7_and_all_processes_alone(self):
        self.start("blocked.run", 8)
        requests, reports = self.gated(8)
        cancelled = requests.pop(3)
        self.cancel_and_assert(cancelled)
        self.assertTrue(all(is_alive(report["pidfd"]) for report in reports.values()))
        self.assertEqual([r.answer for r in requests.values()], [None] * 7)
        # The worker that was cancelled is the one that is free.
        self.assertEqual(self.node.call({"how": "pid"}).json, reports[3]["pid"])
        self.reports.release_all()
        answers = {number: self.node.answer_of(r).json for number, r in requests.items()}
        self.assertEqual(answers, {n: reports[n]["pid"] for n in requests})

    def test_every_way_to_hang_ends_and_the_worker_serves_on(self):
        self.start("blocked.run", 2)
        pids = self.both_pids()
        for how in ("sleeping", "looping", "receiving", "shell", "detached", "double_forked",
                    "subprocess_run", "swallowing_exceptions", "swallowing_all", "destructor", "thread"):
            with self.subTest(how):
                request = self.node.submit({"how": how})
                report = self.report()
                others = [fd for key, fd in report.items() if key.endswith("_pidfd")]
                self.cancel_and_assert(request, others)
        self.assertEqual(self.both_pids(), pids)

    def both_pids(self):
        requests = [self.node.submit({"how": "sleeping"}) for _ in range(2)]
        pids = {self.report()["pid"] for _ in requests}
        for request in requests:
            self.cancel_and_assert(request)
        return pids

    def test_code_that_never_ends_is_killed_before_the_grace_ends_and_the_neighbour_runs_on(self):
        process = self.start("blocked.run", 2)
        neighbour = self.node.submit({"how": "cleaning_up"})
        beside = self.report()
        request = self.node.submit({"how": "deaf_with_child"})
        report = self.report()
        self.cancel_and_assert(request, [report["pidfd"], report["child_pidfd"]], grace_ms=200)
        self.assertTrue(is_alive(beside["pidfd"]))
        self.assertIsNone(neighbour.answer)
        # Its place is taken by a new worker.
        replacement = self.node.call({"how": "pid"}).json
        self.assertNotIn(replacement, (report["pid"], beside["pid"], process.pid))
        self.node.cancel(neighbour)
        self.assertEqual([self.report()["at"], self.report()["at"]], ["except", "finally"])
        self.assert_canceled(neighbour)

    def test_a_worker_that_exits_fails_its_request_and_is_replaced(self):
        process = self.start("plain.exit_or_pid", 2)
        for _ in range(5):
            request = self.node.submit("exit")
            dead = self.report()
            answer = self.node.answer_of(request)
            self.assertEqual(answer.error_type, "RuntimeExited")
            self.assertIn("status 7", answer.json["errorMessage"])
            self.assertEqual(answer.invocation_id, request.invocation_id)
            await_death(dead["pidfd"])
            self.assertNotEqual(self.node.call("pid").json, dead["pid"])
        self.assertIsNone(process.poll())

    def test_what_a_dead_worker_started_is_gone_when_its_failure_is_told(self):
        self.start("plain.exit_after_child", 2)
        request = self.node.prepare()
        self.node.enqueue(request)
        child = self.report()["child_pidfd"]
        self.assertEqual(self.node.answer_of(request).error_type, "RuntimeExited")
        self.assertFalse(is_alive(child))

    def test_an_instance_whose_workers_only_die_ends(self):
        process = self.start("plain.exit_or_pid", 2)
        for _ in range(3):
            request = self.node.submit("exit")
            self.report()
            self.assertEqual(self.node.answer_of(request).error_type, "RuntimeExited")
        self.assertEqual(process.wait(LIMIT_S), 1)

    def test_notices_for_nobody_or_too_early_do_no_harm(self):
        self.start("blocked.run", 2)
        self.node.call({"how": "pid"})
        request = self.node.prepare({"how": "sleeping"})
        self.node.notify("r", "i")
        self.node.cancel(request)
        self.node.wait_notices_taken()
        self.node.enqueue(request)
        self.assert_canceled(request)
        self.assertEqual(self.node.call({"how": "pid"}).kind, "response")

    def test_200_cancels_in_a_row_keep_the_workers(self):
        self.start("blocked.run", 2)
        pids = self.both_pids()
        for number in range(200):
            request = self.node.submit({"how": "sleeping" if number % 2 else "looping"})
            self.assertIn(self.report()["pid"], pids)
            self.cancel_and_assert(request)
        self.assertEqual(self.node.unknown_posts, [])

    def test_when_the_node_closes_all_processes_end(self):
        process = self.start("blocked.run", 3)
        self.node.submit({"how": "double_forked"})
        first = self.report()
        self.node.submit({"how": "looping"})
        second = self.report()
        self.node.close()
        self.assertEqual(process.wait(LIMIT_S), 1)
        for pidfd in (first["pidfd"], first["child_pidfd"], second["pidfd"]):
            await_death(pidfd)

    def test_workers_die_with_a_killed_parent(self):
        process = self.start("blocked.run", 2)
        self.node.submit({"how": "looping"})
        report = self.report()
        process.kill()
        await_death(report["pidfd"])

    def test_requests_beyond_the_preforked_workers_run_too(self):
        self.start("blocked.run", 20)
        requests, reports = self.gated(20)
        self.assertEqual(len({report["pid"] for report in reports.values()}), 20)
        self.reports.release_all()
        for request in requests.values():
            self.assertEqual(self.node.answer_of(request).kind, "response")
