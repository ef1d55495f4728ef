"""Versions and aliases. Skipped, and counted, where the node does not have them."""

import base64
import unittest

from huaweicloudsdkfunctiongraph import v2 as fg

from case import UNKNOWN_ID, ClientCase, encoded, source


def says(word):
    return b"def handler(event, context):\n    return %r\n" % word


class Versions(ClientCase):
    def setUp(self):
        super().setUp()
        self.create("f", says("first"))

    def publish(self, version=None, **more):
        body = fg.CreateFunctionVersionRequestBody(version=version, **more)
        request = fg.CreateFunctionVersionRequest(function_urn="f", body=body)
        return self.supported(self.client.create_function_version, request)

    def change(self, word):
        body = fg.UpdateFunctionCodeRequestBody(code_type="inline", func_code=fg.FuncCode(file=encoded(says(word))))
        self.client.update_function_code(fg.UpdateFunctionCodeRequest(function_urn="f", body=body))

    def alias(self, name, version, **more):
        body = fg.CreateVersionAliasRequestBody(name=name, version=version, **more)
        request = fg.CreateVersionAliasRequest(function_urn="f", body=body)
        return self.supported(self.client.create_version_alias, request)

    def result(self, version):
        return self.invoke(self.urn("f", ":" + version)).result


class Published(Versions):
    def test_a_version_keeps_its_code_and_is_invoked_by_its_urn(self):
        made = self.publish("v1", description="the first")
        self.assertEqual((made.version, made.func_urn), ("v1", self.urn("f", ":v1")))
        self.change("second")
        self.assertEqual((self.result("v1"), self.result("latest")), ("first", "second"))
        self.assertEqual(self.invoke("f").result, "second")
        shown = self.client.show_function_config(fg.ShowFunctionConfigRequest(self.urn("f", ":v1")))
        self.assertEqual(shown.version, "v1")
        code = self.client.show_function_code(fg.ShowFunctionCodeRequest(self.urn("f", ":v1")))
        self.assertEqual(base64.b64decode(code.func_code.file), says("first"))

    def test_a_version_without_a_name_gets_one_by_its_time(self):
        self.assertRegex(self.publish().version, r"^v\d{8}-\d{6}$")

    def test_versions_are_listed_by_pages(self):
        for number in range(3):
            self.change("n%d" % number)
            self.publish("v%d" % number)
        seen, marker = [], "0"
        while True:
            request = fg.ListFunctionVersionsRequest(function_urn="f", marker=marker, maxitems="2")
            page = self.client.list_function_versions(request)
            self.assertLessEqual(len(page.versions), 2)
            seen += [version.version for version in page.versions]
            if not page.next_marker:
                break
            marker = str(page.next_marker)
        self.assertEqual(sorted(seen), ["latest", "v0", "v1", "v2"])

    def test_a_version_that_is_there_or_not_or_unchanged_has_its_error(self):
        self.publish("v1")
        self.change("second")
        self.refused(409, "FSS.1062", self.publish, "v1")
        self.refused(404, "FSS.1052", self.result, "v9")

    def test_a_request_of_a_version_is_cancelled_by_its_urn(self):
        bell = self.bell()
        self.create("waits", source("waits.py"))
        body = fg.CreateFunctionVersionRequestBody(version="v1")
        request = fg.CreateFunctionVersionRequest(function_urn="waits", body=body)
        self.supported(self.client.create_function_version, request)
        urn = self.urn("waits", ":v1")
        running = self.invoke_async(urn, {"port": bell.port})
        line = bell.ring()
        self.refused(400, "FSS.0400", self.cancel, urn, UNKNOWN_ID)
        self.assertEqual(self.cancel(urn, running, "force").status_code, 200)
        line.assert_gone()
        self.assertEqual(self.settled(urn, running).error_code, 4208)

    def test_a_version_can_be_deleted_and_latest_stays(self):
        self.publish("v1")
        self.client.delete_function(fg.DeleteFunctionRequest(self.urn("f", ":v1")))
        self.refused(404, "FSS.1052", self.result, "v1")
        self.assertEqual(self.result("latest"), "first")


class Aliases(Versions):
    def test_an_alias_is_made_shown_listed_moved_and_deleted(self):
        self.publish("v1")
        made = self.alias("live", "v1", description="what is live")
        self.assertEqual((made.name, made.version), ("live", "v1"))
        self.assertEqual(made.alias_urn, self.urn("f", ":!live"))
        show = fg.ShowVersionAliasRequest(function_urn="f", alias_name="live")
        self.assertEqual(self.client.show_version_alias(show).description, "what is live")
        listed = self.client.list_version_aliases(fg.ListVersionAliasesRequest(function_urn="f"))
        self.assertEqual([alias.name for alias in listed.body], ["live"])
        self.change("second")
        self.publish("v2")
        self.assertEqual(self.result("!live"), "first")
        body = fg.UpdateVersionAliasRequestBody(version="v2", description="moved")
        self.client.update_version_alias(fg.UpdateVersionAliasRequest("f", alias_name="live", body=body))
        self.assertEqual(self.result("!live"), "second")
        delete = fg.DeleteVersionAliasRequest(function_urn="f", alias_name="live")
        self.assertEqual(self.client.delete_version_alias(delete).status_code, 204)
        self.refused(404, "FSS.1053", self.client.show_version_alias, show)
        self.refused(404, "FSS.1053", self.result, "!live")

    def test_an_alias_that_is_there_or_names_no_version_has_its_error(self):
        self.publish("v1")
        self.alias("live", "v1")
        self.refused(409, "FSS.1063", self.alias, "live", "v1")
        self.refused(404, "FSS.1052", self.alias, "other", "v9")

    def test_weights_of_a_second_version_are_kept(self):
        self.publish("v1")
        self.change("second")
        self.publish("v2")
        made = self.alias("live", "v1", additional_version_weights={"v2": 50})
        self.assertEqual(made.additional_version_weights, {"v2": 50})
        self.assertIn(self.result("!live"), ("first", "second"))


if __name__ == "__main__":
    unittest.main()
