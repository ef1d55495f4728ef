"""Functions: create, list, show, change, delete."""

import base64
import hashlib
import unittest

from huaweicloudsdkfunctiongraph import v2 as fg

from case import ClientCase, encoded, source, zipped

PLAIN = source("plain.py")


class Functions(ClientCase):
    def test_a_function_from_plain_source_runs_and_is_described(self):
        created = self.create("plain", PLAIN, description="one", user_data='{"colour": "blue"}')
        self.assertEqual(created.status_code, 200)
        self.assertEqual(created.func_urn, self.urn("plain"))
        self.assertEqual((created.func_name, created.package, created.version), ("plain", "default", "latest"))
        self.assertEqual((created.runtime, created.handler), ("Python3.10", "index.handler"))
        self.assertEqual((created.timeout, created.memory_size), (120, 128))
        self.assertEqual((created.namespace, created.project_name), (self.node.project,) * 2)
        self.assertIsInstance(created.cpu, int)
        self.assertTrue(created.last_modified)
        self.assertEqual(created.digest, hashlib.sha512(PLAIN).hexdigest())
        self.assertIn('"event": 7', self.invoke("plain", 7).result)

    def test_a_function_from_an_inline_zip_and_one_of_code_type_zip_run(self):
        code = zipped({"main.py": b"import part\n\ndef go(event, context):\n    return part.WORD\n",
                       "part.py": b"WORD = 'from a zip'\n"})
        for name, kind in (("inline", "inline"), ("zip", "zip")):
            with self.subTest(kind):
                created = self.create(name, code, code_type=kind, code_filename="index.zip", handler="main.go")
                self.assertEqual(created.code_size, len(code))
                self.assertEqual(self.invoke(name).result, "from a zip")

    def test_the_configuration_is_shown_and_changed(self):
        self.create("config", PLAIN)
        changed = self.strategy("config", 3, 2, timeout=9, memory_size=256, description="two",
                                user_data='{"colour": "red"}', handler="index.text")
        self.assertEqual((changed.timeout, changed.memory_size), (9, 256))
        shown = self.client.show_function_config(fg.ShowFunctionConfigRequest(function_urn="config"))
        self.assertEqual((shown.timeout, shown.memory_size, shown.description), (9, 256, "two"))
        self.assertEqual((shown.handler, shown.user_data), ("index.text", '{"colour": "red"}'))
        self.assertEqual((shown.strategy_config.concurrency, shown.strategy_config.concurrent_num), (3, 2))
        self.assertIn("plain text", self.invoke("config").result)

    def test_the_code_is_shown_and_changed(self):
        self.create("code", PLAIN)
        request = fg.ShowFunctionCodeRequest(function_urn=self.urn("code"))
        self.assertEqual(base64.b64decode(self.client.show_function_code(request).func_code.file), PLAIN)
        code = b"def handler(event, context):\n    return 'second'\n"
        body = fg.UpdateFunctionCodeRequestBody(code_type="inline", func_code=fg.FuncCode(file=encoded(code)))
        changed = self.client.update_function_code(
            fg.UpdateFunctionCodeRequest(function_urn="code", body=body))
        self.assertEqual(changed.digest, hashlib.sha512(code).hexdigest())
        self.assertEqual(base64.b64decode(self.client.show_function_code(request).func_code.file), code)
        self.assertEqual(self.invoke("code").result, "second")

    def test_the_number_of_instances_is_changed_and_none_disables(self):
        self.create("instances", PLAIN)

        def most(number):
            body = fg.UpdateFunctionMaxInstanceConfigRequestBody(max_instance_num=number)
            request = fg.UpdateFunctionMaxInstanceConfigRequest(function_urn="instances", body=body)
            return self.client.update_function_max_instance_config(request)

        self.assertEqual(most(5).strategy_config.concurrency, 5)
        most(0)
        self.refused(400, "FSS.150434", self.invoke, "instances")
        self.assertEqual(most(-1).strategy_config.concurrency, -1)
        self.assertEqual(self.invoke("instances").status, 200)

    def test_functions_are_listed_by_pages_and_by_name(self):
        names = ["list-%d" % number for number in range(5)]
        for name in names:
            self.create(name, PLAIN)
        seen, marker, pages = [], "0", 0
        while True:
            request = fg.ListFunctionsRequest(marker=marker, maxitems="2", func_name="list-")
            page = self.client.list_functions(request)
            self.assertLessEqual(len(page.functions), 2)
            self.assertEqual(page.count, len(page.functions))
            seen += [function.func_name for function in page.functions]
            pages += 1
            if not page.next_marker:
                break
            marker = str(page.next_marker)
        self.assertEqual((sorted(seen), pages), (names, 3))
        whole = self.client.list_functions(fg.ListFunctionsRequest())
        self.assertLessEqual(set(names), {function.func_name for function in whole.functions})
        for filters in ({"func_name": "te st/\u4e2d"}, {"package_name": "elsewhere"}):
            empty = self.client.list_functions(fg.ListFunctionsRequest(**filters))
            self.assertEqual((empty.functions, empty.count), ([], 0))

    def test_a_deleted_function_is_gone(self):
        self.create("gone", PLAIN)
        deleted = self.client.delete_function(fg.DeleteFunctionRequest(function_urn=self.urn("gone", "")))
        self.assertEqual(deleted.status_code, 204)
        self.refused(404, "FSS.1051", self.client.show_function_config,
                     fg.ShowFunctionConfigRequest(function_urn="gone"))
        self.refused(404, "FSS.1051", self.client.delete_function,
                     fg.DeleteFunctionRequest(function_urn="gone"))

    def test_every_form_of_a_urn_names_the_function(self):
        self.create("forms", PLAIN)
        project = self.node.project
        for urn in ("forms", "default:forms", project + ":default:forms", project + ":default:forms:latest",
                    self.urn("forms", ""), self.urn("forms")):
            with self.subTest(urn):
                shown = self.client.show_function_config(fg.ShowFunctionConfigRequest(function_urn=urn))
                self.assertEqual(shown.func_urn, self.urn("forms"))


if __name__ == "__main__":
    unittest.main()
