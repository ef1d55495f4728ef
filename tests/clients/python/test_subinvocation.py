"""A function that uses the SDK itself, with nothing but the credentials of its own request."""

import json
import pathlib
import stat
import sysconfig
import threading
import unittest

from huaweicloudsdkfunctiongraph import v2 as fg

from case import ClientCase, source

AT_ONCE = 8
SITE = pathlib.Path(sysconfig.get_paths()["purelib"])
"""Where the SDK lies."""


def others_can_reach(folder):
    return all(part.stat().st_mode & stat.S_IXOTH for part in (folder, *folder.parents))


class SubInvocation(ClientCase):
    # Functions of a node that is root are another user, who has to come to the SDK.
    OPTIONS = () if others_can_reach(SITE) else ("--runtime-user", "node")

    def setUp(self):
        super().setUp()
        if SITE.is_relative_to("/tmp"):
            self.skipTest("the SDK is installed below /tmp, and an instance has a /tmp of its own")
        self.ringing = self.bell()
        self.user_data = json.dumps({"site": str(SITE), "mode": self.node.mode})

    def deploy(self, handler, **more):
        """The parent, all of it in one instance, and its child."""
        settings = dict(user_data=self.user_data, handler=handler, memory_size=512,
                        initializer_handler="index.initialize", initializer_timeout=60)
        self.create("parent", source("sdk_parent.py"), **settings)
        limits = {"concurrency": 1, "concurrent_num": AT_ONCE}
        body = dict(settings, func_name="parent", runtime="Python3.10", timeout=120, strategy_config=limits, **more)
        self.client.update_function_config(fg.UpdateFunctionConfigRequest(function_urn="parent", body=body))
        self.create("child", source("waits.py"))
        self.strategy("child", AT_ONCE, 1)

    def tree(self, request):
        return {row["request_id"]: row for row in self.quell("requests/%s/tree" % request)["requests"]}

    def test_each_of_eight_at_once_in_one_instance_is_the_parent_of_exactly_its_child(self):
        self.deploy("index.handler")
        answers = {}

        def call(tag):
            request = fg.InvokeFunctionRequest(function_urn="parent", x_cff_request_version="v1",
                                               body={"tag": tag, "port": self.ringing.port})
            answers[tag] = json.loads(self.node.client().invoke_function(request).result)

        callers = [threading.Thread(target=call, args=(str(number),)) for number in range(AT_ONCE)]
        for caller in callers:
            caller.start()
        lines = [self.ringing.ring() for _ in range(AT_ONCE)]
        parents, instances = {}, set()
        for line in lines:
            rows = self.tree(line.said["request"])
            child = rows[line.said["request"]]
            parent = rows[child["parent"]]
            self.assertEqual(set(rows), {child["request_id"], parent["request_id"]})
            self.assertEqual(parent["function"], "default:parent")
            parents[line.said["tag"]] = parent["request_id"]
            instances.add(parent["instance"])
        self.assertEqual((len(set(parents.values())), len(instances)), (AT_ONCE, 1))
        for line in lines:
            line.tell()
        for caller in callers:
            caller.join()
        for tag, answer in answers.items():
            self.assertEqual(answer["request"], parents["child of " + tag])
            self.assertEqual(answer["child"]["tag"], "child of " + tag)
            self.assertEqual(answer["mode"], self.node.mode)
        self.assertEqual(len(answers), AT_ONCE)

    def test_a_recursive_cancel_of_the_parent_ends_the_child_that_the_sdk_started(self):
        self.deploy("index.handler")
        parent = self.invoke_async("parent", {"tag": "p", "port": self.ringing.port})
        line = self.ringing.ring()
        self.assertEqual(self.cancel("parent", parent, "recursive").status_code, 200)
        line.assert_gone()
        self.assertEqual(self.settled("parent", parent).error_code, 4208)

    def test_a_cancelled_parent_that_runs_on_can_start_nothing(self):
        # A long grace, in which its code goes on; the model of the SDK has no words for it, so a plain object.
        self.deploy("index.stubborn", quell={"grace_ms": 50_000})
        parent = self.invoke_async("parent", {"tag": "p", "port": self.ringing.port})
        line = self.ringing.ring()
        body = fg.CancelAsyncInvocationRequestBody(request_id=parent)
        cancel = fg.CancelAsyncInvocationRequest(function_urn="parent", body=body)
        self.assertEqual(self.client.cancel_async_invocation(cancel, Prefer="respond-async").status_code, 200)
        self.assertEqual(line.hear(), {"swallowed": True})
        line.tell(b"on")
        told, *outcomes = line.hear()["outcomes"]
        self.assertEqual((told, len(outcomes)), ("on", 2))
        for outcome in outcomes:
            self.assertRegex(outcome, r"^(401 FSS\.0401|403 FSS\.0403|500 FSS\.4208)$")
        listed = self.client.list_async_invocations(fg.ListAsyncInvocationsRequest(function_urn="child"))
        self.assertEqual(listed.invocations, [])
        self.assertEqual(self.cancel("parent", parent, "force").status_code, 200)
        line.assert_gone()
        self.assertEqual(self.settled("parent", parent).error_code, 4208)


if __name__ == "__main__":
    unittest.main()
