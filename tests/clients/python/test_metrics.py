"""Metrics and quotas. Skipped, and counted, where the node does not have them."""

import unittest

from huaweicloudsdkfunctiongraph import v2 as fg

from case import ClientCase, source


def total(series):
    """The sum of a series; -1 is "no data"."""
    return sum(point.value for point in series or [] if point.value >= 0)


class Metrics(ClientCase):
    def setUp(self):
        super().setUp()
        self.create("f", source("plain.py"))
        for _ in range(3):
            self.invoke("f")
        self.refused(500, "FSS.4002", self.invoke, "f", {"raise": "one"})

    def test_a_function_has_its_series(self):
        request = fg.ShowFunctionMetricsRequest(func_urn=self.urn("f"), period="5")
        metrics = self.supported(self.client.show_function_metrics, request)
        self.assertEqual((total(metrics.count), total(metrics.fail_count)), (4, 1))
        for series in (metrics.duration, metrics.max_duration, metrics.min_duration, metrics.reject_count):
            for point in series:
                self.assertIsInstance(point.timestamp, int)

    def test_a_function_has_statistics_of_a_period(self):
        request = fg.ListFunctionStatisticsRequest(func_urn=self.urn("f"), period="5")
        statistics = self.supported(self.client.list_function_statistics, request)
        self.assertEqual((total(statistics.count), total(statistics.fail_count)), (4, 1))

    def test_the_instances_of_a_function_are_counted(self):
        request = fg.ShowFuncReservedInstanceMetricsRequest(func_urn=self.urn("f"))
        self.supported(self.client.show_func_reserved_instance_metrics, request)

    def test_a_project_has_statistics(self):
        request = fg.ListStatisticsRequest(filter="monitor_data", period="60")
        answer = self.supported(self.client.list_statistics, request)
        self.assertEqual(answer.status_code, 200)

    def test_functions_are_ranked(self):
        request = fg.ListFunctionAsMetricRequest(type="count", limit="10")
        answer = self.supported(self.client.list_function_as_metric, request)
        self.assertEqual(answer.status_code, 200)


class Quotas(ClientCase):
    def test_quotas_are_listed_with_what_is_used(self):
        answer = self.supported(self.client.list_quotas, fg.ListQuotasRequest())
        resources = {resource.type: resource for resource in answer.quotas.resources}
        self.assertTrue(resources)
        for resource in resources.values():
            self.assertIsInstance(resource.quota, int)
            self.assertIsInstance(resource.used, int)


if __name__ == "__main__":
    unittest.main()
