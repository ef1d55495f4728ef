#!/usr/bin/env python3
"""A runtime that does its side of the Runtime API wrong, in the way that its event says.

It speaks to the node over bare sockets, as no client would. What it was answered is in its results.
"""

import json
import os
import signal
import socket
import subprocess
import threading
import time

HOST, PORT = os.environ["RUNTIME_API_ADDR"].split(":")
HANDLER = os.environ["RUNTIME_HANDLER"]


class Line:
    """One connection to the node."""

    def __init__(self):
        self.socket = socket.create_connection((HOST, int(PORT)))
        self.file = self.socket.makefile("rb")

    def send(self, method, path, body=b"", headers=()):
        head = ["%s %s HTTP/1.1" % (method, path), "Host: %s" % HOST, "Content-Length: %d" % len(body)]
        head += ["%s: %s" % header for header in headers]
        self.socket.sendall(("\r\n".join(head) + "\r\n\r\n").encode() + body)

    def answer(self):
        """(status, headers, body); status 0 if the node hung up."""
        first = self.file.readline().split()
        if len(first) < 2:
            return 0, {}, b""
        headers = {}
        while True:
            name, _, value = self.file.readline().decode().partition(":")
            if not name.strip():
                break
            headers[name.strip().lower()] = value.strip()
        return int(first[1]), headers, self.file.read(int(headers.get("content-length", 0)))

    def ask(self, method, path, body=b"", headers=()):
        self.send(method, path, body, headers)
        return self.answer()

    def close(self):
        self.file.close()
        self.socket.close()


class Work:
    """A request that was delivered."""

    def __init__(self, answer):
        status, headers, body = answer
        if status != 200:
            os._exit(1)  # the node is gone
        self.id = headers["x-cff-request-id"]
        self.invocation = headers["x-quell-invocation-id"]
        self.event = json.loads(body)

    def ring(self):
        bell = socket.socket(socket.AF_UNIX)
        bell.connect("\0quell-bell-%d" % self.event["port"])
        facts = {"tag": self.event.get("tag"), "request": self.id, "pid": os.getpid()}
        bell.sendall((json.dumps(facts) + "\n").encode())
        return bell

    def result(self, **more):
        return json.dumps({"request": self.id, "tag": self.event.get("tag"), **more}).encode()

    def respond(self, line, body, of=None):
        path = "/v1/runtime/invocation/response/" + (of or self.id)
        echo = [("X-Quell-Invocation-Id", self.invocation)] if of is None else []
        return line.ask("POST", path, body, echo)[0]


def work(line, work):
    work.respond(line, work.result())


def wait(line, work):
    told = work.ring().recv(100).decode()
    work.respond(line, work.result(told=told))


def spoof(line, work):
    """Answers for others, in each way, and then for itself."""
    other = work.event["other"]
    tried = []
    for path in ("response/" + other, "error/" + other, "response/" + work.event["nobody"], "response/nonsense"):
        tried.append(line.ask("POST", "/v1/runtime/invocation/" + path, b'{"errorMessage": "spoofed"}')[0])
    stolen = [("X-Quell-Invocation-Id", other + "-1")]
    tried.append(line.ask("POST", "/v1/runtime/invocation/response/" + other, b'"spoofed"', stolen)[0])
    work.respond(line, work.result(tried=tried))


def other_attempt(line, work):
    """Answers for an attempt of its own that never was, and for one of somebody else."""
    path = "/v1/runtime/invocation/response/" + work.id
    tried = []
    for echo in (work.id + "-7", work.id + "-x", work.event["nobody"] + "-1"):
        tried.append(line.ask("POST", path, b'"of another attempt"', [("X-Quell-Invocation-Id", echo)])[0])
    work.respond(line, work.result(tried=tried))


def twice(line, work):
    first = work.respond(line, work.result(told="first"))
    second = work.respond(line, work.result(told="second"))
    third = line.ask("POST", "/v1/runtime/invocation/error/" + work.id, b'{"errorMessage": "third"}')[0]
    bell = work.ring()
    bell.sendall((json.dumps([first, second, third]) + "\n").encode())


