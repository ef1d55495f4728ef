"""Who may ask: tokens, signatures by access key, and the temporary keys of a running request."""

import json
import unittest

from huaweicloudsdkfunctiongraph import v2 as fg

from case import UNKNOWN_ID, ClientCase, source

KEYS = b"""
import json, socket

def handler(event, context):
    line = socket.create_connection(("127.0.0.1", event["port"]))
    keys = [context.getSecurityAccessKey(), context.getSecuritySecretKey(), context.getSecurityToken()]
    line.sendall((json.dumps({"keys": keys, "token": context.getToken()}) + "\\n").encode())
    line.recv(100)
"""


class Credentials(ClientCase):
    def refused_everywhere(self, client):
        """Operations on functions say 401, cancel and the lists of requests 403."""
        self.refused(401, "FSS.0401", client.list_functions, fg.ListFunctionsRequest())
        self.refused(401, "FSS.0401", client.invoke_function, fg.InvokeFunctionRequest("f", body={}))
        self.refused(403, "FSS.0403", client.list_async_invocations, fg.ListAsyncInvocationsRequest("f"))
        body = fg.CancelAsyncInvocationRequestBody(request_id=UNKNOWN_ID)
        cancel = fg.CancelAsyncInvocationRequest(function_urn="f", body=body)
        error = self.refused(403, "FSS.0403", client.cancel_async_invocation, cancel)
        self.assertEqual(error.error_msg, "invalid token")

    def keys_of_a_running_request(self):
        """The line to it, its temporary keys and its token."""
        bell = self.bell()
        self.create("f", KEYS)
        self.create("child", source("plain.py"))
        request = self.invoke_async("f", {"port": bell.port})
        line = bell.ring()
        return request, line, line.said["keys"], line.said["token"]


class Tokens(Credentials):
    def test_a_token_opens_its_project(self):
        client = self.node.client(mode="token")
        self.assertEqual(client.list_functions(fg.ListFunctionsRequest()).functions, [])

    def test_a_wrong_token_is_refused(self):
        for token in ("wrong", self.node.token + "0", self.node.token[:-1], ""):
            with self.subTest(token[:3]):
                self.refused_everywhere(self.node.client(mode="token", token=token))

    def test_the_token_of_a_running_request_invokes_and_cannot_cancel(self):
        request, line, _, token = self.keys_of_a_running_request()
        client = self.node.client(mode="token", token=token)
        self.assertEqual(client.invoke_function(fg.InvokeFunctionRequest("child", body={})).status_code, 200)
        body = fg.CancelAsyncInvocationRequestBody(request_id=request, type="force")
        cancel = fg.CancelAsyncInvocationRequest(function_urn="f", body=body)
        self.refused(403, "FSS.0403", client.cancel_async_invocation, cancel)
        line.tell()
        self.settled("f", request)
        self.refused_everywhere(client)


class Signed(Credentials):
    """Only with keys to sign with; counted as skipped without."""

    def setUp(self):
        super().setUp()
        if not self.node.access_key:
            self.skipTest("no access_key in client.json: this node does not take signatures")

    def signed(self, **more):
        return self.node.client(mode="signed", **more)


class LockedKey(Signed):
    def test_six_wrong_secrets_in_a_row_lock_the_key_and_not_the_token(self):
        request = fg.ListFunctionsRequest()
        for _ in range(6):
            self.refused(401, "FSS.0401", self.signed(secret_key="wrong").list_functions, request)
        self.refused(401, "FSS.0401", self.signed().list_functions, request)
        self.assertEqual(self.node.client(mode="token").list_functions(request).status_code, 200)


