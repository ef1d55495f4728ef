"""A node under test: the built binary on a fresh data folder, and clients of the vendor's SDK for it."""

import atexit
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
FUNCTIONS = ROOT / "tests" / "clients" / "functions"

LIMIT = 60
"""Seconds. Nothing here takes a tenth of it; what has not come by then will not."""
LOOK_AGAIN = 0.01
"""Seconds between two looks at something that nothing tells of."""

HOME = tempfile.mkdtemp(prefix="quell-clients-home-")
"""The SDK writes ~/.huaweicloud/application_id when a client is made: not into the user's own."""
os.environ["HOME"] = HOME
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
for name in list(os.environ):
    if name.lower() in ("http_proxy", "https_proxy", "all_proxy") or name.startswith("HUAWEICLOUD_SDK_"):
        del os.environ[name]

from huaweicloudsdkcore.auth.credentials import BasicCredentials  # noqa: E402
from huaweicloudsdkfunctiongraph.v2 import FunctionGraphClient  # noqa: E402

MODES = ("signed", "token")


class Node:
    """A running `quell serve`; ended by its pid."""

    def __init__(self, *options):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="quell-clients-"))
        self.folder.chmod(0o711)  # runtimes of a node that is root are another user
        self.data = self.folder / "data"
        binary = os.environ.get("QUELL_TEST_BINARY") or TARGET / "debug" / "quell"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("QUELL_")}
        self.log = open(self.folder / "log", "w+b")
        self.process = subprocess.Popen(
            [str(binary), "serve", "--listen", "127.0.0.1:0", "--data", str(self.data), *options],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log)
        try:
            self._wait_until_it_listens()
            kept = json.loads((self.data / "client.json").read_text())
        except BaseException:
            self.stop()
            raise
        self.endpoint, self.project, self.token = kept["endpoint"], kept["project"], kept["token"]
        self.access_key, self.secret_key = kept.get("access_key"), kept.get("secret_key")
        self.mode = mode_for(self)

    def _wait_until_it_listens(self):
        until = time.monotonic() + LIMIT
        while "listening on " not in self.said():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the node did not start; it said:\n" + self.said())
            time.sleep(LOOK_AGAIN)

    def said(self):
        """What it has logged so far."""
        return (self.folder / "log").read_text(errors="replace")

    def stop(self):
        """SIGTERM twice (the second stops at once), and the exit collected; else SIGKILL."""
        for number in (signal.SIGTERM, signal.SIGINT):
            if self.process.poll() is None:
                self.process.send_signal(number)
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def client(self, mode=None, access_key=None, secret_key=None, token=None, security_token=None,
               project=None):
        """A client of the SDK; by default with the node's own credential in the mode of the run."""
        mode = mode or self.mode
        if mode == "signed":
            keys = (access_key or self.access_key, secret_key or self.secret_key)
            headers = {}
        else:
            # There is no credential for a token in this SDK: with an Authorization header it does not sign.
            keys = ("none", "none")
            headers = {"X-Auth-Token": self.token if token is None else token, "Authorization": "none"}
        credentials = BasicCredentials(*keys, project or self.project)
        if security_token:
            credentials.with_security_token(security_token)
        builder = FunctionGraphClient.new_builder().with_credentials(credentials)
        return Client(builder.with_endpoint(self.endpoint).build(), headers)


class Client:
    """Calls operations of the SDK by their names, with the headers of the mode."""

    def __init__(self, sdk, headers):
        self.sdk, self.headers = sdk, headers

    def __getattr__(self, operation):
        def call(request, **more):
            invoker = getattr(self.sdk, operation + "_invoker")(request)
            for name, value in {**self.headers, **more}.items():
                invoker.add_header(name.replace("_", "-"), value)
            return invoker.invoke()
        return call


def mode_for(node):
    """The one switch: QUELL_CLIENTS_MODE, else signed as soon as the node has keys to sign with."""
    mode = os.environ.get("QUELL_CLIENTS_MODE") or ("signed" if node.access_key else "token")
    if mode not in MODES:
        raise RuntimeError("QUELL_CLIENTS_MODE is %r, not one of %s" % (mode, MODES))
    if mode == "signed" and not node.access_key:
        raise RuntimeError("QUELL_CLIENTS_MODE is signed, and client.json of this node has no access_key")
    return mode


class Bell:
    """A loopback listener that functions ring; a line that ends says that the code at its end is gone."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listener.settimeout(LIMIT)
        self.port = self.listener.getsockname()[1]

    def ring(self):
        """The next that rings, and what it said."""
        line, _ = self.listener.accept()
        line.settimeout(LIMIT)
        return Ring(line)

    def close(self):
        self.listener.close()


class Ring:
    """One line to waiting code."""

    def __init__(self, line):
        self.line = line
        self.file = line.makefile("rb")
        self.said = self.hear()

    def hear(self):
        """The next thing it says, or None at the end of the line."""
        try:
            text = self.file.readline()
        except ConnectionResetError:
            return None
        return json.loads(text) if text else None

    def tell(self, what=b"go"):
        self.line.sendall(what)

    def assert_gone(self):
        """Returns once nothing is at the other end any more."""
        if self.hear() is not None:
            raise AssertionError("it still speaks")
        self.line.close()


if __name__ == "__main__":
    # Which modes this build of the node can be asked in, for the script that runs the suites.
    node = Node()
    node.stop()
    sys.stdout.write(" ".join(MODES if node.access_key else ("token",)) + "\n")
