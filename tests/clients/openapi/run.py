"""Holds a node to its own description: schemathesis on /quell/v1/openapi.json, with things that are there.

Every answer must be one that the description has for it, no answer may be a 5xx, and nothing may pass without
a credential. The last line counts.
"""

import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
LIMIT = 60
"""Seconds until a node listens, and for anything one call does."""
RUN_LIMIT = 300
"""Seconds for all of schemathesis; it takes a tenth of it."""
EXAMPLES = "60"
SOURCE = b"import time\ndef handler(event, context):\n    time.sleep(600)\n"
LEFT_OUT = "positive_data_acceptance"
"""Some rules hold between fields (a login needs a password), which a schema of fields cannot say."""

ENDLESS = "/quell/v1/events"
"""An answer that goes on until the node ends would be waited for."""


class Node:
    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="quell-openapi-"))
        self.folder.chmod(0o711)
        binary = os.environ.get("QUELL_TEST_BINARY") or TARGET / "debug" / "quell"
        self.log = open(self.folder / "log", "w+b")
        self.process = subprocess.Popen(
            [str(binary), "serve", "--listen", "127.0.0.1:0", "--data", str(self.folder / "data"),
             "--refusal-limit", "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log)
        until = time.monotonic() + LIMIT
        while "listening on " not in self.said():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the node did not start; it said:\n" + self.said())
            time.sleep(0.01)
        self.client = json.loads((self.folder / "data" / "client.json").read_text())

    def said(self):
        return (self.folder / "log").read_text(errors="replace")

    def ask(self, method, path, body=None):
        request = urllib.request.Request(
            self.client["endpoint"] + path, method=method, data=json.dumps(body).encode() if body else None,
            headers={"X-Auth-Token": self.client["token"], "Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=LIMIT) as answer:
            return dict(answer.headers), json.loads(answer.read() or b"null")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.terminate()
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def things(node):
    """A live request, its instance, and a cancel."""
    functions = "/v2/default/fgs/functions"
    node.ask("POST", functions, {
        "func_name": "sleeper", "package": "default", "runtime": "Python3.10", "handler": "index.handler",
        "timeout": 600, "memory_size": 128, "code_type": "inline",
        "func_code": {"file": base64.b64encode(SOURCE).decode()}})
    live, gone = (node.ask("POST", functions + "/sleeper/invocations-async", {"n": n})[1]["request_id"]
                  for n in range(2))
    headers, _ = node.ask("POST", functions + "/sleeper/cancel", {"request_id": gone, "type": "force"})
    until = time.monotonic() + LIMIT
    while True:
        instances = [row["instance"] for row in node.ask("GET", "/quell/v1/node")[1]["instances"] if row["requests"]]
        if instances or time.monotonic() > until:
            break
        time.sleep(0.01)
    cancel = {name.lower(): value for name, value in headers.items()}["x-quell-cancel-id"]
    return {"requests/{id}": live, "requests/{id}/tree": live, "requests/{id}/plan": live,
            "cancels/{id}": cancel, "instances/{id}/output": instances[0]}


def main():
    node = Node()
    try:
        # A revoked or rotated id is gone for what comes after; those routes are tried with made-up ones too.
        made = node.ask("POST", "/quell/v1/credentials", {"scopes": ["read"]})[1]["key_id"]
        known = {**things(node), "credentials/{id}/rotate": made}
        config = "".join(
            "[[operations]]\ninclude-path = %s\nparameters = { id = %s }\n"
            % (json.dumps("/quell/v1/" + path), json.dumps(value)) for path, value in known.items())
        (node.folder / "schemathesis.toml").write_text(config)
        command = [
            str(pathlib.Path(sys.executable).with_name("schemathesis")), "--config-file",
            str(node.folder / "schemathesis.toml"), "run", node.client["endpoint"] + "/quell/v1/openapi.json",
            "-H", "X-Auth-Token: " + node.client["token"], "--max-examples", EXAMPLES, "--checks", "all",
            "--exclude-checks", LEFT_OUT, "--exclude-path", ENDLESS, "--no-color"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=RUN_LIMIT, cwd=node.folder)
        alive = node.process.poll() is None
        print(done.stdout)
        if not alive or "panicked" in node.said():
            print(node.said())
            done.returncode = 1
        cases = re.search(r"(\d+) generated", done.stdout)
        operations = re.search(r"Tested: (\d+)", done.stdout)
        cases, operations = (int(found.group(1)) if found else 0 for found in (cases, operations))
        print("clients, openapi: %d operations, %d cases, %s"
              % (operations, cases, "0 failed" if done.returncode == 0 else "FAILED"))
        return 1 if done.returncode or cases < 100 else 0
    finally:
        node.stop()


if __name__ == "__main__":
    sys.exit(main())
