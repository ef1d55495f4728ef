#!/usr/bin/env python3
"""A part of a tree whose parts are of all kinds of runtimes, as an HTTP server: see tree.py, which lies beside it."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, os.environ["RUNTIME_CODE_ROOT"])
import tree


class Part(BaseHTTPRequestHandler):
    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        token = self.headers["X-CFF-Auth-Token"]
        others, waited = tree.split(event)
        for child in others:
            tree.invoke(child, token, "invocations-async")
        line = tree.connect(event)
        tree.tell(line, event, self.headers["X-CFF-Request-Id"])
        if waited:
            tree.invoke(waited, token, "invocations")
        else:
            line.recv(10)
        line.close()
        body = json.dumps({"tag": event["tag"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Part).serve_forever()