def late(line, work):
    """Ignores that it is told to end, and answers when the test says so."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    bell = work.ring()
    bell.recv(100)
    status = work.respond(line, work.result(told="too late"))
    bell.sendall(("%d\n" % status).encode())


def half(line, work):
    """Says that more is to come, and hangs up."""
    part = Line()
    head = "POST /v1/runtime/invocation/response/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    part.socket.sendall((head % work.id).encode() + b'{"half": ')
    part.close()


def half_chunked(line, work):
    part = Line()
    head = "POST /v1/runtime/invocation/response/%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    part.socket.sendall((head % work.id).encode() + b'9\r\n{"half": \r\n')
    part.close()


def slow(line, work):
    """A byte now and then: no idle limit ever passes."""
    part = Line()
    head = "POST /v1/runtime/invocation/response/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    part.socket.sendall((head % work.id).encode())
    work.ring()
    while True:
        part.socket.sendall(b" ")
        time.sleep(0.05)


def huge(line, work):
    part = Line()
    try:
        status = work.respond(part, b"x" * (7 << 20))
    except OSError:
        status = 0  # hung up on before it had sent everything
    work.ring().sendall(("%d\n" % status).encode())


def never(line, work):
    work.ring()
    threading.Event().wait()


def crash(line, work):
    """Dies in the middle of an answer; a child keeps its output open."""
    subprocess.Popen(["sleep", "600"])
    part = Line()
    head = "POST /v1/runtime/invocation/response/%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    part.socket.sendall((head % work.id).encode() + b'{"half": ')
    os.kill(os.getpid(), signal.SIGSEGV)
    threading.Event().wait()  # PID 1 of a namespace is spared by its own signals


def garbage(line, work):
    """What is no HTTP, a header without an end, a body that is not what it says."""
    answers = []
    nobody = work.event["nobody"].encode()
    for bytes in (b"\x00\xff\x16\x03\x01 hello\r\n\r\n", b"GET /v1/runtime HTTP/9.9\r\n\r\n",
                  b"POST /v1/runtime/invocation/response/%s HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"
                  % nobody,
                  b"POST /v1/runtime/invocation/response/%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked"
                  b"\r\n\r\nZZ\r\n" % nobody,
                  b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * (4 << 20)):
        part = Line()
        try:
            part.socket.sendall(bytes)
            answers.append(part.answer()[0])
        except OSError:
            answers.append(0)
        part.close()
    work.respond(line, work.result(answers=answers))


def poll_again(line, work):
    """Asks for work while it is at work."""
    if "again" in work.event:
        return
    work.event["again"] = True
    second = Work(Line().ask("GET", "/v1/runtime/invocation/request"))
    work.respond(line, work.result(second=second.id))


BEHAVIOURS = {do.__name__: do for do in (work, wait, spoof, other_attempt, twice, late, half, half_chunked, slow, huge,
                                         never, crash, garbage, poll_again)}


def serve():
    line = Line()
    while True:
        given = Work(line.ask("GET", "/v1/runtime/invocation/request"))
        BEHAVIOURS[given.event["do"]](line, given)


def race():
    """Answers whatever it is told of the request meanwhile; says at once that it has it."""
    bell = socket.socket(socket.AF_UNIX)
    bell.connect("\0quell-bell-" + json.loads(os.environ["RUNTIME_USERDATA"])["port"])

    def listen():
        line = Line()
        while line.ask("GET", "/v1/runtime/invocation/cancellation/next")[0] == 200:
            pass

    def answer():
        line = Line()
        turn = 0
        while True:
            given = Work(line.ask("GET", "/v1/runtime/invocation/request"))
            bell.sendall((json.dumps({"request": given.id, "tag": given.event["tag"]}) + "\n").encode())
            turn += 1
            time.sleep(turn % 5 / 1000)  # sooner or later than a cancel comes
            # Every other time as clients do that do not echo which delivery they answer.
            given.respond(line, given.result(), of=given.id if turn % 2 else None)

    threading.Thread(target=listen, daemon=True).start()
    threads = [threading.Thread(target=answer) for _ in range(int(os.environ["QUELL_CONCURRENCY"]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if HANDLER == "faulty.silent":
    print("the last words of one that never asks", flush=True)
    threading.Event().wait()
elif HANDLER == "faulty.race":
    race()
elif HANDLER == "faulty.two":
    threading.Thread(target=serve, daemon=True).start()
    serve()
else:
    serve()
