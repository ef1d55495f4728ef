"""What a cancelled handler sees is the same in each way of serving: one at a time, in a worker, on the loop."""

import os
import signal

from tests.case import RuntimeCase

WAYS = (("blocked.run", 1), ("blocked.run", 3), ("async_functions.run", 1), ("async_functions.run", 3))


class CancelledAlike(RuntimeCase):
    def test_the_handler_learns_the_reason_and_cleans_up_before_the_acknowledgement(self):
        for handler, concurrency in WAYS:
            self.restart(handler, concurrency)
            for reason in ("cancel", "deadline", "disconnect"):
                with self.subTest(handler, concurrency=concurrency, reason=reason):
                    request = self.node.submit({"how": "cleaning_up"})
                    at_work = self.report()
                    self.node.cancel(request, reason=reason)
                    told = self.report()
                    self.assertEqual((told["at"], told["cancelled"], told["told"]), ("except", True, reason))
                    self.assertIsNone(request.answer)
                    self.assertEqual(self.report()["at"], "finally")
                    self.assert_canceled(request)
                    self.assertIn(reason, request.answer.json["errorMessage"])
                    again = self.node.submit({"how": "sleeping"})
                    if concurrency == 1:
                        self.assertEqual(self.report()["pid"], at_work["pid"])
                    else:
                        self.report()
                    self.cancel_and_assert(again)

    def test_no_second_cancellation_comes_into_the_clean_up(self):
        for handler, concurrency in WAYS:
            with self.subTest(handler, concurrency=concurrency):
                self.restart(handler, concurrency)
                request = self.node.submit({"how": "cleaning_up"})
                at_work = self.report()
                self.node.cancel(request, grace_ms=60_000)
                self.assertEqual(self.report(hold=True)["at"], "except")
                for _ in range(20):
                    self.node.notify(request.request_id, request.invocation_id)
                    if handler == "blocked.run":
                        os.kill(at_work["pid"], signal.SIGUSR1)
                if handler == "blocked.run":  # the loop takes none while a report holds it
                    self.node.wait_notices_taken()
                self.reports.release_all()
                self.assertEqual(self.report()["at"], "finally")
                self.assert_canceled(request)
                self.assertEqual(self.node.call({"how": "pid"}).kind, "response")
