"""Reserved instances. Skipped, and counted, where the node does not have them."""

import time
import unittest

from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkfunctiongraph import v2 as fg

import launcher
from case import ClientCase, source


class Reserved(ClientCase):
    def setUp(self):
        super().setUp()
        self.create("f", source("plain.py"))

    def reserve(self, count, urn=None):
        body = fg.UpdateFunctionReservedInstancesCountRequestBody(count=count, idle_mode=False)
        request = fg.UpdateFunctionReservedInstancesCountRequest(urn or self.urn("f"), body=body)
        return self.supported(self.client.update_function_reserved_instances_count, request)

    def ready(self):
        request = fg.ListFunctionReservedInstancesRequest(marker="0", limit="10")
        listed = self.client.list_function_reserved_instances(request)
        return {row.func_urn: row.count for row in listed.reservedinstances}

    def test_a_number_is_set_listed_and_taken_back(self):
        self.assertEqual(self.reserve(2).count, 2)
        self.addCleanup(self.reserve, 0)
        # The list has those that are ready, the configuration what was asked for.
        while self.ready() != {self.urn("f"): 2}:
            time.sleep(launcher.LOOK_AGAIN)
        configs = self.client.list_reserved_instance_configs(
            fg.ListReservedInstanceConfigsRequest(function_urn="f", marker="0", limit="10"))
        self.assertEqual([row.min_count for row in configs.reserved_instances], [2])
        self.assertEqual((configs.count, configs.page_info.current_count), (1, 1))
        self.assertEqual(self.reserve(0).count, 0)
        self.assertEqual([count for count in self.ready().values() if count], [])

    def test_a_function_with_reserved_instances_answers(self):
        self.reserve(1)
        self.addCleanup(self.reserve, 0)
        self.assertEqual(self.invoke("f").status, 200)

    def test_a_number_that_is_none_is_refused(self):
        self.reserve(0)
        with self.assertRaises(ClientRequestException) as caught:
            self.reserve(-1)
        self.assertEqual(caught.exception.status_code, 400)

    def test_a_function_that_is_not_there_is_not_found(self):
        self.reserve(0)
        self.refused(404, "FSS.1051", self.reserve, 1, "nowhere")


if __name__ == "__main__":
    unittest.main()
