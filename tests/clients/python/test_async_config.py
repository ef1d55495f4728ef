"""What a function says of its asynchronous requests."""

import unittest

from huaweicloudsdkfunctiongraph import v2 as fg

from case import ClientCase, source


class AsyncConfig(ClientCase):
    def setUp(self):
        super().setUp()
        for name in ("f", "g"):
            self.create(name, source("plain.py"))

    def put(self, **fields):
        body = fg.UpdateFunctionAsyncInvokeConfigRequestBody(**fields)
        request = fg.UpdateFunctionAsyncInvokeConfigRequest(function_urn="f", body=body)
        return self.client.update_function_async_invoke_config(request)

    def show(self):
        return self.client.show_function_async_invoke_config(
            fg.ShowFunctionAsyncInvokeConfigRequest(function_urn="f"))

    def test_it_is_set_shown_listed_and_removed(self):
        destination = fg.FuncDestinationConfig(destination="FunctionGraph", param='{"func_urn": "g"}')
        put = self.put(max_async_event_age_in_seconds=60, max_async_retry_attempts=3,
                       destination_config=fg.FuncAsyncDestinationConfig(on_failure=destination),
                       enable_async_status_log=True)
        for seen in (put, self.show()):
            self.assertEqual(seen.func_urn, self.urn("f"))
            self.assertEqual((seen.max_async_event_age_in_seconds, seen.max_async_retry_attempts), (60, 3))
            self.assertEqual(seen.destination_config.on_failure.destination, "FunctionGraph")
            self.assertEqual(seen.destination_config.on_failure.param, '{"func_urn": "g"}')
            self.assertIs(seen.enable_async_status_log, True)
            self.assertTrue(seen.created_time)
            self.assertTrue(seen.last_modified)
        request = fg.ListFunctionAsyncInvokeConfigRequest(function_urn="f", marker="0", limit="10")
        listed = self.client.list_function_async_invoke_config(request)
        self.assertEqual((listed.count, len(listed.async_invoke_configs)), (1, 1))
        self.assertEqual(listed.async_invoke_configs[0].max_async_retry_attempts, 3)
        self.assertEqual(listed.page_info.current_count, 1)
        delete = fg.DeleteFunctionAsyncInvokeConfigRequest(function_urn="f")
        self.assertEqual(self.client.delete_function_async_invoke_config(delete).status_code, 204)
        self.refused(404, "FSS.0404", self.show)
        self.refused(404, "FSS.0404", self.client.delete_function_async_invoke_config, delete)
        self.assertEqual(self.client.list_function_async_invoke_config(request).count, 0)

    def test_what_is_wrong_is_a_client_exception_that_names_it(self):
        error = self.refused(400, "FSS.1001", self.put, max_async_retry_attempts=4)
        self.assertIn("max_async_retry_attempts", error.error_msg)
        bucket = fg.FuncDestinationConfig(destination="OBS", param='{"bucket": "b"}')
        destinations = fg.FuncAsyncDestinationConfig(on_success=bucket)
        self.refused(400, "FSS.1001", self.put, destination_config=destinations)
        self.refused(404, "FSS.0404", self.show)

    def test_what_is_not_named_is_the_default(self):
        put = self.put()
        self.assertEqual((put.max_async_event_age_in_seconds, put.max_async_retry_attempts), (3600, 1))


if __name__ == "__main__":
    unittest.main()