class Signatures(Signed):
    def test_signed_requests_of_every_method_are_taken(self):
        client = self.signed()
        code = fg.FuncCode(file="ZGVmIGhhbmRsZXIoZXZlbnQsIGNvbnRleHQpOiByZXR1cm4gZXZlbnQ=")
        body = fg.CreateFunctionRequestBody(func_name="f", package="default", runtime="Python3.10", timeout=9,
                                            handler="index.handler", memory_size=128, code_type="inline",
                                            func_code=code, description="\u00e9\u4e2d")
        self.assertEqual(client.create_function(fg.CreateFunctionRequest(body=body)).func_name, "f")
        listed = client.list_functions(fg.ListFunctionsRequest(func_name="te st/\u4e2d&x=~", maxitems="3"))
        self.assertEqual(listed.count, 0)
        number = fg.UpdateFunctionMaxInstanceConfigRequestBody(max_instance_num=3)
        client.update_function_max_instance_config(fg.UpdateFunctionMaxInstanceConfigRequest("f", body=number))
        event = {"text": "\u00e9\u4e2d", "large": "x" * 1_000_000}
        answer = client.invoke_function(fg.InvokeFunctionRequest(
            function_urn=self.urn("f"), x_cff_request_version="v1", x_cff_log_type="tail", body=event))
        self.assertEqual(json.loads(answer.result), event)
        empty = fg.InvokeFunctionRequest(function_urn="f", x_cff_request_version="v1")
        self.assertEqual(client.invoke_function(empty).result, "{}")
        self.assertEqual(client.delete_function(fg.DeleteFunctionRequest("f")).status_code, 204)

    def test_a_wrong_secret_is_refused(self):
        for wrong in ("wrong", self.node.secret_key + "0"):
            self.refused_everywhere(self.signed(secret_key=wrong))
            # Too many wrong ones in a row lock the key; a right one ends the row.
            self.signed().list_functions(fg.ListFunctionsRequest())

    def test_an_unknown_access_key_is_refused(self):
        self.refused_everywhere(self.signed(access_key="AKUNKNOWN00000000000"))

    def test_the_keys_of_one_project_are_forbidden_in_another(self):
        client = self.signed(project="elsewhere")
        self.refused(403, "FSS.0403", client.list_functions, fg.ListFunctionsRequest())

    def test_a_signature_over_a_token_as_well_is_taken(self):
        listed = self.signed().list_functions(fg.ListFunctionsRequest(), X_Auth_Token=self.node.token)
        self.assertEqual(listed.status_code, 200)

    def test_temporary_keys_invoke_as_a_child_and_are_void_once_their_request_is_over(self):
        request, line, (access, secret, token), _ = self.keys_of_a_running_request()
        self.assertTrue(access and secret, "the context has temporary keys")
        client = self.signed(access_key=access, secret_key=secret, security_token=token)
        self.assertEqual(client.invoke_function(fg.InvokeFunctionRequest("child", body={})).status_code, 200)
        bell = self.bell()
        self.create("waits", source("waits.py"))
        event = {"port": bell.port}
        child = client.async_invoke_function(fg.AsyncInvokeFunctionRequest("waits", body=event)).request_id
        rung = bell.ring()
        rows = self.quell("requests/%s/tree" % request)["requests"]
        parents = {row["request_id"]: row["parent"] for row in rows}
        self.assertEqual(parents, {request: None, child: request})
        rung.tell()
        self.settled("waits", child)
        body = fg.CancelAsyncInvocationRequestBody(request_id=request)
        cancel = fg.CancelAsyncInvocationRequest(function_urn="f", body=body)
        self.refused(403, "FSS.0403", client.cancel_async_invocation, cancel)
        line.tell()
        self.settled("f", request)
        self.refused_everywhere(client)

    def test_a_wrong_or_missing_security_token_is_refused(self):
        request, line, (access, secret, token), _ = self.keys_of_a_running_request()
        self.assertTrue(access and secret and token, "the context has temporary keys and their token")
        for wrong in (None, "wrong", token + "0"):
            with self.subTest(str(wrong)[:5]):
                self.refused_everywhere(self.signed(access_key=access, secret_key=secret, security_token=wrong))
        self.refused_everywhere(self.signed(access_key=access, secret_key="wrong", security_token=token))
        line.tell()
        self.settled("f", request)


if __name__ == "__main__":
    unittest.main()
